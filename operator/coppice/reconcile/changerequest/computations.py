"""What was computed for requests, and is not computed again while nothing has changed: in this process alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from coppice.engines.base import EngineError
from coppice.engines.merging import ChangeSet
from coppice.engines.patching import JudgedPatch, Patch, RefusedError

MAX_REMEMBERED: Final = 512
ROOM: Final = 1 << 27
"""How many characters of rows are in memory in all patches together; the newest one stays, whatever its size."""
MAX_PAUSE: Final = 600.0
"""Seconds after which at the latest something is tried again that was refused."""
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


@dataclass(frozen=True, slots=True)
class LeftPatch:
    """What is left of it to write, with what a person reads of that."""

    judged: JudgedPatch
    changes: ChangeSet

    @property
    def patch(self) -> Patch:
        """Return what is to be written."""
        return self.judged.patch


PatchT = TypeVar("PatchT", bound=FoundPatch | LeftPatch | RefusedError)


class Patches:
    """The patches that were used last: they hold rows, and there is room for a few of them. One that is missed is
    computed again.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._kept: OrderedDict[str, tuple[Hashable, Any, int]] = OrderedDict()

    async def once(self, name: str, key: Hashable, compute: Callable[[], Awaitable[PatchT]]) -> PatchT:
        """Return what is known under a name, if it was computed from this; else compute it, and forget what it was."""
        if name in self._kept and self._kept[name][0] == key:
            self._kept.move_to_end(name)
            known: PatchT = self._kept[name][1]
            return known
        self._kept.pop(name, None)
        found = await compute()
        size = 0 if isinstance(found, RefusedError) else found.patch.size
        self._kept[name] = (key, found, size)
        while len(self._kept) > 1 and (self._total > self._room or len(self._kept) > MAX_REMEMBERED):
            self._kept.popitem(last=False)
        return found

    @property
    def _total(self) -> int:
        return sum(size for _, _, size in self._kept.values())


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
