"""When a store's server is knocked at to see whether the network keeps its policy.

Where policies are enforced, a knock lasts until it is given up: at every look at the store it would hold up all that
the look is for. What it tells changes with the server's Pod, its policy, or the cluster's network.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from coppice.core.key import Key
from coppice.core.plan import Manifest

PERIOD = timedelta(minutes=10)
"""For how long an answer is good enough while nothing that is watched changes: a network plug-in may be installed."""

Knock = Callable[[], Awaitable[bool | None]]


@dataclass(frozen=True, slots=True)
class _Answer:
    door: tuple[str, ...]
    at: datetime
    reached: bool


@dataclass(slots=True)
class Knocks:
    """The last answer at each store's door."""

    _answers: dict[Key, _Answer] = field(default_factory=dict)

    async def reached(self, store: Key, pod: Manifest, policy: Manifest, now: datetime, knock: Knock) -> bool | None:
        """Return whether a knock gets through, from memory while it must be so still; None if nobody can tell, which is
        asked again the next time.
        """
        metadata = policy["metadata"]
        door = (str(pod["metadata"]["uid"]), str(metadata["uid"]), str(metadata["resourceVersion"]))
        known = self._answers.get(store)
        if known is not None and known.door == door and now - known.at < PERIOD:
            return known.reached
        reached = await knock()
        if reached is not None:
            self._answers[store] = _Answer(door, now, reached)
        return reached

    def forget(self, store: Key) -> None:
        """Drop what is known of a store that is gone."""
        self._answers.pop(store, None)
