"""What changed in the documents of a TerminusDB clone comes back to the store: merged with what others wrote there,
looked at, let go and published as one commit; and is taken back. A branch can begin without what was before. All of it
over the double of the protocol.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from e2e.suite.change import AUTHOR, REVIEWER, Request
from e2e.suite.data import Clone, Store
from e2e.suite.documents import CLIENT, asked, make_client
from e2e.suite.manifests import resource
from e2e.waiting import eventually

if TYPE_CHECKING:
    from e2e.suite.change import Person
    from e2e.suite.kube import Kube

NAMES = {1: "apple", 2: "pear", 3: "plum"}
SCHEMA = {
    "@type": "Class",
    "@id": "Item",
    "@key": {"@type": "Lexical", "@fields": ["number"]},
    "number": "xsd:integer",
    "name": "xsd:string",
    "price": "xsd:integer",
}


def item(number: int, price: int) -> dict[str, Any]:
    """Return a document."""
    return {"@id": f"Item/{number}", "@type": "Item", "number": number, "name": NAMES[number], "price": price}


@dataclass(frozen=True, slots=True)
class Items:
    """The documents of a server, through the login that its apps have."""

    kube: Kube
    namespace: str
    binding: dict[str, str]

    def write(self, *documents: dict[str, Any]) -> None:
        """Have documents be as they are given, in one commit."""
        body = list(documents)
        [answer] = self._ask(("PUT", f"document/{self._place}?author=app&message=prices", body))
        assert answer["status"] == 200

    def prices(self) -> dict[int, int]:
        """Return what each costs."""
        [answer] = self._ask(("GET", f"document/{self._place}?type=Item&as_list=true", None))
        return {each["number"]: each["price"] for each in answer["content"]}

    def log(self) -> list[dict[str, Any]]:
        """Return all commits, the newest first."""
        [answer] = self._ask(("GET", f"log/{self._place}", None))
        commits: list[dict[str, Any]] = answer["content"]
        return commits

    @property
    def _place(self) -> str:
        return f"admin/{self.binding['database']}"

    def _ask(self, *calls: tuple[str, str, Any]) -> list[dict[str, Any]]:
        return asked(self.kube, self.namespace, self.binding, *calls)


@pytest.fixture(scope="module")
def store(kube: Kube, owners: str) -> Store:
    """A store with three documents, and people who may propose and review."""
    documents = "\n".join(json.dumps(item(number, 10 * number)) for number in NAMES)
    load = {"1.schema.json": json.dumps(SCHEMA), "2.json": documents}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "items", "namespace": owners}, "data": load}
    kube.apply(config)
    make_client(kube, owners)
    for role, person in (("coppice-author", AUTHOR), ("edit", AUTHOR), ("coppice-reviewer", REVIEWER)):
        name = f"{role}-{person.partition('@')[0]}"
        kube.run("create", "rolebinding", name, "-n", owners, f"--clusterrole={role}", f"--user={person}")
    managed = {"version": "12.0", "load": {"configMap": {"name": "items"}}}
    store = Store(kube, owners).create(engine="terminusdb", managed=managed)
    kube.run("wait", "-n", owners, "--for=condition=Ready", f"pod/{CLIENT}", "--timeout=60s")
    return store


@pytest.fixture(scope="module")
def main(kube: Kube, store: Store) -> Items:
    """What the store holds."""
    return Items(kube, store.namespace, kube.binding(store.namespace, f"{store.name}-binding"))


def test_documents_that_both_sides_changed_are_merged_decided_and_published(
    kube: Kube, store: Store, main: Items, ann: Person, bea: Person
) -> None:
    clone = Clone(kube, store.namespace).apply(store).ready()
    Items(kube, store.namespace, clone.binding).write(item(1, 11), item(2, 21))
    main.write(item(2, 22), item(3, 33))

    request = Request(kube, store, "autumn")
    manifest = request.manifest({"clone": {"name": clone.name, "namespace": store.namespace}})
    manifest["spec"]["merge"] = "Manual"
    ann.apply(manifest)
    assert "1" in request.until_reason("Mergeable", "Conflicts")
    [conflict] = request.status["conflicts"]["listed"]
    assert (conflict["kind"], conflict["table"], conflict["column"]) == ("Cell", "Item", "price")
    decided = {"spec": {"resolutions": [{"conflict": conflict["id"], "take": "Source"}]}}
    kube.patch("dcr", request.name, store.namespace, decided)
    status = request.until("Mergeable")
    assert status["tables"] == [{"table": "Item", "added": 0, "modified": 2, "deleted": 0}]
    assert status["conflicts"]["decided"] == 1
    eventually(lambda: request.status.get("preview", {}).get("ready"), "the preview shows the change")
    preview = Clone(kube, store.namespace, request.status["preview"]["clone"])
    merged = {1: 11, 2: 21, 3: 33}
    assert Items(kube, store.namespace, preview.binding).prices() == merged
    assert main.prices() == {1: 10, 2: 22, 3: 33}

    bea.apply(request.review(REVIEWER))
    eventually(lambda: [each["counts"] for each in request.status.get("reviews", [])] == [True], "Bea's review counts")
    request.until_reason("Published", "Manual")
    kube.patch("dcr", request.name, store.namespace, {"spec": {"merge": "WhenApproved"}})
    published = request.until("Published")["published"]
    assert main.prices() == merged
    commit = main.log()[0]
    assert commit["identifier"] == published["commit"]
    assert AUTHOR in commit["author"]
    assert f"Proposed-by: {AUTHOR}" in commit["message"]
    assert f"Reviewed-by: {REVIEWER}" in commit["message"]
    uid = kube.get("dcr", request.name, store.namespace)["metadata"]["uid"]  # type: ignore[index]
    eventually(lambda: not kube.owned_by(uid), "the scratch server is gone")


def test_it_is_taken_back_and_what_others_wrote_stays(kube: Kube, store: Store, main: Items, ann: Person) -> None:
    main.write(item(3, 34))
    request = Request(kube, store, "no-autumn")
    ann.apply(request.manifest({"revertOf": "autumn"}))
    request.until("Published")
    assert main.prices() == {1: 10, 2: 22, 3: 34}


def test_a_branch_begins_with_all_documents_and_one_commit(kube: Kube, store: Store, main: Items) -> None:
    before = main.log()
    spec = {"store": {"name": store.name}, "from": {"branch": "main"}, "branchName": "handover", "history": "Squashed"}
    kube.apply(resource("DataBranch", "handover", store.namespace, spec))
    kube.ready(store.namespace, "dbranch/handover")
    branch = {**main.binding, "database": f"{main.binding['database']}/local/branch/handover"}
    handover = Items(kube, store.namespace, branch)
    assert handover.prices() == main.prices()
    [commit] = handover.log()
    assert before[0]["identifier"] in commit["message"]
    assert main.log() == before
