"""What is in a world at the end: a fingerprint to compare two ends by, and what should not be there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.fakes.kube import Object
from tests.fakes.world import World, key_of

from coppice.core import labels
from coppice.manifests.secret import read_secret

_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"), "TIME"),
    (re.compile(r'"durationSeconds": \d+'), "DURATION"),
    (re.compile(r"uid-\d+"), "UID"),
    (re.compile(r"password-(admin|app|remote)-password-\d+"), r"PASSWORD-\1"),
    (re.compile(r"10\.0\.\d+\.\d+"), "ADDRESS"),
    (re.compile(r"\blogin\W+[0-9a-f]{16}\b"), "LOGIN"),
)
_VOLATILE_ANNOTATIONS = {labels.INPUTS}
"""Digests over a UID."""
_VOLATILE_METADATA = {"uid", "resourceVersion", "creationTimestamp", "generation"}


def fingerprint(world: World) -> list[str]:
    """Return everything there is to stay, one line each, without what differs from one run to the next."""
    lines = [_line(found) for found in world.kube.all() if found["kind"] != "Event"]
    volumes = [("volume", volume) for volume in world.volumes.values()]
    snapshots = [("snapshot", volume) for volume in world.snapshots.values()]
    for kind, volume in (*volumes, *snapshots):
        branches = {name: sorted(branch.rows) for name, branch in sorted(volume.branches.items())}
        users, dead = sorted(volume.users), sorted(volume.dead)
        lines.append(_stable(f"{kind} {volume.marker} {users} {dead} {branches} {volume.protected}"))
    return sorted(lines)


def _line(found: Object) -> str:
    shown = {key: value for key, value in found.items() if key not in {"status", "data"}}
    shown["metadata"] = {key: value for key, value in found["metadata"].items() if key not in _VOLATILE_METADATA}
    annotations = shown["metadata"].get("annotations") or {}
    shown["metadata"]["annotations"] = {
        key: value for key, value in annotations.items() if key not in _VOLATILE_ANNOTATIONS
    }
    if found["kind"] == "Secret":
        shown["data"] = dict(sorted(read_secret(found).items()))
    status = dict(found.get("status") or {})
    status["conditions"] = sorted(
        (entry["type"], entry["status"], entry.get("reason", ""), entry.get("message", ""))
        for entry in status.get("conditions", ())
    )
    return _stable(json.dumps([str(key_of(found)), shown, status], sort_keys=True))


def _stable(text: str) -> str:
    for pattern, word in _VOLATILE:
        text = pattern.sub(word, text)
    return text


def orphans(world: World) -> list[str]:
    """Return what was made for somebody who is gone, and the backend's bytes that no object stands for."""
    return [*_orphaned_objects(world), *_orphaned_bytes(world)]


def _orphaned_objects(world: World) -> Iterator[str]:
    alive = {found["metadata"]["uid"] for found in world.kube.all()}
    for found in world.kube.all():
        owner = (found["metadata"].get("labels") or {}).get(labels.OWNER_UID)
        if owner is None or owner in alive or _outlives(found):
            continue
        yield f"{key_of(found)} of {owner}"


def _outlives(found: Object) -> bool:
    """Return whether an object is to outlive its store: its data, its credentials, and the snapshots of it; or its
    clone: what that has left to a branch.
    """
    kind = found["metadata"]["labels"].get(labels.OWNER_KIND)
    if kind == "DataClone" and found["kind"] in {"DataBranch", "DataChangeRequest", "DataSnapshot"}:
        return True
    return kind == "DataStore" and found["kind"] in {"PersistentVolumeClaim", "Secret", "DataSnapshot"}


def _orphaned_bytes(world: World) -> Iterator[str]:
    claims = {found["metadata"]["uid"] for found in world.kube.all("PersistentVolumeClaim")}
    handles = {
        content["status"].get("snapshotHandle")
        for content in world.kube.all("VolumeSnapshotContent")
        if content.get("status") and content["spec"]["deletionPolicy"] == "Delete"
    }
    yield from (f"volume of {uid}" for uid in world.volumes.keys() - claims)
    yield from (f"snapshot {handle}" for handle in world.snapshots.keys() - handles)


def live_data(world: World, namespace: str) -> dict[str, Any]:
    """Return the rows of every volume in a namespace, by claim: what nobody may lose."""
    return {
        found["metadata"]["name"]: {
            name: branch.rows for name, branch in world.volumes[found["metadata"]["uid"]].branches.items()
        }
        for found in world.kube.all("PersistentVolumeClaim", namespace)
        if found["metadata"]["uid"] in world.volumes
    }
