"""Stores as trees: their branches, their snapshots, and the clones made of those. Pure.

Nothing is asked of a database: it is what the objects' statuses say, and may be a minute old. Who may not read a store
gets a tree of the clones alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from coppice.cli.words import lease_of, point_of, short, state, store_of
from coppice.core.plan import Manifest

UNKNOWN_STORE: Final = "DataStore that is gone, or that you may not read"


@dataclass(slots=True)
class Node:
    """One thing in a tree: what it is, what it is called, and what is known of it."""

    kind: str
    name: str
    about: str = ""
    children: list[Node] = field(default_factory=list)

    def dump(self) -> dict[str, Any]:
        """Return the node as JSON."""
        known = {"kind": self.kind, "name": self.name, "about": self.about or None}
        told = {key: value for key, value in known.items() if value is not None}
        return {**told, **({"children": [child.dump() for child in self.children]} if self.children else {})}


@dataclass(frozen=True, slots=True)
class Seen:
    """The objects that could be read."""

    stores: Sequence[Manifest] = ()
    branches: Sequence[Manifest] = ()
    snapshots: Sequence[Manifest] = ()
    clones: Sequence[Manifest] = ()


def grow(seen: Seen, now: datetime) -> list[Node]:
    """Return a tree for each store that is seen, or that a clone names."""
    known = {_name(store): store for store in seen.stores}
    named = {store_of(clone["spec"]["from"], clone["metadata"]["namespace"]) for clone in seen.clones}
    return [_tree(name, known.get(name), seen, now) for name in sorted(known.keys() | named)]


def _tree(name: str, store: Manifest | None, seen: Seen, now: datetime) -> Node:
    root = Node("DataStore", name, UNKNOWN_STORE if store is None else _about_store(store))
    clones = [clone for clone in seen.clones if store_of(clone["spec"]["from"], _namespace(clone)) == name]
    if store is not None:
        root.children += _branches(store, seen.branches, name)
        root.children += _snapshots(seen.snapshots, name, clones, now)
    placed = _placed(seen.snapshots, clones) if store is not None else set()
    root.children += [_clone(clone, now) for clone in clones if clone["metadata"]["uid"] not in placed]
    return root


def _about_store(store: Manifest) -> str:
    engine = [store["spec"]["engine"], (store.get("status") or {}).get("version")]
    return f"{' '.join(part for part in engine if part)}, {state(store)}"


def _branches(store: Manifest, branches: Sequence[Manifest], name: str) -> list[Node]:
    """Return the store's branches, and those that are asked for and not there yet."""
    objects = {
        branch["spec"]["branchName"]: branch
        for branch in branches
        if store_of(branch["spec"], _namespace(branch)) == name
    }
    heads = {entry["name"]: entry["head"] for entry in (store.get("status") or {}).get("branches") or ()}
    return [
        Node("branch", branch, _about_branch(heads.get(branch), objects.get(branch)))
        for branch in sorted(heads.keys() | objects.keys())
    ]


def _about_branch(head: str | None, branch: Manifest | None) -> str:
    # The store's own list is refreshed once in a while, and bounded.
    known = head or ((branch or {}).get("status") or {}).get("head")
    parts = [f"at {short(known)}"] if known else []
    if branch is not None:
        parts.append(f"DataBranch {_name(branch)}, {state(branch)}")
    return ", ".join(parts)


def _snapshots(snapshots: Sequence[Manifest], name: str, clones: Sequence[Manifest], now: datetime) -> list[Node]:
    """Return the store's snapshots, a commit below the one that it goes on from, and below each what is made of it."""
    own = [found for found in snapshots if store_of({"store": found["spec"]["store"]}, _namespace(found)) == name]
    nodes = {found["metadata"]["name"]: _snapshot(found, clones, now) for found in own}
    roots: list[Node] = []
    for found in own:
        node, parent = nodes[found["metadata"]["name"]], (found["spec"].get("commit") or {}).get("parent")
        above = nodes.get(parent) if parent is not None else None
        (roots if above is None else above.children).append(node)
    return roots


def _snapshot(snapshot: Manifest, clones: Sequence[Manifest], now: datetime) -> Node:
    status, commit = snapshot.get("status") or {}, snapshot["spec"].get("commit")
    parts = [state(snapshot), status.get("data"), status.get("capturedAt")]
    if commit:
        parts.insert(0, f"branch {commit['branch']}")
    node = Node("DataSnapshot", snapshot["metadata"]["name"], ", ".join(part for part in parts if part))
    node.children += [_clone(clone, now) for clone in clones if _uid_of_snapshot(clone) == snapshot["metadata"]["uid"]]
    return node


def _clone(clone: Manifest, now: datetime) -> Node:
    parts = [point_of(clone["spec"]["from"]), state(clone), _lease(clone, now)]
    return Node("DataClone", _name(clone), ", ".join(part for part in parts if part))


def _lease(clone: Manifest, now: datetime) -> str:
    said = lease_of(clone.get("status") or {}, now)
    return f"lease {said}" if said else ""


def _placed(snapshots: Sequence[Manifest], clones: Sequence[Manifest]) -> set[str]:
    """Return the UIDs of clones whose snapshot is there to stand below."""
    there = {snapshot["metadata"]["uid"] for snapshot in snapshots}
    return {clone["metadata"]["uid"] for clone in clones if _uid_of_snapshot(clone) in there}


def _uid_of_snapshot(clone: Manifest) -> str | None:
    uid: str | None = ((clone.get("status") or {}).get("snapshot") or {}).get("uid")
    return uid


def _name(manifest: Manifest) -> str:
    return f"{_namespace(manifest)}/{manifest['metadata']['name']}"


def _namespace(manifest: Manifest) -> str:
    return str(manifest["metadata"]["namespace"])
