"""The pool of coppice-local, as its administrator sees it on the node; for clusters that have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from e2e.suite.kube import Kube

NAMESPACE = "coppice-local"
DEPLOYMENT = "coppice-local"
DRIVER = "local.csi.coppice.dev"
DIRECTORY = "/var/lib/coppice-local/pool"
BALLAST = f"{DIRECTORY}/ballast"
ALMOST_NOTHING = 2**28
"""Bytes left in a full pool: less than what the driver keeps in reserve, so that it begins nothing new."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool."""

    kube: Kube

    @classmethod
    def of(cls, kube: Kube) -> Pool:
        """Return the cluster's pool; skips the story where there is none."""
        if kube.get("deployment", DEPLOYMENT, NAMESPACE) is None:
            pytest.skip("this cluster has no coppice-local, whose pool the story looks into")
        return cls(kube)

    def run(self, *words: str) -> str:
        """Run a program beside the driver."""
        where = ("-n", NAMESPACE, f"deployment/{DEPLOYMENT}", "-c", "driver")
        return self.kube.run("exec", *where, "--", *words)

    def fill(self) -> None:
        """Leave no room for anything new."""
        free = self.run("df", "--output=avail", "-B1", DIRECTORY).split()[-1]
        self.run("fallocate", f"--length={int(free) - ALMOST_NOTHING}", BALLAST)

    def make_room(self) -> None:
        """Take back what ``fill`` did."""
        self.run("rm", "-f", BALLAST)

    def subvolumes(self) -> set[str]:
        """Return the ids of all volumes and snapshots that take up room."""
        return set(self.run("ls", f"{DIRECTORY}/volumes", f"{DIRECTORY}/snapshots").split("\n")) - {
            "",
            f"{DIRECTORY}/volumes:",
            f"{DIRECTORY}/snapshots:",
        }

    def handles(self) -> set[str]:
        """Return the ids that the cluster's volumes and snapshots name."""
        volumes = self.kube.items("persistentvolumes")
        contents = self.kube.items("volumesnapshotcontents")
        csi = [volume["spec"]["csi"] for volume in volumes if volume["spec"].get("csi", {}).get("driver") == DRIVER]
        status = [content.get("status", {}) for content in contents if content["spec"]["driver"] == DRIVER]
        return {entry["volumeHandle"] for entry in csi} | {
            entry["snapshotHandle"] for entry in status if "snapshotHandle" in entry
        }

    def restart_driver(self) -> None:
        """Kill the driver and its sidecars without a word of warning."""
        selector = ("-l", "app.kubernetes.io/component=local")
        self.kube.run("delete", "pods", "-n", NAMESPACE, *selector, "--grace-period=0", "--force")
