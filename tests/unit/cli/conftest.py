"""A person in the namespace ``app``, beside a store in ``data`` that they may clone."""

from __future__ import annotations

import pytest
from tests.fakes.person import Person
from tests.fakes.story import Story, begun


async def _open(story: Story) -> None:
    story.store()
    story.grant()
    await story.settle()
    story.commit("alice")


async def _with_clone(story: Story) -> None:
    await _open(story)
    story.clone(namespace="app")
    await story.settle()


@pytest.fixture
def ann() -> Person:
    """Somebody who may clone the store ``shop``."""
    return Person(begun(_open))


@pytest.fixture
def owner() -> Person:
    """Somebody in the store's own namespace."""
    return Person(begun(_open), "data")


@pytest.fixture
def bea() -> Person:
    """Somebody who has the clone ``db``."""
    return Person(begun(_with_clone))
