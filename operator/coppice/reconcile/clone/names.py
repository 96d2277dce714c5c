"""What a clone's objects and conditions are called."""

from __future__ import annotations

from coppice.api.v1alpha1 import DataClone
from coppice.core.names import child, digest

SOURCE = "SourceReady"
SNAPSHOT = "SnapshotReady"
VOLUME = "VolumeReady"
ENGINE = "EngineReady"
MIGRATED = "Migrated"


def types_of(clone: DataClone) -> tuple[str, ...]:
    """Return the conditions, in the order of the chain; that of the migrations only where some are asked for."""
    return (SOURCE, SNAPSHOT, VOLUME, ENGINE, *(() if clone.spec.migrations is None else (MIGRATED,)))


def engine_secret_name(clone: str, uid: str) -> str:
    """Return the name of the Secret that opens a clone's server to the operator.

    The clone's UID is in it: kubelet caches an immutable Secret by name for as long as any Pod on the node uses it,
    so under one name the first Pod of a clone made anew could be given the credentials of the old one.
    """
    return child(clone, f"{digest(uid, length=5)}-engine")


def secret_name(clone: DataClone) -> str:
    """Return the name of the binding Secret."""
    return clone.spec.binding.secret_name or child(clone.metadata.name, "binding")


def service_name(clone: DataClone) -> str:
    """Return the name of the Service."""
    return clone.spec.binding.service_name or clone.metadata.name


def content_name(uid: str, number: int) -> str:
    """Return the name of an alias VolumeSnapshotContent; it is cluster-scoped, so the clone's UID makes it unique."""
    return f"coppice-{digest(uid, str(number), length=24)}"
