"""Branches without history: begun with one commit of all data, once, whoever dies over it or comes in between."""

from __future__ import annotations

import pytest
from tests.fakes.engine import Branch, FakeEngine
from tests.fakes.kube import Crash
from tests.fakes.merging import MergingFakeEngine
from tests.fakes.squashing import SquashingWorld
from tests.fakes.story import Story

from coppice.engines.base import EngineError


@pytest.fixture
def story() -> Story:
    return Story(SquashingWorld())


async def ready(story, **spec):
    """Have a store of which ``main`` has two commits, and ask for ``small``."""
    story.store()
    await story.settle()
    head = story.commit("alice")
    story.branch("small", history="Squashed", **spec)
    return head


async def test_it_has_the_data_in_one_commit_that_says_where_they_are_from(story):
    head = await ready(story)
    await story.settle()
    story.expect_ready("DataBranch", "small")
    data = story.data_of()
    small = data.branches["small"]
    assert data.ancestors(small.head) == [small.head]
    assert small.rows == data.branches["main"].rows
    assert f"Squash of data/shop at {head}" in data.commits[small.head].message
    assert data.branches["main"].head == head
    status = story.status("DataBranch", "small")
    assert (status["created"], status["base"], status["head"]) == (True, head, small.head)


async def test_what_is_committed_to_the_source_meanwhile_stays_there_and_is_not_in_it(story):
    head = await ready(story)
    engine = story.world.engine

    def busy(done):
        engine.between = lambda done: None
        story.commit("bob")

    engine.between = busy
    await story.settle()
    data = story.data_of()
    assert "bob" in data.branches["main"].rows
    assert "bob" not in data.branches["small"].rows
    assert story.status("DataBranch", "small")["base"] == head


async def test_while_it_takes_long_it_says_so_and_no_error(story):
    await ready(story)
    story.world.engine.rounds = 3
    seen = []
    story.world.engine.before_call = lambda action: seen.append(
        (story.condition("DataBranch", "small") or {}).get("reason")
    )
    await story.settle()
    await story.operator.live(minutes=1)
    story.expect_ready("DataBranch", "small")
    assert seen.count("Squashing") >= 3
    assert "EngineError" not in seen
    assert "EngineError" not in story.events("DataBranch", "small")


@pytest.mark.parametrize("moment", ["squash", "branch"])
async def test_an_operator_that_dies_over_it_makes_one_branch_that_is_its_own(story, moment):
    await ready(story, deletionPolicy="Delete")
    engine, data = story.world.engine, story.data_of()

    def killed(what):
        if what in {"squash", "create-squashed-branch"}:
            engine.between = engine.after_call = lambda what: None
            if moment == "branch":
                data.commit("small", "carol", at=story.world.now)
            raise Crash

    if moment == "squash":
        engine.between = killed
    else:
        engine.after_call = killed
    await story.settle()
    assert story.operator.crashes == 1
    story.expect_ready("DataBranch", "small")
    assert story.status("DataBranch", "small")["created"] is True
    assert ("carol" in data.branches["small"].rows) is (moment == "branch")
    story.delete("DataBranch", "small")
    await story.settle()
    assert "small" not in data.branches


async def test_a_branch_that_somebody_else_makes_meanwhile_is_not_moved_and_not_its_own(story):
    head = await ready(story, deletionPolicy="Delete")
    engine, data = story.world.engine, story.data_of()

    def overtaken(done):
        engine.between = lambda done: None
        data.branches["small"] = Branch(head, data.commits[head].rows)

    engine.between = overtaken
    await story.settle()
    await story.operator.live(minutes=3)
    story.expect_ready("DataBranch", "small")
    assert data.branches["small"].head == head
    assert story.status("DataBranch", "small")["created"] is False
    story.delete("DataBranch", "small")
    await story.settle()
    assert "small" in data.branches


async def test_one_that_another_object_squashed_is_not_its_own(story):
    await ready(story)
    await story.settle()
    story.branch("again", branchName="small", history="Squashed", deletionPolicy="Delete")
    await story.settle()
    story.expect_ready("DataBranch", "again")
    assert story.status("DataBranch", "again")["created"] is False


async def test_whose_it_is_stays_open_while_nobody_can_say(story):
    await ready(story)
    engine = story.world.engine

    async def silent(*_):
        raise EngineError("silence")

    engine.squash_of = silent
    await story.settle()
    assert "created" not in story.status("DataBranch", "small")
    del engine.squash_of
    await story.operator.live(minutes=2)
    assert story.status("DataBranch", "small")["created"] is True


@pytest.mark.parametrize("engine", [FakeEngine, MergingFakeEngine])
async def test_an_engine_that_cannot_is_named_and_makes_no_branch(engine):
    story = Story(engines={"fake": engine()})
    await ready(story)
    await story.settle()
    assert "fake" in story.expect_stalled("DataBranch", "small", "EngineDoesNotSquash")
    assert set(story.data_of().branches) == {"main"}


@pytest.mark.parametrize(("source", "into"), [("small", "main"), ("main", "small")])
async def test_a_change_between_it_and_a_branch_of_the_old_history_is_refused_by_name(story, source, into):
    await ready(story)
    await story.settle()
    story.commit("album/1=Blue", branch=source)
    story.request(source={"branch": source}, into=into)
    await story.settle()
    assert "clone of branch" in story.expect_stalled("DataChangeRequest", "fix", "NoCommonHistory")
