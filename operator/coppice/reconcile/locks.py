"""The tables that a migration locks against everybody, gathered from one look after the other. Pure.

PostgreSQL does not say since when somebody has a lock. Whoever is seen with one twice has had it all the time between,
so what is gathered is the least that it was. It is written on the claim of the copy while the Job runs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.engines.base import TableLock
from coppice.reconcile.ledgers import cut
from coppice.reconcile.observed import read_mark

LOCK_SECONDS: Final = 1.0
"""Between two looks."""
MAX_LOCKS: Final = 20
"""How many tables are told: those that were locked for longest."""
MAX_FOLLOWED: Final = 100
"""How many are remembered meanwhile: those that are locked now, and of the others the longest."""
_ENDLESS: Final = 1e11
"""More seconds than any lock is held, or have gone by since 1970."""
_LEAST_GROWTH: Final = 0.1
"""How much longer a lock has to be than what is written down: one that lasts for hours is not written every second."""


@dataclass(frozen=True, slots=True)
class Held:
    """One table: the longest that one transaction had it, and that one waited for it, in seconds.

    ``holder`` was last seen with it, or waiting for it, and first so at ``since``.
    """

    table: str
    held: float = 0.0
    waited: float = 0.0
    holder: str = ""
    waits: bool = False
    since: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no time: what is read back has been where others can write, and JSON has NaN."""
        if not all(0 <= value < _ENDLESS for value in (self.held, self.waited, self.since)):
            raise ValueError(f"no time: {self.held}, {self.waited}, {self.since}")

    @property
    def longest(self) -> float:
        """Return how long others had to stay away because of it."""
        return max(self.held, self.waited)

    @property
    def status(self) -> dict[str, Any]:
        """Return what status says."""
        return {"table": self.table, "heldSeconds": int(self.held), "waitedSeconds": int(self.waited)}


@dataclass(frozen=True, slots=True)
class Locks:
    """What was gathered of the Job with this UID; ``looked_at``: when that was last changed, by the server's clock."""

    job: str
    looked_at: float = 0.0
    tables: tuple[Held, ...] = ()

    @property
    def text(self) -> str:
        """Return the annotation's value."""
        tables = [[one.table, one.held, one.waited, one.holder, one.waits, one.since] for one in self.tables]
        return json.dumps({"job": self.job, "at": self.looked_at, "tables": tables}, separators=(",", ":"))

    def with_look(self, seen: Sequence[TableLock]) -> Locks:
        """Return what is known after another look; the same where that is not worth a write.

        A write of ours has us look again at once: what comes within the second is left for the next look.
        """
        if not seen or seen[0].seen_at - self.looked_at < LOCK_SECONDS * 0.9:
            return self
        before = {one.table: one for one in self.tables}
        tables = {**before}
        # Who has it comes last, and is the one that is followed: who waits does so for as long.
        for lock in sorted(seen, key=lambda lock: not lock.waits):
            tables[cut(lock.table)] = _seen_again(before.get(cut(lock.table)), lock)
        if all(_is_known(before.get(name), now) for name, now in tables.items()):
            return self
        now = {cut(lock.table) for lock in seen}
        kept = sorted(
            tables.values(), key=lambda one: (one.table not in now, one.since if one.table in now else 0, *_rank(one))
        )
        return replace(self, looked_at=seen[0].seen_at, tables=tuple(kept[:MAX_FOLLOWED]))


def _rank(one: Held) -> tuple[float, str]:
    return -one.longest, one.table


def _seen_again(before: Held | None, lock: TableLock) -> Held:
    known = Held(cut(lock.table)) if before is None else before
    if (known.holder, known.waits) != (lock.holder, lock.waits):
        return replace(known, holder=lock.holder, waits=lock.waits, since=lock.seen_at)
    lasted = int((lock.seen_at - known.since) * 10) / 10
    if lock.waits:
        return replace(known, waited=max(known.waited, lasted))
    return replace(known, held=max(known.held, lasted))


def _is_known(before: Held | None, now: Held) -> bool:
    """Return whether what is written down of a table says about the same."""
    if before is None or (before.holder, before.waits) != (now.holder, now.waits):
        return False
    return not _has_grown(before.held, now.held) and not _has_grown(before.waited, now.waited)


def _has_grown(before: float, now: float) -> bool:
    return now - before >= max(1.0, before * _LEAST_GROWTH)


def read_locks(claim: Manifest) -> Locks | None:
    """Return what is written on a claim; None for nothing, and for what somebody else has written there."""
    data = read_mark(claim, labels.LOCKS)
    try:
        tables = tuple(Held(*_fields(entry)) for entry in data["tables"])
        return Locks(str(data["job"]), float(data["at"]), tables)
    except (KeyError, TypeError, ValueError):
        return None


def locks_of(job: Manifest, known: Locks | None) -> tuple[Held, ...]:
    """Return what a Job was seen to lock, the longest first."""
    if known is None or known.job != job["metadata"]["uid"]:
        return ()
    return tuple(sorted(known.tables, key=_rank)[:MAX_LOCKS])


def look_again(job: Manifest, known: Locks | None, seen: Sequence[TableLock]) -> Locks | None:
    """Return what is to be written down of a Job after another look; None where nothing is."""
    uid = str(job["metadata"]["uid"])
    before = Locks(uid) if known is None or known.job != uid else known
    after = before.with_look(seen)
    return None if after is before else after


def _fields(entry: Iterable[Any]) -> tuple[str, float, float, str, bool, float]:
    table, held, waited, holder, waits, since = entry
    return str(table), float(held), float(waited), str(holder), bool(waits), float(since)
