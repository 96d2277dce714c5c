"""Clones in other namespaces: consent, its terms, and what stays there when it is over."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coppice.core.conditions import timestamp
from coppice.core.key import Key
from coppice.kube.cache import CachedKube

SELECTOR = {"namespaceSelector": {"matchLabels": {"coppice.dev/previews": "true"}}}


@pytest.fixture
def shop(opened):
    opened.commit("alice")
    return opened


def aliases(story):
    return [name for name in story.names("VolumeSnapshotContent") if not name.startswith("snapcontent-")]


async def clone_without_a_volume(shop):
    """Make a clone next door while the storage is full: its alias is there, and its claim waits."""
    shop.grant()
    shop.snapshot("mine")
    await shop.settle()
    shop.world.full = True
    shop.clone(namespace="app")
    await shop.settle()


async def test_without_a_grant_there_is_no_clone_and_nobody_learns_what_stores_there_are(shop):
    shop.clone(namespace="app")
    shop.clone("guess", namespace="app", store="secret-project")
    await shop.settle()
    real = shop.expect_stalled("DataClone", "db", "NotGranted", "app")
    guess = shop.expect_stalled("DataClone", "guess", "NotGranted", "app")
    assert real.replace("shop", "X") == guess.replace("secret-project", "X")
    await shop.operator.live(minutes=30)
    assert shop.events("DataClone", "db") == ["NotGranted"]
    assert shop.names("PersistentVolumeClaim", "app") == []


async def test_a_grant_that_comes_later_is_enough(shop):
    shop.clone(namespace="app")
    await shop.settle()
    shop.grant()
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert shop.rows(namespace="app") == {"alice"}


async def test_a_grant_by_label_follows_the_label(shop):
    shop.grant(to=SELECTOR)
    shop.clone(namespace="app")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "NotGranted", "app")
    label = {"coppice.dev/previews": "true"}
    shop.kube.change("Namespace", None, "app", lambda found: found["metadata"].update(labels=label))
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


async def test_a_grant_of_another_verb_or_store_is_none(shop):
    shop.grant("branch", verbs=["Branch"])
    shop.grant("other", store="other")
    shop.clone(namespace="app")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "NotGranted", "app")


@pytest.mark.parametrize("longest", ["1h", "Never"])
async def test_a_revoked_grant_stops_the_server_and_keeps_the_data_until_the_lease_ends(shop, longest):
    shop.grant(maxLease="2h")
    shop.clone(namespace="app", lease={"max": longest})
    await shop.settle()
    shop.world.login("app", "db-binding").volume.write("main", "mine")
    ends = shop.status("DataClone", "db", "app")["expiresAt"]
    shop.delete("DataGrant", "previews")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "GrantRevoked", "app")
    assert shop.names("Pod", "app") == []
    assert shop.status("DataClone", "db", "app")["expiresAt"] == ends

    shop.annotate("DataClone", "db", "app", extend="now")
    await shop.settle()
    assert shop.status("DataClone", "db", "app")["expiresAt"] == ends, "nobody can extend what is not granted"

    shop.grant(maxLease="2h")
    await shop.settle()
    assert shop.rows(namespace="app") == {"alice", "mine"}

    shop.delete("DataGrant", "previews")
    await shop.operator.live(hours=2, minutes=5)
    shop.expect_stalled("DataClone", "db", "Expired", "app")
    assert shop.names("PersistentVolumeClaim", "app") == []


async def test_a_grant_revoked_on_the_way_leaves_nothing_of_the_data_there(shop):
    await clone_without_a_volume(shop)
    assert aliases(shop)
    shop.delete("DataGrant", "previews")
    shop.world.full = False
    await shop.operator.run_due()
    await shop.settle()
    assert not shop.is_ready("DataClone", "db", "app")
    assert aliases(shop) == []
    assert shop.names("PersistentVolumeClaim", "app") == []
    shop.grant()
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


@pytest.mark.parametrize(("change", "reason"), [("revoke", "NotGranted"), ("mask", "MaskedOnly")])
async def test_nothing_leaves_by_a_grant_of_which_it_was_not_heard_that_it_is_over(shop, change, reason):
    shop.grant()
    shop.clone("first", namespace="app")
    await shop.settle()
    shop.operator.deaf_to = frozenset({"DataGrant"})
    if change == "revoke":
        shop.delete("DataGrant", "previews")
    else:
        shop.edit("DataGrant", "previews", data="Masked")
    known = aliases(shop), shop.names("PersistentVolumeClaim", "app")
    shop.clone(namespace="app")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", reason, "app")
    assert (aliases(shop), shop.names("PersistentVolumeClaim", "app")) == known


async def test_masked_data_are_never_answered_with_unmasked_ones(shop):
    shop.snapshot("raw")
    await shop.settle()
    shop.grant(data="Masked")
    shop.clone(namespace="app")
    shop.clone("named", namespace="app", source={"snapshot": "raw"})
    await shop.settle()
    for name in ("db", "named"):
        assert "masked" in shop.expect_stalled("DataClone", name, "MaskedOnly", "app")
    assert shop.names("DataSnapshot") == ["raw"]
    assert shop.names("PersistentVolumeClaim", "app") == []
    assert aliases(shop) == []


async def test_a_grant_that_turns_to_masked_stops_what_was_cloned_unmasked(shop):
    shop.grant()
    shop.clone(namespace="app")
    await shop.settle()
    shop.edit("DataGrant", "previews", data="Masked")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "MaskedOnly", "app")
    assert shop.names("Pod", "app") == []
    shop.edit("DataGrant", "previews", data="Raw")
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


@pytest.mark.parametrize("lease", [{"max": "30d"}, {"max": "Never"}, {}])
async def test_the_grant_bounds_the_lease(shop, lease):
    shop.grant(maxLease="2h")
    shop.clone(namespace="app", lease=lease)
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    shortened = [
        entry for entry in shop.status("DataClone", "db", "app")["conditions"] if entry["type"] == "LeaseGranted"
    ]
    assert bool(shortened) is bool(lease)
    assert shop.events("DataClone", "db").count("LeaseShortened") == len(shortened)
    for found in shortened:
        assert (found["status"], found["reason"]) == ("False", "LeaseShortened")
        assert f"lease.max {lease['max']}" in found["message"], "what was asked"
        assert "2h applies, the maxLease of DataGrant previews" in found["message"], "what applies, and why"
    await shop.operator.live(hours=2, minutes=5)
    shop.expect_stalled("DataClone", "db", "Expired", "app")


async def test_a_lease_that_fits_again_is_not_complained_of_any_more(shop):
    shop.grant(maxLease="2h")
    shop.clone(namespace="app", lease={"max": "30d"})
    await shop.settle()
    assert "LeaseShortened" in str(shop.status("DataClone", "db", "app"))
    shop.edit("DataGrant", "previews", maxLease="30d")
    await shop.settle()
    assert "LeaseShortened" not in str(shop.status("DataClone", "db", "app"))


async def test_an_extension_beyond_what_the_grant_allows_counts_from_now_and_is_said(shop):
    shop.grant(maxLease="2h")
    shop.clone(namespace="app")
    await shop.settle()
    shop.world.tick(600)
    ahead = timestamp(shop.world.now + timedelta(days=30))
    ends = timestamp(shop.world.now + timedelta(hours=2))
    shop.annotate("DataClone", "db", "app", extend=ahead)
    await shop.operator.live(minutes=10)
    found = shop.condition("DataClone", "db", "app", of="RequestAccepted")
    assert (found["status"], found["reason"]) == ("False", "ExtensionShortened")
    assert ahead in found["message"]
    assert shop.status("DataClone", "db", "app")["expiresAt"][:16] == ends[:16]
    assert shop.events("DataClone", "db").count("ExtensionShortened") == 1
    shop.annotate("DataClone", "db", "app", extend="now")
    await shop.settle()
    assert "ExtensionShortened" not in str(shop.status("DataClone", "db", "app"))


async def test_a_longer_grant_wakes_no_expired_clones(shop):
    shop.grant(maxLease="1h")
    shop.clone(namespace="app", lease={"max": "30d"})
    await shop.operator.live(hours=1, minutes=5)
    shop.edit("DataGrant", "previews", maxLease="30d")
    await shop.operator.live(minutes=5)
    shop.expect_stalled("DataClone", "db", "Expired", "app")


async def test_what_is_beyond_the_cap_waits_its_turn_and_is_told_its_place(shop):
    shop.grant(maxClones={"perNamespace": 2})
    for number in range(4):
        shop.clone(f"db-{number}", namespace="app")
        shop.world.tick(2)
    await shop.settle()
    ready = [f"db-{number}" for number in range(4) if shop.is_ready("DataClone", f"db-{number}", "app")]
    assert ready == ["db-0", "db-1"]
    assert "place 1" in shop.condition("DataClone", "db-2", "app")["message"]
    assert "place 2" in shop.condition("DataClone", "db-3", "app")["message"]
    shop.delete("DataClone", "db-0", "app")
    await shop.settle()
    shop.expect_ready("DataClone", "db-2", "app")
    assert "place 1" in shop.condition("DataClone", "db-3", "app")["message"]


async def test_an_expired_clone_gives_its_place_away_and_queues_when_it_comes_back(shop):
    shop.grant(maxClones={"total": 1})
    shop.clone("old", namespace="app", lease={"max": "1h"})
    await shop.settle()
    shop.clone("new", namespace="app", lease={"max": "1d"})
    await shop.settle()
    assert shop.reason("DataClone", "new", "app") == "Queued"
    await shop.operator.live(hours=1, minutes=5)
    shop.expect_ready("DataClone", "new", "app")
    shop.annotate("DataClone", "old", "app", extend="now")
    await shop.settle()
    assert shop.reason("DataClone", "old", "app") == "Queued"
    shop.expect_ready("DataClone", "new", "app")


async def test_nobody_is_put_out_for_who_waits_but_by_the_end_of_a_lease(shop):
    shop.grant(maxClones={"total": 2})
    shop.clone("off", namespace="app", lease={"max": "2h"})
    shop.clone("unused", namespace="app", lease={"max": "9d"})
    await shop.settle()
    shop.edit("DataClone", "off", "app", power="Off")
    shop.clone("waits", namespace="app")
    await shop.operator.live(hours=1)
    assert "place 1" in shop.condition("DataClone", "waits", "app")["message"]
    shop.edit("DataGrant", "previews", maxClones={"total": 1})
    await shop.operator.live(minutes=30)
    assert "place 2" in shop.condition("DataClone", "waits", "app")["message"]
    assert shop.reason("DataClone", "off", "app") == "PoweredOff"
    shop.expect_ready("DataClone", "unused", "app")
    assert len(shop.names("PersistentVolumeClaim", "app")) == 2, "their data are there"
    await shop.operator.live(minutes=35)
    shop.expect_stalled("DataClone", "off", "Expired", "app")
    assert "place 1" in shop.condition("DataClone", "waits", "app")["message"]
    shop.edit("DataGrant", "previews", maxClones={"total": 2})
    await shop.settle()
    shop.expect_ready("DataClone", "waits", "app")


async def test_a_clone_that_cannot_go_on_holds_up_nobody_and_queues_once_it_can(shop):
    shop.grant(maxClones={"total": 1})
    shop.clone("typo", namespace="app", source={"branch": "nonsense"})
    shop.world.tick(2)
    shop.clone("second", namespace="app")
    await shop.settle()
    shop.expect_ready("DataClone", "second", "app")
    shop.expect_stalled("DataClone", "typo", "UnknownVersion", "app")
    assert shop.events("DataClone", "typo") == ["UnknownVersion"]

    shop.data_of().branches["nonsense"] = shop.data_of().branches["main"]
    shop.world.tick(2)
    shop.clone("third", namespace="app")
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "second", "app")
    assert "place 1" in shop.condition("DataClone", "typo", "app")["message"]
    assert "place 2" in shop.condition("DataClone", "third", "app")["message"]
    shop.delete("DataClone", "second", "app")
    await shop.settle()
    shop.expect_ready("DataClone", "typo", "app")
    assert shop.reason("DataClone", "third", "app") == "Queued"


async def test_of_two_that_look_at_the_same_time_one_that_was_not_in_the_queue_steps_back(shop):
    shop.grant(maxClones={"total": 1})
    branches = shop.data_of().branches
    branches["autumn"] = branches["main"]
    shop.snapshot("mine")
    await shop.settle()
    autumn = branches.pop("autumn")
    shop.clone("first", namespace="app", source={"branch": "autumn"})
    await shop.settle()
    shop.expect_stalled("DataClone", "first", "UnknownVersion", "app")
    branches["autumn"] = autumn
    shop.world.tick(2)
    shop.clone("second", namespace="app")
    reconciler = shop.operator.reconcilers["DataClone"]
    keys = [Key("DataClone", "app", name) for name in ("first", "second")]
    seen = [await reconciler.observe(shop.kube, key, shop.world.now) for key in keys]
    assert [bool(reconciler.plan(observation).create) for observation in seen] == [False, True]


async def test_clones_without_a_grant_take_no_place(shop):
    shop.grant(maxClones={"total": 1})
    shop.world.add_namespace("stranger")
    shop.clone("stranger", namespace="stranger")
    await shop.settle()
    shop.expect_stalled("DataClone", "stranger", "NotGranted", "stranger")
    shop.world.tick(2)
    shop.clone(namespace="app")
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


async def test_a_revoked_clone_keeps_its_place_with_its_data(shop):
    shop.grant(maxClones={"total": 1})
    shop.grant("other", to={"namespaces": ["other"]}, maxClones={"total": 1})
    shop.world.add_namespace("other")
    shop.clone("first", namespace="app")
    await shop.settle()
    shop.delete("DataGrant", "previews")
    await shop.settle()
    shop.expect_stalled("DataClone", "first", "GrantRevoked", "app")
    shop.clone("second", namespace="other")
    await shop.settle()
    assert shop.reason("DataClone", "second", "other") == "Queued"


async def test_a_cap_of_none_lets_nobody_in_and_leaves_those_that_are_there(shop):
    shop.grant()
    shop.clone("old", namespace="app")
    await shop.settle()
    shop.edit("DataGrant", "previews", maxClones={"total": 0})
    shop.clone("new", namespace="app")
    await shop.settle()
    shop.expect_ready("DataClone", "old", "app")
    assert shop.reason("DataClone", "new", "app") == "Queued"


async def test_the_caps_do_not_count_the_owners_own_clones(shop):
    shop.grant(maxClones={"total": 1})
    shop.clone("own")
    shop.clone(namespace="app")
    await shop.settle()
    shop.expect_ready("DataClone", "own")
    shop.expect_ready("DataClone", "db", "app")


async def test_a_grant_says_how_many_clones_live_by_it(shop):
    shop.world.add_namespace("labelled", **{"coppice.dev/previews": "true"})
    shop.grant(maxClones={"total": 3})
    shop.grant("by-label", to=SELECTOR)
    shop.clone("own")
    for number in range(2):
        shop.clone(f"db-{number}", namespace="app")
    await shop.settle()
    shop.clone("typo", namespace="app", source={"branch": "nonsense"})
    shop.clone("third", namespace="labelled")
    await shop.operator.live(minutes=2)
    shop.clone("beyond", namespace="app")
    await shop.operator.live(minutes=2)
    assert shop.reason("DataClone", "beyond", "app") == "Queued"
    assert shop.status("DataGrant", "previews")["clones"] == 2
    assert shop.status("DataGrant", "by-label")["clones"] == 1
    shop.delete("DataGrant", "by-label")
    shop.delete("DataClone", "db-0", "app")
    await shop.operator.live(minutes=2)
    assert shop.status("DataGrant", "previews")["clones"] == 2, "beyond has come in"
    shop.grant("by-label", to=SELECTOR)
    await shop.settle()
    assert shop.status("DataGrant", "by-label")["clones"] == 1, "one that is new is counted at once"


async def test_clones_wake_no_grant_and_many_grants_are_counted_at_once(shop, monkeypatch):
    surveys, survey = [], CachedKube.survey

    async def counted(self, kind):
        surveys.append(kind)
        return await survey(self, kind)

    monkeypatch.setattr(CachedKube, "survey", counted)
    for number in range(10):
        shop.grant(f"grant-{number}")
    shop.snapshot("mine")
    await shop.settle()

    before, plans = surveys.count("DataClone"), len(shop.operator.log.plans)
    shop.clone(namespace="app")
    await shop.settle()
    assert [key for key, _ in shop.operator.log.plans[plans:] if key.kind == "DataGrant"] == []
    await shop.operator.live(minutes=5)
    assert 4 <= surveys.count("DataClone") - before <= 6


async def test_an_alias_of_a_snapshot_that_was_not_chosen_in_the_end_is_not_used(shop):
    shop.grant()
    shop.snapshot("mine")
    await shop.settle()
    shop.clone(namespace="app")
    await shop.operator.until(lambda: aliases(shop))
    shop.commit("bob")
    shop.delete("DataSnapshot", "mine")
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert shop.rows(namespace="app") == {"alice", "bob"}
    assert aliases(shop) == []


async def test_a_snapshot_class_that_deletes_does_not_reach_the_alias(shop):
    shop.grant()
    for number in range(3):
        shop.clone(f"db-{number}", namespace="app")
    await shop.settle()
    assert all(shop.is_ready("DataClone", f"db-{number}", "app") for number in range(3))
    assert len(shop.world.snapshots) == 1


async def test_a_clone_that_is_deleted_on_the_way_leaves_no_alias(shop):
    await clone_without_a_volume(shop)
    assert aliases(shop)
    shop.delete("DataClone", "db", "app")
    await shop.settle()
    assert aliases(shop) == []
    assert {found["kind"] for found in shop.kube.all(None, "app")} <= {"Event"}
    assert len(shop.world.snapshots) == 1


async def test_a_claim_deleted_by_hand_on_the_way_leaves_no_alias_in_the_end(shop):
    await clone_without_a_volume(shop)
    shop.delete("PersistentVolumeClaim", shop.copy(namespace="app"), "app")
    shop.world.full = False
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert aliases(shop) == []


async def test_a_clone_that_cannot_be_read_can_be_deleted(shop):
    shop.grant()
    shop.clone(namespace="app")
    await shop.settle()
    shop.edit("DataClone", "db", "app", profile="No Profile!")
    await shop.settle()
    shop.expect_stalled("DataClone", "db", "InvalidSpec", "app")
    shop.delete("DataClone", "db", "app")
    await shop.settle()
    assert shop.kube.all(None, "app") == []


async def test_the_namespace_of_a_clone_can_be_deleted_at_any_moment(shop):
    for turns in range(1, 30, 2):
        shop.grant("previews")
        shop.clone(namespace="app")
        for _ in range(turns):
            await shop.operator.run_due()
            shop.world.turn()
            shop.world.tick(0.1)
        shop.kube.remove_namespace("app")
        await shop.settle()
        assert shop.kube.peek("Namespace", None, "app") is None, turns
        assert aliases(shop) == []
        shop.delete("DataGrant", "previews")
        shop.world.add_namespace("app")


async def test_a_deleted_store_leaves_live_clones_alone_in_their_namespace(shop):
    shop.grant()
    shop.clone(namespace="app")
    await shop.settle()
    shop.edit("DataStore", "shop", deletionPolicy="Delete")
    await shop.settle()
    shop.delete("DataStore", "shop")
    await shop.operator.live(minutes=10)
    shop.expect_ready("DataClone", "db", "app")
    assert shop.rows(namespace="app") == {"alice"}
    assert shop.world.snapshots == {}
    shop.delete("DataClone", "db", "app")
    await shop.settle()
    assert shop.world.volumes == {}


async def test_a_grant_says_whether_its_store_is_there(shop):
    shop.grant("good")
    shop.grant("bad", store="nowhere")
    await shop.settle()
    shop.expect_ready("DataGrant", "good")
    assert "nowhere" in shop.expect_stalled("DataGrant", "bad", "StoreNotFound")


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("PersistentVolumeClaim", "COPY"),
        ("Secret", "ENGINE"),
        ("Secret", "db-binding"),
        ("Service", "db"),
        ("NetworkPolicy", "db"),
        ("Pod", "COPY"),
        ("VolumeSnapshot", "COPY"),
    ],
)
async def test_what_has_our_name_and_is_not_ours_is_left_alone_and_said(shop, kind, name):
    from tests.unit.reconcile.foreign import add_foreign

    from coppice.reconcile.clone.names import engine_secret_name

    shop.clone(namespace="app")
    uid = shop.get("DataClone", "db", "app")["metadata"]["uid"]
    name = {"COPY": shop.copy(namespace="app"), "ENGINE": engine_secret_name("db", uid)}.get(name, name)
    add_foreign(shop, kind, name, "app")
    before = shop.get(kind, name, "app")["metadata"]["uid"]
    shop.grant()
    await shop.settle()
    assert name in shop.expect_stalled("DataClone", "db", "NameConflict", "app")
    assert shop.get(kind, name, "app")["metadata"]["uid"] == before
    await shop.operator.live(minutes=2)
    writes = len(shop.world.writes)
    await shop.operator.live(minutes=10)
    assert len(shop.world.writes) == writes
    shop.delete(kind, name, "app")
    await shop.operator.live(minutes=6)
    shop.expect_ready("DataClone", "db", "app")
    assert aliases(shop) == []


async def test_what_a_clone_waits_before_its_first_copy_is_no_part_of_its_lease(shop):
    shop.clone(namespace="app", lease={"max": "1h"})
    await shop.operator.live(minutes=65)
    shop.expect_stalled("DataClone", "db", "NotGranted", "app")
    shop.grant(maxClones={"total": 0})
    await shop.operator.live(minutes=65)
    assert shop.reason("DataClone", "db", "app") == "Queued"
    shop.edit("DataGrant", "previews", maxClones={"total": 1})
    await shop.operator.live(minutes=50)
    shop.expect_ready("DataClone", "db", "app")
    await shop.operator.live(minutes=15)
    shop.expect_stalled("DataClone", "db", "Expired", "app")


async def test_what_is_asked_without_a_grant_counts_when_there_is_one(shop):
    shop.grant(maxLease="1h")
    shop.clone(namespace="app", revision="a")
    await shop.operator.live(hours=1, minutes=5)
    shop.delete("DataGrant", "previews")
    shop.edit("DataClone", "db", "app", revision="b")
    before = len(shop.world.writes)
    await shop.operator.live(minutes=10)
    shop.expect_stalled("DataClone", "db", "Expired", "app")
    assert len(shop.world.writes) - before < 10
    shop.grant(maxLease="1h")
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


async def test_a_grant_gives_no_snapshot_of_an_earlier_store_of_the_same_name(shop):
    shop.grant()
    shop.commit("secret")
    shop.snapshot("before")
    await shop.settle()
    shop.delete("DataStore", "shop")
    await shop.settle()
    shop.store()
    await shop.settle()
    shop.clone("guest", namespace="app", source={"snapshot": "before"})
    shop.clone("own", source={"snapshot": "before"})
    await shop.settle()
    message = shop.expect_stalled("DataClone", "guest", "StoreReplaced", "app")
    assert "before" in message
    assert shop.names("PersistentVolumeClaim", "app") == []
    # Who works in the store's namespace owns what is there: so a restored store's old snapshots are looked at.
    assert shop.rows("own") == {"alice", "secret"}


async def test_an_alias_whose_snapshot_went_unseen_is_let_go(story):
    story.world.strands = True
    story.store()
    story.grant()
    story.clone(namespace="app")
    await story.settle()
    story.expect_ready("DataClone", "db", "app")
    story.delete("DataClone", "db", "app")
    await story.operator.live(minutes=2)
    assert [found for found in story.names("VolumeSnapshotContent") if found.startswith("coppice-")] == []
    assert story.names("DataClone", "app") == []
    assert len(story.world.snapshots) == 1


async def test_a_content_that_is_not_the_snapshot_s_own_is_not_aliased(shop):
    shop.grant()
    for name in ("asked", "secret"):
        shop.snapshot(name)
        await shop.settle()
    shown = shop.get("VolumeSnapshot", "asked")["status"]
    forged = shop.get("VolumeSnapshot", "secret")["status"]
    shop.kube.change("VolumeSnapshot", "data", "asked", lambda found: found.update(status=forged))
    shop.clone(namespace="app", source={"snapshot": "asked"})
    await shop.settle()
    said = shop.expect_stalled("DataClone", "db", "SnapshotMisbound", "app")
    assert f"VolumeSnapshot data/asked says that it is bound to {forged['boundVolumeSnapshotContentName']}" in said
    before = shop.plans("DataClone")
    await shop.operator.live(minutes=20)
    assert shop.plans("DataClone") - before < 30
    assert aliases(shop) == []
    assert shop.names("PersistentVolumeClaim", "app") == []
    shop.kube.change("VolumeSnapshot", "data", "asked", lambda found: found.update(status=shown))
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")


async def test_an_alias_that_was_deleted_by_hand_is_made_anew(shop):
    await clone_without_a_volume(shop)
    [name] = shop.names("VolumeSnapshot", "app")
    shop.delete("VolumeSnapshot", name, "app")
    shop.delete("PersistentVolumeClaim", shop.copy(namespace="app"), "app")
    shop.world.full = False
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert aliases(shop) == []


async def test_an_alias_that_does_not_become_ready_is_named_and_can_be_made_anew(shop):
    shop.grant()
    shop.snapshot("mine")
    await shop.settle()
    kept = dict(shop.world.snapshots)
    shop.world.snapshots.clear()
    shop.clone(namespace="app")
    await shop.settle()
    assert shop.reason("DataClone", "db", "app") == "SnapshotNotReady"
    await shop.operator.live(minutes=3)
    [name] = shop.names("VolumeSnapshot", "app")
    assert f"VolumeSnapshot {name} " in shop.expect_stalled("DataClone", "db", "AliasNotReady", "app")
    shop.world.snapshots.update(kept)
    shop.delete("VolumeSnapshot", name, "app")
    await shop.settle()
    shop.expect_ready("DataClone", "db", "app")
    assert aliases(shop) == []
