"""What lets a snapshot of one namespace be restored in another, on its way out. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coppice.core.plan import Manifest
from coppice.manifests.storage import BEING_DELETED, build_release
from coppice.reconcile.observed import annotation, is_deleting


def stranded_aliases(contents: Sequence[Manifest], snapshots: Sequence[Manifest]) -> list[Manifest]:
    """Return what lets alias contents under deletion go that lost their VolumeSnapshot; each is Retain, and ours."""
    there = {snapshot["metadata"]["uid"] for snapshot in snapshots}
    return [
        build_release(content)
        for content in contents
        if is_deleting(content)
        and content["spec"]["deletionPolicy"] == "Retain"
        and content["spec"]["volumeSnapshotRef"].get("uid") not in {None, "", *there}
        and annotation(content, BEING_DELETED) is None
    ]
