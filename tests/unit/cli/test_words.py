"""Small words: names, lengths of time, and the branch that follows."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cli.wishes import MAX_BRANCH_OBJECT, Place, WrongWordsError, commit_name, object_name, read_place
from coppice.cli.words import about, is_ready, is_resting, is_stalled, next_step, state, waited_for
from coppice.core.durations import parse_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, None),
        (1, "1s"),
        (59, "59s"),
        (60, "1m"),
        (750, "12m"),
        (7080, "1h58m"),
        (7200, "2h"),
        (86400, "1d"),
        (270000, "3d3h"),
    ],
)
def test_a_length_of_time_has_no_more_detail_than_anybody_reads(seconds, text):
    assert about(timedelta(seconds=seconds)) == text


@given(st.integers(min_value=1, max_value=10**8))
def test_a_length_of_time_is_never_told_too_long(seconds):
    told = parse_duration(about(timedelta(seconds=seconds)) or "")
    assert timedelta() < told <= timedelta(seconds=seconds) < told * 2


@pytest.mark.parametrize(
    ("branch", "name"),
    [("autumn", "autumn"), ("feature/Autumn", "feature-autumn"), ("a_b.c", "a-b-c"), ("x" * 60, "x" * 40)],
)
def test_the_object_of_a_branch_has_a_name_like_it(branch, name):
    assert object_name(branch) == name


@given(st.from_regex(r"\A[A-Za-z0-9_]([.]?[A-Za-z0-9_-]){0,80}\Z"))
def test_the_object_of_a_branch_has_a_name_that_is_allowed_if_it_has_one(branch):
    name = object_name(branch)
    assert len(name) <= MAX_BRANCH_OBJECT
    assert not name.startswith("-")
    assert not name.endswith("-")


@pytest.mark.parametrize(
    ("parent", "name"),
    [("autumn-1", "autumn-2"), ("autumn-9", "autumn-10"), ("shop-00001", "autumn-1"), ("winter-3", "autumn-1")],
)
def test_a_commit_is_called_after_its_parent(parent, name):
    assert commit_name("autumn", parent) == name


def test_places_are_read():
    assert read_place("shop") == Place("shop")
    assert read_place("data/shop") == Place("shop", "data")
    for wrong in ("", "/", "data/", "/shop", "a/b/c"):
        with pytest.raises(WrongWordsError, match="is not"):
            read_place(wrong)


def clone(*conditions: tuple[str, str, str, str], generation: int = 1, **metadata: str) -> dict:
    names = ("type", "status", "reason", "message")
    listed = [dict(zip(names, condition, strict=True)) for condition in conditions]
    return {
        "kind": "DataClone",
        "metadata": {"name": "db", "namespace": "app", "generation": generation, **metadata},
        "spec": {"from": {"store": {"name": "shop"}, "branch": "main"}},
        "status": {"observedGeneration": 1, "conditions": listed},
    }


def test_a_status_of_another_specification_says_nothing():
    seen = clone(("Ready", "True", "Ready", ""), ("Stalled", "True", "Broken", ""), generation=2)
    assert (is_ready(seen), is_stalled(seen), is_resting(seen)) == (False, False, False)
    assert (state(seen), waited_for(seen)) == ("Not looked at yet", "the operator")


def test_what_is_waited_for_is_the_step_that_ready_speaks_of():
    seen = clone(
        ("LeaseGranted", "False", "LeaseShortened", "less"),
        ("VolumeReady", "False", "ClaimPending", "soon: very"),
        ("Ready", "False", "ClaimPending", "soon: very"),
        ("Reconciling", "True", "ClaimPending", ""),
    )
    assert waited_for(seen) == "VolumeReady: ClaimPending: soon: very"
    assert next_step(seen) == "wait: it is on its way"


def test_what_is_being_deleted_is_not_to_be_mended():
    seen = clone(("Ready", "True", "Ready", ""), deletionTimestamp="2026-03-02T09:00:00Z")
    assert (state(seen), next_step(seen)) == ("Deleting", "wait: it is being deleted")
