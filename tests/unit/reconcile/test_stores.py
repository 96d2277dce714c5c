"""Stores: what outlives them, what they refuse, and what they say."""

from __future__ import annotations

import pytest
from tests.unit.reconcile.foreign import add_foreign

from coppice.engines.base import UnreachableError
from coppice.kube.errors import ForbiddenError

ADMIN = "shop-admin"


async def ready_store(story, **spec):
    story.store(**spec)
    await story.settle()
    story.expect_ready("DataStore", "shop")


async def test_a_settled_store_is_left_alone(story):
    await ready_store(story)
    before = len(story.world.writes)
    await story.operator.live(hours=1)
    assert story.world.writes[before:] == []


async def test_a_store_that_is_deleted_and_made_again_has_its_data(story):
    await ready_store(story)
    story.commit("alice")
    story.delete("DataStore", "shop")
    await story.settle()
    assert story.names("Pod") == []
    assert story.names("PersistentVolumeClaim") == ["shop-data"]

    await ready_store(story)
    assert story.world.rows("data", "shop-binding") == {"alice"}
    owner = story.get("DataStore", "shop")["metadata"]["uid"]
    for kind, name in (("PersistentVolumeClaim", "shop-data"), ("Secret", ADMIN)):
        assert story.get(kind, name)["metadata"]["labels"]["coppice.dev/owner-uid"] == owner


async def test_with_delete_the_data_go_after_the_server(story):
    await ready_store(story, deletionPolicy="Delete")
    story.clone()
    await story.settle()
    story.delete("DataClone", "db")
    story.delete("DataStore", "shop")
    await story.settle()
    assert story.kube.all(None, "data") == []
    assert (story.world.volumes, story.world.snapshots) == ({}, {})


async def test_with_delete_a_snapshot_that_a_user_made_stays(story):
    await ready_store(story, deletionPolicy="Delete")
    story.snapshot("keepsake")
    await story.settle()
    story.delete("DataStore", "shop")
    await story.settle()
    assert story.names("DataSnapshot") == ["keepsake"]
    story.expect_ready("DataSnapshot", "keepsake")
    assert len(story.world.snapshots) == 1


async def test_an_object_that_cannot_be_read_can_be_deleted_and_its_data_stay(story):
    await ready_store(story, deletionPolicy="Delete")
    story.edit("DataStore", "shop", engine="No Engine!")
    await story.settle()
    story.expect_stalled("DataStore", "shop", "InvalidSpec")
    story.delete("DataStore", "shop")
    await story.settle()
    assert story.names("DataStore") == []
    assert story.names("PersistentVolumeClaim") == ["shop-data"]


@pytest.mark.parametrize(
    ("spec", "reason", "hint"),
    [
        ({"storage": {"storageClassName": "dumb"}}, "StorageCannotSnapshot", "VolumeSnapshotClass"),
        ({"storage": {"storageClassName": "none"}}, "StorageClassNotFound", "fast"),
        ({"storage": {"snapshotClassName": "none"}}, "SnapshotClassNotFound", "snap"),
        ({"managed": {"version": "9.9"}}, "UnsupportedVersion", "1.0, 2.0"),
    ],
)
async def test_what_cannot_work_is_said_before_anything_is_made(story, spec, reason, hint):
    story.store(**spec)
    await story.settle()
    assert hint in story.expect_stalled("DataStore", "shop", reason)
    assert story.events("DataStore", "shop") == [reason]
    assert story.names("PersistentVolumeClaim") == []


async def test_an_unknown_engine_is_said(story):
    story.add(
        "DataStore",
        "shop",
        {"engine": "oracle", "managed": {"version": "1.0", "storage": {"size": "1Gi"}}},
        "data",
    )
    await story.settle()
    assert "fake" in story.expect_stalled("DataStore", "shop", "UnknownEngine")


async def test_a_cluster_without_the_snapshot_api_is_said(story):
    story.kube.missing_kinds = {"VolumeSnapshotClass"}
    story.store()
    await story.settle()
    story.expect_stalled("DataStore", "shop", "SnapshotAPIUnavailable")
    story.kube.missing_kinds = set()
    await story.operator.live(minutes=2)
    story.expect_ready("DataStore", "shop")


async def test_a_load_that_comes_late_is_waited_for(story):
    story.store(managed={"load": {"configMap": {"name": "seed"}}})
    await story.settle()
    assert story.reason("DataStore", "shop") == "LoadNotFound"
    story.world.loads["data", "seed"] = frozenset({"alice"})
    story.kube.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed", "namespace": "data"}})
    await story.operator.live(seconds=30)
    assert story.world.rows("data", "shop-binding") == {"alice"}


async def test_a_server_that_cannot_start_says_so_is_given_up_after_a_while_and_recovers(story):
    story.world.broken_images.add("example.com/fake:1.0")
    story.store()
    await story.settle()
    assert "ImagePullBackOff" in story.condition("DataStore", "shop")["message"]
    assert story.condition("DataStore", "shop", of="Stalled")["status"] == "False"
    await story.operator.live(minutes=3)
    message = story.expect_stalled("DataStore", "shop", "ServerTrouble")
    for word in ("shop-server", 'Back-off pulling image "example.com/fake:1.0"', "engines.<engine>.images"):
        assert word in message
    await story.operator.live(hours=1)
    # When it began, and when it was given up.
    assert story.events("DataStore", "shop").count("ServerTrouble") == 2
    story.world.broken_images.clear()
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert story.condition("DataStore", "shop", of="Stalled")["status"] == "False"


async def test_a_server_that_fails_again_and_again_is_given_up_and_recovers(story):
    await ready_store(story)
    story.world.crashing = lambda pod: True
    story.delete("Pod", "shop-server")
    await story.operator.live(minutes=5)
    assert "kubectl logs shop-server -c engine" in story.expect_stalled("DataStore", "shop", "ServerTrouble")
    before = len(story.operator.log.plans)
    await story.operator.live(minutes=30)
    assert len(story.operator.log.plans) - before < 60
    story.world.crashing = lambda pod: False
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")


async def test_an_initial_load_that_fails_again_is_said_and_tried_until_it_is_put_right(story):
    story.world.loads["data", "seed"] = frozenset({"alice"})
    story.world.load_fails = True
    story.kube.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "seed", "namespace": "data"}})
    story.store(managed={"load": {"configMap": {"name": "seed"}}})
    await story.settle()
    assert "kubectl logs shop-server -c load" in story.expect_stalled("DataStore", "shop", "LoadFailed")
    story.world.load_fails = False
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")
    assert story.world.rows("data", "shop-binding") == {"alice"}


async def test_an_evicted_server_is_started_again_on_its_data(story):
    await ready_store(story)
    story.commit("alice")
    story.world.evict(story.get("Pod", "shop-server"))
    await story.settle()
    assert story.world.rows("data", "shop-binding") == {"alice"}


async def test_a_new_version_restarts_the_server_once(story):
    await ready_store(story)
    story.commit("alice")
    before = story.get("Pod", "shop-server")["metadata"]["uid"]
    story.edit("DataStore", "shop", managed={"version": "2.0"})
    await story.settle()
    pod = story.get("Pod", "shop-server")
    assert pod["metadata"]["uid"] != before
    assert pod["spec"]["containers"][0]["image"] == "example.com/fake:2.0"
    assert story.world.rows("data", "shop-binding") == {"alice"}


async def test_a_volume_grows_and_never_shrinks(story):
    await ready_store(story)
    story.edit("DataStore", "shop", managed={"storage": {"size": "5Gi"}})
    await story.settle()
    assert story.status("DataStore", "shop")["capacity"] == "5Gi"
    story.edit("DataStore", "shop", managed={"storage": {"size": "1Gi"}})
    await story.settle()
    assert story.get("PersistentVolumeClaim", "shop-data")["spec"]["resources"]["requests"]["storage"] == "5Gi"


async def test_a_volume_that_has_grown_is_taken_over_as_it_is(story):
    await ready_store(story)
    story.edit("DataStore", "shop", managed={"storage": {"size": "5Gi"}})
    await story.settle()
    story.delete("DataStore", "shop")
    await story.settle()
    await ready_store(story, storage={"size": "5Gi"})
    claim = story.get("PersistentVolumeClaim", "shop-data")
    assert claim["spec"]["resources"]["requests"]["storage"] == "5Gi"


async def test_a_binding_edited_or_deleted_by_hand_is_put_right(story):
    await ready_store(story)
    right = story.get("Secret", "shop-binding")["data"]
    story.kube.change("Secret", "data", "shop-binding", lambda found: found["data"].update(password="d3Jvbmc="))
    await story.settle()
    assert story.get("Secret", "shop-binding")["data"] == right
    story.delete("Secret", "shop-binding")
    await story.settle()
    assert story.get("Secret", "shop-binding")["data"] == right
    story.world.rows("data", "shop-binding")


async def test_a_lost_admin_secret_is_not_replaced_by_one_that_opens_nothing(story):
    await ready_store(story)
    secret = story.get("Secret", ADMIN)
    story.delete("Secret", ADMIN)
    await story.settle()
    message = story.expect_stalled("DataStore", "shop", "CredentialsLost")
    assert ADMIN in message
    assert ADMIN not in story.names("Secret")
    story.kube.add(
        {key: secret[key] for key in ("apiVersion", "kind", "data", "type", "immutable")}
        | {"metadata": {"name": ADMIN, "namespace": "data", "labels": secret["metadata"]["labels"]}}
    )
    await story.settle()
    story.expect_ready("DataStore", "shop")


async def test_an_admin_secret_with_other_passwords_is_said(story):
    await ready_store(story)
    secret = story.get("Secret", ADMIN)
    story.delete("Secret", ADMIN)
    story.kube.add(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "data": dict.fromkeys(secret["data"], "d3Jvbmc="),
            "metadata": {"name": ADMIN, "namespace": "data", "labels": secret["metadata"]["labels"]},
        }
    )
    await story.settle()
    story.expect_stalled("DataStore", "shop", "CredentialsRefused")


async def test_a_lost_claim_is_not_replaced_by_an_empty_one(story):
    await ready_store(story)
    story.delete("PersistentVolumeClaim", "shop-data")
    await story.settle()
    volume = story.get("PersistentVolumeClaim", "shop-data")["spec"]["volumeName"]
    assert f"{volume} to Retain" in story.expect_stalled("DataStore", "shop", "ClaimDeleting")
    story.delete("Pod", "shop-server")
    await story.settle()
    assert "Secret" in story.expect_stalled("DataStore", "shop", "ClaimLost")
    assert story.names("PersistentVolumeClaim") == []
    story.delete("Secret", ADMIN)
    await story.settle()
    story.expect_ready("DataStore", "shop")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("PersistentVolumeClaim", "shop-data"),
        ("Secret", ADMIN),
        ("Secret", "shop-binding"),
        ("Service", "shop"),
        ("NetworkPolicy", "shop"),
        ("Pod", "shop-server"),
    ],
)
async def test_what_has_our_name_and_is_not_ours_is_left_alone_and_said(story, kind, name):
    add_foreign(story, kind, name)
    story.world.turn()
    story.world.turn()
    before = story.get(kind, name)
    story.store()
    await story.settle()
    message = story.expect_stalled("DataStore", "shop", "NameConflict")
    assert name in message
    after = story.get(kind, name)
    assert (after["spec"] if "spec" in after else after.get("data")) == (before.get("spec") or before.get("data"))
    assert after["metadata"]["uid"] == before["metadata"]["uid"]

    story.delete(kind, name)
    await story.operator.live(minutes=6)
    story.expect_ready("DataStore", "shop")


async def test_a_refused_write_is_said_without_a_hot_loop(story):
    forbidden = ForbiddenError('pods "shop-server" is forbidden: exceeded quota: small', status=403)
    create = story.kube.create

    async def refuse(manifest):
        if manifest["kind"] == "Pod":
            raise forbidden
        return await create(manifest)

    story.kube.create = refuse
    story.store()
    await story.settle()
    assert "quota" in story.expect_stalled("DataStore", "shop", "QuotaExceeded")
    writes = len(story.world.writes)
    await story.operator.live(minutes=30)
    assert len(story.world.writes) == writes
    assert story.events("DataStore", "shop").count("QuotaExceeded") == 1
    del story.kube.create
    await story.operator.live(minutes=2)
    story.expect_ready("DataStore", "shop")


async def test_a_server_that_falls_silent_is_not_ready_and_comes_back_by_itself(story):
    await ready_store(story)
    server = story.world.login("data", "shop-binding")
    server.fault = UnreachableError("silence")
    await story.operator.live(minutes=2)
    assert story.reason("DataStore", "shop") == "NotAnswering"
    server.fault = None
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")


async def test_a_schedule_that_never_comes_is_said_and_the_store_is_ready_all_the_same(story):
    await ready_store(story, snapshots={"schedule": "0 0 30 2 *"})
    said = story.condition("DataStore", "shop", of="SnapshotsScheduled")
    assert (said["status"], said["reason"]) == ("False", "ScheduleNeverComes")
    assert "0 0 30 2 *" in said["message"]
    await story.operator.live(hours=1)
    assert story.events("DataStore", "shop").count("ScheduleNeverComes") == 1
    story.edit("DataStore", "shop", snapshots={"schedule": "0 0 29 2 *"})
    await story.settle()
    assert "SnapshotsScheduled" not in {entry["type"] for entry in story.status("DataStore", "shop")["conditions"]}


@pytest.mark.parametrize(("guarded", "reason"), [(True, "PoliciesEnforced"), (False, "PoliciesNotEnforced")])
async def test_a_store_says_whether_the_network_keeps_policies_and_is_ready_either_way(story, guarded, reason):
    await ready_store(story)
    assert "NetworkGuarded" not in {entry["type"] for entry in story.status("DataStore", "shop")["conditions"]}
    story.world.guarded = guarded
    await story.operator.live(minutes=5)
    story.expect_ready("DataStore", "shop")
    said = story.condition("DataStore", "shop", of="NetworkGuarded")
    assert (said["status"], said["reason"]) == (str(guarded), reason)
    assert story.events("DataStore", "shop").count(reason) == 1
    writes = len(story.world.writes)
    await story.operator.live(hours=1)
    assert story.world.writes[writes:] == []


async def test_the_network_is_tried_when_something_changed_and_now_and_then(story):
    story.world.guarded = True
    await ready_store(story, snapshots={"schedule": "* * * * *"})
    assert story.world.knocks == 1
    await story.operator.live(minutes=9)
    assert story.world.knocks == 1
    story.kube.change("NetworkPolicy", "data", "shop", lambda found: found["spec"].update(ingress=[]))
    await story.operator.live(minutes=2)
    known = story.world.knocks
    assert known > 1
    story.delete("Pod", "shop-server")
    await story.settle()
    assert story.world.knocks == known + 1
    await story.operator.live(minutes=20)
    assert story.world.knocks <= known + 3
    story.world.guarded = False
    await story.operator.live(minutes=11)
    assert story.condition("DataStore", "shop", of="NetworkGuarded")["reason"] == "PoliciesNotEnforced"


async def test_a_network_that_is_late_to_keep_a_new_policy_is_not_said_to_keep_none_for_long(story):
    story.world.guarded = False
    await ready_store(story)
    assert story.condition("DataStore", "shop", of="NetworkGuarded")["reason"] == "PoliciesNotEnforced"
    story.world.guarded = True
    await story.operator.live(minutes=2)
    assert story.condition("DataStore", "shop", of="NetworkGuarded")["reason"] == "PoliciesEnforced"


async def test_volumes_that_wait_for_a_pod_work_as_well(story):
    await ready_store(story, storage={"storageClassName": "late"})
    story.clone()
    await story.settle()
    story.expect_ready("DataClone", "db")


async def test_a_namespace_under_deletion_ends(story):
    story.grant()
    await ready_store(story, deletionPolicy="Delete")
    story.branch("autumn", deletionPolicy="Delete")
    story.clone()
    story.clone(namespace="app")
    await story.settle()
    story.kube.remove_namespace("data")
    await story.settle()
    assert story.kube.peek("Namespace", None, "data") is None
    assert story.world.snapshots == {}
    assert len(story.world.volumes) == 1  # the clone next door lives on
    story.kube.remove_namespace("app")
    await story.settle()
    assert story.world.volumes == {}
    assert story.names("VolumeSnapshotContent") == []
