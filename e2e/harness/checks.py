"""Proves that a new cluster works: a Pod runs, DNS answers, a new Service routes; tells whether it enforces policies.

A cluster can look healthy and not be: a kube-proxy without its packet filter programs leaves every Pod Running and no
new Service reachable.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from e2e.harness import shell
from e2e.harness.cluster import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.harness.cluster import Cluster

NAMESPACE: Final = "coppice-harness-check"
URL: Final = f"http://server.{NAMESPACE}.svc.cluster.local/"
PORT: Final = 8080
# How long a policy may take to work before the cluster counts as one that enforces none.
POLICY_SECONDS: Final = 6
RESOLVE: Final = "import socket, sys; socket.getaddrinfo(sys.argv[1], 443)"
FETCH: Final = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1], timeout=2).read()"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What the checks found out beyond "it works"."""

    network_policies_enforced: bool


def run(cluster: Cluster, *, image: str) -> Findings:
    """Run all checks with an image that has python3, and clean up. Raises ClusterError naming the check that failed."""
    _delete_namespace(cluster, wait=True)
    try:
        with shell.step("check: Pods, DNS, Services"):
            _expect_working(cluster, image)
        with shell.step("check: NetworkPolicies"):
            return Findings(network_policies_enforced=_enforces_policies(cluster))
    finally:
        _delete_namespace(cluster, wait=False)


def namespace() -> dict[str, Any]:
    """The namespace of the checks."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}


def objects(image: str) -> list[dict[str, Any]]:
    """The server, the client and the Service of the checks."""
    labels = {"app": "server"}
    server = {
        "image": image,
        "command": ["python3", "-m", "http.server", "--directory", "/srv", str(PORT)],
        "readinessProbe": {"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1},
    }
    ports = [{"port": 80, "targetPort": PORT}]
    return [
        _pod("server", labels, server),
        _pod("client", {"app": "client"}, {"image": image, "command": ["sleep", "infinity"]}),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server", "namespace": NAMESPACE},
            "spec": {"selector": labels, "ports": ports},
        },
    ]


def deny_all() -> dict[str, Any]:
    """The policy that lets nothing into the server."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "deny-all", "namespace": NAMESPACE},
        "spec": {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]},
    }


def _pod(name: str, labels: dict[str, str], container: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"containers": [{"name": name, **container}], "terminationGracePeriodSeconds": 0},
    }


def _expect_working(cluster: Cluster, image: str) -> None:
    _apply(cluster, namespace())
    with _named("a new namespace gets its service account", cluster):
        _kubectl(cluster, "wait", "--for=create", "--timeout=60s", "serviceaccount/default")
    _apply(cluster, *objects(image))
    with _named("two Pods become Ready", cluster):
        _kubectl(cluster, "wait", "--for=condition=Ready", "--timeout=120s", "pod/server", "pod/client")
    with _named("cluster DNS answers", cluster):
        _eventually(cluster, RESOLVE, "kubernetes.default.svc.cluster.local")
    with _named("a new Service routes", cluster):
        _eventually(cluster, FETCH, URL)


@contextlib.contextmanager
def _named(check: str, cluster: Cluster) -> Iterator[None]:
    try:
        yield
    except (shell.CommandError, shell.TimeoutExpiredError) as error:
        raise ClusterError(f"the new cluster fails the check that {check}: {error}\n{_evidence(cluster)}") from error


def _enforces_policies(cluster: Cluster) -> bool:
    _apply(cluster, deny_all())
    try:
        shell.wait_until(
            lambda: not _runs(cluster, FETCH, URL), what="a denied connection fails", seconds=POLICY_SECONDS
        )
    except shell.TimeoutExpiredError:
        return False
    # A connection that fails for another reason goes on failing without the policy.
    _kubectl(cluster, "delete", "networkpolicy", "deny-all")
    with _named("an allowed connection works again", cluster):
        _eventually(cluster, FETCH, URL)
    return True


def _eventually(cluster: Cluster, script: str, argument: str) -> None:
    shell.wait_until(lambda: _runs(cluster, script, argument), what=f"{argument} from a Pod", seconds=60)


def _runs(cluster: Cluster, script: str, argument: str) -> bool:
    try:
        _kubectl(cluster, "exec", "client", "--", "python3", "-c", script, argument)
    except shell.CommandError:
        return False
    return True


def _apply(cluster: Cluster, *manifests: dict[str, Any]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    cluster.run_kubectl("apply", "-f", "-", stdin=json.dumps(listed))


def _kubectl(cluster: Cluster, *words: str) -> str:
    return cluster.run_kubectl("-n", NAMESPACE, *words)


def _delete_namespace(cluster: Cluster, *, wait: bool) -> None:
    with contextlib.suppress(shell.CommandError):
        cluster.run_kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", f"--wait={str(wait).lower()}")


def _evidence(cluster: Cluster) -> str:
    texts = []
    for words in (
        ("-n", NAMESPACE, "get", "pods,services,endpointslices", "-o", "wide"),
        ("-n", NAMESPACE, "get", "events"),
        ("-n", "kube-system", "get", "pods"),
        ("-n", "kube-system", "logs", "--tail=20", "-l", "k8s-app=kube-dns"),
        ("-n", "kube-system", "logs", "--tail=20", "-l", "k8s-app=kube-proxy"),
    ):
        with contextlib.suppress(shell.CommandError):
            texts.append(f"--- kubectl {' '.join(words)}\n{cluster.run_kubectl(*words)}")
    return "\n".join(texts)
