"""Which objects were left behind by an owner that is gone. Pure.

Kubernetes' garbage collector removes what has an ownerReference, and a finalizer what cannot have one. Both can fail:
the collector stands still while the discovery of any API fails, and a finalizer can be removed by force. A DataStore's
claim, Secrets and DataSnapshots are in no danger here: they outlive it on purpose.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from coppice.core import labels
from coppice.core.key import Key
from coppice.core.names import handover_name
from coppice.core.plan import Manifest

MADE_FOR: Final = {
    "DataClone": (
        "Job",
        "Pod",
        "Service",
        "NetworkPolicy",
        "Secret",
        "PersistentVolumeClaim",
        "VolumeSnapshot",
        "VolumeSnapshotContent",
    ),
    "DataSnapshot": (
        "Job",
        "Pod",
        "Service",
        "NetworkPolicy",
        "Secret",
        "PersistentVolumeClaim",
        "VolumeSnapshot",
        "VolumeSnapshotContent",
    ),
}
"""What is made for a disposable owner, in the order in which it goes: users before what they use."""
KINDS: Final = MADE_FOR["DataClone"]


@dataclass(frozen=True, slots=True)
class Orphan:
    """An object whose owner seems to be gone."""

    manifest: Manifest
    owner: Key
    owner_uid: str

    @property
    def uid(self) -> str:
        """Return the identity of the object itself."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def is_removable(self) -> bool:
        """Return whether it may be deleted.

        Not what is being deleted already, and never a content whose end would be the end of the backend's snapshot,
        which others are made from: ours are made with Retain.
        """
        spec: dict[str, Any] = self.manifest.get("spec") or {}
        held = self.manifest["kind"] == "VolumeSnapshotContent" and spec.get("deletionPolicy") != "Retain"
        return not held and "deletionTimestamp" not in self.manifest["metadata"]


def find_orphans(manifests: Iterable[Manifest], alive: Collection[str]) -> tuple[Orphan, ...]:
    """Return those of some objects that were made for a disposable owner whose UID is not among ``alive``."""
    made = (_made_for_disposable(manifest) for manifest in manifests)
    return tuple(found for found in made if found is not None and found.owner_uid not in alive)


def in_order(orphans: Iterable[Orphan]) -> list[Orphan]:
    """Return orphans in the order in which they are to go."""
    return sorted(orphans, key=lambda orphan: KINDS.index(orphan.manifest["kind"]))


def _made_for_disposable(manifest: Manifest) -> Orphan | None:
    """Return an object with the owner it was made for, or None for what is none of ours or is to outlive its owner."""
    metadata = manifest["metadata"]
    found = metadata.get("labels") or {}
    kind, name, namespace, uid = (
        found.get(key) or "" for key in (labels.OWNER_KIND, labels.OWNER_NAME, labels.OWNER_NAMESPACE, labels.OWNER_UID)
    )
    # Another one's name is a claim to it; none is only a label that somebody took away.
    if found.get(labels.MANAGED_BY, labels.MANAGER) != labels.MANAGER or manifest["kind"] not in MADE_FOR.get(kind, ()):
        return None
    if not (name and namespace and uid):
        return None
    if not _is_as_made(metadata, namespace, uid) and not _is_handed_over(metadata, namespace, uid):
        return None
    return Orphan(manifest, Key(kind, namespace, name), uid)


def _is_as_made(metadata: Manifest, owner_namespace: str, owner_uid: str) -> bool:
    """Return whether nobody has taken the object over.

    In another namespace it is a copy that somebody made, labels and all. Without its ownerReference it was kept on
    purpose (``kubectl delete --cascade=orphan``), and another one beside it is somebody else who needs it.
    """
    referred = [reference.get("uid") for reference in metadata.get("ownerReferences") or ()]
    if "namespace" not in metadata:
        return not referred
    return bool(metadata["namespace"] == owner_namespace) and referred == [owner_uid]


def _is_handed_over(metadata: Manifest, owner_namespace: str, owner_uid: str) -> bool:
    """Return whether the object was made for an owner in another namespace, for that one: its name says so."""
    where = metadata.get("namespace", owner_namespace)
    elsewhere = where != owner_namespace and not metadata.get("ownerReferences")
    return bool(elsewhere and metadata["name"] == handover_name(owner_uid, where))
