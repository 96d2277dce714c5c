"""What was computed for requests, and is not computed again while nothing has changed: in this process alone."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from coppice.engines.base import EngineError
from coppice.engines.merging import ChangeSet
from coppice.engines.patching import JudgedPatch, Patch

MAX_REMEMBERED: Final = 512
PATIENCE: Final = 10.0
"""Seconds for which what is computed is waited for: one of many requests does not hold up the others."""
ROOM: Final = 1 << 26
"""About how many bytes of memory the rows of all patches take together that are kept; the newest one stays, whatever
its size."""
MAX_PAUSE: Final = 300.0
"""Seconds after which at the latest something is tried again that was refused."""
_GOING_ON: Final = "it is still being computed"
T = TypeVar("T")


class Computations:
    """What was computed last, by what it was computed from: a request at which nothing has changed costs its server
    nothing.
    """

    def __init__(self, *, room: int = ROOM) -> None:
        self._known: dict[Hashable, Any] = {}
        self.patches = Patches(room)
        self.refusals = Refusals()

    async def once(self, key: Hashable, compute: Callable[[], Awaitable[T]], keeps: Callable[[T], bool]) -> T:
        """Return the outcome of a computation, which is remembered if it is one to keep."""
        if key in self._known:
            known: T = self._known[key]
            return known
        outcome = await compute()
        if keeps(outcome):
            self._known[key] = outcome
        for oldest in list(self._known)[:-MAX_REMEMBERED]:
            del self._known[oldest]
        return outcome


@dataclass(frozen=True, slots=True)
class FoundPatch:
    """What a clone has changed, with what a person reads of it."""

    patch: Patch
    changes: ChangeSet
    size: int


@dataclass(frozen=True, slots=True)
class LeftPatch:
    """What is left of it to write, with what a person reads of that."""

    judged: JudgedPatch
    changes: ChangeSet
    size: int

    @property
    def patch(self) -> Patch:
        """Return what is to be written."""
        return self.judged.patch


class GoingOnError(EngineError):
    """It is still being computed: look again."""


class Patches:
    """What takes long, and goes on while others are looked at; the newest of it is kept under a name. It holds rows,
    and there is room for a few patches: one that is missed is computed again.
    """

    def __init__(self, room: int, *, patience: float = PATIENCE) -> None:
        self._room = room
        self._patience = patience
        self._kept: OrderedDict[str, tuple[Hashable, Any]] = OrderedDict()
        self._going: dict[str, tuple[Hashable, Hashable, asyncio.Task[Any]]] = {}

    async def once(
        self,
        name: str,
        key: Hashable,
        compute: Callable[[], Awaitable[T]],
        *,
        like: Hashable = None,
        keeps: Callable[[T], bool] = lambda _: True,
    ) -> T:
        """Return what is known under a name, if it was computed from this; else compute it.

        What is under way and ``like`` this will do, although there is something newer by now: who is never idle would
        else never be told anything. Raises GoingOnError when it takes longer, and what the computation has raised.
        """
        if name in self._kept and self._kept[name][0] == key:
            self._kept.move_to_end(name)
            known: T = self._kept[name][1]
            return known
        going = self._going.get(name)
        if going is not None and going[0] != key and (like is None or going[1] != like):
            await asyncio.wait({going[2]}, timeout=self._patience)
            if not going[2].done():
                raise GoingOnError(_GOING_ON)
            going = None
        if going is None:
            going = (key, like, asyncio.ensure_future(self._run(name, key, compute, keeps)))
            self._going[name] = going
        task: asyncio.Task[T] = going[2]
        await asyncio.wait({task}, timeout=self._patience)
        if not task.done():
            raise GoingOnError(_GOING_ON)
        return task.result()

    async def _run(
        self, name: str, key: Hashable, compute: Callable[[], Awaitable[T]], keeps: Callable[[T], bool]
    ) -> T:
        self._kept.pop(name, None)
        try:
            found = await compute()
        finally:
            del self._going[name]
        if keeps(found):
            self._kept[name] = (key, found)
        while len(self._kept) > 1 and (self._size > self._room or len(self._kept) > MAX_REMEMBERED):
            self._kept.popitem(last=False)
        return found

    @property
    def _size(self) -> int:
        return sum(found.size for _, found in self._kept.values() if isinstance(found, FoundPatch | LeftPatch))


class Refusals:
    """What live servers have refused lately: to try the same again at once would cost them as much, for nothing."""

    def __init__(self) -> None:
        self._known: dict[str, _Refusal] = {}

    def remember(self, name: str, digest: str, now: datetime, pause: float, error: EngineError) -> None:
        """Keep why something was refused, for as long as it is not to be tried again: twice as long each time, for who
        waits for a lock has others wait behind.
        """
        before = self._known.pop(name, None)
        if before is not None and (before.digest, type(before.error)) == (digest, type(error)):
            pause = max(pause, min(before.pause * 2, MAX_PAUSE))
        self._known[name] = _Refusal(digest, error, pause, now + timedelta(seconds=pause))
        for oldest in list(self._known)[:-MAX_REMEMBERED]:
            del self._known[oldest]

    def find(self, name: str, digest: str, now: datetime) -> EngineError | None:
        """Return why the same was refused, if it is not to be tried again yet."""
        known = self._known.get(name)
        return None if known is None or known.digest != digest or now >= known.until else known.error


@dataclass(frozen=True, slots=True)
class _Refusal:
    digest: str
    error: EngineError
    pause: float
    until: datetime
