"""Statuses are equal when they say the same, and times move only with the truth."""

from datetime import UTC, datetime, timedelta

import pytest

from coppice.core.conditions import complete_status, merge_conditions, same_status

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)


def ready(status, reason="Because", **more):
    return {"type": "Ready", "status": status, "reason": reason, "message": "", **more}


def test_the_transition_time_moves_only_when_the_status_flips():
    first = merge_conditions([], [ready("False")], NOON)
    assert first[0]["lastTransitionTime"] == "2030-01-01T12:00:00Z"
    reworded = merge_conditions(first, [ready("False", "Other")], LATER)
    assert reworded[0]["lastTransitionTime"] == "2030-01-01T12:00:00Z"
    assert reworded[0]["reason"] == "Other"
    flipped = merge_conditions(reworded, [ready("True")], LATER)
    assert flipped[0]["lastTransitionTime"] == "2030-01-01T13:00:00Z"


def test_a_condition_that_is_not_said_any_more_goes():
    assert merge_conditions([ready("True")], [], NOON) == []


@pytest.mark.parametrize("old", [[{"type": "Ready", "status": "True"}], [ready("True", lastTransitionTime="")]])
def test_a_foreign_condition_without_a_time_gets_one(old):
    assert merge_conditions(old, [ready("True")], NOON)[0]["lastTransitionTime"] == "2030-01-01T12:00:00Z"


def test_a_carried_over_condition_keeps_its_time_and_gets_the_new_generation():
    old = ready("True", lastTransitionTime="2020-01-01T00:00:00Z", observedGeneration=1)
    merged = merge_conditions([old], [old], NOON, generation=2)
    assert merged == [old | {"observedGeneration": 2}]


def test_a_carried_over_time_does_not_survive_a_flip():
    old = ready("True", lastTransitionTime="2020-01-01T00:00:00Z")
    merged = merge_conditions([old], [old | {"status": "False"}], NOON)
    assert merged[0]["lastTransitionTime"] == "2030-01-01T12:00:00Z"


def test_completing_twice_changes_nothing():
    manifest = {"metadata": {"generation": 3}, "status": {}}
    wanted = {"conditions": [ready("False")], "binding": {"name": "db", "none": None}, "gone": None}
    status = complete_status(wanted, manifest, NOON)
    assert status["observedGeneration"] == status["conditions"][0]["observedGeneration"] == 3
    assert status["binding"] == {"name": "db"}
    assert complete_status(wanted, {**manifest, "status": status}, LATER) == status


def test_statuses_are_compared_by_meaning():
    one = {"conditions": [ready("True"), {"type": "A", "status": "True"}], "x": None}
    other = {"conditions": [{"type": "A", "status": "True"}, ready("True")]}
    assert same_status(one, other)
    assert not same_status(one, {"conditions": [ready("True")]})
    assert not same_status({"list": [1, 2]}, {"list": [2, 1]})
