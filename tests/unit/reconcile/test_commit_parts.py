"""What a commit's name, its line and its marks say, by example."""

from __future__ import annotations

import json

import pytest

from coppice.core import labels
from coppice.reconcile.commit.line import Place, branches_of, commits_on, place_of
from coppice.reconcile.commit.provenance import Pin, Provenance
from coppice.reconcile.mask.mark import MaskRecord

PIN = Pin("uid-clone", "db-1", "uid-claim", 3)
MASK = MaskRecord("shop-mask", "abc", ("customer",), 1, ())
PROVENANCE = Provenance("app/db", "uid-clone", "uid-parent", "2026-03-02T09:00:00Z", MASK)


def snapshot(name, branch=None, **metadata):
    spec = {"store": {"name": "shop"}}
    if branch is not None:
        spec |= {"from": {"clone": {"name": "db"}}, "commit": {"branch": branch, "parent": "any"}}
    return {"metadata": {"name": name, **metadata}, "spec": spec}


def marked(text):
    return {"metadata": {"name": "x", "annotations": {labels.SOURCE: text}}}


@pytest.mark.parametrize(
    ("name", "branch", "expected"),
    [
        ("feature-1", "feature", Place("feature", 1)),
        ("a-1-10", "a-1", Place("a-1", 10)),
        ("feature-1", None, None),
        ("feature-0", "feature", None),
        ("feature-01", "feature", None),
        ("feature-1-2", "feature", None),
        ("features-1", "feature", None),
        ("other-1", "feature", None),
    ],
)
def test_a_name_is_a_place_on_its_own_branch_only(name, branch, expected):
    assert place_of(snapshot(name, branch)) == expected


def test_a_line_is_read_by_number_and_without_what_goes():
    line = [
        snapshot("a-2", "a"),
        snapshot("a-10", "a"),
        snapshot("a-9", "a"),
        snapshot("a-11", "a", deletionTimestamp="2026-03-02T09:00:00Z"),
        snapshot("a-b-1", "a-b"),
        snapshot("shop-00001"),
    ]
    assert [entry["metadata"]["name"] for entry in commits_on(line, "a")] == ["a-10", "a-9", "a-2"]
    assert branches_of(line) == ["a", "a-b"]


def test_a_pin_and_a_provenance_are_read_as_they_were_written():
    assert Pin.of(marked(json.dumps(PIN.dump()))) == PIN
    assert Provenance.of(marked(json.dumps(PROVENANCE.dump()))) == PROVENANCE


@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"clone": "app/db"}', '{"clone_uid": "x", "more": 1}'])
def test_what_somebody_has_changed_says_nothing(text):
    assert Pin.of(marked(text)) is None
    assert Provenance.of(marked(text)) is None
