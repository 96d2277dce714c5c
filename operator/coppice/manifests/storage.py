"""Claims and snapshots, the same for every CSI driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coppice.core.plan import Manifest
from coppice.manifests.meta import Owner, build_annotations, build_metadata

SNAPSHOT_GROUP = "snapshot.storage.k8s.io"
SNAPSHOT_API = f"{SNAPSHOT_GROUP}/v1"
BEING_DELETED = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted"
"""The snapshot-controller's annotation of a content whose VolumeSnapshot is being deleted
(external-snapshotter v8.7.0, ``AnnVolumeSnapshotBeingDeleted``; it is not in the API's group)."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim: empty, or made from the VolumeSnapshot ``from_snapshot`` in the same namespace. ``size`` is a
    Kubernetes quantity.
    """

    name: str
    owner: Owner
    size: str
    storage_class: str
    from_snapshot: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owned: bool = True


def build_claim(claim: Claim) -> dict[str, Any]:
    """Return the PersistentVolumeClaim. ``dataSourceRef`` and not ``dataSource``: a wrong reference is refused
    instead of silently ignored.
    """
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": claim.storage_class,
        "resources": {"requests": {"storage": claim.size}},
    }
    if claim.from_snapshot is not None:
        spec["dataSourceRef"] = {"apiGroup": SNAPSHOT_GROUP, "kind": "VolumeSnapshot", "name": claim.from_snapshot}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": build_metadata(
            claim.name, claim.owner, labels=claim.labels, annotations=claim.annotations, owned=claim.owned
        ),
        "spec": spec,
    }


def build_volume_snapshot(
    name: str,
    owner: Owner,
    *,
    claim: str,
    snapshot_class: str,
    annotations: Mapping[str, str] | None = None,
    namespace: str | None = None,
) -> dict[str, Any]:
    """Return a VolumeSnapshot of a claim in the owner's namespace, or in another."""
    return {
        "apiVersion": SNAPSHOT_API,
        "kind": "VolumeSnapshot",
        "metadata": build_metadata(name, owner, namespace=namespace, annotations=annotations),
        "spec": {"volumeSnapshotClassName": snapshot_class, "source": {"persistentVolumeClaimName": claim}},
    }


def build_alias_content(
    name: str, owner: Owner, *, driver: str, handle: str, snapshot_class: str | None, alias: str
) -> dict[str, Any]:
    """Return a pre-provisioned VolumeSnapshotContent that lets the owner's namespace restore a snapshot of another one.

    Retain, always: with Delete the end of the alias would destroy the backend's snapshot for everybody
    (external-snapshotter#792).
    """
    spec: dict[str, Any] = {
        "driver": driver,
        "deletionPolicy": "Retain",
        "source": {"snapshotHandle": handle},
        "sourceVolumeMode": "Filesystem",
        "volumeSnapshotRef": {
            "apiVersion": SNAPSHOT_API,
            "kind": "VolumeSnapshot",
            "name": alias,
            "namespace": owner.namespace,
        },
    }
    if snapshot_class is not None:
        spec["volumeSnapshotClassName"] = snapshot_class
    return {
        "apiVersion": SNAPSHOT_API,
        "kind": "VolumeSnapshotContent",
        "metadata": build_metadata(name, owner, namespace=""),
        "spec": spec,
    }


def build_release(content: Manifest) -> dict[str, Any]:
    """Return the apply by which a content under deletion that lost its VolumeSnapshot may go.

    The csi-snapshotter lets a content that was bound go only if it has this annotation. The snapshot-controller puts it
    there, but not where the VolumeSnapshot went before it had a finalizer: nobody would ever (external-snapshotter
    v8.7.0, ``shouldDelete`` and ``syncContent``). A content that is ``Retain`` takes no data along.
    """
    return build_annotations(content, {BEING_DELETED: "yes"})


def build_alias_snapshot(
    name: str,
    owner: Owner,
    *,
    content: str,
    snapshot_class: str | None,
    annotations: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the VolumeSnapshot that binds an alias content in the owner's namespace."""
    spec: dict[str, Any] = {"source": {"volumeSnapshotContentName": content}}
    if snapshot_class is not None:
        spec["volumeSnapshotClassName"] = snapshot_class
    return {
        "apiVersion": SNAPSHOT_API,
        "kind": "VolumeSnapshot",
        "metadata": build_metadata(name, owner, annotations=annotations),
        "spec": spec,
    }
