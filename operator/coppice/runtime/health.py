"""Whether the operator still does its work: what its probes answer.

A process that runs is not yet one that works: a worker can hang, and a watch can go silent without an error. The last
shows when a list, made now and then, holds a version of an object that no event has told of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from coppice.core.key import Key

GRACE_SECONDS: Final = 60.0
"""How long an event may take that a list was ahead of."""


class Watches:
    """Compares what events have told with what lists show. Times are any clock's seconds."""

    def __init__(self) -> None:
        self._seen: dict[Key, str] = {}
        self._suspects: dict[Key, float] = {}

    def event(self, key: Key, version: str, *, deleted: bool) -> None:
        """Note an event of an object: its watch is alive."""
        self._suspects.pop(key, None)
        if deleted:
            self._seen.pop(key, None)
        else:
            self._seen[key] = version

    def listed(self, kind: str, versions: Mapping[Key, str], now: float) -> AbstractSet[Key]:
        """Compare a list with the events so far; return the keys whose deletion no event has told of."""
        for key, version in versions.items():
            if self._seen.get(key) == version:
                self._suspects.pop(key, None)
            else:
                self._suspects.setdefault(key, now)
        gone = {key for key in self._seen.keys() | self._suspects.keys() if key.kind == kind} - versions.keys()
        for key in gone:
            self._seen.pop(key, None)
            self._suspects.pop(key, None)
        return gone

    def silent(self, now: float) -> set[str]:
        """Return the kinds whose watch must have died: an event has been owed for too long."""
        return {key.kind for key, since in self._suspects.items() if now - since > GRACE_SECONDS}
