"""What is read for a request, and what is computed on its scratch server: a merge is a computation there, and the same
one finds what it has made.
"""

from __future__ import annotations

from asyncio import gather
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from secrets import token_urlsafe
from typing import Any, Final, TypeVar

from coppice.api.v1alpha1 import DataChangeRequest, DataClone, DataReview, InvalidResource, StoreRef, Verb
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Manifest
from coppice.engines.base import Content, EngineError, Reference, UnknownVersionError
from coppice.engines.merging import Assertion, MergeInputs, MergeOutcome, MergingEngine, Signature
from coppice.kube.client import KubeReader
from coppice.manifests.admission import build_policies
from coppice.manifests.job import CHECK_ROLE, MIGRATE_ROLE
from coppice.manifests.meta import Owner
from coppice.manifests.network import Peer
from coppice.reconcile.access import Source, reach, read_source, read_terms
from coppice.reconcile.changerequest.identity import identity_problem, unvouched
from coppice.reconcile.changerequest.judgement import is_due, judge_request
from coppice.reconcile.changerequest.message import commit_message
from coppice.reconcile.changerequest.observation import CheckJobs, CloneSeen, Party, Proposed, RequestObservation
from coppice.reconcile.changerequest.resolutions import decisions_of
from coppice.reconcile.changerequest.rules import rebases, rules_of
from coppice.reconcile.changerequest.scratch import build_passages, revert_branch, scratch_name
from coppice.reconcile.changerequest.sources import clone_problem, merging_engine, revert_problem, store_problem
from coppice.reconcile.clone.names import engine_secret_name, secret_name
from coppice.reconcile.copies import find_copies, serving_copy
from coppice.reconcile.environment import Environment
from coppice.reconcile.observed import is_deleting, is_true, label
from coppice.reconcile.reads import Server, ask, get_each
from coppice.reconcile.storenames import admin_secret_name

MAX_REMEMBERED: Final = 512
_PASSWORD_BYTES: Final = 24
T = TypeVar("T")


class Computations:
    """What was computed last, by what it was computed from: a request at which nothing has changed costs its server
    nothing.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}

    async def once(self, key: Hashable, compute: Callable[[], Awaitable[T]], keeps: Callable[[T], bool]) -> T:
        """Return the outcome of a computation, which is remembered if it is one to keep."""
        if key in self._known:
            known: T = self._known[key]
            return known
        outcome = await compute()
        if keeps(outcome):
            self._known[key] = outcome
        for oldest in list(self._known)[:-MAX_REMEMBERED]:
            del self._known[oldest]
        return outcome


async def observe_request(
    reader: KubeReader, environment: Environment, computations: Computations, key: Key, now: datetime
) -> RequestObservation | None:
    """Read a request, and whatever it takes to say what is next."""
    manifest = await reader.get("DataChangeRequest", key.name, key.namespace)
    if manifest is None:
        return None
    request = DataChangeRequest.parse(manifest)
    seen = RequestObservation(manifest, now, request)
    seen = replace(seen, policies=await _read_policies(reader, manifest))
    if isinstance(request, InvalidResource):
        return seen
    if request.status.published is not None:
        scratch = await reader.get("DataClone", scratch_name(request), key.namespace)
        return replace(seen, scratch=CloneSeen(scratch), check_jobs=await _read_check_jobs(reader, seen, ()))
    source = await _read_store(reader, environment, request)
    seen = replace(seen, source=source)
    engine = merging_engine(source)
    if engine is None:
        return seen
    reading = _Reading(reader, environment, computations, request, engine)
    if is_deleting(manifest):
        return await reading.to_sweep(seen)
    seen = await reading.scratch(seen)
    if store_problem(request, source) is not None:
        return seen
    return await reading.all(await reading.store(seen))


async def _read_policies(reader: KubeReader, manifest: Manifest) -> tuple[Manifest, ...]:
    """Read the passages that were made for a request, wherever they are."""
    return tuple(await reader.list("NetworkPolicy", None, {labels.OWNER_UID: manifest["metadata"]["uid"]}))


async def _read_check_jobs(reader: KubeReader, seen: RequestObservation, names: Sequence[str]) -> CheckJobs:
    """Read the Jobs of these names that the owners' checks are made from, and all that was made for checks."""
    metadata = seen.manifest["metadata"]
    mine, namespace = {labels.OWNER_UID: metadata["uid"], labels.ROLE: CHECK_ROLE}, metadata["namespace"]
    jobs, pods, secrets = await gather(*(reader.list(kind, namespace, mine) for kind in ("Job", "Pod", "Secret")))
    found = await get_each(reader, namespace, *(("Job", name) for name in names))
    templates = dict(zip(names, found, strict=True))
    return CheckJobs(templates, tuple(jobs), tuple(pods), tuple(secrets), password=token_urlsafe(_PASSWORD_BYTES))


async def _read_store(reader: KubeReader, environment: Environment, request: DataChangeRequest) -> Source:
    namespace = request.metadata.namespace
    reference = StoreRef(name=request.spec.store.name)
    source = await read_source(reader, environment, reference, namespace=namespace, verb=Verb.PROPOSE)
    return source if merging_engine(source) is None or source.is_adopted else await reach(reader, source)


@dataclass(frozen=True, slots=True)
class _Reading:
    """The reads for one request whose store has an engine that merges."""

    reader: KubeReader
    environment: Environment
    computations: Computations
    request: DataChangeRequest
    engine: MergingEngine

    async def all(self, seen: RequestObservation) -> RequestObservation:
        """Read on for as long as what was found allows it."""
        content = None if seen.store is None else seen.store.content
        target = None if content is None else content.state_of(self.request.spec.into.branch)
        if content is None or target is None:
            return self.passages(seen)
        if rebases(self.request):
            seen = await self._taken_up(await self._proposed(seen))
        else:
            seen = await self._landed(seen, content, target.head)
        if seen.landed is not None:
            return seen
        seen = self.passages(seen if rebases(self.request) else await self._proposed(seen))
        seen = await self._lacking(seen, content, target.head)
        seen = await self._reviews(await self._check_jobs(await self._merged(seen, content, target.head)))
        seen = await self._final(await self._previewed(seen), content, target.head)
        return await self._judged_again(seen, content)

    # -- the servers --

    async def store(self, seen: RequestObservation) -> RequestObservation:
        """Ask the store's server what it holds."""
        source = seen.source
        if source is None or source.manifest is None or not isinstance(source.server, Server):
            return seen
        answer = await ask(self.engine, source.endpoint, database=source.database)
        peer = Peer(source.namespace, str(source.manifest["metadata"]["uid"]), "store")
        return replace(seen, store=Party(peer, admin_secret_name(source.name), source.server, answer))

    async def to_sweep(self, seen: RequestObservation) -> RequestObservation:
        """Ask the servers that others may have been let into for the request's sake."""
        seen, wanted = await self.store(seen), self.request.spec.from_.clone
        if wanted is None or not self.request.status.source:
            return seen
        origin = await self._clone(wanted.name, wanted.namespace or self.request.metadata.namespace)
        return replace(seen, origin=await self._asked(origin))

    async def scratch(self, seen: RequestObservation) -> RequestObservation:
        """Read the scratch clone, and ask its server once it is Ready."""
        scratch = await self._clone(scratch_name(self.request), self.request.metadata.namespace)
        if scratch.manifest is None:
            return replace(seen, scratch=scratch, ahead=await self._ahead())
        if not is_true(scratch.manifest, "Ready"):
            return replace(seen, scratch=replace(scratch, party=None))
        return replace(seen, scratch=await self._asked(scratch))

    async def _ahead(self) -> tuple[DataChangeRequest, ...]:
        """Read the open requests into the same store that came before this one."""
        listed = await self.reader.list("DataChangeRequest", self.request.metadata.namespace)
        parsed = [DataChangeRequest.parse(found) for found in listed if not is_deleting(found)]
        return tuple(
            other
            for other in parsed
            if isinstance(other, DataChangeRequest)
            and other.spec.store == self.request.spec.store
            and other.status.published is None
            and _age(other) < _age(self.request)
        )

    def passages(self, seen: RequestObservation) -> RequestObservation:
        """Find which ways are wanted between the servers that the scratch server has to do with."""
        store, scratch, origin = seen.source, seen.scratch.clone, seen.origin.clone
        if store is None or store.manifest is None or not isinstance(scratch, DataClone):
            return seen
        wanted = build_passages(
            Owner.of(seen.manifest),
            self.engine,
            scratch=Peer(scratch.metadata.namespace, scratch.metadata.uid, "clone"),
            store=Peer(store.namespace, str(store.manifest["metadata"]["uid"]), "store"),
            origin=Peer(origin.metadata.namespace, origin.metadata.uid, "clone")
            if isinstance(origin, DataClone)
            else None,
            rebases=rebases(self.request),
        )
        return replace(seen, passages=tuple(wanted))

    async def _clone(self, name: str, namespace: str) -> CloneSeen:
        manifest = await self.reader.get("DataClone", name, namespace)
        clone = None if manifest is None else DataClone.parse(manifest)
        if manifest is None or clone is None or isinstance(clone, InvalidResource):
            return CloneSeen(manifest, clone)
        mine = {labels.OWNER_UID: clone.metadata.uid}
        key = engine_secret_name(name, clone.metadata.uid)
        claims, pods, (binding, secret) = await gather(
            self.reader.list("PersistentVolumeClaim", namespace, mine),
            self.reader.list("Pod", namespace, mine),
            get_each(self.reader, namespace, ("Secret", secret_name(clone)), ("Secret", key)),
        )
        servers = [pod for pod in pods if label(pod, labels.ROLE) != MIGRATE_ROLE]
        serving = serving_copy(find_copies(claims, servers), binding)
        if serving is None or is_deleting(manifest):
            return CloneSeen(manifest, clone)
        peer = Peer(namespace, clone.metadata.uid, "clone")
        return CloneSeen(manifest, clone, serving, Party(peer, key, Server(serving.pod, secret)))

    async def _asked(self, seen: CloneSeen) -> CloneSeen:
        if seen.party is None or seen.serving is None:
            return seen
        endpoint = seen.party.server.endpoint(self.engine)
        answer = await ask(self.engine, endpoint, database=seen.serving.origin.version.database)
        return replace(seen, party=replace(seen.party, answer=answer))

    # -- what is proposed --

    async def _proposed(self, seen: RequestObservation) -> RequestObservation:
        wanted = self.request.spec.from_
        if wanted.branch is not None:
            return replace(seen, proposed=await self._head(seen.store, wanted.branch))
        if wanted.clone is not None:
            seen = await self._of_clone(seen, wanted.clone.name, wanted.clone.namespace)
        if wanted.revert_of is not None:
            seen = await self._of_revert(seen, wanted.revert_of)
        return seen

    async def _head(self, party: Party | None, branch: str) -> Proposed | None:
        """Return where a branch is, and whether all of it is in commits."""
        state = None if party is None or party.content is None else party.content.state_of(branch)
        if party is None or state is None:
            return None
        try:
            at = party.endpoint(self.engine)
            saved = await self.engine.resolve(at, state.database, Reference(commit=state.head))
        except EngineError:
            return None
        return Proposed(state.head, branch, unsaved=saved.working_root != state.working_root)

    async def _of_clone(self, seen: RequestObservation, name: str, namespace: str | None) -> RequestObservation:
        own = self.request.metadata.namespace
        where, store = namespace or own, self.request.spec.store.name
        terms = await read_terms(self.reader, store, where=own, namespace=where, verb=Verb.PROPOSE)
        seen = replace(seen, terms=terms)
        if terms is None:
            return seen
        seen = replace(await self._receiving(seen, where), origin=await self._clone(name, where))
        serving = seen.origin.serving
        if clone_problem(self.request, seen) is not None or serving is None:
            return replace(seen, proposed=self._kept())
        seen = replace(seen, origin=await self._asked(seen.origin))
        proposed = await self._gone_on(seen, await self._head(seen.origin.party, serving.origin.version.branch))
        if proposed is None or not (proposed.unsaved or rebases(self.request)):
            return replace(seen, proposed=proposed)
        return replace(seen, proposed=proposed, may_finish=where == own or await self._unenforced() is None)

    async def _receiving(self, seen: RequestObservation, namespace: str) -> RequestObservation:
        """Look whether the clone's namespace may have the rows that a rebase brings there."""
        own, store = self.request.metadata.namespace, self.request.spec.store.name
        if not rebases(self.request) or namespace == own:
            return seen
        terms = await read_terms(self.reader, store, where=own, namespace=namespace, verb=Verb.CLONE)
        return replace(seen, receives=terms is not None and terms.raw)

    async def _gone_on(self, seen: RequestObservation, found: Proposed | None) -> Proposed | None:
        """Return what a clone has now if that comes after what was proposed of it before, else that: a clone that was
        reset, refreshed or made anew takes nothing back that people may have approved.
        """
        before, party = self.request.status.source, seen.origin.party
        if found is None or party is None:
            return self._kept()
        if before is None or before.head == found.head or rebases(self.request):
            return found
        database = "" if party.content is None else party.content.database
        try:
            at = party.endpoint(self.engine)
            follows = await self.engine.contains(at, database, before.head, (found.head,))
        except EngineError:
            return self._kept()
        kept = self._kept()
        return found if follows or kept is None else replace(kept, superseded=True)

    def _kept(self) -> Proposed | None:
        """Return what was proposed last, which the scratch server has, although the clone may have it no more."""
        before = self.request.status.source
        if before is None or before.branch is None:
            return None
        return Proposed(before.head, before.branch, kept=True)

    async def _of_revert(self, seen: RequestObservation, name: str) -> RequestObservation:
        manifest = await self.reader.get("DataChangeRequest", name, self.request.metadata.namespace)
        reverted = None if manifest is None else DataChangeRequest.parse(manifest)
        seen = replace(seen, reverted=reverted)
        published = reverted.status.published if isinstance(reverted, DataChangeRequest) else None
        if published is None or revert_problem(self.request, seen) is not None:
            return seen
        content = None if seen.scratch.party is None else seen.scratch.party.content
        state = None if content is None else content.state_of(revert_branch(published.commit))
        return seen if state is None else replace(seen, proposed=Proposed(state.head, state.branch))

    async def _previewed(self, seen: RequestObservation) -> RequestObservation:
        if not self.request.spec.preview:
            return seen
        return replace(seen, previewed=await self._head(seen.scratch.party, self.request.spec.into.branch))

    # -- what comes of it --

    async def _landed(self, seen: RequestObservation, content: Content, target: str) -> RequestObservation:
        """Find our own commit in the target's history, whoever was there to see it arrive."""
        commit, store = self.request.status.publishing, seen.store
        if commit is None or store is None:
            return seen
        at = store.endpoint(self.engine)
        try:
            if not await self.engine.contains(at, content.database, commit, (target,)):
                return seen
            [info] = await self.engine.log(at, content.database, commit, limit=1)
        except EngineError:
            return replace(seen, store=replace(store, answer=None))
        return replace(seen, landed=info)

    async def _taken_up(self, seen: RequestObservation) -> RequestObservation:
        """Find our own commit in the history of the clone that was to be brought to it."""
        commit, party, proposed = self.request.status.publishing, seen.origin.party, seen.proposed
        content = None if party is None else party.content
        if commit is None or party is None or content is None or proposed is None or proposed.kept:
            return seen
        at = party.endpoint(self.engine)
        try:
            if not await self.engine.contains(at, content.database, commit, (proposed.head,)):
                return seen
            [info] = await self.engine.log(at, content.database, commit, limit=1)
        except EngineError:
            # Nothing is lost by bringing it there once more.
            return seen
        return replace(seen, landed=info)

    async def _lacking(self, seen: RequestObservation, content: Content, target: str) -> RequestObservation:
        scratch = seen.scratch.party
        if scratch is None or scratch.content is None:
            return seen
        wanted = [target, *([] if seen.proposed is None else [seen.proposed.head])]
        at = scratch.endpoint(self.engine)
        lacking = []
        for commit in wanted:
            try:
                await self.engine.log(at, content.database, commit, limit=1)
            except UnknownVersionError:
                lacking.append(commit)
            except EngineError:
                return replace(seen, scratch=replace(seen.scratch, party=replace(scratch, answer=None)))
        return replace(seen, lacking=tuple(lacking))

    async def _merged(self, seen: RequestObservation, content: Content, target: str) -> RequestObservation:
        scratch = seen.scratch.party
        if scratch is None or scratch.content is None or seen.proposed is None or seen.lacking:
            return seen
        inputs = self._inputs(content, target, seen.proposed, reviewers=())
        merged = await self._merge(scratch, inputs)
        seen = replace(seen, merged=merged)
        if isinstance(merged, EngineError) or merged.result is None:
            return seen
        return await self._judged_by_owners(seen, scratch, content, merged)

    async def _merge(self, scratch: Party, inputs: MergeInputs) -> MergeOutcome | EngineError:
        """Return the merge, or why it cannot be computed."""
        at = scratch.endpoint(self.engine)
        try:
            return await self.computations.once(
                (_pod_of(scratch), inputs), lambda: self.engine.merge(at, inputs), keeps=bool
            )
        except EngineError as error:
            return error

    async def _judged_by_owners(
        self, seen: RequestObservation, scratch: Party, content: Content, merged: MergeOutcome
    ) -> RequestObservation:
        """Read who made what is proposed, and ask the owners' checks of what would come of it."""
        at, head = scratch.endpoint(self.engine), "" if seen.proposed is None else seen.proposed.head
        wanted = [Assertion(check.name, check.sql) for check in rules_of(seen).checks if check.sql is not None]
        try:
            authors = await self.computations.once(
                (_pod_of(scratch), merged.base, head),
                lambda: self.engine.authors_between(at, content.database, merged.base, head),
                keeps=bool,
            )
            found = await self.computations.once(
                (_pod_of(scratch), merged.result, tuple(wanted)),
                lambda: self.engine.assertions(at, content.database, str(merged.result), wanted),
                keeps=lambda results: not any(result.error for result in results),
            )
        except EngineError as error:
            return replace(seen, merged=error)
        return replace(seen, authors=authors, checks=tuple(found))

    async def _check_jobs(self, seen: RequestObservation) -> RequestObservation:
        """Read the owners' checks that are programs, and what has become of them."""
        if seen.outcome is None:
            return seen
        names = sorted({check.job_template for check in rules_of(seen).checks if check.job_template is not None})
        return replace(seen, check_jobs=await _read_check_jobs(self.reader, seen, names))

    async def _reviews(self, seen: RequestObservation) -> RequestObservation:
        metadata = self.request.metadata
        parsed = [DataReview.parse(found) for found in await self.reader.list("DataReview", metadata.namespace)]
        ours = (review for review in parsed if isinstance(review, DataReview))
        reviews = tuple(review for review in ours if review.spec.request == metadata.name)
        if not rules_of(seen).protected:
            return replace(seen, reviews=reviews)
        return replace(seen, reviews=reviews, unenforced=await self._unenforced())

    async def _unenforced(self) -> str | None:
        """Return why the API server vouches for nobody's name, and for no author's right to a clone; or None."""
        found: dict[tuple[str, str], Manifest | None] = {}
        for policy in build_policies():
            kind, name = str(policy["kind"]), str(policy["metadata"]["name"])
            found[kind, name] = await self.reader.get(kind, name)
        made = self.request.metadata.creation_timestamp
        return identity_problem(found) or (None if made is None else unvouched(found, made))

    async def _final(self, seen: RequestObservation, content: Content, target: str) -> RequestObservation:
        """Compute what is published: the same merge under the message that names who approved it."""
        scratch, verdict = seen.scratch.party, judge_request(self.request, seen)
        if scratch is None or seen.proposed is None or verdict is None or rebases(self.request):
            return seen
        if not is_due(self.request, seen, verdict):
            return seen
        begun = await self._begun(seen, content, (target, seen.proposed.head))
        if begun is not None:
            return replace(seen, final=begun)
        inputs = self._inputs(content, target, seen.proposed, reviewers=verdict.approvers)
        return replace(seen, final=await self._merge(scratch, inputs))

    async def _begun(self, seen: RequestObservation, content: Content, parents: tuple[str, str]) -> MergeOutcome | None:
        """Return what was to be published already, if it is of the same two versions and changes what is approved now:
        the store may be about to take it, and of two commits one would come too late.
        """
        commit, scratch, merged = self.request.status.publishing, seen.scratch.party, seen.outcome
        if commit is None or scratch is None or merged is None or merged.changes is None:
            return None
        at = scratch.endpoint(self.engine)
        try:
            [info] = await self.engine.log(at, content.database, commit, limit=1)
            changes = await self.computations.once(
                (_pod_of(scratch), "changes", parents[0], commit),
                lambda: self.engine.changes(at, content.database, parents[0], commit),
                keeps=bool,
            )
        except EngineError:
            return None
        same = info.parents == parents and changes.digest == merged.changes.digest
        return replace(merged, result=commit, changes=changes) if same else None

    async def _judged_again(self, seen: RequestObservation, content: Content) -> RequestObservation:
        """Look whether the store has fetched what is to be published; if so, read once more what decides whether it may
        be, for all that was computed since may have taken long. Nothing but the push comes after that.
        """
        final, store = seen.final, seen.store
        commit = self.request.status.publishing
        if not isinstance(final, MergeOutcome) or commit is None or final.result != commit or store is None:
            return seen
        try:
            await self.engine.log(store.endpoint(self.engine), content.database, commit, limit=1)
        except EngineError:
            return seen
        namespace, name = self.request.metadata.namespace, self.request.metadata.name
        now = await self.reader.get("DataChangeRequest", name, namespace)
        rules = await self.reader.get("DataStore", self.request.spec.store.name, namespace)
        if not _is_same(seen.manifest, now) or not _is_same(
            None if seen.source is None else seen.source.manifest, rules
        ):
            return replace(seen, final=None)
        return replace(await self._reviews(await self._check_jobs(seen)), fetched=True)

    def _inputs(self, content: Content, target: str, proposed: Proposed, *, reviewers: tuple[str, ...]) -> MergeInputs:
        return MergeInputs(
            database=content.database,
            target=target,
            source=proposed.head,
            author=Signature.of(self.request.spec.author),
            message=commit_message(self.request, reviewers),
            salt=self.request.metadata.uid,
            decisions=decisions_of(self.request.spec.resolutions),
        )


def _pod_of(party: Party) -> str:
    """Return which server it is that computes: another one knows nothing of what this one has made."""
    if party.server.pod is None:
        raise TypeError("a server that answers has a Pod")
    return str(party.server.pod["metadata"]["uid"])


def _is_same(before: Manifest | None, now: Manifest | None) -> bool:
    """Return whether an object asks for the same as before."""
    if before is None or now is None:
        return False
    return all(before["metadata"].get(key) == now["metadata"].get(key) for key in ("uid", "generation")) and (
        not is_deleting(now)
    )


def _age(request: DataChangeRequest) -> tuple[str, str]:
    """Return by what requests stand in line."""
    made = request.metadata.creation_timestamp
    return "" if made is None else made.isoformat(), request.metadata.name
