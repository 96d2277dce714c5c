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
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from e2e.harness import oci, shell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


def into_node(ref: str, *, node: str, environment: Mapping[str, str], scratch: Path) -> None:
    """Make an image of the engine known to the containerd of a node. Raises CommandError."""
    inspect = ["docker", "image", "inspect", "--format={{json .RootFS.Layers}}", ref]
    layers: list[str] = json.loads(shell.run(inspect, env=environment))
    ctr = ["docker", "exec", "-i", node, "ctr", "--namespace=k8s.io"]
    wanted = missing_layers(layers, shell.run([*ctr, "snapshots", "list"], env=environment).split())
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        archive = Path(folder, "image.tar")
        with subprocess.Popen(
            ["docker", "save", ref], env=shell.environment(environment), stdout=subprocess.PIPE
        ) as save:
            assert save.stdout is not None
            thin_archive(save.stdout, ref=ref, wanted=wanted, archive=archive)
        if save.returncode != 0:
            raise shell.CommandError(shell.failure(["docker", "save", ref], save.returncode, ""))
        shell.pipe(["cat", archive], [*ctr, "images", "import", "--all-platforms", "-"], env=environment)


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
