"""The Service an app connects to, and the policy that keeps an engine's Pods to themselves."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from coppice.core import labels as known
from coppice.manifests.meta import Owner, build_metadata
from coppice.manifests.pod import Role

DNS_PORT: Final = 53


def build_service(
    name: str, owner: Owner, *, port: int, selector: Mapping[str, str], labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a ClusterIP Service to the Pods of the owner that match ``selector``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": build_metadata(name, owner, labels=labels),
        "spec": {
            "type": "ClusterIP",
            "selector": {known.OWNER_UID: owner.uid, **selector},
            "ports": [{"name": "engine", "port": port, "protocol": "TCP", "targetPort": port}],
        },
    }


def build_policy(
    name: str,
    owner: Owner,
    *,
    role: Role,
    port: int,
    operator_namespace: str,
    clients: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return a NetworkPolicy for the owner's Pods of a role: in from the owner's namespace, or only its Pods with the
    labels ``clients``, and from the operator's to the engine's port, and nothing out.

    It is a guard against accidents; what protects the source is that credentials, remotes and schedulers are gone.
    """
    policy = build_closed_policy(name, owner, role=role)
    policy["spec"]["ingress"] = [
        {
            "from": [
                {"podSelector": {"matchLabels": dict(clients)} if clients else {}},
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": operator_namespace}}},
            ],
            "ports": [{"protocol": "TCP", "port": port}],
        }
    ]
    return policy


def build_closed_policy(name: str, owner: Owner, *, role: Role) -> dict[str, Any]:
    """Return a NetworkPolicy for the owner's Pods of a role that talk to nobody and nobody to them: nothing in and
    nothing out.

    By role, for the owner may have Pods that run a user's program: what that may reach is for the namespace to say.
    """
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(name, owner),
        "spec": {
            "podSelector": {"matchLabels": {known.OWNER_UID: owner.uid, known.ROLE: role}},
            "policyTypes": ["Ingress", "Egress"],
        },
    }


def build_outbound_policy(name: str, owner: Owner, *, role: Role, port: int) -> dict[str, Any]:
    """Return a NetworkPolicy for the owner's Pods of a role that fetch something from outside: nothing in, and out to
    one port anywhere, and to where names are resolved.

    Anywhere, for a policy knows no names of hosts.
    """
    policy = build_closed_policy(name, owner, role=role)
    policy["spec"]["egress"] = [
        {"ports": [{"protocol": "TCP", "port": port}]},
        {"ports": [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]},
    ]
    return policy
