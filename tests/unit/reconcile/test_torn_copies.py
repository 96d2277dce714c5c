"""A copy that was taken in the middle of a write does not open: it is never used, and another is taken; not without end."""

from __future__ import annotations

import pytest

from coppice.core.conditions import timestamp
from coppice.reconcile.torn import MOST_TORN


@pytest.fixture
def shop(opened):
    return opened


def taken(shop, name):
    """Return how often the store's volume was captured for a DataSnapshot."""
    return sum(write == f"ADDED VolumeSnapshot data/{name}-raw" for write in shop.world.writes)


async def test_a_torn_copy_is_taken_anew_and_never_used(shop):
    shop.world.tears = 2
    shop.snapshot("then")
    asked = shop.world.now
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataSnapshot", "then")
    assert taken(shop, "then") == 3
    torn = shop.status("DataSnapshot", "then")["tornCopies"]
    assert len(torn) == len(set(torn)) == 2
    assert shop.status("DataSnapshot", "then")["capturedAt"] > timestamp(asked)
    assert shop.names("DataSnapshot") == ["then"]
    shop.clone(source={"snapshot": "then"})
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_a_clone_waits_for_the_copy_that_is_taken_anew(shop):
    shop.world.tears = 1
    shop.clone()
    await shop.operator.live(minutes=2)
    shop.expect_ready("DataClone", "db")
    [name] = shop.names("DataSnapshot")
    assert taken(shop, name) == 2


async def test_it_is_told_while_another_copy_is_taken(shop):
    shop.world.tears = 1
    shop.snapshot("then")
    await shop.settle()
    told = [event.message for key, event in shop.operator.log.events if event.reason == "CopyTorn"]
    assert told == ["the volume was captured in the middle of a write (the label shop is torn); another copy is taken"]


async def test_what_is_torn_each_time_is_given_up_and_says_why(shop):
    shop.world.tears = 1000
    shop.snapshot("then")
    await shop.operator.live(minutes=20)
    message = shop.expect_stalled("DataSnapshot", "then", "CopyTorn")
    assert "the label shop is torn" in message
    assert taken(shop, "then") == MOST_TORN
    assert len(shop.status("DataSnapshot", "then")["tornCopies"]) == MOST_TORN


async def test_what_was_captured_is_known_to_be_torn_before_it_is_deleted(shop):
    """Whoever goes on after a crash in between takes no more copies than there may be."""
    known = []

    def watch(event, found):
        if event == "DELETED" and (found["kind"], found["metadata"]["name"]) == ("VolumeSnapshot", "then-raw"):
            known.append(found["metadata"]["uid"] in shop.status("DataSnapshot", "then").get("tornCopies", ()))

    shop.kube.subscribe(watch)
    shop.world.tears = 1
    shop.snapshot("then")
    await shop.settle()
    shop.expect_ready("DataSnapshot", "then")
    assert known == [True, False], "the torn one, and the one that was prepared"
