"""The chain of an open request for a live database: compared on the scratch server, judged by the live rows, written in
one transaction or handed over as SQL. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from coppice.api.v1alpha1 import DataStore, Publish
from coppice.core.plan import Company, Publication, Witness, noted, read_note
from coppice.engines.base import EngineError
from coppice.engines.merging import TargetBusyError, TargetMovedError
from coppice.engines.patching import BrokenRulesError, PatchingEngine, RefusedError
from coppice.reconcile.changerequest.chain import COMPUTED, MERGEABLE, PUBLISHED, SOON, OpenRequest
from coppice.reconcile.changerequest.checks import CHECKED
from coppice.reconcile.changerequest.computations import MAX_PAUSE, GoingOnError
from coppice.reconcile.changerequest.judgement import patch_of
from coppice.reconcile.changerequest.observation import PatchSeen
from coppice.reconcile.changerequest.readpatches import HANDED_OVER
from coppice.reconcile.changerequest.rules import rules_of
from coppice.reconcile.changerequest.scratch import build_scratch
from coppice.reconcile.changerequest.sources import (
    SOURCE,
    clone_words,
    patching_engine,
    proposal_problem,
    source_found,
    store_problem,
    target_problem,
)
from coppice.reconcile.changerequest.writer import writer_problem
from coppice.reconcile.draft import Draft, Fact, holds, rests, stalls, waits

NOTE: Final = "publishing"
"""The field of the status that names a transaction before it is committed."""
AGAIN: Final = 15.0
"""Seconds until something is tried again that the live server has not let pass for the moment."""
LATER: Final = MAX_PAUSE
"""Seconds until something is tried again that somebody has to change: all of it is written before that is known."""


@dataclass(slots=True)
class PatchRequest(OpenRequest):
    """A request that an engine patches a live database for, and its chain."""

    @property
    def _engine(self) -> PatchingEngine:
        engine = None if self.seen.source is None else patching_engine(self.seen.source)
        if engine is None:
            raise TypeError("the chain goes on without an engine that patches")
        return engine

    @property
    def _patching(self) -> PatchSeen:
        if self.seen.patching is None:
            raise TypeError("the chain goes on without the store's server")
        return self.seen.patching

    @property
    def _snapshot(self) -> str:
        if self.seen.origin.serving is None:
            raise TypeError("the chain goes on without a clone")
        return self.seen.origin.serving.origin.snapshot

    def _source_is_ready(self, draft: Draft) -> Fact:
        del draft
        if self.seen.source is None:
            raise TypeError("a valid request has a store")
        return (
            store_problem(self.request, self.seen.source)
            or target_problem(self.request, self.seen)
            or self._target_problem
            or proposal_problem(self.request, self.seen)
            or source_found(self.request, self.seen)
        )

    @property
    def _target_problem(self) -> Fact | None:
        """Return why the live database can be neither written to nor read, or None; a patch may do without."""
        source, patching = self.seen.source, self._patching
        store = None if source is None else source.store
        writes = self.request.spec.publish is Publish.DATABASE
        if isinstance(store, DataStore) and store.spec.adopted is not None and (writes or patching.writer is not None):
            problem = writer_problem(store.metadata.name, patching.writer, patching.answer)
            if problem is not None:
                return problem
        if writes and patching.target is None:
            name = self.request.spec.store.name
            return waits(SOURCE, "StoreNotReady", f"the server of DataStore {name} does not answer yet", retry_after=5)
        return None

    def _it_is_computed(self, draft: Draft) -> Fact:
        scratch = self.seen.scratch
        if scratch.serving is not None and not self._patching.based:
            draft.drop(scratch.manifest)
            message = f"{clone_words(self.request)} has begun anew, and {self._scratch_words} is made of the same again"
            return waits(COMPUTED, "ScratchReplaced", message, retry_after=2)
        unready = self._scratch_is_up(draft, build_scratch(self.request, draft.owner, snapshot=self._snapshot))
        if unready is not None:
            return unready
        merged = self.seen.merged
        if isinstance(merged, GoingOnError):
            message = f"{clone_words(self.request)} is being compared with DataSnapshot {self._snapshot}"
            return waits(COMPUTED, "Comparing", message, retry_after=5)
        if isinstance(merged, EngineError) and not isinstance(merged, RefusedError):
            return waits(COMPUTED, "ComparisonFailed", f"it cannot be compared: {merged}", retry_after=10)
        if merged is None:
            message = f"the server of {self._scratch_words}, or of {clone_words(self.request)}, does not answer yet"
            return waits(COMPUTED, "ScratchNotReady", message, retry_after=2)
        judged = " and merged with the live rows" if self._patching.target is not None else ""
        return holds(COMPUTED, "Computed", f"compared with DataSnapshot {self._snapshot}{judged}")

    @property
    def _obstacle(self) -> Fact | None:
        merged, refused = self.seen.merged, self.seen.refused
        if isinstance(merged, RefusedError):
            return stalls(MERGEABLE, "Refused", f"what the clone has changed cannot be written: {merged}")
        if isinstance(refused, BrokenRulesError):
            named = ", ".join(sorted({f"{entry.kind} {entry.detail}".strip() for entry in refused.conflicts}))
            message = f"the live database refuses it by its rules ({named}): change the clone, and see status.conflicts"
            return stalls(MERGEABLE, "RulesBroken", message, retry_after=LATER)
        return None

    @property
    def _nothing(self) -> str:
        store = self.request.spec.store.name
        return (
            f"the live database of DataStore {store} has all that {clone_words(self.request)} has changed: change "
            "more, or delete this DataChangeRequest"
        )

    def _checks_pass(self, draft: Draft) -> Fact:
        programs = sorted({check.name for check in rules_of(self.seen).checks if check.job_template is not None})
        if programs:
            message = (
                f"the checks {', '.join(programs)} are programs, which have nothing to run on before a live database "
                f"changes: have the owners of DataStore {self.request.spec.store.name} write them as sql, or take them "
                "out of spec.protection"
            )
            return stalls(CHECKED, "CheckNotSupported", message)
        return self._checked(draft)

    def _publish(self, draft: Draft) -> Fact:
        if self.request.spec.publish is Publish.PATCH:
            return self._hand_over()
        fate, refused, (name, _) = self._patching.fate, self.seen.refused, read_note(self.request.status.publishing)
        store = self.request.spec.store.name
        if fate == "Open":
            message = f"the server of DataStore {store} has not said yet what became of transaction {name}"
            return waits(PUBLISHED, "Publishing", message, retry_after=2)
        if fate == "Unknown":
            message = (
                f"nobody can tell any more whether transaction {name} was committed, and the live database of "
                f"DataStore {store} does not hold all of it now: look at what it holds, delete this "
                "DataChangeRequest, and propose what is missing anew"
            )
            return stalls(PUBLISHED, "OutcomeUnknown", message)
        self.publishing = None
        if isinstance(refused, TargetBusyError):
            return waits(PUBLISHED, "TargetBusy", f"{refused}: it is tried again", retry_after=AGAIN)
        if isinstance(refused, TargetMovedError):
            message = (
                f"{refused}: nothing was written, and it is judged and tried again. If it stays so, propose the change "
                "anew from a clone of a newer snapshot"
            )
            return waits(PUBLISHED, "TargetMoved", message, retry_after=AGAIN)
        if isinstance(refused, EngineError):
            message = f"nothing was written to the live database of DataStore {store}: {refused}"
            return stalls(PUBLISHED, "WriteFailed", message, retry_after=pause_after(refused))
        return self._write(draft)

    def _write(self, draft: Draft) -> Fact:
        """Have all of it written in one transaction."""
        patching = self._patching
        if patching.patch is None or patching.target is None or self.seen.proposed is None:
            return waits(PUBLISHED, "Recomputing", "it is judged again", retry_after=1)
        draft.publication = Publication(
            engine=self._engine.name,
            target=patching.target.ref,
            database=self._database,
            salt=self.request.metadata.uid,
            note=NOTE,
            of=self.seen.proposed.head,
            patch=patching.patch,
            rests_on=self._witnesses,
            company=self._reviews,
        )
        message = f"it is being written to the live database of DataStore {self.request.spec.store.name}"
        return waits(PUBLISHED, "Publishing", message, retry_after=SOON)

    @property
    def _witnesses(self) -> tuple[Witness, ...]:
        """Return what people and owners have said, by which it may be written."""
        store = None if self.seen.source is None else self.seen.source.manifest
        reviews = (review.metadata for review in self.seen.reviews)
        told = [Witness("DataReview", it.namespace, it.name, it.uid, it.generation) for it in reviews]
        if store is not None:
            metadata = store["metadata"]
            where = metadata["namespace"], metadata["name"], metadata["uid"]
            told.append(Witness("DataStore", *where, metadata.get("generation")))
        return tuple(told)

    @property
    def _reviews(self) -> Company:
        """Return what is known of what people say: one more may ask for changes."""
        metadata = self.request.metadata
        return Company("DataReview", metadata.namespace, "request", metadata.name, self.seen.listed)

    def _hand_over(self) -> Fact:
        """Say how somebody else writes it, and remember that they may."""
        patch, name = patch_of(self.request, self.seen), self.request.metadata.name
        if patch is None:
            raise TypeError("the chain goes on without a patch")
        self.publishing = noted(f"{HANDED_OVER}{patch.digest}", patch.source)
        ends = "" if self._patching.target is not None else "; delete this DataChangeRequest when that is done"
        message = (
            f"coppice patch {name} prints what was approved: run it as the tables' owner, "
            f"psql -X -v ON_ERROR_STOP=1 -f FILE{ends}"
        )
        return rests(PUBLISHED, "HandOver", message)


def pause_after(error: EngineError) -> float:
    """Return for how many seconds the same is not tried again."""
    return AGAIN if isinstance(error, TargetBusyError | TargetMovedError) else LATER
