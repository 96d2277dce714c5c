"""Branches that begin squashed on bad days: whenever the operator dies, there is one of them, it is its object's own, and
nothing that held it is left.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable

import pytest
from tests.fakes.audit import orphans
from tests.fakes.squashing import SquashingWorld
from tests.fakes.story import Story
from tests.simulation.test_changes import all_disturbances

Disturb = Callable[[Story], None]


@functools.cache
def _opened() -> Story:
    story = Story(SquashingWorld())

    async def play() -> None:
        story.store()
        await story.settle()
        story.commit("alice")
        story.world.tick(60)

    asyncio.run(play())
    return story


@pytest.fixture
def shop() -> Story:
    """Return a story with a store of which ``main`` has two commits."""
    return _opened().fork()


async def squashed(start: Story, disturb: Disturb) -> Story:
    """Ask for a branch that takes long and fails once, with the operator disturbed from the beginning."""
    story = start.fork()
    story.world.engine.rounds, story.world.engine.failing = 1, 1
    disturb(story)
    story.branch("small", history="Squashed", deletionPolicy="Delete")
    await story.operator.live(minutes=8)
    return story


async def deleted(start: Story, disturb: Disturb) -> Story:
    """Delete the branch before it is there, with the operator disturbed from then on."""
    story = start.fork()
    disturb(story)
    story.delete("DataBranch", "small")
    await story.operator.live(minutes=2)
    return story


def held(story: Story) -> list[str]:
    return sorted(story.data_of().tags)


async def test_killed_at_any_write_or_call_the_branch_is_there_once_and_nothing_holds_it(shop: Story) -> None:
    main = shop.data_of().branches["main"]
    quiet = await squashed(shop, lambda story: None)
    places, killed = all_disturbances(shop, quiet), 0
    for place, disturb in enumerate(places):
        story = await squashed(shop, disturb)
        killed += story.operator.crashes
        story.expect_ready("DataBranch", "small")
        data, status = story.data_of(), story.status("DataBranch", "small")
        assert (set(data.branches), data.branches["main"]) == ({"main", "small"}, main), place
        assert (status["created"], status["base"], status["squash"]["tries"]) == (True, main.head, 2), place
        assert data.branches["small"].rows == main.rows, place
        assert held(story) == [], place
    # After two of the calls nobody is killed: they raise, one as it lasts, and one as it fails.
    assert killed == len(places) - 2


async def test_killed_at_any_write_or_call_one_that_is_deleted_before_it_is_there_leaves_nothing(shop: Story) -> None:
    shop.world.engine.failing = 1
    shop.branch("small", history="Squashed", deletionPolicy="Delete")
    await shop.settle()
    assert len(held(shop)) == 1
    quiet = await deleted(shop, lambda story: None)
    for place, disturb in enumerate(all_disturbances(shop, quiet)):
        story = await deleted(shop, disturb)
        assert story.operator.crashes == 1, place
        assert story.names("DataBranch") == [], place
        assert (set(story.data_of().branches), held(story)) == ({"main"}, []), place
        assert orphans(story.world) == [], place
