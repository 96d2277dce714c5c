"""Whose turn it is where a grant caps the number of clones. Pure.

First come, first served. A clone that has its snapshot keeps its place, also from an older one that comes back; one
that cannot go on before somebody acts (an unknown branch, no grant) holds up nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil

from coppice.api.v1alpha1 import MaxClones
from coppice.core.key import Key
from coppice.core.plan import Manifest
from coppice.reconcile.access import Source
from coppice.reconcile.clone.names import SNAPSHOT
from coppice.reconcile.observed import condition, created_at, is_deleting, is_true

ADMISSION = timedelta(seconds=10)
"""How long a clone may take from finding room to saying so; who comes next asks again as often."""
NEXT = 3
"""How many at the head of a queue are woken by whoever leaves. If all were, each by each, they would keep the operator
from everything else; who is further back asks again in a time that grows with the place.
"""
FOLLOWED = 100
"""How many of those ahead are looked at by name, so that their going wakes; of more, some go all the time."""


def has_caps(caps: MaxClones) -> bool:
    """Return whether there is anything to count."""
    return caps.per_namespace is not None or caps.total is not None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a clone stands behind the caps: 1 is next. ``ahead``: one of these has to go before it moves up."""

    number: int
    ahead: tuple[Key, ...] = ()

    @property
    def followed(self) -> tuple[Key, ...]:
        """Return whose going is to wake the clone."""
        return self.ahead[:FOLLOWED] if self.number <= NEXT else ()

    @property
    def ask_again(self) -> float:
        """Return after how many seconds to ask again, at the latest."""
        return ADMISSION.total_seconds() * ceil(self.number / NEXT)


@dataclass(slots=True)
class Admissions:
    """Whom there was room for a moment ago: their statuses do not say so yet, and others look at the same time."""

    _let_in: dict[str, tuple[datetime, Manifest]] = field(default_factory=dict)

    def place(
        self, manifest: Manifest, source: Source, caps: MaxClones, everything: Sequence[Manifest], now: datetime
    ) -> Place | None:
        """Return a clone's place in the queue, or None if there is room, which is then taken.

        Without a pause in between: of two that ask at the same time, one sees the other.
        """
        uid = str(manifest["metadata"]["uid"])
        self._let_in = {
            other: entry for other, entry in self._let_in.items() if other != uid and now - entry[0] < ADMISSION
        }
        place = place_in_queue(manifest, source, caps, everything, [entry for _, entry in self._let_in.values()])
        if place is None:
            self._let_in[uid] = now, manifest
        return place


def place_in_queue(
    manifest: Manifest,
    source: Source,
    caps: MaxClones,
    everything: Sequence[Manifest],
    let_in: Sequence[Manifest] = (),
) -> Place | None:
    """Return a clone's place in the queue behind the caps, or None if there is room; ``let_in``: others who have just
    found room.
    """
    store = source.namespace, source.name
    first = {str(entry["metadata"]["uid"]): entry for entry in let_in if store_of(entry) == store}
    guests = [entry for entry in everything if is_guest(entry) and store_of(entry) == store]
    others = [entry for entry in guests if str(entry["metadata"]["uid"]) not in first]
    ahead = [*first.values(), *(entry for entry in others if _takes_a_place(entry) and _is_ahead(entry, manifest))]
    here = [entry for entry in ahead if entry["metadata"]["namespace"] == manifest["metadata"]["namespace"]]
    counted = ((here, caps.per_namespace), (ahead, caps.total))
    places = [Place(len(found) - cap + 1, _keys(found)) for found, cap in counted if cap is not None]
    worst = max(places, key=lambda place: place.number, default=None)
    return worst if worst is not None and worst.number > 0 else None


def _keys(found: Iterable[Manifest]) -> tuple[Key, ...]:
    return tuple(Key.of("DataClone", entry) for entry in found)


def is_expired(manifest: Manifest) -> bool:
    """Return whether a clone had ended, by its lease or with its pull request, when it was last looked at."""
    ready = condition(manifest, "Ready")
    return ready is not None and ready["reason"] in {"Expired", "PullRequestClosed"}


def store_of(entry: Manifest) -> tuple[str, str]:
    """Return the namespace and the name of the store that a clone names."""
    store = entry["spec"]["from"]["store"]
    return str(store.get("namespace") or entry["metadata"]["namespace"]), str(store["name"])


def is_guest(entry: Manifest) -> bool:
    """Return whether a clone is in another namespace than its store, so that a grant counts it."""
    return bool(store_of(entry)[0] != entry["metadata"]["namespace"])


def has_data(entry: Manifest) -> bool:
    """Return whether a clone has a snapshot, or a copy of one, when it was last looked at."""
    return is_true(entry, SNAPSHOT) or "copy" in (entry.get("status") or {})


def _takes_a_place(entry: Manifest) -> bool:
    """Return whether a clone has data, or waits for nothing but time; an expired one has none and waits for people."""
    return not is_deleting(entry) and (has_data(entry) or not is_true(entry, "Stalled"))


def _is_ahead(entry: Manifest, manifest: Manifest) -> bool:
    if entry["metadata"]["uid"] == manifest["metadata"]["uid"]:
        return False
    # Whoever waits does not see one yet that has just become able to go on: it says first that it is back.
    unseen = not _takes_a_place(manifest)
    return unseen or is_true(entry, SNAPSHOT) or _age(entry) < _age(manifest)


def _age(entry: Manifest) -> tuple[object, str]:
    return created_at(entry), str(entry["metadata"]["uid"])
