"""Writes container images of one layer as an OCI image layout, without an engine.

The format: github.com/opencontainers/image-spec, image-layout.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NOT_NEEDED: Final = ("./dev/", "./usr/share/", "./var/", "./usr/lib/x86_64-linux-gnu/gconv/")


class Descriptor(TypedDict):
    """What one part of a layout says of another (image-spec, descriptor.md)."""

    mediaType: str
    digest: str
    size: int
    annotations: NotRequired[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Image:
    """A name and what is in it: a root file system (a tar archive, or none), files and links laid over it."""

    name: str
    files: dict[str, Path]
    links: dict[str, str] = field(default_factory=dict)
    base: Path | None = None
    entrypoint: tuple[str, ...] = ()


def write_archive(images: Sequence[Image], archive: Path, *, scratch: Path) -> tuple[str, ...]:
    """Write all images into one archive, and return the digests of their layers in the same order."""
    manifests: list[Descriptor] = []
    layers: list[str] = []
    with tarfile.open(archive, "w") as output:
        for image in images:
            layer = _write_layer(image, scratch / "layer.tar")
            layers.append(layer["digest"])
            output.add(scratch / "layer.tar", arcname=blob_path(layer))
            manifests.append(add_manifest(output, image.name, _json(_config(image, layer["digest"])), [layer]))
        add_index(output, manifests)
    (scratch / "layer.tar").unlink(missing_ok=True)
    return tuple(layers)


def add_manifest(archive: tarfile.TarFile, name: str, config: bytes, layers: Sequence[Descriptor]) -> Descriptor:
    """Add an image's configuration and manifest, and return what the index says of it. Its layers are the caller's."""
    described = _describe(CONFIG, config)
    manifest = _json({"schemaVersion": 2, "mediaType": MANIFEST, "config": described, "layers": list(layers)})
    _add(archive, blob_path(described), config)
    _add(archive, blob_path(_describe(MANIFEST, manifest)), manifest)
    return {**_describe(MANIFEST, manifest), "annotations": {"io.containerd.image.name": name}}


def add_index(archive: tarfile.TarFile, manifests: Sequence[Descriptor]) -> None:
    """Add what makes the archive an OCI image layout."""
    _add(archive, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    _add(archive, "index.json", _json({"schemaVersion": 2, "manifests": list(manifests)}))


def blob_path(descriptor: Descriptor) -> str:
    """Where an OCI image layout keeps a blob."""
    return f"blobs/{descriptor['digest'].replace(':', '/')}"


def _write_layer(image: Image, path: Path) -> Descriptor:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer:
        if image.base is not None:
            _copy_members(image.base, layer)
        for name, target in image.links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            layer.addfile(link)
        for name, source in image.files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                layer.addfile(entry, content)
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"mediaType": LAYER, "digest": f"sha256:{digest}", "size": path.stat().st_size}


def _copy_members(base: Path, layer: tarfile.TarFile) -> None:
    with tarfile.open(base) as source:
        for member in source:
            if not member.name.startswith(tuple(name.rstrip("/") for name in NOT_NEEDED)):
                layer.addfile(member, source.extractfile(member) if member.isreg() else None)


def _config(image: Image, layer: str) -> dict[str, Any]:
    run = {"Env": [PATH], **({"Entrypoint": list(image.entrypoint)} if image.entrypoint else {})}
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    }


def _describe(media_type: str, blob: bytes) -> Descriptor:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
