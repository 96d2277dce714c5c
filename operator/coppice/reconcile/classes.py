"""Which storage class and snapshot class a store uses, decided before anything is made: a class that cannot snapshot
is said at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coppice.core.plan import Manifest
from coppice.reconcile.observed import annotation

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
DEFAULT_SNAPSHOT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"


@dataclass(frozen=True, slots=True)
class ClusterClasses:
    """The cluster's classes. ``snapshot`` is None where the snapshot API is not installed."""

    storage: tuple[Manifest, ...]
    snapshot: tuple[Manifest, ...] | None


@dataclass(frozen=True, slots=True)
class StorageChoice:
    """A storage class and the snapshot class of the same driver. ``waits_for_consumer``: claims stay unbound until a
    Pod uses them.
    """

    storage_class: str
    snapshot_class: str
    driver: str
    waits_for_consumer: bool


@dataclass(frozen=True, slots=True)
class NoStorage:
    """Why there is no choice, as a condition's reason and message."""

    reason: str
    message: str


def choose_storage(classes: ClusterClasses, *, storage: str | None, snapshot: str | None) -> StorageChoice | NoStorage:
    """Return the classes for the names asked for; None asks for the cluster's default."""
    storage_class = _storage_class(classes.storage, storage)
    if isinstance(storage_class, NoStorage):
        return storage_class
    name, driver = storage_class["metadata"]["name"], storage_class["provisioner"]
    snapshot_class = _snapshot_class(classes.snapshot, driver, name, snapshot)
    if isinstance(snapshot_class, NoStorage):
        return snapshot_class
    return StorageChoice(
        storage_class=name,
        snapshot_class=snapshot_class["metadata"]["name"],
        driver=driver,
        waits_for_consumer=storage_class.get("volumeBindingMode") == "WaitForFirstConsumer",
    )


def _names(manifests: Sequence[Manifest]) -> str:
    return ", ".join(sorted(str(manifest["metadata"]["name"]) for manifest in manifests)) or "none"


def _storage_class(classes: Sequence[Manifest], name: str | None) -> Manifest | NoStorage:
    if name is not None:
        found = [entry for entry in classes if entry["metadata"]["name"] == name]
        problem = NoStorage(
            "StorageClassNotFound", f"there is no StorageClass {name}; the cluster has: {_names(classes)}"
        )
    else:
        # Of several defaults the newest counts, as in the API server's own admission plug-in.
        defaults = [entry for entry in classes if annotation(entry, DEFAULT_CLASS) == "true"]
        found = sorted(defaults, key=lambda entry: str(entry["metadata"].get("creationTimestamp", "")), reverse=True)
        problem = NoStorage(
            "NoDefaultStorageClass",
            "the cluster has no default StorageClass: set managed.storage.storageClassName to one of "
            f"{_names(classes)}",
        )
    return found[0] if found else problem


def _snapshot_class(
    classes: Sequence[Manifest] | None, driver: str, storage_class: str, name: str | None
) -> Manifest | NoStorage:
    if classes is None:
        return NoStorage(
            "SnapshotAPIUnavailable",
            "the cluster has no VolumeSnapshot API: install the snapshot CRDs and the snapshot-controller",
        )
    fitting = [entry for entry in classes if entry["driver"] == driver]
    if name is not None:
        named = [entry for entry in fitting if entry["metadata"]["name"] == name]
        if named:
            return named[0]
        return NoStorage(
            "SnapshotClassNotFound",
            f"there is no VolumeSnapshotClass {name} for the driver {driver} of StorageClass {storage_class}; "
            f"there are: {_names(fitting)}",
        )
    if not fitting:
        return NoStorage(
            "StorageCannotSnapshot",
            f"StorageClass {storage_class} cannot make snapshots: no VolumeSnapshotClass has its driver {driver}. "
            "Choose another StorageClass, or have a VolumeSnapshotClass made for this driver",
        )
    by_default = sorted(fitting, key=lambda entry: annotation(entry, DEFAULT_SNAPSHOT_CLASS) != "true")
    return by_default[0]
