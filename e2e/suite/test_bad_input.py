"""Mistakes: a condition and one Event say what is wrong and what to do, and putting it right is enough."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite.data import Clone, Store
from e2e.suite.manifests import Manifest, data_clone, data_grant, data_snapshot, data_store
from e2e.suite.marks import rarely
from e2e.suite.pool import Pool
from e2e.waiting import eventually, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube


@dataclass(frozen=True, slots=True)
class Mistake:
    """A clone that cannot be had: what is wrong with it, and what the clone says of that."""

    reason: str
    words: tuple[str, ...]
    store: str = "shop"
    spec: Manifest = field(default_factory=dict)


MISTAKES = {
    "no-store": Mistake("StoreNotFound", ("DataStore nowhere", "create it"), store="nowhere"),
    "no-branch": Mistake("UnknownVersion", ("no-branch", "spec.from"), spec={"source": {"branch": "no-branch"}}),
    "no-tag": Mistake("UnknownVersion", ("no-tag", "spec.from"), spec={"source": {"tag": "no-tag"}}),
    "no-commit": Mistake("UnknownVersion", ("abcdefgh", "spec.from"), spec={"source": {"commit": "abcdefgh" * 4}}),
    "no-time": Mistake("UnknownVersion", ("2001", "spec.from"), spec={"source": {"time": "2001-01-01T00:00:00Z"}}),
    "no-snapshot": Mistake("SnapshotNotFound", ("no-snapshot", "name"), spec={"source": {"snapshot": "no-snapshot"}}),
    "no-profile": Mistake("UnknownProfile", ("gigantic", "there are: default"), spec={"profile": "gigantic"}),
}
RIGHTED = [name for name in MISTAKES if name not in {"no-commit", "no-time"}]


@pytest.fixture(scope="module")
def mistakes(kube: Kube, store: Store) -> None:
    """All these clones, in the store's own namespace."""
    kube.apply(
        *(data_clone(name, store.namespace, store=made.store, **made.spec) for name, made in MISTAKES.items()),
    )


@pytest.mark.usefixtures("mistakes")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_with_what_to_do(kube: Kube, store: Store, name: str) -> None:
    made = MISTAKES[name]
    said = kube.until_reason(made.reason, "dclone", name, store.namespace)
    assert said["status"] == "False"
    assert all(word in said["message"] for word in made.words), said["message"]
    assert kube.condition("dclone", name, store.namespace, "Stalled")["status"] == "True"
    told = [event for event in kube.events("DataClone", name, store.namespace) if event["reason"] == made.reason]
    assert len(told) == 1
    assert told[0]["type"] == "Warning"
    assert made.words[0] in told[0]["message"]


@pytest.mark.alone
@pytest.mark.usefixtures("mistakes")
def test_mistakes_cost_next_to_nothing_while_they_stand(kube: Kube, store: Store) -> None:
    for name, made in MISTAKES.items():
        kube.until_reason(made.reason, "dclone", name, store.namespace)

    def looks() -> int:
        found = re.findall(r'^coppice_reconciles_total{kind="DataClone".*} (\S+)$', kube.metrics(), re.MULTILINE)
        return int(sum(map(float, found)))

    before = looks()
    hold(seconds=10)
    assert looks() - before < 10 * len(MISTAKES), "the operator is in a hot loop"


@pytest.mark.usefixtures("mistakes")
def test_putting_it_right_is_enough(kube: Kube, store: Store) -> None:
    Store(kube, store.namespace, "nowhere").create()
    store.sql("CALL dolt_branch('no-branch'); CALL dolt_tag('no-tag')")
    kube.apply(data_snapshot("no-snapshot", store.namespace, store=store.name))
    kube.patch("dstore", store.name, store.namespace, {"spec": {"clones": {"profiles": {"gigantic": {"cpu": "30m"}}}}})
    kube.ready(store.namespace, *(f"dclone/{name}" for name in RIGHTED))
    kube.run("delete", "-n", store.namespace, *(f"dclone/{name}" for name in MISTAKES))


def test_a_grant_that_comes_later_is_enough(kube: Kube, store: Store, namespace: str) -> None:
    clone = Clone(kube, namespace).apply(store)
    said = kube.until_reason("NotGranted", "dclone", clone.name, namespace)
    assert namespace in said["message"]
    kube.apply(data_grant("later", store.namespace, store=store.name, to=[namespace]))
    clone.ready()


def test_a_class_that_cannot_snapshot_is_told_before_anybody_waits(kube: Kube, namespace: str) -> None:
    made = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "coppice-e2e-plain"},
        "provisioner": "kubernetes.io/no-provisioner",
    }
    kube.apply(made)
    storage = {"size": "1Gi", "storageClassName": "coppice-e2e-plain"}
    kube.apply(data_store("plain", namespace, managed={"storage": storage}))
    said = kube.until_reason("StorageCannotSnapshot", "dstore", "plain", namespace)
    assert "coppice-e2e-plain" in said["message"]
    assert kube.items("pvc,pods,secrets", "-n", namespace) == []
    told = [event for event in kube.events("DataStore", "plain", namespace) if event["reason"] == said["reason"]]
    assert len(told) == 1

    clone = Clone(kube, namespace, "waiting").apply(Store(kube, namespace, "plain"))
    assert "plain" in kube.until_reason("StoreNotReady", "dclone", clone.name, namespace)["message"]

    kube.run("delete", "-n", namespace, "dstore/plain", "--wait")
    kube.run("delete", "storageclass", "coppice-e2e-plain")
    Store(kube, namespace, "plain").create()
    clone.ready()


def test_what_is_impossible_is_refused_at_once(kube: Kube, store: Store) -> None:
    def clone(name: str, **spec: Any) -> Manifest:
        return data_clone(name, store.namespace, store=store.name, **spec)

    assert "at most 40 characters" in kube.refused(clone("a" * 41))
    assert "start with a letter" in kube.refused(clone("1st"))
    assert "idle cannot be longer than max" in kube.refused(clone("db", lease={"idle": "3d", "max": "2h"}))
    assert "lease.max" in kube.refused(clone("db", lease={"max": "soon"}))
    assert "exactly one" in kube.refused(clone("db", source={"branch": "main", "tag": "v1"})).lower()


def test_a_clone_made_again_at_once_under_its_name_is_another(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "again").apply(store).ready()
    old, told = clone.uid, clone.binding
    clone.sql("INSERT INTO item VALUES (99, 'mine', 1)")
    # --force deletes the object and makes it again as soon as it is gone, while its children are still there.
    manifest = data_clone(clone.name, tenant, store=store.name, owners=store.namespace)
    kube.run("replace", "--force", "-f", "-", stdin=kube.yaml(manifest))
    clone.ready()
    assert clone.uid != old
    assert clone.sql("SELECT COUNT(*) AS mine FROM item WHERE id = 99") == [{"mine": 0}]
    assert clone.binding["password"] != told["password"]
    eventually(lambda: kube.owned_by(old) == [], "nothing is left of the first one")


def test_a_binding_edited_or_deleted_by_hand_is_put_right(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "edited").apply(store).ready()
    told, name = clone.binding, f"{clone.name}-binding"
    kube.patch("secret", name, tenant, {"stringData": {"password": "wrong", "host": "elsewhere"}})
    eventually(lambda: clone.binding == told, "the Secret is as it was")
    kube.run("delete", "-n", tenant, f"secret/{name}")
    eventually(lambda: kube.get("secret", name, tenant), "the Secret is there again")
    assert clone.binding == told
    clone.ready()
    assert clone.sql("SELECT 1 AS one") == [{"one": 1}]


def test_a_snapshot_deleted_while_it_is_used_harms_no_clone(kube: Kube, store: Store, tenant: str) -> None:
    first = Clone(kube, tenant, "first").apply(store).ready()
    kube.run("delete", "-n", store.namespace, "dsnap", "--all")
    second = Clone(kube, tenant, "second").apply(store).ready()
    assert first.sql("SELECT 1 AS one") == second.sql("SELECT 1 AS one")
    assert first.reason == "Ready"
    kept = second.status["snapshot"]["name"]

    kube.run("delete", "-n", store.namespace, f"volumesnapshot/{kept}")
    said = kube.until_reason("SnapshotLost", "dsnap", kept, store.namespace)
    assert kept in said["message"]
    assert second.reason == "Ready"
    Clone(kube, tenant, "third").apply(store).ready()


@pytest.fixture
def pool(kube: Kube) -> Iterator[Pool]:
    """The pool, which has room again in the end."""
    pool = Pool.of(kube)
    yield pool
    pool.make_room()


@rarely
@pytest.mark.alone
def test_a_full_pool_is_told_and_room_is_enough(kube: Kube, store: Store, tenant: str, pool: Pool) -> None:
    kube.apply(data_snapshot("before", store.namespace, store=store.name))
    kube.ready(store.namespace, "dsnap/before")
    pool.fill()

    clone = Clone(kube, tenant, "crowded").apply(store, source={"snapshot": "before"})
    kube.apply(data_snapshot("crowded", store.namespace, store=store.name), data_store("crowded", store.namespace))
    crowded = {
        ("dclone", "DataClone", clone.name, tenant): "ProvisioningFailed",
        ("dsnap", "DataSnapshot", "crowded", store.namespace): "CaptureRefused",
        ("dstore", "DataStore", "crowded", store.namespace): "ProvisioningFailed",
    }
    for (short, kind, name, namespace), reason in crowded.items():
        said = kube.until_reason(reason, short, name, namespace)
        assert "no room" in said["message"]
        assert "delete clones and snapshots" in said["message"]
        assert kube.condition(short, name, namespace, "Stalled")["status"] == "True"
        told = [event for event in kube.events(kind, name, namespace) if event["type"] == "Warning"]
        assert [event["reason"] for event in told] == [reason]
        assert "no room" in told[0]["message"]

    pool.make_room()
    clone.ready()
    kube.ready(store.namespace, "dsnap/crowded", "dstore/crowded")
