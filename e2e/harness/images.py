"""Builds the images of the project and of what it runs, by their Dockerfiles, and loads them into the cluster.

Each image carries the hash of all it was made from as a label: what has not changed is neither built nor loaded again.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import cachekey, debian, engine, nodeimage, providers, shell, toolchain
from e2e.harness.cluster import ClusterError
from e2e.harness.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.harness.cluster import Cluster
    from e2e.harness.settings import Settings
    from e2e.harness.toolchain import Tool

LABEL: Final = "coppice.dev/content"
PREFIX: Final = "localhost/coppice"
PYTHON_BASE: Final = "python:3.11-slim-bookworm"
DOCKERFILES: Final = CHECKOUT / "e2e" / "images"
# They build the project itself; the lock holds only what runs.
BUILD_REQUIREMENTS: Final = ("setuptools>=77",)
IMAGE_PYTHON: Final = ("--python-version=3.11", "--implementation=cp", "--only-binary=:all:")
PLATFORMS: Final = ("manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux_2_28_x86_64", "manylinux_2_34_x86_64")
SIDECARS: Final = {
    "csi-provisioner": (toolchain.CSI_PROVISIONER, "github.com/kubernetes-csi/external-provisioner/v6"),
    "csi-snapshotter": (toolchain.CSI, "github.com/kubernetes-csi/external-snapshotter/v8"),
    "snapshot-controller": (toolchain.CSI, "github.com/kubernetes-csi/external-snapshotter/v8"),
    "csi-resizer": (toolchain.CSI, "github.com/kubernetes-csi/external-resizer/v2"),
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image: `key` hashes what it is made from, `stage` copies that into an empty build context."""

    ref: str
    dockerfile: Path
    key: str
    stage: Callable[[Path], None]
    base: debian.RootFs | None = None
    arguments: tuple[str, ...] = ()


def refs() -> dict[str, str]:
    """The name of every image by its short name."""
    return {
        "operator": f"{PREFIX}/operator:dev",
        "dolt": f"{PREFIX}/dolt:{_dolt_version((DOCKERFILES / 'dolt/Dockerfile').read_text())}",
        "chinook-app": f"{PREFIX}/chinook-app:dev",
        **{name: f"{PREFIX}/{name}:{_sidecar_version(*pin)}" for name, pin in SIDECARS.items()},
    }


def ensure(name: str, cluster: Cluster, settings: Settings) -> str:
    """Build an image unless it is there unchanged, load it into the cluster and return its name.

    Raises ClusterError for an unknown name and CommandError.
    """
    if name not in refs():
        raise ClusterError(f"no image {name}: there are {', '.join(refs())}")
    offline = cluster.provider == "offline"
    if name in SIDECARS and not offline:
        _pull_sidecar(name, cluster)
    else:
        _build(_describe(name, settings, offline=offline), cluster, settings)
    with shell.step(f"load {refs()[name]}"):
        cluster.load_image(refs()[name])
    return refs()[name]


def python_base(cluster: Cluster, settings: Settings) -> str:
    """The name of an image with Python that the cluster's nodes can run. Raises CommandError."""
    if cluster.provider != "offline":
        return PYTHON_BASE
    image = nodeimage.import_rootfs(debian.PYTHON, providers.private_engine(settings), settings)
    with shell.step(f"load {image}"):
        cluster.load_image(image)
    return image


def wheelhouse(requirements: Path, settings: Settings, *, also: tuple[str, ...] = ()) -> Path:
    """Download what a hash-locked list names, for Python 3.11, and return the folder. Raises CommandError."""
    key = cachekey.digest([requirements.read_bytes(), *also, *IMAGE_PYTHON, *PLATFORMS])
    target = settings.cache / "wheels" / key
    if target.is_dir():
        return target
    with shell.step(f"download the packages of {requirements.relative_to(CHECKOUT)}"):
        settings.scratch.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.scratch) as scratch:
            folder = Path(scratch, "wheels")
            platforms = [f"--platform={platform}" for platform in PLATFORMS]
            download = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                *IMAGE_PYTHON,
                *platforms,
                f"--dest={folder}",
            ]
            shell.run([*download, "--require-hashes", f"--requirement={requirements}"])
            if also:
                shell.run([*download, *also])
            folder.rename(target)
    return target


def _describe(name: str, settings: Settings, *, offline: bool) -> Image:
    if name == "operator":
        return _operator(settings, offline=offline)
    if name == "dolt":
        return _dolt(settings, offline=offline)
    if name == "chinook-app":
        return _chinook_app(settings, offline=offline)
    return _sidecar(name, settings)


def _operator(settings: Settings, *, offline: bool) -> Image:
    dockerfile, lock = CHECKOUT / "operator/Dockerfile", CHECKOUT / "requirements/run.txt"
    package = CHECKOUT / "operator/coppice"
    files = [CHECKOUT / name for name in ("pyproject.toml", "README.md", "LICENSE")]

    def stage(context: Path) -> None:
        _copy(package, context / "operator/coppice")
        for file in files:
            shutil.copy2(file, context)
        (context / "requirements").mkdir()
        shutil.copy2(lock, context / "requirements")
        if offline:
            _copy(wheelhouse(lock, settings, also=BUILD_REQUIREMENTS), context / "wheelhouse")

    return Image(
        ref=refs()["operator"],
        dockerfile=dockerfile,
        key=cachekey.digest_tree(dockerfile, lock, package, *files),
        stage=stage,
        base=debian.PYTHON if offline else None,
    )


def _chinook_app(settings: Settings, *, offline: bool) -> Image:
    source = CHECKOUT / "examples/app"

    def stage(context: Path) -> None:
        _copy(source, context)
        if offline:
            _copy(wheelhouse(source / "requirements.txt", settings), context / "wheelhouse")

    return Image(
        ref=refs()["chinook-app"],
        dockerfile=source / "Dockerfile",
        key=cachekey.digest_tree(source),
        stage=stage,
        base=debian.PYTHON if offline else None,
    )


def _dolt(settings: Settings, *, offline: bool) -> Image:
    dockerfile = DOCKERFILES / "dolt/Dockerfile"
    binaries = toolchain.build(toolchain.DOLT, settings) if offline else None

    def stage(context: Path) -> None:
        (context / "root").mkdir()
        if binaries is not None:
            programs = context / "root/usr/local/bin"
            programs.mkdir(parents=True)
            shutil.copy2(binaries / "dolt", programs)

    return Image(
        ref=refs()["dolt"],
        dockerfile=dockerfile,
        key=cachekey.digest([cachekey.digest_tree(dockerfile), binaries.name if binaries else ""]),
        stage=stage,
        base=debian.DEBIAN if offline else None,
    )


def _sidecar(name: str, settings: Settings) -> Image:
    dockerfile, binaries = DOCKERFILES / "sidecar/Dockerfile", toolchain.build(SIDECARS[name][0], settings)

    def stage(context: Path) -> None:
        shutil.copy2(binaries / name, context)

    return Image(
        ref=refs()[name],
        dockerfile=dockerfile,
        key=cachekey.digest([cachekey.digest_tree(dockerfile), binaries.name, name]),
        stage=stage,
        arguments=(f"PROGRAM={name}",),
    )


def _build(image: Image, cluster: Cluster, settings: Settings) -> None:
    key = cachekey.digest([image.key, image.base.key if image.base else ""])
    if _label(image.ref, cluster) == key:
        return
    with shell.step(f"build {image.ref}"), tempfile.TemporaryDirectory(dir=_scratch(settings)) as folder:
        context = Path(folder)
        image.stage(context)
        arguments = [f"--build-arg={argument}" for argument in image.arguments]
        if image.base is not None:
            base = nodeimage.import_rootfs(image.base, providers.private_engine(settings), settings)
            arguments.append(f"--build-arg=BASE={base}")
        label = f"--label={LABEL}={key}"
        command = ["docker", "build", f"--file={image.dockerfile}", f"--tag={image.ref}", label, *arguments]
        shell.run([*command, context], env={**cluster.environment, **_builder(cluster)})


def _builder(cluster: Cluster) -> dict[str, str]:
    return engine.CLASSIC_BUILDER if cluster.provider == "offline" else {}


def _pull_sidecar(name: str, cluster: Cluster) -> None:
    ref = refs()[name]
    official = f"registry.k8s.io/sig-storage/{ref.removeprefix(f'{PREFIX}/')}"
    if not shell.succeeds(["docker", "image", "inspect", ref], env=cluster.environment):
        with shell.step(f"pull {official}"):
            shell.run(["docker", "pull", "--quiet", official], env=cluster.environment)
            shell.run(["docker", "tag", official, ref], env=cluster.environment)


def _label(ref: str, cluster: Cluster) -> str | None:
    form = f'{{{{index .Config.Labels "{LABEL}"}}}}'
    try:
        return shell.run(["docker", "image", "inspect", f"--format={form}", ref], env=cluster.environment).strip()
    except shell.CommandError:
        return None


def _copy(source: Path, target: Path) -> None:
    ignored = shutil.ignore_patterns(*cachekey.IGNORED)
    shutil.copytree(source, target, ignore=ignored, symlinks=True, dirs_exist_ok=True)


def _scratch(settings: Settings) -> Path:
    settings.scratch.mkdir(parents=True, exist_ok=True)
    return settings.scratch


def _sidecar_version(tool: Tool, module: str) -> str:
    return toolchain.required_version((tool.directory / "go.mod").read_text(), module)


def _dolt_version(dockerfile: str) -> str:
    line = next(line for line in dockerfile.splitlines() if line.startswith("ARG BASE="))
    return line.rpartition(":")[2]
