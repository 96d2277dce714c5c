"""The operator is killed while a clone that is to keep its changes ends: nothing goes before it is on a branch, it is
there once, and of the clone nothing is left.

``COPPICE_THOROUGH=1`` tries every third write and every call to an engine; without it a fourth of those moments.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from tests.fakes.audit import orphans
from tests.fakes.deaths import Deaths
from tests.fakes.story import Story

STRIDE = 1 if os.environ.get("COPPICE_THOROUGH") else 4
Act = Callable[[Story], None]
SAID = {"provider": "github", "repository": "acme/shop", "number": 42}
ROWS = {"price/1=4711", "price/2=4712"}


async def begun(*, versioned: bool) -> Story:
    """A clone on which somebody has changed something, and not committed it."""
    story = Story()
    if not versioned:
        story.world.engine.versioned, story.world.engine.capture_action = False, "flush"
    story.policies()
    story.world.forges.open()
    story.store()
    story.grant(verbs=["Clone", "Propose"])
    await story.settle()
    story.commit("price/1=4711")
    story.clone(namespace="app", pullRequest=SAID, onClose="KeepChanges", lease={"max": "Never"})
    await story.settle()
    story.world.login("app", "db-binding").volume.branches["main"].rows |= {"price/2=4712"}
    story.world.tick(60)
    story.operator.restart()
    await story.settle()
    return story


def close(story: Story) -> None:
    story.world.forges.close()
    story.world.tick(660)


def delete(story: Story) -> None:
    story.delete("DataClone", "db", "app")


async def expect_kept(story: Story, moment: str, *, versioned: bool) -> None:
    """Expect the changes on one branch, and nothing else of the clone."""
    kinds = ("Pod", "PersistentVolumeClaim", "Secret", "Service", "NetworkPolicy", "VolumeSnapshot")
    assert {kind: story.names(kind, "app") for kind in kinds if story.names(kind, "app")} == {}, moment
    assert orphans(story.world) == [], moment
    if versioned:
        [request] = story.names("DataChangeRequest")
        branch = story.get("DataChangeRequest", request)["spec"]["into"]["branch"]
        kept = {name: found.rows for name, found in story.data_of().branches.items() if name.startswith("kept-")}
        assert kept == {branch: ROWS}, moment
        assert story.data_of().branches["main"].rows == {"price/1=4711"}, moment
    else:
        [line] = [name for name in story.names("DataSnapshot") if name.startswith("kept-")]
        story.expect_ready("DataSnapshot", line)
        story.clone("again", source={"branch": line.removesuffix("-1")})
        await story.operator.settle(patience=61)
        assert story.rows("again") == ROWS, moment


@pytest.mark.parametrize("act", [close, delete])
@pytest.mark.parametrize("versioned", [True, False], ids=["merges", "keeps no branches"])
async def test_killed_at_any_moment_the_changes_are_kept_once_and_the_clone_goes(act: Act, versioned: bool) -> None:  # noqa: FBT001
    story = await begun(versioned=versioned)
    act(story)
    deaths = Deaths(story, every=3)
    await story.operator.settle(patience=61)
    deaths.stop()
    await expect_kept(story, "undisturbed", versioned=versioned)
    assert deaths.moments
    for when, after in deaths.moments[::STRIDE]:
        await after.operator.settle(patience=61)
        await expect_kept(after, f"killed {when}", versioned=versioned)
