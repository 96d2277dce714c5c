"""People carry changes on with the `coppice` command alone, each known to the API server by a certificate of their own:
proposed, decided, looked at row by row, approved and taken back; a clone is rebased, a deleted branch comes back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from e2e.suite.change import AUTHOR, REVIEWER, Person, Request
from e2e.suite.data import Clone
from e2e.suite.editor import Editor
from e2e.suite.kube import TIMEOUT
from e2e.suite.manifests import data_grant, resource
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from e2e.suite.data import Store
    from e2e.suite.kube import Kube

OWNER = "olga@example.com"
ROLES = {AUTHOR: "coppice-author", REVIEWER: "coppice-reviewer", OWNER: "coppice-store-admin"}
PRICES = "SELECT id, price FROM item ORDER BY id"


@pytest.fixture(scope="module")
def store(kube: Kube, store: Store) -> Store:
    """The module's store, with a protected branch ``main`` and people who have to do with it."""
    kube.patch("dstore", store.name, store.namespace, {"spec": {"protection": [{"branches": ["main"]}]}})
    kube.run("wait", "-n", store.namespace, "--for=condition=BranchesProtected", f"dstore/{store.name}", TIMEOUT)
    for person, role in ROLES.items():
        kube.run("create", "rolebinding", role, "-n", store.namespace, f"--clusterrole={role}", f"--user={person}")
    return store


@pytest.fixture(scope="module")
def tenant(kube: Kube, store: Store, tenant: str) -> str:
    """A namespace that may also propose what it changed."""
    kube.apply(data_grant("previews", store.namespace, store=store.name, to=[tenant], verbs=["Clone", "Propose"]))
    kube.run("create", "rolebinding", "ann", "-n", tenant, "--clusterrole=edit", f"--user={AUTHOR}")
    return tenant


@pytest.fixture(scope="module")
def person(kube: Kube, store: Store, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Editor]:
    """Whoever is named, at work beside the store."""

    def known(name: str) -> Editor:
        return Editor.named(kube, Person(kube, name), store.namespace, tmp_path_factory.mktemp("person"))

    return known


@pytest.fixture(scope="module")
def ann(person: Callable[[str], Editor]) -> Editor:
    """The author."""
    return person(AUTHOR)


@pytest.fixture(scope="module")
def bea(person: Callable[[str], Editor]) -> Editor:
    """The reviewer."""
    return person(REVIEWER)


def let_look(kube: Kube, namespace: str, preview: str, person: str) -> None:
    """Let somebody see the rows of a preview and nothing else, as the documentation has it."""
    names = ("create", "role", preview, "-n", namespace)
    kube.run(*names, "--verb=get", "--resource=secrets", f"--resource-name={preview}-binding")
    role = kube.get("role", preview, namespace)
    assert role is not None
    further = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
        {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
    ]
    kube.patch("role", preview, namespace, {"rules": role["rules"] + further})
    kube.run("create", "rolebinding", preview, "-n", namespace, f"--role={preview}", f"--user={person}")


def test_a_conflict_is_decided_looked_at_approved_and_taken_back(
    kube: Kube, store: Store, tenant: str, ann: Editor, bea: Editor
) -> None:
    clone = Clone(kube, tenant, "db").apply(store).ready()
    clone.sql("UPDATE item SET price = 21 WHERE id = 2; INSERT INTO item VALUES (4, 'quince', 40)")
    store.commit("UPDATE item SET price = 22 WHERE id = 2", "meanwhile")

    source = ("--from", f"{tenant}/db", "--into", "main")
    ann.run("propose", *source, "--title", "Autumn fruit", "--name", "autumn")
    request = Request(kube, store, "autumn")
    request.until_reason("Mergeable", "Conflicts")
    [conflict] = request.status["conflicts"]["listed"]
    assert conflict["id"] in ann.run("resolve", "autumn").stdout
    ann.run("resolve", "autumn", "--conflict", conflict["id"], "--take", "source")

    eventually(lambda: request.status.get("preview", {}).get("ready"), "the preview shows the change")
    bea.run("diff", "request/autumn", "--rows", code=1)
    let_look(kube, store.namespace, request.status["preview"]["clone"], REVIEWER)
    shown = bea.run("diff", "request/autumn", "--rows", "--output", "json").stdout.splitlines()
    rows = {row["key"]["id"]: (row["before"], row["after"]) for row in map(json.loads, shown)}
    assert [rows[2][side]["price"] for side in (0, 1)] == [22, 21]
    assert (rows[4][0], rows[4][1]["name"]) == (None, "quince")

    assert "your own" in ann.run("review", "autumn", "--approve", "--yes", code=1).stderr
    bea.run("review", "autumn", "--approve", "--yes")
    request.until("Published")
    assert store.sql(PRICES)[1]["price"] == 21

    ann.run("revert", "autumn", "--name", "no-autumn")
    back = Request(kube, store, "no-autumn")
    back.until("ChecksPassed")
    bea.run("review", "no-autumn", "--approve", "--yes")
    back.until("Published")
    assert [row["price"] for row in store.sql(PRICES)] == [10, 22, 30]


def test_a_clone_is_brought_up_to_its_branch_and_keeps_its_own(
    kube: Kube, store: Store, tenant: str, ann: Editor
) -> None:
    clone = Clone(kube, tenant, "late").apply(store).ready()
    clone.sql("INSERT INTO item VALUES (5, 'mine', 50)")
    store.commit("UPDATE item SET price = 11 WHERE id = 1", "what the clone lacks")
    ann.run("rebase", f"clone/{tenant}/late", "--name", "late")
    Request(kube, store, "late").until("Published")
    assert [(row["id"], row["price"]) for row in clone.sql(PRICES)] == [(1, 11), (2, 22), (3, 30), (5, 50)]
    assert len(store.sql(PRICES)) == 3
    assert clone.sql("SELECT COUNT(*) AS open FROM dolt_status") == [{"open": 0}]


def test_a_branch_that_was_deleted_by_mistake_comes_back(
    kube: Kube, store: Store, person: Callable[[str], Editor]
) -> None:
    olga = person(OWNER)
    spec = {"store": {"name": store.name}, "branchName": "work", "from": {"branch": "main"}, "deletionPolicy": "Delete"}
    kube.apply(resource("DataBranch", "work", store.namespace, spec))
    kube.ready(store.namespace, "dbranch/work")
    store.sql("CALL dolt_checkout('work'); INSERT INTO item VALUES (9, 'work', 1); CALL dolt_commit('-Am', 'work')")
    kube.run("delete", "dbranch", "work", "-n", store.namespace, "--wait", TIMEOUT)
    assert store.sql("SELECT name FROM dolt_branches WHERE name = 'work'") == []

    def kept() -> list[str]:
        return [entry["branch"] for entry in olga.json("branch", "restore", "--from", store.name)["deletedBranches"]]

    eventually(lambda: kept() == ["work"], "it is listed")
    olga.run("branch", "restore", "work", "--from", store.name)
    assert store.sql("SELECT name FROM item AS OF 'work' WHERE id = 9") == [{"name": "work"}]
