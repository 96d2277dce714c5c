"""What an engine whose data are better for being put in order now and then can do, and how its server tells how large
they are.

It is done part by part, one at a time, for each takes as long as it has data; a part that was done twice is as it was
done once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable

from coppice.engines.base import Endpoint

OPTIMIZE_ACTION: Final = "optimize"
"""The action that puts one ``part`` in order. EngineError where that could not be done, UnreachableError where nothing
is said of it."""


@runtime_checkable
class UpkeepEngine(Protocol):
    """An engine that has the action ``optimize``, and whose store's server prints now and then how large it is.

    That is a line of JSON of its own, ``{"at", "bytes", "layers"}``: when, in seconds since 1970, what its data take on
    the volume, and how many files of the engine's kind that is.
    """

    async def parts(self, at: Endpoint) -> Sequence[str]:
        """Return what is put in order, in the order in which it is done: names that hold nothing of what is stored.

        Raises UnreachableError, LoginRefusedError, EngineError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Size:
    """What a store's data take on its volume, and when that was measured."""

    at: datetime
    bytes: int
    layers: int


def parse_size(log: str) -> Size | None:
    """Return the newest size that a server has printed in the last lines of its log, or None."""
    for line in reversed(log.splitlines()):
        try:
            told = json.loads(line)
            at = datetime.fromtimestamp(int(told["at"]), UTC)
            return Size(at, max(0, int(told["bytes"])), max(0, int(told["layers"])))
        except (ValueError, KeyError, TypeError, OverflowError, OSError):
            continue
    return None
