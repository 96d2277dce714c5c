"""Clones that may write so much of their own and no more: which class bounds them, and what becomes of a full one."""

from __future__ import annotations

import pytest
from tests.fakes.story import begun

from coppice.core.key import Key
from coppice.reconcile.classes import bounded_class

BOUNDED = "ClonesBounded"
LEFT = "OwnBytesLeft"


def storage_class(name="small", *, own_bytes="5Gi", driver="csi.example.com", mode="Immediate", **parameters):
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": driver,
        "volumeBindingMode": mode,
        "parameters": {**parameters, **({} if own_bytes is None else {"ownBytes": own_bytes})},
    }


BASE = storage_class("fast", own_bytes=None)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([], None),
        ([storage_class()], "small"),
        ([storage_class(own_bytes="5120Mi")], "small"),
        ([storage_class(own_bytes="5G")], None),
        ([storage_class(own_bytes="lots")], None),
        ([storage_class(own_bytes=None)], None),
        ([storage_class(driver="other.example.com")], None),
        ([storage_class(pool="slow")], None),
        ([storage_class(ownBytesHeadroom="1Mi")], "small"),
        ([storage_class("a", mode="WaitForFirstConsumer"), storage_class("b")], "b"),
        ([storage_class("b"), storage_class("a")], "a"),
    ],
)
def test_the_class_that_bounds_is_like_the_stores_own_but_for_the_bound(others, chosen):
    found = bounded_class([*others, BASE], "fast", "5Gi")
    assert (found and found["metadata"]["name"]) == chosen


def test_a_store_whose_own_class_bounds_copies_so_needs_no_other():
    own = storage_class("fast")
    assert bounded_class([storage_class("a"), own], "fast", "5Gi") is own


@pytest.mark.parametrize(("origin", "chosen"), [("Delete", "b"), ("Retain", "a")])
def test_a_class_that_leaves_volumes_behind_is_not_taken_where_the_stores_own_does_not(origin, chosen):
    keeping, base = {**storage_class("a"), "reclaimPolicy": "Retain"}, {**BASE, "reclaimPolicy": origin}
    found = bounded_class([keeping, {**storage_class("b"), "reclaimPolicy": "Delete"}, base], "fast", "5Gi")
    assert found is not None
    assert found["metadata"]["name"] == chosen


def test_a_class_that_is_gone_is_like_none():
    assert bounded_class([storage_class()], "fast", "5Gi") is None


async def _opened(story):
    story.kube.add(storage_class())
    story.store(clones={"ownBytes": "5Gi"})
    story.grant()
    await story.settle()
    story.commit("alice")


@pytest.fixture
def shop():
    return begun(_opened)


def class_of(shop, claim, namespace="data"):
    return shop.get("PersistentVolumeClaim", claim, namespace)["spec"]["storageClassName"]


async def test_clones_are_made_with_the_class_that_bounds_them_and_the_store_is_not(shop):
    shop.clone()
    shop.clone("guest", namespace="app")
    await shop.settle()
    for name, namespace in (("db", "data"), ("guest", "app")):
        shop.expect_ready("DataClone", name, namespace)
        assert class_of(shop, shop.copy(clone=name, namespace=namespace), namespace) == "small"
    assert class_of(shop, "shop-data") == "fast"
    found = shop.condition("DataStore", "shop", of=BOUNDED)
    assert (found["status"], found["reason"]) == ("True", "OwnBytesBounded")
    assert "small" in found["message"]


async def test_a_class_that_waits_for_its_consumer_bounds_as_well(shop):
    shop.kube.add(storage_class("late-small", own_bytes="1Gi", mode="WaitForFirstConsumer"))
    shop.edit("DataStore", "shop", clones={"ownBytes": "1Gi"})
    shop.clone()
    claim = shop.copy()
    await shop.operator.until(lambda: claim in shop.names("PersistentVolumeClaim", "data"))
    assert class_of(shop, claim) == "late-small"
    await shop.operator.until(lambda: claim in shop.names("Pod", "data"))


async def test_without_such_a_class_clones_are_made_and_the_store_says_that_nothing_bounds_them(shop):
    shop.edit("DataStore", "shop", clones={"ownBytes": "1Gi"})
    shop.clone()
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    shop.expect_ready("DataStore", "shop")
    assert class_of(shop, shop.copy()) == "fast"
    found = shop.condition("DataStore", "shop", of=BOUNDED)
    assert (found["status"], found["reason"]) == ("False", "OwnBytesUnbounded")
    assert "parameters.ownBytes: 1Gi" in found["message"]
    await shop.operator.live(minutes=10)
    assert shop.events("DataStore", "shop").count("OwnBytesUnbounded") == 1

    shop.kube.add(storage_class("tiny", own_bytes="1Gi"))
    await shop.operator.live(minutes=2)
    assert shop.condition("DataStore", "shop", of=BOUNDED)["reason"] == "OwnBytesBounded"
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    assert class_of(shop, shop.copy(2)) == "tiny"


async def test_a_store_that_asks_for_no_bound_says_nothing_of_one(shop):
    shop.edit("DataStore", "shop", clones=None)
    await shop.settle()
    assert BOUNDED not in {entry["type"] for entry in shop.status("DataStore", "shop")["conditions"]}


async def fill(shop, number=1):
    shop.world.tick(60)
    shop.world.fill(shop.get("Pod", shop.copy(number)))
    await shop.settle()


async def test_a_full_copy_gets_one_new_pod_and_no_more(shop):
    shop.clone()
    await shop.settle()
    shop.world.login("data", "db-binding").volume.write("main", "mine")
    first = shop.get("Pod", shop.copy())["metadata"]["uid"]
    await fill(shop)
    shop.expect_ready("DataClone", "db")
    second = shop.get("Pod", shop.copy())["metadata"]["uid"]
    assert second != first
    assert shop.rows() == {"alice", "mine"}
    found = shop.condition("DataClone", "db", of=LEFT)
    assert (found["status"], found["reason"]) == ("False", "OwnBytesUsedUp")
    await shop.operator.live(minutes=10)
    assert shop.events("DataClone", "db").count("OwnBytesUsedUp") == 1

    await fill(shop)
    message = shop.expect_stalled("DataClone", "db", "OwnBytesUsedUp")
    assert shop.copy() in message
    await shop.operator.live(minutes=10)
    assert shop.get("Pod", shop.copy())["metadata"]["uid"] == second

    shop.delete("Pod", shop.copy())
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "mine"}


async def test_the_operator_that_gave_the_pod_may_have_been_another_one(shop):
    shop.clone()
    await shop.settle()
    await fill(shop)
    shop.operator.restart()
    await fill(shop)
    shop.expect_stalled("DataClone", "db", "OwnBytesUsedUp")


def said(shop):
    found = shop.status("DataClone", "db")["conditions"]
    return next((entry["message"] for entry in found if entry["type"] == LEFT), None)


async def test_what_is_said_of_a_full_copy_keeps_up_with_what_becomes_of_it(shop):
    shop.clone()
    await shop.settle()
    await fill(shop)
    # The Pod is there: it is not still to come.
    assert shop.get("Pod", shop.copy())["metadata"]["creationTimestamp"] in said(shop)
    assert "it gets one new Pod" not in said(shop)
    await shop.operator.live(hours=1)
    assert said(shop) is not None

    # Somebody makes room, and has the server started anew.
    shop.world.tick(60)
    shop.delete("Pod", shop.copy())
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert said(shop) is None
    await fill(shop)
    shop.expect_ready("DataClone", "db")
    assert said(shop) is not None
    await fill(shop)
    shop.expect_stalled("DataClone", "db", "OwnBytesUsedUp")


async def test_a_full_copy_that_is_asleep_is_said_to_be_full_until_its_server_has_started(shop):
    shop.clone()
    await shop.settle()
    await fill(shop)
    shop.edit("DataClone", "db", power="Off")
    await shop.operator.live(minutes=5)
    assert said(shop) is not None
    shop.edit("DataClone", "db", power="On")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert said(shop) is None


async def test_a_server_that_found_room_by_itself_is_not_said_to_have_none(shop):
    shop.clone()
    await shop.settle()
    shop.world.fill(shop.get("Pod", shop.copy()))
    await shop.operator.reconcile(Key("DataClone", "data", "db"))
    assert said(shop) is not None
    running = [{"name": "engine", "state": {"running": {}}}]
    ready = [{"type": "Ready", "status": "True"}]
    recovered = {"containerStatuses": running, "conditions": ready}
    shop.kube.change("Pod", "data", shop.copy(), lambda found: found["status"].update(recovered))
    await shop.operator.reconcile(Key("DataClone", "data", "db"))
    assert said(shop) is None


async def test_another_copy_has_room_again(shop):
    shop.clone()
    await shop.settle()
    await fill(shop)
    await fill(shop)
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert LEFT not in {entry["type"] for entry in shop.status("DataClone", "db")["conditions"]}
    await fill(shop, 2)
    shop.expect_ready("DataClone", "db")
    assert shop.condition("DataClone", "db", of=LEFT)["status"] == "False"


async def test_a_server_that_fails_for_another_reason_is_left_to_the_kubelet(shop):
    shop.clone()
    await shop.settle()
    shop.world.crashing = lambda pod: True
    shop.delete("Pod", shop.copy())
    await shop.settle()
    pod = shop.get("Pod", shop.copy())["metadata"]["uid"]
    await shop.operator.live(minutes=5)
    assert shop.get("Pod", shop.copy())["metadata"]["uid"] == pod
    assert f"{shop.copy()} -c engine" in shop.expect_stalled("DataClone", "db", "ServerTrouble")
