"""The operator over a ``World``: the real controller and executor, with the work queue's clock in the test's hands.

An object is looked at again for the reasons that count in a cluster, and for no others: a watch event of something it
read, or the delay its plan asked for. ``settle`` lets operator and world take turns until nothing changes any more, so
that a lost wake-up is a test that does not get where it should, and a hot loop one that does not end.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from tests.fakes.kube import Crash, Object
from tests.fakes.world import ROW_IN_A_MESSAGE, World, key_of

from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Event, Manifest, Plan
from coppice.core.pullrequests import Posting
from coppice.core.quantities import quantity_bytes
from coppice.kube.cache import CachedKube, WatchCache
from coppice.kube.resources import RESOURCES
from coppice.manifests.pod import Resources
from coppice.reconcile.databranch import DataBranchReconciler
from coppice.reconcile.datachangerequest import DataChangeRequestReconciler
from coppice.reconcile.dataclone import DataCloneReconciler
from coppice.reconcile.datagrant import DataGrantReconciler
from coppice.reconcile.datareview import DataReviewReconciler
from coppice.reconcile.datasnapshot import DataSnapshotReconciler
from coppice.reconcile.datastore import DataStoreReconciler
from coppice.reconcile.environment import Environment
from coppice.runtime.controller import Controller
from coppice.runtime.dependencies import Dependencies
from coppice.runtime.executor import Executor
from coppice.runtime.metrics import Metrics

KINDS = ("DataStore", "DataGrant", "DataSnapshot", "DataBranch", "DataClone", "DataChangeRequest", "DataReview")
PATIENCE = 16.0
"""Seconds of the world's time in which nothing may happen for it to count as settled; longer waits are a test's own."""
TURN = 0.05
"""Seconds of the world's time that a turn takes."""


class Mood(Enum):
    """What a watch may do to what it tells."""

    TWICE = "everything is told twice"
    STALE = "whatever is told, what was told before of the same object is told once more after it"
    GAP = "no deletion is told: the API server answers 410 and the watch lists anew; a resync comes in the end"


HISTORY = 4
"""How many of the last events of an object a stale watch tells again."""


def environment(world: World, **changes: Any) -> Environment:
    settings: dict[str, Any] = {
        "engines": {"fake": world.engine},
        "images": {"fake": {"1.0": "example.com/fake:1.0", "2.0": "example.com/fake:2.0"}},
        "operator_namespace": "coppice-system",
        "server": Resources(memory="256Mi", cpu="100m"),
        "idle": timedelta(days=1),
        "longest": timedelta(days=7),
        "undo": timedelta(minutes=30),
        "reaches": world.reaches,
        "forges": world.forges,
        # Only the stories of sleep are about it.
        "sleep": timedelta(days=365),
    }
    return Environment(**{**settings, **changes})


@dataclass
class Log:
    """What the operator said and planned, over all its lives."""

    events: list[tuple[Key, Event]] = field(default_factory=list)
    plans: list[tuple[Key, Plan]] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)

    def want(self, posting: Posting) -> None:
        self.postings.append(posting)

    def record(self, manifest: Manifest, event: Event) -> None:
        self.events.append((key_of(manifest), event))


class Checked:
    """A reconciler that fails the test on a bug, and on a plan that is another one the second time."""

    def __init__(self, inner: Any, log: Log) -> None:
        self.kind = inner.kind
        self._inner, self._log = inner, log
        self._planned: dict[Key, Plan] = {}
        self.bugs: list[BaseException] = []

    async def observe(self, reader: Any, key: Key, now: Any) -> Any:
        return await self._guard_async(self._inner.observe(reader, key, now))

    def plan(self, observation: Any) -> Plan:
        plan: Plan = self._guard(lambda: self._inner.plan(observation))
        key = key_of(observation.manifest)
        # A plan to rest is looked at once: coming again, it is the witness that the same observation gives the same,
        # but for when to come back.
        rest = replace(plan, requeue_after=None)
        if _writes(plan) or rest != self._planned.get(key):
            again: Plan = self._guard(lambda: self._inner.plan(observation))
            self._guard(lambda: _equal(plan, again))
        self._planned[key] = rest
        self._log.plans.append((key, plan))
        return plan

    def failed(self, observation: Any, error: Any) -> Plan:
        plan: Plan = self._guard(lambda: self._inner.failed(observation, error))
        return plan

    def _guard(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except BaseException as error:
            self.bugs.append(error)
            raise

    async def _guard_async(self, waiting: Any) -> Any:
        try:
            return await waiting
        except BaseException as error:
            if type(error).__module__ != "coppice.kube.errors":
                self.bugs.append(error)
            raise


class CheckedExecutor(Executor):
    """An executor that fails the test on a plan that breaks a rule every plan keeps."""

    def __init__(self, world: World, reconcilers: Mapping[str, Checked], **parts: Any) -> None:
        super().__init__(**parts)
        self._world, self._reconcilers = world, reconcilers

    async def execute(self, plan: Plan, manifest: Manifest, now: datetime) -> Mapping[str, Any]:
        if _writes(plan):
            try:
                check_plan(self._world, manifest, plan)
            except AssertionError as error:
                self._reconcilers[manifest["kind"]].bugs.append(error)
                raise
        return await super().execute(plan, manifest, now)


def _writes(plan: Plan) -> bool:
    """Return whether a plan does more than to report."""
    return bool(
        plan.calls
        or plan.create
        or plan.prune
        or plan.apply
        or plan.delete
        or plan.discard
        or plan.scale
        or plan.wire
        or plan.remove_finalizer
    )


def _equal(plan: Plan, again: Plan) -> None:
    assert plan == again, "the same observation gives two plans"


def check_plan(world: World, manifest: Manifest, plan: Plan) -> None:
    """What holds of every plan, whatever the situation."""
    uid = manifest["metadata"]["uid"]
    assert not (plan.add_finalizer and plan.remove_finalizer)
    for desired in (*plan.create, *plan.apply):
        _check_written(world, uid, desired)
    for desired in plan.apply:
        found = _find(world, desired)
        assert found is None or "uid" in desired["metadata"], f"{desired['kind']} is applied without its UID"
    for patch in plan.prune:
        found = _find(world, patch)
        ours = found is not None and found["metadata"]["labels"].get(labels.OWNER_UID) == uid
        released = "ownerReferences" in patch["metadata"]
        assert ours, f"{patch['kind']} {patch['metadata']['name']} is not its own"
        assert patch["kind"] == "Secret" or released, f"{patch['kind']} {patch['metadata']['name']} is pruned"
        held = labels.FINALIZER in manifest["metadata"].get("finalizers", ())
        assert held or not released, f"{patch['kind']} {patch['metadata']['name']} would stay for ever"
    for ref in plan.discard:
        assert ref.kind in {"VolumeSnapshot", "VolumeSnapshotContent"}, f"{ref.kind} {ref.name} is lightly removed"
        assert manifest["kind"] == "DataClone", f"{ref.kind} {ref.name} is no alias"
    for ref in (*plan.delete, *plan.discard):
        found = world.kube.peek(ref.kind, ref.namespace, ref.name)
        if found is not None and found["metadata"]["uid"] == ref.uid:
            _check_deleted(world, manifest, plan, found)
    _check_secrets(world, plan)
    assert ROW_IN_A_MESSAGE not in str(plan), "what a user's program says of a row is repeated"


def _find(world: World, desired: Manifest) -> Object | None:
    metadata = desired["metadata"]
    return world.kube.peek(desired["kind"], metadata.get("namespace"), metadata["name"])


def _check_written(world: World, uid: str, desired: Manifest) -> None:
    metadata = desired["metadata"]
    what = f"{desired['kind']} {metadata['name']}"
    found = _find(world, desired)
    if found is not None and desired["kind"] == "PersistentVolumeClaim":
        wanted = (desired.get("spec") or {}).get("resources", {}).get("requests", {}).get("storage")
        present = found["spec"]["resources"]["requests"]["storage"]
        assert wanted is None or quantity_bytes(wanted) >= quantity_bytes(present), f"{what} would shrink"
    if "uid" in metadata:
        return
    owner = metadata["labels"][labels.OWNER_UID]
    made_for_store = desired["kind"] == "DataSnapshot"
    assert owner == uid or made_for_store, f"{what} is made for {owner}, not for {uid}"


def _check_deleted(world: World, manifest: Manifest, plan: Plan, found: Object) -> None:
    """Only what is the object's own goes, and no data that are in use."""
    what = str(key_of(found))
    found_labels = found["metadata"].get("labels") or {}
    assert found_labels.get(labels.OWNER_UID) == manifest["metadata"]["uid"], f"{what} is not its own"
    outlives = found["kind"] in {"PersistentVolumeClaim", "Secret"} and "ownerReferences" not in found["metadata"]
    if manifest["kind"] == "DataStore" and outlives and labels.MIRRORED in (found["metadata"].get("annotations") or {}):
        assert not _is_last_copy(world, found) or _is_condemned(manifest), f"{what} is all that its store holds"
    elif manifest["kind"] == "DataStore" and outlives:
        assert "deletionTimestamp" in manifest["metadata"], f"{what} goes while its store is there"
        assert manifest["spec"]["deletionPolicy"] == "Delete", f"{what} was to be retained"
    if manifest["kind"] == "DataClone" and found["kind"] == "PersistentVolumeClaim":
        kept = ((plan.status or {}).get("previous") or {}).get("copy")
        assert found["metadata"]["labels"][labels.COPY] != kept, f"{what} goes while its undo window is open"
        assert not _is_served(world, found) or _ends(manifest, plan), f"{what} goes while it serves"


def _is_condemned(manifest: Manifest) -> bool:
    return "deletionTimestamp" in manifest["metadata"] and manifest["spec"].get("deletionPolicy") == "Delete"


def _is_last_copy(world: World, claim: Object) -> bool:
    """Return whether a mirror's claim is complete, and no newer complete one has a server that answers from it."""
    if not _is_complete(claim):
        return False
    number = int(claim["metadata"]["labels"][labels.COPY])
    newer = [
        found
        for found in world.kube.all("PersistentVolumeClaim", claim["metadata"]["namespace"])
        if found["metadata"].get("labels", {}).get(labels.STORE) == claim["metadata"]["labels"][labels.STORE]
        and _is_complete(found)
        and int(found["metadata"]["labels"][labels.COPY]) > number
    ]
    return not any(
        server.listening and server.volume is world.volumes.get(found["metadata"]["uid"])
        for found in newer
        for server in world.engine.servers.values()
    )


def _is_complete(claim: Object) -> bool:
    mark = (claim["metadata"].get("annotations") or {}).get(labels.MIRRORED)
    return mark is not None and "held" in json.loads(mark)


def _is_served(world: World, claim: Object) -> bool:
    """Return whether apps have been told of the copy on a claim."""
    if labels.SERVES_SINCE not in (claim["metadata"].get("annotations") or {}):
        return False
    return any(
        (secret["metadata"].get("annotations") or {}).get(labels.COPY) == claim["metadata"]["labels"][labels.COPY]
        and secret["metadata"]["labels"][labels.OWNER_UID] == claim["metadata"]["labels"][labels.OWNER_UID]
        for secret in world.kube.all("Secret", claim["metadata"]["namespace"])
        if labels.OWNER_UID in (secret["metadata"].get("labels") or {})
    )


def _ends(manifest: Manifest, plan: Plan) -> bool:
    """Return whether a clone is over, or its apps are told of another copy at this very moment."""
    expired = any(
        entry["reason"] in {"Expired", "PullRequestClosed"} for entry in (plan.status or {}).get("conditions", ())
    )
    switched = any(labels.COPY in (entry["metadata"].get("annotations") or {}) for entry in plan.apply)
    return expired or switched or "deletionTimestamp" in manifest["metadata"]


def _check_secrets(world: World, plan: Plan) -> None:
    """No password stands in a plan but in the data of a Secret."""
    passwords = {
        password
        for volume in (*world.volumes.values(), *world.snapshots.values())
        for password in volume.users.values()
    }
    manifests = [
        {**manifest, "data": None} if manifest["kind"] == "Secret" else manifest
        for manifest in (*plan.create, *plan.apply)
    ]
    text = f"{manifests} {replace(plan, create=(), apply=())}"
    assert "password-" not in text.replace("password-app", ""), "a password stands in a plan"
    assert not [password for password in passwords if password in text], "a password stands in a plan"


class Operator:
    """One operator after another: ``restart`` forgets everything that is not in the cluster."""

    def __init__(self, world: World, **settings: Any) -> None:
        self.world = world
        self.settings = settings
        self.log = Log()
        self.deaf = False
        """No watch event arrives; only what was asked for by delay, and what ``restart`` lists, is looked at."""
        self.deaf_to: frozenset[str] = frozenset()
        """Kinds of which no watch event arrives."""
        self.mood: Mood | None = None
        """How the watches tell of what happens, where not as on a quiet day."""
        self.late = False
        """Events wait until they are heard; the watch of one kind is ahead of another's."""
        self.crashes = 0
        self._missed = False
        self._history: defaultdict[Key, list[tuple[str, Manifest]]] = defaultdict(list)
        world.kube.subscribe(self._on_event)
        self.restart()

    def restart(self) -> None:
        world = self.world
        world.forges.forget()
        surroundings = environment(world, **self.settings)
        metrics = Metrics()
        self._dependencies = Dependencies()
        reconcilers = (
            DataStoreReconciler(surroundings),
            DataGrantReconciler(surroundings),
            DataSnapshotReconciler(surroundings),
            DataBranchReconciler(surroundings),
            DataCloneReconciler(surroundings),
            DataChangeRequestReconciler(surroundings),
            DataReviewReconciler(surroundings),
        )
        self.reconcilers = {inner.kind: Checked(inner, self.log) for inner in reconcilers}
        self._cache = WatchCache()
        self._unheard: defaultdict[str, deque[tuple[str, Manifest]]] = defaultdict(deque)
        self._list_all()
        cached = CachedKube(world.kube, self._cache)
        executor = CheckedExecutor(
            world,
            self.reconcilers,
            client=cached,
            live=world.kube,
            engines=surroundings.engines,
            recorder=self.log,
            board=self.log,
            metrics=metrics,
        )
        self._controller = Controller(
            reconcilers=self.reconcilers,
            reader=cached,
            live=world.kube,
            executor=executor,
            dependencies=self._dependencies,
            metrics=metrics,
            clock=lambda: world.now,
        )
        self.due: dict[Key, Any] = {}
        self._failures: dict[Key, int] = {}
        for kind in KINDS:
            for found in world.kube.all(kind):
                self.due[key_of(found)] = world.now

    def _list_all(self) -> None:
        """Know what a leader knows when its workers begin."""
        self._selected: dict[Key, Manifest] = {}
        for kind, resource in RESOURCES.items():
            found = [entry for entry in self.world.kube.all(kind) if resource.selects(entry)]
            self._selected |= {key_of(entry): entry for entry in found}
            if resource.cached:
                self._cache.listed(kind, found, self._cache.now())

    def _on_event(self, event: str, manifest: Manifest) -> None:
        resource, key = RESOURCES[manifest["kind"]], key_of(manifest)
        before = self._selected.pop(key, None)
        if resource.selects(manifest):
            if event != "DELETED":
                self._selected[key] = manifest
        elif before is not None:
            # What a watch selects no more it reports as deleted: as it was before, with the version of now.
            version = manifest["metadata"]["resourceVersion"]
            event, manifest = "DELETED", {**before, "metadata": {**before["metadata"], "resourceVersion": version}}
        else:
            return
        if self.deaf or manifest["kind"] in self.deaf_to or not resource.watched:
            return
        self._unheard[manifest["kind"]].extend(self._told(event, manifest))
        if not self.late:
            self.hear()

    def _told(self, event: str, manifest: Manifest) -> list[tuple[str, Manifest]]:
        """Return what the watch tells of an event."""
        told, key = (event, manifest), key_of(manifest)
        before = self._history[key]
        self._history[key] = [told, *before][:HISTORY]
        match self.mood:
            case Mood.TWICE:
                return [told, told]
            case Mood.STALE:
                return [told, *before]
            case Mood.GAP if event == "DELETED":
                self._missed = True
                resource = RESOURCES[manifest["kind"]]
                return [("ADDED", found) for found in self.world.kube.all(manifest["kind"]) if resource.selects(found)]
        return [told]

    def resync(self) -> None:
        """List everything, as a leader does now and then: whoever read what is gone is woken, and all of its kinds."""
        self._missed = False
        gone = [key for key in self._history if self.world.kube.peek(*key) is None]
        self._list_all()
        for key in gone:
            for reader in self._dependencies.readers_of(key, {}):
                self._wake(reader)
        for kind in KINDS:
            for found in self.world.kube.all(kind):
                self._wake(key_of(found))

    def hear(self, pick: random.Random | None = None) -> None:
        """Hear all events that wait, or of each kind as many as chance will have."""
        for unheard in list(self._unheard.values()):
            for _ in range(len(unheard) if pick is None else pick.randint(0, len(unheard))):
                self._take(*unheard.popleft())

    def _take(self, event: str, manifest: Manifest) -> None:
        if event == "DELETED":
            self._cache.deleted(manifest["kind"], manifest)
        else:
            self._cache.take(manifest["kind"], manifest)
        key = key_of(manifest)
        if key.kind in KINDS:
            self._wake(key)
        for reader in self._dependencies.readers_of(key, manifest["metadata"].get("labels") or {}):
            self._wake(reader)

    def _wake(self, key: Key) -> None:
        self.due[key] = min(self.due.get(key, self.world.now), self.world.now)

    async def run_due(self) -> int:
        """Look at every object that is due, until none is; return how often."""
        runs = 0
        self.hear()
        while ready := sorted((key for key, when in self.due.items() if when <= self.world.now), key=str):
            for key in ready:
                await self.reconcile(key)
                runs += 1
            self.hear()
            assert runs < 5000, self.trace("the operator does not come to rest")
        return runs

    async def reconcile(self, key: Key) -> None:
        """Look at one object now."""
        self.due.pop(key, None)
        try:
            outcome = await self._controller.run_once(key)
        except Crash:
            self.crashes += 1
            self.restart()
            return
        for reconciler in self.reconcilers.values():
            if reconciler.bugs:
                raise reconciler.bugs[0]
        delay = outcome.delay
        self._failures[key] = self._failures.get(key, 0) + 1 if outcome.retry else 0
        if outcome.retry:
            delay = max(delay or 0.0, min(0.1 * 2 ** self._failures[key], 30.0))
        if delay is not None:
            when = self.world.now + timedelta(seconds=delay)
            self.due[key] = min(self.due.get(key, when), when)

    async def settle(self, patience: float = PATIENCE) -> None:
        """Let operator and world take turns until nothing changes for ``patience`` seconds."""
        world = self.world
        quiet_since = world.now
        for _ in range(3000):
            before = len(world.writes)
            await self.run_due()
            world.turn()
            if len(world.writes) != before or any(when <= world.now for when in self.due.values()):
                world.tick(TURN)
                quiet_since = world.now
                continue
            next_due = min(self.due.values(), default=None)
            if next_due is None or (next_due - quiet_since).total_seconds() > patience:
                if self._missed:
                    self.resync()
                    continue
                assert not world.violations, world.violations
                return
            world.now = max(world.now, next_due)
        raise AssertionError(self.trace("the world does not settle"))

    async def live(self, **length: float) -> None:
        """Let time pass with the operator at work."""
        world = self.world
        end = world.now + timedelta(**length)
        await self.settle()
        while (next_due := min(self.due.values(), default=end)) < end:
            world.now = max(world.now, next_due)
            await self._act()
        world.now = max(world.now, end)
        await self.settle()

    async def _act(self) -> None:
        """Let operator and world do what they can do now."""
        for _ in range(500):
            before = len(self.world.writes)
            await self.run_due()
            self.world.turn()
            if len(self.world.writes) == before:
                return
            self.world.tick(TURN)
        raise AssertionError(self.trace("the world does not settle"))

    async def until(self, happened: Callable[[], object]) -> None:
        """Let operator and world take turns until something has happened, and not a turn longer."""
        for _ in range(500):
            if happened():
                return
            await self.run_due()
            self.world.turn()
            self.world.tick(TURN)
        raise AssertionError(self.trace("it never happens"))

    def trace(self, problem: str) -> str:
        last = "\n  ".join(self.world.writes[-25:])
        conditions = "\n  ".join(
            f"{key_of(found)}: {[(c['type'], c['status'], c['reason'], c['message']) for c in found.get('status', {}).get('conditions', ())]}"
            for kind in KINDS
            for found in self.world.kube.all(kind)
        )
        return f"{problem}; the last writes:\n  {last}\nand the objects:\n  {conditions}"
