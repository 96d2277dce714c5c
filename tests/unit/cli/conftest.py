"""A person in the namespace ``app``, beside a store in ``data`` that they may clone."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from tests.fakes.person import Person
from tests.fakes.story import Story, begun


@pytest.fixture(autouse=True)
def _hang_up_ends() -> Iterator[None]:
    """Whoever runs the tests may have them outlive their terminal (nohup); the command under test does not know that."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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
