"""``coppice branch restore``: what deleted branches held is listed, and comes back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.fakes.person import Person
from tests.fakes.story import Story, begun


async def delete_branch(story: Story, row: str) -> str:
    """Make the branch ``feature/autumn`` with a row of its own, and delete it; return where it was."""
    story.branch("autumn", branchName="feature/autumn", deletionPolicy="Delete")
    await story.settle()
    head: str = story.commit(row, branch="feature/autumn")
    await story.operator.live(minutes=2)
    story.delete("DataBranch", "autumn")
    await story.operator.live(minutes=2)
    return head


async def _deleted_twice(story: Story) -> None:
    story.store()
    await story.settle()
    for row in ("alice", "bob"):
        await delete_branch(story, row)


@pytest.fixture
def owner() -> Person:
    """Somebody beside a store whose branch ``feature/autumn`` was made and deleted twice."""
    return Person(begun(_deleted_twice), "data")


def kept_of(owner):
    return owner.expect_json("branch", "restore", "--from", "shop")["deletedBranches"]


def rows(owner, branch="feature/autumn"):
    return owner.story.data_of().branches[branch].rows


def test_what_can_be_restored_is_listed_with_how_long(owner):
    said = owner.expect("branch", "restore", "--from", "shop")
    later, earlier = kept_of(owner)
    assert [line.split()[0] for line in said.splitlines()] == ["BRANCH", "feature/autumn", "feature/autumn"]
    assert all(entry["tag"] in said for entry in (later, earlier))
    assert later["deletedAt"] > earlier["deletedAt"]
    assert f"{later['keptUntil'][:10]} {later['keptUntil'][11:16]}" in said


def test_who_looks_at_the_store_is_told_of_them(owner):
    assert "2 that coppice branch restore can have back" in owner.expect("status", "shop")


def test_the_one_that_was_deleted_last_comes_back(owner):
    head = kept_of(owner)[0]["head"]
    assert "DataBranch data/feature-autumn: Ready" in owner.expect(
        "branch", "restore", "feature/autumn", "--from", "shop"
    )
    assert owner.story.data_of().branches["feature/autumn"].head == head
    assert "bob" in rows(owner)


def test_an_earlier_one_is_named_by_its_tag_and_both_can_be_had(owner):
    owner.expect("branch", "restore", "feature/autumn", "--from", "shop")
    said = owner.expect_refusal("branch", "restore", "feature/autumn", "--from", "shop")
    assert "already exists: choose another name" in said
    owner.expect("branch", "restore", kept_of(owner)[1]["tag"], "--from", "data/shop", "--as", "older", "--name", "old")
    assert "bob" not in rows(owner, "older")
    assert "alice" in rows(owner, "older")
    assert owner.story.get("DataBranch", "old")["spec"]["branchName"] == "older"


def test_a_branch_of_the_name_that_is_there_is_not_taken_for_it(owner):
    owner.story.branch("other", branchName="feature/autumn")
    owner.settle()
    said = owner.expect_refusal("branch", "restore", "feature/autumn", "--from", "shop")
    assert "nothing is restored: delete DataBranch data/feature-autumn" in said
    assert "bob" not in rows(owner)

    owner.story.world.tick(120)
    owner.settle()
    said = owner.expect_refusal("branch", "restore", "feature/autumn", "--from", "shop")
    assert "has a branch feature/autumn" in said
    assert "--as" in said


def test_what_is_not_kept_is_told_with_what_is(owner):
    said = owner.expect_refusal("branch", "restore", "winter", "--from", "shop")
    assert "DataStore data/shop does not keep winter, but feature/autumn;" in said
    owner.story.world.now += timedelta(days=8)
    owner.settle()
    assert "nothing is kept" in owner.expect("branch", "restore", "--from", "shop")


def test_a_branch_may_still_be_called_like_the_command(owner):
    owner.expect("branch", "--from", "shop", "restore")
    assert "restore" in owner.story.data_of().branches
