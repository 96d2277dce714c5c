"""Which objects were left behind by an owner that is gone. Pure.

Kubernetes' garbage collector removes what has an ownerReference, and a finalizer what cannot have one. Both can fail:
the collector stands still while the discovery of any API fails, and a finalizer can be removed by force. A DataStore's
claim, Secrets and DataSnapshots are in no danger here: they outlive it on purpose. What a mirror has not finished
copying does not.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from coppice.core import labels
from coppice.core.key import Key
from coppice.core.names import child, handover_name, sequence_of
from coppice.core.plan import Manifest

KINDS: Final = (
    "Job",
    "Pod",
    "Service",
    "NetworkPolicy",
    "Secret",
    "PersistentVolumeClaim",
    "VolumeSnapshot",
    "VolumeSnapshotContent",
)
"""What is made for owners, in the order in which it goes: users before what they use."""
MADE_FOR: Final = {
    "DataClone": KINDS,
    "DataSnapshot": KINDS,
    "DataStore": ("PersistentVolumeClaim",),
    "DataChangeRequest": ("Job", "NetworkPolicy", "Secret"),
}
"""Which of it does not outlive its owner."""


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
    """Return those of some objects that are not to outlive an owner whose UID is not among ``alive``."""
    made = (_made_for_owner(manifest) for manifest in manifests)
    return tuple(found for found in made if found is not None and found.owner_uid not in alive)


def is_released(metadata: Manifest) -> bool:
    """Return whether it was taken from the garbage collector for its owner's finalizer to remove."""
    told = (metadata.get("annotations") or {}).get(labels.RELEASED)
    return not metadata.get("ownerReferences") and bool(told) and told == metadata.get("uid")


def in_order(orphans: Iterable[Orphan]) -> list[Orphan]:
    """Return orphans in the order in which they are to go."""
    return sorted(orphans, key=lambda orphan: KINDS.index(orphan.manifest["kind"]))


def _made_for_owner(manifest: Manifest) -> Orphan | None:
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
    if kind == "DataStore":
        ours = _is_unfinished(metadata, namespace, name)
    else:
        ours = _is_as_made(metadata, namespace, uid) or _is_handed_over(metadata, namespace, uid)
    return None if not ours else Orphan(manifest, Key(kind, namespace, name), uid)


def _is_unfinished(metadata: Manifest, store_namespace: str, store: str) -> bool:
    """Return whether a claim is the copy of a mirror that never became complete, where the mirror has made it. Like a
    complete one, which is retained, it has no ownerReference.
    """
    if metadata.get("namespace") != store_namespace or metadata.get("ownerReferences"):
        return False
    try:
        mark = json.loads((metadata.get("annotations") or {}).get(labels.MIRRORED) or "")
    except ValueError:
        return False
    half = isinstance(mark, dict) and "store" in mark and "held" not in mark
    return half and sequence_of(metadata["name"], child(store, "mirror")) is not None


def _is_as_made(metadata: Manifest, owner_namespace: str, owner_uid: str) -> bool:
    """Return whether nobody has taken the object over.

    In another namespace it is a copy that somebody made, labels and all. Without its ownerReference it was kept on
    purpose (``kubectl delete --cascade=orphan``) unless we took that away, and another one beside it is somebody else
    who needs it.
    """
    referred = [reference.get("uid") for reference in metadata.get("ownerReferences") or ()]
    if "namespace" not in metadata:
        return not referred
    return bool(metadata["namespace"] == owner_namespace) and (referred == [owner_uid] or is_released(metadata))


def _is_handed_over(metadata: Manifest, owner_namespace: str, owner_uid: str) -> bool:
    """Return whether the object was made for an owner in another namespace, for that one: its name says so."""
    where = metadata.get("namespace", owner_namespace)
    elsewhere = where != owner_namespace and not metadata.get("ownerReferences")
    return bool(elsewhere and metadata["name"] == handover_name(owner_uid, where))
