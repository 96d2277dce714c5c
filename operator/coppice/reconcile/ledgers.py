"""What a migration tool has written down in a snapshot: how it is kept, and which snapshots are not beyond a version.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, cast

from coppice.api.v1alpha1 import DataSnapshot
from coppice.engines.base import Ledger, LedgerTool
from coppice.engines.ledgers import MAX_REPORTED, is_within

MAX_FAILED: Final = 10
"""How many failed versions are named."""
MAX_TOLD: Final = 5
"""Of how many snapshots a message says what they are at."""
_MAX_TEXT: Final = 250


def cut(text: str) -> str:
    """Return a name, shortened where it is too long for a status."""
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."


def dump(ledger: Ledger) -> dict[str, Any]:
    """Return a ledger as it is kept, without what is too old to count."""
    return {
        "tool": ledger.tool,
        "applied": [cut(version) for version in ledger.applied[-MAX_REPORTED:]],
        "failed": [cut(version) for version in ledger.failed[-MAX_FAILED:]],
    }


def load(data: Mapping[str, Any]) -> Ledger:
    """Return a ledger that was kept; raises KeyError for what is none."""
    return Ledger(data["tool"], tuple(data["applied"]), tuple(data["failed"]))


def status(ledger: Ledger) -> dict[str, Any]:
    """Return what a snapshot's status says of a ledger."""
    kept = dump(ledger)
    return {
        "tool": ledger.tool,
        "version": None if ledger.newest is None else cut(ledger.newest),
        "versions": kept["applied"],
        "failed": kept["failed"] or None,
    }


def ledger_of(snapshot: DataSnapshot) -> Ledger | None:
    """Return what the status of a snapshot says."""
    found = snapshot.status.ledger
    return None if found is None else Ledger(cast("LedgerTool", found.tool), found.versions, found.failed)


def find_within(snapshots: Sequence[DataSnapshot], version: str, live: Ledger | None = None) -> DataSnapshot | None:
    """Return the first snapshot that has nothing beyond a version."""
    known = known_ledgers(snapshots, live)
    for snapshot in snapshots:
        ledger = ledger_of(snapshot)
        if ledger is not None and is_within(ledger, version, known):
            return snapshot
    return None


def known_ledgers(snapshots: Iterable[DataSnapshot], live: Ledger | None) -> tuple[Ledger, ...]:
    """Return all there is to learn an order from."""
    found = (*(ledger_of(snapshot) for snapshot in snapshots), live)
    return tuple(ledger for ledger in found if ledger is not None)


def describe(snapshots: Sequence[DataSnapshot]) -> str:
    """Return what the first of some snapshots are at, in words."""
    if not snapshots:
        return "there is none that is Ready"
    told = [f"{snapshot.metadata.name} is at {place(ledger_of(snapshot))}" for snapshot in snapshots[:MAX_TOLD]]
    more = len(snapshots) - len(told)
    return ", ".join(told) + (f", and {more} more" if more else "")


def place(ledger: Ledger | None) -> str:
    """Return what a ledger is at, in words."""
    if ledger is None:
        return "no version of a tool that is known"
    if ledger.tool == "alembic" and len(ledger.applied) > 1:
        return f"alembic {cut(', '.join(ledger.applied))}"
    return f"{ledger.tool} {cut(ledger.newest or '')}" if ledger.newest else f"the beginning of {ledger.tool}"
