"""A driver that makes no volume: its own words are said with what to do, in one Event, and room is enough."""

from datetime import timedelta

import pytest
from tests.fakes.kube import FakeKube
from tests.fakes.story import Story
from tests.fakes.world import NO_ROOM

from coppice.core.conditions import timestamp
from coppice.reconcile.provisioning import read_complaint

CLASSES = ["fast", "late"]
"""The second waits for its consumer."""


async def crowded_store(story: Story, storage_class: str) -> None:
    story.world.full = True
    story.store(storage={"storageClassName": storage_class})


async def crowded_snapshot(story: Story, storage_class: str) -> None:
    story.store(storage={"storageClassName": storage_class})
    await story.settle()
    story.world.full = True
    story.snapshot("mine")


async def crowded_clone(story: Story, storage_class: str) -> None:
    story.store(storage={"storageClassName": storage_class})
    story.snapshot("first")
    await story.settle()
    story.world.full = True
    story.clone(source={"snapshot": "first"})


CROWDED = {
    ("DataStore", "shop"): crowded_store,
    ("DataSnapshot", "mine"): crowded_snapshot,
    ("DataClone", "db"): crowded_clone,
}


@pytest.mark.parametrize("storage_class", CLASSES)
@pytest.mark.parametrize(("kind", "name"), CROWDED)
async def test_a_full_pool_ends_in_a_condition_and_one_event(story, kind, name, storage_class):
    await CROWDED[kind, name](story, storage_class)
    await story.operator.live(seconds=60)
    told = story.condition(kind, name)["message"]
    assert NO_ROOM in told
    assert "have it enlarged" in told
    assert story.condition(kind, name, of="Stalled")["status"] == "False", "it may pass"
    await story.operator.live(minutes=15)
    assert NO_ROOM in story.expect_stalled(kind, name, "ProvisioningFailed")
    warnings = [event for key, event in story.operator.log.events if key.name == name and event.type == "Warning"]
    assert [event.reason for event in warnings] == ["ProvisioningFailed"]
    assert NO_ROOM in warnings[0].message

    story.world.full = False
    await story.settle()
    story.expect_ready(kind, name)


@pytest.mark.parametrize("which", ["raw", "prepared"])
async def test_a_snapshot_that_the_driver_refuses_ends_in_a_condition_and_one_event(story, which):
    story.store()
    await story.settle()
    story.snapshot("mine")
    if which == "prepared":
        await story.operator.until(lambda: "mine-prepare" in story.names("Pod"))
    story.world.snapshot_error = NO_ROOM
    await story.operator.live(seconds=60)
    assert NO_ROOM in story.condition("DataSnapshot", "mine")["message"]
    assert story.condition("DataSnapshot", "mine", of="Stalled")["status"] == "False", "it may pass"
    await story.operator.live(minutes=5)
    told = story.expect_stalled("DataSnapshot", "mine", "CaptureRefused")
    assert NO_ROOM in told
    assert "have it enlarged" in told
    assert story.events("DataSnapshot", "mine").count("CaptureRefused") == 1

    story.world.snapshot_error = None
    await story.settle()
    story.expect_ready("DataSnapshot", "mine")


@pytest.mark.parametrize(("kind", "name"), CROWDED)
async def test_a_driver_that_refuses_is_asked_about_twice_a_minute_and_nobody_is_woken_by_its_events(story, kind, name):
    await CROWDED[kind, name](story, "fast")
    await story.operator.live(minutes=5)
    story.kube.calls.clear()
    await story.operator.live(minutes=10)
    assert len([call for call in story.kube.calls if call.key.kind == "Event"]) in range(19, 23)


async def test_a_server_that_lost_its_pod_gets_another_though_the_driver_refused(story):
    """Where a class waits for its consumer there is no volume without a Pod."""
    await crowded_store(story, "late")
    await story.operator.live(minutes=3)
    story.expect_stalled("DataStore", "shop", "ProvisioningFailed")
    story.delete("Pod", "shop-server")
    story.world.full = False
    await story.operator.live(minutes=1)
    story.expect_ready("DataStore", "shop")


# -- what is read --


def claim(phase: str = "Pending", **metadata: object) -> dict:
    return {
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "db",
            "namespace": "app",
            "uid": "u",
            "creationTimestamp": "2026-03-02T09:00:00Z",
            **metadata,
        },
        "spec": {"resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": phase},
    }


def event(name: str, note: str, *, uid: str = "u", reason: str = "ProvisioningFailed", **times: object) -> dict:
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": "app"},
        "reason": reason,
        "note": note,
        "regarding": {"uid": uid},
        **times,
    }


def old(first: str, last: str) -> dict:
    return {"deprecatedFirstTimestamp": f"2026-03-02T{first}Z", "deprecatedLastTimestamp": f"2026-03-02T{last}Z"}


def new(first: str, last: str) -> dict:
    series = {"count": 2, "lastObservedTime": f"2026-03-02T{last}.000000Z"}
    return {"eventTime": f"2026-03-02T{first}.000000Z", "series": series}


@pytest.fixture
def now(story):
    return story.world.now + timedelta(seconds=30)


@pytest.mark.parametrize("times", [old, new])
async def test_the_newest_words_count_and_the_first_time(now, times):
    kube = FakeKube(
        event("a", "no  room,\nsays A", **times("09:00:05", "09:00:20")),
        event("b", "no room, says B", **times("09:00:08", "09:00:09")),
        event("c", "of another object", uid="v", **times("09:00:01", "09:00:29")),
        event("d", "nothing wrong", reason="Provisioning", **times("09:00:01", "09:00:29")),
    )
    found = await read_complaint(kube, claim(), now)
    assert found is not None
    assert (found.words, timestamp(found.since)) == ("no room, says A", "2026-03-02T09:00:05Z")


async def test_long_words_are_shortened(now):
    found = await read_complaint(FakeKube(event("a", "x" * 2000)), claim(), now)
    assert found is not None
    assert len(found.words) < 310


@pytest.mark.parametrize(
    "observed",
    [
        None,
        claim("Bound"),
        claim(deletionTimestamp="2026-03-02T09:00:20Z"),
        claim(creationTimestamp="2026-03-02T09:00:25Z"),
    ],
    ids=["none", "bound", "going", "young"],
)
async def test_no_events_are_read_of_a_claim_that_needs_no_words(now, observed):
    kube = FakeKube(event("a", "no room"))
    assert await read_complaint(kube, observed, now) is None
    assert kube.calls == []


async def test_a_claim_of_which_nothing_is_said_is_waited_for(now):
    assert await read_complaint(FakeKube(event("d", "nothing wrong", reason="Provisioning")), claim(), now) is None
