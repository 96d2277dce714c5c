"""Why a claim has no volume or a VolumeSnapshot no content, in the storage driver's words.

For a claim they stand nowhere but in its Events, which are read only of a claim that is some seconds old, and only now
and then. A claim that is Bound wakes who waits for it, whatever was said before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from coppice.core.plan import Manifest
from coppice.kube.client import KubeReader
from coppice.reconcile.draft import Fact, stalls, waits
from coppice.reconcile.observed import claim_state, created_at, is_deleting, parse_time, volume_snapshot_state
from coppice.reconcile.trouble import quoted

ASKED_AFTER = timedelta(seconds=10)
"""The age of a claim without a volume at which its Events are read for the first time: most have one by then."""
ASKED_EVERY = 30.0
PATIENCE = timedelta(minutes=2)
"""How long a driver may refuse: a pool that a deletion is about to make room in, a driver that is being updated."""
FAILED = "ProvisioningFailed"
"""The reason of such Events (sig-storage-lib-external-provisioner, controller.go)."""
ADVICE = (
    "If the storage is full, delete clones and snapshots that nobody needs or have it enlarged; else have put right "
    "what the driver names. It is tried again by itself"
)


@dataclass(frozen=True, slots=True)
class Complaint:
    """What a driver said last, instead of making a volume, and since when it has said such things."""

    words: str
    since: datetime


async def read_complaint(reader: KubeReader, claim: Manifest | None, now: datetime) -> Complaint | None:
    """Return why a claim has no volume; None where it has one, where nobody says, and where it is too early to ask."""
    if claim is None or is_deleting(claim) or claim_state(claim).bound or now - created_at(claim) < ASKED_AFTER:
        return None
    failures = [event for event in await reader.events_of(claim) if event.get("reason") == FAILED]
    if not failures:
        return None
    newest = max(failures, key=lambda event: _times(event)[1])
    return Complaint(quoted(newest.get("note")), min(_times(event)[0] for event in failures))


def _times(event: Manifest) -> tuple[datetime, datetime]:
    """Return when an Event happened first and last; those of the older recorders have other fields for it."""
    first = parse_time(event.get("eventTime")) or parse_time(event.get("deprecatedFirstTimestamp")) or created_at(event)
    series = (event.get("series") or {}).get("lastObservedTime")
    return first, parse_time(series) or parse_time(event.get("deprecatedLastTimestamp")) or first


def waits_for_capture(kind: str, reason: str, snapshot: Manifest, now: datetime) -> Fact:
    """Return that a VolumeSnapshot is not ready yet; somebody must act once its driver has refused for long."""
    name, error = snapshot["metadata"]["name"], volume_snapshot_state(snapshot).error
    if not error:
        return waits(kind, reason, f"waits for VolumeSnapshot {name}")
    message = f"VolumeSnapshot {name} is not ready; the storage driver says: {quoted(error)}. {ADVICE}"
    if now - created_at(snapshot) < PATIENCE:
        return waits(kind, reason, message, retry_after=ASKED_EVERY)
    return stalls(kind, "CaptureRefused", message, retry_after=ASKED_EVERY)


def waits_for_volume(kind: str, reason: str, claim: Manifest, complaint: Complaint | None, now: datetime) -> Fact:
    """Return that a claim has no volume yet; somebody must act once its driver has refused for long."""
    name = claim["metadata"]["name"]
    if complaint is None:
        young = (created_at(claim) + ASKED_AFTER - now).total_seconds()
        delay = young if young > 0 else ASKED_EVERY
        return waits(kind, reason, f"waits for the volume of claim {name}; see its events", retry_after=delay)
    message = f"claim {name} has no volume; the storage driver says: {complaint.words}. {ADVICE}"
    if now - complaint.since < PATIENCE:
        return waits(kind, reason, message, retry_after=ASKED_EVERY)
    return stalls(kind, "ProvisioningFailed", message, retry_after=ASKED_EVERY)
