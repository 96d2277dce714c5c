"""Whose turn it is where a grant caps the number of clones. Pure.

First come, first served; a clone that has its snapshot keeps its place, also from an older one that comes back.
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
    ahead = [entry for entry in everything if _takes_a_place(entry, source) and _is_ahead(entry, manifest)]
    here = [entry for entry in ahead if entry["metadata"]["namespace"] == manifest["metadata"]["namespace"]]
    over = [len(found) - cap + 1 for found, cap in ((here, caps.per_namespace), (ahead, caps.total)) if cap is not None]
    worst = max(over, default=0)
    return worst if worst > 0 else None


def is_expired(manifest: Manifest) -> bool:
    """Return whether a clone's lease had ended when it was last looked at."""
    ready = condition(manifest, "Ready")
    return ready is not None and ready["reason"] == "Expired"


def _takes_a_place(entry: Manifest, source: Source) -> bool:
    store = entry["spec"]["from"]["store"]
    where = store.get("namespace") or entry["metadata"]["namespace"]
    foreign = entry["metadata"]["namespace"] != source.namespace
    names_store = foreign and store["name"] == source.name and where == source.namespace
    return names_store and not is_deleting(entry) and not is_expired(entry)


def _is_ahead(entry: Manifest, manifest: Manifest) -> bool:
    if entry["metadata"]["uid"] == manifest["metadata"]["uid"]:
        return False
    return _age(entry) < _age(manifest) or is_true(entry, SNAPSHOT)


def _age(entry: Manifest) -> tuple[object, str]:
    return created_at(entry), str(entry["metadata"]["uid"])
