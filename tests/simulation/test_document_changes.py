"""Change requests of an engine that protects nothing and asks nothing, as TerminusDB: whoever else writes, and whenever
the operator dies, the target is before or after, and nothing that anybody wrote is lost.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable

import pytest
from tests.fakes.documents import DocumentsWorld
from tests.fakes.story import Story
from tests.simulation.test_changes import ALBUMS, PROTECTED, SECRET, THOROUGH, Witness, all_disturbances, published

SEEDS = range(8)
CHANGED = f"album/1.title={SECRET}-a"


class Unprotected(Witness):
    """Nobody need approve, and no program is asked."""

    def _approved(self, source: str, digest: str) -> bool:
        return True

    def _programs(self) -> list[list[str]]:
        return []


def write(story: Story, old: str, new: str) -> None:
    """Change a document through an app that is bound to the clone; that is a commit."""
    volume = story.world.login("data", "db-binding").volume
    branch = volume.branches["main"]
    branch.rows -= {old}
    volume.commit("main", new, at=story.world.now)


@functools.cache
def _opened() -> Story:
    story = Story(DocumentsWorld())

    async def play() -> None:
        story.policies()
        story.store()
        await story.settle()
        story.commit(*ALBUMS)
        story.clone()
        await story.settle()
        write(story, ALBUMS[0], CHANGED)
        story.world.tick(60)

    asyncio.run(play())
    return story


@pytest.fixture
def shop() -> Story:
    """Return a story with a store and a clone of it in which a document was changed."""
    return _opened().fork()


def main(story: Story) -> frozenset[str]:
    return story.data_of().branches["main"].rows


async def test_a_change_waits_for_whom_it_is_told_to_wait_for_and_names_who_looked_at_it(shop: Story) -> None:
    witness = Unprotected(shop)
    shop.request(merge="Manual")
    await shop.settle()
    shop.review()
    await shop.operator.live(minutes=2)
    assert (published(shop), main(shop)) == (None, frozenset(ALBUMS))
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await shop.operator.live(minutes=1)
    assert main(shop) == {CHANGED, *ALBUMS[1:]}
    message = shop.data_of().commits[str(published(shop))].message
    assert "Proposed-by: anna@example.com" in message
    assert "Reviewed-by: bob@example.com" in message
    witness.check()


async def test_who_asks_for_changes_is_heard_although_nobody_need_approve(shop: Story) -> None:
    witness = Unprotected(shop)
    shop.request(merge="Manual")
    await shop.settle()
    shop.review(verdict="RequestChanges")
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await shop.operator.live(minutes=2)
    shop.expect_stalled("DataChangeRequest", "fix", "ChangesRequested")
    shop.delete("DataReview", "fix-bob")
    await shop.operator.live(minutes=1)
    assert witness.published == [published(shop)]
    witness.check()


async def test_of_a_store_whose_owners_ask_for_what_it_cannot_keep_nothing_is_published(shop: Story) -> None:
    witness = Unprotected(shop)
    shop.request(merge="Manual")
    await shop.settle()
    shop.edit("DataStore", "shop", protection=PROTECTED)
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")
    await shop.operator.live(minutes=2)
    shop.expect_stalled("DataStore", "shop", "EngineHasNoProtection")
    assert witness.published == []
    shop.edit("DataStore", "shop", protection=None)
    await shop.operator.live(minutes=2)
    assert witness.published == [published(shop)]
    assert "protect" not in shop.world.engine.calls
    witness.check()


async def test_a_conflict_is_resolved_and_what_was_published_is_taken_back(shop: Story) -> None:
    witness = Unprotected(shop)
    data = shop.data_of()
    data.branches["main"].rows -= {ALBUMS[0]}
    witness.write(f"album/1.title={SECRET}-theirs")
    shop.request()
    await shop.settle()
    [listed] = shop.status("DataChangeRequest", "fix")["conflicts"]["listed"]
    shop.edit("DataChangeRequest", "fix", resolutions=[{"conflict": listed["id"], "take": "Source"}])
    await shop.operator.live(minutes=1)
    assert CHANGED in main(shop)
    witness.write("album/6.title=White")
    shop.request("back", source={"revertOf": "fix"})
    await shop.operator.live(minutes=1)
    assert main(shop) == {f"album/1.title={SECRET}-theirs", *ALBUMS[1:], "album/6.title=White"}
    assert len(witness.published) == 2
    witness.check()


async def proposed(start: Story, disturb: Callable[[Story], None]) -> tuple[Story, Unprotected]:
    """Propose, with the operator disturbed from the beginning."""
    story = start.fork()
    witness = Unprotected(story)
    disturb(story)
    story.request()
    await story.operator.live(minutes=2)
    return story, witness


async def test_killed_at_any_write_or_call_the_change_is_published_once_and_whole(shop: Story) -> None:
    quiet, _ = await proposed(shop, lambda story: None)
    expected = quiet.data_of().branches["main"]
    assert expected.rows == {CHANGED, *ALBUMS[1:]}
    for place, disturb in enumerate(all_disturbances(shop, quiet)[:: 1 if THOROUGH else 2]):
        story, witness = await proposed(shop, disturb)
        assert story.operator.crashes == 1, place
        assert story.data_of().branches["main"] == expected, place
        assert witness.published == [expected.head], place
        assert story.names("DataClone") == ["db"], place
        witness.check()


@pytest.mark.parametrize("seed", SEEDS)
async def test_whoever_writes_and_whenever_the_operator_dies_no_write_is_lost(shop: Story, seed: int) -> None:
    witness, chance = Unprotected(shop), random.Random(seed)
    shop.request(merge="Manual")
    await shop.settle()
    shop.edit("DataChangeRequest", "fix", merge="WhenApproved")

    def meanwhile(action: str) -> None:
        if action == "publish" and len(witness.written) < 3 and chance.random() < 0.8:
            witness.write(f"album/{100 + len(witness.written)}.title={SECRET}")
        if published(shop) is None and chance.random() < 0.1:
            shop.kube.crash_after(chance.randint(1, 3))

    shop.world.engine.before_call = meanwhile
    await shop.operator.live(minutes=5)
    assert witness.published == [published(shop)]
    assert {CHANGED, *ALBUMS[1:]} <= main(shop)
    witness.check()
