"""Events: repeated ones become a series, too many are cut short, and posting never hurts."""

import asyncio
from datetime import timedelta

import pytest
from tests.fakes.kube import FakeKube
from tests.unit.runtime.builders import NOON, clone

from coppice.core.plan import Event
from coppice.kube.errors import ForbiddenError
from coppice.runtime.events import BURST, REFILL_SECONDS, SERIES, EventRecorder

READY = Event("Ready", "the clone is ready")


class Clock:
    now = NOON

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def kube():
    return FakeKube(clone())


@pytest.fixture
def recorder(kube, clock):
    return EventRecorder(kube, identity="pod-a", clock=clock)


@pytest.fixture
def manifest(kube):
    return kube.peek("DataClone", "app", "db")


async def test_an_event_names_its_object(kube, recorder, manifest):
    recorder.record(manifest, READY)
    await recorder.flush()
    (event,) = kube.all("Event")
    assert event["metadata"]["namespace"] == "app"
    assert event["regarding"] == {
        "apiVersion": "coppice.dev/v1alpha1",
        "kind": "DataClone",
        "name": "db",
        "namespace": "app",
        "uid": manifest["metadata"]["uid"],
    }
    assert (event["reason"], event["note"], event["type"]) == ("Ready", "the clone is ready", "Normal")
    assert (event["eventTime"], event["reportingInstance"]) == ("2030-01-01T12:00:00.000000Z", "pod-a")
    assert "series" not in event


async def test_a_repeated_event_becomes_a_series_and_after_a_while_a_new_one(kube, recorder, manifest, clock):
    recorder.record(manifest, READY)
    clock.now += timedelta(minutes=1)
    recorder.record(manifest, READY)
    await recorder.flush()
    (event,) = kube.all("Event")
    assert event["series"] == {"count": 2, "lastObservedTime": "2030-01-01T12:01:00.000000Z"}
    assert event["eventTime"] == "2030-01-01T12:00:00.000000Z"
    clock.now += SERIES + timedelta(seconds=1)
    recorder.record(manifest, READY)
    await recorder.flush()
    assert len(kube.all("Event")) == 2


async def test_an_object_with_too_much_to_say_is_cut_short(kube, recorder, manifest, clock):
    for number in range(BURST + 5):
        recorder.record(manifest, Event("Reason", f"message {number}"))
    await recorder.flush()
    assert len(kube.all("Event")) == BURST
    clock.now += timedelta(seconds=REFILL_SECONDS)
    for number in range(2):
        recorder.record(manifest, Event("Reason", f"later {number}"))
    await recorder.flush()
    assert len(kube.all("Event")) == BURST + 1


async def test_a_long_message_is_cut_at_the_limit_of_the_api(kube, recorder, manifest):
    recorder.record(manifest, Event("Reason", "ä" * 2000))
    await recorder.flush()
    (event,) = kube.all("Event")
    assert len(event["note"].encode()) <= 1024
    assert event["note"].endswith("...")


async def test_an_event_that_cannot_be_posted_is_dropped(kube, recorder, manifest):
    kube.fail_at(1, ForbiddenError("namespace is being terminated", status=403))
    recorder.record(manifest, READY)
    recorder.record(manifest, Event("Other", "posted"))
    await recorder.flush()
    assert [event["reason"] for event in kube.all("Event")] == ["Other"]


async def test_more_than_the_backlog_holds_is_dropped(kube, clock, monkeypatch):
    monkeypatch.setattr("coppice.runtime.events._BACKLOG", 2)
    recorder = EventRecorder(kube, identity="pod-a", clock=clock)
    for number in range(5):
        kube.add(clone(f"c{number}"))
        recorder.record(kube.peek("DataClone", "app", f"c{number}"), READY)
    await recorder.flush()
    assert len(kube.all("Event")) == 2


async def test_it_posts_in_the_background(kube, recorder, manifest):
    posting = asyncio.create_task(recorder.run())
    recorder.record(manifest, READY)
    async with asyncio.timeout(10):
        while not kube.all("Event"):  # noqa: ASYNC110 - every turn of the loop brings it nearer
            await asyncio.sleep(0)
    posting.cancel()
