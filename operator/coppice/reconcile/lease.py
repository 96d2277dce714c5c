"""How long a clone lives. Pure.

A lease has an end after the last activity (``idle``) and an end whatever happens (``max``), counted from the last
time somebody asked for the clone: its creation, an extension, or a new revision. The grant bounds both.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from coppice.api.v1alpha1 import NEVER, Lease
from coppice.core.durations import parse_duration


@dataclass(frozen=True, slots=True)
class LeaseTerms:
    """The lengths that count, None for no end, and why a longer one asked for was cut."""

    idle: timedelta | None
    longest: timedelta | None
    refused: str | None = None


def lease_terms(lease: Lease, *, allowed: timedelta | None, default: timedelta) -> LeaseTerms:
    """Return the lease a clone gets: what it asks for, within ``allowed`` (None: no bound); ``default`` where it asks
    for nothing.
    """
    longest = _asked(lease.max, default if allowed is None else min(default, allowed))
    idle = _asked(lease.idle, None)
    refused = None
    if allowed is not None and (longest is None or longest > allowed):
        refused = f"lease.max {lease.max} is more than the grant allows ({allowed}); the grant's value counts"
        longest = allowed
    return LeaseTerms(idle=idle, longest=longest, refused=refused)


def _asked(text: str | None, default: timedelta | None) -> timedelta | None:
    if text is None:
        return default
    return None if text == NEVER else parse_duration(text)


def expires_at(terms: LeaseTerms, *, asked: datetime, active: datetime) -> datetime | None:
    """Return when the lease ends: ``asked`` is when somebody last asked for the clone, ``active`` when it was last
    used.
    """
    ends = [
        moment
        for moment in (
            asked + terms.longest if terms.longest is not None else None,
            max(asked, active) + terms.idle if terms.idle is not None else None,
        )
        if moment is not None
    ]
    return min(ends, default=None)
