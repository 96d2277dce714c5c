"""Branches: made once from an exact version, and removed only by the object that made them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.fakes.kube import Crash

from coppice.engines.base import EngineError, UnreachableError


async def ready_store(story):
    story.store()
    await story.settle()


async def test_a_branch_starts_where_it_was_asked_to(story):
    await ready_store(story)
    first = story.commit("alice")
    story.data_of().tags["v1"] = first
    story.commit("bob")
    story.branch("tagged", source={"tag": "v1"})
    story.branch("committed", source={"commit": first})
    await story.settle()
    assert story.data_of().branches["tagged"].head == story.data_of().branches["committed"].head == first
    assert story.status("DataBranch", "tagged")["created"] is True
    assert story.status("DataBranch", "tagged")["base"] == first


async def test_a_branch_from_a_snapshot_starts_at_its_default_branch(story):
    await ready_store(story)
    head = story.commit("alice")
    story.snapshot("before")
    await story.settle()
    story.commit("bob")
    story.branch("old", source={"snapshot": "before"})
    await story.settle()
    assert story.data_of().branches["old"].head == head


@pytest.mark.parametrize(("policy", "stays"), [("Retain", True), ("Delete", False)])
async def test_deleting_the_object_keeps_or_removes_the_branch(story, policy, stays):
    await ready_store(story)
    story.branch("autumn", deletionPolicy=policy)
    await story.settle()
    story.delete("DataBranch", "autumn")
    await story.settle()
    assert story.names("DataBranch") == []
    assert ("autumn" in story.data_of().branches) is stays


async def test_what_a_deleted_branch_held_is_kept_and_can_be_had_again(story):
    await deleted_with_work(story)
    [kept] = story.status("DataStore", "shop")["deletedBranches"]
    assert kept["branch"] == "feature/autumn"
    [message] = [event.message for _, event in story.operator.log.events if event.reason == "BranchDeleted"]
    assert kept["tag"] in message
    assert "7 days" in message
    assert "coppice branch restore feature/autumn --from data/shop" in message

    story.branch("again", branchName="feature/autumn", source={"tag": kept["tag"]})
    await story.settle()
    story.expect_ready("DataBranch", "again")
    assert story.data_of().branches["feature/autumn"].head == kept["head"]
    assert "carol" in story.data_of().branches["feature/autumn"].rows


async def deleted_with_work(story):
    """Make a branch with work of its own, and delete it."""
    await ready_store(story)
    story.branch("autumn", branchName="feature/autumn", deletionPolicy="Delete")
    await story.settle()
    story.commit("carol", branch="feature/autumn")
    await story.operator.live(minutes=2)
    story.delete("DataBranch", "autumn")
    await story.operator.live(minutes=2)
    assert "feature/autumn" not in story.data_of().branches


async def test_it_goes_after_seven_days_and_not_before(story):
    await deleted_with_work(story)
    [kept] = story.status("DataStore", "shop")["deletedBranches"]
    story.world.now += timedelta(days=6, hours=23)
    await story.operator.live(minutes=2)
    assert kept["tag"] in story.data_of().tags
    story.world.now += timedelta(hours=1)
    await story.operator.live(minutes=2)
    assert story.data_of().tags == {}
    assert story.status("DataStore", "shop")["deletedBranches"] == []
    story.expect_ready("DataStore", "shop")


async def test_its_days_begin_when_it_goes_although_somebody_was_on_it_until_then(story):
    def used(done):
        raise EngineError("somebody is on the branch")

    await ready_store(story)
    story.branch("autumn", deletionPolicy="Delete")
    await story.settle()
    story.world.engine.between = used
    story.delete("DataBranch", "autumn")
    await story.operator.live(minutes=2)
    story.world.now += timedelta(days=6, hours=23)
    story.world.engine.between = lambda done: None
    await story.operator.live(minutes=2)
    assert "autumn" not in story.data_of().branches
    story.world.now += timedelta(days=6, hours=23)
    await story.operator.live(minutes=2)
    assert len(story.data_of().tags) == 1


async def test_no_other_tag_is_taken_for_a_deleted_branch(story):
    await ready_store(story)
    tags = ("coppice/deleted/autumn", "coppice/deleted/autumn/soon", "coppice/autumn-1a2b3", "deleted/autumn")
    story.data_of().tags |= dict.fromkeys(tags, story.data_of().branches["main"].head)
    story.world.now += timedelta(days=8)
    await story.operator.live(minutes=2)
    assert set(story.data_of().tags) == set(tags)
    assert story.status("DataStore", "shop")["deletedBranches"] == []


async def test_a_deletion_that_was_interrupted_keeps_one_tag_at_what_is_deleted_in_the_end(story):
    await ready_store(story)
    story.branch("autumn", deletionPolicy="Delete")
    await story.settle()
    data = story.data_of()

    def killed(done):
        story.world.engine.between = lambda done: None
        data.commit("autumn", "late", at=story.world.now)
        raise Crash

    story.world.engine.between = killed
    story.delete("DataBranch", "autumn")
    await story.operator.live(minutes=2)
    assert story.operator.crashes == 1
    assert "autumn" not in data.branches
    [(tag, head)] = data.tags.items()
    assert "late" in data.commits[head].rows
    assert [entry["tag"] for entry in story.status("DataStore", "shop")["deletedBranches"]] == [tag]


async def test_what_is_kept_is_told_while_the_server_is_silent(story):
    await deleted_with_work(story)
    told = story.status("DataStore", "shop")["deletedBranches"]
    story.world.login("data", "shop-binding").fault = UnreachableError("silence")
    await story.operator.live(minutes=2)
    assert story.status("DataStore", "shop")["deletedBranches"] == told


RELEASES = [{"branches": ["main", "release/*"]}]


async def test_no_object_makes_a_branch_that_is_protected(story):
    story.store(protection=RELEASES)
    await story.settle()
    story.branch("release-9", branchName="release/9")
    story.branch("autumn")
    await story.settle()
    message = story.expect_stalled("DataBranch", "release-9", "BranchProtected")
    assert "release/*" in message
    assert "spec.protection" in message
    story.expect_ready("DataBranch", "autumn")
    assert set(story.data_of().branches) == {"main", "autumn"}

    story.edit("DataStore", "shop", protection=[{"branches": ["main"]}])
    await story.operator.live(minutes=2)
    story.expect_ready("DataBranch", "release-9")


async def test_no_object_makes_a_protected_branch_that_was_to_be_made_before_the_rule(story):
    await ready_store(story)
    story.world.engine.refused["create-branch"] = UnreachableError("silence")
    story.branch("release-9", branchName="release/9")
    await story.settle()
    assert story.status("DataBranch", "release-9")["base"]
    story.edit("DataStore", "shop", protection=RELEASES)
    story.world.engine.refused.clear()
    await story.operator.live(minutes=2)
    story.expect_stalled("DataBranch", "release-9", "BranchProtected")
    assert "release/9" not in story.data_of().branches


async def test_a_branch_that_is_protected_since_outlives_the_object_that_made_it(story):
    await ready_store(story)
    story.branch("release-9", branchName="release/9", deletionPolicy="Delete")
    await story.settle()
    story.edit("DataStore", "shop", protection=RELEASES)
    await story.operator.live(minutes=2)
    story.expect_ready("DataBranch", "release-9")
    story.delete("DataBranch", "release-9")
    await story.settle()
    assert story.names("DataBranch") == []
    assert "release/9" in story.data_of().branches
    assert "BranchKept" in story.events("DataBranch", "release-9")


async def test_delete_never_removes_a_branch_that_was_there_before(story):
    await ready_store(story)
    story.data_of().branches["autumn"] = story.data_of().branches["main"]
    story.branch("autumn", deletionPolicy="Delete")
    await story.settle()
    story.expect_ready("DataBranch", "autumn")
    assert story.status("DataBranch", "autumn")["created"] is False
    story.delete("DataBranch", "autumn")
    await story.settle()
    assert "autumn" in story.data_of().branches


async def test_a_branch_whose_maker_was_killed_before_it_could_say_so_is_still_its_own(story):
    await ready_store(story)
    story.branch("autumn", deletionPolicy="Delete")

    def killed(action):
        story.world.engine.after_call = lambda action: None
        raise Crash

    story.world.engine.after_call = killed
    await story.settle()
    assert story.operator.crashes == 1
    assert story.status("DataBranch", "autumn")["created"] is True
    story.delete("DataBranch", "autumn")
    await story.settle()
    assert "autumn" not in story.data_of().branches


async def test_a_branch_that_somebody_else_made_elsewhere_meanwhile_is_not_taken_for_our_own(story):
    await ready_store(story)
    data = story.data_of()

    def overtaken(action):
        data.branches.setdefault("autumn", type(data.branches["main"])(data.branches["main"].head, frozenset()))
        data.commit("autumn", "theirs", at=story.world.now)

    story.world.engine.before_call = overtaken
    story.branch("autumn", deletionPolicy="Delete")
    await story.settle()
    story.world.engine.before_call = lambda action: None
    await story.operator.live(minutes=3)
    assert story.status("DataBranch", "autumn")["created"] is False
    story.delete("DataBranch", "autumn")
    await story.settle()
    assert "autumn" in data.branches


async def test_an_unknown_point_is_said_and_a_correction_recovers(story):
    await ready_store(story)
    story.branch("autumn", source={"tag": "v9"})
    await story.settle()
    assert "v9" in story.expect_stalled("DataBranch", "autumn", "UnknownVersion")
    story.data_of().tags["v9"] = story.data_of().branches["main"].head
    await story.operator.live(minutes=2)
    story.expect_ready("DataBranch", "autumn")


async def test_a_branch_that_vanished_from_the_store_is_not_made_anew(story):
    await ready_store(story)
    story.branch("autumn")
    await story.settle()
    del story.data_of().branches["autumn"]
    await story.operator.live(minutes=2)
    story.expect_stalled("DataBranch", "autumn", "BranchLost")
    assert "autumn" not in story.data_of().branches


async def test_a_store_that_does_not_answer_keeps_the_branch_and_the_object_until_it_does(story):
    await ready_store(story)
    story.branch("autumn", deletionPolicy="Delete")
    await story.settle()
    server = story.world.login("data", "shop-binding")
    server.fault = UnreachableError("silence")
    story.delete("DataBranch", "autumn")
    await story.operator.live(minutes=1)
    assert story.condition("DataBranch", "autumn")["reason"] == "Deleting"
    assert "autumn" in story.data_of().branches
    server.fault = None
    await story.operator.live(minutes=1)
    assert story.names("DataBranch") == []
    assert "autumn" not in story.data_of().branches


async def test_the_deletion_of_a_branch_ends_when_its_store_is_gone(story):
    await ready_store(story)
    story.branch("autumn", deletionPolicy="Delete")
    await story.settle()
    story.delete("DataStore", "shop")
    await story.settle()
    story.delete("DataBranch", "autumn")
    await story.settle()
    assert story.names("DataBranch") == []


async def test_a_branch_of_another_namespace_needs_the_verb(story):
    await ready_store(story)
    story.branch("autumn", namespace="app")
    await story.settle()
    assert "ask the owners" in story.expect_stalled("DataBranch", "autumn", "NotGranted", "app")
    story.grant(verbs=["Clone"])
    await story.settle()
    story.expect_stalled("DataBranch", "autumn", "NotGranted", "app")
    story.grant("branches", verbs=["Branch"])
    await story.settle()
    story.expect_ready("DataBranch", "autumn", "app")


async def test_the_head_in_status_follows_the_branch(story):
    await ready_store(story)
    story.branch("autumn")
    await story.settle()
    head = story.commit("carol", branch="autumn")
    await story.operator.live(minutes=2)
    assert story.status("DataBranch", "autumn")["head"] == head
