"""What a snapshot has to know of the volume it is made of.

It is found out when the volume is captured, and written on the raw VolumeSnapshot: what comes after needs neither the
claim nor the server, which may be somebody else's, and gone or another by then. Pure.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from coppice.api.v1alpha1 import DataStore
from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.engines.base import Engine, server_of
from coppice.reconcile.adopted import Adoption
from coppice.reconcile.classes import ClusterClasses, NoStorage, StorageChoice, choose_storage
from coppice.reconcile.mirror.copies import copy_of
from coppice.reconcile.observed import annotation, claim_state


@dataclass(frozen=True, slots=True)
class Backing:
    """A volume: which of the versions that are offered reads it, what it is like, and whose its files are.

    ``adopted``: it is laid out by somebody else's server, with the data in ``directory`` if that is known, and its
    files belong to ``user_id``; a managed store's are the engine's own. ``server`` is what that server calls itself,
    where an engine knows: the data must be its.
    """

    version: str
    database: str
    capacity: str
    storage_class: str | None
    adopted: bool = False
    user_id: int | None = None
    directory: str | None = None
    server: str | None = None

    @property
    def text(self) -> str:
        """Return the annotation's value."""
        return json.dumps(asdict(self), separators=(",", ":"))


def recorded_backing(raw: Manifest) -> Backing | None:
    """Return what stands on a raw VolumeSnapshot; None for one that an older operator made, or somebody changed."""
    try:
        return Backing(**json.loads(annotation(raw, labels.BACKING) or ""))
    except (ValueError, TypeError):
        return None


def present_backing(
    store: DataStore, engine: Engine, claim: Manifest | None, adoption: Adoption | None
) -> Backing | None:
    """Return what is known of a store's volume now; None where it cannot be captured."""
    if claim is None:
        return None
    state, database = claim_state(claim), next(iter(store.status.databases), "")
    if store.spec.managed is not None:
        return Backing(store.spec.managed.version, database, str(state.capacity), state.storage_class)
    if store.spec.mirror is not None:
        copy = copy_of(claim)
        if copy is None or copy.held is None:
            return None
        return Backing(copy.wish.version, copy.held.database, str(state.capacity), state.storage_class)
    source = store.status.source
    # Without a server that uses the claim nobody knows that it still is the database's.
    if adoption is None or adoption.pod is None or source is None or source.offered_version is None:
        return None
    # Nor that whoever named another claim or server may log in there, before that has been looked at.
    if adoption.login is None or store.status.observed_generation != store.metadata.generation:
        return None
    return Backing(
        version=source.offered_version,
        database=database,
        capacity=str(state.capacity),
        storage_class=state.storage_class,
        adopted=True,
        user_id=adoption.user_id(engine),
        directory=adoption.wanted.directory,
        server=next((server_of(state.working_root or "") for state in store.status.branches), None),
    )


def storage_for(store: DataStore, classes: ClusterClasses, backing: Backing) -> StorageChoice | NoStorage:
    """Return the classes for the snapshots and copies of a volume."""
    adopted, served = store.spec.adopted, store.spec.managed or store.spec.mirror
    asked = adopted.snapshot_class_name if adopted is not None else None
    if served is not None:
        asked = served.storage.snapshot_class_name
    return choose_storage(classes, storage=backing.storage_class, snapshot=asked)
