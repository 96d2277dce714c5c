"""Checks of a request that are programs: each runs once on what would be published, and nothing is before they pass."""

import pytest
from tests.fakes.story import Story, begun

AUTHOR, REVIEWER = "anna@example.com", "bob@example.com"
OLD, NEW, OTHER = "price/1=4711", "price/1=4712", "price/2=20"


def protection(*templates, **more):
    checks = [{"name": f"of-{name}", "jobTemplate": name} for name in templates]
    return [{"branches": ["main"], "approvals": 1, "checks": checks, **more}]


async def _with_clone(story: Story) -> None:
    story.policies()
    story.store(protection=protection("smoke"))
    await story.settle()
    story.commit(OLD, OTHER)
    story.clone()
    await story.settle()
    branch = story.world.login("data", "db-binding").volume.branches["main"]
    branch.rows = (branch.rows - {OLD}) | {NEW}
    story.world.tick(60)


@pytest.fixture
def story() -> Story:
    """Return a story in which a price was changed on a clone, and the store's owners have a program to check that."""
    return begun(_with_clone)


def status(story):
    return story.status("DataChangeRequest", "fix")


def check(story, name="of-smoke"):
    [found] = [entry for entry in status(story)["checks"] if entry["name"] == name]
    return found


def said(story):
    return story.condition("DataChangeRequest", "fix", of="ChecksPassed")


def jobs(story, *templates):
    return [name for name in story.names("Job") if name not in (templates or ("smoke",))]


async def test_a_check_runs_once_on_the_merged_data_before_anything_is_published(story):
    story.job("smoke", "price/9")
    story.request()
    await story.settle()
    assert (said(story)["status"], said(story)["reason"]) == ("True", "ChecksPassed")
    assert story.world.checked == [("example.com/loader", {NEW, OTHER})]
    found = check(story)
    assert (found["passed"], found["result"], found["job"]) == (True, status(story)["result"], jobs(story)[0])
    assert found["finishedAt"]
    story.review()
    await story.settle()
    story.expect_ready("DataChangeRequest", "fix")
    assert len(story.world.checked) == 1
    assert jobs(story) == []
    assert not [name for name in story.names("Secret") if name.startswith("fix-check")]
