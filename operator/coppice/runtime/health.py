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
    """Compares what events have told with what lists show. Times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._seen: dict[Key, tuple[str, float]] = {}
        self._suspects: dict[Key, float] = {}

    def event(self, key: Key, version: str, now: float, *, deleted: bool) -> None:
        """Note an event of an object: its watch is alive."""
        self._suspects.pop(key, None)
        if deleted:
            self._seen.pop(key, None)
        else:
            self._seen[key] = (version, now)

    def listed(self, kind: str, versions: Mapping[Key, str], begun: float) -> AbstractSet[Key]:
        """Compare a list with the events so far; return the keys whose deletion no event has told of.

        ``begun`` is when the list was asked for. An event since then may know more than the list, and accuses nobody.
        """
        for key, version in versions.items():
            seen, at = self._seen.get(key, ("", begun - 1))
            if seen == version or at >= begun:
                self._suspects.pop(key, None)
            else:
                self._suspects.setdefault(key, begun)
        known = {key for key, (_, at) in self._seen.items() if at < begun} | self._suspects.keys()
        gone = {key for key in known if key.kind == kind} - versions.keys()
        for key in gone:
            self._seen.pop(key, None)
            self._suspects.pop(key, None)
        return gone

    def silent(self, now: float) -> set[str]:
        """Return the kinds whose watch must have died: an event has been owed for too long."""
        return {key.kind for key, since in self._suspects.items() if now - since > GRACE_SECONDS}
