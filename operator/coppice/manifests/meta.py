"""Metadata that every object made by Coppice carries: who owns it, by UID."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coppice.core import labels
from coppice.core.plan import Manifest


@dataclass(frozen=True, slots=True)
class Owner:
    """The object on whose behalf something is made."""

    api_version: str
    kind: str
    name: str
    namespace: str
    uid: str

    @classmethod
    def of(cls, manifest: Manifest) -> Owner:
        """Return the owner identity of an object as read from the API."""
        metadata = manifest["metadata"]
        return cls(manifest["apiVersion"], manifest["kind"], metadata["name"], metadata["namespace"], metadata["uid"])

    @property
    def labels(self) -> dict[str, str]:
        """Return the labels by which watches and clean-up find what this owner has."""
        return {
            labels.MANAGED_BY: labels.MANAGER,
            labels.OWNER_KIND: self.kind,
            labels.OWNER_NAME: self.name,
            labels.OWNER_NAMESPACE: self.namespace,
            labels.OWNER_UID: self.uid,
        }

    @property
    def reference(self) -> dict[str, Any]:
        """Return the ownerReference that lets Kubernetes collect what this owner leaves behind."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }


def build_metadata(
    name: str,
    owner: Owner,
    *,
    namespace: str | None = None,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    owned: bool = True,
) -> dict[str, Any]:
    """Return metadata for an object in the owner's namespace, or in another, or in none (``namespace=""``).

    An ownerReference is only valid inside one namespace; elsewhere, and where ``owned`` is False because the object
    must outlive its owner, the labels alone name the owner.
    """
    where = owner.namespace if namespace is None else namespace
    metadata: dict[str, Any] = {"name": name}
    if where:
        metadata["namespace"] = where
    metadata["labels"] = {**owner.labels, **(labels or {})}
    if annotations:
        metadata["annotations"] = dict(annotations)
    if owned and where == owner.namespace:
        metadata["ownerReferences"] = [owner.reference]
    return metadata


def is_owned(manifest: Manifest, uid: str) -> bool:
    """Return whether an object in the cluster was made on behalf of the owner with this UID."""
    return bool(manifest["metadata"].get("labels", {}).get(labels.OWNER_UID) == uid)


def build_identity(observed: Manifest) -> dict[str, Any]:
    """Return the body of a write that means exactly an object as it was observed, and says nothing else of it yet."""
    metadata = observed["metadata"]
    return {
        "apiVersion": observed["apiVersion"],
        "kind": observed["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid") if key in metadata},
    }


def build_release(observed: Manifest) -> dict[str, Any]:
    """Return the merge patch that takes an object from the garbage collector, if it still is as observed, and says so
    on it.
    """
    body, metadata = build_identity(observed), observed["metadata"]
    released = {"resourceVersion": metadata["resourceVersion"], "annotations": {labels.RELEASED: metadata["uid"]}}
    return {**body, "metadata": {**body["metadata"], **released, "ownerReferences": None}}


def build_annotations(observed: Manifest, annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the apply that adds annotations to an object as it was observed, and claims nothing else of it.

    An apply takes away what an earlier one of the same field manager set and this one leaves out.
    """
    body = build_identity(observed)
    return {**body, "metadata": {**body["metadata"], "annotations": dict(annotations)}}
