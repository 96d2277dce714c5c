"""Tiny pure parsers: what an object in the cluster means for a plan. The only place that digs through the JSON of
foreign kinds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coppice.core.plan import Manifest
from coppice.engines.base import OUT_OF_BYTES, TORN_COPY


def parse_time(text: str | None) -> datetime | None:
    """Return an RFC 3339 time, or None for none or nonsense."""
    if not text:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)


def format_time(moment: datetime) -> str:
    """Return a time as Kubernetes writes it: RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def created_at(manifest: Manifest) -> datetime:
    """Return when the API server made the object (whole seconds, rounded down)."""
    moment = parse_time(manifest["metadata"].get("creationTimestamp"))
    if moment is None:
        raise ValueError(f"{manifest['kind']} {manifest['metadata']['name']} has no creationTimestamp")
    return moment


def deletion_asked_at(manifest: Manifest) -> datetime:
    """Return when deletion of the object was asked for."""
    moment = parse_time(manifest["metadata"].get("deletionTimestamp"))
    if moment is None:
        raise ValueError(f"{manifest['kind']} {manifest['metadata']['name']} is not being deleted")
    return moment


def is_deleting(manifest: Manifest) -> bool:
    """Return whether deletion of the object has been asked for."""
    return manifest["metadata"].get("deletionTimestamp") is not None


def annotation(manifest: Manifest, key: str) -> str | None:
    """Return an annotation's value, or None."""
    value = (manifest["metadata"].get("annotations") or {}).get(key)
    return None if value is None else str(value)


def read_mark(manifest: Manifest, key: str) -> dict[str, Any]:
    """Return an annotation in JSON; empty for none, and for what somebody else has written there."""
    try:
        data = json.loads(annotation(manifest, key) or "{}")
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def label(manifest: Manifest, key: str) -> str | None:
    """Return a label's value, or None."""
    value = (manifest["metadata"].get("labels") or {}).get(key)
    return None if value is None else str(value)


def condition(manifest: Manifest, kind: str) -> Mapping[str, Any] | None:
    """Return a condition of an object's status by type, or None."""
    for entry in (manifest.get("status") or {}).get("conditions") or ():
        if entry.get("type") == kind:
            return dict(entry)
    return None


def is_true(manifest: Manifest, kind: str) -> bool:
    """Return whether a condition is True for the generation that stands in the object now."""
    entry = condition(manifest, kind)
    return entry is not None and entry.get("status") == "True"


@dataclass(frozen=True, slots=True)
class ClaimState:
    """A claim: whether it has a volume, how large it is, and of which class."""

    bound: bool
    lost: bool
    capacity: str | None
    storage_class: str | None
    volume: str | None


def claim_state(manifest: Manifest) -> ClaimState:
    """Parse a PersistentVolumeClaim."""
    status = manifest.get("status") or {}
    spec = manifest["spec"]
    return ClaimState(
        bound=status.get("phase") == "Bound",
        lost=status.get("phase") == "Lost",
        capacity=(status.get("capacity") or {}).get("storage") or spec["resources"]["requests"]["storage"],
        storage_class=spec.get("storageClassName"),
        volume=spec.get("volumeName"),
    )


@dataclass(frozen=True, slots=True)
class VolumeSnapshotState:
    """A VolumeSnapshot. ``captured_at``: the point in time is fixed; ``ready``: it can be restored; they may be
    minutes apart.
    """

    captured_at: datetime | None
    ready: bool
    restore_size: str | None
    error: str | None
    content: str | None


def volume_snapshot_state(manifest: Manifest) -> VolumeSnapshotState:
    """Parse a VolumeSnapshot."""
    status = manifest.get("status") or {}
    return VolumeSnapshotState(
        captured_at=parse_time(status.get("creationTime")) if status.get("boundVolumeSnapshotContentName") else None,
        ready=status.get("readyToUse") is True,
        restore_size=status.get("restoreSize"),
        error=(status.get("error") or {}).get("message"),
        content=status.get("boundVolumeSnapshotContentName"),
    )


def is_content_of(content: Manifest, snapshot: Manifest) -> bool:
    """Return whether a VolumeSnapshotContent is a VolumeSnapshot's own, by what the content says: whoever may write the
    status of the VolumeSnapshot can name any there.
    """
    bound, metadata = content["spec"]["volumeSnapshotRef"], snapshot["metadata"]
    return all(bound.get(key) == metadata[key] for key in ("namespace", "name", "uid"))


@dataclass(frozen=True, slots=True)
class PodState:
    """A Pod; ``coppice.reconcile.trouble`` says what is wrong with one.

    ``out_of_bytes``: its server did not start because the volume takes no more bytes of its own.
    ``torn``: its program has found that its volume was captured in the middle of a write.
    ``disrupted``: the node took it away (eviction, preemption, shutdown); that it failed says nothing of its program.
    """

    ip: str | None
    ready: bool
    running: bool
    succeeded: bool
    failed: bool
    disrupted: bool
    out_of_bytes: bool
    torn: bool


def pod_state(manifest: Manifest) -> PodState:
    """Parse a Pod."""
    status = manifest.get("status") or {}
    phase = status.get("phase")
    true = {entry.get("type") for entry in status.get("conditions") or () if entry.get("status") == "True"}
    engine = status.get("containerStatuses") or [{}]
    return PodState(
        ip=status.get("podIP"),
        ready="Ready" in true,
        running="running" in (engine[0].get("state") or {}),
        succeeded=phase == "Succeeded" or _has_ended_well(manifest),
        failed=phase == "Failed",
        disrupted="DisruptionTarget" in true or status.get("reason") == "Evicted",
        out_of_bytes=_last_exit(engine[0]) == OUT_OF_BYTES,
        torn=_last_exit(engine[0]) == TORN_COPY,
    )


def is_initialized_by(manifest: Manifest, container: str) -> bool:
    """Return whether a Pod's program of this name runs, before its server does."""
    entries = (manifest.get("status") or {}).get("initContainerStatuses") or ()
    return any(entry.get("name") == container and "running" in (entry.get("state") or {}) for entry in entries)


def _has_ended_well(manifest: Manifest) -> bool:
    """Return whether every program of a Pod that runs once has ended with exit code 0.

    Kubelet says so at once, but calls the Pod Succeeded only when its sandbox is gone too, more than a second later.
    """
    containers = (manifest.get("status") or {}).get("containerStatuses") or ()
    ended = [(entry.get("state") or {}).get("terminated") for entry in containers]
    once = manifest["spec"].get("restartPolicy") == "Never"
    return once and bool(ended) and all(entry is not None and entry.get("exitCode") == 0 for entry in ended)


def exit_code(pods: Iterable[Manifest]) -> int | None:
    """Return the code with which a container of the newest Pod that has one ended in failure."""
    for pod in sorted(pods, key=created_at, reverse=True):
        status = pod.get("status") or {}
        for entry in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            code = _last_exit(entry)
            if code:
                return code
    return None


def _last_exit(container: Mapping[str, Any]) -> int | None:
    """Return with which code a container ended that does not run now."""
    states = (container.get("state") or {}, container.get("lastState") or {})
    ended = next((state["terminated"] for state in states if state.get("terminated")), None)
    return None if ended is None or "running" in states[0] else int(ended.get("exitCode", 0))


@dataclass(frozen=True, slots=True)
class JobState:
    """A Job. ``failure`` is Kubernetes' word for why it has failed for good; until then Pods are tried again."""

    succeeded: bool
    failure: str | None

    @property
    def is_on_its_way(self) -> bool:
        """Return whether it has neither succeeded nor failed."""
        return not self.succeeded and self.failure is None


def job_state(manifest: Manifest) -> JobState:
    """Parse a Job."""
    failed = condition(manifest, "Failed") if is_true(manifest, "Failed") else None
    failure = None if failed is None else str(failed.get("reason") or "Failed")
    return JobState(succeeded=is_true(manifest, "Complete"), failure=failure)


def job_span(manifest: Manifest) -> tuple[datetime, datetime | None]:
    """Return when a Job was started, and when it ended, if it has."""
    status = manifest.get("status") or {}
    ended = next((entry for entry in (condition(manifest, "Complete"), condition(manifest, "Failed")) if entry), None)
    finished = parse_time(status.get("completionTime") or (ended or {}).get("lastTransitionTime"))
    return parse_time(status.get("startTime")) or created_at(manifest), finished
