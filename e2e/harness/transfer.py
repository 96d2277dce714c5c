"""Carries an image from the engine into a kind node, leaving out the layers the node already has.

`kind load docker-image` sends every layer each time: 15 s for an image of which one small layer changed. containerd
unpacks a layer only if no snapshot of it and those below it exists, so an archive may lack such layers.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from e2e.harness import oci, shell

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CHUNK: Final = 1 << 20


def chain_ids(layers: Sequence[str]) -> list[str]:
    """The names of the snapshots that a stack of uncompressed layers makes, from the lowest up.

    As github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid defines them.
    """
    chain: list[str] = []
    for layer in layers:
        both = f"{chain[-1]} {layer}".encode() if chain else b""
        chain.append(f"sha256:{hashlib.sha256(both).hexdigest()}" if both else layer)
    return chain


def missing_layers(layers: Sequence[str], snapshots: Sequence[str]) -> frozenset[str]:
    """The layers to send: all above the highest one whose snapshot is there."""
    present = set(snapshots)
    known = [index for index, chain in enumerate(chain_ids(layers)) if chain in present]
    return frozenset(layers[max(known, default=-1) + 1 :])


@dataclass(frozen=True, kw_only=True)
class Node:
    """The containerd of a kind node; `environment` says by which engine it is reached."""

    name: str
    environment: Mapping[str, str]
    scratch: Path

    @property
    def _ctr(self) -> list[str | Path]:
        return ["docker", "exec", "-i", self.name, "ctr", "--namespace=k8s.io"]

    def has(self, ref: str) -> bool:
        """Whether it has an image of this name."""
        return ref in shell.run([*self._ctr, "images", "list", "--quiet"], env=self.environment).split()

    def load(self, ref: str) -> None:
        """Bring it an image of the engine. Raises CommandError."""
        inspect = ["docker", "image", "inspect", "--format={{json .RootFS.Layers}}", ref]
        layers: list[str] = json.loads(shell.run(inspect, env=self.environment))
        wanted = missing_layers(layers, shell.run([*self._ctr, "snapshots", "list"], env=self.environment).split())
        with self._archive() as archive:
            command = ["docker", "save", ref]
            with subprocess.Popen(command, env=shell.environment(self.environment), stdout=subprocess.PIPE) as save:
                if save.stdout is not None:
                    thin_archive(save.stdout, ref=ref, wanted=wanted, archive=archive)
            if save.returncode != 0:
                raise shell.CommandError(shell.failure(command, save.returncode, ""))
            self._import(archive)

    def load_made(self, image: oci.Image) -> None:
        """Bring it an image that no engine has. Raises CommandError."""
        with self._archive() as archive:
            oci.write_archive([image], archive)
            self._import(archive)

    @contextmanager
    def _archive(self) -> Iterator[Path]:
        self.scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            yield Path(folder, "image.tar")

    def _import(self, archive: Path) -> None:
        shell.pipe(["cat", archive], [*self._ctr, "images", "import", "--all-platforms", "-"], env=self.environment)


def thin_archive(saved: IO[bytes], *, ref: str, wanted: frozenset[str], archive: Path) -> None:
    """Turn what `docker save` writes into an OCI layout with only the wanted layers."""
    descriptors: dict[str, oci.Descriptor] = {}
    small: dict[str, bytes] = {}
    with tarfile.open(fileobj=saved, mode="r|") as source, tarfile.open(archive, "w") as output:
        for member in source:
            content = source.extractfile(member)
            if content is None:
                continue
            if not member.name.endswith("/layer.tar"):
                small[member.name] = content.read()
                continue
            spooled = archive.with_name("layer.tar")
            digest = _spool(content, spooled)
            descriptors[digest] = {"mediaType": oci.LAYER, "digest": digest, "size": member.size}
            if digest in wanted:
                output.add(spooled, arcname=oci.blob_path(descriptors[digest]))
        config = small[json.loads(small["manifest.json"])[0]["Config"]]
        diff_ids: list[str] = json.loads(config)["rootfs"]["diff_ids"]
        oci.add_index(output, [oci.add_manifest(output, ref, config, [descriptors[layer] for layer in diff_ids])])


def _spool(content: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := content.read(CHUNK):
            digest.update(chunk)
            file.write(chunk)
    return f"sha256:{digest.hexdigest()}"
