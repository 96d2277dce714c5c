"""The operator is killed while a store is optimized: whoever comes next goes on where it was, and begins at most the
part again of which nothing was heard.
"""

from __future__ import annotations

import json
from collections import Counter

from tests.fakes.audit import orphans
from tests.fakes.deaths import Deaths
from tests.fakes.story import Story
from tests.fakes.upkeep import PARTS, KeptWorld


async def begun() -> Story:
    """A store that says how large its data are, and is to be optimized."""
    story = Story(KeptWorld())
    story.store()
    await story.settle()
    size = {"at": int(story.world.now.timestamp()), "bytes": 1000, "layers": 90}
    story.kube.logs["data", "shop-server", "engine"] = json.dumps(size)
    story.annotate("DataStore", "shop", optimize="now")
    return story


def expect_optimized(story: Story, moment: str, *, again: int) -> None:
    """Expect that every part was optimized, and no more than ``again`` of them twice."""
    done = Counter(story.world.engine.put_in_order)
    assert set(done) == set(PARTS), moment
    assert done.total() <= len(PARTS) + again, moment
    told = story.status("DataStore", "shop")["optimization"]
    assert (told["done"], told["total"], told.get("failed")) == (len(PARTS), len(PARTS), None), moment
    assert story.condition("DataStore", "shop", of="RequestAccepted")["reason"] == "Optimized", moment
    story.expect_ready("DataStore", "shop")
    assert orphans(story.world) == [], moment


async def test_killed_at_any_moment_every_part_is_optimized_and_none_is_forgotten() -> None:
    story = await begun()
    deaths = Deaths(story)
    await story.settle()
    deaths.stop()
    expect_optimized(story, "undisturbed", again=0)
    assert sum("after optimize" in when for when, _ in deaths.moments) == len(PARTS)
    for when, after in deaths.moments:
        await after.settle()
        expect_optimized(after, f"killed {when}", again=1)
