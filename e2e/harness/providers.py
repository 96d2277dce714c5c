"""Makes and removes clusters.

Stock kind where Docker and the official node image can be had; where they cannot, everything is made from packages.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import debian, engine, images, kindconfig, nodeimage, shell, toolchain
from e2e.harness.cluster import Cluster, ClusterError, existing, kubectl_in_path
from e2e.harness.settings import CLUSTER_NAME

if TYPE_CHECKING:
    from e2e.harness.settings import Provider, Settings

NODE: Final = f"{CLUSTER_NAME}-control-plane"
API_SERVER_PORT: Final = 16443
# The node image of the kind release that e2e/toolchain/kind pins.
STOCK_NODE_IMAGE: Final = "kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the choice of a provider depends on."""

    engine_answers: bool
    node_image_available: bool


def choose(settings: Settings, machine: Machine) -> Provider:
    """The provider asked for, else the nearest to what users run that this machine can have."""
    if settings.provider is not None:
        return settings.provider
    if settings.kubeconfig is not None:
        return "existing"
    return "stock" if machine.engine_answers and machine.node_image_available else "offline"


def look(settings: Settings) -> Machine:
    """Find out, at most by one attempt to pull the node image."""
    if settings.provider is not None or settings.kubeconfig is not None or not shell.succeeds(["docker", "info"]):
        return Machine(engine_answers=False, node_image_available=False)
    image = settings.node_image or STOCK_NODE_IMAGE
    present = shell.succeeds(["docker", "image", "inspect", image]) or shell.succeeds(["docker", "pull", image])
    return Machine(engine_answers=True, node_image_available=present)


def create(provider: Provider, settings: Settings) -> Cluster:
    """Make a cluster. Raises ClusterError or CommandError with the log that matters."""
    if provider == "existing":
        return existing(settings)
    return _create_stock(settings) if provider == "stock" else _create_offline(settings)


def remove(settings: Settings) -> None:
    """Remove whatever cluster is there, whole or half-made; the caches stay."""
    recorded = Cluster.read(settings.state)
    offline = engine.private(settings)
    if recorded is not None and recorded.provider == "existing":
        shutil.rmtree(settings.state, ignore_errors=True)
    elif Path("/run/netns", engine.NAMESPACE).exists() or offline.answers():
        offline.remove()
    elif settings.state.exists():
        if (settings.state / "stock").exists():
            shell.run([toolchain.installed_or_built("kind", settings), "delete", "cluster", f"--name={CLUSTER_NAME}"])
        shutil.rmtree(settings.state, ignore_errors=True)


def _create_stock(settings: Settings) -> Cluster:
    profile = settings.profile or "stock"
    config = kindconfig.render(profile=profile, image=settings.node_image or STOCK_NODE_IMAGE)
    settings.state.mkdir(parents=True, exist_ok=True)
    (settings.state / "stock").touch()
    cluster = Cluster(
        name=CLUSTER_NAME,
        provider="stock",
        profile=profile,
        kubeconfig=settings.state / "kubeconfig",
        kubectl=kubectl_in_path(),
        state=settings.state,
        storage_class=settings.storage_class,
        snapshot_class=settings.snapshot_class,
        load_image_command=settings.load_image_command,
    )
    _kind_create(cluster, config, kind=toolchain.installed_or_built("kind", settings))
    return cluster


def _create_offline(settings: Settings) -> Cluster:
    debian.install_host_packages(debian.CLUSTER_PACKAGES)
    profile = settings.profile or "fast"
    private = engine.private(settings)
    kind = toolchain.build(toolchain.KIND, settings) / "kind"
    kubectl = toolchain.build(toolchain.KUBERNETES, settings) / "kubectl"
    private.start()
    image = nodeimage.ensure(private, settings, preload=list(images.prebuilt(settings).values()))
    node = kindconfig.OfflineNode(
        image=image,
        api_server_address=engine.ADDRESS,
        api_server_port=API_SERVER_PORT,
        coredns_tag=toolchain.COREDNS.version,
        etcd_tag=nodeimage.etcd_tag(),
    )
    cluster = Cluster(
        name=CLUSTER_NAME,
        provider="offline",
        profile=profile,
        kubeconfig=settings.state / "kubeconfig",
        kubectl=kubectl,
        state=settings.state,
        storage_class=settings.storage_class,
        snapshot_class=settings.snapshot_class,
        docker_host=private.host,
    )
    _kind_create(cluster, kindconfig.render(profile=profile, offline=node), kind=kind)
    return cluster


def _kind_create(cluster: Cluster, config: str, *, kind: Path) -> None:
    (cluster.state / "kind.yaml").write_text(config)
    command: list[str | Path] = [
        *(kind, "create", "cluster", f"--name={cluster.name}", f"--config={cluster.state}/kind.yaml"),
        *(f"--kubeconfig={cluster.kubeconfig}", "--wait=120s", "--retain"),
    ]
    with shell.step(f"kind create cluster ({cluster.provider}, {cluster.profile} profile)"):
        try:
            shell.run(command, env=cluster.environment)
        except shell.CommandError as error:
            raise ClusterError(f"{error}\n{_node_logs(cluster)}") from error


def _node_logs(cluster: Cluster) -> str:
    """The ends of the logs that say why a node did not come up."""
    sources = (
        ["docker", "logs", "--tail=30", NODE],
        ["docker", "exec", NODE, "journalctl", "--no-pager", "--unit=containerd", "--lines=20"],
        ["docker", "exec", NODE, "journalctl", "--no-pager", "--unit=kubelet", "--lines=40"],
    )
    texts = []
    for source in sources:
        with contextlib.suppress(shell.CommandError):
            texts.append(f"--- {' '.join(source)}\n{shell.run(source, env=cluster.environment)}")
    return "\n".join(texts)
