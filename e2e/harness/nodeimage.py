"""Builds the kind node image from Debian packages and pinned Go modules; kept in the engine under its content hash."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import cachekey, debian, oci, shell, toolchain
from e2e.harness.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from e2e.harness.engine import Engine
    from e2e.harness.settings import Settings

SOURCES: Final = CHECKOUT / "e2e" / "images" / "node"
CODE: Final = tuple(Path(__file__).with_name(name) for name in ("nodeimage.py", "oci.py"))
CONTROL_PLANE: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
IPTABLES: Final = tuple(f"{family}tables{suffix}" for family in ("ip", "ip6") for suffix in ("", "-save", "-restore"))


def etcd_tag() -> str:
    """The image tag of the etcd that go.mod pins, in kubeadm's style."""
    return f"{toolchain.ETCD.version.removeprefix('v')}-0"


def pause_image(containerd_config: str) -> str:
    """The name that containerd gives the image of every Pod's first container. Raises LookupError."""
    found = re.search(r'^\s*sandbox_image = "([^"]+)"', containerd_config, re.MULTILINE)
    if found is None:
        raise LookupError("containerd's config.toml names no sandbox_image")
    return found.group(1)


def ensure(engine: Engine, settings: Settings, *, preload: Sequence[oci.Image] = ()) -> str:
    """Build the image unless the engine has it, and return its name. Raises CommandError.

    Its containerd holds the control plane's images and those to `preload`.
    """
    parts = (toolchain.KUBERNETES, toolchain.ETCD, toolchain.COREDNS, toolchain.PAUSE)
    binaries = {tool.module: toolchain.build(tool, settings) for tool in parts}
    images = [*control_plane_images(binaries, debian.make(debian.KUBE_PROXY, settings)), *preload]
    programs = binaries["kubernetes"].name
    key = cachekey.digest(
        [debian.NODE.key, programs, *(image.key for image in images), cachekey.digest_tree(SOURCES, *CODE)]
    )
    image = f"localhost/coppice/node:{key}"
    if shell.succeeds(["docker", "image", "inspect", image], env=engine.environment):
        return image
    base = import_rootfs(debian.NODE, engine, settings)
    with shell.step("kind node image"), tempfile.TemporaryDirectory(dir=settings.scratch) as folder:
        context = Path(folder)
        shutil.copytree(SOURCES, context, dirs_exist_ok=True, symlinks=True)
        (context / "bin").mkdir()
        for name in ("kubeadm", "kubelet", "kubectl"):
            shutil.copy2(binaries["kubernetes"] / name, context / "bin" / name)
        layers = oci.write_archive(images, context / "images.tar")
        _unpack(engine, base=base, context=context, layers=layers)
        (context / "images.tar").unlink()
        version = f"KUBERNETES_VERSION={toolchain.KUBERNETES.version}"
        engine.docker("build", "--tag", image, "--build-arg", f"BASE={base}", "--build-arg", version, context)
    return image


def import_rootfs(rootfs: debian.RootFs, engine: Engine, settings: Settings) -> str:
    """Make a root file system an image of the engine, and return its name."""
    image = f"localhost/coppice/base:{rootfs.key}"
    if not shell.succeeds(["docker", "image", "inspect", image], env=engine.environment):
        engine.docker("import", debian.make(rootfs, settings), image)
    return image


def control_plane_images(binaries: dict[str, Path], kube_proxy_base: Path) -> list[oci.Image]:
    """The images that `kubeadm config images list` names, each one static program; kube-proxy also has iptables."""
    kubernetes, version = binaries["kubernetes"], toolchain.KUBERNETES.version
    pause = pause_image((SOURCES / "rootfs/etc/containerd/config.toml").read_text())
    # Debian's alternatives are set by package scripts, which did not run.
    links = {f"usr/sbin/{name}": "xtables-nft-multi" for name in IPTABLES}
    return [
        *(
            oci.Image(name=f"registry.k8s.io/{name}:{version}", files={f"usr/local/bin/{name}": kubernetes / name})
            for name in CONTROL_PLANE
        ),
        oci.Image(
            name=f"registry.k8s.io/kube-proxy:{version}",
            files={"usr/local/bin/kube-proxy": kubernetes / "kube-proxy"},
            links=links,
            base=kube_proxy_base,
        ),
        oci.Image(name=f"registry.k8s.io/etcd:{etcd_tag()}", files={"usr/local/bin/etcd": binaries["etcd"] / "etcd"}),
        oci.Image(
            name=f"registry.k8s.io/coredns/coredns:{toolchain.COREDNS.version}",
            files={"coredns": binaries["coredns"] / "coredns"},
            entrypoint=("/coredns",),
        ),
        oci.Image(name=pause, files={"pause": binaries["pause"] / "pause"}, entrypoint=("/pause",)),
    ]


def _unpack(engine: Engine, *, base: str, context: Path, layers: Iterable[str]) -> None:
    # In a container of the node's own root file system, so that the containerd that reads the store is the one that
    # wrote it.
    store = context / "containerd"
    store.mkdir()
    engine.docker(
        *("run", "--rm", "--privileged", "--network=none", f"--volume={store}:/var/lib/containerd"),
        *(f"--volume={context}:/context:ro", base, "/context/unpack-images", "/context/images.tar", *layers),
    )
