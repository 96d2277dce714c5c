"""Whose turn it is where a grant caps the number of clones. Pure.

First come, first served. A clone that has its snapshot keeps its place, also from an older one that comes back; one
that cannot go on before somebody acts (an unknown branch, no grant) holds up nobody.
"""

from __future__ import annotations

from collections.abc import Sequence

from coppice.api.v1alpha1 import MaxClones
from coppice.core.plan import Manifest
from coppice.reconcile.access import Source
from coppice.reconcile.clone.names import SNAPSHOT
from coppice.reconcile.observed import condition, created_at, is_deleting, is_true


def has_caps(caps: MaxClones) -> bool:
    """Return whether there is anything to count."""
    return caps.per_namespace is not None or caps.total is not None


def place_in_queue(manifest: Manifest, source: Source, caps: MaxClones, everything: Sequence[Manifest]) -> int | None:
    """Return a clone's place in the queue behind the caps (1 is next), or None if there is room."""
    store = source.namespace, source.name
    guests = [entry for entry in everything if is_guest(entry) and store_of(entry) == store]
    ahead = [entry for entry in guests if _takes_a_place(entry) and _is_ahead(entry, manifest)]
    here = [entry for entry in ahead if entry["metadata"]["namespace"] == manifest["metadata"]["namespace"]]
    over = [len(found) - cap + 1 for found, cap in ((here, caps.per_namespace), (ahead, caps.total)) if cap is not None]
    worst = max(over, default=0)
    return worst if worst > 0 else None


def is_expired(manifest: Manifest) -> bool:
    """Return whether a clone's lease had ended when it was last looked at."""
    ready = condition(manifest, "Ready")
    return ready is not None and ready["reason"] == "Expired"


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
