"""Putting a store's data in order when somebody asks for it: part by part, and the store serves whatever becomes of it."""

from __future__ import annotations

import json

import pytest
from tests.fakes.engine import FakeEngine
from tests.fakes.story import Story
from tests.fakes.world import World

from coppice.engines.base import EngineError, UnreachableError
from coppice.engines.upkeep import parse_size
from coppice.kube.errors import TransientError

PARTS = ("shop/main", "shop/commits", "system")
GIB = 1 << 30


class KeptEngine(FakeEngine):
    """One whose data have parts; ``put_in_order`` is what was done to them."""

    def __init__(self) -> None:
        super().__init__()
        self.there = list(PARTS)
        self.put_in_order: list[str] = []
        self.spoiled: set[str] = set()
        self.asked = 0
        """How often it was asked for its parts."""

    async def parts(self, at):
        self.asked += 1
        self._enter(at)
        return tuple(self.there)

    async def execute(self, at, action, arguments):
        if action != "optimize":
            await super().execute(at, action, arguments)
            return
        self.before_call(action)
        self._enter(at)
        if action in self.refused:
            raise self.refused[action]
        if arguments["part"] in self.spoiled:
            raise EngineError("it does not open")
        self.put_in_order.append(arguments["part"])
        self.after_call(action)


class KeptWorld(World):
    def _servers(self):
        return KeptEngine()


@pytest.fixture
async def kept():
    story = Story(KeptWorld())
    story.store()
    await story.settle()
    story.expect_ready("DataStore", "shop")
    return story


def tell(story, *, size, layers):
    """Have the server say how large its data are now, among other words."""
    line = {"at": int(story.world.now.timestamp()), "bytes": size, "layers": layers}
    story.kube.logs["data", "shop-server", "engine"] = f"warning\n{json.dumps(line)}\nother\n"


def told(story):
    return story.status("DataStore", "shop")["optimization"]


def accepted(story):
    return story.condition("DataStore", "shop", of="RequestAccepted")


async def asked(story, when="now"):
    story.annotate("DataStore", "shop", optimize=when)
    await story.settle()


async def test_every_part_is_optimized_once_and_the_status_says_what_came_of_it(kept):
    tell(kept, size=1000, layers=90)
    await asked(kept)
    assert kept.world.engine.put_in_order == list(PARTS)
    status = told(kept)
    assert (status["done"], status["total"], status["bytesBefore"], status["layersBefore"]) == (3, 3, 1000, 90)
    assert "part" not in status
    assert accepted(kept)["reason"] == "Optimized"
    assert kept.events("DataStore", "shop")[-2:] == ["Optimizing", "Optimized"]
    kept.expect_ready("DataStore", "shop")
    await kept.operator.settle(patience=300)
    assert kept.world.engine.put_in_order == list(PARTS)


async def test_how_large_the_data_are_afterwards_is_what_was_measured_afterwards(kept):
    tell(kept, size=1000, layers=90)
    await asked(kept)
    assert "bytesAfter" not in told(kept)
    kept.world.tick(60)
    tell(kept, size=1500, layers=93)
    await kept.operator.settle(patience=120)
    assert (told(kept)["bytesAfter"], told(kept)["layersAfter"]) == (1500, 93)


async def test_the_status_names_the_part_before_it_is_done(kept):
    seen = []
    kept.world.engine.before_call = lambda action: (
        action == "optimize" and seen.append((told(kept)["part"], told(kept)["done"]))
    )
    await asked(kept)
    assert seen == [(part, number) for number, part in enumerate(PARTS)]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_operator_that_dies_over_a_part_does_it_again_and_goes_on(kept, when):
    kept.kill_at(2, when)
    await asked(kept)
    assert accepted(kept)["reason"] == "Optimized"
    done = kept.world.engine.put_in_order
    assert list(dict.fromkeys(done)) == list(PARTS)
    assert len(done) == len(PARTS) + (when == "after")


async def test_a_part_that_cannot_be_optimized_is_named_and_the_others_are(kept):
    kept.world.engine.spoiled = {"shop/commits"}
    await asked(kept)
    assert kept.world.engine.put_in_order == ["shop/main", "system"]
    assert told(kept)["failed"] == ["shop/commits (it does not open)"]
    assert accepted(kept)["reason"] == "OptimizeFailed"
    assert "shop/commits" in accepted(kept)["message"]
    kept.expect_ready("DataStore", "shop")
    kept.world.engine.spoiled = set()
    kept.world.tick(60)
    await asked(kept)
    assert accepted(kept)["reason"] == "Optimized"


async def test_a_server_that_says_nothing_over_a_part_is_asked_again(kept):
    kept.world.engine.refused["optimize"] = UnreachableError("the server does not answer")
    kept.annotate("DataStore", "shop", optimize="now")
    await kept.operator.settle(patience=5)
    assert (told(kept)["part"], told(kept)["done"]) == (PARTS[0], 0)
    del kept.world.engine.refused["optimize"]
    await kept.settle()
    assert kept.world.engine.put_in_order == list(PARTS)
    assert "failed" not in told(kept)


async def test_a_part_that_is_gone_meanwhile_is_passed_over(kept):
    engine = kept.world.engine
    engine.after_call = lambda action: (
        action == "optimize" and engine.there.__setitem__(slice(None), ["shop/main", "system"])
    )
    await asked(kept)
    assert engine.put_in_order == ["shop/main", "system"]
    assert accepted(kept)["reason"] == "Optimized"


async def test_without_room_for_the_data_once_more_nothing_is_optimized(kept):
    tell(kept, size=GIB + 1, layers=9)
    await asked(kept)
    assert accepted(kept)["reason"] == "OptimizeNeedsRoom"
    assert kept.world.engine.put_in_order == []
    asked_before = kept.world.engine.asked
    await kept.operator.settle(patience=120)
    assert kept.world.engine.asked - asked_before < 10
    kept.edit("DataStore", "shop", managed={"storage": {"size": "4Gi"}})
    await kept.operator.settle(patience=120)
    assert kept.world.engine.put_in_order == list(PARTS)


async def test_the_same_request_is_acted_upon_once_and_a_new_one_again(kept):
    await asked(kept, when="2026-03-02T08:00:00Z")
    await asked(kept, when="2026-03-02T08:00:00Z")
    assert kept.world.engine.put_in_order == list(PARTS)
    await asked(kept, when="2026-03-02T08:30:00Z")
    assert kept.world.engine.put_in_order == [*PARTS, *PARTS]


async def test_what_is_no_time_is_said_to_be_none(kept):
    await asked(kept, when="tomorrow")
    assert accepted(kept)["reason"] == "NotATime"
    assert kept.world.engine.put_in_order == []


async def test_an_engine_with_nothing_to_optimize_says_so(opened):
    await asked(opened)
    assert accepted(opened)["reason"] == "OptimizeUnsupported"
    opened.expect_ready("DataStore", "shop")


async def test_a_server_whose_log_cannot_be_read_is_kept_and_its_last_size_stands(kept):
    tell(kept, size=1000, layers=90)
    await kept.operator.settle(patience=120)
    kept.kube.unlogged = TransientError("dial tcp 10.0.0.7:10250: i/o timeout", status=500)
    kept.edit("DataStore", "shop", managed={"storage": {"size": "4Gi"}})
    await kept.operator.settle(patience=120)
    assert kept.status("DataStore", "shop")["capacity"] == "4Gi"
    assert kept.status("DataStore", "shop")["size"]["bytes"] == 1000
    kept.delete("DataStore", "shop")
    await kept.operator.settle(patience=120)
    assert kept.names("DataStore") == []


async def test_growth_is_told_day_by_day(kept):
    for day in range(10):
        tell(kept, size=1000 * (day + 1), layers=day)
        await kept.operator.settle(patience=120)
        kept.world.tick(86400)
    size = kept.status("DataStore", "shop")["size"]
    assert (size["bytes"], size["layers"]) == (10000, 9)
    assert [sample["bytes"] for sample in size["samples"]] == [1000 * number for number in range(3, 11)]


async def test_between_two_days_only_the_present_size_changes(kept):
    for hour in range(5):
        tell(kept, size=1000 * (hour + 1), layers=hour)
        await kept.operator.settle(patience=120)
        kept.world.tick(3600)
    size = kept.status("DataStore", "shop")["size"]
    assert (size["bytes"], len(size["samples"])) == (5000, 1)


@pytest.mark.parametrize(
    "log",
    [
        "",
        "{}",
        "[1]",
        '{"bytes": 1}',
        '{"at": "x", "bytes": 1, "layers": 2}',
        "null",
        '{"at": 1e400, "bytes": 1, "layers": 2}',
    ],
)
def test_other_words_of_a_server_are_no_size(log):
    assert parse_size(log) is None


def test_the_last_size_counts():
    log = '{"at": 1, "bytes": 1, "layers": 2}\n{"at": 61, "bytes": 3, "layers": 4}\nwords\n'
    size = parse_size(log)
    assert size is not None
    assert (size.bytes, size.layers, size.at.timestamp()) == (3, 4, 61)
