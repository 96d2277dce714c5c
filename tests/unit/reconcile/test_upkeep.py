"""Putting a store's data in order when somebody asks for it: part by part, and the store serves whatever becomes of it."""

from __future__ import annotations

import json

import pytest
from tests.fakes.story import Story
from tests.fakes.upkeep import PARTS, KeptWorld

from coppice.engines.base import EngineError, UnreachableError
from coppice.engines.upkeep import parse_size
from coppice.kube.errors import TransientError

GIB = 1 << 30


@pytest.fixture
async def kept():
    story = Story(KeptWorld())
    story.store()
    await story.settle()
    story.expect_ready("DataStore", "shop")
    tell(story, size=1000, layers=90)
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
    assert "failedCount" not in status
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
    kept.world.engine.spoiled = {"shop/main": EngineError("it does not open")}
    await asked(kept)
    assert kept.world.engine.put_in_order == ["shop/commits", "system"]
    assert told(kept)["failed"] == ["shop/main (it does not open)"]
    assert accepted(kept)["reason"] == "OptimizeFailed"
    assert "shop/main" in accepted(kept)["message"]
    kept.expect_ready("DataStore", "shop")
    kept.world.engine.spoiled = {}
    kept.world.tick(60)
    await asked(kept)
    assert accepted(kept)["reason"] == "Optimized"


async def test_of_many_that_cannot_be_the_first_are_named_briefly_and_all_are_counted(kept):
    engine = kept.world.engine
    engine.there = [f"shop/{number:02}" for number in range(23)]
    engine.spoiled = {part: EngineError("so " * 200) for part in engine.there[1:]}
    await asked(kept)
    status = told(kept)
    assert (status["done"], status["failedCount"], len(status["failed"])) == (23, 22, 20)
    assert status["failed"][0].startswith("shop/01 (so so")
    assert {len(words) for words in status["failed"]} == {256}
    assert "and 2 more" in accepted(kept)["message"]


async def test_a_part_that_takes_long_holds_up_nothing_else(kept):
    kept.world.engine.endless = True
    await asked(kept)
    kept.edit("DataStore", "shop", managed={"storage": {"size": "4Gi"}})
    await kept.operator.settle(patience=120)
    assert kept.status("DataStore", "shop")["capacity"] == "4Gi"
    assert (told(kept)["part"], told(kept)["done"]) == (PARTS[0], 0)
    assert accepted(kept)["reason"] == "Optimizing"
    assert kept.world.engine.put_in_order == []
    kept.world.engine.end(kept.get("DataStore", "shop")["metadata"]["uid"])
    await kept.operator.settle(patience=120)
    assert kept.world.engine.put_in_order == list(PARTS[1:])
    assert accepted(kept)["reason"] == "Optimized"


async def test_a_server_that_says_nothing_over_a_part_is_asked_again(kept):
    engine = kept.world.engine
    engine.spoiled = {PARTS[0]: UnreachableError("the server does not answer")}
    engine.after_call = lambda action: engine.spoiled.clear()
    await asked(kept)
    assert engine.put_in_order == list(PARTS)
    assert "failed" not in told(kept)


async def test_a_part_over_which_the_server_ends_each_time_is_given_up(kept):
    engine, tries = kept.world.engine, []
    engine.spoiled = {"shop/main": UnreachableError("the server does not answer (ReadError)")}
    engine.before_call = lambda action: action == "optimize" and tries.append(told(kept)["part"])
    await asked(kept)
    assert tries.count("shop/main") == 3
    assert engine.put_in_order == ["shop/commits", "system"]
    status = told(kept)
    assert (status["failed"], status["failedCount"]) == (["shop/main (the server does not answer (ReadError))"], 1)
    assert accepted(kept)["reason"] == "OptimizeFailed"
    assert "silentTries" not in status


async def test_a_part_that_is_gone_meanwhile_is_passed_over(kept):
    engine = kept.world.engine
    engine.after_call = lambda action: (
        action == "optimize" and "shop/main" in engine.there and engine.there.remove("shop/main")
    )
    await asked(kept)
    assert engine.put_in_order == ["shop/commits", "system"]
    assert accepted(kept)["reason"] == "Optimized"
    assert (told(kept)["done"], told(kept)["total"]) == (2, 2)


async def test_where_parts_come_and_go_each_that_stays_is_optimized(kept):
    engine = kept.world.engine
    engine.there = ["a", "b", "c", "d", "e"]

    def change(action):
        if action == "optimize" and engine.put_in_order == ["a", "b"]:
            engine.there = ["d", "e"]

    engine.after_call = change
    await asked(kept)
    assert engine.put_in_order == ["a", "b", "d", "e"]
    assert accepted(kept)["reason"] == "Optimized"


async def test_without_room_for_the_data_once_more_nothing_is_optimized(kept):
    tell(kept, size=GIB + 1, layers=9)
    await asked(kept)
    assert accepted(kept)["reason"] == "OptimizeNeedsRoom"
    assert kept.world.engine.put_in_order == []
    asked_before = kept.world.engine.parts_asked
    await kept.operator.settle(patience=120)
    assert kept.world.engine.parts_asked - asked_before < 10
    kept.edit("DataStore", "shop", managed={"storage": {"size": "4Gi"}})
    await kept.operator.settle(patience=120)
    tell(kept, size=GIB + 1, layers=12)
    await kept.operator.settle(patience=120)
    assert kept.world.engine.put_in_order[:2] == list(PARTS[:2])


async def test_where_a_part_has_taken_the_room_the_next_one_is_not_begun(kept):
    engine = kept.world.engine
    engine.after_call = lambda action: action == "optimize" and tell(kept, size=GIB + 1, layers=95)
    await asked(kept)
    assert engine.put_in_order == [PARTS[0]]
    assert accepted(kept)["reason"] == "OptimizeNeedsRoom"
    assert "1 of 3 parts are done" in accepted(kept)["message"]
    kept.expect_ready("DataStore", "shop")
    engine.after_call = lambda action: None
    kept.edit("DataStore", "shop", managed={"storage": {"size": "10Gi"}})
    await kept.operator.settle(patience=120)
    assert engine.put_in_order == list(PARTS)


async def test_each_part_since_the_data_were_measured_counts_as_the_data_once_more(kept):
    tell(kept, size=GIB * 2 // 3 - 1, layers=9)
    await asked(kept)
    assert kept.world.engine.put_in_order == list(PARTS[:2])
    assert accepted(kept)["reason"] == "Optimizing"
    assert "measured again" in accepted(kept)["message"]
    kept.world.tick(60)
    tell(kept, size=GIB * 2 // 3, layers=10)
    await kept.operator.settle(patience=120)
    assert kept.world.engine.put_in_order == list(PARTS)


async def test_of_data_that_nobody_has_measured_nothing_is_optimized(kept):
    kept.kube.logs.clear()
    await asked(kept)
    assert accepted(kept)["reason"] == "OptimizeUnmeasured"
    assert kept.world.engine.put_in_order == []
    kept.expect_ready("DataStore", "shop")
    tell(kept, size=1000, layers=90)
    await kept.operator.settle(patience=120)
    assert accepted(kept)["reason"] == "Optimized"


async def test_a_size_that_was_told_before_counts_while_the_log_is_full_of_other_words(kept):
    await kept.operator.settle(patience=120)
    kept.kube.logs.clear()
    await asked(kept)
    assert accepted(kept)["reason"] == "Optimized"


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


@pytest.mark.parametrize("make", [Story.mirror, Story.adopted])
async def test_of_a_server_that_is_not_a_managed_stores_nothing_is_optimized(make):
    story = Story(KeptWorld())
    make(story)
    await asked(story)
    assert accepted(story)["reason"] == "OptimizeUnsupported"
    assert "not run by Coppice" in accepted(story)["message"]


async def test_a_mirror_says_what_is_wrong_with_each_of_two_requests():
    story = Story(KeptWorld())
    story.source("alice")
    story.source_secret()
    story.mirror()
    await story.settle()
    story.annotate("DataStore", "shop", refresh="tomorrow", optimize="now")
    await story.settle()
    assert accepted(story)["reason"] == "NotATime"
    assert "coppice.dev/refresh-requested-at is not a time" in accepted(story)["message"]
    assert "nothing is optimized" in accepted(story)["message"]


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
