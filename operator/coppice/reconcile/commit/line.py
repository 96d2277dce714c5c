"""Branches of an engine that keeps none: lines of DataSnapshots, numbered by their names. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from coppice.core.plan import Manifest
from coppice.reconcile.observed import is_deleting


@dataclass(frozen=True, slots=True)
class Place:
    """Where a commit is: its number on its branch."""

    branch: str
    number: int


def is_commit(snapshot: Manifest) -> bool:
    """Return whether a DataSnapshot is a commit, and not of the store itself."""
    spec = snapshot["spec"]
    return spec.get("commit") is not None and spec.get("from") is not None


def place_of(snapshot: Manifest) -> Place | None:
    """Return the place of a commit, which its name says; None for what is none."""
    if not is_commit(snapshot):
        return None
    branch = str(snapshot["spec"]["commit"]["branch"])
    found = re.fullmatch(re.escape(branch) + "-([1-9][0-9]*)", str(snapshot["metadata"]["name"]))
    return None if found is None else Place(branch, int(found.group(1)))


def commits_on(snapshots: Iterable[Manifest], branch: str) -> list[Manifest]:
    """Return the commits on a branch that are there to stay, the newest first."""
    placed = [(place_of(snapshot), snapshot) for snapshot in snapshots if not is_deleting(snapshot)]
    line = [(place.number, snapshot) for place, snapshot in placed if place is not None and place.branch == branch]
    return [snapshot for _, snapshot in sorted(line, key=lambda entry: entry[0], reverse=True)]


def branches_of(snapshots: Iterable[Manifest]) -> list[str]:
    """Return the names of all branches that have commits."""
    return sorted({str(snapshot["spec"]["commit"]["branch"]) for snapshot in snapshots if is_commit(snapshot)})
