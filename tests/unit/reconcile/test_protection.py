"""Protected branches: in force before anybody could write, on every server, as long as they are asked for."""

from __future__ import annotations

from tests.fakes.patching import PatchingWorld
from tests.fakes.source import add_source
from tests.fakes.story import Story

from coppice.engines.base import EngineError

MAIN = [{"branches": ["main"]}]
BOTH = [{"branches": ["main", "release/*"]}, {"branches": ["main"], "approvals": 2}]


def in_force(story: Story) -> tuple[str, ...]:
    [server] = story.world.engine.servers.values()
    return server.volume.protected


async def settled(story: Story, **spec: object) -> Story:
    story.store(**spec)
    await story.settle()
    return story


async def test_apps_are_let_in_when_what_is_asked_for_is_in_force(story: Story) -> None:
    seen = []
    story.world.engine.after_call = lambda action: seen.append((action, in_force(story)))
    await settled(story, protection=BOTH)
    story.expect_ready("DataStore", "shop")
    protected = ("main", "release/*")
    assert seen == [("protect", protected), ("ensure-app-user", protected)]
    status = story.status("DataStore", "shop")
    assert status["protected"] == ["main", "release/*"]
    said = story.condition("DataStore", "shop", of="BranchesProtected")
    assert (said["status"], said["reason"]) == ("True", "Protected")
    assert "main, release/*" in said["message"]


async def test_nobody_is_let_in_while_it_cannot_be_put_in_force(story: Story) -> None:
    story.world.engine.refused["protect"] = EngineError("no")
    await settled(story, protection=MAIN)
    assert story.reason("DataStore", "shop") == "EngineError"
    assert "ensure-app-user" not in story.world.engine.calls
    assert "shop-binding" not in story.names("Secret")
    assert not story.status("DataStore", "shop").get("protected")
    story.world.engine.refused.clear()
    await story.operator.live(minutes=2)
    story.expect_ready("DataStore", "shop")
    assert in_force(story) == ("main",)


async def test_what_is_asked_for_of_a_store_that_runs_is_put_in_force_at_once(story: Story) -> None:
    await settled(story)
    assert in_force(story) == ()
    conditions = [entry["type"] for entry in story.status("DataStore", "shop")["conditions"]]
    assert "BranchesProtected" not in conditions

    story.edit("DataStore", "shop", protection=MAIN)
    await story.settle()
    assert in_force(story) == ("main",)
    story.edit("DataStore", "shop", protection=BOTH)
    await story.settle()
    assert in_force(story) == ("main", "release/*")
    story.expect_ready("DataStore", "shop")


async def test_what_is_not_asked_for_any_more_is_taken_away(story: Story) -> None:
    await settled(story, protection=MAIN)
    story.edit("DataStore", "shop", protection=None)
    await story.settle()
    assert in_force(story) == ()
    status = story.status("DataStore", "shop")
    assert status.get("protected") in (None, [])
    assert "BranchesProtected" not in [entry["type"] for entry in status["conditions"]]


async def test_only_a_change_and_another_server_are_told(story: Story) -> None:
    await settled(story, protection=BOTH)
    story.edit("DataStore", "shop", protection=[{"branches": ["release/*", "main"], "approvals": 3}])
    await story.operator.live(minutes=10)
    assert story.world.engine.calls.count("protect") == 1

    story.delete("Pod", "shop-server")
    await story.settle()
    assert story.world.engine.calls.count("protect") == 2
    story.expect_ready("DataStore", "shop")


async def test_whoever_has_made_a_table_may_write_to_it_soon(story: Story) -> None:
    await settled(story, protection=MAIN)
    story.branch("dev")
    await story.operator.live(minutes=3)
    told = story.world.engine.calls.count("protect")
    await story.operator.live(minutes=10)
    assert story.world.engine.calls.count("protect") == told

    story.data_of().write("dev", "table album: id, title")
    await story.operator.live(minutes=2)
    assert story.world.engine.calls.count("protect") == told + 1
    story.commit(branch="dev")
    await story.operator.live(minutes=2)
    assert story.world.engine.calls.count("protect") == told + 2
    await story.operator.live(minutes=10)
    assert story.world.engine.calls.count("protect") == told + 2


async def test_data_of_an_earlier_store_of_the_name_are_protected_as_this_one_says(story: Story) -> None:
    await settled(story, protection=MAIN)
    story.delete("DataStore", "shop")
    await story.settle()
    await settled(story)
    assert in_force(story) == ()


async def test_a_job_fills_the_database_before_it_is_protected(story: Story) -> None:
    story.job("shop-load", "alice")
    await settled(story, managed={"load": {"jobTemplate": "shop-load"}}, protection=MAIN)
    story.expect_ready("DataStore", "shop")
    calls = story.world.engine.calls
    assert calls.index("commit-load") < calls.index("protect")
    assert story.world.rows("data", "shop-binding") == {"alice"}


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


async def test_an_engine_that_has_no_rights_by_branch_is_named(story: Story) -> None:
    setattr(story.world.engine, "protects", False)  # noqa: B010 - it has it as a merging engine alone
    await settled(story, protection=MAIN)
    assert "no rights by branch" in story.expect_stalled("DataStore", "shop", "EngineHasNoProtection")
    assert "protect" not in story.world.engine.calls

    story.edit("DataStore", "shop", protection=None)
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert "protect" not in story.world.engine.calls


async def test_a_database_that_others_write_to_cannot_be_protected(story: Story) -> None:
    story.world.engine.capture_action = "flush"
    add_source(story, "alice")
    story.adopted(protection=MAIN)
    await story.settle()
    assert "an adopted database" in story.expect_stalled("DataStore", "shop", "EngineHasNoProtection")
    assert "protect" not in story.world.engine.calls


async def test_of_a_live_database_requests_alone_are_reviewed_and_apps_write_as_before() -> None:
    story = Story(PatchingWorld())
    await settled(story, protection=MAIN)
    story.expect_ready("DataStore", "shop")
    found = story.condition("DataStore", "shop", of="BranchesProtected")
    assert (found["status"], found["reason"]) == ("False", "RequestsAlone")
    assert "shop-binding" in story.names("Secret")
    assert "protect" not in story.world.engine.calls
    assert story.events("DataStore", "shop").count("RequestsAlone") == 1


async def test_so_are_those_for_an_adopted_one() -> None:
    story = Story(PatchingWorld())
    story.world.engine.capture_action = "flush"
    add_source(story, "alice")
    story.adopted(protection=MAIN)
    await story.settle()
    story.expect_ready("DataStore", "shop")
    assert story.condition("DataStore", "shop", of="BranchesProtected")["reason"] == "RequestsAlone"


async def test_a_mirror_cannot_be_protected(story: Story) -> None:
    story.source("album/1")
    story.source_secret()
    story.mirror(protection=MAIN)
    await story.settle()
    assert "a mirror" in story.expect_stalled("DataStore", "shop", "EngineHasNoProtection")
    assert "protect" not in story.world.engine.calls
