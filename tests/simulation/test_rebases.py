"""Rebases on bad days: whoever else writes, and whenever the operator dies, a clone loses nothing that was ever in it."""

from __future__ import annotations

import os
import random

import pytest
from tests.fakes.engine import Volume
from tests.fakes.kube import Crash
from tests.fakes.story import Story, begun

SEEDS = range(200 if os.environ.get("COPPICE_THOROUGH") else 8)


async def _open(story: Story) -> None:
    story.policies()
    story.store(protection=[{"branches": ["main"]}])
    await story.settle()
    story.commit("album/1=Blue")
    story.clone()
    await story.settle()
    story.world.tick(60)


@pytest.fixture
def story() -> Story:
    """Return a story with a protected store and a clone of it."""
    return begun(_open)


def clone_of(story: Story) -> Volume:
    return story.world.login("data", "db-binding").volume


class Day:
    """Somebody writes to the clone and somebody to its parent, at any call and most at the last, and the operator dies
    at some.
    """

    def __init__(self, story: Story, seed: int) -> None:
        self.story, self.chance = story, random.Random(seed)
        self.own: set[str] = set()
        self.theirs: set[str] = set()
        self.rows = 0
        story.world.engine.before_call = self._happens
        story.world.engine.after_call = self._dies

    def _row(self) -> str:
        self.rows += 1
        return f"album/{self.rows + 1}=Row {self.rows}"

    def write(self) -> None:
        row = self._row()
        self.own.add(row)
        clone_of(self.story).write("main", row)
        if self.chance.random() < 0.5:
            clone_of(self.story).commit("main", at=self.story.world.now)

    def go_on(self) -> None:
        row = self._row()
        self.theirs.add(row)
        self.story.commit(row)

    def _happens(self, action: str) -> None:
        likely = 0.6 if action == "fast-forward" else 0.1
        if self.rows < 12 and self.chance.random() < likely:
            self.chance.choice((self.write, self.go_on))()

    def _dies(self, action: str) -> None:
        del action
        self.check()
        if self.chance.random() < 0.1:
            raise Crash

    def check(self) -> None:
        """Everything that an app wrote is there, in rows or in what its commits have."""
        assert self.own <= clone_of(self.story).branches["main"].rows

    def quiet(self) -> None:
        self.story.world.engine.before_call = self.story.world.engine.after_call = lambda action: None


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_clone_keeps_what_it_has_and_comes_up_in_the_end(story: Story, seed: int) -> None:
    day = Day(story, seed)
    for name in ("one", "two"):
        day.write()
        day.go_on()
        story.request(name, publish="Rebase")
        await story.operator.live(minutes=5)
        day.check()
    day.quiet()
    await story.operator.live(minutes=5)
    before = set(story.data_of().branches["main"].rows)
    story.request("last", publish="Rebase")
    await story.operator.live(minutes=3)
    assert day.own | day.theirs <= clone_of(story).branches["main"].rows
    assert story.data_of().branches["main"].rows == before == {"album/1=Blue", *day.theirs}
