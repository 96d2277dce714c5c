"""What is remembered of requests in memory: patches as long as there is room for them."""

from __future__ import annotations

import asyncio

import pytest
from tests.fakes.patching import patch_between

from coppice.engines.patching import RefusedError
from coppice.reconcile.changerequest.computations import FoundPatch, GoingOnError, Patches


class Counted:
    """Computes patches of a size, and counts how often."""

    def __init__(self, patches: Patches) -> None:
        self.patches = patches
        self.times = 0

    async def once(self, name: str, key: str = "k", *, size: int = 10) -> FoundPatch:
        async def compute() -> FoundPatch:
            self.times += 1
            patch = patch_between([], ["r" * size])
            return FoundPatch(patch, patch.changes, patch.size)

        return await self.patches.once(name, key, compute)


@pytest.fixture
def counted() -> Counted:
    return Counted(Patches(room=30))


async def test_the_same_is_computed_once_and_what_it_was_is_forgotten(counted: Counted) -> None:
    first = await counted.once("a")
    assert await counted.once("a") is first
    await counted.once("a", "other")
    assert await counted.once("a") is not first
    assert counted.times == 3


async def test_what_was_used_longest_ago_goes_when_there_is_no_more_room(counted: Counted) -> None:
    for name in ("a", "b", "c"):
        await counted.once(name)
    await counted.once("a")
    await counted.once("d")
    before = counted.times
    for name in ("a", "c", "d"):
        await counted.once(name)
    assert counted.times == before
    await counted.once("b")
    assert counted.times == before + 1


async def test_one_that_is_bigger_than_the_room_stays_alone(counted: Counted) -> None:
    await counted.once("a")
    await counted.once("big", size=100)
    await counted.once("big", size=100)
    assert counted.times == 2
    await counted.once("a")
    await counted.once("big", size=100)
    assert counted.times == 4


async def test_a_refusal_is_remembered_and_an_error_is_not(counted: Counted) -> None:
    times = []

    async def refuse() -> RefusedError | FoundPatch:
        times.append("refused")
        return RefusedError("no")

    async def fail() -> FoundPatch:
        times.append("failed")
        raise OSError

    for _ in range(2):
        await counted.patches.once("a", "k", refuse)
    for _ in range(2):
        with pytest.raises(OSError):
            await counted.patches.once("b", "k", fail)
    assert times == ["refused", "failed", "failed"]


async def test_what_takes_long_goes_on_and_will_do_for_what_is_like_it() -> None:
    patches, ready, begun = Patches(room=30, patience=0.01), asyncio.Event(), []

    async def compute(key: str) -> str:
        begun.append(key)
        await ready.wait()
        return key

    for key in ("old", "old", "new"):
        with pytest.raises(GoingOnError):
            await patches.once("a", key, lambda key=key: compute(key), like="clone")
    ready.set()
    assert await patches.once("a", "new", lambda: compute("new"), like="clone") == "old"
    assert await patches.once("a", "new", lambda: compute("new"), like="clone") == "new"
    assert begun == ["old", "new"]


@pytest.mark.parametrize("like", [None, "other"])
async def test_what_is_not_alike_is_never_taken_for_it(like: str | None) -> None:
    patches, ready = Patches(room=30, patience=0.01), asyncio.Event()

    async def compute(key: str) -> str:
        await ready.wait()
        return key

    with pytest.raises(GoingOnError):
        await patches.once("a", "old", lambda: compute("old"), like=like and "clone")
    with pytest.raises(GoingOnError):
        await patches.once("a", "new", lambda: compute("new"), like=like)
    ready.set()
    assert await patches.once("a", "new", lambda: compute("new"), like=like) == "new"


async def test_what_is_not_to_be_kept_is_computed_again() -> None:
    patches, results = Patches(room=30), ["bad", "good"]

    async def compute() -> str:
        return results.pop(0)

    found = [await patches.once("a", "k", compute, keeps=lambda result: result == "good") for _ in range(3)]
    assert found == ["bad", "good", "good"]


async def test_what_ended_while_nobody_waited_is_known() -> None:
    patches, ready = Patches(room=30, patience=0.01), asyncio.Event()

    async def compute() -> str:
        await ready.wait()
        return "found"

    async def never() -> str:
        raise AssertionError("it is known")

    with pytest.raises(GoingOnError):
        await patches.once("a", "k", compute)
    ready.set()
    await asyncio.sleep(0.01)
    assert await patches.once("a", "k", never) == "found"
