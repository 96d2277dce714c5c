"""Protected branches: in force before anybody could write, on every server, as long as they are asked for."""

from __future__ import annotations

import pytest
from tests.fakes.merging import let_merge
from tests.fakes.source import add_source
from tests.fakes.story import Story

from coppice.engines.base import EngineError

MAIN = [{"branches": ["main"]}]
BOTH = [{"branches": ["main", "release/*"]}, {"branches": ["main"], "approvals": 2}]


@pytest.fixture
def merging(story: Story) -> Story:
    let_merge(story.world.engine)
    return story


def in_force(story: Story) -> tuple[str, ...]:
    [server] = story.world.engine.servers.values()
    return server.volume.protected


async def settled(story: Story, **spec: object) -> Story:
    story.store(**spec)
    await story.settle()
    return story


async def test_apps_are_let_in_when_what_is_asked_for_is_in_force(merging: Story) -> None:
    seen = []
    merging.world.engine.after_call = lambda action: seen.append((action, in_force(merging)))
    await settled(merging, protection=BOTH)
    merging.expect_ready("DataStore", "shop")
    protected = ("main", "release/*")
    assert seen == [("protect", protected), ("ensure-app-user", protected)]
    status = merging.status("DataStore", "shop")
    assert status["protected"] == ["main", "release/*"]
    said = merging.condition("DataStore", "shop", of="BranchesProtected")
    assert (said["status"], said["reason"]) == ("True", "Protected")
    assert "main, release/*" in said["message"]


async def test_nobody_is_let_in_while_it_cannot_be_put_in_force(merging: Story) -> None:
    merging.world.engine.refused["protect"] = EngineError("no")
    await settled(merging, protection=MAIN)
    assert merging.reason("DataStore", "shop") == "EngineError"
    assert "ensure-app-user" not in merging.world.engine.calls
    assert "shop-binding" not in merging.names("Secret")
    assert not merging.status("DataStore", "shop").get("protected")
    merging.world.engine.refused.clear()
    await merging.operator.live(minutes=2)
    merging.expect_ready("DataStore", "shop")
    assert in_force(merging) == ("main",)


async def test_what_is_asked_for_of_a_store_that_runs_is_put_in_force_at_once(merging: Story) -> None:
    await settled(merging)
    assert in_force(merging) == ()
    conditions = [entry["type"] for entry in merging.status("DataStore", "shop")["conditions"]]
    assert "BranchesProtected" not in conditions

    merging.edit("DataStore", "shop", protection=MAIN)
    await merging.settle()
    assert in_force(merging) == ("main",)
    merging.edit("DataStore", "shop", protection=BOTH)
    await merging.settle()
    assert in_force(merging) == ("main", "release/*")
    merging.expect_ready("DataStore", "shop")


async def test_what_is_not_asked_for_any_more_is_taken_away(merging: Story) -> None:
    await settled(merging, protection=MAIN)
    merging.edit("DataStore", "shop", protection=None)
    await merging.settle()
    assert in_force(merging) == ()
    status = merging.status("DataStore", "shop")
    assert status.get("protected") in (None, [])
    assert "BranchesProtected" not in [entry["type"] for entry in status["conditions"]]


async def test_only_a_change_and_another_server_are_told(merging: Story) -> None:
    await settled(merging, protection=BOTH)
    merging.edit("DataStore", "shop", protection=[{"branches": ["release/*", "main"], "approvals": 3}])
    await merging.operator.live(minutes=10)
    assert merging.world.engine.calls.count("protect") == 1

    merging.delete("Pod", "shop-server")
    await merging.settle()
    assert merging.world.engine.calls.count("protect") == 2
    merging.expect_ready("DataStore", "shop")


async def test_data_of_an_earlier_store_of_the_name_are_protected_as_this_one_says(merging: Story) -> None:
    await settled(merging, protection=MAIN)
    merging.delete("DataStore", "shop")
    await merging.settle()
    await settled(merging)
    assert in_force(merging) == ()


async def test_a_job_fills_the_database_before_it_is_protected(merging: Story) -> None:
    merging.job("shop-load", "alice")
    await settled(merging, managed={"load": {"jobTemplate": "shop-load"}}, protection=MAIN)
    merging.expect_ready("DataStore", "shop")
    calls = merging.world.engine.calls
    assert calls.index("commit-load") < calls.index("protect")
    assert merging.world.rows("data", "shop-binding") == {"alice"}


async def test_an_engine_that_keeps_no_versions_is_named(story: Story) -> None:
    setattr(story.world.engine, "merge", None)  # noqa: B010 - whoever has no way to merge does not merge
    await settled(story, protection=MAIN)
    said = story.expect_stalled("DataStore", "shop", "EngineHasNoProtection")
    assert "engine fake" in said
    assert "Remove spec.protection" in said
    assert story.condition("DataStore", "shop", of="BranchesProtected")["status"] == "False"
    assert "shop-binding" not in story.names("Secret")

    story.edit("DataStore", "shop", protection=None)
    await story.settle()
    story.expect_ready("DataStore", "shop")


async def test_a_database_that_others_write_to_cannot_be_protected(merging: Story) -> None:
    merging.world.engine.capture_action = "flush"
    add_source(merging, "alice")
    merging.adopted(protection=MAIN)
    await merging.settle()
    assert "an adopted database" in merging.expect_stalled("DataStore", "shop", "EngineHasNoProtection")
    assert "protect" not in merging.world.engine.calls


async def test_a_mirror_cannot_be_protected(merging: Story) -> None:
    merging.source("album/1")
    merging.source_secret()
    merging.mirror(protection=MAIN)
    await merging.settle()
    assert "a mirror" in merging.expect_stalled("DataStore", "shop", "EngineHasNoProtection")
    assert "protect" not in merging.world.engine.calls
