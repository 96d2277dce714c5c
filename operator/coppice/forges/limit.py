"""How much a forge may still be asked, as its answers tell. Pure.

GitHub counts by the hour and names what is left in every answer (``x-ratelimit-*``); who asks too much at once is told
to wait (``retry-after``, or else at least a minute). GitLab counts by the minute (``RateLimit-*``, ``Retry-After``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

PAUSE: Final = timedelta(minutes=1)
"""How long to wait where the forge does not say; twice as long each time it says so again."""
LONGEST_PAUSE: Final = timedelta(hours=2)
"""What a forge may ask to wait at most: windows are an hour long."""
SPARE: Final = 0.25
"""The part of a window's requests from which on they are made to last until its end. Others use the token, too."""

_PREFIXES: Final = ("x-ratelimit-", "ratelimit-")


@dataclass(frozen=True, slots=True)
class Limit:
    """What is known of a forge's patience; None where it has not told."""

    remaining: int | None = None
    total: int | None = None
    resets_at: datetime | None = None
    paused_until: datetime | None = None
    refusals: int = 0
    """How often in a row it has refused."""

    def is_paused(self, now: datetime) -> bool:
        """Return whether it has asked to be left alone for longer than until now."""
        return self.paused_until is not None and now < self.paused_until

    def gap(self, now: datetime) -> timedelta:
        """Return how far apart questions are to be, so that what is left lasts until there is more."""
        if self.remaining is None or self.resets_at is None or self.resets_at <= now:
            return timedelta()
        if self.total is not None and self.remaining >= self.total * SPARE:
            return timedelta()
        return (self.resets_at - now) / (self.remaining + 1)

    def after(self, headers: Mapping[str, str], now: datetime, *, refused: bool) -> Limit:
        """Return what is known after an answer; ``refused``: it said that the limit is reached."""
        known = self._counted(headers, now)
        if not refused:
            return replace(known, refusals=0, paused_until=None)
        return replace(known, refusals=self.refusals + 1, paused_until=now + _pause(known, headers, now))

    def _counted(self, headers: Mapping[str, str], now: datetime) -> Limit:
        for prefix in _PREFIXES:
            remaining = _number(headers.get(f"{prefix}remaining"))
            if remaining is not None:
                total, resets = _number(headers.get(f"{prefix}limit")), _number(headers.get(f"{prefix}reset"))
                resets_at = None if resets is None else _moment(resets, headers, now)
                return replace(self, remaining=remaining, total=total, resets_at=resets_at)
        return self


def _pause(known: Limit, headers: Mapping[str, str], now: datetime) -> timedelta:
    asked = _wait(headers.get("retry-after"), headers, now)
    if asked is None and known.remaining == 0 and known.resets_at is not None:
        asked = known.resets_at - now
    wait = PAUSE * 2 ** min(known.refusals, 8) if asked is None else max(asked, timedelta(seconds=1))
    return min(wait, LONGEST_PAUSE)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 12 else None


def _moment(seconds: int, headers: Mapping[str, str], now: datetime) -> datetime:
    """Return a moment of the forge's clock on ours: they need not agree."""
    moment, there = datetime.fromtimestamp(min(seconds, 2**33), UTC), _date(headers.get("date"))
    return moment if there is None else now + (moment - there)


def _wait(text: str | None, headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Return what Retry-After says: seconds, or a date of the forge's clock."""
    seconds = _number(text)
    if seconds is not None:
        return timedelta(seconds=min(seconds, 10**6))
    until = _date(text)
    return None if until is None else until - (_date(headers.get("date")) or now)


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
