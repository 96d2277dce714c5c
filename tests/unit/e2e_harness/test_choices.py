"""Which cluster is made, and how it is configured."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from e2e.harness import engine, images, kindconfig, nodeimage, providers, toolchain
from e2e.harness.cluster import Cluster, ClusterError, current
from e2e.harness.providers import Machine, choose
from e2e.harness.settings import Settings, SettingsError, from_environment

BARE = Machine(engine_answers=False, node_image_available=False)
ENGINE_ONLY = Machine(engine_answers=True, node_image_available=False)
DOCKER = Machine(engine_answers=True, node_image_available=True)
NODE = kindconfig.OfflineNode(
    image="localhost/node:1", api_server_address="10.0.0.1", api_server_port=1, coredns_tag="v1", etcd_tag="2-0"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(cache=tmp_path)


def test_provider_follows_what_the_machine_has(settings: Settings) -> None:
    assert choose(settings, DOCKER) == "stock"
    assert choose(settings, ENGINE_ONLY) == "offline"
    assert choose(settings, BARE) == "offline"


def test_provider_asked_for_wins(settings: Settings) -> None:
    given = replace(settings, kubeconfig=Path("/k"))
    assert choose(given, DOCKER) == "existing"
    assert choose(replace(given, provider="offline"), DOCKER) == "offline"
    assert choose(replace(settings, provider="stock"), BARE) == "stock"


def test_environment_is_read_and_checked() -> None:
    read = from_environment({"COPPICE_CACHE": "/c", "COPPICE_E2E_PROVIDER": "", "COPPICE_E2E_PROFILE": "stock"})
    assert (read.cache, read.provider, read.profile) == (Path("/c"), None, "stock")
    assert from_environment({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/coppice")
    with pytest.raises(SettingsError, match="COPPICE_E2E_PROVIDER=minikube: must be one of existing, stock, offline"):
        from_environment({"COPPICE_E2E_PROVIDER": "minikube"})


def patches(rendered: str, kind: str) -> list[Mapping[str, Any]]:
    found = [json.loads(patch) for patch in json.loads(rendered)["kubeadmConfigPatches"]]
    return [patch for patch in found if patch["kind"] == kind]


def test_stock_profile_leaves_every_flag_of_speed_alone() -> None:
    assert json.loads(kindconfig.render(profile="stock"))["kubeadmConfigPatches"] == []
    offline = kindconfig.render(profile="stock", offline=NODE)
    assert "fsync" not in offline
    assert "qps" not in offline
    assert patches(offline, "KubeProxyConfiguration") == []


def test_fast_profile_sets_them() -> None:
    rendered = kindconfig.render(profile="fast", offline=NODE)
    assert patches(rendered, "KubeProxyConfiguration")[0]["iptables"] == {"minSyncPeriod": "50ms"}
    fast = patches(rendered, "ClusterConfiguration")[1]
    assert fast["etcd"]["local"]["extraArgs"] == {"unsafe-no-fsync": "true"}
    assert set(fast["controllerManager"]["extraArgs"]) == {"kube-api-qps", "kube-api-burst"}


def test_home_made_node_gets_what_it_needs() -> None:
    rendered = kindconfig.render(profile="stock", offline=NODE)
    assert json.loads(rendered)["networking"]["disableDefaultCNI"] is True
    assert json.loads(rendered)["nodes"] == [{"role": "control-plane", "image": "localhost/node:1"}]
    assert patches(rendered, "KubeletConfiguration")[0]["failCgroupV1"] is False
    versions = patches(rendered, "ClusterConfiguration")[0]
    assert (versions["dns"]["imageTag"], versions["etcd"]["local"]["imageTag"]) == ("v1", "2-0")


def test_stock_node_uses_the_image_asked_for() -> None:
    assert (
        json.loads(kindconfig.render(profile="stock", image="kindest/node:v1"))["nodes"][0]["image"]
        == "kindest/node:v1"
    )


@pytest.mark.parametrize(("bounding_set", "lacks"), [("000001fffeffffff", True), ("000001ffffffffff", False)])
def test_missing_capability_is_seen(bounding_set: str, *, lacks: bool) -> None:
    assert engine.lacks_capability(int(bounding_set, 16)) is lacks


def test_pause_image_is_the_one_containerd_asks_for() -> None:
    config = (nodeimage.SOURCES / "rootfs/etc/containerd/config.toml").read_text()
    assert nodeimage.pause_image(config).startswith("registry.k8s.io/pause:")
    with pytest.raises(LookupError):
        nodeimage.pause_image("version = 2")


def test_node_has_an_image_for_every_part_of_the_control_plane(tmp_path: Path) -> None:
    folders = dict.fromkeys(("kubernetes", "etcd", "coredns", "pause"), tmp_path)
    made = [image.name for image in nodeimage.control_plane_images(folders, tmp_path / "base.tar")]
    assert {name.rpartition(":")[0].removeprefix("registry.k8s.io/") for name in made} == {
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"),
        *("etcd", "coredns/coredns", "pause"),
    }


def test_a_program_of_the_machine_is_taken_before_one_is_built(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "machine/helm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(toolchain, "build", lambda tool, _: tmp_path / tool.module)
    monkeypatch.setenv("PATH", str(program.parent))
    assert toolchain.installed_or_built("helm", settings) == program
    assert toolchain.installed_or_built("kind", settings) == tmp_path / "kind/kind"


def test_the_driver_is_installed_where_its_class_is_used(cluster: Cluster) -> None:
    assert not cluster.has_local_storage
    assert replace(cluster, storage_class="coppice-local").has_local_storage


def test_image_names_have_a_registry_host() -> None:
    # A name without one would be looked for at docker.io.
    assert all(ref.startswith("localhost/coppice/") and ":" in ref for ref in images.refs().values())
    assert images.refs()["dolt"] == "localhost/coppice/dolt:1.83.2"


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(
        name="c", provider="existing", profile="stock", kubeconfig=tmp_path / "kubeconfig", kubectl=Path("/bin/false"),
        state=tmp_path / "cluster", storage_class="s", snapshot_class="v",
    )  # fmt: skip


def test_cluster_survives_being_written_down(cluster: Cluster) -> None:
    assert Cluster.read(cluster.state) is None
    cluster.write()
    assert Cluster.read(cluster.state) == cluster


def test_no_cluster_says_what_to_do(settings: Settings) -> None:
    with pytest.raises(ClusterError, match="make cluster-up"):
        current(settings)


def test_somebody_elses_cluster_cannot_be_loaded_without_a_command(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match="COPPICE_E2E_LOAD_IMAGE"):
        cluster.load_image("localhost/x:1")


def test_somebody_elses_cluster_is_loaded_by_their_command(cluster: Cluster, tmp_path: Path) -> None:
    loaded = replace(cluster, load_image_command=f"touch {tmp_path}/{{image}}")
    assert loaded.load_image("x:1") is True
    assert (tmp_path / "x:1").exists()


def test_removing_nothing_is_harmless(settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine, "NAMESPACE", f"absent-{tmp_path.name}")
    providers.remove(settings)
    providers.remove(settings)
