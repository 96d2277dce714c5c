"""What is read for a request into a live database of an engine without versions: how the clone differs from the
snapshot that it came from, computed on a scratch server of that, and what is left of it beside the live rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coppice.api.v1alpha1 import Publish, Verb
from coppice.core.plan import read_note
from coppice.engines.base import Content, Endpoint, EngineError
from coppice.engines.digests import sealed
from coppice.engines.merging import Assertion, AssertionResult, ChangeSet, MergeOutcome
from coppice.engines.patching import JudgedPatch, PatchingEngine, PatchInputs, RefusedError
from coppice.manifests.network import Peer
from coppice.reconcile.access import Asked, Source, read_consent_for
from coppice.reconcile.adopted import Adoption, read_writer
from coppice.reconcile.changerequest.computations import FoundPatch, LeftPatch
from coppice.reconcile.changerequest.judgement import is_due, judge_request
from coppice.reconcile.changerequest.observation import Party, PatchSeen, Proposed, RequestObservation, Target
from coppice.reconcile.changerequest.reading import Reading, pod_of
from coppice.reconcile.changerequest.resolutions import decisions_of
from coppice.reconcile.changerequest.rules import rules_of
from coppice.reconcile.changerequest.sources import clone_problem
from coppice.reconcile.reads import Answer, Server, ask
from coppice.reconcile.storenames import admin_secret_name

TRANSACTION = "xid:"
"""How the name of a transaction begins that the operator has written in."""
HANDED_OVER = "patch:"
"""How the name of a patch begins that somebody else runs."""


@dataclass(frozen=True, slots=True)
class _Servers:
    """The three that are asked: the base, the clone, and the live one where its rows can be read."""

    base: Endpoint
    clone: Endpoint
    target: Target | None
    computed: tuple[str, str, str]
    """What names the base, the clone, and what the clone held when it was looked at."""


@dataclass(frozen=True, slots=True)
class PatchReading(Reading):
    """The reads for one request whose store has an engine that patches."""

    engine: PatchingEngine

    async def all(self, seen: RequestObservation) -> RequestObservation:
        """Read on for as long as what was found allows it."""
        content = None if seen.store is None else seen.store.content
        if content is None or content.state_of(self.request.spec.into.branch) is None:
            return seen
        seen = await self._of_clone(await self._fate(seen, content))
        patching = seen.patching
        if patching is None or patching.landed is not None:
            return seen
        if patching.target is None and (patching.writer is not None or self.request.spec.publish is Publish.DATABASE):
            return seen
        servers = await self._servers(seen, content)
        if servers is None:
            return seen
        return await self._judged_again(await self.reviews(await self._computed(seen, servers, content)))

    # -- the servers --

    async def store(self, seen: RequestObservation) -> RequestObservation:
        """Ask the store's server what it holds, and find who may write there."""
        source = seen.source
        if source is None or source.manifest is None:
            return seen
        peer = Peer(source.namespace, str(source.manifest["metadata"]["uid"]), "store")
        if isinstance(source.server, Adoption):
            return await self._adopted(seen, source, source.server, peer)
        answer, name = await ask(self.engine, source.endpoint, database=source.database), admin_secret_name(source.name)
        party = Party(peer, name, source.server, answer)
        target, seal = _target(self.engine, party), party.server.credentials.get("admin-password", "")
        return replace(seen, store=party, patching=PatchSeen(target=target, seal=seal))

    async def _adopted(
        self, seen: RequestObservation, source: Source, found: Adoption, peer: Peer
    ) -> RequestObservation:
        answer = await ask(self.engine, found.endpoint(self.engine), database=source.database)
        party = Party(peer, found.secret_name, Server(), answer)
        writer = await read_writer(self.reader, found)
        patching = PatchSeen(writer=writer, seal="" if found.login is None else found.login.password)
        if writer is None:
            return replace(seen, store=party, patching=patching)
        endpoint, ref = writer.endpoint(self.engine), writer.server_ref(self.engine)
        told = await ask(self.engine, endpoint, database=source.database)
        if endpoint is not None and ref is not None and told is not None and told.content is not None:
            patching = replace(patching, target=Target(endpoint, ref), seal=endpoint.password)
        return replace(seen, store=party, patching=replace(patching, answer=told))

    async def _of_clone(self, seen: RequestObservation) -> RequestObservation:
        """Read the clone, and the DataSnapshot that it came from."""
        own, wanted, patching = self.request.metadata.namespace, self.request.spec.from_.clone, seen.patching
        if wanted is None or patching is None:
            return seen
        where, store = wanted.namespace or own, self.request.spec.store.name
        asked = Asked(store, own, where, Verb.PROPOSE)
        consent = await read_consent_for(self.reader, self.environment.forges, asked, wanted.name)
        seen = replace(seen, terms=consent.terms, refusal=consent.refusal)
        if consent.terms is None:
            return seen
        seen = replace(seen, origin=await self.clone(wanted.name, where))
        serving, scratch = seen.origin.serving, seen.scratch.serving
        if clone_problem(self.request, seen) is not None or serving is None:
            return seen
        snapshot = await self.reader.get("DataSnapshot", serving.origin.snapshot, own)
        if snapshot is not None and snapshot["metadata"]["uid"] != serving.origin.snapshot_uid:
            snapshot = None
        based = scratch is not None and scratch.origin.snapshot_uid == serving.origin.snapshot_uid
        return replace(seen, patching=replace(patching, snapshot=snapshot, based=based))

    async def _servers(self, seen: RequestObservation, content: Content) -> _Servers | None:
        """Return who is asked, once all are up; the clone is looked at with one cheap question."""
        scratch, origin, patching = seen.scratch.party, seen.origin.party, seen.patching
        if scratch is None or origin is None or patching is None or not patching.based:
            return None
        base, clone = scratch.app_endpoint(self.engine), origin.app_endpoint(self.engine)
        looked = origin.server.endpoint(self.engine)
        if base is None or clone is None or looked is None:
            return None
        try:
            mark = await self.engine.mark(looked, content.database)
        except EngineError:
            return None
        return _Servers(base, clone, patching.target, (pod_of(scratch), pod_of(origin), mark))

    # -- what comes of it --

    async def _fate(self, seen: RequestObservation, content: Content) -> RequestObservation:
        """Ask what became of the transaction that was noted before it was to be committed."""
        (noted, _), patching = read_note(self.request.status.publishing), seen.patching
        if patching is None or patching.target is None or not noted.startswith(TRANSACTION):
            return seen
        try:
            fate = await self.engine.fate(patching.target.endpoint, content.database, noted)
        except EngineError as error:
            # Nobody goes on before that is known.
            return replace(seen, patching=replace(patching, target=None, answer=Answer(error=error)))
        landed = noted if fate == "Committed" else None
        return replace(seen, patching=replace(patching, fate=fate, landed=landed))

    async def _computed(self, seen: RequestObservation, servers: _Servers, content: Content) -> RequestObservation:
        """Compare, merge with the live rows, and ask the owners' checks."""
        patching, scratch = seen.patching, seen.scratch.party
        if patching is None or scratch is None:
            return seen
        try:
            found = await self._found(servers, content)
            if isinstance(found, RefusedError):
                return replace(seen, merged=found)
            proposed = Proposed(sealed(found.changes.digest, patching.seal), self.request.spec.into.branch)
            left = await self._left(servers, content, found)
            checks = await self._checked(seen, servers, content, found)
        except EngineError as error:
            return replace(seen, merged=error)
        outcome = self._outcome(seen, left, content)
        noted, of = read_note(self.request.status.publishing)
        # The live database may hold all that the clone has changed since, and nothing of what was approved.
        there = left.judged.complete and of == proposed.head
        landed = noted if there and (noted.startswith(HANDED_OVER) or patching.fate == "Unknown") else None
        mark = scratch.server.credentials.get("app-password", "")
        patching = replace(patching, patch=left.patch, mark=mark, landed=landed)
        return replace(seen, proposed=proposed, merged=outcome, checks=tuple(checks), patching=patching)

    async def _found(self, servers: _Servers, content: Content) -> FoundPatch | RefusedError:
        """Return what the clone has changed, or why that cannot be written."""

        async def compare() -> FoundPatch | RefusedError:
            try:
                patch = await self.engine.patch(servers.base, servers.clone, content.database)
            except RefusedError as error:
                return error
            return FoundPatch(patch, patch.changes, patch.size)

        name = f"found {self.request.metadata.uid}"
        return await self.computations.patches.once(name, servers.computed, compare, like=servers.computed[:2])

    async def _left(self, servers: _Servers, content: Content, found: FoundPatch) -> LeftPatch:
        """Return what is left of it to write; all of it where nobody can tell what the live rows are."""
        target = servers.target
        if target is None:
            return LeftPatch(JudgedPatch(found.patch), found.changes, size=0)
        inputs = PatchInputs(self.request.metadata.uid, decisions_of(self.request.spec.resolutions))

        async def judge() -> LeftPatch:
            judged = await self.engine.judge(target.endpoint, content.database, found.patch, inputs)
            return LeftPatch(judged, judged.patch.changes, judged.patch.size)

        key = (found.changes.digest, inputs, content.state_of(self.request.spec.into.branch))
        return await self.computations.patches.once(f"left {self.request.metadata.uid}", key, judge)

    async def _checked(
        self, seen: RequestObservation, servers: _Servers, content: Content, found: FoundPatch
    ) -> Sequence[AssertionResult]:
        """Ask the owners' queries what they find of the base with the change."""
        wanted = [Assertion(check.name, check.sql) for check in rules_of(seen).checks if check.sql is not None]
        if not wanted:
            return ()

        async def check() -> Sequence[AssertionResult]:
            return await self.engine.try_patch(servers.base, content.database, found.patch, wanted)

        key = (servers.computed[0], found.changes.digest, tuple(wanted))
        name = f"checked {self.request.metadata.uid}"
        return await self.computations.patches.once(
            name, key, check, keeps=lambda results: not any(result.error for result in results)
        )

    def _outcome(self, seen: RequestObservation, left: LeftPatch, content: Content) -> MergeOutcome:
        """Return what has come of it, as of a merge: with nothing left to write it is the target as it is."""
        serving, judged, changes = seen.origin.serving, left.judged, left.changes
        state = content.state_of(self.request.spec.into.branch)
        if serving is None or state is None:
            raise TypeError("what is compared has a source and a target")
        nothing = not (judged.conflicts or changes.tables or changes.statements)
        if judged.complete or nothing:
            return MergeOutcome(serving.origin.snapshot, state.head, ChangeSet((), (), changes.digest))
        return MergeOutcome(
            base=serving.origin.snapshot,
            result=None if judged.conflicts else changes.digest,
            changes=None if judged.conflicts else changes,
            conflicts=judged.names,
            total=len(judged.conflicts) + len(judged.decided),
            decided=len(judged.decided),
            unused=judged.unused,
        )

    async def _judged_again(self, seen: RequestObservation) -> RequestObservation:
        """Read once more what decides whether it may be written, just before it is."""
        verdict, outcome = judge_request(self.request, seen), seen.outcome
        if outcome is not None and outcome.changes is not None:
            digest = outcome.changes.digest
            refused = self.computations.refusals.find(self.request.metadata.uid, digest, seen.now)
            seen = replace(seen, refused=refused)
        if verdict is None or seen.patching is None or not is_due(self.request, seen, verdict):
            return seen
        decided = await self.decided(seen)
        return replace(seen, patching=replace(seen.patching, patch=None)) if decided is None else decided


def _target(engine: PatchingEngine, party: Party) -> Target | None:
    """Return a server of Coppice's own as it is written to: as applications do."""
    endpoint = party.app_endpoint(engine)
    return None if endpoint is None else Target(endpoint, replace(party.ref(engine), as_app=True))
