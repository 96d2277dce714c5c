"""What an engine whose data are better for being put in order now and then can do, and how its server tells how large
they are.

It is done part by part, one at a time, for each takes as long as it has data; a part that was done twice is as it was
done once. Nobody waits for it: it is begun by an action, and goes on beside whatever else is done.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable

from coppice.engines.base import Endpoint, EngineError

OPTIMIZE_ACTION: Final = "optimize"
"""The action that begins to put one ``part`` in order, or goes on with it. ``turn`` is a name of that try alone, and
``of`` one of the store: of each only one is under way, and a turn that comes meanwhile is not begun."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What has become of a turn: UnreachableError where nothing is known of that, another EngineError where the part
    could not be put in order.
    """

    ended: bool = True
    error: EngineError | None = None


@runtime_checkable
class UpkeepEngine(Protocol):
    """An engine that has the action ``optimize``, and whose store's server prints now and then how large it is.

    That is a line of JSON of its own, ``{"at", "bytes", "layers"}``: when that began to be measured, in seconds since
    1970, what its data take on the volume, and how many files of the engine's kind that is.
    """

    async def parts(self, at: Endpoint) -> Sequence[str]:
        """Return what is put in order, sorted: names that hold nothing of what is stored.

        Raises UnreachableError, LoginRefusedError, EngineError.
        """
        ...

    def outcome(self, of: str, turn: str) -> Outcome | None:
        """Return what has become of a store's last turn; None of any other, and of one that an operator before this one
        has begun.
        """
        ...


@dataclass(frozen=True, slots=True)
class Size:
    """What a store's data take on its volume, and when that began to be measured."""

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
