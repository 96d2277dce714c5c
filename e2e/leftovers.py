"""What namespaces leave in the cluster though it has no namespace and perhaps no label: volumes, and the contents of
snapshots.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from e2e.harness.cluster import Cluster


def outside(cluster: Cluster, *namespaces: str) -> list[str]:
    """Return the PersistentVolumes and VolumeSnapshotContents of claims and snapshots in these namespaces, by name."""
    found = json.loads(cluster.run_kubectl("get", "persistentvolumes,volumesnapshotcontents", "-o", "json"))["items"]
    return [f"{item['kind']} {item['metadata']['name']}" for item in found if namespace_of(item) in namespaces]


def namespace_of(item: dict[str, Any]) -> str | None:
    """Return the namespace of the claim or snapshot that a volume or content belongs to."""
    spec = item["spec"]
    reference: dict[str, str] = spec.get("claimRef") or spec.get("volumeSnapshotRef") or {}
    return reference.get("namespace")
