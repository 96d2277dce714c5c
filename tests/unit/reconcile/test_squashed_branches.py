"""Branches without history: begun with one commit of all data, once, whoever dies over it or comes in between."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.fakes.engine import Branch, FakeEngine
from tests.fakes.kube import Crash
from tests.fakes.merging import MergingFakeEngine
from tests.fakes.squashing import SquashingWorld
from tests.fakes.story import Story

from coppice.api.v1alpha1 import DataStore
from coppice.engines.base import EngineError
from coppice.engines.squashing import SQUASH_ACTION, SQUASH_TAGS
from coppice.reconcile import squashtries


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


async def test_a_branch_of_which_nobody_can_say_whose_it_is_is_not_left_by_its_deletion(story):
    await ready(story, deletionPolicy="Delete")
    engine, data = story.world.engine, story.data_of()

    async def silent(*_):
        raise EngineError("silence")

    engine.squash_of = silent
    await story.settle()
    story.delete("DataBranch", "small")
    await story.operator.live(minutes=2)
    assert "small" in data.branches
    message = story.condition("DataBranch", "small")["message"]
    assert "silence" in message
    assert "Retain" in message
    del engine.squash_of
    await story.operator.live(minutes=1)
    assert story.names("DataBranch") == []
    assert "small" not in data.branches


async def test_one_that_fails_is_tried_again_after_growing_pauses_and_no_more_than_three_times(story):
    head = await ready(story)
    engine = story.world.engine
    engine.failing = 9
    tried = []
    engine.before_call = lambda action: action == SQUASH_ACTION and tried.append(story.world.now)
    await story.settle()
    waiting = story.condition("DataBranch", "small")
    assert (waiting["reason"], "the disk is full" in waiting["message"]) == ("SquashFailed", True)
    assert story.condition("DataBranch", "small", of="Stalled")["status"] == "False"
    await story.operator.live(minutes=3 * 60)
    message = story.expect_stalled("DataBranch", "small", "SquashFailed")
    assert "the disk is full" in message
    assert "DataBranch anew" in message
    first, second, third = tried
    assert (second - first, third - second) > (timedelta(minutes=4), timedelta(minutes=25))
    status = story.status("DataBranch", "small")
    assert (status["base"], status["squash"]["tries"], "failedAt" in status["squash"]) == (head, 3, True)
    assert set(story.data_of().branches) == {"main"}
    # As its owners are told: made anew, it is tried anew.
    engine.failing = 0
    story.delete("DataBranch", "small")
    await story.settle()
    story.branch("small", history="Squashed")
    await story.settle()
    story.expect_ready("DataBranch", "small")
    assert story.status("DataBranch", "small")["squash"]["tries"] == 1


async def test_one_that_fails_once_is_there_with_the_second_try(story):
    await ready(story)
    story.world.engine.failing = 1
    await story.settle()
    assert "SquashFailed" in story.events("DataBranch", "small")
    await story.operator.live(minutes=8)
    story.expect_ready("DataBranch", "small")
    squash = story.status("DataBranch", "small")["squash"]
    assert (squash["tries"], "problem" in squash) == (2, False)
    assert squash["startedAt"] <= squash["finishedAt"]


async def test_none_is_begun_that_the_volume_may_have_no_room_for(story):
    await ready(story)
    told = {**story.get("DataStore", "shop")["status"], "size": {"bytes": 1_200_000_000, "layers": 9}}
    store = DataStore.parse({**story.get("DataStore", "shop"), "status": told})
    assert isinstance(store, DataStore)
    assert "2Gi" in squashtries.lacking_room(store)
    told["size"]["bytes"] = 1_000_000_000
    store = DataStore.parse({**story.get("DataStore", "shop"), "status": told})
    assert squashtries.lacking_room(store) == ""


async def test_while_there_is_no_room_it_says_so_and_nothing_is_written(story, monkeypatch):
    await ready(story)
    with monkeypatch.context() as patched:
        patched.setattr(squashtries, "lacking_room", lambda store: "the volume has 2Gi")
        await story.settle()
        assert "spec.managed.storage.size" in story.expect_stalled("DataBranch", "small", "SquashNeedsRoom")
        assert SQUASH_ACTION not in story.world.engine.calls
    await story.operator.live(minutes=2)
    story.expect_ready("DataBranch", "small")


async def test_since_when_it_is_squashed_is_told_before_it_is(story):
    await ready(story)
    seen = []
    story.world.engine.before_call = lambda action: seen.append(story.status("DataBranch", "small").get("squash"))
    story.world.engine.calls.clear()
    await story.settle()
    told = [squash for action, squash in zip(story.world.engine.calls, seen, strict=True) if action == SQUASH_ACTION]
    assert [squash["tries"] for squash in told] == [1]
    assert told[0]["startedAt"]


@pytest.mark.parametrize("moment", ["tag", "branch"])
@pytest.mark.parametrize("policy", ["Delete", "Retain"])
async def test_an_operator_that_dies_over_it_leaves_no_tag(story, moment, policy):
    await ready(story, deletionPolicy=policy)
    engine, data = story.world.engine, story.data_of()

    def killed(what):
        if what == moment:
            engine.between = lambda what: None
            assert held(data)
            raise Crash

    engine.between = killed
    await story.settle()
    assert story.operator.crashes == 1
    story.expect_ready("DataBranch", "small")
    assert held(data) == []


def held(data):
    return [tag for tag in data.tags if tag.startswith(SQUASH_TAGS)]


async def test_one_that_is_deleted_while_it_is_squashed_takes_its_tag_along(story):
    await ready(story, deletionPolicy="Delete")
    engine, data = story.world.engine, story.data_of()
    engine.failing = 1
    await story.settle()
    assert len(held(data)) == 1
    story.delete("DataBranch", "small")
    await story.settle()
    assert story.names("DataBranch") == []
    assert held(data) == []


async def test_one_whose_name_somebody_else_takes_leaves_no_tag(story):
    head = await ready(story)
    engine, data = story.world.engine, story.data_of()
    engine.failing = 1
    await story.settle()
    data.branches["small"] = Branch(head, data.commits[head].rows)
    await story.operator.live(minutes=2)
    story.expect_ready("DataBranch", "small")
    assert story.status("DataBranch", "small")["created"] is False
    assert held(data) == []


async def test_what_is_left_of_one_that_nobody_told_of_its_end_goes_after_a_day(story):
    await ready(story)
    engine, data = story.world.engine, story.data_of()
    engine.failing = 1
    await story.settle()
    story.delete("DataBranch", "small")
    await story.operator.live(minutes=12 * 60)
    assert len(held(data)) == 1
    await story.operator.live(minutes=13 * 60)
    assert held(data) == []


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
