"""The chart as helm renders it. ``UPDATE_GOLDEN=1`` rewrites the expected output, to be read in the diff."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from helm import generate

from coppice.forges.settings import read_forges
from coppice.manifests.admission import BINDING, POLICY, build_policies

CHART = generate.CHART
GOLDEN = Path(__file__).parent / "golden"
SNAPSHOT_API = "snapshot.storage.k8s.io/v1"
MONITORING_API = "monitoring.coreos.com/v1"

Helm = Callable[..., str]
Render = Callable[..., list[dict[str, Any]]]
Manifest = dict[str, Any]


def named(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}


def identity(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {name: item["spec"]["template"]["spec"] for name, item in named(manifests, "Deployment").items()}


def without_crds(manifests: list[Manifest]) -> str:
    kept = [manifest for manifest in manifests if manifest["kind"] != "CustomResourceDefinition"]
    return yaml.safe_dump_all(kept, sort_keys=False, width=120)


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("values", ["values-dev", "values-full", "values-minimal"])
def test_lint(helm: Helm, values: str):
    # --strict: warnings count; "icon is recommended" is only information
    helm("lint", "--strict", "--kube-version=1.35.0", f"--values={CHART / 'ci' / values}.yaml", str(CHART))


@pytest.mark.parametrize("values", [None, "values-dev", "values-full", "values-minimal"])
def test_rendered_objects_are_as_expected(render: Render, values: str | None):
    rendered = without_crds(render("--skip-crds", values=values, apis=(MONITORING_API,)))
    path = GOLDEN / f"{values or 'default'}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(rendered)
    assert rendered == path.read_text()


def test_an_unknown_value_is_refused_by_name(helm: Helm):
    message = helm("template", "coppice", str(CHART), "--kube-version=1.35.0", "--set=operator.replica=2", fails=True)
    assert "replica" in message


def test_a_cluster_too_old_is_refused(helm: Helm):
    assert "kubeVersion" in helm("template", "coppice", str(CHART), "--kube-version=1.30.9", fails=True)


@pytest.mark.parametrize("keep", [True, False])
def test_the_crds_are_those_of_the_project(render: Render, *, keep: bool):
    rendered = named(render("--skip-crds", f"--set=crds.keep={str(keep).lower()}"), "CustomResourceDefinition")
    sources = [yaml.safe_load(path.read_text()) for path in generate.CRDS.glob("*.yaml")]
    assert rendered.keys() == {source["metadata"]["name"] for source in sources}
    for source in sources:
        crd = rendered[source["metadata"]["name"]]
        assert crd["spec"] == source["spec"]
        assert crd["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == ("keep" if keep else None)


@pytest.mark.parametrize(
    ("install", "apis", "expected"),
    [
        ("auto", [], True),
        ("auto", [SNAPSHOT_API], False),
        ("true", [SNAPSHOT_API], True),
        ("false", [], False),
    ],
)
def test_the_snapshot_controller_comes_where_there_is_none(
    render: Render, install: str, apis: list[str], *, expected: bool
):
    rendered = render(f"--set=snapshotController.install={install}", apis=apis)
    assert ("coppice-snapshot-controller" in named(rendered, "Deployment")) == expected


def test_a_service_monitor_needs_its_api(render: Render):
    assert named(render(values="values-full", apis=[MONITORING_API]), "ServiceMonitor")
    assert not named(render(values="values-full"), "ServiceMonitor")


def test_two_replicas_get_a_disruption_budget(render: Render):
    assert not named(render(), "PodDisruptionBudget")
    assert named(render("--set=operator.replicas=2"), "PodDisruptionBudget")


def test_all_but_the_driver_fit_pod_security_restricted(render: Render):
    specs = pods(render("--set=local.enabled=true"))
    assert specs.keys() == {"coppice", "coppice-local", "coppice-snapshot-controller"}
    for name in ("coppice", "coppice-snapshot-controller"):
        pod = specs[name]["securityContext"]
        assert pod["runAsNonRoot"] is True
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all("emptyDir" in volume for volume in specs[name].get("volumes", []))
        for container in specs[name]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }


def test_tokens_of_forges_are_files_and_their_absence_stops_nothing(render: Render):
    deployment = named(render(values="values-full"), "Deployment")["coppice"]["spec"]["template"]["spec"]
    [operator] = deployment["containers"]
    value = next(entry["value"] for entry in operator["env"] if entry["name"] == "COPPICE_FORGES")
    forges = read_forges(value)
    assert [(forge.host, str(forge.token_file)) for forge in forges] == [
        ("github.com", "/etc/coppice/forges/github.com/token"),
        ("git.example.com", "/etc/coppice/forges/git.example.com/token"),
    ]
    assert (forges[0].interval, forges[1].terms.dry_run) == (timedelta(minutes=2), True)
    sources = {volume["name"]: volume for volume in deployment["volumes"]}["forges"]["projected"]["sources"]
    assert [source["secret"] for source in sources] == [
        {"name": "github", "optional": True, "items": [{"key": "token", "path": "github.com/token"}]},
        {"name": "gitlab", "optional": True, "items": [{"key": "api", "path": "git.example.com/token"}]},
    ]


def test_without_forges_there_is_no_file_of_a_token(render: Render):
    assert [volume["name"] for volume in pods(render())["coppice"]["volumes"]] == ["tmp"]


def test_what_is_privileged_is_alone_in_its_namespace(render: Render):
    rendered = render("--set=local.enabled=true")
    namespace = named(rendered, "Namespace")["coppice-local"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
    privileged = {
        (manifest["metadata"]["namespace"], container["name"])
        for manifest in named(rendered, "Deployment").values()
        for container in manifest["spec"]["template"]["spec"]["containers"]
        if container["securityContext"].get("privileged")
    }
    assert privileged == {("coppice-local", "driver")}


def test_no_role_has_a_wildcard_and_the_driver_sees_no_secret(render: Render):
    rendered = render("--set=local.enabled=true")
    for name, role in {**named(rendered, "ClusterRole"), **named(rendered, "Role")}.items():
        assert not [text for text in strings(role["rules"]) if "*" in text], name
    assert "secrets" not in set(strings(named(rendered, "ClusterRole")["coppice-local"]["rules"]))


def test_the_driver_sets_owners_itself(render: Render):
    # kubelet's chmod for fsGroup would make a PostgreSQL data directory unusable
    driver = named(render("--set=local.enabled=true"), "CSIDriver")["local.csi.coppice.dev"]
    assert driver["spec"]["fsGroupPolicy"] == "None"
    assert driver["spec"]["attachRequired"] is False


@pytest.mark.parametrize(("create", "expected"), [(True, {"coppice-local", "small", "large"}), (False, set())])
def test_whoever_makes_the_class_makes_those_like_it(render: Render, *, create: bool, expected: set[str]):
    rendered = render(f"--set=local.storageClass.create={str(create).lower()}", values="values-full")
    assert named(rendered, "StorageClass").keys() == expected


def test_never_two_drivers_over_one_pool(render: Render):
    driver = named(render("--set=local.enabled=true"), "Deployment")["coppice-local"]["spec"]
    assert (driver["replicas"], driver["strategy"]["type"]) == (1, "Recreate")


def test_fast_raises_every_sidecars_rates_and_stock_leaves_them(render: Render):
    def slow(*, fast: bool) -> set[str]:
        specs = pods(render("--set=local.enabled=true", f"--set=local.fast={str(fast).lower()}"))
        containers = [
            item for name in ("coppice-local", "coppice-snapshot-controller") for item in specs[name]["containers"]
        ]
        return {item["name"] for item in containers if "--kube-api-qps=500" not in item["args"]}

    assert slow(fast=True) == {"driver"}
    assert slow(fast=False) == {"driver", "provisioner", "snapshotter", "resizer", "snapshot-controller"}


def test_pods_do_not_change_with_the_charts_version_alone(render: Render):
    for deployment in named(render("--set=local.enabled=true"), "Deployment").values():
        assert "helm.sh/chart" not in deployment["spec"]["template"]["metadata"]["labels"]


def test_the_admission_policies_are_those_that_the_operator_asks_for(render: Render):
    rendered = [*named(render(), POLICY).values(), *named(render(), BINDING).values()]
    for manifest in rendered:
        assert manifest["metadata"].pop("labels")["app.kubernetes.io/name"] == "coppice"
        assert manifest["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert {identity(one): one for one in rendered} == {identity(one): one for one in build_policies()}
