"""Durations as the API spells them: Go's, with days, because leases are counted in days."""

from __future__ import annotations

import re
from datetime import timedelta

from coppice.api.v1alpha1.common import DURATION_PATTERN, NEVER

_FORM = re.compile(DURATION_PATTERN)
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def parse_duration(text: str) -> timedelta:
    """Return the length of time that ``90s``, ``1h30m`` or ``3d`` stands for; raise ``ValueError`` for other forms."""
    match = _FORM.fullmatch(text)
    if not text or match is None:
        raise ValueError(
            f"{text!r} is not a duration: write days, hours, minutes and seconds, for example 90s or 1h30m"
        )
    return sum((_part(part) for part in match.groups() if part), start=timedelta())


def parse_duration_or_never(text: str) -> timedelta | None:
    """Return the length of time, or None for ``Never``."""
    return None if text == NEVER else parse_duration(text)


def format_duration(length: timedelta) -> str:
    """Return the shortest text for a length of time above zero, in whole seconds."""
    rest = round(length.total_seconds())
    if rest <= 0:
        raise ValueError(f"{length} is not a duration: it must be at least one second")
    text = ""
    for seconds, unit in _UNITS:
        count, rest = divmod(rest, seconds)
        text += f"{count}{unit}" if count else ""
    return text


def _part(text: str) -> timedelta:
    seconds = next(seconds for seconds, unit in _UNITS if text.endswith(unit))
    return timedelta(seconds=int(text[:-1]) * seconds)
