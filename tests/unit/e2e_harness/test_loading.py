"""How images come into a kind node: the command lines that were seen to work with each image store of Docker."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.harness import images, shell
from e2e.harness.cluster import Cluster, ClusterError
from e2e.harness.settings import from_environment

REF = "localhost/coppice/dolt:1.0"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(
        name="coppice",
        provider="stock",
        profile="stock",
        kubeconfig=tmp_path / "config",
        kubectl=Path("kubectl"),
        state=tmp_path,
        storage_class="",
        snapshot_class="",
    )


@pytest.fixture
def piped(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Docker as far as it is asked: what was piped into what."""
    found: list[str] = []
    answers = {"{{.Id}}": "sha256:1\n", "{{.Os}}/{{.Architecture}}": "linux/arm64\n"}

    def run(argv: Sequence[str], **_: object) -> str:
        assert argv[:3] == ["docker", "image", "inspect"]
        assert argv[-1] == REF
        return answers[argv[3].removeprefix("--format=")]

    def pipe(source: Sequence[str], sink: Sequence[str], **_: object) -> None:
        found.append(f"{' '.join(source)} | {' '.join(sink)}")

    monkeypatch.setattr(shell, "run", run)
    monkeypatch.setattr(shell, "pipe", pipe)
    return found


def test_the_platform_is_named_for_an_index_names_more_than_were_pulled(cluster: Cluster, piped: list[str]) -> None:
    assert cluster.load_image(REF)
    assert piped == [
        f"docker save {REF} | docker exec -i coppice-control-plane ctr -n=k8s.io images import --platform=linux/arm64 -"
    ]


def test_what_is_there_is_not_loaded_again(cluster: Cluster, piped: list[str]) -> None:
    assert cluster.load_image(REF)
    assert not cluster.load_image(REF)
    assert len(piped) == 1
    assert json.loads((cluster.state / "loaded-images.json").read_text()) == {REF: "sha256:1"}


@pytest.mark.parametrize(
    ("builder", "has_buildx", "expected"),
    [
        pytest.param({}, True, ["--provenance=false"], id="buildx"),
        pytest.param({}, False, [], id="no buildx"),
        pytest.param({"DOCKER_BUILDKIT": "0"}, True, [], id="the classic builder"),
    ],
)
def test_no_attestation_is_asked_of_a_builder_that_makes_some(
    monkeypatch: pytest.MonkeyPatch, *, builder: Mapping[str, str], has_buildx: bool, expected: list[str]
) -> None:
    monkeypatch.delenv("DOCKER_BUILDKIT", raising=False)
    monkeypatch.setattr(shell, "succeeds", lambda argv, **_: has_buildx)
    assert images._no_attestation(builder) == expected


REAL = {"COPPICE_TERMINUSDB_IMAGE": "terminusdb/terminusdb-server:v12.0.6"}


def test_the_real_terminusdb_stands_under_the_name_of_its_double(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(shell, "run", lambda argv, **_: ran.append(" ".join(argv)))
    monkeypatch.setattr(Cluster, "load_image", lambda self, ref: ran.append(f"load {ref}"))
    ref = images.ensure("terminusdb-double", cluster, from_environment(REAL))
    assert ran == [
        "docker pull --quiet terminusdb/terminusdb-server:v12.0.6",
        f"docker tag terminusdb/terminusdb-server:v12.0.6 {ref}",
        f"load {ref}",
    ]


def test_the_offline_cluster_takes_no_image_of_a_registry(cluster: Cluster) -> None:
    offline = replace(cluster, provider="offline")
    with pytest.raises(ClusterError, match=r"COPPICE_TERMINUSDB_IMAGE=terminusdb/\S+: .* use kind"):
        images.ensure("terminusdb-double", offline, from_environment(REAL))


def test_a_cluster_of_somebody_else_says_how_to_load(cluster: Cluster) -> None:
    other = replace(cluster, provider="existing")
    with pytest.raises(ClusterError, match="COPPICE_E2E_LOAD_IMAGE"):
        other.load_image(REF)
