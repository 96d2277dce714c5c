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


async def test_a_clone_is_looked_at_live_before_data_leave_their_namespace_and_before_its_login_is_made(story):
    story.store()
    story.snapshot("first")
    story.grant()
    await story.settle()
    before = len(story.kube.calls)
    story.clone(namespace="app")
    await story.settle()
    story.expect_ready("DataClone", "db", "app")
    calls = [call for call in story.kube.calls[before:] if call.verb in {"get", "list"}]
    live = [call for call in calls if call.verb == "list" and call.key.kind == "PersistentVolumeClaim"]
    assert len(live) == 2, "what can be made again is not worth a look at everything"


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


def _routed(story, pod, *, is_ready):
    conditions = [{"type": "Ready", "status": str(is_ready)}]
    story.kube.change("Pod", "data", pod, lambda found: found["status"].update(conditions=conditions))


async def test_ready_means_that_the_service_leads_to_the_server(story):
    story.store()
    story.clone()
    await story.settle()
    for kind, name, pod in (("DataStore", "shop", "shop-server"), ("DataClone", "db", story.copy())):
        story.expect_ready(kind, name)
        assert "coppice.dev/answering" not in story.get("Pod", pod)["metadata"]["annotations"]
        _routed(story, pod, is_ready=False)
        await story.settle()
        assert story.reason(kind, name) == "NotRouted"
        # So that kubelet looks at it again.
        assert story.get("Pod", pod)["metadata"]["annotations"]["coppice.dev/answering"] == "true"
        _routed(story, pod, is_ready=True)
        await story.settle()
        story.expect_ready(kind, name)


async def test_all_a_server_needs_is_there_before_its_volume(story):
    story.store()
    story.grant()
    await story.settle()
    for namespace in ("data", "app"):
        story.clone(namespace=namespace)
        await story.operator.until(
            lambda at=namespace: story.names("PersistentVolumeClaim", at)[-1:] == [story.copy(namespace=at)]
        )
        assert story.names("Pod", namespace) == (["shop-server"] if namespace == "data" else [])
        assert "db" in story.names("Service", namespace)
        assert "db" in story.names("NetworkPolicy", namespace)
        assert len([name for name in story.names("Secret", namespace) if name.startswith("db-")]) == 1
        await story.settle()
        story.expect_ready("DataClone", "db", namespace)
