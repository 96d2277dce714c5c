"""Engines that keep no history of their own: their DataSnapshots are all there is to go back to."""

from __future__ import annotations

import pytest

from coppice.engines.base import EngineError


@pytest.fixture
def plain(story):
    story.world.engine.versioned = False
    return story


async def test_a_clone_of_the_branch_is_of_a_new_snapshot(plain):
    plain.store()
    plain.clone()
    await plain.settle()
    plain.expect_ready("DataClone", "db")


async def test_a_clone_of_a_commit_is_of_the_snapshot_at_that_commit(plain):
    plain.store()
    plain.snapshot("first")
    await plain.settle()
    head = plain.get("DataSnapshot", "first")["status"]["branches"][0]["head"]
    plain.commit("alice")
    plain.clone(source={"commit": head})
    await plain.settle()
    plain.expect_ready("DataClone", "db")
    assert plain.get("DataClone", "db", "data")["status"]["snapshot"]["name"] == "first"


@pytest.mark.parametrize("source", [{"tag": "v1"}, {"commit": "abcdef0"}, {"time": "2001-01-01T00:00:00Z"}])
async def test_what_no_snapshot_holds_is_refused_and_no_snapshot_is_made_for_it(plain, source):
    plain.store()
    plain.clone(source=source)
    await plain.settle()
    assert "datasnapshots" in plain.expect_stalled("DataClone", "db", "UnknownVersion")
    assert plain.names("DataSnapshot") == []


async def test_a_branch_is_refused_by_name_and_can_be_deleted(plain):
    plain.store()
    plain.branch("autumn", deletionPolicy="Delete")
    await plain.settle()
    assert "DataSnapshot" in plain.expect_stalled("DataBranch", "autumn", "EngineHasNoBranches")
    plain.delete("DataBranch", "autumn")
    await plain.settle()
    assert plain.names("DataBranch") == []


async def test_the_server_makes_ready_before_its_volume_is_captured(plain):
    engine = plain.world.engine
    engine.capture_action = "flush"
    plain.store()
    await plain.settle()
    captured = []
    engine.before_call = lambda action: captured.append((action, plain.names("VolumeSnapshot")))
    plain.snapshot("first")
    await plain.settle()
    plain.expect_ready("DataSnapshot", "first")
    assert [entry for entry in captured if entry[0] == "flush"] == [("flush", [])]


async def test_what_a_copy_would_lack_keeps_it_from_being_made_and_is_named(plain):
    engine = plain.world.engine
    engine.capture_action = "flush"
    engine.refused["flush"] = EngineError("the tablespace fast is not on the volume")
    plain.store()
    plain.snapshot("first")
    await plain.settle()
    assert "the tablespace fast" in plain.expect_stalled("DataSnapshot", "first", "EngineError")
    assert plain.names("VolumeSnapshot") == []
    engine.refused.clear()
    await plain.operator.live(minutes=5)
    plain.expect_ready("DataSnapshot", "first")
