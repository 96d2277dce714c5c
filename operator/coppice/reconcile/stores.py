"""What holds for every DataStore, whoever runs its server: the observation, the frame of the chain, and what stands
beside it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coppice.api.v1alpha1 import DataStore, InvalidResource
from coppice.core.plan import Manifest, Plan
from coppice.engines.base import Content, Engine
from coppice.reconcile.adopted import Adoption
from coppice.reconcile.classes import ClusterClasses, NoStorage, StorageChoice, bounded_class
from coppice.reconcile.commit.line import is_commit
from coppice.reconcile.draft import Draft, Fact, beside, holds, stalls
from coppice.reconcile.environment import Environment
from coppice.reconcile.kept import KeptBranch
from coppice.reconcile.load import LoadSeen
from coppice.reconcile.mirror.copies import MirrorCopy
from coppice.reconcile.mirror.seen import MirrorSeen
from coppice.reconcile.observed import is_true
from coppice.reconcile.preparation import mask_unsupported
from coppice.reconcile.protection import PROTECTED, reviews_alone, unguarded, unprotectable
from coppice.reconcile.provisioning import Complaint
from coppice.reconcile.reads import Answer, Server
from coppice.reconcile.requests import ACCEPTED, together
from coppice.reconcile.schedule import SnapshotLine, plan_snapshots, unscheduled
from coppice.reconcile.upkeep import UpkeepSeen, unanswerable

ENGINE = "EngineSupported"
STORAGE = "StorageReady"
SERVER = "ServerReady"
TYPES = (ENGINE, STORAGE, SERVER)
BOUNDED = "ClonesBounded"
GUARDED = "NetworkGuarded"
SCHEDULED = "SnapshotsScheduled"
"""Conditions beside the chain, there only where there is something to say: the store is well either way."""
HEALTH_PERIOD = 60.0
"""Seconds between two looks at a server that is well; its heads in status are at most this old."""
MAX_LISTED = 100


@dataclass(frozen=True, slots=True)
class StoreObservation:
    """A DataStore and everything around it.

    ``adoption``: of one that is adopted, which has no claim, server, binding, service or policy of its own.
    ``certificate``: the user's Secret with which its server is to take TLS.
    ``mirror``: of one that is a mirror; ``claim`` is that of the copy that is served. ``copies``: those of one that
    goes with a specification that nobody can read. ``added``: the Secret that completes the server's. ``kept``: the
    deleted branches that its server keeps, None while it does not say so.
    """

    manifest: Manifest
    now: datetime
    store: DataStore | InvalidResource
    engine: Engine | None
    classes: ClusterClasses
    snapshots: tuple[Manifest, ...]
    named_snapshots: frozenset[str]
    adoption: Adoption | None = None
    mirror: MirrorSeen | None = None
    copies: tuple[MirrorCopy, ...] = ()
    claim: Manifest | None = None
    complaint: Complaint | None = None
    server: Server = field(default_factory=Server)
    added: Manifest | None = None
    binding: Manifest | None = None
    service: Manifest | None = None
    policy: Manifest | None = None
    load: LoadSeen = field(default_factory=LoadSeen)
    answer: Answer | None = None
    kept: tuple[KeptBranch, ...] | None = None
    left: tuple[str, ...] = ()
    reached: bool | None = None
    upkeep: UpkeepSeen = field(default_factory=UpkeepSeen)
    certificate: Manifest | None = None
    fresh_credentials: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class StorePlan(ABC):
    """The chain of facts for one store."""

    environment: Environment
    observation: StoreObservation
    store: DataStore

    def plan(self) -> Plan:
        """Return what to do now."""
        draft = Draft(self.observation.manifest, self.observation.now)
        for step in (*self.steps(), self._rows_can_be_masked, self.branches_are_protected):
            fact = step(draft)
            draft.facts.append(fact)
            if not fact.holds:
                break
        upkeep = self.upkeep_status(draft)
        self._tell_of_requests(draft)
        next_snapshot = self._plan_snapshots(draft)
        requeue = min(self.look_again, next_snapshot) if next_snapshot is not None else self.look_again
        guarded = self.store.spec.protection and not reviews_alone(self.store, self.observation.engine)
        types = (*self.types, *((PROTECTED,) if guarded else ()))
        status = {**self.status(), **upkeep, **self.protection_status(draft)}
        plan = draft.finish(types, status, requeue_after=requeue)
        reviewed = unguarded(self.store, self.observation.engine)
        for aside in (self._clones_are_bounded(), self.network_is_guarded(), self._snapshots_come(), reviewed):
            plan = beside(plan, aside, self.observation.manifest)
        return plan

    @property
    def types(self) -> Sequence[str]:
        """Return the conditions of the chain."""
        return TYPES

    @property
    def look_again(self) -> float:
        """Return the seconds until the next look at a store of which nothing is heard."""
        return HEALTH_PERIOD

    @abstractmethod
    def steps(self) -> Sequence[Callable[[Draft], Fact]]:
        """Return the chain."""

    def _rows_can_be_masked(self, draft: Draft) -> Fact:
        """Last, for the server serves all the same; but a store that is not Ready has no new snapshots."""
        engine = self.observation.engine
        if self.store.spec.mask is not None and engine is not None and not engine.maskable:
            return mask_unsupported(ENGINE, self.store)
        return draft.facts[-1]

    def branches_are_protected(self, draft: Draft) -> Fact:
        """Return whether the protection that is asked for is in force; without any, the fact before."""
        return unprotectable(self.store, self.engine) or draft.facts[-1]

    def protection_status(self, draft: Draft) -> Mapping[str, Any]:
        """Return the part of the status that says which branches are protected."""
        del draft
        return {}

    def upkeep_status(self, draft: Draft) -> Mapping[str, Any]:
        """Plan what is asked for beside the chain; return the part of the status that says how far it is."""
        del draft
        return {}

    def _tell_of_requests(self, draft: Draft) -> None:
        refused = unanswerable(self.store, self.observation.manifest, self.observation.engine)
        told = together([*(fact for fact in draft.asides if fact.type == ACCEPTED), *refused])
        others = [fact for fact in draft.asides if fact.type != ACCEPTED]
        draft.asides = others if told is None else [*others, told]

    @abstractmethod
    def storage(self) -> StorageChoice | NoStorage:
        """Return the classes of the volume and its snapshots."""

    @abstractmethod
    def status(self) -> dict[str, Any]:
        """Return the status without its conditions."""

    def network_is_guarded(self) -> Fact | None:
        """Return whether NetworkPolicies keep strangers from servers; None while nobody can tell."""
        return None

    @property
    def engine(self) -> Engine:
        """Return the engine; the chain begins with that there is one."""
        if self.observation.engine is None:
            raise TypeError("the chain goes on without an engine")
        return self.observation.engine

    @property
    def content(self) -> Content | None:
        """Return what the server has just said that it holds, if it has."""
        answer = self.observation.answer
        return None if answer is None else answer.content

    def unknown_engine(self) -> Fact:
        """Return that nobody knows the engine asked for."""
        known = ", ".join(sorted(self.environment.engines)) or "none"
        return stalls(
            ENGINE, "UnknownEngine", f"there is no engine {self.store.spec.engine}; this operator has: {known}"
        )

    def unsupported_version(self, version: str) -> Fact:
        """Return that there is no image for a version."""
        engine = self.store.spec.engine
        offered = ", ".join(sorted(self.environment.images.get(engine, {}))) or "none"
        message = f"the administrator offers no image for {engine} {version}; there are: {offered}"
        return stalls(ENGINE, "UnsupportedVersion", message)

    def content_status(self, *, kept: bool) -> dict[str, Any]:
        """Return the part of the status that says what the store holds: as it was before while its server is silent, if
        that is to be ``kept``.
        """
        status: dict[str, Any] = {}
        newest = newest_ready(self.observation.snapshots)
        if newest is not None:
            status["lastSnapshot"] = {"name": newest["metadata"]["name"], "time": newest["status"]["capturedAt"]}
        content = self.content
        if content is None:
            before = (self.observation.manifest.get("status") or {}) if kept else {}
            return {**status, **{key: before.get(key) for key in ("version", "databases", "branches", "branchCount")}}
        own = [state for state in content.branches if state.database == content.database]
        return {
            **status,
            "version": content.engine_version,
            "databases": [content.database, *(name for name in content.databases if name != content.database)][
                :MAX_LISTED
            ],
            "branches": [
                {"name": state.branch, "head": state.head, "workingRoot": state.working_root}
                for state in own[:MAX_LISTED]
            ],
            "branchCount": len(own),
        }

    def _clones_are_bounded(self) -> Fact | None:
        """Return whether clones are kept to ``clones.ownBytes``; None where that is not asked for or not known yet.

        Where no class can, clones are made all the same: a bound guards the pool, and many drivers have none.
        """
        asked, choice = self.store.spec.clones.own_bytes, self.storage()
        if asked is None or isinstance(choice, NoStorage):
            return None
        found = bounded_class(self.observation.classes.storage, choice.storage_class, asked)
        if found is not None:
            return holds(BOUNDED, "OwnBytesBounded", f"StorageClass {found['metadata']['name']} bounds them to {asked}")
        return stalls(
            BOUNDED,
            "OwnBytesUnbounded",
            f"clones may write more than {asked} of their own: no StorageClass like {choice.storage_class} has "
            f"parameters.ownBytes: {asked}. Have the administrator make one (coppice-local: local.boundedClasses of "
            f"the chart), or leave clones.ownBytes out if the driver {choice.driver} has no such bound",
        )

    def _snapshots_come(self) -> Fact | None:
        return unscheduled(
            SCHEDULED,
            self.store.spec.snapshots.schedule,
            self.observation.now,
            field="spec.snapshots.schedule",
            effect="no snapshot is made by it",
        )

    def _plan_snapshots(self, draft: Draft) -> float | None:
        """Plan scheduled snapshots and drop the ones no longer kept; return the seconds until the next one."""
        line = SnapshotLine(
            manifest=self.observation.manifest,
            store=self.store,
            snapshots=self.observation.snapshots,
            now=self.observation.now,
            ready=all(fact.holds for fact in draft.facts),
            named=self.observation.named_snapshots,
        )
        schedule = plan_snapshots(line)
        draft.create.extend(schedule.create)
        draft.delete.extend(schedule.delete)
        return schedule.next_in


def newest_ready(snapshots: tuple[Manifest, ...]) -> Manifest | None:
    """Return the DataSnapshot of the store itself that holds the youngest point in time and is ready, or None; of
    several that hold the same second, one and the same in whatever order they are listed.
    """
    ready = [
        entry
        for entry in snapshots
        if is_true(entry, "Ready") and (entry.get("status") or {}).get("capturedAt") and not is_commit(entry)
    ]
    return max(ready, key=lambda entry: (str(entry["status"]["capturedAt"]), entry["metadata"]["name"]), default=None)
