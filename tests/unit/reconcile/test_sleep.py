"""A clone that nobody uses sleeps: its server stops, its data stay, and a word wakes it."""

from datetime import timedelta

import pytest
from tests.fakes.story import Story, begun

from coppice.core import labels
from coppice.core.conditions import timestamp


async def cloned(story):
    story.store()
    story.clone()
    await story.settle()
    story.expect_ready("DataClone", "db")


@pytest.fixture
def shop():
    return begun(cloned, sleep=timedelta(minutes=30), idle=timedelta(days=5))


def has_server(story):
    return story.copy() in story.names("Pod")


async def test_an_unused_clone_falls_asleep_and_keeps_its_data(shop):
    await shop.operator.live(minutes=28)
    assert has_server(shop)
    await shop.operator.live(minutes=5)
    assert shop.reason("DataClone", "db") == "Asleep"
    assert not has_server(shop)
    assert shop.copy() in shop.names("PersistentVolumeClaim")
    assert labels.WAKE_REQUESTED_AT in shop.condition("DataClone", "db")["message"]


async def test_it_falls_asleep_when_its_time_has_come_not_at_the_next_round():
    story = Story(sleep=timedelta(seconds=80), idle=timedelta(days=5))
    story.store()
    story.clone()
    await story.settle()
    await story.operator.live(seconds=95)
    assert story.reason("DataClone", "db") == "Asleep"


async def test_sleep_is_neither_work_in_progress_nor_trouble(shop):
    await shop.operator.live(minutes=35)
    assert shop.condition("DataClone", "db", of="Reconciling")["status"] == "False"
    assert shop.condition("DataClone", "db", of="Stalled")["status"] == "False"


async def test_a_clone_that_is_used_stays_awake(shop):
    for _ in range(4):
        await shop.operator.live(minutes=20)
        shop.rows()
    assert has_server(shop)


async def test_a_wake_up_brings_it_back_until_it_is_unused_again(shop):
    await shop.operator.live(minutes=35)
    shop.annotate("DataClone", "db", wake=timestamp(shop.world.now))
    await shop.settle()
    shop.expect_ready("DataClone", "db")
    assert shop.status("DataClone", "db")["handled"]["wakeRequestedAt"]
    await shop.operator.live(minutes=35)
    assert shop.reason("DataClone", "db") == "Asleep"


async def test_power_on_never_sleeps(shop):
    shop.edit("DataClone", "db", power="On")
    await shop.operator.live(hours=3)
    assert has_server(shop)


async def test_a_new_revision_wakes_it(shop):
    await shop.operator.live(minutes=35)
    shop.edit("DataClone", "db", revision="abc")
    await shop.settle()
    shop.expect_ready("DataClone", "db")


async def test_a_sleeping_clone_can_be_reset(shop):
    await shop.operator.live(minutes=35)
    shop.annotate("DataClone", "db", reset=timestamp(shop.world.now))
    await shop.settle()
    assert len(shop.names("PersistentVolumeClaim")) >= 2
    shop.expect_ready("DataClone", "db")
