"""The Service an app connects to, the policy that keeps an engine's Pods to themselves, and the passage from one of
them to another.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from coppice.core import labels as known
from coppice.core.names import child, handover_name
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
    ports: Collection[int],
    operator_namespace: str,
    clients: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return a NetworkPolicy for the owner's Pods of a role: in from the owner's namespace, or only its Pods with the
    labels ``clients``, and from the operator's to the ports on which they are served, and nothing out.

    It is a guard against accidents; what protects the source is that credentials, remotes and schedulers are gone.
    """
    policy = build_closed_policy(name, owner, role=role)
    policy["spec"]["ingress"] = [
        {
            "from": [
                {"podSelector": {"matchLabels": dict(clients)} if clients else {}},
                {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": operator_namespace}}},
            ],
            "ports": [{"protocol": "TCP", "port": port} for port in ports],
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


@dataclass(frozen=True, slots=True)
class Peer:
    """The Pods that one owner has in a role: the two ends of a passage."""

    namespace: str
    owner_uid: str
    role: Role

    @property
    def selector(self) -> dict[str, Any]:
        """Return how a NetworkPolicy of their namespace selects them."""
        return {"matchLabels": {known.OWNER_UID: self.owner_uid, known.ROLE: self.role}}

    @property
    def selector_anywhere(self) -> dict[str, Any]:
        """Return how a NetworkPolicy of any namespace names them as the other end."""
        return {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            "podSelector": self.selector,
        }


def build_passage(name: str, owner: Owner, *, fetcher: Peer, source: Peer, port: int) -> list[dict[str, Any]]:
    """Return the NetworkPolicies by which one server fetches from another: into one port of the source from the
    fetcher alone, and out of the fetcher, which is let out nowhere else, to that port of the source.

    Policies add up: what else either may is as it was. At most one end is in another namespace than the owner, which
    has no more than one policy there.
    """
    into = _build_way(child(name, "in"), owner, source)
    into["spec"]["policyTypes"] = ["Ingress"]
    into["spec"]["ingress"] = [{"from": [fetcher.selector_anywhere], "ports": [{"protocol": "TCP", "port": port}]}]
    out = _build_way(child(name, "out"), owner, fetcher)
    out["spec"]["policyTypes"] = ["Egress"]
    out["spec"]["egress"] = [{"to": [source.selector_anywhere], "ports": [{"protocol": "TCP", "port": port}]}]
    return [into, out]


def _build_way(name: str, owner: Owner, end: Peer) -> dict[str, Any]:
    """Return a NetworkPolicy at one end of a passage; elsewhere than with its owner it bears the name by which what is
    left behind there is found.
    """
    own = name if end.namespace == owner.namespace else handover_name(owner.uid, end.namespace)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": build_metadata(own, owner, namespace=end.namespace),
        "spec": {"podSelector": end.selector},
    }
