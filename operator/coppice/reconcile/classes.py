"""Which storage class and snapshot class a store uses, decided before anything is made: a class that cannot snapshot
is said at once. And which class its copies use, where they are bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coppice.core.plan import Manifest
from coppice.core.quantities import quantity_bytes
from coppice.reconcile.observed import annotation

DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
OWN_BYTES = "ownBytes"
"""The parameter of a StorageClass that bounds what a copy writes of its own; coppice-local has it."""
_BOUNDS = (OWN_BYTES, "ownBytesHeadroom")
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


def storage_of(classes: ClusterClasses, claim: Manifest | None, snapshot: str | None) -> StorageChoice | NoStorage:
    """Return the classes of a claim that is there already: never the cluster's default instead."""
    name = None if claim is None else claim["spec"].get("storageClassName")
    if not name:
        what = "the claim" if claim is None else f"PersistentVolumeClaim {claim['metadata']['name']}"
        return NoStorage(
            "StorageCannotSnapshot",
            f"{what} has no StorageClass, so that nothing says how it is snapshotted and copied: move the data to one "
            "of a CSI driver with snapshots",
        )
    return choose_storage(classes, storage=str(name), snapshot=snapshot)


def bounded_class(classes: Sequence[Manifest], base: str, own_bytes: str) -> Manifest | None:
    """Return the class that is like ``base`` but for bounding a copy's own bytes to this quantity, or None.

    Of several, ``base`` itself comes first, then one that binds as it does, then the first by name.
    """
    origin = _named(classes, base)
    if origin is None:
        return None
    fitting = [entry for entry in classes if _bound(entry) == quantity_bytes(own_bytes) and _is_like(entry, origin)]
    mode = origin.get("volumeBindingMode")
    ranked = sorted(
        fitting,
        key=lambda entry: (entry is not origin, entry.get("volumeBindingMode") != mode, entry["metadata"]["name"]),
    )
    return ranked[0] if ranked else None


def class_of_copies(classes: Sequence[Manifest], base: str, own_bytes: str) -> Manifest | None:
    """Return the class for copies of a volume of class ``base``: that one itself where none bounds them."""
    return bounded_class(classes, base, own_bytes) or _named(classes, base)


def _named(classes: Sequence[Manifest], name: str) -> Manifest | None:
    return next((entry for entry in classes if entry["metadata"]["name"] == name), None)


def _bound(entry: Manifest) -> int | None:
    """Return what a class bounds a copy's own bytes to; None for no bound, and for one that the driver will refuse."""
    text = (entry.get("parameters") or {}).get(OWN_BYTES)
    try:
        return None if text is None else quantity_bytes(text)
    except ValueError:
        return None


def _is_like(entry: Manifest, origin: Manifest) -> bool:
    """Return whether a snapshot of a volume of one class can be restored with the other, to the same effect."""
    if entry.get("reclaimPolicy") == "Retain" != origin.get("reclaimPolicy"):
        # What the copies leave behind would be nobody's.
        return False
    alike = all(entry.get(key) == origin.get(key) for key in ("provisioner", "allowedTopologies", "mountOptions"))
    return alike and _other_parameters(entry) == _other_parameters(origin)


def _other_parameters(entry: Manifest) -> dict[str, str]:
    return {key: value for key, value in (entry.get("parameters") or {}).items() if key not in _BOUNDS}


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
