"""What goes well on most days: stores, snapshots, clones, branches."""

from __future__ import annotations


async def test_a_store_becomes_ready_and_apps_of_its_namespace_can_log_in(story):
    story.store()
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert story.world.rows("data", "shop-binding") == frozenset()
    status = story.status("DataStore", "shop")
    assert status["binding"] == {"name": "shop-binding"}
    assert status["endpoint"] == {"host": "shop.data.svc", "port": 3306}
    assert status["capacity"] == "2Gi"
    assert [branch["name"] for branch in status["branches"]] == ["main"]


async def test_a_store_begins_with_its_load(story):
    story.world.loads["data", "seed"] = frozenset({"alice", "bob"})
    story.kube.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed", "namespace": "data"}})
    story.store(managed={"load": {"configMap": {"name": "seed"}}})
    await story.settle()
    assert story.world.rows("data", "shop-binding") == {"alice", "bob"}


async def test_a_clone_holds_what_the_branch_held_and_is_alone_with_its_changes(story):
    story.store()
    await story.settle()
    story.commit("alice")
    story.clone()
    await story.settle()
    story.expect_ready("DataClone", "db")
    assert story.rows() == {"alice"}

    story.world.login("data", "db-binding").volume.write("main", "mallory")
    assert story.rows() == {"alice", "mallory"}
    assert story.world.rows("data", "shop-binding") == {"alice"}


async def test_a_clone_in_another_namespace_needs_a_grant_and_leaves_nothing_of_the_snapshot_there(story):
    story.store()
    story.grant()
    story.clone(namespace="app")
    await story.settle()
    story.expect_ready("DataClone", "db", "app")
    assert story.rows(namespace="app") == frozenset()
    assert story.names("VolumeSnapshot", "app") == []
    assert all(name.startswith("snapcontent-") for name in story.names("VolumeSnapshotContent"))


async def test_twenty_clones_share_one_snapshot(story):
    story.store()
    await story.settle()
    for number in range(20):
        story.clone(f"db-{number}")
    await story.settle()
    assert len(story.names("DataSnapshot")) == 1
    assert all(story.is_ready("DataClone", f"db-{number}") for number in range(20))


async def test_a_branch_is_made_in_the_store(story):
    story.store()
    await story.settle()
    head = story.commit("alice")
    story.branch("autumn")
    await story.settle()
    story.expect_ready("DataBranch", "autumn")
    assert story.data_of().branches["autumn"].head == head


async def test_a_deleted_clone_leaves_nothing(story):
    story.store()
    story.grant()
    await story.settle()
    story.clone(namespace="app")
    await story.settle()
    story.delete("DataClone", "db", "app")
    await story.settle()
    assert story.kube.all(None, "app") == []
    assert len(story.world.volumes) == 1
