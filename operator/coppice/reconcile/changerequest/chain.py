"""The chain of a request that is open: found, computed, mergeable, checked, approved, published. What of it is another
for each kind of engine is in ``mergechain`` and ``patchchain``. Pure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest, MergePolicy
from coppice.core.plan import Manifest
from coppice.engines.merging import MergeOutcome
from coppice.reconcile.changerequest.checks import (
    CHECKED,
    CheckRun,
    drop_checks,
    failed_runs,
    log_words,
)
from coppice.reconcile.changerequest.judgement import (
    changes_anything,
    failed_checks,
    judge_request,
)
from coppice.reconcile.changerequest.observation import Party, RequestObservation
from coppice.reconcile.changerequest.rules import rebases
from coppice.reconcile.changerequest.scratch import MAX_OPEN, MAX_OPEN_OF_AUTHOR
from coppice.reconcile.changerequest.sources import (
    SOURCE,
)
from coppice.reconcile.draft import Draft, Fact, holds, rests, stalls, waits
from coppice.reconcile.jobs import LOOK_SECONDS
from coppice.reconcile.observed import condition, format_time, is_true

COMPUTED: Final = "Computed"
MERGEABLE: Final = "Mergeable"
APPROVED: Final = "Approved"
PUBLISHED: Final = "Published"
TYPES: Final = (SOURCE, COMPUTED, MERGEABLE, CHECKED, APPROVED, PUBLISHED)
SOON: Final = 0.1
"""Seconds until the next look after a call whose outcome nobody else tells."""


@dataclass(slots=True)
class OpenRequest(ABC):
    """A request that is not published, and its chain. ``publishing`` is what the status is to say of the commit that
    the target is about to become, ``brought_to`` the commit that the preview is brought to now; ``commits``: what was
    written to the clone is committed now; ``look_again`` is when either may be.
    """

    request: DataChangeRequest
    seen: RequestObservation
    publishing: str | None = field(default=None, init=False)
    brought_to: str | None = field(default=None, init=False)
    commits: bool = field(default=False, init=False)
    look_again: float | None = field(default=None, init=False)

    def run(self, draft: Draft) -> None:
        """Add facts to the draft until one does not hold."""
        self.publishing = self.request.status.publishing
        for step in (
            self._source_is_ready,
            self._it_is_computed,
            self._it_merges,
            self._checks_pass,
            self._people_approve,
            self._it_is_published,
        ):
            fact = step(draft)
            draft.facts.append(fact)
            if not fact.holds:
                break
        if self.seen.outcome is not None and not any(fact.type == CHECKED for fact in draft.facts):
            drop_checks(draft, self.seen.check_jobs)
        self._show(draft)

    # -- what the steps look at --

    @property
    def _store(self) -> Party:
        if self.seen.store is None:
            raise TypeError("the chain goes on without the store's server")
        return self.seen.store

    @property
    def _database(self) -> str:
        content = self._store.content
        if content is None:
            raise TypeError("the chain goes on without the store's answer")
        return content.database

    @property
    def _outcome(self) -> MergeOutcome:
        if self.seen.outcome is None:
            raise TypeError("the chain goes on without a merge")
        return self.seen.outcome

    # -- the steps --

    @abstractmethod
    def _source_is_ready(self, draft: Draft) -> Fact: ...

    @abstractmethod
    def _it_is_computed(self, draft: Draft) -> Fact: ...

    @property
    def _into(self) -> str:
        return self.request.spec.into.branch

    @property
    def _scratch_words(self) -> str:
        manifest = self.seen.scratch.manifest
        return "the scratch clone" if manifest is None else f"DataClone {manifest['metadata']['name']}"

    def _scratch_is_up(self, draft: Draft, desired: Manifest) -> Fact | None:
        """See to the scratch clone, and to the ways between its server and those that it has to do with."""
        found = self.seen.scratch.manifest
        crowd = self._crowd
        if crowd is not None:
            return crowd
        problem = draft.make_once(desired, found, COMPUTED)
        if problem is not None:
            return problem
        name = desired["metadata"]["name"]
        if found is None:
            return waits(COMPUTED, "ScratchPending", f"DataClone {name} is being made to merge on")
        problem = self._keep_ways(draft)
        if problem is not None:
            return problem
        ready = condition(found, "Ready")
        if ready is not None and is_true(found, "Stalled"):
            return stalls(COMPUTED, "ScratchStalled", f"DataClone {name}: {ready['message']}", retry_after=30)
        if ready is None or ready["status"] != "True":
            return waits(COMPUTED, "ScratchPending", f"waits for DataClone {name}, to merge on; see its conditions")
        if any(self.seen.policy(policy) is None for policy in self.seen.passages):
            return waits(COMPUTED, "Connecting", f"the way to DataClone {name} is being opened", retry_after=SOON)
        return None

    def _keep_ways(self, draft: Draft) -> Fact | None:
        problem = None
        for policy in self.seen.strays:
            draft.drop(policy)
        for policy in self.seen.passages:
            problem = problem or draft.keep(policy, self.seen.policy(policy), COMPUTED)
        return problem

    @property
    def _crowd(self) -> Fact | None:
        """Return that too many requests into the store are open for this one to have a server, if so."""
        author, store = self.request.spec.author, self.request.spec.store.name
        own = sum(other.spec.author == author for other in self.seen.ahead)
        if own < MAX_OPEN_OF_AUTHOR and len(self.seen.ahead) < MAX_OPEN:
            return None
        whose = f"{own} of {author}" if own >= MAX_OPEN_OF_AUTHOR else str(len(self.seen.ahead))
        message = (
            f"{whose} requests into DataStore {store} are open and came before, and each holds a server: have some "
            "published, or delete them"
        )
        return stalls(COMPUTED, "TooManyRequests", message)

    def _it_merges(self, draft: Draft) -> Fact:
        del draft
        obstacle = self._obstacle
        if obstacle is not None:
            return obstacle
        outcome, name = self._outcome, self.request.metadata.name
        if outcome.result is None:
            left = max(outcome.total - outcome.decided, len(outcome.conflicts))
            message = (
                f"{left} conflicts with branch {self._into} wait for a decision: coppice diff request/{name} "
                f"--conflicts shows them, coppice resolve {name} decides"
            )
            return stalls(MERGEABLE, "Conflicts", message)
        if not changes_anything(self.seen):
            return stalls(MERGEABLE, "NothingToMerge", self._nothing)
        tables = len(outcome.changes.tables) if outcome.changes is not None else 0
        return holds(MERGEABLE, "Mergeable", f"merges into branch {self._into}; {tables} tables change")

    @property
    def _obstacle(self) -> Fact | None:
        """Return what keeps it from being merged whatever anybody decides, or None."""
        return None

    @property
    @abstractmethod
    def _nothing(self) -> str:
        """Return what is said where the target lacks nothing."""

    @abstractmethod
    def _checks_pass(self, draft: Draft) -> Fact: ...

    def _checked(self, draft: Draft, runs: Sequence[CheckRun] = (), unfinished: Fact | None = None) -> Fact:
        """Return what the owners' checks come to; ``runs`` are the programs among them."""
        failed, broken = failed_checks(self.seen), failed_runs(runs)
        names, asked = [*(check.name for check in failed), *(run.check for run in broken)], len(self.seen.checks)
        asked += len(runs)
        if names:
            message = f"{len(names)} of {asked} checks of the store's owners fail: {', '.join(names)}; see "
            message += f"status.checks{log_words(broken, draft.owner.namespace)}"
            return stalls(CHECKED, "ChecksFailed", message, retry_after=LOOK_SECONDS if broken else 300)
        if unfinished is not None:
            return unfinished
        return holds(CHECKED, "ChecksPassed", f"{asked} checks of the store's owners pass")

    def _people_approve(self, draft: Draft) -> Fact:
        del draft
        if rebases(self.request):
            return holds(APPROVED, "StaysOnClone", f"branch {self._into} stays as it is, and nobody has to approve")
        if self.seen.unenforced is not None:
            return stalls(APPROVED, "IdentityUnenforced", self.seen.unenforced, retry_after=60)
        verdict = judge_request(self.request, self.seen)
        if verdict is None:
            raise TypeError("the chain goes on without a patch")
        if verdict.approved:
            return holds(APPROVED, verdict.reason, verdict.message)
        blocked = stalls if verdict.reason == "ChangesRequested" else rests
        return blocked(APPROVED, verdict.reason, verdict.message)

    def _it_is_published(self, draft: Draft) -> Fact:
        spec, now = self.request.spec, self.seen.now
        if spec.merge is MergePolicy.MANUAL:
            return rests(PUBLISHED, "Manual", "waits for a maintainer to set spec.merge to WhenApproved")
        if spec.not_before is not None and spec.not_before > now:
            left = (spec.not_before - now).total_seconds()
            message = f"is published at {format_time(spec.not_before)} at the earliest"
            return waits(PUBLISHED, "NotBefore", message, retry_after=max(left, SOON))
        return self._publish(draft)

    @abstractmethod
    def _publish(self, draft: Draft) -> Fact: ...

    def _show(self, draft: Draft) -> None:
        """Have people see what would be published, if there is anything to do for that."""
        del draft
