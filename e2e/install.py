"""A cluster with Coppice in it: `python -m e2e.install`, or `make cluster-up`.

The same chart that users install; only the images are built from the checkout and loaded into the node.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from e2e.harness import images, shell, toolchain
from e2e.harness.__main__ import main as harness
from e2e.harness.cluster import Cluster, current
from e2e.harness.settings import Settings, from_environment

ROOT = Path(__file__).parent.parent
NAMESPACE = "coppice-system"
VALUES = ROOT / "helm/coppice/ci/values-dev.yaml"
STRICT = "pod-security.kubernetes.io/enforce=restricted"


def installed() -> Cluster:
    """Return a cluster with the checkout's Coppice in it; what is there and up to date is kept."""
    settings = from_environment(os.environ)
    if harness(["up"]) != 0:
        sys.exit(1)
    cluster = current(settings)
    for name in images.refs():
        images.ensure(name, cluster, settings)
    if cluster.has_local_storage:
        _label_node(cluster)
    _make_namespace(cluster)
    _install_chart(cluster, settings)
    return cluster


def _label_node(cluster: Cluster) -> None:
    """Name the node that holds coppice-local's pool: the first one."""
    nodes = json.loads(cluster.run_kubectl("get", "nodes", "-o", "json"))["items"]
    cluster.run_kubectl("label", "--overwrite", "node", nodes[0]["metadata"]["name"], "coppice.dev/local=true")


def _make_namespace(cluster: Cluster) -> None:
    """Make the operator's namespace as strict as docs/install.md has it: the operator is admitted under it or not at
    all.
    """
    if not cluster.run_kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"):
        cluster.run_kubectl("create", "namespace", NAMESPACE)
    cluster.run_kubectl("label", "--overwrite", "namespace", NAMESPACE, STRICT)


def _install_chart(cluster: Cluster, settings: Settings) -> None:
    operator = images.refs()["operator"]
    inspected = shell.run(["docker", "image", "inspect", "--format={{.Id}}", operator], env=cluster.environment)
    image_id = inspected.strip().removeprefix("sha256:")[:16]
    command = [
        str(toolchain.installed_or_built("helm", settings)),
        "upgrade",
        "--install",
        "coppice",
        str(ROOT / "helm/coppice"),
        f"--namespace={NAMESPACE}",
        f"--values={VALUES}",
        f"--set=local.enabled={'true' if cluster.has_local_storage else 'false'}",
        "--set=local.storageClass.default=true",
        f"--set=local.fast={'true' if cluster.profile == 'fast' else 'false'}",
        # The tag never changes, so the image's own name is what makes a new image roll out, in the driver as well.
        f"--set-string=operator.podAnnotations.image={image_id}",
        f"--set-string=local.podAnnotations.image={image_id}",
        "--wait",
        "--timeout=3m",
    ]
    with shell.step("install the chart"):
        done = subprocess.run(
            command, env={**os.environ, **cluster.environment}, check=False, capture_output=True, text=True
        )
    if done.returncode != 0:
        sys.stderr.write(f"{done.stdout}{done.stderr}\n{trouble(cluster)}")
        sys.exit(1)


def trouble(cluster: Cluster) -> str:
    """Return what a person would look at first when the installation does not come up."""
    pods = cluster.run_kubectl("get", "pods", "--all-namespaces", "-o", "wide")
    events = cluster.run_kubectl("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp")
    return f"{pods}\n{events[-4000:]}"


if __name__ == "__main__":
    installed()
