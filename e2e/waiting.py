"""Waiting on conditions, for everything that `kubectl wait` cannot express."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

ValueT = TypeVar("ValueT")
PATIENCE_SECONDS = 240.0
PAUSE_SECONDS = 0.2
PAUSE_SHARE = 0.1
"""Of what was waited already: whoever has waited long need not look often, for every look is a program's start."""


def eventually(check: Callable[[], ValueT], what: str, *, patience: float = PATIENCE_SECONDS) -> ValueT:
    """Return the first true value of ``check``; raises AssertionError with ``what`` when it stays false for
    ``patience`` seconds.
    """
    begun = time.monotonic()
    while True:
        value = check()
        if value:
            return value
        waited = time.monotonic() - begun
        if waited > patience:
            raise AssertionError(f"waited {patience:.0f} s in vain until {what}")
        time.sleep(max(PAUSE_SECONDS, waited * PAUSE_SHARE))


def hold(*, seconds: float) -> None:
    """Let time pass: only where a story is about what does not happen meanwhile."""
    time.sleep(seconds)
