"""A clone's days: lease, power, reset, refresh, revisions, and what people do to its objects by hand."""

from __future__ import annotations

import copy
from datetime import timedelta

import pytest
from tests.fakes.story import Story

from coppice.api.v1alpha1 import BINDING_KEYS
from coppice.core.conditions import timestamp
from coppice.core.key import Key
from coppice.engines.base import UnreachableError
from coppice.reconcile.observed import created_at


@pytest.fixture
def shop(opened):
    opened.commit("alice")
    return opened


async def cloned(shop, **spec):
    shop.clone(**spec)
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    return shop


def write(shop, *rows):
    server = shop.world.login("data", "db-binding")
    server.volume.write(server.volume.default_branch, *rows)
    server.uses += 1


# -- rest --


async def test_a_settled_clone_is_left_alone_and_costs_its_store_nothing(shop):
    await cloned(shop)
    await shop.operator.live(minutes=2)
    before = len(shop.world.writes)
    await shop.operator.live(hours=1)
    assert shop.world.writes[before:] == []


async def test_a_clone_that_is_well_is_not_woken_by_what_becomes_of_its_stores_server(shop):
    await cloned(shop)
    looks = len([key for key, _ in shop.operator.log.plans if key.kind == "DataClone"])
    shop.kube.change("Pod", "data", "shop-server", lambda found: found["metadata"]["labels"].update(a="b"))
    shop.kube.change("Secret", "data", "shop-admin", lambda found: found["metadata"]["labels"].update(a="b"))
    await shop.operator.run_due()
    assert len([key for key, _ in shop.operator.log.plans if key.kind == "DataClone"]) == looks


# -- lease --


async def test_a_clone_expires_and_stays_away_until_somebody_asks_for_it(shop):
    await cloned(shop, lease={"max": "1h"})
    ends = timestamp(shop.world.now + timedelta(hours=1))[:16]
    assert shop.status("DataClone", "db")["expiresAt"][:16] == ends
    await shop.operator.live(minutes=61)
    assert "extend-requested-at" in shop.expect_stalled("DataClone", "db", "Expired")
    assert shop.names("PersistentVolumeClaim") == ["shop-data"]
    assert shop.names("Pod") == ["shop-server"]
    assert "db-binding" not in shop.names("Secret")
    await shop.operator.live(hours=5)
    assert shop.events("DataClone", "db").count("Expired") == 1

    shop.commit("bob")
    shop.annotate("DataClone", "db", extend="now")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "bob"}
    assert shop.status("DataClone", "db")["handled"]["extendRequestedAt"] is not None
    await shop.operator.live(minutes=61)
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_an_expired_clone_comes_back_with_a_new_revision(shop):
    await cloned(shop, lease={"max": "1h"})
    await shop.operator.live(minutes=61)
    shop.edit("DataClone", "db", revision="sha-1")
    await shop.settle()
    shop.expect_ready("DataClone", "db")


@pytest.mark.parametrize(
    "change",
    [
        {"lease": {"max": "7d"}},
        {"lease": {"max": "Never"}},
        {"power": "On"},
        {"profile": "default"},
        {"binding": {"keys": {"DATABASE_URL": "{uri}"}}},
    ],
)
async def test_an_expired_clone_comes_back_for_nothing_else(shop, change):
    await cloned(shop, lease={"max": "1h"})
    await shop.operator.live(minutes=61)
    shop.edit("DataClone", "db", **change)
    await shop.operator.live(minutes=5)
    shop.expect_stalled("DataClone", "db", "Expired")
    shop.annotate("DataClone", "db", reset="now")
    await shop.operator.live(minutes=5)
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_an_extension_before_the_end_moves_the_end(shop):
    await cloned(shop, lease={"max": "1h"})
    await shop.operator.live(minutes=50)
    shop.annotate("DataClone", "db", extend="now")
    await shop.operator.live(minutes=50)
    shop.expect_ready("DataClone", "db")
    await shop.operator.live(minutes=15)
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_an_extension_in_the_future_counts_once_from_now(shop):
    await cloned(shop, lease={"max": "1h"})
    shop.annotate("DataClone", "db", extend="2099-01-01T00:00:00Z")
    await shop.settle()
    before = len(shop.world.writes)
    await shop.operator.live(minutes=30)
    assert len(shop.world.writes) == before
    await shop.operator.live(minutes=31)
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_an_old_extension_counts_from_its_own_time(shop):
    await cloned(shop, lease={"max": "1h"})
    asked = timestamp(shop.world.now)
    await shop.operator.live(minutes=61)
    shop.annotate("DataClone", "db", extend=asked)
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_a_request_that_is_no_time_is_said_and_not_acted_upon(shop):
    await cloned(shop, lease={"max": "1h"})
    shop.annotate("DataClone", "db", extend="please", reset="again")
    await shop.settle()
    assert "please" not in str(shop.status("DataClone", "db").get("handled"))
    found = shop.condition("DataClone", "db", of="RequestAccepted")
    assert found["reason"] == "NotATime"
    assert shop.events("DataClone", "db").count("NotATime") == 1
    message = found["message"]
    assert "extend-requested-at" in message
    assert "reset-requested-at" in message
    assert shop.status("DataClone", "db")["copy"] == "1"
    await shop.operator.live(minutes=61)
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_an_idle_clone_expires_and_a_used_one_does_not(shop):
    await cloned(shop, lease={"idle": "10m", "max": "1d"})
    for _ in range(4):
        await shop.operator.live(minutes=8)
        shop.rows()
    shop.expect_ready("DataClone", "db")
    await shop.operator.live(minutes=13)
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_a_lease_that_asks_for_nothing_is_the_administrators(shop):
    await cloned(shop)
    assert shop.status("DataClone", "db")["expiresAt"][:13] == timestamp(shop.world.now + timedelta(days=1))[:13]


async def test_never_is_never_in_ones_own_namespace(shop):
    await cloned(shop, lease={"max": "Never"})
    assert "expiresAt" not in shop.status("DataClone", "db")


# -- power --


async def test_power_off_keeps_the_data_and_on_brings_them_back(shop):
    await cloned(shop)
    write(shop, "mine")
    shop.edit("DataClone", "db", power="Off")
    await shop.settle()
    assert shop.reason("DataClone", "db") == "PoweredOff"
    assert shop.names("Pod") == ["shop-server"]
    await shop.operator.live(minutes=10)
    shop.edit("DataClone", "db", power="On")
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}


async def test_a_clone_that_is_off_from_the_start_gets_its_volume_only(shop):
    shop.clone(power="Off")
    await shop.settle()
    assert shop.reason("DataClone", "db") == "PoweredOff"
    assert shop.names("Pod") == ["shop-server"]
    shop.edit("DataClone", "db", power="Auto")
    await shop.settle()
    assert shop.rows() == {"alice"}


async def test_an_evicted_clone_is_started_again_on_its_data(shop):
    await cloned(shop)
    write(shop, "mine")
    shop.world.evict(shop.get("Pod", shop.copy()))
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}


# -- reset --


async def test_a_reset_swaps_in_a_new_copy_under_the_same_names_and_keeps_the_old_one_a_while(shop):
    await cloned(shop)
    write(shop, "mine")
    secret = shop.get("Secret", "db-binding")["data"]
    shop.commit("bob")
    shop.world.tick(2)
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    assert shop.rows() == {"alice", "bob"}
    assert shop.get("Secret", "db-binding")["data"] == secret
    status = shop.status("DataClone", "db")
    assert status["copy"] == "2"
    assert status["previous"]["copy"] == "1"
    assert status["handled"]["resetRequestedAt"]
    assert shop.copy(1) in shop.names("PersistentVolumeClaim")
    assert shop.copy(1) not in shop.names("Pod")
    await shop.operator.live(minutes=31)
    assert shop.copy(1) not in shop.names("PersistentVolumeClaim")
    assert "previous" not in shop.status("DataClone", "db")


async def test_the_old_copy_serves_until_the_new_one_can(shop):
    await cloned(shop)
    write(shop, "mine")
    shop.world.broken_images.add("example.com/fake:1.0")
    shop.world.tick(2)
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}
    assert shop.status("DataClone", "db")["copy"] == "1"
    shop.world.broken_images.clear()
    await shop.settle()
    assert shop.rows() == {"alice"}


async def test_a_second_reset_before_the_first_one_is_done_keeps_what_was_served_last(shop):
    await cloned(shop)
    write(shop, "mine")
    shop.world.full = True
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    shop.world.tick(5)
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    shop.world.full = False
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    previous = shop.status("DataClone", "db")["previous"]["copy"]
    assert "mine" in shop.world.volume("data", shop.copy(int(previous))).branches["main"].rows
    assert len(shop.names("PersistentVolumeClaim")) == 3


async def test_a_reset_holds_what_was_there_when_it_was_asked_for(shop):
    await cloned(shop)
    shop.clone("other")
    await shop.settle()
    shop.world.tick(60)
    shop.commit("bob")
    shop.annotate("DataClone", "db", reset="now")
    shop.commit("carol")
    await shop.settle()
    assert shop.rows() >= {"alice", "bob"}


async def test_a_reset_in_the_future_waits_for_its_time(shop):
    await cloned(shop)
    shop.annotate("DataClone", "db", reset=timestamp(shop.world.now + timedelta(minutes=10)))
    await shop.operator.live(minutes=5)
    assert shop.status("DataClone", "db")["copy"] == "1"
    shop.commit("bob")
    await shop.operator.live(minutes=7)
    assert shop.status("DataClone", "db")["copy"] == "2"
    assert shop.rows() == {"alice", "bob"}


async def test_a_reset_is_done_once(shop):
    await cloned(shop)
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    await shop.operator.live(hours=1)
    assert shop.status("DataClone", "db")["copy"] == "2"
    assert len(shop.names("PersistentVolumeClaim")) == 2


async def test_a_reset_while_the_store_is_gone_leaves_the_clone_as_it_is(shop):
    await cloned(shop)
    write(shop, "mine")
    shop.delete("DataStore", "shop")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}
    shop.expect_stalled("DataClone", "db", "StoreNotFound")


# -- revision --


async def test_a_new_revision_keeps_the_data_by_default(shop):
    await cloned(shop, revision="a")
    write(shop, "mine")
    shop.edit("DataClone", "db", revision="b")
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}
    assert shop.status("DataClone", "db")["revision"] == "b"
    shop.edit("DataClone", "db", onRevision="Reset")
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}, "a revision that was kept is not reset later"


async def test_a_new_revision_resets_where_that_is_asked_for(shop):
    await cloned(shop, revision="a", onRevision="Reset")
    write(shop, "mine")
    shop.world.tick(60)
    shop.commit("bob")
    shop.edit("DataClone", "db", revision="b")
    await shop.settle()
    assert shop.rows() == {"alice", "bob"}
    assert shop.status("DataClone", "db")["copy"] == "2"
    await shop.operator.live(hours=1)
    assert shop.status("DataClone", "db")["copy"] == "2"


async def test_the_first_revision_of_a_clone_that_had_none_resets_nothing(shop):
    await cloned(shop, onRevision="Reset")
    write(shop, "mine")
    shop.edit("DataClone", "db", revision="a")
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}
    shop.edit("DataClone", "db", revision="b")
    await shop.settle()
    assert shop.rows() == {"alice"}


async def test_a_new_revision_renews_the_lease(shop):
    await cloned(shop, revision="a", lease={"max": "1h"})
    await shop.operator.live(minutes=50)
    shop.edit("DataClone", "db", revision="b")
    await shop.operator.live(minutes=50)
    shop.expect_ready("DataClone", "db")


# -- refresh --


async def test_a_clone_that_follows_a_branch_follows_it(shop):
    await cloned(shop, refresh="OnHeadChange")
    await shop.operator.live(minutes=5)
    assert shop.status("DataClone", "db")["copy"] == "1"
    shop.commit("bob")
    await shop.operator.live(minutes=3)
    assert shop.rows() == {"alice", "bob"}
    assert len(shop.names("PersistentVolumeClaim")) == 2
    copy = shop.status("DataClone", "db")["copy"]
    await shop.operator.live(minutes=30)
    assert shop.status("DataClone", "db")["copy"] == copy


async def test_news_within_the_pause_are_had_as_soon_as_it_ends(shop):
    await cloned(shop, refresh="OnHeadChange")
    pause_ends = created_at(shop.get("PersistentVolumeClaim", shop.copy())) + timedelta(seconds=60)
    assert shop.world.now < pause_ends
    shop.commit("bob")
    shop.edit("DataClone", "db", power="On")  # a look from which the next one would be a minute later
    await shop.operator.run_due()
    assert shop.operator.due[Key("DataClone", "data", "db")] <= pause_ends
    await shop.operator.live(seconds=(pause_ends - shop.world.now).total_seconds())
    assert shop.rows() == {"alice", "bob"}


async def test_it_skips_snapshots_that_are_no_news(shop):
    await cloned(shop, refresh="OnHeadChange")
    shop.snapshot("same")
    await shop.operator.live(minutes=3)
    shop.world.tick(5)
    shop.commit("bob")
    await shop.operator.live(minutes=3)
    assert shop.rows() == {"alice", "bob"}
    assert shop.status("DataClone", "db")["copy"] == "2"


async def test_it_keeps_up_with_busy_writers_without_a_hot_loop(shop):
    await cloned(shop, refresh="OnHeadChange")
    minutes = 10
    for number in range(minutes * 60):
        shop.commit(f"row-{number}")
        await shop.operator.run_due()
        shop.world.turn()
        shop.world.tick()
    copies = int(shop.status("DataClone", "db")["copy"])
    assert minutes // 2 < copies <= minutes + 1
    assert len(shop.rows()) > 60 * (minutes - 3)
    assert len(shop.names("PersistentVolumeClaim")) <= 4


async def test_a_clone_with_a_schedule_is_made_anew_at_its_times_whether_or_not_the_branch_moved(shop):
    shop.world.now = shop.world.now.replace(hour=11, minute=0)
    await cloned(shop, refresh="0 * * * *")
    write(shop, "mine")
    await shop.operator.live(minutes=58)
    assert shop.rows() == {"alice", "mine"}
    await shop.operator.live(minutes=4)
    assert shop.rows() == {"alice"}
    assert shop.status("DataClone", "db")["copy"] == "2"
    assert len(shop.names("PersistentVolumeClaim")) == 2
    await shop.operator.live(minutes=50)
    shop.commit("bob")
    assert shop.status("DataClone", "db")["copy"] == "2"
    await shop.operator.live(minutes=10)
    assert shop.rows() == {"alice", "bob"}


async def test_a_scheduled_refresh_holds_what_was_there_at_its_time_and_one_is_done_for_all_that_were_missed(shop):
    shop.world.now = shop.world.now.replace(hour=11, minute=0)
    await cloned(shop, refresh="0 * * * *")
    shop.world.tick(4 * 3600)
    shop.snapshot("hours-ago")
    shop.world.tick(5)
    await shop.operator.settle()
    shop.world.tick(4 * 3600)
    shop.commit("bob")
    shop.world.tick(3600)
    await shop.operator.settle()
    assert shop.rows() == {"alice", "bob"}
    assert shop.status("DataClone", "db")["copy"] == "3"


async def test_a_schedule_oftener_than_snapshots_can_be_made_still_gets_somewhere(shop):
    await cloned(shop, refresh="* * * * *")
    shop.world.snapshot_error = "slow"
    await shop.operator.live(minutes=5)
    shop.commit("bob")
    shop.world.snapshot_error = None
    await shop.operator.live(minutes=3)
    assert shop.rows() == {"alice", "bob"}
    assert len(shop.names("PersistentVolumeClaim")) <= 3


async def test_a_clone_with_a_schedule_lives_on_without_its_store(shop):
    await cloned(shop, refresh="*/5 * * * *")
    write(shop, "mine")
    shop.delete("DataStore", "shop")
    await shop.operator.live(minutes=12)
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice", "mine"}
    shop.store()
    await shop.operator.live(minutes=3)
    assert shop.rows() == {"alice"}


async def test_a_schedule_that_never_comes_keeps_nobody_busy(shop):
    await cloned(shop, refresh="0 0 31 2 *")
    before = len(shop.world.writes)
    await shop.operator.live(hours=1)
    assert shop.status("DataClone", "db")["copy"] == "1"
    assert len(shop.world.writes) == before


# -- by hand --


async def test_a_binding_deleted_by_hand_is_written_again_although_the_data_have_changed(shop):
    await cloned(shop)
    right = shop.get("Secret", "db-binding")["data"]
    write(shop, "mine")
    shop.delete("Secret", "db-binding")
    await shop.settle()
    assert shop.get("Secret", "db-binding")["data"] == right
    assert shop.rows() == {"alice", "mine"}
    shop.expect_ready("DataClone", "db")


@pytest.mark.parametrize(
    "edit",
    [
        lambda found: found["data"].update(password="d3Jvbmc="),
        lambda found: found["data"].pop("uri"),
        lambda found: found["data"].update(EXTRA="d3Jvbmc="),
        lambda found: found["data"].update(EXTRA="d3Jvbmc=", password="d3Jvbmc="),
        lambda found: found["metadata"]["annotations"].clear(),
        lambda found: found["metadata"]["annotations"].update({"coppice.dev/copy": "7"}),
    ],
)
async def test_a_binding_edited_by_hand_is_put_right(shop, edit):
    await cloned(shop)
    write(shop, "mine")
    right = shop.get("Secret", "db-binding")
    shop.kube.change("Secret", "data", "db-binding", edit)
    await shop.settle()
    now = shop.get("Secret", "db-binding")
    assert (now["data"], now["metadata"]["annotations"]) == (right["data"], right["metadata"]["annotations"])
    assert shop.rows() == {"alice", "mine"}


@pytest.mark.parametrize(("kind", "name"), [("DataClone", "db"), ("DataStore", "shop")])
async def test_a_value_edited_by_hand_is_put_right_and_that_is_said_once(shop, kind, name):
    await cloned(shop)
    secret = f"{name}-binding"
    right = shop.get("Secret", secret)["data"]
    shop.kube.change("Secret", "data", secret, lambda draft: draft["data"].update(password="d3Jvbmc=", host="eA=="))
    await shop.settle()
    assert shop.get("Secret", secret)["data"] == right
    found = shop.condition(kind, name, of="BindingKept")
    assert (found["status"], found["reason"]) == ("True", "ValuesRestored")
    assert "(host, password)" in found["message"]
    assert "d3Jvbmc=" not in found["message"]
    assert "wrong" not in found["message"]
    shop.expect_ready(kind, name)
    await shop.operator.live(minutes=30)
    assert shop.events(kind, name).count("ValuesRestored") == 1
    await shop.operator.live(hours=2)
    assert "BindingKept" not in {entry["type"] for entry in shop.status(kind, name)["conditions"]}
    shop.expect_ready(kind, name)


@pytest.mark.parametrize(("kind", "name"), [("DataClone", "db"), ("DataStore", "shop")])
async def test_values_that_somebody_insists_on_are_put_right_now_and_then_and_nothing_runs_in_circles(shop, kind, name):
    await cloned(shop)
    secret = f"{name}-binding"
    right = shop.get("Secret", secret)["data"]
    insisting, spoiled = [True], []

    def spoil():
        spoiled.append(shop.world.now)
        shop.kube.change("Secret", "data", secret, lambda draft: draft["data"].update(password="d3Jvbmc="))

    def on_event(event, found):
        if found["kind"] == "Secret" and found["metadata"]["name"] == secret and insisting and found["data"] == right:
            spoil()

    shop.kube.subscribe(on_event)
    spoil()
    await shop.operator.live(minutes=30)
    found = shop.condition(kind, name, of="BindingKept")
    assert (found["status"], found["reason"]) == ("False", "ValuesContested")
    shop.expect_ready(kind, name)
    assert len(spoiled) < 35, "once a minute"
    events = shop.events(kind, name)
    assert (events.count("ValuesRestored"), events.count("ValuesContested")) == (1, 1)
    insisting.clear()
    await shop.operator.live(minutes=3)
    assert shop.get("Secret", secret)["data"] == right
    await shop.operator.live(hours=2)
    assert "BindingKept" not in {entry["type"] for entry in shop.status(kind, name)["conditions"]}


async def test_values_that_change_with_the_specification_are_nobodys_edit(shop):
    shop.clone(binding={"keys": {"URL": "mysql://{host}"}})
    await shop.settle()
    shop.edit("DataClone", "db", binding={"keys": {"URL": "mysql://{host}:{port}"}})
    await shop.settle()
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert "BindingKept" not in {entry["type"] for entry in shop.status("DataClone", "db")["conditions"]}


def insist(shop, secret, *keys):
    """Let somebody add keys to a Secret at once whenever they are taken out; return how often that was."""
    added = []

    def on_event(event, found):
        wanted = {key: "eA==" for key in keys if key not in found.get("data", {})}
        if found["kind"] == "Secret" and found["metadata"]["name"] == secret and wanted and event == "MODIFIED":
            added.append(wanted)
            shop.kube.change("Secret", "data", secret, lambda draft: draft["data"].update(wanted))

    shop.kube.subscribe(on_event)
    return added


async def test_a_key_added_to_a_binding_is_taken_out_and_that_is_said(shop):
    await cloned(shop)
    shop.kube.change("Secret", "data", "db-binding", lambda found: found["data"].update(EXTRA="eA=="))
    await shop.settle()
    found = shop.condition("DataClone", "db", of="BindingExact")
    assert (found["status"], found["reason"]) == ("True", "KeysRemoved")
    assert "EXTRA" in found["message"]
    assert shop.events("DataClone", "db").count("KeysRemoved") == 1
    shop.expect_ready("DataClone", "db")
    await shop.operator.live(hours=2)
    assert "BindingExact" not in {entry["type"] for entry in shop.status("DataClone", "db")["conditions"]}


@pytest.mark.parametrize("keys", [["EXTRA"], ["EXTRA", "MORE"], [f"KEY{number:03}" for number in range(100)]])
@pytest.mark.parametrize(("kind", "name"), [("DataClone", "db"), ("DataStore", "shop")])
async def test_a_key_that_somebody_insists_on_is_left_and_said_and_nothing_runs_in_circles(shop, kind, name, keys):
    await cloned(shop)
    secret = f"{name}-binding"
    right = shop.get("Secret", secret)["data"]
    added = insist(shop, secret, *keys)
    shop.kube.change("Secret", "data", secret, lambda found: found["data"].update(dict.fromkeys(keys, "eA==")))
    await shop.settle()
    assert len(added) == 1
    found = shop.condition(kind, name, of="BindingExact")
    assert (found["status"], found["reason"]) == ("False", "KeysLeft")
    assert keys[0] in found["message"]
    assert len(found["message"]) < 1000
    shop.expect_ready(kind, name)
    before = len(shop.world.writes)
    await shop.operator.live(hours=3)
    assert shop.world.writes[before:] == []
    # What is the operator's own is put right all the same.
    shop.kube.change("Secret", "data", secret, lambda draft: draft["data"].update(password="d3Jvbmc="))
    await shop.settle()
    assert shop.get("Secret", secret)["data"] == {**right, **dict.fromkeys(keys, "eA==")}


async def test_labels_and_annotations_of_others_on_a_binding_are_left_alone(shop):
    await cloned(shop)

    def mark(found):
        found["metadata"]["annotations"]["reloader.example.com/match"] = "true"
        found["metadata"]["labels"]["team"] = "blue"

    shop.kube.change("Secret", "data", "db-binding", mark)
    before = len(shop.world.writes)
    await shop.operator.live(hours=1)
    assert shop.world.writes[before:] == []
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    metadata = shop.get("Secret", "db-binding")["metadata"]
    assert (metadata["annotations"]["reloader.example.com/match"], metadata["labels"]["team"]) == ("true", "blue")


async def test_a_service_and_a_policy_edited_or_deleted_by_hand_are_put_right(shop):
    await cloned(shop)
    shop.kube.change("Service", "data", "db", lambda found: found["spec"]["selector"].update({"coppice.dev/copy": "9"}))
    await shop.settle()
    assert shop.rows() == {"alice"}
    shop.delete("Service", "db")
    shop.delete("NetworkPolicy", "db")
    await shop.operator.live(minutes=2)
    assert shop.rows() == {"alice"}
    assert "db" in shop.names("NetworkPolicy", "data")


async def test_a_lost_engine_secret_is_said_and_a_reset_helps(shop):
    await cloned(shop)
    name = next(name for name in shop.names("Secret") if name.endswith("-engine"))
    shop.delete("Secret", name)
    await shop.operator.live(minutes=2)
    assert name in shop.expect_stalled("DataClone", "db", "CredentialsRefused")
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice"}


async def test_a_claim_deleted_by_hand_holds_until_its_server_ends_and_is_made_anew_then(shop):
    await cloned(shop)
    write(shop, "mine")
    shop.delete("PersistentVolumeClaim", shop.copy())
    await shop.settle()
    assert shop.rows() == {"alice", "mine"}
    shop.delete("Pod", shop.copy())
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice"}
    assert len(shop.names("Pod")) == 2


async def test_a_claim_deleted_after_a_reset_leaves_no_stray_server(shop):
    await cloned(shop)
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    for number in (1, 2):
        shop.delete("PersistentVolumeClaim", shop.copy(number))
    shop.delete("Pod", shop.copy(2))
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    assert len(shop.names("Pod")) == 2
    assert len(shop.names("PersistentVolumeClaim")) == 2


async def test_a_server_of_a_copy_that_is_no_more_is_stopped(shop):
    await cloned(shop)
    stray = copy.deepcopy(shop.get("Pod", shop.copy()))
    stray["metadata"]["name"] = "stray"
    stray["metadata"]["labels"]["coppice.dev/copy"] = "9"
    del stray["status"]
    shop.kube.add(stray)
    await shop.operator.live(minutes=2)
    assert shop.names("Pod") == ["shop-server", shop.copy()]


async def test_a_server_that_falls_silent_is_not_ready_and_keeps_its_binding(shop):
    await cloned(shop)
    server = shop.world.login("data", "db-binding")
    server.fault = UnreachableError("silence")
    await shop.operator.live(minutes=2)
    assert shop.reason("DataClone", "db") == "NotAnswering"
    assert "db-binding" in shop.names("Secret")
    server.fault = None
    await shop.operator.live(minutes=1)
    shop.expect_ready("DataClone", "db")


async def test_a_server_that_crashes_says_so(shop):
    shop.world.crashing = lambda pod: pod["metadata"]["labels"]["coppice.dev/role"] == "clone"
    shop.clone()
    await shop.settle()
    assert "exit code 1" in shop.condition("DataClone", "db")["message"]


async def test_a_clone_that_was_deleted_and_made_again_at_once_is_a_new_one(shop):
    await cloned(shop)
    write(shop, "mine")
    shop.delete("DataClone", "db")
    shop.clone()
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.rows() == {"alice"}
    assert len(shop.names("PersistentVolumeClaim")) == 2


async def test_a_clone_outlives_its_store(shop):
    shop.edit("DataStore", "shop", clones={"profiles": {"large": {"memory": "4Gi"}}})
    await cloned(shop, profile="large")
    write(shop, "mine")
    pod = shop.get("Pod", shop.copy())["metadata"]["uid"]
    shop.delete("DataStore", "shop")
    await shop.operator.live(minutes=10)
    shop.expect_ready("DataClone", "db")
    assert "cannot be reset" in shop.condition("DataClone", "db", of="SourceReady")["message"]
    assert shop.rows() == {"alice", "mine"}
    assert shop.get("Pod", shop.copy())["metadata"]["uid"] == pod


# -- profiles --


async def test_a_profile_sizes_the_server_and_a_change_of_it_restarts_it(shop):
    shop.edit("DataStore", "shop", clones={"profiles": {"large": {"memory": "4Gi", "cpu": "2"}}})
    await cloned(shop, profile="large")
    assert shop.get("Pod", shop.copy())["spec"]["containers"][0]["resources"]["limits"]["memory"] == "4Gi"
    write(shop, "mine")
    shop.edit("DataClone", "db", profile="default")
    await shop.settle()
    assert shop.get("Pod", shop.copy())["spec"]["containers"][0]["resources"]["limits"]["memory"] == "256Mi"
    assert shop.rows() == {"alice", "mine"}


async def limited(**most):
    story = Story(most=most)
    story.store(clones={"profiles": {"large": {"memory": "4Gi", "cpu": "2"}}})
    await story.settle()
    return story


@pytest.mark.parametrize("most", [{}, {"memory": "", "cpu": ""}, {"memory": "4096Mi", "cpu": "2000m"}])
async def test_a_profile_within_what_the_administrator_allows_is_given(most):
    story = await limited(**most)
    story.clone(profile="large")
    await story.settle()
    story.expect_ready("DataClone", "db")
    assert story.get("Pod", story.copy())["spec"]["containers"][0]["resources"]["limits"]["memory"] == "4Gi"


@pytest.mark.parametrize(
    ("most", "words"),
    [({"memory": "4095Mi"}, "memory 4Gi"), ({"memory": "8Gi", "cpu": "1999m"}, "cpu 2")],
)
async def test_a_profile_beyond_what_the_administrator_allows_is_said_and_a_smaller_one_recovers(most, words):
    story = await limited(**most)
    story.clone(profile="large")
    await story.settle()
    told = story.expect_stalled("DataClone", "db", "ProfileTooLarge")
    assert words in told
    assert "clones.limits" in told
    assert story.events("DataClone", "db").count("ProfileTooLarge") == 1
    story.edit("DataClone", "db", profile="default")
    await story.settle()
    story.expect_ready("DataClone", "db")


async def test_an_unknown_profile_is_said_and_a_correction_recovers(shop):
    shop.clone(profile="huge")
    await shop.settle()
    assert "default" in shop.expect_stalled("DataClone", "db", "UnknownProfile")
    shop.edit("DataClone", "db", profile="default")
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_keys_asked_for_stand_in_the_binding(shop):
    await cloned(
        shop, binding={"secretName": "app-db", "serviceName": "mysql", "keys": {"DATABASE_URL": "{uri}?x={{}}"}}
    )
    from coppice.manifests.secret import read_secret

    values = read_secret(shop.get("Secret", "app-db"))
    assert values["DATABASE_URL"] == values["uri"] + "?x={}"
    assert values["host"] == "mysql.data.svc"
    assert shop.world.rows("data", "app-db") == {"alice"}


async def test_a_key_that_is_not_asked_for_any_more_goes_and_one_that_is_comes(shop):
    await cloned(shop, binding={"keys": {"DATABASE_URL": "{uri}", "DB_HOST": "{host}"}})
    shop.kube.change(
        "DataClone", "data", "db", lambda found: found["spec"]["binding"].update(keys={"DB_PORT": "{port}"})
    )
    await shop.settle()
    further = shop.get("Secret", "db-binding")["data"].keys() - set(BINDING_KEYS)
    assert further == {"DB_PORT"}
    assert shop.rows() == {"alice"}


@pytest.mark.parametrize("verb", ["wake", "reset", "extend"])
async def test_a_request_in_the_far_future_keeps_nobody_busy(shop, verb):
    await cloned(shop, lease={"idle": "20m", "max": "1d"})
    shop.annotate("DataClone", "db", **{verb: "2099-01-01T00:00:00Z"})
    await shop.settle()
    before = len(shop.world.writes)
    await shop.operator.live(minutes=10)
    assert len(shop.world.writes) == before
    await shop.operator.live(minutes=15)
    shop.expect_stalled("DataClone", "db", "Expired")


async def test_a_refresh_that_never_comes_is_said_and_the_clone_is_ready_all_the_same(shop):
    await cloned(shop, refresh="0 0 30 2 *")
    said = shop.condition("DataClone", "db", of="RefreshScheduled")
    assert (said["status"], said["reason"]) == ("False", "ScheduleNeverComes")
    assert shop.events("DataClone", "db").count("ScheduleNeverComes") == 1
    shop.edit("DataClone", "db", refresh="Never")
    await shop.settle()
    assert "RefreshScheduled" not in {entry["type"] for entry in shop.status("DataClone", "db")["conditions"]}
