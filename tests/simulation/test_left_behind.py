"""Owners that go without a farewell, and a garbage collector that stands still: in the end nothing is left, and nothing
that others need is lost.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.fakes.audit import live_data, orphans
from tests.fakes.story import Story

from coppice.runtime.leader import Operator
from coppice.runtime.settings import Settings


@pytest.fixture
async def story() -> Story:
    """A store with a snapshot of a user's, a clone beside it and one next door."""
    story = Story()
    story.store()
    story.grant()
    story.snapshot("mine")
    story.clone("near")
    story.clone("far", namespace="app", source={"snapshot": "mine"})
    await story.settle()
    story.expect_ready("DataClone", "near")
    story.expect_ready("DataClone", "far", "app")
    return story


def forget(story: Story, kind: str, name: str, namespace: str = "data") -> None:
    """Delete an object with its finalizers removed by force, and nobody hears of it."""
    story.operator.deaf = True
    story.kube.change(kind, namespace, name, lambda found: found["metadata"].pop("finalizers", None))
    story.kube.remove(kind, namespace, name)
    story.operator.due.clear()
    story.operator.deaf = False


async def resyncs(story: Story) -> None:
    """Let the resyncs of a leader look at the world for some minutes."""
    leader = Operator(
        Settings(),
        client=story.kube,
        reconcilers=list(story.operator.reconcilers.values()),
        engines={},
        clock=lambda: story.world.now,
    )
    for _ in range(3):
        await leader.resync(spread=0)
        await asyncio.sleep(60)
        await story.settle()


@pytest.mark.looptime
async def test_alias_contents_whose_finalizer_was_removed_by_force_go_and_take_nothing_along(story):
    story.world.full = True
    story.clone("late", namespace="app", source={"snapshot": "mine"})
    await story.settle()
    forget(story, "DataClone", "late", "app")
    await story.settle()
    assert orphans(story.world) != []
    await resyncs(story)
    assert orphans(story.world) == []
    story.world.full = False
    story.clone("later", namespace="app", source={"snapshot": "mine"})
    await story.settle()
    story.expect_ready("DataClone", "later", "app")
    story.expect_ready("DataClone", "far", "app")


@pytest.mark.looptime
@pytest.mark.parametrize("stage", ["captured", "handed over"])
async def test_what_a_commit_has_left_in_the_clones_namespace_goes(story, stage):
    engine = story.world.engine
    engine.versioned = False
    story.clone("work", namespace="app", durability="Durable")
    await story.settle()
    story.world.tick(60)
    parent = story.status("DataClone", "work", "app")["snapshot"]["name"]
    story.world.snapshot_error = "no" if stage == "captured" else None
    story.world.full = True
    story.commit_clone("feature-1", parent, clone="work", namespace="app")
    await story.settle()
    forget(story, "DataSnapshot", "feature-1")
    await story.settle()
    assert orphans(story.world) != []
    await resyncs(story)
    assert orphans(story.world) == []
    assert story.names("VolumeSnapshot", "app") == []
    story.expect_ready("DataClone", "work", "app")


@pytest.mark.looptime
async def test_what_the_garbage_collector_left_goes_and_a_stores_data_stay(story, monkeypatch):
    monkeypatch.setattr(story.kube, "collect_garbage", lambda: None)
    before = live_data(story.world, "data")["shop-data"]
    forget(story, "DataClone", "near")
    forget(story, "DataClone", "far", "app")
    for snapshot in story.names("DataSnapshot"):
        forget(story, "DataSnapshot", snapshot)
    forget(story, "DataStore", "shop")
    await resyncs(story)
    assert story.names("PersistentVolumeClaim") == ["shop-data"]
    assert live_data(story.world, "data")["shop-data"] == before
    assert story.names("VolumeSnapshot") == story.names("VolumeSnapshotContent") == []
    assert story.names("Pod") == ["shop-server"]
    assert story.world.snapshots == {}


@pytest.mark.looptime
async def test_what_a_mirror_has_not_finished_goes_and_what_it_has_stays():
    story = Story()
    story.source("album/1")
    story.source_secret()
    story.mirror()
    await story.settle()
    story.world.silent = True
    story.annotate("DataStore", "shop", refresh="now")
    await story.settle()
    assert story.names("PersistentVolumeClaim", "data") == ["shop-mirror-00001", "shop-mirror-00002"]
    await resyncs(story)
    assert len(story.names("PersistentVolumeClaim", "data")) == 2
    forget(story, "DataStore", "shop")
    await resyncs(story)
    assert story.names("PersistentVolumeClaim", "data") == ["shop-mirror-00001"]


@pytest.mark.looptime
async def test_what_has_an_owner_is_left_alone(story):
    before = len(story.world.writes)
    await resyncs(story)
    assert story.world.writes[before:] == []
