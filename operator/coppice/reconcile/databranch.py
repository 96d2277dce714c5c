"""DataBranch: a branch inside a store, made once from an exact version, and removed only if this object made it and says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from coppice.api.v1alpha1 import DataBranch, DataStore, DeletionPolicy, From, InvalidResource, Verb
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import EngineCall, Manifest, Plan, ServerRef
from coppice.engines.base import BranchState, EngineError, Reference, UnknownVersionError, UnreachableError, Version
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.reconcile.access import Source, read_source, source_problem
from coppice.reconcile.datastore import admin_secret_name
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.observed import format_time, is_deleting
from coppice.reconcile.reads import Answer, ask

SOURCE = "SourceReady"
BRANCH = "BranchReady"
TYPES = (SOURCE, BRANCH)
LOOK_PERIOD = 60.0
"""Seconds between two looks at the branch's head."""


def reference_of(wanted: From) -> Reference:
    """Return ``spec.from`` in the engine's words; a snapshot is not the engine's concern and is left out."""
    return Reference(
        branch=wanted.branch,
        tag=wanted.tag,
        commit=wanted.commit,
        time=format_time(wanted.time) if wanted.time is not None else None,
    )


@dataclass(frozen=True, slots=True)
class BranchObservation:
    """A DataBranch, its store, and what the store's server says of the branch and of where it starts."""

    manifest: Manifest
    now: datetime
    branch: DataBranch | InvalidResource
    source: Source | None
    answer: Answer | None
    start: Version | EngineError | None


@dataclass(frozen=True, slots=True)
class DataBranchReconciler:
    """Keeps DataBranches as their specifications say."""

    environment: Environment
    kind: str = "DataBranch"

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> BranchObservation | None:
        """Read the branch's object and ask the store's server."""
        manifest = await reader.get("DataBranch", key.name, key.namespace)
        if manifest is None:
            return None
        branch = DataBranch.parse(manifest)
        if isinstance(branch, InvalidResource):
            return BranchObservation(manifest, now, branch, None, None, None)
        source = await read_source(
            reader, self.environment, branch.spec.store, namespace=branch.metadata.namespace, verb=Verb.BRANCH
        )
        answer, start = None, None
        if source.engine is not None and source.terms is not None:
            answer = await ask(source.engine, source.endpoint, database=source.database)
            start = await self._resolve(reader, source, branch, answer)
        return BranchObservation(manifest, now, branch, source, answer, start)

    async def _resolve(
        self, reader: KubeReader, source: Source, branch: DataBranch, answer: Answer | None
    ) -> Version | EngineError | None:
        """Return where the branch starts; only asked while the branch is not there."""
        endpoint, engine = source.endpoint, source.engine
        if answer is None or answer.content is None or endpoint is None or engine is None:
            return None
        if answer.content.state_of(branch.spec.branch_name) is not None:
            return None
        wanted = branch.spec.from_
        if wanted.snapshot is not None:
            return await _version_of_snapshot(reader, source, wanted.snapshot)
        try:
            return await engine.resolve(endpoint, answer.content.database, reference_of(wanted))
        except EngineError as error:
            return error

    def plan(self, observation: BranchObservation) -> Plan:
        """Return what to do for the branch now."""
        branch = observation.branch
        draft = Draft(observation.manifest, observation.now)
        if isinstance(branch, InvalidResource):
            draft.facts.append(stalls(SOURCE, "InvalidSpec", branch.message))
            return draft.finish(TYPES, {})
        if is_deleting(observation.manifest):
            return _plan_deletion(observation, branch)
        return _BranchPlan(observation, branch).plan(draft)

    def failed(self, observation: BranchObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        return plan_failure(observation.manifest, error)


async def _version_of_snapshot(reader: KubeReader, source: Source, name: str) -> Version | EngineError:
    manifest = await reader.get("DataSnapshot", name, source.namespace)
    status: dict[str, Any] = dict((manifest or {}).get("status") or {})
    for entry in status.get("branches") or ():
        if entry["database"] == status.get("database") and entry["branch"] == status.get("defaultBranch"):
            return Version(entry["database"], entry["branch"], entry["head"], entry["workingRoot"])
    return UnknownVersionError(f"there is no DataSnapshot {name} that is Ready")


def _plan_deletion(observation: BranchObservation, branch: DataBranch) -> Plan:
    """Remove the branch from the store if this object made it and its policy says Delete, and only as it was last seen."""
    state = _state(observation, branch)
    made = branch.status.created is True and branch.spec.deletion_policy is DeletionPolicy.DELETE
    source = observation.source
    if not made or source is None or source.manifest is None or source.terms is None:
        return Plan(remove_finalizer=True)
    if observation.answer is None or observation.answer.content is None:
        return Plan(requeue_after=10)
    if state is None:
        return Plan(remove_finalizer=True)
    call = _call(observation, source, "delete-branch", {"branch": state.branch, "head": state.head})
    return Plan(calls=(call,), remove_finalizer=True)


def _state(observation: BranchObservation, branch: DataBranch) -> BranchState | None:
    if observation.answer is None or observation.answer.content is None:
        return None
    return observation.answer.content.state_of(branch.spec.branch_name)


def _call(observation: BranchObservation, source: Source, action: str, arguments: dict[str, str]) -> EngineCall:
    endpoint = source.endpoint
    content = observation.answer.content if observation.answer is not None else None
    if endpoint is None or content is None or not isinstance(source.store, DataStore):
        raise TypeError("a call needs a server that answers")
    return EngineCall(
        engine=source.store.spec.engine,
        target=ServerRef(endpoint.host, endpoint.port, source.namespace, admin_secret_name(source.name)),
        action=action,
        arguments={"database": content.database, **arguments},
    )


@dataclass(frozen=True, slots=True)
class _BranchPlan:
    """The chain of facts for one branch."""

    observation: BranchObservation
    branch: DataBranch

    def plan(self, draft: Draft) -> Plan:
        for step in (self._store_answers, self._branch_exists):
            fact = step(draft)
            draft.facts.append(fact)
            if not fact.holds:
                break
        plan = draft.finish(TYPES, self._status(), requeue_after=LOOK_PERIOD)
        wanted = self.branch.spec.deletion_policy is DeletionPolicy.DELETE
        present = labels.FINALIZER in self.branch.metadata.finalizers
        return replace(plan, add_finalizer=wanted and not present, remove_finalizer=present and not wanted)

    @property
    def _source(self) -> Source:
        if self.observation.source is None:
            raise TypeError("a valid branch has a source")
        return self.observation.source

    def _store_answers(self, draft: Draft) -> Fact:
        del draft
        problem = source_problem(self._source, kind=SOURCE, namespace=self.branch.metadata.namespace, verb=Verb.BRANCH)
        if problem is not None:
            return problem
        answer = self.observation.answer
        if answer is None or answer.content is None:
            detail = "" if answer is None or isinstance(answer.error, UnreachableError) else f": {answer.error}"
            return waits(
                SOURCE,
                "StoreNotReady",
                f"the server of DataStore {self._source.name} does not answer yet{detail}",
                retry_after=5,
            )
        return holds(SOURCE, "StoreReady", f"DataStore {self._source.name} answers")

    def _branch_exists(self, draft: Draft) -> Fact:
        name = self.branch.spec.branch_name
        state = _state(self.observation, self.branch)
        if state is not None:
            return holds(BRANCH, "Exists", f"branch {name} is at {state.head}")
        if self.branch.status.head is not None:
            return stalls(
                BRANCH,
                "BranchLost",
                f"branch {name} was at {self.branch.status.head} and is gone from the store: "
                "make it again there, or delete this DataBranch",
                retry_after=60,
            )
        start = self.observation.start
        if isinstance(start, Version):
            draft.calls.append(
                _call(self.observation, self._source, "create-branch", {"branch": name, "commit": start.head})
            )
            return waits(BRANCH, "Creating", f"branch {name} is being made at {start.head}", retry_after=0.1)
        if isinstance(start, UnknownVersionError):
            return stalls(
                BRANCH, "UnknownVersion", f"{start}: correct spec.from by making this DataBranch anew", retry_after=60
            )
        return waits(BRANCH, "StoreNotReady", f"the store cannot say where the branch starts: {start}", retry_after=5)

    def _status(self) -> dict[str, Any]:
        before = self.branch.status
        state = _state(self.observation, self.branch)
        start = self.observation.start
        creating = isinstance(start, Version)
        status: dict[str, Any] = {
            # Written with the call that makes the branch; a branch that was there before this object ever called is never taken for its own.
            "created": True
            if creating
            else before.created
            if before.created is not None
            else (False if state else None),
            "base": start.head if isinstance(start, Version) else before.base,
        }
        if state is not None:
            return {**status, "head": state.head, "workingRoot": state.working_root}
        return {**status, "head": before.head, "workingRoot": before.working_root}
