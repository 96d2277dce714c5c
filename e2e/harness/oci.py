"""Writes container images as an OCI image layout, without an engine.

The format: github.com/opencontainers/image-spec, image-layout.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NotRequired, TypedDict

from e2e.harness import cachekey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
CONFIG: Final = "application/vnd.oci.image.config.v1+json"
LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Descriptor(TypedDict):
    """What one part of a layout says of another (image-spec, descriptor.md)."""

    mediaType: str
    digest: str
    size: int
    annotations: NotRequired[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class Image:
    """A name and what is in it: a root file system (a tar archive, or none) and a layer of files and links over it."""

    name: str
    files: dict[str, Path] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    base: Path | None = None
    entrypoint: tuple[str, ...] = ()
    stop_signal: str = ""

    @property
    def key(self) -> str:
        """Names its content, as each file comes from a place that is named by content."""
        files = [f"{name}={path.parent.name}/{path.name}" for name, path in self.files.items()]
        base = self.base.name if self.base else ""
        links = map(str, self.links.items())
        return cachekey.digest([self.name, base, *files, *links, *self.entrypoint, self.stop_signal])


def write_archive(images: Sequence[Image], archive: Path) -> frozenset[str]:
    """Write all images into one archive, each layer once, and return the digests of the layers."""
    manifests: list[Descriptor] = []
    written: dict[str, Descriptor] = {}
    scratch = archive.with_name("layer.tar")
    with tarfile.open(archive, "w") as output:
        for image in images:
            layers = [image.base] if image.base else []
            if image.files or image.links:
                _write_layer(image, scratch)
                layers.append(scratch)
            described = [_describe_file(LAYER, layer) for layer in layers]
            for layer, description in zip(layers, described, strict=True):
                if description["digest"] not in written:
                    output.add(layer, arcname=blob_path(description))
                    written[description["digest"]] = description
            config = _json(_config(image, [description["digest"] for description in described]))
            manifests.append(add_manifest(output, image.name, config, described))
        add_index(output, manifests)
    scratch.unlink(missing_ok=True)
    return frozenset(written)


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


def _write_layer(image: Image, path: Path) -> None:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as layer:
        for name, target in image.links.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            layer.addfile(link)
        for name, source in image.files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = source.stat().st_size, 0o755
            with source.open("rb") as content:
                layer.addfile(entry, content)


def _config(image: Image, layers: Sequence[str]) -> dict[str, Any]:
    run: dict[str, Any] = {"Env": [PATH]}
    if image.entrypoint:
        run["Entrypoint"] = list(image.entrypoint)
    if image.stop_signal:
        run["StopSignal"] = image.stop_signal
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": list(layers)},
    }


def _describe(media_type: str, blob: bytes) -> Descriptor:
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}


def _describe_file(media_type: str, path: Path) -> Descriptor:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": path.stat().st_size}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
