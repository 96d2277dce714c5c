"""What programs tell of how far they are and how they ended, in a line of JSON in their log: those of a refresh, and an
initial load. Pure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coppice.engines.base import Finding
from coppice.reconcile.observed import parse_time
from coppice.reconcile.trouble import quoted

DONE = "Done"
MAX_FINDINGS = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """Which phase it is in, and how many tables of how many it has done there, where it counts them."""

    phase: str
    done: int | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Restored:
    """What a copy holds that has just become complete."""

    at: datetime
    version: str
    database: str
    tables: int
    filled: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Why it ended, in one word of the engine contract, and the names that belong to it."""

    failure: str
    detail: str


Told = Progress | Restored | GivenUp


def parse_told(line: str) -> Told | None:
    """Return what a line tells; None for anything else, such as the words of a program that was killed."""
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            return None
        if "failed" in data:
            return GivenUp(str(data["failed"]), quoted(str(data["detail"])))
        if data["phase"] == DONE and "at" in data:
            return _restored(data)
        return Progress(str(data["phase"]), _count(data, "done"), _count(data, "total"))
    except (ValueError, KeyError, TypeError):
        return None


def _restored(data: dict[str, Any]) -> Restored | None:
    at = parse_time(str(data["at"]))
    if at is None:
        return None
    findings = tuple(Finding(str(entry["reason"]), quoted(str(entry["message"]))) for entry in data["findings"])
    version, database = str(data["version"]), str(data["database"])
    return Restored(at, version, database, int(data["tables"]), int(data["filled"]), findings[:MAX_FINDINGS])


def _count(data: dict[str, Any], key: str) -> int | None:
    return int(data[key]) if key in data else None
