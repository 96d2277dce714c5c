"""When something scheduled is due, and which snapshots are no longer kept. Pure.

Only DataSnapshots that the operator made itself are ever dropped; one that a user made stays until the user deletes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from croniter import CroniterBadDateError, croniter

from coppice.api.v1alpha1 import API_VERSION, DataStore
from coppice.core import labels
from coppice.core.names import sequence_name, sequence_of
from coppice.core.plan import Manifest, Ref
from coppice.manifests.meta import Owner, build_metadata, is_owned
from coppice.reconcile.draft import Fact, stalls
from coppice.reconcile.observed import created_at, is_deleting, is_true, label
from coppice.reconcile.setbacks import has_given_up

SCHEDULE = "schedule"
CLONE = "clone"
GRACE = timedelta(minutes=10)
"""A snapshot younger than this is never dropped: a clone may just be on its way from it."""


@dataclass(frozen=True, slots=True)
class SnapshotLine:
    """A store and all its DataSnapshots.

    ``ready``: the store is in a state to be snapshotted. ``named``: the snapshots that clones and commits need.
    """

    manifest: Manifest
    store: DataStore
    snapshots: Sequence[Manifest]
    now: datetime
    ready: bool
    named: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SnapshotPlan:
    """What to make and drop now, and in how many seconds the next snapshot is due (None: time alone brings none)."""

    create: tuple[Manifest, ...]
    delete: tuple[Ref, ...]
    next_in: float | None


def next_number(snapshots: Sequence[Manifest], store: str) -> int:
    """Return the number of the next snapshot of a store: one more than the highest there is."""
    numbers = [sequence_of(entry["metadata"]["name"], store) for entry in snapshots]
    return max((number for number in numbers if number is not None), default=0) + 1


def build_data_snapshot(store: Manifest, number: int, purpose: str) -> dict[str, Any]:
    """Return the store's n-th DataSnapshot. Its name is the compare-and-set: of two that make the same number, one
    finds it taken.
    """
    name = store["metadata"]["name"]
    return {
        "apiVersion": API_VERSION,
        "kind": "DataSnapshot",
        "metadata": build_metadata(
            sequence_name(name, number),
            Owner.of(store),
            labels={labels.STORE: name, labels.PURPOSE: purpose},
            owned=False,
        ),
        "spec": {"store": {"name": name}},
    }


def plan_snapshots(line: SnapshotLine) -> SnapshotPlan:
    """Return the snapshots to make and drop."""
    dropped = tuple(Ref.of(entry) for entry in superseded(line))
    schedule = line.store.spec.snapshots.schedule
    if schedule is None:
        return SnapshotPlan((), dropped, None)
    due = _due(line, schedule)
    if due is None:
        return SnapshotPlan((), dropped, None)
    if due > line.now:
        return SnapshotPlan((), dropped, max((due - line.now).total_seconds(), 1.0))
    if not line.ready:
        return SnapshotPlan((), dropped, None)
    made = build_data_snapshot(line.manifest, next_number(line.snapshots, line.store.metadata.name), SCHEDULE)
    return SnapshotPlan((made,), dropped, 1.0)


def next_time(schedule: str, after: datetime) -> datetime | None:
    """Return the first time of a schedule after a moment; None for one that never comes, like 31 February."""
    try:
        found: datetime = croniter(schedule, after).get_next(datetime)
    except CroniterBadDateError:
        return None
    return found


def last_time(schedule: str, before: datetime) -> datetime | None:
    """Return the last time of a schedule before a moment; None for one that never comes."""
    try:
        found: datetime = croniter(schedule, before).get_prev(datetime)
    except CroniterBadDateError:
        return None
    return found


def unscheduled(kind: str, schedule: str | None, now: datetime, *, field: str, effect: str) -> Fact | None:
    """Return that a schedule never comes and what follows from it, if so; ``field`` is where it stands."""
    if schedule is None or next_time(schedule, now) is not None:
        return None
    message = f"{field} is {schedule}, and such a day never comes: {effect}. Correct it, or leave it out"
    return stalls(kind, "ScheduleNeverComes", message)


def _due(line: SnapshotLine, schedule: str) -> datetime | None:
    scheduled = [created_at(entry) for entry in line.snapshots if label(entry, labels.PURPOSE) == SCHEDULE]
    since = max(scheduled, default=line.store.metadata.creation_timestamp or line.now)
    return next_time(schedule, since)


def superseded(line: SnapshotLine) -> list[Manifest]:
    """Return this store's own snapshots that may go: superseded ones, and failed ones; one on its way is waited for."""
    made = sorted(
        (
            entry
            for entry in line.snapshots
            if label(entry, labels.PURPOSE) in {SCHEDULE, CLONE} and is_owned(entry, line.store.metadata.uid)
        ),
        key=created_at,
        reverse=True,
    )
    ready = [entry for entry in made if is_true(entry, "Ready")]
    kept = _kept(line, ready)
    return [
        entry
        for entry in made
        if id(entry) not in kept
        and entry["metadata"]["name"] not in line.named
        and (is_true(entry, "Ready") or has_given_up(entry))
        and created_at(entry) < line.now - GRACE
        and not is_deleting(entry)
    ]


def _kept(line: SnapshotLine, newest_first: Sequence[Manifest]) -> set[int]:
    keep = line.store.spec.snapshots.keep
    kept = {id(entry) for entry in newest_first[: keep.last]}
    kept |= _newest_of_each(newest_first, keep.hourly, lambda moment: moment.strftime("%Y-%m-%dT%H"))
    kept |= _newest_of_each(newest_first, keep.daily, lambda moment: moment.strftime("%Y-%m-%d"))
    return kept


def _newest_of_each(newest_first: Sequence[Manifest], count: int, period: Callable[[datetime], str]) -> set[int]:
    newest: dict[str, int] = {}
    for entry in newest_first:
        newest.setdefault(period(created_at(entry)), id(entry))
    return set(list(newest.values())[:count])
