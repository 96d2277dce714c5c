"""The stage of every story: a world, an operator in it, and a few words to write objects with."""

from __future__ import annotations

import pytest
from tests.fakes.story import Story, begun


@pytest.fixture
def story() -> Story:
    return Story()


async def _open(story: Story) -> None:
    story.store()
    await story.settle()


@pytest.fixture
def opened() -> Story:
    """A story in which the store ``shop`` is Ready."""
    return begun(_open)
