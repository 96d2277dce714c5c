"""What a clone is made from: the promise that it holds all that was there when it was asked for, and no wrong data ever."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from coppice.core.conditions import timestamp
from coppice.engines.base import UnreachableError


@pytest.fixture
def shop(opened):
    return opened


async def with_snapshot(story):
    story.store()
    await story.settle()
    story.snapshot("then")
    await story.settle()


async def clone_once_the_volume_is_lost(story):
    """Clone the snapshot when its store was made anew and has not got the volume of before."""
    story.delete("DataStore", "shop")
    await story.settle()
    story.delete("PersistentVolumeClaim", "shop-data")
    await story.settle()
    story.store()
    story.clone(source={"snapshot": "then"})
    await story.settle()
    assert story.reason("DataStore", "shop") == "ClaimLost"


async def test_a_clone_of_a_snapshot_needs_no_volume_of_the_store(story):
    await with_snapshot(story)
    await clone_once_the_volume_is_lost(story)
    story.expect_ready("DataClone", "db")


async def test_a_snapshot_that_does_not_say_its_class_waits_for_the_volume_of_the_store(story):
    """One that an older operator made."""
    await with_snapshot(story)
    content = story.get("VolumeSnapshot", "then")["metadata"]["annotations"]["coppice.dev/content"]
    older = {**json.loads(content), "storageClass": None}
    story.kube.change(
        "VolumeSnapshot",
        "data",
        "then",
        lambda found: found["metadata"]["annotations"].update({"coppice.dev/content": json.dumps(older)}),
    )
    await story.settle()
    await clone_once_the_volume_is_lost(story)
    assert story.reason("DataClone", "db") == "StoreNotReady"
    story.delete("Secret", "shop-admin")
    await story.operator.live(minutes=5)
    story.expect_ready("DataStore", "shop")
    story.expect_ready("DataClone", "db")


async def test_an_app_is_told_of_the_branch_that_its_copy_is_for(shop, monkeypatch):
    """An engine whose servers do not open on it by themselves names it in the binding."""
    told, binding = [], shop.world.engine.binding

    def telling(**inputs):
        told.append((inputs["host"], inputs.get("branch")))
        return binding(**inputs)

    monkeypatch.setattr(shop.world.engine, "binding", telling)
    shop.clone("latest", source={"branch": "main"})
    shop.clone("tagged", source={"commit": shop.commit("alice")})
    await shop.settle()
    assert set(told) == {("latest.data.svc", "main"), ("tagged.data.svc", "coppice"), ("shop.data.svc", None)}


async def test_a_clone_of_a_tag_a_commit_or_a_time_holds_that_state(shop):
    old = shop.commit("alice")
    shop.data_of().tags["v1"] = old
    moment = shop.world.now
    shop.world.tick(60)
    shop.commit("bob")
    shop.clone("tagged", source={"tag": "v1"})
    shop.clone("committed", source={"commit": old})
    shop.clone("timed", source={"time": timestamp(moment + timedelta(seconds=1))})
    await shop.settle()
    for name in ("tagged", "committed", "timed"):
        shop.expect_ready("DataClone", name)
        assert shop.rows(name) == {"alice"}
        assert shop.status("DataClone", name)["source"]["head"] == old
    assert len(shop.names("DataSnapshot")) == 1


async def test_a_tag_that_moves_after_the_capture_is_not_looked_for_in_what_was_captured_before(shop):
    shop.data_of().tags["v1"] = shop.commit("alice")
    shop.clone(source={"tag": "v1"})
    await shop.operator.run_due()
    shop.world.tick(5)
    await shop.operator.until(lambda: shop.status("DataSnapshot", "shop-00001").get("capturedAt"))
    shop.data_of().tags["v1"] = head = shop.commit("bob")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "bob"}
    assert shop.status("DataClone", "db")["source"]["head"] == head


async def test_a_tag_of_a_commit_that_is_on_no_branch_is_had_from_a_snapshot_made_since(shop):
    kept = shop.commit("alice")
    shop.data_of().tags["v1"] = shop.commit("bob")
    shop.data_of().branches["main"] = replace(shop.data_of().branches["main"], head=kept, rows=frozenset({"alice"}))
    shop.clone(source={"tag": "v1"})
    await shop.operator.run_due()
    shop.world.tick(5)
    await shop.settle()
    assert shop.rows() == {"alice", "bob"}
    assert len(shop.names("DataSnapshot")) == 1


async def test_a_clone_of_a_named_snapshot_holds_what_it_holds(shop):
    shop.commit("alice")
    shop.snapshot("before")
    await shop.settle()
    shop.commit("bob")
    shop.clone(source={"snapshot": "before"})
    await shop.settle()
    assert shop.rows() == {"alice"}
    assert shop.names("DataSnapshot") == ["before"]


async def test_a_clone_holds_the_latest_of_a_branch_that_moved_since_the_last_snapshot(shop):
    shop.clone("first")
    await shop.settle()
    shop.commit("alice")
    shop.clone("second")
    await shop.settle()
    assert shop.rows("first") == frozenset()
    assert shop.rows("second") == {"alice"}
    assert len(shop.names("DataSnapshot")) == 2


async def test_uncommitted_rows_count_as_a_move(shop):
    shop.clone("first")
    await shop.settle()
    shop.data_of().write("main", "draft")
    shop.clone("second")
    await shop.settle()
    assert shop.rows("second") == {"draft"}


async def test_a_snapshot_that_is_young_enough_for_max_age_is_used(shop):
    shop.clone("first")
    await shop.settle()
    shop.world.tick(600)
    shop.commit("alice")
    shop.clone("old", source={"branch": "main", "maxAge": "1h"})
    shop.clone("new", source={"branch": "main", "maxAge": "1m"})
    await shop.settle()
    assert shop.rows("old") == frozenset()
    assert shop.rows("new") == {"alice"}


async def test_clones_under_writers_hold_everything_that_was_there_when_they_were_asked_for(shop):
    acknowledged = {}
    writes = 0

    def write():
        nonlocal writes
        writes += 1
        shop.commit(f"row-{writes}")

    for number in range(10):
        write()
        acknowledged[f"db-{number}"] = frozenset(shop.data_of().branches["main"].rows)
        shop.clone(f"db-{number}")
        for _ in range(3):
            await shop.operator.run_due()
            write()
            shop.world.turn()
            shop.world.tick(0.3)
    await shop.settle()
    for name, rows in acknowledged.items():
        shop.expect_ready("DataClone", name)
        assert rows <= shop.rows(name), name
    assert len(shop.names("DataSnapshot")) < 10


async def test_a_store_that_is_down_still_serves_clones_of_snapshots_that_keep_the_promise(shop):
    shop.clone("first")
    await shop.settle()
    shop.world.login("data", "shop-binding").fault = UnreachableError("silence")
    shop.clone("aged", source={"branch": "main", "maxAge": "1h"})
    shop.clone("fresh")
    await shop.settle()
    shop.expect_ready("DataClone", "aged")
    assert shop.reason("DataClone", "fresh") == "StoreNotReady"
    assert "DataStore data/shop" in shop.condition("DataClone", "fresh")["message"]


@pytest.mark.parametrize("source", [{"branch": "gone"}, {"tag": "gone"}, {"commit": "abcd"}])
async def test_an_unknown_point_is_said(shop, source):
    shop.clone(source=source)
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "UnknownVersion")
    assert shop.names("DataSnapshot") == []


async def test_an_unknown_branch_that_appears_recovers(shop):
    shop.clone(source={"branch": "autumn"})
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "UnknownVersion")
    shop.data_of().branches["autumn"] = shop.data_of().branches["main"]
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")


async def test_an_unknown_snapshot_is_said_and_recovers(shop):
    shop.clone(source={"snapshot": "later"})
    await shop.settle()
    assert "later" in shop.expect_stalled("DataClone", "db", "SnapshotNotFound")
    shop.snapshot("later")
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_an_unknown_store_is_said_and_recovers(story):
    story.clone()
    await story.settle()
    assert "shop" in story.expect_stalled("DataClone", "db", "StoreNotFound")
    assert story.events("DataClone", "db") == ["StoreNotFound"]
    story.store()
    await story.settle()
    story.expect_ready("DataClone", "db")


async def test_a_failing_driver_is_said_without_a_hot_loop(shop):
    shop.world.snapshot_error = "the pool is full"
    shop.clone()
    await shop.settle()
    assert shop.reason("DataClone", "db") == "SnapshotPending"
    name = shop.names("DataSnapshot")[0]
    assert "the pool is full" in shop.condition("DataSnapshot", name)["message"]
    await shop.operator.live(minutes=5)
    shop.expect_stalled("DataSnapshot", name, "CaptureRefused")
    assert "CaptureRefused" in shop.condition("DataClone", "db")["message"]
    before = len(shop.world.writes)
    await shop.operator.live(minutes=25)
    assert len(shop.world.writes) == before
    assert shop.names("DataSnapshot") == [name], "another would be held up by the same"
    shop.world.snapshot_error = None
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_a_failing_preparation_is_tried_again_once_a_minute_and_leaves_no_heap(shop):
    shop.world.crashing = lambda pod: pod["metadata"]["name"].endswith("-prepare")
    shop.clone()
    await shop.settle()
    assert shop.reason("DataClone", "db") == "SnapshotFailed"
    shop.expect_stalled("DataSnapshot", shop.names("DataSnapshot")[0], "PreparationFailed")
    await shop.operator.live(minutes=14)
    assert len(shop.names("DataSnapshot")) <= 12
    shop.world.crashing = lambda pod: False
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    await shop.operator.live(minutes=15)
    assert len(shop.names("DataSnapshot")) == 1


async def test_a_preparation_that_cannot_start_is_said_and_no_other_is_begun(shop):
    shop.world.broken_images.add("example.com/fake:1.0")
    shop.clone()
    await shop.operator.live(minutes=5)
    [snapshot] = shop.names("DataSnapshot")
    assert f"{snapshot}-prepare" in shop.expect_stalled("DataSnapshot", snapshot, "PreparationStuck")
    assert snapshot in shop.condition("DataClone", "db")["message"]
    assert shop.reason("DataClone", "db") == "SnapshotPending"
    shop.world.broken_images.clear()
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")
    assert shop.names("DataSnapshot") == [snapshot]


async def test_a_snapshot_that_was_lost_keeps_nobody_waiting(shop):
    shop.clone("first")
    await shop.settle()
    [lost] = shop.names("DataSnapshot")
    shop.delete("VolumeSnapshot", lost)
    await shop.settle()
    shop.expect_stalled("DataSnapshot", lost, "SnapshotLost")
    shop.clone("second")
    await shop.settle()
    shop.expect_ready("DataClone", "second")


async def test_a_preparation_is_cut_off_from_the_network_from_its_first_moment(shop):
    unguarded = []

    def look(event, found):
        if found["kind"] == "Pod" and found["metadata"]["name"] == "mine-prepare":
            policy = shop.kube.peek("NetworkPolicy", "data", "mine-prepare")
            chosen = policy["spec"]["podSelector"]["matchLabels"].items() if policy is not None else set()
            if not chosen or not chosen <= found["metadata"]["labels"].items():
                unguarded.append(event)
            assert policy is None or policy["spec"].keys() == {"podSelector", "policyTypes"}

    shop.kube.subscribe(look)
    shop.snapshot("mine")
    await shop.settle()
    shop.expect_ready("DataSnapshot", "mine")
    assert unguarded in ([], ["DELETED"])
    assert "mine-prepare" not in shop.names("NetworkPolicy")


async def test_an_evicted_preparation_is_made_again(shop):
    shop.snapshot("mine")
    await shop.operator.until(lambda: "mine-prepare" in shop.names("Pod"))
    shop.world.evict(shop.get("Pod", "mine-prepare"))
    await shop.settle()
    shop.expect_ready("DataSnapshot", "mine")


@pytest.mark.parametrize("namespace", ["data", "app"])
async def test_a_snapshot_that_is_deleted_while_a_clone_is_made_from_it_costs_the_clone_only_time(shop, namespace):
    shop.grant()
    shop.snapshot("mine")
    await shop.settle()
    shop.world.full = True
    shop.clone(namespace=namespace)
    await shop.settle()
    assert shop.reason("DataClone", "db", namespace) == "Copying"
    shop.delete("DataSnapshot", "mine")
    await shop.settle()
    shop.world.full = False
    await shop.operator.live(minutes=3)
    shop.expect_ready("DataClone", "db", namespace)
    assert len(shop.world.snapshots) == 1


async def test_a_named_snapshot_that_is_deleted_while_a_clone_is_made_from_it_is_said(shop):
    shop.snapshot("mine")
    await shop.settle()
    shop.world.full = True
    shop.clone(source={"snapshot": "mine"})
    await shop.settle()
    shop.delete("DataSnapshot", "mine")
    await shop.settle()
    shop.world.full = False
    await shop.settle()
    assert "mine" in shop.expect_stalled("DataClone", "db", "SnapshotNotFound")
    assert shop.world.snapshots == {}


async def test_a_full_pool_is_waited_for(shop):
    shop.snapshot("mine")
    await shop.settle()
    shop.world.full = True
    shop.clone()
    await shop.settle()
    assert shop.copy() in shop.condition("DataClone", "db")["message"]
    shop.world.full = False
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_a_snapshot_deleted_after_its_clones_were_made_does_them_no_harm(shop):
    shop.clone()
    await shop.settle()
    shop.delete("DataSnapshot", shop.names("DataSnapshot")[0])
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.world.snapshots == {}


async def test_a_snapshot_whose_bytes_are_gone_is_not_made_anew_from_other_data(shop):
    shop.snapshot("mine")
    await shop.settle()
    before = shop.status("DataSnapshot", "mine")["identity"]
    shop.commit("alice")
    shop.delete("VolumeSnapshot", "mine")
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "mine", "SnapshotLost")
    await shop.operator.live(minutes=30)
    assert shop.events("DataSnapshot", "mine").count("SnapshotLost") == 1
    assert shop.status("DataSnapshot", "mine")["identity"] == before
    assert shop.world.snapshots == {}


async def test_a_volume_snapshot_of_somebody_else_is_never_handed_out(shop):
    forged = {"storeUID": "x", "engine": "fake", "version": "1.0", "capturedAt": "2026-01-01T00:00:00Z"}
    shop.kube.add(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": {"name": "mine", "namespace": "data", "annotations": {"coppice.dev/content": str(forged)}},
            "spec": {"source": {"persistentVolumeClaimName": "shop-data"}, "volumeSnapshotClassName": "snap"},
        }
    )
    shop.snapshot("mine")
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "mine", "NameConflict")


async def test_an_empty_volume_never_becomes_a_clone(shop):
    shop.clone(source={"branch": "main", "maxAge": "1h"})
    await shop.operator.until(lambda: shop.copy() in shop.names("PersistentVolumeClaim"))
    for handle in shop.world.snapshots:
        shop.world.snapshots[handle] = type(shop.data_of())()
    await shop.settle()
    assert not shop.is_ready("DataClone", "db")
    assert "exit code 1" in shop.condition("DataClone", "db")["message"]
    assert "db-binding" not in shop.names("Secret")


async def test_a_copy_with_other_data_than_was_asked_for_is_never_handed_out(shop):
    shop.clone()
    await shop.operator.until(lambda: shop.copy() in shop.names("PersistentVolumeClaim"))
    for volume in shop.world.snapshots.values():
        volume.write("main", "torn")
    await shop.settle()
    assert "hash" in shop.expect_stalled("DataClone", "db", "WrongIdentity")
    assert "db-binding" not in shop.names("Secret")


async def test_the_source_of_passwords_and_remotes_never_reaches_a_clone(shop):
    shop.data_of().remotes.add("https://prod.example.com")
    shop.data_of().users["reporting"] = "production-password"
    shop.clone()
    await shop.settle()
    server = shop.world.login("data", "db-binding")
    assert server.volume.remotes == set()
    assert set(server.volume.users) == {"root", "app"}
    assert not set(server.volume.users.values()) & set(shop.data_of().users.values())


async def test_a_clone_is_as_large_as_its_store_even_where_the_driver_rounds_up(story):
    story.store(storage={"size": "1500Mi"})
    story.clone()
    await story.settle()
    assert story.get("PersistentVolumeClaim", story.copy())["spec"]["resources"]["requests"]["storage"] == "2Gi"


async def test_a_store_that_was_made_anew_under_the_same_name_is_cloned_from_its_own_snapshots_only(shop):
    shop.commit("alice")
    shop.clone("first")
    await shop.settle()
    old = shop.get("DataStore", "shop")["metadata"]["uid"]
    shop.delete("DataStore", "shop")
    await shop.settle()
    shop.store()
    shop.clone("second")
    await shop.settle()
    shop.expect_ready("DataClone", "second")
    snapshot = shop.status("DataClone", "second")["snapshot"]["name"]
    assert shop.status("DataSnapshot", snapshot)["storeUID"] != old


@pytest.mark.parametrize("moment", ["Pending", "Bound"])
async def test_a_raw_snapshot_deleted_on_the_way_is_made_anew_and_dates_nothing_older(shop, moment):
    shop.world.full = moment == "Pending"
    shop.world.broken_images.add("example.com/fake:1.0")
    shop.snapshot("mine")
    await shop.settle()
    assert shop.get("PersistentVolumeClaim", "mine-scratch")["status"]["phase"] == moment
    shop.world.tick(60)
    shop.commit("alice")
    shop.delete("VolumeSnapshot", "mine-raw")
    await shop.settle()
    shop.world.full = False
    shop.world.broken_images.clear()
    await shop.settle()
    shop.expect_ready("DataSnapshot", "mine")
    shop.clone(source={"snapshot": "mine"})
    await shop.settle()
    assert shop.rows() == {"alice"}


async def test_a_scratch_copy_deleted_on_the_way_is_made_anew(shop):
    shop.snapshot("mine")
    await shop.operator.until(lambda: "mine-prepare" in shop.names("Pod"))
    shop.delete("PersistentVolumeClaim", "mine-scratch")
    await shop.settle()
    shop.expect_ready("DataSnapshot", "mine")


async def test_a_scratch_copy_deleted_before_it_was_captured_costs_only_time(shop):
    shop.snapshot("mine")
    await shop.operator.until(lambda: "mine-prepare" in shop.names("Pod"))
    shop.world.snapshot_error = "busy"
    await shop.settle()
    assert "busy" in shop.condition("DataSnapshot", "mine")["message"]
    identity = shop.status("DataSnapshot", "mine")["identity"]
    shop.commit("alice")
    shop.delete("PersistentVolumeClaim", "mine-scratch")
    await shop.settle()
    shop.world.snapshot_error = None
    await shop.settle()
    shop.expect_ready("DataSnapshot", "mine")
    assert shop.status("DataSnapshot", "mine")["identity"] == identity


async def test_a_prepared_snapshot_that_was_changed_is_not_handed_out(shop):
    shop.snapshot("mine")
    await shop.settle()
    shop.kube.change("VolumeSnapshot", "data", "mine", lambda found: found["metadata"]["annotations"].clear())
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "mine", "SnapshotLost")


async def test_a_snapshot_that_a_clone_names_outlives_the_others(shop):
    shop.grant()
    shop.edit("DataStore", "shop", snapshots={"schedule": "*/5 * * * *", "keep": {"last": 1}})
    await shop.operator.live(minutes=11)
    first = shop.names("DataSnapshot")[0]
    shop.clone(namespace="app", source={"snapshot": first})
    await shop.operator.live(minutes=25)
    assert first in shop.names("DataSnapshot")
    assert len(shop.names("DataSnapshot")) < 5
    shop.delete("DataClone", "db", "app")
    await shop.operator.live(minutes=2)
    assert first not in shop.names("DataSnapshot")


async def test_a_report_that_is_longer_than_a_piece_of_a_log_is_read_whole(shop):
    volume = shop.data_of()
    volume.branches |= {f"line-{number:03}": volume.branches["main"] for number in range(400)}
    shop.snapshot("mine")
    await shop.settle()
    shop.expect_ready("DataSnapshot", "mine")
    assert len(shop.status("DataSnapshot", "mine")["branches"]) == 401
