"""Upgrades and removal of the chart while people work with their clones."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from e2e import leftovers
from e2e.harness import shell
from e2e.suite.data import ITEMS, Clone, Store
from e2e.suite.helm import CHART, Helm
from e2e.suite.kube import OPERATOR
from e2e.suite.manifests import data_grant
from e2e.suite.pool import Pool
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

pytestmark = pytest.mark.alone
ROOT = Path(__file__).parents[2]
REMOVAL_GUIDE = ROOT / "docs" / "removal.md"
REVIEWED = ("datachangerequests", "datareviews")
KINDS = (*REVIEWED, "databranches", "dataclones", "datagrants", "datasnapshots", "datastores")
DEFINITIONS = {f"customresourcedefinition.apiextensions.k8s.io/{kind}.coppice.dev" for kind in KINDS}
POLICIES = {
    f"{kind}.admissionregistration.k8s.io/{name}.coppice.dev"
    for kind in ("validatingadmissionpolicy", "validatingadmissionpolicybinding")
    for name in REVIEWED
}
KEPT = DEFINITIONS | POLICIES | {"lease.coordination.k8s.io/coppice-operator"}
GONE_BEFORE = {"validatingadmissionpolicybinding.admissionregistration.k8s.io/datareviews.coppice.dev"}
"""What the guide to removal deletes itself."""
OF_KUBERNETES = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
EVERYWHERE = {"-A", "--all-namespaces"}
COUNT = "SELECT COUNT(*) AS items FROM item"
OURS = "coppice.dev/installed-by"
CONTROLLER = "name: coppice-snapshot-controller"
EARLIER = "2f6b71496904"
NEW_FIELD = "jobTemplate"
"""What came after it: stores that a Job fills, for which the operator's role had to grow as well."""


@pytest.fixture
def clone(kube: Kube, store: Store, tenant: str) -> Clone:
    """A clone that somebody has written to."""
    clone = Clone(kube, tenant).apply(store).ready()
    clone.sql("INSERT IGNORE INTO item VALUES (99, 'mine', 1)")
    return clone


def identities(kube: Kube, store: Store, clone: Clone) -> dict[str, Any]:
    """Return what must not change: the servers' Pods, by UID and number of restarts, and what apps are told."""
    server = kube.get("pod", f"{store.name}-server", store.namespace)
    assert server is not None
    servers = [
        (pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in (server, clone.pod)
    ]
    return {"servers": servers, "binding": clone.binding, "copy": clone.status["copy"]}


@pytest.fixture
def older_chart(tmp_path: Path) -> Path:
    """The chart as it was before a grant's status counted clones and its bounds were compared."""
    chart = tmp_path / "coppice"
    shutil.copytree(CHART, chart)
    file = chart / "files" / "crds" / "datagrants.yaml"
    definition = yaml.safe_load(file.read_text(encoding="utf-8"))
    spec, status = grant_properties(definition)
    del spec["maxClones"]["x-kubernetes-validations"], status["clones"]
    file.write_text(yaml.safe_dump(definition), encoding="utf-8")
    return chart


def grant_properties(definition: Manifest) -> tuple[Manifest, Manifest]:
    """Return the schemas of the specification's and the status's fields in the definition of DataGrants."""
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return schema["spec"]["properties"], schema["status"]["properties"]


def test_an_upgrade_leaves_servers_alone_and_brings_the_definitions(
    kube: Kube, store: Store, tenant: str, clone: Clone, helm: Helm, older_chart: Path
) -> None:
    def lax(name: str) -> Manifest:
        bounds = {"perNamespace": 2, "total": 1}
        return data_grant(name, store.namespace, store=store.name, to=["nowhere"], maxClones=bounds)

    before, values = identities(kube, store, clone), helm.values()
    helm.upgrade(values, chart=older_chart)
    kube.apply(lax("lax"))
    kept = kube.get("dgrant", "lax", store.namespace)

    helm.upgrade(values, "--set=operator.workers=4", "--set-string=operator.podAnnotations.upgraded=yes")
    kube.run("rollout", "status", *OPERATOR, "deployment/coppice", "--timeout=120s")
    definition = kube.get("crd", "datagrants.coppice.dev")
    assert kept is not None
    assert definition is not None
    assert "clones" in grant_properties(definition)[1]
    assert "perNamespace cannot be more than total" in kube.refused(lax("another"))
    found = kube.get("dgrant", "lax", store.namespace)
    assert found is not None
    assert found["spec"] == kept["spec"], "what the older definition let in can be read"

    other = Clone(kube, tenant, "after").apply(store).ready()
    assert other.sql(COUNT) == [{"items": 3}]
    assert clone.reason == "Ready"
    assert identities(kube, store, clone) == before
    other.delete()
    kube.run("delete", "-n", store.namespace, "dgrant/lax")


def install(checkout: Path) -> None:
    """Do what `make cluster-up` does in a checkout."""
    shell.run([sys.executable, "-m", "e2e.install"], cwd=checkout)


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[None]:
    """Coppice as it was at an earlier commit, its image too; in the end that of this checkout."""
    git = ("git", "-C", str(ROOT))
    if not shell.succeeds([*git, "cat-file", "-e", f"{EARLIER}^{{commit}}"]):
        pytest.skip(f"this checkout has no commit {EARLIER} to upgrade from: its history is cut off")
    archive, checkout = tmp_path / "archive.tar", tmp_path / "checkout"
    shell.run([*git, "archive", f"--output={archive}", EARLIER])
    with tarfile.open(archive) as files:
        files.extractall(checkout, filter="data")
    try:
        install(checkout)
        yield
    finally:
        install(ROOT)


@pytest.mark.usefixtures("earlier")
def test_an_upgrade_from_an_earlier_version_keeps_what_that_has_made(kube: Kube, tenant: str, namespace: str) -> None:
    assert NEW_FIELD not in kube.run("get", "crd", "datastores.coppice.dev", "-o", "yaml")
    store = Store(kube, namespace, "old").create()
    store.commit(ITEMS, "three items")
    kube.apply(data_grant("previews", namespace, store=store.name, to=[tenant]))
    clone = Clone(kube, tenant, "old").apply(store).ready()
    clone.sql("INSERT INTO item VALUES (99, 'mine', 1)")
    before, snapshot = identities(kube, store, clone), clone.status["snapshot"]["name"]

    install(ROOT)
    assert NEW_FIELD in kube.run("get", "crd", "datastores.coppice.dev", "-o", "yaml")
    Clone(kube, tenant, "same").apply(store, source={"snapshot": snapshot}).ready()
    kube.ready(namespace, "dstore/old", f"dsnap/{snapshot}", "dgrant/previews")
    clone.ready()
    assert clone.sql(COUNT) == [{"items": 4}]
    assert store.sql(COUNT) == [{"items": 3}]
    assert identities(kube, store, clone) == before
    clone.request("reset")
    eventually(lambda: clone.status["copy"] == "2" and clone.reason == "Ready", "an old clone can be reset")
    assert clone.sql(COUNT) == [{"items": 3}]


def test_a_cluster_with_a_snapshot_api_of_its_own_gets_no_second_controller(kube: Kube) -> None:
    helm, definition = Helm(kube), ("crd", "volumesnapshots.snapshot.storage.k8s.io")
    found = kube.get(*definition)
    if found is None or found["metadata"]["annotations"].get(OURS) != "chart":
        pytest.skip("this cluster's snapshot API is not from the chart")
    values = helm.values()
    assert CONTROLLER in helm.rendered(values)
    kube.run("annotate", *definition, f"{OURS}-")
    try:
        assert CONTROLLER not in helm.rendered(values)
    finally:
        kube.run("annotate", *definition, f"{OURS}=chart")


def of_the_release(kube: Kube) -> set[str]:
    """Return by name everything that carries the release's label, and all in its namespace that is not Kubernetes'."""

    def names(kinds: str, *words: str) -> set[str]:
        listed = kube.run("api-resources", "--verbs=list", f"--namespaced={kinds}", "-o", "name").split()
        return set(kube.run("get", ",".join(listed), *words, "-o", "name").split())

    label = ("-l", "app.kubernetes.io/instance=coppice")
    labelled = names("false", *label) | names("true", "-A", *label)
    here = names("true", *OPERATOR)
    return labelled | {name for name in here if name not in OF_KUBERNETES and not name.startswith("event")}


def test_what_is_there_outlives_an_uninstallation(
    kube: Kube, store: Store, tenant: str, clone: Clone, helm: Helm
) -> None:
    before, values = identities(kube, store, clone), helm.values()
    helm.uninstall()
    eventually(lambda: of_the_release(kube) == KEPT, "what is left of the release is what the guide says")
    assert clone.sql(COUNT) == [{"items": 4}]
    assert store.sql(COUNT) == [{"items": 3}]
    assert identities(kube, store, clone) == before

    helm.upgrade(values)
    other = Clone(kube, tenant, "after").apply(store).ready()
    assert other.sql(COUNT) == [{"items": 3}]
    eventually(lambda: clone.reason == "Ready", "the clone is well")
    assert identities(kube, store, clone) == before
    uid = clone.uid
    clone.delete()
    eventually(lambda: not kube.owned_by(uid), "and it goes when it is told to")


def documented_removal() -> list[list[str]]:
    """Return the commands by which the guide removes everything, in words."""
    guide = REMOVAL_GUIDE.read_text(encoding="utf-8")
    block = re.search(r"^## All of it\n.*?```sh\n(.*?)```", guide, re.DOTALL | re.MULTILINE)
    assert block is not None
    return [shlex.split(line, comments=True) for line in block.group(1).splitlines()]


def test_removed_in_the_documented_order_nothing_is_left(
    kube: Kube, store: Store, tenant: str, clone: Clone, helm: Helm
) -> None:
    """In this story's namespaces, where the guide means all."""
    del clone
    pool = Pool.of(kube)
    namespaces = (tenant, store.namespace)
    *commands, look, uninstall = documented_removal()

    def in_namespace(words: list[str], namespace: str) -> str:
        return kube.run(*(f"--namespace={namespace}" if word in EVERYWHERE else word for word in words[1:]))

    def left() -> set[str]:
        return {name for namespace in namespaces for name in in_namespace([*look, "-o", "name"], namespace).split()}

    for command in commands:
        for namespace in namespaces if EVERYWHERE & set(command) else namespaces[:1]:
            in_namespace(command, namespace)
    kept = {f"persistentvolumeclaim/{store.name}-data", f"secret/{store.name}-admin"}
    eventually(lambda: left() == kept, "what is left is what a store with Retain keeps")
    kube.run("delete", "-n", store.namespace, *kept)
    eventually(lambda: not leftovers.outside(kube.cluster, *namespaces), "the storage has nothing of it either")
    eventually(lambda: pool.subvolumes() == pool.handles(), "the pool holds what the cluster knows, and no more")

    assert uninstall == ["helm", "uninstall", "coppice", "--namespace", "coppice-system"]
    helm.uninstall()
    eventually(lambda: of_the_release(kube) == KEPT - GONE_BEFORE, "what is left of the release is what the guide says")
