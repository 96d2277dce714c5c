"""What is read for a request into a store whose engine merges, and what is computed on its scratch server: a merge is
a computation there, and the same one finds what it has made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from coppice.api.v1alpha1 import DataChangeRequest, DataClone, Verb
from coppice.engines.base import Content, EngineError, Reference, UnknownVersionError
from coppice.engines.merging import Assertion, MergeInputs, MergeOutcome, MergingEngine, Signature
from coppice.manifests.meta import Owner
from coppice.manifests.network import Peer
from coppice.reconcile.access import Asked, read_consent_for
from coppice.reconcile.changerequest.judgement import is_due, judge_request
from coppice.reconcile.changerequest.message import commit_message
from coppice.reconcile.changerequest.observation import Party, Proposed, RequestObservation
from coppice.reconcile.changerequest.reading import Reading, pod_of
from coppice.reconcile.changerequest.resolutions import decisions_of
from coppice.reconcile.changerequest.rules import rebases, rules_of
from coppice.reconcile.changerequest.scratch import build_passages, revert_branch
from coppice.reconcile.changerequest.sources import clone_problem, revert_problem
from coppice.reconcile.reads import Server, ask
from coppice.reconcile.storenames import admin_secret_name


@dataclass(frozen=True, slots=True)
class MergeReading(Reading):
    """The reads for one request whose store has an engine that merges."""

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
        seen = await self.reviews(await self.check_jobs(await self._merged(seen, content, target.head)))
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

    async def scratch(self, seen: RequestObservation) -> RequestObservation:
        """Read the scratch clone, and ask its server once it is Ready."""
        seen = await Reading.scratch(self, seen)
        return replace(seen, scratch=await self.asked(seen.scratch))

    async def to_sweep(self, seen: RequestObservation) -> RequestObservation:
        """Ask the servers that others may have been let into for the request's sake."""
        seen, wanted = await self.store(seen), self.request.spec.from_.clone
        if wanted is None or not self.request.status.source:
            return seen
        origin = await self.clone(wanted.name, wanted.namespace or self.request.metadata.namespace)
        return replace(seen, origin=await self.asked(origin))

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
        asked = Asked(store, own, where, Verb.PROPOSE)
        consent = await read_consent_for(self.reader, self.environment.forges, asked, name)
        seen = replace(seen, terms=consent.terms, refusal=consent.refusal)
        if consent.terms is None:
            return seen
        seen = replace(await self._receiving(seen, name, where), origin=await self.clone(name, where))
        serving = seen.origin.serving
        if clone_problem(self.request, seen) is not None or serving is None:
            return replace(seen, proposed=self._kept())
        seen = replace(seen, origin=await self.asked(seen.origin))
        proposed = await self._gone_on(seen, await self._head(seen.origin.party, serving.origin.version.branch))
        if proposed is None or not (proposed.unsaved or rebases(self.request)):
            return replace(seen, proposed=proposed)
        return replace(seen, proposed=proposed, may_finish=where == own or await self.unenforced() is None)

    async def _receiving(self, seen: RequestObservation, name: str, namespace: str) -> RequestObservation:
        """Look whether the clone's namespace may have the rows that a rebase brings there."""
        own, store = self.request.metadata.namespace, self.request.spec.store.name
        if not rebases(self.request) or namespace == own:
            return seen
        asked = Asked(store, own, namespace, Verb.CLONE)
        consent = await read_consent_for(self.reader, self.environment.forges, asked, name)
        return replace(seen, receives=consent.terms is not None and consent.terms.raw)

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
                (pod_of(scratch), inputs), lambda: self.engine.merge(at, inputs), keeps=bool
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
                (pod_of(scratch), merged.base, head),
                lambda: self.engine.authors_between(at, content.database, merged.base, head),
                keeps=bool,
            )
            found = await self.computations.once(
                (pod_of(scratch), merged.result, tuple(wanted)),
                lambda: self.engine.assertions(at, content.database, str(merged.result), wanted),
                keeps=lambda results: not any(result.error for result in results),
            )
        except EngineError as error:
            return replace(seen, merged=error)
        return replace(seen, authors=authors, checks=tuple(found))

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
                (pod_of(scratch), "changes", parents[0], commit),
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
        decided = await self.decided(seen)
        return replace(seen, final=None) if decided is None else replace(decided, fetched=True)

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
