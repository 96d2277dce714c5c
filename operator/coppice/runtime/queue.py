"""The work queue: what has to be looked at, each key once, never by two workers at the same time.

The semantics are those of client-go's workqueue (util/workqueue, "rate limiting queue"): a key that is added while it
waits is one key; one that is added while it is worked on comes again afterwards; failures of a key back off
exponentially.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    KeyT = TypeVar("KeyT", bound=Hashable)
else:
    KeyT = TypeVar("KeyT")

BACKOFF_SECONDS: Final = 0.5
BACKOFF_LIMIT_SECONDS: Final = 300.0


class WorkQueue(Generic[KeyT]):
    """Keys to work on, in the order in which they became due. Times are the event loop's seconds.

    Of those that are ``slow`` no more than ``slow_limit`` are worked on at the same time: the others go past.
    """

    def __init__(
        self,
        *,
        backoff: float = BACKOFF_SECONDS,
        backoff_limit: float = BACKOFF_LIMIT_SECONDS,
        slow: Callable[[KeyT], bool] = lambda _: False,
        slow_limit: int = 1,
    ) -> None:
        self._backoff, self._backoff_limit = backoff, backoff_limit
        self._slow, self._slow_limit = slow, slow_limit
        self._ready: deque[KeyT] = deque()
        self._waiting: dict[KeyT, float] = {}
        self._active: dict[KeyT, float] = {}
        self._timers: dict[KeyT, asyncio.TimerHandle] = {}
        self._failures: dict[KeyT, int] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, key: KeyT) -> None:
        """Make a key due now, unless it already is; a delayed addition of it is dropped."""
        if self._closed or key in self._waiting:
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._waiting[key] = self._now()
        if key not in self._active:
            self._hand_out(key)

    def add_after(self, key: KeyT, delay: float) -> None:
        """Make a key due in ``delay`` seconds; of two delayed additions the earlier counts."""
        if self._closed or key in self._waiting:
            return
        due = self._now() + delay
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= due:
                return
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_at(due, self.add, key)

    def retry(self, key: KeyT, *, at_least: float = 0.0) -> None:
        """Make a key due after its backoff: doubled with every failure in a row, jittered, at least ``at_least``."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        backoff = min(self._backoff_limit, self._backoff * 2 ** min(failures - 1, 32))
        self.add_after(key, max(at_least, backoff * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret

    def forget(self, key: KeyT) -> None:
        """Start the next backoff of a key anew."""
        self._failures.pop(key, None)

    async def get(self) -> KeyT | None:
        """Wait for a key that is due and take it; None once the queue is closed. Call ``done`` after the work."""
        while (key := self._next()) is None and not self._closed:
            self._changed.clear()
            await self._changed.wait()
        if self._closed or key is None:
            return None
        self._ready.remove(key)
        del self._waiting[key]
        self._active[key] = self._now()
        return key

    def done(self, key: KeyT) -> None:
        """End the work on a key; if it was added meanwhile it is due at once."""
        del self._active[key]
        if key in self._waiting:
            self._hand_out(key)
        if self._slow(key):
            self._changed.set()

    def close(self) -> None:
        """Hand out nothing more: workers that wait get None, those at work finish."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._changed.set()

    @property
    def depth(self) -> int:
        """How many keys are due and wait for a worker."""
        return len(self._waiting)

    @property
    def oldest_wait(self) -> float:
        """For how long the key that has been due longest has waited, in seconds; 0 if none waits."""
        return self._age(self._waiting)

    @property
    def longest_work(self) -> float:
        """For how long the slowest worker has been on its key, in seconds; 0 if all are idle."""
        return self._age(self._active)

    def _next(self) -> KeyT | None:
        full = sum(map(self._slow, self._active)) >= self._slow_limit
        return next((key for key in self._ready if not (full and self._slow(key))), None)

    def _hand_out(self, key: KeyT) -> None:
        self._ready.append(key)
        self._changed.set()

    def _age(self, since: dict[KeyT, float]) -> float:
        # Insertion order is the order of time: the first entry is the oldest.
        return self._now() - next(iter(since.values())) if since else 0.0

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
