"""What people read of a clone where its pull request is discussed."""

from __future__ import annotations

import pytest
from tests.fakes.story import Story, begun

PULL_REQUEST = {"provider": "github", "repository": "acme/shop", "number": 42}


async def _with_clone(story: Story) -> None:
    story.store()
    story.grant()
    await story.settle()
    story.commit("alice")
    story.clone(
        namespace="app",
        pullRequest={**PULL_REQUEST, "appURL": "https://pr-42.example.com"},
        lease={"idle": "2h", "max": "3d"},
        power="Auto",
    )
    await story.settle()


@pytest.fixture
def story() -> Story:
    return begun(_with_clone)


def text(story: Story) -> str:
    comment: str = story.get("DataClone", "db", "app")["status"]["comment"]
    return comment


def test_it_says_what_the_data_are_when_it_ends_and_how_to_connect(story):
    status = story.get("DataClone", "db", "app")["status"]
    lines = text(story).splitlines()
    assert lines[:4] == ["<!-- coppice: app/db -->", "**Database `app/db`: ready**", "", "| | |"]
    rows = dict(line.strip("| ").split(" | ", 1) for line in lines[5:])
    assert rows["App"] == "https://pr-42.example.com"
    assert rows["Data"].startswith(f"`data/shop` branch `main` at `{status['source']['head'][:12]}`, as of 20")
    assert rows["Schema"] == "as it came with the data"
    assert "UTC at the latest, or after 2h without use; `coppice extend db -n app`" in rows["Ends"]
    assert rows["Connect"] == "`coppice connect db -n app`, or in the cluster with Secret `db-binding`"


async def test_a_clone_of_no_pull_request_has_none(story):
    story.clone("other", namespace="app")
    await story.settle()
    assert "comment" not in story.get("DataClone", "other", "app")["status"]


async def test_neither_time_nor_use_changes_it(story):
    before = text(story)
    for _ in range(5):
        story.world.tick(600)
        story.rows("db", namespace="app")
        await story.settle()
    assert text(story) == before


async def test_it_says_why_there_is_no_database_now(story):
    story.world.tick(4 * 24 * 3600)
    await story.settle()
    assert text(story).splitlines()[1].startswith("**Database `app/db`: Expired** (the lease ended at 20")
    assert "coppice.dev/extend-requested-at" in text(story)
    assert "| Connect |" not in text(story)


async def test_a_change_request_of_the_clone_is_linked(story):
    story.request("autumn", **{"from": {"clone": {"name": "db", "namespace": "app"}}})
    story.request("others", **{"from": {"clone": {"name": "db"}}})
    await story.settle()
    assert "| Changes | proposed in DataChangeRequest `data/autumn` |" in text(story)


async def test_nothing_in_a_name_is_markup(story):
    main = story.data_of().branches["main"]
    story.data_of().branches["a`|<b>"] = main
    story.clone("odd", namespace="app", source={"branch": "a`|<b>"}, pullRequest=PULL_REQUEST)
    story.clone("none", namespace="app", source={"branch": "]|(x)`<b>"}, pullRequest=PULL_REQUEST)
    await story.settle()
    comments = [story.get("DataClone", name, "app")["status"]["comment"] for name in ("odd", "none")]
    assert "branch `a'/<b>` at" in comments[0]
    assert ")/(x)'(b)" in comments[1]
    for comment in comments:
        outside = "".join(comment.splitlines()[1:]).split("`")[::2]
        assert not any(character in part for part in outside for character in "<[@")
