"""When a branch's squash is begun, and how often. Pure.

Each try writes all data of the branch onto the store's volume once more, and nothing takes away what one that failed
has written: so tries are few and far between, and none is begun where it might fill the volume.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from coppice.api.v1alpha1 import DataStore
from coppice.api.v1alpha1.databranch import SquashStatus
from coppice.core.quantities import quantity_bytes
from coppice.engines.base import EngineError
from coppice.reconcile.upkeep import MAX_WORDS, ROOM

PAUSES: Final = (timedelta(minutes=5), timedelta(minutes=30))
"""After one try has failed, and after the second; there is none after the third."""


def begun(told: SquashStatus | None, now: datetime) -> SquashStatus:
    """Return the next try."""
    return SquashStatus(tries=1 if told is None else told.tries + 1, started_at=now.replace(microsecond=0))


def failed(told: SquashStatus | None, now: datetime, error: EngineError) -> SquashStatus:
    """Return a try that has failed."""
    ended = {"failed_at": now.replace(microsecond=0), "problem": str(error)[:MAX_WORDS]}
    return (told or begun(None, now)).model_copy(update=ended)


def finished(told: SquashStatus, now: datetime) -> SquashStatus:
    """Return a squash of which the branch is there."""
    return told.model_copy(update={"finished_at": now.replace(microsecond=0)})


def is_over(told: SquashStatus | None) -> bool:
    """Return whether there is nothing of a squash that would have to be ended."""
    return told is None or told.finished_at is not None


def next_try(told: SquashStatus, failed_at: datetime) -> datetime | None:
    """Return when a squash that failed then is tried again, or None if it is not."""
    return failed_at + PAUSES[told.tries - 1] if told.tries <= len(PAUSES) else None


def lacking_room(store: DataStore) -> str:
    """Return how much the volume is too small for another try, in words; nothing if it is not, or nobody knows."""
    size, capacity = store.status.size, store.status.capacity
    if size is None or capacity is None or size.bytes * ROOM <= quantity_bytes(capacity):
        return ""
    return f"the data take {size.bytes} bytes, and a squash writes them once more; the volume has {capacity}"
