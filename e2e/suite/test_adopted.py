"""A database that somebody else runs: cloned while it works, and never touched. The example, as its owners apply it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite.data import Clone, Login, Store, ask_clones, sql
from e2e.suite.manifests import data_grant, data_snapshot, example
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

SOURCE = (
    ("statefulset", "till"),
    ("pod", "till-0"),
    ("pvc", "data-till-0"),
    ("service", "till"),
    ("secret", "till-coppice"),
)
OWNER = Login("owner", "change-me-too", "till")
TOTALS = "SELECT COUNT(*) AS receipts, CAST(SUM(total) AS SIGNED) AS total FROM receipt"
USER = 10001


@pytest.fixture(scope="module")
def till(kube: Kube, store: Store) -> Iterator[Store]:
    """A store that adopts the example's server, which runs with the cluster's image of the engine."""
    ours = kube.get("pod", f"{store.name}-server", store.namespace)
    assert ours is not None
    namespace = kube.new_namespace("till")
    manifests = example("adopted/dolt.yaml", namespace, store="till", owners=namespace)
    for manifest in manifests:
        if manifest["kind"] == "StatefulSet":
            [container] = manifest["spec"]["template"]["spec"]["containers"]
            container["image"] = ours["spec"]["containers"][0]["image"]
    kube.apply(*manifests)
    kube.ready(namespace, "dstore/till")
    yield Store(kube, namespace, "till")
    kube.delete_namespace(namespace, wait=False)


def ask(store: Store, statements: str) -> list[dict[str, Any]]:
    """Ask the source as its owners do."""
    pod = store.kube.get("pod", "till-0", store.namespace)
    assert pod is not None
    return sql(store.kube, pod, statements, OWNER)


def hands_on(store: Store) -> dict[str, list[str]]:
    """Return what Coppice has its hands on among the source's objects, by field managers, owners and marks."""
    found: dict[str, list[str]] = {}
    for kind, name in SOURCE:
        marks = _marks(
            json.loads(store.kube.run("get", kind, name, "-n", store.namespace, "-o", "json", "--show-managed-fields"))
        )
        if marks:
            found[f"{kind}/{name}"] = marks
    return found


def _marks(one: Manifest) -> list[str]:
    metadata = one["metadata"]
    managers = [entry["manager"] for entry in metadata.get("managedFields", ())]
    owners = [entry["apiVersion"] for entry in metadata.get("ownerReferences", ())]
    labels = [*metadata.get("labels", {}), *metadata.get("finalizers", ())]
    return [word for word in (*managers, *owners, *labels) if "coppice" in word]


def test_a_database_that_somebody_else_runs_is_ready_as_it_is(till: Store) -> None:
    status = till.status
    assert status["source"] == {"pod": "till-0", "port": 3306, "userID": USER, "offeredVersion": "1.83"}
    assert status["version"].startswith("1.83.")
    assert status["databases"] == ["till"]
    assert till.kube.owned_by(till.kube.get("dstore", "till", till.namespace)["metadata"]["uid"]) == []  # type: ignore[index]
    assert hands_on(till) == {}


def test_clones_in_another_namespace_hold_what_it_held_and_change_nothing_of_it(till: Store, namespace: str) -> None:
    kube = till.kube
    kube.apply(data_grant("previews", till.namespace, store="till", to=[namespace]))
    ask(till, "INSERT INTO receipt VALUES (4, 31); CALL dolt_commit('-A', '-m', 'fourth')")
    ask(till, "INSERT INTO receipt VALUES (5, 1000)")
    held = ask(till, TOTALS)
    clone = Clone(kube, namespace).apply(till).ready()
    assert ask_clones(kube, namespace, TOTALS) == {"db": held}
    ask_clones(kube, namespace, "DELETE FROM receipt; CALL dolt_commit('-A', '-m', 'none')")
    assert ask(till, TOTALS) == held
    [pod] = kube.items("pods", "-n", namespace, "-l", f"coppice.dev/owner-uid={clone.uid}")
    assert pod["spec"]["securityContext"]["runAsUser"] == USER
    assert hands_on(till) == {}


def test_losing_its_pod_and_its_store_loses_neither_data_nor_clones(till: Store, namespace: str) -> None:
    kube = till.kube
    kube.apply(data_grant("later", till.namespace, store="till", to=[namespace]))
    kube.apply(data_snapshot("kept", till.namespace, store="till"))
    kube.ready(till.namespace, "dsnap/kept")
    held = ask(till, TOTALS)
    kube.run("scale", "-n", till.namespace, "statefulset/till", "--replicas=0")
    kube.until_reason("SourceDown", "dstore", "till", till.namespace)
    Clone(kube, namespace).apply(till, source={"snapshot": "kept"}).ready()
    assert ask_clones(kube, namespace, TOTALS) == {"db": held}
    kube.run("scale", "-n", till.namespace, "statefulset/till", "--replicas=1")
    kube.ready(till.namespace, "dstore/till")
    assert hands_on(till) == {}

    kube.run("delete", "-n", till.namespace, "dstore/till")
    eventually(lambda: kube.get("dstore", "till", till.namespace) is None, "the store is gone")
    assert hands_on(till) == {}
    assert ask(till, TOTALS) == held
    assert ask_clones(kube, namespace, TOTALS) == {"db": held}
