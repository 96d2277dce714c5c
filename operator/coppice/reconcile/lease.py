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
    """The lengths that count, None for no end; ``refused`` says what was asked for where it is longer."""

    idle: timedelta | None
    longest: timedelta | None
    refused: str | None = None


WARNED = 4
"""A warning comes in the last quarter of a lease at the earliest: a short one would be nothing but warning."""


def lease_terms(lease: Lease, *, allowed: timedelta | None, default: LeaseTerms) -> LeaseTerms:
    """Return the lease a clone gets: what it asks for, within ``allowed`` (None: no bound).

    ``default`` is for what a clone does not ask for; one that asks for ``max`` alone gets no end by idling.
    """
    idle = _asked(lease.idle, default.idle if lease.max is None else None)
    longest = _asked(lease.max, default.longest)
    if allowed is None:
        return LeaseTerms(idle=idle, longest=longest)
    too_long = [
        f"lease.{name} {text}"
        for name, text, length in (("idle", lease.idle, idle), ("max", lease.max, longest))
        if text is not None and _is_longer(name, length, allowed)
    ]
    cut = allowed if longest is None else min(longest, allowed)
    return LeaseTerms(idle=idle, longest=cut, refused=" and ".join(too_long) or None)


def _is_longer(name: str, length: timedelta | None, allowed: timedelta) -> bool:
    """Return whether more is asked for than is allowed; no end by idling leaves the other end, and is no life."""
    return name == "max" if length is None else length > allowed


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


def warned_from(terms: LeaseTerms, ends: datetime, *, asked: datetime, before: timedelta) -> datetime:
    """Return from when on it is said that a lease ends: ``before`` the end, but not before its last quarter.

    An end whatever happens is that of the whole lease, any other one that of a time without use.
    """
    length = terms.longest if ends_for_good(terms, ends, asked=asked) else terms.idle
    return ends - (before if length is None else min(before, length / WARNED))


def ends_for_good(terms: LeaseTerms, ends: datetime, *, asked: datetime) -> bool:
    """Return whether the end is one that no use of the clone moves."""
    return terms.longest is not None and asked + terms.longest <= ends
