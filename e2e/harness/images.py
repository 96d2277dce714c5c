"""Builds the images of the project and of what it runs, by their Dockerfiles, and loads them into the cluster.

Each image carries the hash of all it was made from as a label: what has not changed is neither built nor loaded again.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.harness import cachekey, debian, engine, nodeimage, oci, shell, toolchain
from e2e.harness.cluster import ClusterError
from e2e.harness.settings import CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from e2e.harness.cluster import Cluster
    from e2e.harness.settings import Settings

LABEL: Final = "coppice.dev/content"
PREFIX: Final = "localhost/coppice"
PYTHON_BASE: Final = "python:3.11-slim-bookworm"
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
# Where there is a registry, what is not the project's own is pulled.
OFFICIAL: Final = {
    "dolt": "dolthub/dolt-sql-server:1.83.2",
    "postgresql": "postgres:15",
    **{
        name: f"registry.k8s.io/sig-storage/{name}:{tool.required(module)}" for name, (tool, module) in SIDECARS.items()
    },
}


@dataclass(frozen=True, kw_only=True)
class Image:
    """One image: `key` hashes what it is made from, `stage` copies that into an empty build context."""

    ref: str
    dockerfile: Path
    key: str
    stage: Callable[[Path], None]
    base: debian.RootFs | None


def refs() -> dict[str, str]:
    """The name of every image by its short name."""
    return {
        "operator": f"{PREFIX}/operator:dev",
        "chinook-app": f"{PREFIX}/chinook-app:dev",
        "terminusdb-double": f"{PREFIX}/terminusdb-double:12.0.6",
        "tls": f"{PREFIX}/tls:dev",
        **{name: f"{PREFIX}/{name}:{official.rpartition(':')[2]}" for name, official in OFFICIAL.items()},
    }


def ensure(name: str, cluster: Cluster, settings: Settings) -> str:
    """Build an image unless it is there unchanged, load it into the cluster and return its name.

    Raises ClusterError for an unknown name and CommandError.
    """
    if name not in refs():
        raise ClusterError(f"no image {name}: there are {', '.join(refs())}")
    ref, offline = refs()[name], cluster.provider == "offline"
    if name in OFFICIAL and offline:
        if not cluster.node.has(ref):
            with shell.step(f"load {ref}"):
                cluster.node.load_made(prebuilt(settings)[name])
        return ref
    if name in OFFICIAL:
        _pull(OFFICIAL[name], ref, cluster)
    elif name == "terminusdb-double" and settings.terminusdb_image is not None:
        _stand_in(settings.terminusdb_image, ref, cluster)
    else:
        _build(_describe(name, settings, offline=offline), cluster, settings)
    with shell.step(f"load {ref}"):
        cluster.load_image(ref)
    return ref


def prebuilt(settings: Settings) -> dict[str, oci.Image]:
    """The images that no Dockerfile makes: Debian packages and pinned programs. The offline node is born with them.

    Raises CommandError.
    """
    dolt = toolchain.build(toolchain.DOLT, settings) / "dolt"
    images = [
        oci.Image(name=python_base_ref(), base=debian.make(debian.PYTHON, settings)),
        oci.Image(
            name=refs()["dolt"],
            files={"usr/local/bin/dolt": dolt},
            base=debian.make(debian.DEBIAN, settings),
            entrypoint=("/usr/local/bin/dolt",),
        ),
    ]
    # With SIGTERM, a container's usual end, it would wait for its clients to go.
    postgresql = debian.make(debian.POSTGRESQL, settings)
    images.append(oci.Image(name=refs()["postgresql"], base=postgresql, stop_signal="SIGINT"))
    for name, (tool, _) in SIDECARS.items():
        program = toolchain.build(tool, settings) / name
        images.append(oci.Image(name=refs()[name], files={name: program}, entrypoint=(f"/{name}",)))
    return {image.name.removeprefix(f"{PREFIX}/").partition(":")[0]: image for image in images}


def python_base(cluster: Cluster) -> str:
    """The name of an image with Python that the cluster's nodes can run."""
    return python_base_ref() if cluster.provider == "offline" else PYTHON_BASE


def python_base_ref() -> str:
    """The offline node's image with Python, which the operator's and the example's images are built on."""
    return f"{PREFIX}/base:{debian.PYTHON.key}"


def wheelhouse(requirements: Path, settings: Settings, *, also: tuple[str, ...] = ()) -> Path:
    """Download what a hash-locked list names, for Python 3.11, and return the folder. Raises CommandError."""
    key = cachekey.digest([requirements.read_bytes(), *also, *IMAGE_PYTHON, *PLATFORMS])
    target = settings.cache / "wheels" / key
    if target.is_dir():
        return target
    with shell.step(f"download the packages of {requirements.relative_to(CHECKOUT)}"):
        settings.scratch.mkdir(parents=True, exist_ok=True)
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
            cachekey.keep(folder, target)
    return target


def _describe(name: str, settings: Settings, *, offline: bool) -> Image:
    if name == "operator":
        return _operator(settings, offline=offline)
    if name == "terminusdb-double":
        return _terminusdb_double(offline=offline)
    if name == "tls":
        return _tls(offline=offline)
    return _chinook_app(settings, offline=offline)


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


def _terminusdb_double(*, offline: bool) -> Image:
    source = CHECKOUT / "tests/fakes/terminusdb"
    return Image(
        ref=refs()["terminusdb-double"],
        dockerfile=source / "Dockerfile",
        key=cachekey.digest_tree(source),
        stage=lambda context: _copy(source, context),
        base=debian.PYTHON if offline else None,
    )


def _tls(*, offline: bool) -> Image:
    dockerfile = CHECKOUT / "operator/Dockerfile.tls"
    return Image(
        ref=refs()["tls"],
        dockerfile=dockerfile,
        key=cachekey.digest_tree(dockerfile),
        stage=lambda _: None,
        base=debian.STUNNEL if offline else None,
    )


def _build(image: Image, cluster: Cluster, settings: Settings) -> None:
    key = cachekey.digest([image.key, image.base.key if image.base else ""])
    if _label(image.ref, cluster) == key:
        return
    with shell.step(f"build {image.ref}"), tempfile.TemporaryDirectory(dir=_scratch(settings)) as folder:
        context = Path(folder)
        image.stage(context)
        arguments = []
        if image.base is not None:
            base = nodeimage.import_rootfs(image.base, engine.private(settings), settings)
            arguments.append(f"--build-arg=BASE={base}")
        label = f"--label={LABEL}={key}"
        builder = {**cluster.environment, **_builder(cluster)}
        arguments += _no_attestation(builder)
        command = ["docker", "build", f"--file={image.dockerfile}", f"--tag={image.ref}", label, *arguments]
        shell.run([*command, context], env=builder)


def _builder(cluster: Cluster) -> dict[str, str]:
    return engine.CLASSIC_BUILDER if cluster.provider == "offline" else {}


def _no_attestation(builder: Mapping[str, str]) -> list[str]:
    """An attestation makes an index of an image; the classic builder makes none and has no such flag."""
    classic = {**os.environ, **builder}.get("DOCKER_BUILDKIT") == "0"
    has_buildx = not classic and shell.succeeds(["docker", "buildx", "version"], env=builder)
    return ["--provenance=false"] if has_buildx else []


def _pull(official: str, ref: str, cluster: Cluster) -> None:
    if not shell.succeeds(["docker", "image", "inspect", ref], env=cluster.environment):
        with shell.step(f"pull {official}"):
            shell.run(["docker", "pull", "--quiet", official], env=cluster.environment)
            shell.run(["docker", "tag", official, ref], env=cluster.environment)


def _stand_in(real: str, ref: str, cluster: Cluster) -> None:
    """Have the real image under the name of its double, so that the same stories run against it."""
    if cluster.provider == "offline":
        raise ClusterError(f"COPPICE_TERMINUSDB_IMAGE={real}: the offline cluster takes none of a registry: use kind")
    with shell.step(f"pull {real}"):
        shell.run(["docker", "pull", "--quiet", real], env=cluster.environment)
        shell.run(["docker", "tag", real, ref], env=cluster.environment)


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
