"""What changed on a clone comes back: proposed, looked at, approved by somebody else, published as one commit; and is
taken back. Nobody gets round it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.harness.shell import CommandError
from e2e.suite.change import AUTHOR, REVIEWER, Person, Request
from e2e.suite.data import Clone, Store, login_of, sql
from e2e.suite.kube import TIMEOUT
from e2e.suite.manifests import data_grant
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube

OUTSIDER = "eve@example.com"
WORD = "quince7731"
"""A value that stands in rows, and nowhere else."""
PROTECTION = [{"branches": ["main"], "reviewers": {"groups": ["data-owners"]}}]
CHECKS = [{"name": "no-free-fruit", "sql": "SELECT 1 FROM item WHERE price <= 0"}]


@pytest.fixture(scope="module")
def store(kube: Kube, store: Store) -> Store:
    """The module's store, with a protected branch ``main``."""
    protection = [{**PROTECTION[0], "checks": CHECKS}]
    kube.patch("dstore", store.name, store.namespace, {"spec": {"protection": protection}})
    kube.run("wait", "-n", store.namespace, "--for=condition=BranchesProtected", f"dstore/{store.name}", TIMEOUT)
    for role, person in (("author", AUTHOR), ("author", OUTSIDER), ("reviewer", REVIEWER), ("reviewer", AUTHOR)):
        name = f"{role}-{person.partition('@')[0]}"
        binding = ("create", "rolebinding", name, "-n", store.namespace, f"--clusterrole=coppice-{role}")
        kube.run(*binding, f"--user={person}")
    return store


@pytest.fixture(scope="module")
def tenant(kube: Kube, store: Store) -> Iterator[str]:
    """A namespace that may clone the store, and propose what it changed."""
    name = kube.new_namespace("change-requests-preview")
    grant = data_grant("previews", store.namespace, store=store.name, to=[name], verbs=["Clone", "Propose"])
    kube.apply(grant)
    kube.run("create", "rolebinding", "ann", "-n", name, "--clusterrole=edit", f"--user={AUTHOR}")
    yield name
    kube.delete_namespace(name, wait=False)


def price(store: Store, item: int) -> int:
    """Return what an item costs on ``main``."""
    return int(store.sql(f"SELECT price FROM item AS OF 'main' WHERE id = {item}")[0]["price"])


def everything_said(kube: Kube, *kinds: str) -> str:
    """Return all objects, events and the operator's log, in which no value of a row may stand."""
    objects = kube.run("get", ",".join(kinds), "-A", "-o", "yaml", "--show-managed-fields")
    return (
        objects
        + kube.run("get", "events", "-A", "-o", "yaml")
        + kube.run("logs", "-n", "coppice-system", "deployment/coppice", "--tail=-1")
    )


def test_an_editors_change_is_looked_at_approved_and_published(
    kube: Kube, store: Store, tenant: str, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, tenant, "db").apply(store).ready()
    clone.sql(f"UPDATE item SET price = 12 WHERE id = 1; INSERT INTO item VALUES (4, '{WORD}', 40)")

    request = Request(kube, store, "autumn")
    ann.apply(request.manifest({"clone": {"name": "db", "namespace": tenant}}))
    status = request.until("Computed")
    assert status["tables"] == [{"table": "item", "added": 1, "modified": 1, "deleted": 0}]
    request.until("ChecksPassed")
    assert "data-owners" in request.until_reason("Approved", "ApprovalsMissing")
    assert price(store, 1) == 10

    eventually(lambda: request.status.get("preview", {}).get("ready"), "the preview shows the change")
    preview = Clone(kube, store.namespace, request.status["preview"]["clone"])
    assert preview.sql("SELECT name FROM item WHERE id = 4") == [{"name": WORD}]

    refused = bea.refused(request.review(AUTHOR))
    assert "reviewer" in refused
    Person(kube, AUTHOR, ("data-owners",)).apply(request.review(AUTHOR))
    eventually(lambda: [e["why"] for e in request.status.get("reviews", [])] == ["Author"], "the author's counts not")
    bea.apply(request.review(REVIEWER))
    published = request.until("Published")["published"]

    assert price(store, 1) == 12
    [commit] = store.sql("SELECT committer, message, commit_hash FROM dolt_log('main') LIMIT 1")
    assert commit["commit_hash"] == published["commit"]
    assert f"Reviewed-by: {REVIEWER}" in commit["message"]
    assert f"Proposed-by: {AUTHOR}" in commit["message"]
    uid = kube.get("dcr", request.name, store.namespace)["metadata"]["uid"]  # type: ignore[index]
    eventually(lambda: not kube.owned_by(uid), "the scratch server is gone")
    eventually(lambda: not kube.get("dclone", preview.name, store.namespace), "and so is the preview")
    assert WORD not in everything_said(kube, "dcr", "drev", "dclone", "dstore", "dsnap")


def test_a_bad_change_is_taken_back_and_what_came_after_it_stays(
    kube: Kube, store: Store, ann: Person, bea: Person
) -> None:
    store.commit("UPDATE item SET price = 33 WHERE id = 3", "by the owners")
    request = Request(kube, store, "no-autumn")
    ann.apply(request.manifest({"revertOf": "autumn"}))
    request.until("ChecksPassed")
    bea.apply(request.review(REVIEWER))
    request.until("Published")
    assert (price(store, 1), price(store, 3)) == (10, 33)
    assert store.sql("SELECT id FROM item AS OF 'main' ORDER BY id") == [{"id": 1}, {"id": 2}, {"id": 3}]


def test_the_same_cell_changed_twice_is_a_conflict_that_somebody_decides(
    kube: Kube, store: Store, tenant: str, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, tenant, "second").apply(store).ready()
    clone.sql("UPDATE item SET price = 21 WHERE id = 2")
    store.commit("UPDATE item SET price = 22 WHERE id = 2", "meanwhile")
    request = Request(kube, store, "pears")
    ann.apply(request.manifest({"clone": {"name": "second", "namespace": tenant}}))
    assert "1" in request.until_reason("Mergeable", "Conflicts")
    [conflict] = request.status["conflicts"]["listed"]
    assert (conflict["kind"], conflict["table"], conflict["column"]) == ("Cell", "item", "price")
    change = {"spec": {"resolutions": [{"conflict": conflict["id"], "take": "Source"}]}}
    kube.patch("dcr", request.name, store.namespace, change)
    request.until("Mergeable")
    assert request.status["conflicts"]["decided"] == 1
    request.until("ChecksPassed")
    bea.apply(request.review(REVIEWER))
    request.until("Published")
    assert price(store, 2) == 21


def test_what_breaks_a_check_is_not_published_and_an_approval_is_of_one_patch(
    kube: Kube, store: Store, tenant: str, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, tenant, "third").apply(store).ready()
    clone.sql("UPDATE item SET price = 0 WHERE id = 2")
    request = Request(kube, store, "gifts")
    ann.apply(request.manifest({"clone": {"name": "third", "namespace": tenant}}))
    assert "no-free-fruit" in request.until_reason("ChecksPassed", "ChecksFailed")
    bea.apply(request.review(REVIEWER))
    clone.sql("UPDATE item SET price = 24 WHERE id = 2")
    request.until("ChecksPassed")
    eventually(lambda: [e["why"] for e in request.status["reviews"]] == ["OtherPatch"], "it was of another patch")
    assert price(store, 2) == 21
    kube.run("delete", "dcr", request.name, "-n", store.namespace)
    eventually(lambda: not kube.items("dclone", "-n", store.namespace), "nothing is left of the scratch server")


def test_nobody_writes_to_a_protected_branch_but_by_a_request(kube: Kube, store: Store, ann: Person) -> None:
    head = store.sql("SELECT dolt_hashof('main') AS head")
    binding = kube.binding(store.namespace, f"{store.name}-binding")
    for statement in (
        "UPDATE item SET price = 1",
        "DROP TABLE item",
        "CALL dolt_reset('--hard', 'HEAD~1')",
        "CALL dolt_branch('-f', 'main', 'HEAD~1')",
        "CALL dolt_branch('-D', 'main')",
        "CALL dolt_checkout('-B', 'main', 'HEAD~1')",
        "DELETE FROM dolt_branch_control",
    ):
        with pytest.raises(CommandError):
            sql(kube, store.server, statement, login_of(binding))
    assert store.sql("SELECT dolt_hashof('main') AS head") == head
    forged = Request(kube, store, "forged").manifest({"branch": "dev"}, author=OUTSIDER)
    assert "author" in ann.refused(forged)
    change = '{"status":{"published":null}}'
    ann.may_not("patch", "dcr", "autumn", "-n", store.namespace, "--subresource=status", "--type=merge", "-p", change)
    ann.may_not("delete", "drev", "autumn-bea", "-n", store.namespace)
