"""Renders kind's configuration (kind.sigs.k8s.io/docs/user/configuration); JSON, as JSON is YAML."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from e2e.harness.settings import Profile


@dataclass(frozen=True, kw_only=True)
class OfflineNode:
    """What a home-made node image needs kind and kubeadm to be told."""

    image: str
    api_server_address: str
    api_server_port: int
    coredns_tag: str
    etcd_tag: str


def render(*, profile: Profile, image: str | None = None, offline: OfflineNode | None = None) -> str:
    """The configuration of a one-node cluster. The `stock` profile changes no flag that has to do with speed."""
    node: dict[str, Any] = {"role": "control-plane"}
    if offline is not None or image is not None:
        node["image"] = offline.image if offline is not None else image
    patches = [*(_offline_patches(offline) if offline else []), *(_fast_patches() if profile == "fast" else [])]
    config: dict[str, Any] = {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "nodes": [node],
        "kubeadmConfigPatches": [json.dumps(patch) for patch in patches],
    }
    if offline is not None:
        config["networking"] = {
            "disableDefaultCNI": True,  # kindnet is not in the image; the image has its own CNI configuration
            "apiServerAddress": offline.api_server_address,
            "apiServerPort": offline.api_server_port,
        }
    return json.dumps(config, indent=2)


def _offline_patches(node: OfflineNode) -> list[dict[str, Any]]:
    return [
        # The versions that were built, which are not those that this kubeadm would pull.
        {
            "kind": "ClusterConfiguration",
            "dns": {"imageTag": node.coredns_tag},
            "etcd": {"local": {"imageTag": node.etcd_tag}},
        },
        # Since 1.35 kubelet refuses cgroup v1 unless told otherwise (KEP-5573).
        {"kind": "KubeletConfiguration", "failCgroupV1": False},
    ]


def _fast_patches() -> list[dict[str, Any]]:
    return [
        # etcd's fsync is most of an API write's time on a small disk, and this cluster's data need not survive.
        # The controller manager's default of 20 requests per second is what makes 20 claims at once slow.
        {
            "kind": "ClusterConfiguration",
            "etcd": {"local": {"extraArgs": {"unsafe-no-fsync": "true"}}},
            "controllerManager": {"extraArgs": {"kube-api-qps": "500", "kube-api-burst": "1000"}},
        },
        # How soon a Service follows its endpoints: 1 s by default.
        {"kind": "KubeProxyConfiguration", "iptables": {"minSyncPeriod": "50ms"}},
    ]
