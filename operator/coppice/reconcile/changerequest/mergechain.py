"""The chain of an open request into a branch, or one that rebases a clone: merged on the scratch server. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest
from coppice.core.plan import EngineCall
from coppice.engines.base import EngineError
from coppice.engines.merging import MergingEngine, Signature, TargetBusyError, TargetMovedError, UnrelatedError
from coppice.reconcile.changerequest.chain import COMPUTED, PUBLISHED, SOON, OpenRequest
from coppice.reconcile.changerequest.checks import CHECKED, Runner, are_running, check_runs
from coppice.reconcile.changerequest.judgement import is_due, judge_request, target_head
from coppice.reconcile.changerequest.observation import Party, RequestObservation
from coppice.reconcile.changerequest.publish import fetching, publication, rebasing
from coppice.reconcile.changerequest.rules import rebases, rules_of
from coppice.reconcile.changerequest.scratch import build_scratch, fetch, revert_branch
from coppice.reconcile.changerequest.sources import (
    SOURCE,
    clone_words,
    is_unfinished,
    merging_engine,
    proposal_problem,
    source_found,
    store_problem,
    target_problem,
    uncommitted_words,
    until_committed,
)
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.storenames import admin_secret_name

BETWEEN_RESULTS: Final = 5.0
"""Seconds at least for which the preview stays at a result, although there is another one."""
TAKEN_BACK_AFTER: Final = 60.0
"""Seconds for which the preview keeps what somebody writes to it."""


@dataclass(slots=True)
class MergeRequest(OpenRequest):
    """A request that an engine merges, and its chain."""

    # -- what the steps look at --

    @property
    def _engine(self) -> MergingEngine:
        engine = None if self.seen.source is None else merging_engine(self.seen.source)
        if engine is None:
            raise TypeError("the chain goes on without an engine that merges")
        return engine

    def _call(self, party: Party, action: str, **arguments: str) -> EngineCall:
        given = {"database": self._database, **arguments}
        return EngineCall(self._engine.name, party.ref(self._engine), action, given)

    # -- the steps --

    def _source_is_ready(self, draft: Draft) -> Fact:
        if self.seen.source is None:
            raise TypeError("a valid request has a store")
        problem = (
            store_problem(self.request, self.seen.source)
            or target_problem(self.request, self.seen)
            or proposal_problem(self.request, self.seen)
        )
        if problem is not None:
            self._shut(draft)
            return problem
        proposed = self.seen.proposed
        if proposed is not None and is_unfinished(self.seen):
            if self._may_commit:
                return self._commit_work(draft, proposed.branch)
            self._wait_for(until_committed(self.request, self.seen))
        return source_found(self.request, self.seen)

    @property
    def _may_commit(self) -> bool:
        """Return whether what was written to the clone is committed now.

        The first time it is at once. What is written after that neither goes on for ever, nor takes what there is from
        under a program that checks it, nor from those who have approved it: else whoever never pauses is never heard.
        """
        if self.request.status.committed_at is None:
            return True
        if until_committed(self.request, self.seen) or are_running(check_runs(self.request, self.seen)):
            return False
        verdict = judge_request(self.request, self.seen)
        # A clone takes the result only when all of it is committed.
        return rebases(self.request) or verdict is None or not is_due(self.request, self.seen, verdict)

    def _wait_for(self, seconds: float) -> None:
        """Look again in so many seconds at the latest, if any."""
        if seconds > 0:
            self.look_again = min(seconds, self.look_again or seconds)

    def _shut(self, draft: Draft) -> None:
        """Take back, where a clone's namespace may not have the rows any more, the way by which a rebase brings them
        and the login that an earlier try may have left.
        """
        seen, scratch = self.seen, self.seen.scratch.party
        granted = self.request.spec.from_.clone is None or (seen.terms is not None and seen.receives)
        answers = seen.store is not None and seen.store.content is not None
        if granted or not answers or not rebases(self.request) or not seen.policies:
            return
        if scratch is not None and scratch.content is not None:
            draft.calls.append(self._call(scratch, "drop-fetch-user"))
        for policy in seen.policies:
            draft.drop(policy)

    def _commit_work(self, draft: Draft, branch: str) -> Fact:
        """Commit what nobody has committed on the author's own clone."""
        author, origin = Signature.of(self.request.spec.author), self.seen.origin.party
        if origin is None:
            raise TypeError("what is proposed has a server")
        signed = {"author": author.name, "email": author.email, "message": self.request.spec.title}
        draft.calls.append(self._call(origin, "commit-work", branch=branch, **signed))
        self.commits = True
        return waits(SOURCE, "Committing", f"what branch {branch} holds is being committed", retry_after=SOON)

    def _it_is_computed(self, draft: Draft) -> Fact:
        unready = self._scratch_is_up(draft, build_scratch(self.request, draft.owner))
        if unready is not None:
            return unready
        scratch = self.seen.scratch.party
        if scratch is None or scratch.content is None:
            return waits(
                COMPUTED, "ScratchNotReady", f"the server of {self._scratch_words} does not answer yet", retry_after=2
            )
        if self.seen.lacking:
            return self._fetch(draft, scratch)
        if self.seen.proposed is None:
            return self._take_back(draft, scratch)
        if isinstance(self.seen.merged, UnrelatedError):
            message = (
                f"{self.seen.merged}, as where one of the two is squashed: bring the changes into a clone of branch "
                f"{self._into}, propose that, and delete this DataChangeRequest"
            )
            return stalls(COMPUTED, "NoCommonHistory", message)
        if isinstance(self.seen.merged, EngineError):
            return waits(COMPUTED, "MergeFailed", f"the merge cannot be computed: {self.seen.merged}", retry_after=10)
        return holds(COMPUTED, "Computed", f"merged with branch {self._into} at {target_head(self.seen)}")

    def _fetch(self, draft: Draft, scratch: Party) -> Fact:
        """Fetch what the scratch server lacks: the target's newest commits of the store, what is proposed of where it
        is.
        """
        of_store = {target_head(self.seen)}
        if self.request.spec.from_.branch is not None and self.seen.proposed is not None:
            of_store.add(self.seen.proposed.head)
        kept = self.seen.proposed is not None and self.seen.proposed.kept
        for commit in self.seen.lacking:
            of = self._store if commit in of_store else None if kept else self.seen.origin.party
            if of is None or of.content is None:
                message = (
                    f"commit {commit} is lost: it was on a clone that does not have it any more, and is nowhere else"
                )
                return stalls(COMPUTED, "SourceLost", message, retry_after=60)
            draft.calls += fetch(self._engine, self._database, commit, by=scratch, of=of)
        if self.seen.refused is not None:
            message = f"{self._scratch_words} could not fetch what it lacks, and tries again: {self.seen.refused}"
            return waits(COMPUTED, "FetchFailed", message, retry_after=5)
        return waits(COMPUTED, "Fetching", f"{self._scratch_words} fetches what it lacks", retry_after=SOON)

    def _take_back(self, draft: Draft, scratch: Party) -> Fact:
        """Make the commit that takes back what a published request brought."""
        reverted = self.seen.reverted
        published = reverted.status.published if isinstance(reverted, DataChangeRequest) else None
        if published is None:
            raise TypeError("the chain goes on without a proposal")
        branch = revert_branch(published.commit)
        draft.calls.append(self._call(scratch, "undo", branch=branch, commit=published.commit))
        return waits(COMPUTED, "TakingBack", f"what commit {published.commit} brought is taken back", retry_after=SOON)

    def _checks_pass(self, draft: Draft) -> Fact:
        if rebases(self.request):
            return holds(CHECKED, "StaysOnClone", f"no check holds up what does not go into branch {self._into}")
        runs = check_runs(self.request, self.seen)
        unfinished = Runner(self.request, self.seen, self._engine, self._database, runs).run(draft)
        return self._checked(draft, runs, unfinished)

    @property
    def _nothing(self) -> str:
        if rebases(self.request):
            return f"{clone_words(self.request)} has all of branch {self._into}: delete this DataChangeRequest"
        beside = uncommitted_words(self.request, self.seen)
        message = f"branch {self._into} has all that is proposed: propose more, or delete this DataChangeRequest"
        return f"{message}; {beside}" if beside else message

    def _publish(self, draft: Draft) -> Fact:
        if rebases(self.request):
            return self._bring_up(draft)
        if isinstance(self.seen.refused, TargetBusyError):
            message = f"{self.seen.refused}: {self._how_it_is_cleaned}"
            return waits(PUBLISHED, "TargetBusy", message, retry_after=10)
        if isinstance(self.seen.refused, TargetMovedError):
            return waits(
                PUBLISHED, "TargetMoved", f"branch {self._into} has moved on: it is computed again", retry_after=SOON
            )
        final, reviewed = self.seen.final, self._outcome.changes
        if isinstance(final, EngineError):
            return waits(PUBLISHED, "MergeFailed", f"the merge cannot be computed: {final}", retry_after=10)
        same = (
            final is not None
            and final.changes is not None
            and reviewed is not None
            and final.changes.digest == reviewed.digest
        )
        if final is None or final.result is None or not same:
            return waits(PUBLISHED, "Recomputing", "the merge is computed again", retry_after=1)
        return self._move(draft, final.result)

    def _bring_up(self, draft: Draft) -> Fact:
        """Write down what the clone is about to become; then have it take that."""
        scratch, clone, proposed = self.seen.scratch.party, self.seen.origin.party, self.seen.proposed
        result, words = self._outcome.result, clone_words(self.request)
        if scratch is None or clone is None or proposed is None or result is None:
            raise TypeError("the chain goes on without the clone's server")
        moved = isinstance(self.seen.refused, TargetBusyError | TargetMovedError)
        if moved or proposed.unsaved:
            message = f"{words} has been written to meanwhile: it is computed again"
            left = until_committed(self.request, self.seen)
            return waits(PUBLISHED, "TargetMoved", message, retry_after=1 if moved else max(left, 1))
        if self.publishing == result:
            draft.calls += rebasing(self.request, self._engine, self._database, proposed, result, clone, scratch)
        self.publishing = result
        return waits(PUBLISHED, "Publishing", f"{words} is about to become {result}", retry_after=SOON)

    @property
    def _how_it_is_cleaned(self) -> str:
        """Return who can commit or take back what is written to the target and not committed, and how."""
        store = self.request.spec.store.name
        if not rules_of(self.seen).protected:
            return f"coppice commit {store}:{self._into} -m MESSAGE, or have it taken back"
        return (
            "no app may, on a protected branch. Whoever has the administrator's password, in Secret "
            f"{admin_secret_name(store)}, calls dolt_commit or dolt_reset on it; or the owners take the rule out of "
            "spec.protection for a moment, and whoever wrote it commits it"
        )

    def _move(self, draft: Draft, result: str) -> Fact:
        """Write down what the target is about to become; then have the store fetch it, and then take it."""
        scratch, before, proposed = self.seen.scratch.party, target_head(self.seen), self.seen.proposed
        if scratch is None or before is None or proposed is None:
            raise TypeError("the chain goes on without a scratch server")
        if self.publishing == result and not self.seen.fetched:
            draft.calls += fetching(self._engine, self._database, result, self._store, scratch)
        elif self.publishing == result:
            versions = (before, proposed.head)
            draft.calls += publication(
                self.request, self._engine, self._database, versions, result, self._store, scratch
            )
        self.publishing = result
        return waits(PUBLISHED, "Publishing", f"branch {self._into} is about to become {result}", retry_after=SOON)

    # -- the preview --

    def _show(self, draft: Draft) -> None:
        """Have the scratch server's branch be at what would be published, or at the target while that is not known.

        Apps are on it, which may write to it and commit as they like: what they wrote is taken back, but never as fast
        as they write.
        """
        scratch, wanted = self.seen.scratch.party, shown(self.seen)
        if scratch is None or scratch.content is None or wanted is None or not self.request.spec.preview:
            return
        if shows(self.seen, wanted):
            return
        before = self.request.status.preview
        if before is not None and before.set_at is not None:
            pause = TAKEN_BACK_AFTER if before.commit == wanted else BETWEEN_RESULTS
            left = pause - (self.seen.now - before.set_at).total_seconds()
            if left > 0:
                self._wait_for(left)
                return
        draft.calls.append(self._call(scratch, "set-branch", branch=self._into, commit=wanted))
        self.brought_to = wanted


def shown(seen: RequestObservation) -> str | None:
    """Return which commit people are to look at; None before there is one."""
    outcome = seen.outcome
    return None if outcome is None else outcome.result or target_head(seen)


def shows(seen: RequestObservation, wanted: str) -> bool:
    """Return whether people see a commit on the scratch server, and nothing else."""
    previewed = seen.previewed
    return previewed is not None and previewed.head == wanted and not previewed.unsaved
