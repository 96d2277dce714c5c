"""What the operator tells Prometheus; ``docs/metrics.md`` explains each to its reader."""

from __future__ import annotations

import time
from collections import Counter as Tally
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from coppice.core.quantities import quantity_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.core.key import Key
    from coppice.core.plan import Manifest

_RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_STEP_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 900)


class Metrics:
    """Every metric, in a registry of its own, so that two operators in one process do not share any."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = self._counter(
            "coppice_reconciles_total",
            "Reconciliations by kind and outcome (done, retry, refused, bug).",
            "kind",
            "outcome",
        )
        self.reconcile_seconds = Histogram(
            "coppice_reconcile_seconds",
            "Duration of one reconciliation, reads, plan and writes.",
            ["kind"],
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_errors = self._counter(
            "coppice_reconcile_errors_total", "Reconciliations that ended in an error, by its class.", "kind", "class"
        )
        self.engine_call_errors = self._counter(
            "coppice_engine_call_errors_total", "Calls into a database that failed.", "engine", "action"
        )
        self.queue_depth = self._gauge("coppice_queue_depth", "Objects that are due and wait for a worker.")
        self.queue_oldest = self._gauge(
            "coppice_queue_oldest_seconds", "How long the object that waits longest has been due."
        )
        self.leading = self._gauge("coppice_leading", "1 while this replica holds the lease.")
        self.last_resync = self._gauge(
            "coppice_last_resync_timestamp_seconds", "When all objects were last listed, as Unix time."
        )
        self.clones = self._gauge("coppice_clones", "DataClones by state: Ready, or the reason why not.", "state")
        self.pull_requests = self._gauge(
            "coppice_pull_request_clones",
            "DataClones of pull requests by how that is: Open, Closed (and the clone still there), Ended, or Unknown.",
            "state",
        )
        self.mirrors = self._gauge("coppice_mirrors", "Mirrors by state: Fresh, or the reason why not.", "state")
        self.mirror_oldest = self._gauge(
            "coppice_mirror_oldest_timestamp_seconds",
            "Of when the data of the mirror are that has the oldest, as Unix time; 0 if no mirror has any.",
        )
        self.store_bytes = self._gauge(
            "coppice_store_bytes", "What the data of all stores take on their volumes, of those whose engine tells."
        )
        self.store_fullest = self._gauge(
            "coppice_store_fullest_ratio", "Which part of its volume the data take, of the store where that is most."
        )
        self.requests = self._gauge(
            "coppice_change_requests", "DataChangeRequests by state: Published, or the reason why not.", "state"
        )
        self.request_oldest = self._gauge(
            "coppice_change_request_oldest_timestamp_seconds",
            "When the oldest DataChangeRequest was made that is not published, as Unix time; 0 if there is none.",
        )
        self.request_conflicts = self._gauge(
            "coppice_change_request_conflicts", "Conflicts that wait for a decision, of all DataChangeRequests."
        )
        self.orphans = self._gauge(
            "coppice_orphans", "Objects made for an owner that is gone, as of the last resync.", "kind"
        )
        self.orphans_removed = self._counter(
            "coppice_orphans_removed_total", "Objects removed because the owner they were made for is gone.", "kind"
        )
        self.clone_step_seconds = Histogram(
            "coppice_clone_step_seconds",
            "Time from a DataClone's previous step to this one; step `total` is from its creation to Ready.",
            ["step"],
            buckets=_STEP_BUCKETS,
            registry=self.registry,
        )

        self.closed_clones = self._gauge(
            "coppice_closed_pull_request_clones",
            "DataClones with data whose pull request is closed; dry_run: whether its forge's word ends nothing.",
            "dry_run",
        )
        self.forge_requests = self._counter(
            "coppice_forge_requests_total",
            "Requests to a forge by the class of their answer: 2xx, 304 (unchanged), 4xx, 5xx or none.",
            "host",
            "status",
        )
        self.forge_remaining = self._gauge(
            "coppice_forge_rate_limit_remaining", "Requests that a forge still allows in this window.", "host"
        )
        self.forge_oldest = self._gauge(
            "coppice_forge_oldest_reading_timestamp_seconds",
            "Of when the oldest of a forge's answers is, of all pull requests that it is asked for, as Unix time; 0 if "
            "it is asked for none.",
            "host",
        )

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(name, documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(name, documentation, labels, registry=self.registry)


class _Count:
    """How many objects are in which state."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._states: dict[Key, str] = {}
        self._tally: Tally[str] = Tally()

    def put(self, key: Key, state: str | None) -> None:
        """Count an object in a state, or no more."""
        before = self._states.pop(key, None)
        if state is not None:
            self._states[key] = state
        for name, change in ((before, -1), (state, 1)):
            if name is not None:
                self._tally[name] += change
                self._gauge.labels(name).set(self._tally[name])


class CloneMetrics:
    """Follows each DataClone from status to status: how many are in which state, and how long each step took.

    Times are taken here, not from ``lastTransitionTime``, which knows only whole seconds. A clone that this process has
    not seen from its beginning counts no steps.
    """

    KIND = "DataClone"

    def __init__(self, metrics: Metrics, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._monotonic = monotonic
        self._clones = _Count(metrics.clones)
        self._pull_requests = _Count(metrics.pull_requests)
        self._marks: dict[Key, tuple[str, float, float]] = {}

    def seen(self, key: Key, manifest: Manifest) -> None:
        """Start the clock of a clone that has no status yet."""
        uid = manifest["metadata"]["uid"]
        if not manifest.get("status") and self._marks.get(key, ("",))[0] != uid:
            now = self._monotonic()
            self._marks[key] = (uid, now, now)

    def changed(self, key: Key, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Count the steps that a new status completes, and the state it means."""
        self._clones.put(key, _state(after))
        self._pull_requests.put(key, _pull_request_state(after))
        if key not in self._marks:
            return
        uid, start, mark = self._marks[key]
        completed = _true_conditions(after) - _true_conditions(before)
        if not completed:
            return
        now = self._monotonic()
        for step in completed - {"Ready", "Reconciling", "Stalled"}:
            self._metrics.clone_step_seconds.labels(step).observe(now - mark)
        self._marks[key] = (uid, start, now)
        if "Ready" in completed:
            self._metrics.clone_step_seconds.labels("total").observe(now - start)
            del self._marks[key]

    def gone(self, key: Key) -> None:
        """Forget a clone."""
        self._marks.pop(key, None)
        self._clones.put(key, None)
        self._pull_requests.put(key, None)


class MirrorMetrics:
    """Follows how mirrors fare and how old their data are, without a name: whoever reads metrics has no login."""

    KIND = "DataStore"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._states: dict[Key, str] = {}
        self._moments: dict[Key, float] = {}
        self._tally: Tally[str] = Tally()

    def changed(self, key: Key, status: Mapping[str, Any]) -> None:
        """Tell what a store's status says; nothing of one that is no mirror."""
        mirror = status.get("mirror")
        if mirror is None:
            self.gone(key)
            return
        text = mirror.get("refreshedAt")
        # Without a copy there is nothing that could be fresh, and the store itself says why.
        state = _state(status) if text is None else _state(status, "MirrorFresh", "Fresh")
        self._tell(key, state, None if text is None else datetime.fromisoformat(text).timestamp())

    def gone(self, key: Key) -> None:
        """Forget a store."""
        if key in self._states:
            self._tell(key, None, None)

    def _tell(self, key: Key, state: str | None, moment: float | None) -> None:
        before = self._states.pop(key, None)
        self._moments.pop(key, None)
        if state is not None:
            self._states[key] = state
        if moment is not None:
            self._moments[key] = moment
        for name, change in ((before, -1), (state, 1)):
            if name is not None:
                self._tally[name] += change
                self._metrics.mirrors.labels(name).set(self._tally[name])
        self._metrics.mirror_oldest.set(min(self._moments.values(), default=0))


class SizeMetrics:
    """Follows how large the data of stores are, without a name: which one is full, its status says."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: dict[Key, tuple[int, float]] = {}

    def changed(self, key: Key, status: Mapping[str, Any]) -> None:
        """Tell what a store's status says; nothing of one whose engine does not."""
        size, capacity = status.get("size"), status.get("capacity")
        if size is None or capacity is None:
            self.gone(key)
            return
        self._known[key] = (int(size["bytes"]), int(size["bytes"]) / max(1, quantity_bytes(capacity)))
        self._tell()

    def gone(self, key: Key) -> None:
        """Forget a store."""
        if self._known.pop(key, None) is not None:
            self._tell()

    def _tell(self) -> None:
        self._metrics.store_bytes.set(sum(taken for taken, _ in self._known.values()))
        self._metrics.store_fullest.set(max((part for _, part in self._known.values()), default=0))


class RequestMetrics:
    """Follows how change requests fare, how old the oldest is and how many conflicts wait, without a name."""

    KIND = "DataChangeRequest"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._known: dict[Key, tuple[str, float, int]] = {}
        self._told: set[str] = set()

    def changed(self, key: Key, manifest: Manifest, status: Mapping[str, Any]) -> None:
        """Tell what a request's status says."""
        made = datetime.fromisoformat(manifest["metadata"]["creationTimestamp"]).timestamp()
        conflicts = int((status.get("conflicts") or {}).get("open", 0))
        self._known[key] = (_state(status, well="Published"), made, conflicts)
        self._tell()

    def gone(self, key: Key) -> None:
        """Forget a request."""
        if self._known.pop(key, None) is not None:
            self._tell()

    def _tell(self) -> None:
        tally = Tally(state for state, _, _ in self._known.values())
        self._told |= tally.keys()
        for state in self._told:
            self._metrics.requests.labels(state).set(tally[state])
        waiting = [(made, conflicts) for state, made, conflicts in self._known.values() if state != "Published"]
        self._metrics.request_oldest.set(min((made for made, _ in waiting), default=0))
        self._metrics.request_conflicts.set(sum(conflicts for _, conflicts in waiting))


def _state(status: Mapping[str, Any], kind: str = "Ready", well: str = "Ready") -> str:
    for condition in status.get("conditions", ()):
        if condition["type"] == kind:
            return well if condition["status"] == "True" else str(condition["reason"])
    return "Unknown"


def _pull_request_state(status: Mapping[str, Any]) -> str | None:
    told = status.get("pullRequest")
    if told is None:
        return None
    return "Ended" if told.get("endedAt") is not None else str(told["state"])


def _true_conditions(status: Mapping[str, Any]) -> set[str]:
    return {condition["type"] for condition in status.get("conditions", ()) if condition["status"] == "True"}
