"""DataBranch: a branch inside a store, made once from an exact version, and removed only if this object made it and
says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from coppice.api.v1alpha1 import DataBranch, DataStore, DeletionPolicy, From, History, InvalidResource, Verb
from coppice.api.v1alpha1.databranch import SquashStatus
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import EngineCall, Event, Manifest, Plan
from coppice.engines.base import BranchState, EngineError, Reference, UnknownVersionError, UnreachableError, Version
from coppice.engines.squashing import FORGET_ACTION, SQUASH_ACTION, Squash, SquashingEngine
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.reconcile import squashtries
from coppice.reconcile.access import Source, reach, read_source, source_problem
from coppice.reconcile.choice import ready_snapshots
from coppice.reconcile.draft import Draft, Fact, condemned, holds, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.kept import KEPT_FOR, tag_of_deleted
from coppice.reconcile.ledgers import describe, find_within
from coppice.reconcile.observed import deletion_asked_at, format_time, is_deleting, is_true
from coppice.reconcile.protection import protecting_patterns
from coppice.reconcile.reads import Answer, ask, ref_of
from coppice.reconcile.storenames import admin_secret_name

SOURCE = "SourceReady"
BRANCH = "BranchReady"
TYPES = (SOURCE, BRANCH)
LOOK_PERIOD = 60.0
"""Seconds between two looks at the branch's head."""


def reference_of(wanted: From) -> Reference:
    """Return ``spec.from`` in the engine's words; snapshots, and what is in them, are not the engine's concern."""
    return Reference(
        branch=wanted.branch,
        tag=wanted.tag,
        commit=wanted.commit,
        time=format_time(wanted.time) if wanted.time is not None else None,
    )


@dataclass(frozen=True, slots=True)
class BranchObservation:
    """A DataBranch, its store, and what the store's server says of the branch and of where it starts.

    ``squash``: what the branch begins with, asked of one that is to be squashed until it is known who has made it.
    """

    manifest: Manifest
    now: datetime
    branch: DataBranch | InvalidResource
    source: Source | None
    answer: Answer | None
    start: Version | EngineError | None
    squash: Squash | EngineError | None = None


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
        answer, start, squash, engine = None, None, None, source.engine
        if engine is not None and engine.versioned and source.terms is not None and not source.is_adopted:
            source = await reach(reader, source)
            answer = await ask(engine, source.endpoint, database=source.database)
            start = await self._resolve(reader, source, branch, answer)
            squash = await _squash_of(source, branch, answer)
        return BranchObservation(manifest, now, branch, source, answer, start, squash)

    async def _resolve(
        self, reader: KubeReader, source: Source, branch: DataBranch, answer: Answer | None
    ) -> Version | EngineError | None:
        """Return where the branch starts; only asked while the branch is not there, and of a store that is Ready: one
        that is being loaded is empty, or half of what it will be.
        """
        endpoint, engine = source.endpoint, source.engine
        if answer is None or answer.content is None or endpoint is None or engine is None:
            return None
        if not is_true(source.manifest or {}, "Ready"):
            return None
        if answer.content.state_of(branch.spec.branch_name) is not None:
            return None
        wanted = branch.spec.from_
        if wanted.snapshot is not None:
            return await _version_of_snapshot(reader, source, wanted.snapshot)
        if wanted.migration is not None:
            return await _version_at_migration(reader, source, wanted.migration)
        try:
            return await engine.resolve(endpoint, answer.content.database, reference_of(wanted))
        except EngineError as error:
            return error

    def plan(self, observation: BranchObservation) -> Plan:
        """Return what to do for the branch now."""
        branch = observation.branch
        draft = Draft(observation.manifest, observation.now)
        if isinstance(branch, InvalidResource) and is_deleting(observation.manifest):
            return Plan(remove_finalizer=True)
        if isinstance(branch, InvalidResource):
            draft.facts.append(stalls(SOURCE, "InvalidSpec", branch.message))
            return draft.finish(TYPES, {})
        if is_deleting(observation.manifest):
            plan = _plan_deletion(observation, branch)
            ended = _end_of_squash(observation, branch) if plan.remove_finalizer else ()
            return replace(plan, calls=(*ended, *plan.calls))
        return _BranchPlan(observation, branch).plan(draft)

    def failed(self, observation: BranchObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused; of a squash, what comes of its try."""
        branch = observation.branch
        planned = {call.action for call in self.plan(observation).calls}
        if isinstance(branch, InvalidResource) or SQUASH_ACTION not in planned or not isinstance(error, EngineError):
            return plan_failure(observation.manifest, error)
        told = squashtries.failed(branch.status.squash, observation.now, error)
        return self.plan(replace(observation, branch=_with_squash(branch, told)))


def _with_squash(branch: DataBranch, told: SquashStatus) -> DataBranch:
    return branch.model_copy(update={"status": branch.status.model_copy(update={"squash": told})})


async def _squash_of(source: Source, branch: DataBranch, answer: Answer | None) -> Squash | EngineError | None:
    if branch.spec.history is History.FULL or branch.status.created is not None:
        return None
    if answer is None or answer.content is None or source.endpoint is None:
        return None
    state = answer.content.state_of(branch.spec.branch_name)
    if state is None or not isinstance(source.engine, SquashingEngine):
        return None
    try:
        return await source.engine.squash_of(source.endpoint, state.database, state.head)
    except EngineError as error:
        return error


async def _version_of_snapshot(reader: KubeReader, source: Source, name: str) -> Version | EngineError:
    manifest = await reader.get("DataSnapshot", name, source.namespace)
    status: dict[str, Any] = dict((manifest or {}).get("status") or {})
    for entry in status.get("branches") or ():
        if entry["database"] == status.get("database") and entry["branch"] == status.get("defaultBranch"):
            return Version(entry["database"], entry["branch"], entry["head"], entry["workingRoot"])
    return UnknownVersionError(f"there is no DataSnapshot {name} that is Ready")


async def _version_at_migration(reader: KubeReader, source: Source, migration: str) -> Version | EngineError:
    store = str((source.manifest or {})["metadata"]["uid"])
    listed = await reader.list("DataSnapshot", source.namespace)
    snapshots = ready_snapshots(listed, store)
    found = find_within(snapshots, migration)
    if found is None:
        return UnknownVersionError(
            f"no DataSnapshot of DataStore {source.name} is known to be at or before migration {migration}: "
            f"{describe(snapshots)}"
        )
    return await _version_of_snapshot(reader, source, found.metadata.name)


def _plan_deletion(observation: BranchObservation, branch: DataBranch) -> Plan:
    """Remove the branch from the store if this object made it and its policy says Delete, and only as it was last
    seen; a protected one stays.
    """
    state = _state(observation, branch)
    source = observation.source
    if branch.spec.deletion_policy is not DeletionPolicy.DELETE or source is None:
        return Plan(remove_finalizer=True)
    if source.manifest is None or is_deleting(source.manifest) or source.terms is None:
        return Plan(remove_finalizer=True)
    if source.is_adopted or (source.engine is not None and not source.engine.versioned):
        return Plan(remove_finalizer=True)
    rule = _rule(source, branch)
    if rule:
        message = (
            f"branch {branch.spec.branch_name} is kept in DataStore {source.name}, for {rule}. To remove it, have the "
            "owners take the rule out of spec.protection, make the DataBranch anew, and delete it"
        )
        return Plan(remove_finalizer=True, events=(Event("BranchKept", message, "Warning"),))
    if observation.answer is None or observation.answer.content is None:
        message = (
            f"waits for the server of DataStore {source.name} to answer, to delete the branch "
            f"{branch.spec.branch_name}; "
            "set spec.deletionPolicy to Retain to leave the branch there"
        )
        return condemned(observation.manifest, [], message=message)
    created = _is_created(observation, branch, state)
    if state is not None and created is None:
        message = (
            f"waits for the server of DataStore {source.name} to say who has made the branch {state.branch}, to delete "
            f"it if it was this object: {observation.squash}; set spec.deletionPolicy to Retain to leave it there"
        )
        return condemned(observation.manifest, [], message=message)
    if state is None or not created:
        return Plan(remove_finalizer=True)
    keep = tag_of_deleted(state.branch, deletion_asked_at(observation.manifest))
    call = _call(observation, source, "delete-branch", {"branch": state.branch, "head": state.head, "keep": keep})
    message = (
        f"branch {state.branch} is deleted from DataStore {source.name}; what it held is kept for {KEPT_FOR.days} days "
        f"as tag {keep}. To have it back: coppice branch restore {state.branch} --from "
        f"{source.namespace}/{source.name}, or a DataBranch with this tag in spec.from"
    )
    return Plan(calls=(call,), remove_finalizer=True, events=(Event("BranchDeleted", message),))


def _end_of_squash(observation: BranchObservation, branch: DataBranch) -> tuple[EngineCall, ...]:
    """Return what leaves nothing of a squash, where it is not over and there is a server to be told."""
    source, answer = observation.source, observation.answer
    if squashtries.is_over(branch.status.squash) or source is None or source.endpoint is None:
        return ()
    if answer is None or answer.content is None or not isinstance(source.engine, SquashingEngine):
        return ()
    return (_call(observation, source, FORGET_ACTION, {"maker": branch.metadata.uid}),)


def _is_created(observation: BranchObservation, branch: DataBranch, state: BranchState | None) -> bool | None:
    """Return whether this object made the branch; None while there is none, or nobody says.

    Where the branch is to start is written down before it is made: after a crash in between, a branch that stands there
    is its own. One that is squashed says itself for which object it was made. Any other that is found at the first look
    was there before.
    """
    if branch.status.created is not None or state is None:
        return branch.status.created
    if branch.spec.history is History.SQUASHED:
        squash = observation.squash
        return None if isinstance(squash, EngineError) else squash is not None and squash.maker == branch.metadata.uid
    return branch.status.base is not None and branch.status.base == state.head


def _rule(source: Source, branch: DataBranch) -> str:
    """Return the rule of the store's owners by which nobody makes or removes the branch alone, or nothing."""
    if not isinstance(source.store, DataStore):
        return ""
    patterns = ", ".join(protecting_patterns(source.store, branch.spec.branch_name))
    return f"spec.protection protects branches {patterns}" if patterns else ""


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
        target=ref_of(endpoint, source.namespace, admin_secret_name(source.name)),
        action=action,
        arguments={"database": content.database, **arguments},
    )


@dataclass(slots=True)
class _BranchPlan:
    """The chain of facts for one branch. ``squash``: what its status is to say of its squash."""

    observation: BranchObservation
    branch: DataBranch
    squash: SquashStatus | None = field(init=False)

    def __post_init__(self) -> None:
        self.squash = self.branch.status.squash

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
        engine = self._source.engine
        if self._source.is_adopted:
            return stalls(
                SOURCE,
                "AdoptedStore",
                f"DataStore {self._source.name} adopts a database that somebody else runs, and Coppice writes nothing "
                "into that: have the branch made there, or work in a DataClone; and delete this DataBranch",
            )
        if engine is not None and not engine.versioned:
            return stalls(
                SOURCE,
                "EngineHasNoBranches",
                f"DataStore {self._source.name} is of engine {engine.name}, which has no branches of its own: commit a "
                "clone of it to a branch (a DataSnapshot with spec.commit), and delete this DataBranch",
            )
        if engine is not None and self._is_squashed and not isinstance(engine, SquashingEngine):
            return stalls(
                SOURCE,
                "EngineDoesNotSquash",
                f"DataStore {self._source.name} is of engine {engine.name}, which cannot begin a branch without its "
                "history: make a DataBranch with spec.history Full, and delete this one",
            )
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
        state, told = _state(self.observation, self.branch), self.branch.status.squash
        if state is not None:
            if told is not None and not squashtries.is_over(told):
                draft.calls.extend(_end_of_squash(self.observation, self.branch))
                self.squash = squashtries.finished(told, self.observation.now)
            return holds(BRANCH, "Exists", f"branch {name} is at {state.head}")
        if self.branch.status.head is not None:
            return stalls(
                BRANCH,
                "BranchLost",
                f"branch {name} was at {self.branch.status.head} and is gone from the store: "
                "make it again there, or delete this DataBranch",
                retry_after=60,
            )
        rule = _rule(self._source, self.branch)
        if rule:
            return stalls(
                BRANCH,
                "BranchProtected",
                f"branch {name} is not made, for {rule} of DataStore {self._source.name}: give the branch a name that "
                "no rule means, or have the owners take the rule out of spec.protection until the branch is there",
                retry_after=60,
            )
        start, base = self.observation.start, self._base
        if base is not None:
            return self._make(draft, name, base)
        if isinstance(start, UnknownVersionError):
            return stalls(
                BRANCH, "UnknownVersion", f"{start}: correct spec.from by making this DataBranch anew", retry_after=60
            )
        if start is None:
            message = f"waits for DataStore {self._source.name} to be Ready; see its conditions"
            return waits(BRANCH, "StoreNotReady", message, retry_after=30)
        return waits(BRANCH, "StoreNotReady", f"the store cannot say where the branch starts: {start}", retry_after=5)

    def _make(self, draft: Draft, name: str, base: str) -> Fact:
        """Make the branch, once it is written down where it starts."""
        written = base == self.branch.status.base
        arguments = {"branch": name, "commit": base}
        if self._is_squashed:
            return self._squash(draft, arguments) if written else self._begin(arguments)
        if written:
            draft.calls.append(_call(self.observation, self._source, "create-branch", arguments))
        return waits(BRANCH, "Creating", f"branch {name} is being made at {base}", retry_after=0.1)

    def _squash(self, draft: Draft, arguments: dict[str, str]) -> Fact:
        """Squash what the branch begins with, or go on with it; one that failed is begun again after a while."""
        told, now, name, base = self.branch.status.squash, self.observation.now, *arguments.values()
        if told is None:
            return self._begin(arguments)
        if told.failed_at is None:
            said = {
                "maker": self.branch.metadata.uid,
                "message": f"Squash of {self._source.namespace}/{self._source.name} at {base}",
            }
            draft.calls.append(_call(self.observation, self._source, SQUASH_ACTION, {**arguments, **said}))
            return _squashing(arguments, retry_after=2)
        failure = f"{base} was not squashed for branch {name} in try {told.tries}: {told.problem}"
        due = squashtries.next_try(told, told.failed_at)
        if due is None:
            return stalls(
                BRANCH,
                "SquashFailed",
                f"{failure}. It is not tried again, for each try writes all data once more: see the log of the store's "
                "server and the room on its volume, then make this DataBranch anew",
            )
        if now < due:
            message = f"{failure}. It is tried again at {format_time(due)}"
            return waits(BRANCH, "SquashFailed", message, retry_after=(due - now).total_seconds())
        return self._begin(arguments)

    def _begin(self, arguments: dict[str, str]) -> Fact:
        """Write down that a squash begins, if there is room for it."""
        store = self._source.store
        lacking = squashtries.lacking_room(store) if isinstance(store, DataStore) else ""
        if lacking:
            return stalls(
                BRANCH,
                "SquashNeedsRoom",
                f"branch {arguments['branch']} is not made: {lacking}. Ask for more in the "
                f"spec.managed.storage.size of DataStore {self._source.name}",
                retry_after=60,
            )
        self.squash = squashtries.begun(self.branch.status.squash, self.observation.now)
        return _squashing(arguments, retry_after=0.1)

    @property
    def _is_squashed(self) -> bool:
        return self.branch.spec.history is History.SQUASHED

    @property
    def _base(self) -> str | None:
        """Return where the branch starts: as once written down, although the source may have moved on."""
        start = self.observation.start
        return self.branch.status.base or (start.head if isinstance(start, Version) else None)

    def _status(self) -> dict[str, Any]:
        before = self.branch.status
        told = None if self.squash is None else self.squash.dump()
        state = _state(self.observation, self.branch)
        created = _is_created(self.observation, self.branch, state)
        if state is None:
            seen = {"base": self._base, "head": before.head, "workingRoot": before.working_root}
        else:
            seen = {"base": before.base, "head": state.head, "workingRoot": state.working_root}
        return {"created": created, "squash": told, **seen}


def _squashing(arguments: dict[str, str], *, retry_after: float) -> Fact:
    message = (
        f"branch {arguments['branch']} is being made of what {arguments['commit']} holds, without its history: of much "
        "that takes minutes; since when, status.squash says"
    )
    return waits(BRANCH, "Squashing", message, retry_after=retry_after)
