"""Content on its way through three environments: an editor's change goes from dev to test to main, each with the shop
on a standing clone of its branch; and what was mended on main comes back to dev.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from e2e import story
from e2e.suite.change import AUTHOR, REVIEWER, Person, Request
from e2e.suite.data import Clone, Store
from e2e.suite.kube import TIMEOUT
from e2e.suite.manifests import data_clone, example, resource
from e2e.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

BRANCHES = ("dev", "test", "main")
LABELS = {"coppice.dev/previews": "true"}
FOR_EVER = {"idle": "Never", "max": "Never"}
AUTUMN, MENDED = 1, 2
"""Tracks whose price changes, in this order."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A namespace with the shop on a clone of a branch."""

    kube: Kube
    namespace: str

    def price(self, track: int) -> str:
        """Return what a track costs in the shop."""
        return str(self._shop.track(track)["UnitPrice"])

    def reprice(self, track: int, price: float) -> None:
        """Change a price in the shop, as its editors do."""
        self._shop.reprice(track, price)

    @property
    def _shop(self) -> story.Shop:
        return story.Shop(self.kube.cluster, self.namespace)


@pytest.fixture(scope="module")
def store(kube: Kube, owners: str) -> Store:
    """The example's store with its protected branch, its grant and its roles, and two more branches."""
    chinook = story.QUICKSTART / "data" / "chinook.sql"
    kube.run("create", "configmap", "chinook", "-n", owners, f"--from-file={chinook}")
    kube.apply(*example("changes/1-store.yaml", owners, store="shop", owners=owners))
    kube.apply(*example("changes/2-roles.yaml", owners, store="shop", owners=owners))
    kube.patch("dgrant", "previews", owners, {"spec": {"maxLease": "Never"}})
    kube.ready(owners, "dstore/shop")
    kube.run("wait", "-n", owners, "--for=condition=BranchesProtected", "dstore/shop", TIMEOUT)
    store = Store(kube, owners)
    program, checked = example("changes/6-check.yaml", owners, store="shop", owners=owners)
    image = store.server["spec"]["containers"][0]["image"]
    program["spec"]["template"]["spec"]["containers"][0]["image"] = image
    kube.apply(program, checked)
    for branch in ("dev", "test"):
        spec = {"store": {"name": "shop"}, "branchName": branch, "from": {"branch": "main"}}
        kube.apply(resource("DataBranch", branch, owners, spec))
    kube.ready(owners, "dbranch/dev", "dbranch/test")
    return store


@pytest.fixture(scope="module")
def ann(kube: Kube) -> Person:
    """An editor."""
    return Person(kube, AUTHOR, ("shop-editors",))


@pytest.fixture(scope="module")
def bea(kube: Kube) -> Person:
    """A reviewer."""
    return Person(kube, REVIEWER, ("data-owners",))


@pytest.fixture(scope="module")
def environment(kube: Kube, store: Store) -> Iterator[Callable[..., Environment]]:
    """Make an environment with the shop in it, which editors may edit."""
    made = []

    def make(name: str, branch: str, **spec: object) -> Environment:
        namespace = kube.new_namespace(f"promotion-{name}", **LABELS)
        made.append(namespace)
        kube.run("create", "rolebinding", "editors", "-n", namespace, "--clusterrole=edit", "--group=shop-editors")
        source = {"branch": branch}
        kube.apply(data_clone("db", namespace, store="shop", owners=store.namespace, source=source, **spec))
        kube.apply(*example("quickstart/preview/app.yaml", namespace, store="shop", owners=store.namespace))
        Clone(kube, namespace).ready()
        kube.run("wait", "-n", namespace, "--for=condition=Available", "deployment/app", TIMEOUT)
        return Environment(kube, namespace)

    yield make
    for namespace in made:
        kube.delete_namespace(namespace, wait=False)


def published(request: Request, author: Person, source: Manifest, into: str, reviewer: Person | None = None) -> None:
    """Propose, have it approved where somebody has to, and wait until it is published."""
    author.apply(request.manifest(source, into=into))
    if reviewer is not None:
        request.until("ChecksPassed")
        reviewer.apply(request.review(reviewer.name))
    request.until("Published")


def test_content_goes_from_dev_to_test_to_main_and_what_was_mended_there_comes_back(
    kube: Kube, store: Store, ann: Person, bea: Person, environment: Callable[..., Environment]
) -> None:
    dev, test, main = (environment(name, name, refresh="OnHeadChange", lease=FOR_EVER) for name in BRANCHES)
    assert {stage.price(AUTUMN) for stage in (dev, test, main)} == {"0.99"}

    preview = environment("autumn", "dev")
    preview.reprice(AUTUMN, 7.77)
    published(Request(kube, store, "autumn"), ann, {"clone": {"name": "db", "namespace": preview.namespace}}, "dev")
    eventually(lambda: dev.price(AUTUMN) == "7.77", "the shop on dev has the new price")

    published(Request(kube, store, "autumn-to-test"), ann, {"branch": "dev"}, "test")
    eventually(lambda: test.price(AUTUMN) == "7.77", "the shop on test has the new price")
    assert main.price(AUTUMN) == "0.99"

    published(Request(kube, store, "autumn-to-main"), ann, {"branch": "test"}, "main", bea)
    eventually(lambda: main.price(AUTUMN) == "7.77", "the shop on main has the new price")
    checks = Request(kube, store, "autumn-to-main").status["checks"]
    assert {check["name"]: check["passed"] for check in checks} == {"no-free-tracks": True, "totals": True}

    fix = environment("fix", "main")
    fix.reprice(MENDED, 1.11)
    clone = {"clone": {"name": "db", "namespace": fix.namespace}}
    published(Request(kube, store, "mended"), ann, clone, "main", bea)
    eventually(lambda: main.price(MENDED) == "1.11", "the shop on main has what was mended")
    published(Request(kube, store, "mended-to-dev"), ann, {"branch": "main"}, "dev")
    eventually(lambda: dev.price(MENDED) == "1.11", "the shop on dev has what was mended on main")
    assert (dev.price(AUTUMN), test.price(MENDED)) == ("7.77", "0.99")


def test_what_a_program_of_the_owners_refuses_does_not_come_into_main(
    kube: Kube, store: Store, ann: Person, bea: Person, environment: Callable[..., Environment]
) -> None:
    wrong = environment("wrong", "main")
    Clone(kube, wrong.namespace).sql("UPDATE InvoiceLine SET UnitPrice = 9 WHERE InvoiceLineId = 1")
    request = Request(kube, store, "wrong")
    ann.apply(request.manifest({"clone": {"name": "db", "namespace": wrong.namespace}}))
    message = request.until_reason("ChecksPassed", "ChecksFailed")
    [failed] = [check for check in request.status["checks"] if not check["passed"]]
    assert (failed["name"], failed["result"]) == ("totals", request.status["result"])
    log = ("logs", "-n", store.namespace, f"job/{failed['job']}", "--all-containers")
    assert f"kubectl {' '.join(log)}" in message
    assert kube.run(*log).strip() == "invoices whose total is not the sum of their lines: 1"

    bea.apply(request.review(REVIEWER))
    Clone(kube, wrong.namespace).sql("UPDATE InvoiceLine SET UnitPrice = 0.99 WHERE InvoiceLineId = 1")
    Clone(kube, wrong.namespace).sql("UPDATE Track SET UnitPrice = 3.33 WHERE TrackId = 3")
    request.until("ChecksPassed")
    assert request.until_reason("Approved", "ApprovalsMissing")
    uid = kube.get("dcr", request.name, store.namespace)["metadata"]["uid"]  # type: ignore[index]
    kube.run("delete", "dcr", request.name, "-n", store.namespace)
    eventually(lambda: not kube.owned_by(uid), "nothing is left of the check")
