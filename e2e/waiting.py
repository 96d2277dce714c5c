"""Waiting on conditions, for everything that `kubectl wait` cannot express."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

ValueT = TypeVar("ValueT")
PATIENCE_SECONDS = 180.0
PAUSE_SECONDS = 0.2


def eventually(check: Callable[[], ValueT], what: str, *, patience: float = PATIENCE_SECONDS) -> ValueT:
    """Return the first true value of ``check``; raises AssertionError with ``what`` when it stays false for
    ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:.0f} s in vain until {what}")
        time.sleep(PAUSE_SECONDS)


def hold(*, seconds: float) -> None:
    """Let time pass: only where a story is about what does not happen meanwhile."""
    time.sleep(seconds)
