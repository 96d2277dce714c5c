"""The stage of every story: a world, an operator in it, and a few words to write objects with."""

from __future__ import annotations

import asyncio
import functools

import pytest
from tests.fakes.story import Story


@pytest.fixture
def story() -> Story:
    return Story()


@functools.cache
def _with_store() -> Story:
    story = Story()
    story.store()
    asyncio.run(story.settle())
    return story


@pytest.fixture
def opened() -> Story:
    """A story in which the store ``shop`` is Ready."""
    return _with_store().fork()
