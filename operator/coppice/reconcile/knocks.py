"""When a store's server is knocked at to see whether the network keeps its policy.

Where policies are enforced, a knock lasts until it is given up: at every look at the store it would hold up all that
the look is for. What it tells changes with the server's Pod, its policy, or the cluster's network. One that gets
through is answered at once, and may only have been earlier than the network plug-in: that is tried at every look.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from coppice.core.key import Key
from coppice.core.plan import Manifest

PERIOD = timedelta(minutes=10)
"""For how long a knock that was kept out is good enough while nothing that is watched changes: a network plug-in may be
removed.
"""

Knock = Callable[[], Awaitable[bool | None]]


@dataclass(frozen=True, slots=True)
class _Silence:
    door: tuple[str, ...]
    at: datetime


@dataclass(slots=True)
class Knocks:
    """When each store's door last stayed shut."""

    _silences: dict[Key, _Silence] = field(default_factory=dict)

    async def reached(self, store: Key, pod: Manifest, policy: Manifest, now: datetime, knock: Knock) -> bool | None:
        """Return whether a knock gets through, from memory while it must be kept out still; None if nobody can tell."""
        metadata = policy["metadata"]
        door = (str(pod["metadata"]["uid"]), str(metadata["uid"]), str(metadata["resourceVersion"]))
        known = self._silences.get(store)
        if known is not None and known.door == door and now - known.at < PERIOD:
            return False
        reached = await knock()
        if reached is False:
            self._silences[store] = _Silence(door, now)
        return reached

    def forget(self, store: Key) -> None:
        """Drop what is known of a store that is gone."""
        self._silences.pop(store, None)
