"""Images without an engine or a registry: what is written is what containerd reads."""

import hashlib
import io
import json
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import engine, oci, transfer


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as source:
        return {member.name: file.read() for member in source if (file := source.extractfile(member)) is not None}


def blob(files: dict[str, bytes], digest: str) -> Any:
    return json.loads(files[f"blobs/{digest.replace(':', '/')}"])


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program"
    path.write_bytes(b"ELF")
    return path


def test_archive_is_a_whole_oci_layout(tmp_path: Path, program: Path) -> None:
    archive = tmp_path / "images.tar"
    names = ["registry.k8s.io/a:1", "registry.k8s.io/b:2"]
    images = [oci.Image(name=name, files={"bin/p": program}, entrypoint=("/bin/p",)) for name in names]
    layers = oci.write_archive(images, archive)
    files = contents(archive)
    assert json.loads(files["oci-layout"]) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads(files["index.json"])["manifests"]
    assert [entry["annotations"]["io.containerd.image.name"] for entry in index] == names
    for entry in index:
        manifest = blob(files, entry["digest"])
        config = blob(files, manifest["config"]["digest"])
        assert config["config"]["Entrypoint"] == ["/bin/p"]
        assert config["rootfs"]["diff_ids"] == [part["digest"] for part in manifest["layers"]] == list(layers)
    for name, data in files.items():
        if name.startswith("blobs/"):
            assert name == f"blobs/{sha256(data).replace(':', '/')}"


def test_base_is_a_layer_as_it_stands_so_that_images_share_it(tmp_path: Path, program: Path) -> None:
    base, archive = tmp_path / "base.tar", tmp_path / "images.tar"
    with tarfile.open(base, "w") as output:
        output.addfile(tarfile.TarInfo("./etc"))
    images = [
        oci.Image(name="python:1", base=base),
        oci.Image(name="proxy:1", base=base, files={"bin/p": program}, links={"sbin/iptables": "xtables-nft-multi"}),
    ]
    layers = oci.write_archive(images, archive)
    files = contents(archive)
    shared = sha256(base.read_bytes())
    (upper,) = layers - {shared}
    index = json.loads(files["index.json"])["manifests"]
    stacks = [[part["digest"] for part in blob(files, entry["digest"])["layers"]] for entry in index]
    assert stacks == [[shared], [shared, upper]]
    with tarfile.open(archive) as whole:
        assert len(whole.getnames()) == len(set(whole.getnames()))
    with tarfile.open(fileobj=io.BytesIO(files[f"blobs/{upper.replace(':', '/')}"])) as inner:
        assert inner.getmember("sbin/iptables").linkname == "xtables-nft-multi"
        assert inner.getmember("bin/p").mode == 0o755


def test_image_is_named_by_all_that_is_in_it(tmp_path: Path) -> None:
    image = oci.Image(name="n:1", files={"bin/p": tmp_path / "p-1" / "p"}, base=tmp_path / "debian-1.tar")
    others = [
        replace(image, name="n:2"),
        replace(image, files={"bin/p": tmp_path / "p-2" / "p"}),
        replace(image, files={"bin/q": tmp_path / "p-1" / "p"}),
        replace(image, base=tmp_path / "debian-2.tar"),
        replace(image, links={"a": "b"}),
        replace(image, entrypoint=("/bin/p",)),
    ]
    assert len({image.key, *(other.key for other in others)}) == len(others) + 1


def test_chain_ids_are_those_of_the_specification() -> None:
    first, second = "sha256:a", "sha256:b"
    assert transfer.chain_ids([]) == []
    assert transfer.chain_ids([first, second]) == [first, sha256(f"{first} {second}".encode())]


def test_only_layers_without_a_snapshot_are_sent() -> None:
    layers = ["sha256:a", "sha256:b", "sha256:c"]
    chain = transfer.chain_ids(layers)
    assert transfer.missing_layers(layers, []) == set(layers)
    assert transfer.missing_layers(layers, [chain[1], "other"]) == {"sha256:c"}
    assert transfer.missing_layers(layers, chain) == set()
    # The same layer on another stack is another snapshot.
    assert transfer.missing_layers(layers, ["sha256:b"]) == set(layers)


def saved(layers: dict[str, bytes]) -> tuple[io.BytesIO, bytes]:
    """What `docker save` of Docker 20.10 writes: folders in no order, the manifest last."""
    config = json.dumps({"rootfs": {"diff_ids": [sha256(data) for data in layers.values()]}}).encode()
    manifest = [{"Config": "c.json", "Layers": [f"{name}/layer.tar" for name in layers]}]
    files = {f"{name}/layer.tar": layers[name] for name in sorted(layers, reverse=True)}
    files |= {"c.json": config, "manifest.json": json.dumps(manifest).encode()}
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as output:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            output.addfile(entry, io.BytesIO(data))
    stream.seek(0)
    return stream, config


def test_thin_archive_names_all_layers_and_holds_the_wanted(tmp_path: Path) -> None:
    lower, upper = b"lower layer", b"upper"
    stream, config = saved({"1": lower, "2": upper})
    archive = tmp_path / "thin.tar"
    transfer.thin_archive(stream, ref="localhost/x:1", wanted=frozenset({sha256(upper)}), archive=archive)
    files = contents(archive)
    (entry,) = json.loads(files["index.json"])["manifests"]
    manifest = blob(files, entry["digest"])
    assert entry["annotations"]["io.containerd.image.name"] == "localhost/x:1"
    assert [(part["digest"], part["size"]) for part in manifest["layers"]] == [
        (sha256(lower), len(lower)),
        (sha256(upper), len(upper)),
    ]
    assert manifest["config"]["digest"] == sha256(config)
    assert f"blobs/{sha256(upper).replace(':', '/')}" in files
    assert f"blobs/{sha256(lower).replace(':', '/')}" not in files


@pytest.mark.parametrize("spec", ['["CAP_SYS_RESOURCE","CAP_KILL"]', '["CAP_KILL","CAP_SYS_RESOURCE"]'])
@pytest.mark.parametrize("words", [["create", "--bundle", "{}", "id"], ["exec", "-p", "{}/config.json", "id"]])
def test_runc_wrapper_drops_one_capability_and_goes_on(tmp_path: Path, spec: str, words: list[str]) -> None:
    (tmp_path / "config.json").write_text(f'{{"bounding":{spec}}}')
    fake = tmp_path / "bin" / "runc"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$@"\n')
    fake.chmod(0o755)
    filled = [word.format(tmp_path) for word in words]
    done = subprocess.run(
        [engine.RUNC_WRAPPER, *filled],
        env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == filled
    assert json.loads((tmp_path / "config.json").read_text()) == {"bounding": ["CAP_KILL"]}
