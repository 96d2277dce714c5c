"""The main story as a list of steps, each a user's command: what `make demo` shows and the e2e suite proves.

The steps only use kubectl, and the shop's own HTTP interface, reached through the API server's proxy.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from e2e.harness.shell import CommandError
from e2e.leftovers import outside
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.harness.cluster import Cluster

EXAMPLES = Path(__file__).parent.parent / "examples"
QUICKSTART = EXAMPLES / "quickstart"
OWNERS = "data"
PREVIEW = "shop-pr-42"
TIMEOUT = "--timeout=300s"


@dataclass(frozen=True, slots=True)
class Shop:
    """The example shop in one namespace."""

    cluster: Cluster
    namespace: str

    @property
    def _proxy(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/services/app:80/proxy"

    def track(self, number: int) -> dict[str, Any]:
        """Return one track as the shop shows it, once it can: not while its data are exchanged, or it is busy."""
        return eventually(lambda: self._told(number), f"the shop in {self.namespace} answers")

    def _told(self, number: int) -> dict[str, Any]:
        try:
            answer = self.cluster.run_kubectl("get", "--raw", f"{self._proxy}/api/tracks/{number}")
        except CommandError:
            return {}
        found: dict[str, Any] = json.loads(answer)
        return found

    def reprice(self, number: int, price: float) -> dict[str, Any]:
        """Change a track's price through the shop."""
        with tempfile.NamedTemporaryFile("w", suffix=".json") as body:
            json.dump({"UnitPrice": price}, body)
            body.flush()
            raw = f"{self._proxy}/api/tracks/{number}"
            changed: dict[str, Any] = json.loads(self.cluster.run_kubectl("replace", "--raw", raw, "-f", body.name))
        return changed


def apply_owners(cluster: Cluster) -> None:
    """The owners declare the store with its data, a branch, and their consent."""
    cluster.run_kubectl("apply", "--server-side", "-k", str(QUICKSTART / "data"))


def wait_for_owners(cluster: Cluster) -> None:
    """Wait until store and branch are Ready."""
    cluster.run_kubectl("wait", "-n", OWNERS, "--for=condition=Ready", "dstore/shop", "dbranch/autumn", TIMEOUT)
    cluster.run_kubectl("wait", "-n", OWNERS, "--for=condition=Available", "deployment/app", TIMEOUT)


def apply_preview(cluster: Cluster) -> None:
    """A developer opens the preview: namespace, clone and app in one go."""
    cluster.run_kubectl("apply", "-f", str(QUICKSTART / "preview" / "namespace.yaml"))
    cluster.run_kubectl("apply", "-f", str(QUICKSTART / "preview"))


def wait_for_clone(cluster: Cluster) -> None:
    """Wait until the clone is Ready."""
    cluster.run_kubectl("wait", "-n", PREVIEW, "--for=condition=Ready", "dclone/db", TIMEOUT)


def wait_for_app(cluster: Cluster) -> None:
    """Wait until the preview's app serves."""
    cluster.run_kubectl("wait", "-n", PREVIEW, "--for=condition=Available", "deployment/app", TIMEOUT)


def delete_clone(cluster: Cluster) -> None:
    """Delete the clone and wait until it is gone."""
    cluster.run_kubectl("delete", "-n", PREVIEW, "dclone/db", "--wait", TIMEOUT)


def leftovers(cluster: Cluster) -> list[str]:
    """Return what a deleted clone left in the cluster, by name; nothing, if all is well."""
    kinds = "pods,persistentvolumeclaims,secrets,services,networkpolicies,volumesnapshots,volumesnapshotcontents"
    labels = f"coppice.dev/owner-kind=DataClone,coppice.dev/owner-namespace={PREVIEW}"
    labelled = cluster.run_kubectl("get", kinds, "--all-namespaces", "-l", labels, "-o", "name").split()
    return [*labelled, *outside(cluster, PREVIEW)]
