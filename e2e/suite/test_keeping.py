"""Work that somebody did on a clone outlives it where the clone says ``onClose: KeepChanges``: on a branch of a store
that merges, as a DataSnapshot of one that does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from e2e.suite.data import Clone, Store
from e2e.suite.kube import OPERATOR, OPERATOR_PODS, TIMEOUT
from e2e.suite.manifests import POSTGRESQL, data_grant
from e2e.waiting import eventually, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

    from e2e.suite.kube import Kube
    from e2e.suite.manifests import Manifest

PRICES = "SELECT id, price FROM item ORDER BY id"
THREE = {1: 10, 2: 20, 3: 30}
ITEMS_OF_POSTGRESQL = """
    CREATE TABLE item (id int PRIMARY KEY, price int NOT NULL);
    INSERT INTO item VALUES (1, 10), (2, 20), (3, 30);
    ALTER TABLE item OWNER TO app
"""


def prices(of: Clone | Store) -> dict[int, int]:
    """Return what the items cost."""
    return {row["id"]: row["price"] for row in of.sql(PRICES)}


def left(kube: Kube, store: Store, uid: str, kind: str) -> list[Manifest]:
    """Return what a clone with this UID has left beside the store."""
    return kube.items(kind, "-n", store.namespace, "-l", f"coppice.dev/owner-uid={uid}")


def left_branch(kube: Kube, store: Store, uid: str) -> str:
    """Return the one branch that a clone with this UID has left in a store that merges."""
    [request] = left(kube, store, uid, "dcr")
    [branch] = left(kube, store, uid, "dbranch")
    assert branch["spec"]["branchName"] == request["spec"]["into"]["branch"]
    return str(branch["spec"]["branchName"])


def until_nothing_is_left(kube: Kube, uid: str) -> None:
    """Wait until all that a clone had is gone with it."""
    eventually(lambda: not kube.owned_by(uid), "nothing is left of the clone")


@pytest.fixture(scope="module")
def tenant(kube: Kube, store: Store) -> Iterator[str]:
    """A namespace that may have clones of the store, and propose what is changed on them."""
    name = kube.new_namespace("keeping-preview")
    kube.apply(data_grant("previews", store.namespace, store=store.name, to=[name], verbs=["Clone", "Propose"]))
    yield name
    kube.delete_namespace(name, wait=False)


@pytest.fixture(scope="module")
def bank(kube: Kube) -> Iterator[Store]:
    """A PostgreSQL store with the same items."""
    namespace = kube.new_namespace("keeping-bank")
    store = Store(kube, namespace, "bank").create(engine="postgresql", managed=POSTGRESQL)
    store.sql(ITEMS_OF_POSTGRESQL)
    yield store
    kube.delete_namespace(namespace, wait=False)


def test_what_was_changed_is_on_a_branch_of_its_own_when_the_clone_is_gone(
    kube: Kube, store: Store, tenant: str
) -> None:
    clone = Clone(kube, tenant).apply(store, onClose="KeepChanges").ready()
    uid = clone.uid
    kube.until_reason("KeptAtTheEnd", "dclone", clone.name, tenant, "ChangesKept")
    clone.sql("UPDATE item SET price = 11 WHERE id = 1; CALL dolt_commit('-A', '-m', 'dearer')")
    clone.sql("INSERT INTO item VALUES (4, 'fig', 40)")
    clone.delete()
    until_nothing_is_left(kube, uid)

    branch = left_branch(kube, store, uid)
    assert branch.startswith(f"kept-{tenant}-{clone.name}-")
    again = Clone(kube, tenant, "again").apply(store, source={"branch": branch}).ready()
    assert prices(again) == {**THREE, 1: 11, 4: 40}
    assert prices(store) == THREE
    again.delete()


def test_a_clone_on_which_nothing_was_changed_goes_and_leaves_nothing(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "unused").apply(store, onClose="KeepChanges").ready()
    uid = clone.uid
    assert prices(clone) == THREE
    kube.run("delete", "-n", tenant, "dclone/unused", "--wait", "--timeout=60s")
    until_nothing_is_left(kube, uid)
    assert left(kube, store, uid, "dcr,dbranch,dsnap") == []


def test_a_store_without_branches_gets_a_snapshot_though_the_clone_is_deleted_in_the_foreground(
    kube: Kube, bank: Store
) -> None:
    clone = Clone(kube, bank.namespace).apply(bank, onClose="KeepChanges").ready()
    uid = clone.uid
    clone.sql("UPDATE item SET price = 11 WHERE id = 1; INSERT INTO item VALUES (4, 40)")
    kube.run("delete", "-n", bank.namespace, f"dclone/{clone.name}", "--cascade=foreground", "--wait", TIMEOUT)
    until_nothing_is_left(kube, uid)

    [snapshot] = left(kube, bank, uid, "dsnap")
    line = snapshot["spec"]["commit"]["branch"]
    again = Clone(kube, bank.namespace, "again").apply(bank, source={"branch": line}).ready()
    assert prices(again) == {**THREE, 1: 11, 4: 40}
    assert prices(bank) == THREE
    again.delete()


def test_without_the_verb_propose_it_is_said_from_the_beginning_and_the_clone_stays_until_somebody_decides(
    kube: Kube, store: Store, namespace: str
) -> None:
    kube.apply(data_grant("lookers", store.namespace, store=store.name, to=[namespace]))
    clone = Clone(kube, namespace).apply(store, onClose="KeepChanges").ready()
    uid = clone.uid
    kube.until_reason("NotGranted", "dclone", clone.name, namespace, "ChangesKept")
    clone.sql("DELETE FROM item WHERE id = 1")
    kube.run("delete", "-n", namespace, f"dclone/{clone.name}", "--wait=false")

    def told() -> bool:
        said = kube.events("DataClone", clone.name, namespace)
        return any("set spec.onClose to Discard. Until then this DataClone" in event["message"] for event in said)

    eventually(told, "an Event says what the deletion waits for")
    hold(seconds=5)
    assert "deletionTimestamp" in clone.manifest["metadata"]
    assert prices(clone) == {2: 20, 3: 30}

    clone.patch(onClose="Discard")
    kube.run("wait", "-n", namespace, "--for=delete", f"dclone/{clone.name}", "--timeout=60s")
    until_nothing_is_left(kube, uid)
    assert left(kube, store, uid, "dcr,dbranch,dsnap") == []


@pytest.mark.alone
def test_an_operator_that_dies_over_it_keeps_them_all_the_same(kube: Kube, store: Store, tenant: str) -> None:
    clone = Clone(kube, tenant, "through").apply(store, onClose="KeepChanges").ready()
    uid = clone.uid
    clone.sql("UPDATE item SET price = 12 WHERE id = 2")
    kube.run("delete", "-n", tenant, f"dclone/{clone.name}", "--wait=false")
    eventually(lambda: left(kube, store, uid, "dbranch"), "the branch is being made")
    kube.run("delete", "pod", *OPERATOR_PODS, "--grace-period=0", "--force")

    kube.run("wait", "-n", tenant, "--for=delete", f"dclone/{clone.name}", TIMEOUT)
    kube.run("rollout", "status", *OPERATOR, "deployment/coppice", TIMEOUT)
    until_nothing_is_left(kube, uid)
    again = Clone(kube, tenant, "again").apply(store, source={"branch": left_branch(kube, store, uid)}).ready()
    assert prices(again) == {**THREE, 2: 12}
    again.delete()
