"""Branches of an engine that keeps none: clones are committed to a line of DataSnapshots, and cloned again.

Whatever these stories do, the world looks on: a commit that was captured while a server held back what it had
acknowledged, or that says of its rows what is not so, is a violation (``tests.fakes.world``).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.fakes.audit import orphans
from tests.fakes.engine import is_masked
from tests.fakes.story import Story, begun

from coppice.core import labels
from coppice.core.names import handover_name
from coppice.engines.base import UnreachableError
from coppice.reconcile.clone.names import engine_secret_name

DURABLE = {"durability": "Durable"}


async def _open(story: Story) -> None:
    engine = story.world.engine
    engine.versioned, engine.maskable, engine.capture_action = False, True, "flush"
    story.store()
    story.grant()
    await story.settle()
    story.commit("alice")


async def _with_clone(story: Story) -> None:
    await _open(story)
    story.clone(**DURABLE)
    await story.settle()
    work(story, "mine")
    story.world.tick(60)


async def _next_door(story: Story) -> None:
    await _open(story)
    story.clone(namespace="app", **DURABLE)
    await story.settle()
    work(story, "mine", namespace="app")
    story.world.tick(60)


@pytest.fixture
def shop() -> Story:
    """A store of an engine without branches, and a Durable clone of it that somebody has worked in."""
    return begun(_with_clone)


@pytest.fixture
def next_door() -> Story:
    """The same with the clone in another namespace."""
    return begun(_next_door)


@pytest.fixture
def empty() -> Story:
    """The store alone."""
    return begun(_open)


def work(story: Story, *rows: str, clone: str = "db", namespace: str = "data") -> None:
    """Write to a clone as an app does."""
    server = story.world.login(namespace, f"{clone}-binding")
    server.volume.commit("main", *rows, at=story.world.now)


def parent_of(story: Story, clone: str = "db", namespace: str = "data") -> str:
    """Return the DataSnapshot that a clone was made from, as its status tells."""
    return str(story.status("DataClone", clone, namespace)["snapshot"]["name"])


async def commit(story: Story, name: str, *, clone: str = "db", namespace: str = "data") -> None:
    story.commit_clone(name, parent_of(story, clone, namespace), clone=clone, namespace=namespace)
    await story.settle()


def capture(story: Story, name: str = "feature-1", namespace: str = "app") -> str:
    return handover_name(story.get("DataSnapshot", name)["metadata"]["uid"], namespace)


async def until(story: Story, kind: str, name: str, namespace: str) -> None:
    """Let operator and world act until an object is there."""
    for _ in range(200):
        if story.kube.peek(kind, namespace, name) is not None:
            return
        await story.operator.run_due()
        if story.kube.peek(kind, namespace, name) is None:
            story.world.turn()
            story.world.tick(1)
    raise AssertionError(f"there never was a {kind} {namespace}/{name}")


async def snapshots_go_on(story: Story, count: int, *, since: int = 0) -> None:
    """Have the store make snapshots, each of other rows, and drop those that are no longer kept."""
    for number in range(since, since + count):
        story.commit(f"row-{number}")
        story.clone(f"more-{number}")
        await story.operator.live(minutes=15)


def hold(story: Story, kind: str, name: str, namespace: str | None = None) -> None:
    """Put a finalizer of somebody's on an object."""
    story.kube.change(
        kind, namespace, name, lambda found: found["metadata"].setdefault("finalizers", []).append("example.com/hold")
    )


def release(story: Story, kind: str, name: str, namespace: str | None = None) -> None:
    """Take it away, and let the object go."""
    story.kube.change(kind, namespace, name, lambda found: found["metadata"]["finalizers"].remove("example.com/hold"))


def aliases(story: Story) -> list[frozenset[str]]:
    """Return the rows of all that is aliased in another namespace from now on."""
    handed: list[frozenset[str]] = []

    def note(event: str, found: Any) -> None:
        handle = found["spec"]["source"].get("snapshotHandle") if found["kind"] == "VolumeSnapshotContent" else None
        if event == "ADDED" and handle is not None:
            handed.append(story.world.snapshots[handle].branches["main"].rows)

    story.kube.subscribe(note)
    return handed


def nothing_left(story: Story) -> None:
    """Expect nothing but what stays: no object of a commit, no bytes that no object stands for."""
    assert story.names("VolumeSnapshot", "app") == []
    assert all(found["spec"]["deletionPolicy"] == "Delete" for found in story.kube.all("VolumeSnapshotContent"))
    assert orphans(story.world) == []


# -- a day with branches --


async def test_what_a_clone_holds_is_committed_and_cloned_again(shop):
    first = parent_of(shop)
    await commit(shop, "feature-1")
    shop.expect_ready("DataSnapshot", "feature-1")
    status, clone = shop.status("DataSnapshot", "feature-1"), shop.get("DataClone", "db")
    assert status["commit"] == {
        "sequence": 1,
        "parentUID": shop.get("DataSnapshot", first)["metadata"]["uid"],
        "clone": "data/db",
        "cloneUID": clone["metadata"]["uid"],
    }
    assert status["data"] == "Raw"
    shop.clone("other", source={"branch": "feature"})
    await shop.settle()
    assert shop.rows("other") == {"alice", "mine"}
    assert shop.status("DataClone", "other")["source"]["branch"] == "feature"
    assert shop.rows("db") == {"alice", "mine"}
    nothing_left(shop)


async def test_a_clone_next_door_is_committed_and_nothing_stays_there(next_door):
    before = sorted(map(str, next_door.names("PersistentVolumeClaim", "app")))
    await commit(next_door, "feature-1", namespace="app")
    next_door.expect_ready("DataSnapshot", "feature-1")
    assert next_door.status("DataSnapshot", "feature-1")["commit"]["clone"] == "app/db"
    next_door.clone("other", source={"branch": "feature"})
    await next_door.settle()
    assert next_door.rows("other") == {"alice", "mine"}
    assert sorted(next_door.names("PersistentVolumeClaim", "app")) == before
    assert labels.FINALIZER not in next_door.get("DataSnapshot", "feature-1")["metadata"].get("finalizers", [])
    nothing_left(next_door)


async def test_a_branch_goes_on_from_a_clone_of_its_newest_commit(shop):
    await commit(shop, "feature-1")
    shop.clone("two", source={"branch": "feature"}, **DURABLE)
    await shop.settle()
    work(shop, "more", clone="two")
    shop.world.tick(60)
    await commit(shop, "feature-2", clone="two")
    shop.expect_ready("DataSnapshot", "feature-2")
    assert shop.get("DataSnapshot", "feature-2")["spec"]["commit"]["parent"] == "feature-1"
    shop.clone("three", source={"branch": "feature"})
    await shop.settle()
    assert shop.rows("three") == {"alice", "mine", "more"}


async def test_a_clone_that_follows_a_branch_gets_each_commit_and_a_reset_takes_the_newest(shop):
    await commit(shop, "feature-1")
    shop.clone("follower", source={"branch": "feature"}, refresh="OnHeadChange")
    shop.clone("two", source={"branch": "feature"}, **DURABLE)
    shop.clone("still", source={"branch": "feature"})
    await shop.settle()
    work(shop, "more", clone="two")
    shop.world.tick(120)
    await commit(shop, "feature-2", clone="two")
    await shop.operator.live(minutes=3)
    assert shop.rows("follower") == {"alice", "mine", "more"}
    assert shop.rows("still") == {"alice", "mine"}
    shop.annotate("DataClone", "still", reset="now")
    await shop.settle()
    assert shop.rows("still") == {"alice", "mine", "more"}


async def test_the_store_s_own_line_knows_nothing_of_commits(shop):
    await commit(shop, "feature-1")
    shop.clone("fresh")
    await shop.settle()
    assert shop.rows("fresh") == {"alice"}
    assert shop.status("DataStore", "shop")["lastSnapshot"]["name"].startswith("shop-")
    shop.clone("old", source={"time": "2027-01-01T00:00:00Z"})
    await shop.settle()
    assert shop.rows("old") == {"alice"}


async def test_a_commit_that_is_held_up_holds_up_nobody_else(shop):
    shop.commit_clone("feature-1", "nothing-1")
    await shop.settle()
    shop.commit("bob")
    shop.clone("fresh")
    await shop.settle()
    assert shop.rows("fresh") == {"alice", "bob"}


async def test_a_head_names_a_commit(shop):
    await commit(shop, "feature-1")
    head = shop.status("DataSnapshot", "feature-1")["branches"][0]["head"]
    shop.clone("exact", source={"commit": head})
    await shop.settle()
    assert shop.rows("exact") == {"alice", "mine"}


async def test_an_unknown_branch_is_named_with_those_there_are(shop):
    await commit(shop, "feature-1")
    shop.clone("other", source={"branch": "faeture"})
    await shop.settle()
    message = shop.expect_stalled("DataClone", "other", "UnknownVersion")
    assert "there are: main, feature." in message
    assert "spec.commit" in message


async def test_a_branch_that_may_not_be_had_is_not_named(shop):
    await commit(shop, "feature-1")
    shop.edit("DataGrant", "previews", data="Masked")
    shop.clone("other", namespace="app", source={"branch": "faeture"})
    await shop.settle()
    assert "there are: main." in shop.expect_stalled("DataClone", "other", "UnknownVersion", "app")


async def test_a_branch_of_an_earlier_store_of_the_name_is_neither_named_nor_waited_for(shop):
    await commit(shop, "feature-1")
    shop.delete("DataStore", "shop")
    await shop.settle()
    shop.store()
    await shop.settle()
    shop.clone("other", source={"branch": "feature"})
    await shop.settle()
    assert "there are: main." in shop.expect_stalled("DataClone", "other", "UnknownVersion")


async def test_a_branch_whose_first_commit_is_on_its_way_is_waited_for(empty):
    empty.clone(power="Auto")
    await empty.settle()
    empty.world.tick(60)
    await commit(empty, "feature-1")
    empty.expect_stalled("DataSnapshot", "feature-1", "CloneNotDurable")
    empty.clone("other", source={"branch": "feature"})
    await empty.settle()
    assert empty.reason("DataClone", "other") == "SnapshotPending"
    empty.edit("DataClone", "db", power="Off")
    await empty.settle()
    empty.expect_ready("DataClone", "other")


async def test_commits_are_kept_and_so_is_what_a_durable_clone_came_from(shop):
    first = parent_of(shop)
    shop.edit("DataStore", "shop", snapshots={"keep": {"last": 1}})
    await commit(shop, "feature-1")
    await snapshots_go_on(shop, 4)
    names = shop.names("DataSnapshot", "data")
    assert "feature-1" in names
    assert first in names
    shop.delete("DataClone", "db")
    shop.commit("last")
    shop.clone("last")
    await shop.operator.live(minutes=15)
    assert "feature-1" in shop.names("DataSnapshot", "data")
    assert first not in shop.names("DataSnapshot", "data")


async def test_the_parent_of_a_commit_that_waits_is_kept_until_it_is_made(empty):
    empty.edit("DataStore", "shop", snapshots={"keep": {"last": 1}})
    empty.clone()
    await empty.settle()
    work(empty, "mine")
    empty.world.tick(60)
    first = parent_of(empty)
    await commit(empty, "feature-1")
    empty.expect_stalled("DataSnapshot", "feature-1", "CloneNotDurable")
    await snapshots_go_on(empty, 4)
    empty.edit("DataClone", "db", power="Off")
    await empty.settle()
    empty.expect_ready("DataSnapshot", "feature-1")
    await snapshots_go_on(empty, 1, since=4)
    assert first not in empty.names("DataSnapshot")


async def test_what_the_next_copy_of_a_durable_clone_comes_from_is_kept_before_it_serves(shop):
    shop.edit("DataStore", "shop", snapshots={"keep": {"last": 1}})
    shop.commit("bob")
    failing = shop.copy(2)
    shop.world.crashing = lambda pod: pod["metadata"]["name"] == failing
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    first = parent_of(shop)
    await snapshots_go_on(shop, 4)
    assert parent_of(shop) == first
    shop.world.crashing = lambda pod: False
    await shop.operator.live(minutes=10)
    assert parent_of(shop) != first
    shop.world.tick(60)
    await commit(shop, "feature-1")
    shop.expect_ready("DataSnapshot", "feature-1")


# -- what makes it safe --


async def test_a_running_server_makes_ready_right_before_the_capture(shop):
    seen = []
    before = shop.names("VolumeSnapshot")
    shop.world.engine.before_call = lambda action: seen.append((action, shop.names("VolumeSnapshot")))
    await commit(shop, "feature-1")
    assert [entry for entry in seen if entry[0] == "flush"] == [("flush", before)]


async def commit_that_waits(story):
    """Commit the clone next door: its server is waited for and it is named, nothing is captured, and nothing is hot."""
    await commit(story, "feature-1", namespace="app")
    await story.operator.live(minutes=5)
    assert story.reason("DataSnapshot", "feature-1") == "CloneNotAnswering"
    assert "app/db" in story.condition("DataSnapshot", "feature-1")["message"]
    assert story.names("VolumeSnapshot", "app") == []
    before = story.plans("DataSnapshot")
    await story.operator.live(minutes=10)
    assert story.plans("DataSnapshot") - before < 60


async def test_a_server_that_does_not_answer_is_waited_for_and_the_clone_named(next_door):
    server = next_door.world.login("app", "db-binding")
    server.fault = UnreachableError("connection refused")
    await commit_that_waits(next_door)
    server.fault = None
    await next_door.operator.live(minutes=2)
    next_door.expect_ready("DataSnapshot", "feature-1")


async def test_a_server_whose_credentials_are_gone_is_waited_for_and_the_clone_named(next_door):
    clone = next_door.get("DataClone", "db", "app")["metadata"]
    next_door.delete("Secret", engine_secret_name("db", clone["uid"]), "app")
    await commit_that_waits(next_door)


async def test_a_clone_that_is_off_is_committed_without_a_server(empty):
    empty.clone(namespace="app")
    await empty.settle()
    work(empty, "mine", namespace="app")
    empty.edit("DataClone", "db", "app", power="Off")
    await empty.settle()
    empty.world.tick(60)
    calls = list(empty.world.engine.calls)
    await commit(empty, "feature-1", namespace="app")
    empty.expect_ready("DataSnapshot", "feature-1")
    assert empty.world.engine.calls == calls
    empty.clone("other", source={"branch": "feature"})
    await empty.settle()
    assert empty.rows("other") == {"alice", "mine"}


async def test_a_fast_clone_that_runs_is_refused_and_nothing_is_captured(empty):
    empty.clone(namespace="app")
    await empty.settle()
    empty.world.tick(60)
    await commit(empty, "feature-1", namespace="app")
    message = empty.expect_stalled("DataSnapshot", "feature-1", "CloneNotDurable")
    assert "app/db" in message
    assert "power to Off" in message
    assert empty.names("VolumeSnapshot", "app") == []


async def test_the_server_of_a_fast_clone_is_gone_and_its_volume_unmounted_first(empty):
    empty.clone(namespace="app", power="Off")
    empty.clone("on", namespace="app")
    await empty.settle()
    empty.edit("DataClone", "on", "app", power="Off")
    await empty.settle()
    claim = empty.get("PersistentVolumeClaim", empty.copy(1, "on", "app"), "app")
    empty.kube.add(
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "VolumeAttachment",
            "metadata": {"name": "csi-1"},
            "spec": {"source": {"persistentVolumeName": claim["spec"]["volumeName"]}},
        }
    )
    empty.world.tick(60)
    await commit(empty, "feature-1", clone="on", namespace="app")
    assert empty.reason("DataSnapshot", "feature-1") == "CloneStopping"
    empty.delete("VolumeAttachment", "csi-1", None)
    await empty.settle()
    empty.expect_ready("DataSnapshot", "feature-1")


async def test_a_fast_clone_that_is_turned_on_while_it_is_captured_makes_no_commit(empty):
    empty.clone(namespace="app")
    await empty.settle()
    empty.edit("DataClone", "db", "app", power="Off")
    await empty.settle()
    empty.world.tick(60)
    empty.commit_clone("feature-1", parent_of(empty, namespace="app"), namespace="app")
    await until(empty, "VolumeSnapshot", capture(empty), "app")
    empty.edit("DataClone", "db", "app", power="On")
    await empty.operator.live(minutes=1)
    empty.expect_stalled("DataSnapshot", "feature-1", "CloneNotDurable")
    nothing_left(empty)
    empty.edit("DataClone", "db", "app", power="Off")
    await empty.settle()
    empty.expect_ready("DataSnapshot", "feature-1")


async def test_masked_rows_stay_masked_and_keep_their_record(story):
    engine = story.world.engine
    engine.versioned, engine.maskable = False, True
    story.mask_job("customer")
    story.store(mask={"jobTemplate": "shop-mask"})
    story.grant(data="Masked")
    await story.settle()
    story.commit("customer/alice", "order/1")
    story.clone(namespace="app", **DURABLE)
    await story.settle()
    work(story, "order/2", namespace="app")
    story.world.tick(60)
    await commit(story, "feature-1", namespace="app")
    story.expect_ready("DataSnapshot", "feature-1")
    parent, status = (
        story.status("DataSnapshot", parent_of(story, namespace="app")),
        story.status("DataSnapshot", "feature-1"),
    )
    assert (status["data"], status["mask"]) == ("Masked", parent["mask"])
    assert "sourceHead" not in status["branches"][0]
    story.edit("DataStore", "shop", mask=None)
    story.clone("two", namespace="app", source={"branch": "feature"}, **DURABLE)
    await story.settle()
    rows = story.rows("two", "app")
    assert {row for row in rows if row.startswith("customer/")} == {row for row in rows if is_masked(row)}
    assert "order/2" in rows
    story.world.tick(60)
    await commit(story, "feature-2", clone="two", namespace="app")
    assert story.status("DataSnapshot", "feature-2")["data"] == "Masked"


async def test_raw_rows_stay_raw_whatever_the_store_masks_since(shop):
    shop.mask_job()
    shop.edit("DataStore", "shop", mask={"jobTemplate": "shop-mask"})
    await commit(shop, "feature-1")
    assert shop.status("DataSnapshot", "feature-1")["data"] == "Raw"
    shop.edit("DataGrant", "previews", data="Masked")
    shop.clone("other", namespace="app", source={"branch": "feature"})
    await shop.settle()
    shop.expect_stalled("DataClone", "other", "MaskedOnly", "app")


async def test_what_a_clone_s_namespace_writes_on_a_capture_is_not_believed(next_door):
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    await until(next_door, "VolumeSnapshot", capture(next_door), "app")

    def forge(found):
        pin = json.loads(found["metadata"]["annotations"][labels.SOURCE])
        forged = json.dumps({**pin, "mask": {"jobTemplate": "none"}})
        found["metadata"]["annotations"][labels.SOURCE] = forged

    next_door.kube.change("VolumeSnapshot", "app", capture(next_door), forge)
    await next_door.operator.live(minutes=1)
    next_door.expect_ready("DataSnapshot", "feature-1")
    assert next_door.status("DataSnapshot", "feature-1")["data"] == "Raw"


async def test_what_stands_on_the_raw_snapshot_is_worked_out_again_when_it_was_changed(next_door):
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    await until(next_door, "VolumeSnapshot", "feature-1-raw", "data")
    next_door.kube.change(
        "VolumeSnapshot", "data", "feature-1-raw", lambda found: found["metadata"]["annotations"].pop(labels.SOURCE)
    )
    await next_door.settle()
    next_door.expect_ready("DataSnapshot", "feature-1")
    nothing_left(next_door)


async def test_a_capture_of_another_claim_is_not_handed_over(next_door):
    next_door.clone("other", namespace="app", **DURABLE)
    await next_door.settle()
    work(next_door, "theirs", clone="other", namespace="app")
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    await until(next_door, "VolumeSnapshot", capture(next_door), "app")
    made = next_door.get("VolumeSnapshot", capture(next_door), "app")
    source = {"persistentVolumeClaimName": next_door.copy(1, "other", "app")}
    next_door.kube.remove("VolumeSnapshot", "app", capture(next_door))
    told = {key: made["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}
    next_door.kube.add({**made, "metadata": told, "spec": {**made["spec"], "source": source}, "status": {}})
    handed = aliases(next_door)
    await next_door.operator.live(minutes=2)
    next_door.expect_ready("DataSnapshot", "feature-1")
    assert handed == [{"alice", "mine"}]


async def test_a_content_that_is_not_the_capture_s_own_is_not_handed_over(next_door):
    next_door.commit("bob")
    next_door.snapshot("secret")
    await next_door.settle()
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    await until(next_door, "VolumeSnapshot", capture(next_door), "app")
    forged = next_door.get("VolumeSnapshot", "secret")["status"]
    next_door.kube.change("VolumeSnapshot", "app", capture(next_door), lambda found: found.update(status=forged))
    handed = aliases(next_door)
    await next_door.operator.live(minutes=2)
    next_door.expect_ready("DataSnapshot", "feature-1")
    assert handed == [{"alice", "mine"}]


async def test_a_volume_of_something_else_is_found_out_by_its_marker(next_door):
    next_door.world.volume("app", next_door.copy(1, "db", "app")).marker = "uid-strange"
    await commit(next_door, "feature-1", namespace="app")
    next_door.expect_stalled("DataSnapshot", "feature-1", "PreparationFailed")


# -- what is refused --


async def test_another_namespace_needs_the_verb_branch(next_door):
    next_door.edit("DataGrant", "previews", verbs=["Clone"])
    await commit(next_door, "feature-1", namespace="app")
    message = next_door.expect_stalled("DataSnapshot", "feature-1", "NotGranted")
    assert "namespace app" in message
    assert next_door.names("VolumeSnapshot", "app") == []
    next_door.edit("DataGrant", "previews", verbs=["Clone", "Branch"])
    await next_door.settle()
    next_door.expect_ready("DataSnapshot", "feature-1")


async def test_a_clone_of_an_older_commit_cannot_go_on_with_the_branch(shop):
    await commit(shop, "feature-1")
    for name in ("two", "three"):
        shop.clone(name, source={"branch": "feature"}, **DURABLE)
    await shop.settle()
    shop.world.tick(60)
    await commit(shop, "feature-2", clone="two")
    shop.commit_clone("feature-3", "feature-2", clone="three")
    await shop.settle()
    assert "feature-1" in shop.expect_stalled("DataSnapshot", "feature-3", "NotOfParent")
    # A reset would make it fit, without the work that was meant.
    shop.annotate("DataClone", "three", reset="now")
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "feature-3", "CloneReplaced")


async def test_a_number_that_was_used_is_not_used_again_behind_the_branch(shop):
    await commit(shop, "feature-1")
    shop.clone("two", source={"branch": "feature"}, **DURABLE)
    await shop.settle()
    shop.world.tick(60)
    await commit(shop, "feature-2", clone="two")
    first = parent_of(shop)
    shop.delete("DataSnapshot", "feature-1")
    await shop.settle()
    shop.commit_clone("feature-1", first)
    await shop.settle()
    message = shop.expect_stalled("DataSnapshot", "feature-1", "BranchMovedOn")
    assert "feature-3" in message
    shop.expect_ready("DataSnapshot", "feature-2")


async def test_a_branch_of_another_store_of_the_namespace_is_another_branch(shop):
    shop.store("hr")
    commit_of_theirs = {"branch": "feature", "parent": "feature-8"}
    reference = {"store": {"name": "hr"}, "from": {"clone": {"name": "nothing"}}, "commit": commit_of_theirs}
    shop.add("DataSnapshot", "feature-9", reference, "data")
    await shop.settle()
    await commit(shop, "feature-1")
    shop.expect_ready("DataSnapshot", "feature-1")


async def test_another_parent_of_the_same_name_is_another_one(shop):
    await commit(shop, "feature-1")
    shop.clone("two", source={"branch": "feature"}, **DURABLE)
    await shop.settle()
    shop.world.tick(60)
    first = parent_of(shop)
    shop.delete("DataSnapshot", "feature-1")
    await shop.settle()
    shop.commit_clone("feature-1", first)
    await shop.settle()
    shop.expect_ready("DataSnapshot", "feature-1")
    shop.commit_clone("feature-2", "feature-1", clone="two")
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "feature-2", "NotOfParent")


async def test_a_parent_that_is_not_there_or_no_commit_is_named(shop):
    shop.commit_clone("feature-1", "nothing")
    await shop.settle()
    assert "nothing" in shop.expect_stalled("DataSnapshot", "feature-1", "ParentNotFound")
    shop.snapshot("stray-1")
    shop.commit_clone("stray-2", "stray-1")
    await shop.settle()
    assert "stray-1" in shop.expect_stalled("DataSnapshot", "stray-2", "ParentNotOnBranch")


async def test_a_parent_on_its_way_is_waited_for(shop):
    shop.world.snapshot_error = "no room"
    shop.snapshot("mine")
    shop.commit_clone("feature-1", "mine")
    await shop.settle()
    assert shop.reason("DataSnapshot", "feature-1") == "ParentNotReady"


async def test_a_clone_of_another_store_or_none_is_named(shop):
    first = parent_of(shop)
    shop.store("other")
    await shop.settle()
    shop.clone("strange", store="other", **DURABLE)
    await shop.settle()
    shop.world.tick(60)
    shop.commit_clone("feature-1", first, clone="strange")
    shop.commit_clone("lost-1", first, clone="lost")
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "feature-1", "CloneOfAnotherStore")
    assert "data/lost" in shop.expect_stalled("DataSnapshot", "lost-1", "CloneNotFound")


async def test_an_engine_with_branches_of_its_own_has_no_need(shop):
    shop.world.engine.versioned = True
    await commit(shop, "feature-1")
    assert "DataBranch" in shop.expect_stalled("DataSnapshot", "feature-1", "EngineHasBranches")
    shop.delete("DataSnapshot", "feature-1")
    await shop.settle()
    assert "feature-1" not in shop.names("DataSnapshot")


async def test_a_store_made_anew_is_another_one(shop):
    first = parent_of(shop)
    shop.delete("DataStore", "shop")
    await shop.settle()
    shop.store()
    await shop.settle()
    shop.commit_clone("feature-1", first)
    await shop.settle()
    shop.expect_stalled("DataSnapshot", "feature-1", "StoreReplaced")


async def test_a_clone_that_is_made_after_the_commit_was_asked_for_is_not_meant(shop):
    first = parent_of(shop)
    shop.delete("DataClone", "db")
    await shop.settle()
    shop.commit_clone("feature-1", first)
    await shop.settle()
    shop.clone(source={"snapshot": first}, **DURABLE)
    await shop.operator.live(minutes=10)
    shop.expect_ready("DataClone", "db")
    shop.expect_stalled("DataSnapshot", "feature-1", "CloneReplaced")


async def test_a_copy_that_was_brought_back_since_is_not_what_was_meant(next_door):
    next_door.edit("DataGrant", "previews", verbs=["Clone"])
    next_door.annotate("DataClone", "db", "app", reset="now")
    await next_door.settle()
    next_door.world.tick(60)
    await commit(next_door, "feature-1", namespace="app")
    next_door.world.tick(5)
    next_door.annotate("DataClone", "db", "app", undo="now")
    await next_door.settle()
    assert next_door.rows(namespace="app") == {"alice", "mine"}
    next_door.edit("DataGrant", "previews", verbs=["Clone", "Branch"])
    await next_door.settle()
    next_door.expect_stalled("DataSnapshot", "feature-1", "CloneReplaced")


async def test_a_copy_that_is_being_replaced_is_not_committed(shop):
    shop.world.broken_images.add("example.com/fake:1.0")
    shop.annotate("DataClone", "db", reset="now")
    await shop.settle()
    await commit(shop, "feature-1")
    assert shop.reason("DataSnapshot", "feature-1") == "CloneNotReady"


# -- what happens meanwhile --


@pytest.mark.parametrize("stage", ["VolumeSnapshot app", "VolumeSnapshot data", "PersistentVolumeClaim data"])
@pytest.mark.parametrize("what", ["clone", "namespace", "commit", "reset"])
async def test_whatever_goes_on_the_way_makes_no_wrong_commit_and_leaves_nothing(next_door, stage, what):
    kind, namespace = stage.split()
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    names = {"app": capture(next_door), "data": "feature-1-raw"}
    name = "feature-1-scratch" if kind == "PersistentVolumeClaim" else names[namespace]
    await until(next_door, kind, name, namespace)
    if what == "clone":
        next_door.delete("DataClone", "db", "app")
    elif what == "namespace":
        next_door.kube.remove_namespace("app")
    elif what == "commit":
        next_door.delete("DataSnapshot", "feature-1")
    else:
        next_door.annotate("DataClone", "db", "app", reset="now")
    await next_door.operator.live(minutes=5)
    if what == "commit":
        assert "feature-1" not in next_door.names("DataSnapshot")
    elif next_door.is_ready("DataSnapshot", "feature-1"):
        [kept] = [volume for volume in next_door.world.snapshots.values() if "mine" in volume.branches["main"].rows]
        assert kept.branches["main"].rows == {"alice", "mine"}
    else:
        reason = next_door.reason("DataSnapshot", "feature-1")
        assert reason in {"CloneNotFound", "CaptureLost"}
        assert what in {"clone", "namespace"}
        next_door.expect_stalled("DataSnapshot", "feature-1", reason)
        next_door.delete("DataSnapshot", "feature-1")
        await next_door.settle()
    nothing_left(next_door)


async def test_a_capture_that_its_namespace_holds_does_not_hold_the_commit(next_door):
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    name = capture(next_door)
    await until(next_door, "VolumeSnapshot", name, "app")
    hold(next_door, "VolumeSnapshot", name, "app")
    next_door.delete("DataSnapshot", "feature-1")
    await next_door.settle()
    assert "feature-1" not in next_door.names("DataSnapshot")
    release(next_door, "VolumeSnapshot", name, "app")
    await next_door.settle()
    nothing_left(next_door)


async def test_a_capture_that_was_made_another_s_does_not_hold_the_commit(next_door):
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    name = capture(next_door)
    await until(next_door, "VolumeSnapshot", name, "app")
    next_door.kube.change("VolumeSnapshot", "app", name, lambda found: found["metadata"].pop("labels"))
    next_door.delete("DataSnapshot", "feature-1")
    await next_door.settle()
    assert "feature-1" not in next_door.names("DataSnapshot")
    assert name in next_door.names("VolumeSnapshot", "app")


async def test_an_alias_that_nobody_ends_is_named_and_not_asked_for_all_the_time(next_door):
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    alias = handover_name(next_door.get("DataSnapshot", "feature-1")["metadata"]["uid"], "")
    await until(next_door, "VolumeSnapshotContent", alias, None)
    hold(next_door, "VolumeSnapshotContent", alias)
    next_door.delete("DataSnapshot", "feature-1")
    await next_door.settle()
    found = next_door.condition("DataSnapshot", "feature-1")
    assert found["reason"] == "Deleting"
    assert f"VolumeSnapshotContent {alias}" in found["message"]
    before = next_door.plans("DataSnapshot")
    await next_door.operator.live(minutes=10)
    assert next_door.plans("DataSnapshot") - before < 40
    release(next_door, "VolumeSnapshotContent", alias)
    await next_door.settle()
    assert "feature-1" not in next_door.names("DataSnapshot")
    nothing_left(next_door)


async def test_a_capture_that_goes_and_is_held_is_named(next_door):
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    name = capture(next_door)
    await until(next_door, "VolumeSnapshot", name, "app")
    hold(next_door, "VolumeSnapshot", name, "app")
    next_door.delete("VolumeSnapshot", name, "app")
    before = next_door.plans("DataSnapshot")
    await next_door.operator.live(minutes=10)
    assert f"app/{name}" in next_door.expect_stalled("DataSnapshot", "feature-1", "CaptureHeld")
    assert next_door.plans("DataSnapshot") - before < 60
    release(next_door, "VolumeSnapshot", name, "app")
    await next_door.settle()
    next_door.expect_ready("DataSnapshot", "feature-1")


async def test_a_capture_whose_pin_is_spoiled_each_time_is_not_made_anew_all_the_time(next_door):
    next_door.commit_clone("feature-1", parent_of(next_door, namespace="app"), namespace="app")
    made = []

    def spoil(event, found):
        ours = found["kind"] == "VolumeSnapshot" and found["metadata"].get("namespace") == "app"
        if event == "ADDED" and ours:
            made.append(found["metadata"]["name"])

    next_door.kube.subscribe(spoil)
    for _ in range(600):
        for name in next_door.names("VolumeSnapshot", "app"):
            next_door.kube.change(
                "VolumeSnapshot", "app", name, lambda found: found["metadata"].update(annotations={labels.SOURCE: "{}"})
            )
        await next_door.operator.run_due()
        next_door.world.turn()
        next_door.world.tick(1)
    assert "app/" in next_door.condition("DataSnapshot", "feature-1")["message"]
    assert next_door.reason("DataSnapshot", "feature-1") == "CloneChanged"
    assert 1 < len(made) < 25
    await next_door.operator.live(minutes=5)
    next_door.expect_ready("DataSnapshot", "feature-1")
