"""What is kept of deleted branches: under which tag, for how long, and how it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from coppice.engines.base import Tag
from coppice.reconcile.kept import KEPT_FOR, MAX_TOLD, kept_branches, kept_status, overdue, tag_of_deleted

NOW = datetime(2026, 3, 2, 9, 0, 7, tzinfo=UTC)


def test_the_tag_names_the_branch_and_the_moment_in_which_its_deletion_was_asked_for():
    asked = NOW.astimezone(timezone(timedelta(hours=2)))
    assert tag_of_deleted("feature/autumn", asked) == "coppice/deleted/feature/autumn/20260302T090007Z"


@pytest.mark.parametrize("branch", ["autumn", "feature/autumn", "coppice/deleted/x", "a/20260302T090007Z"])
def test_what_a_tag_says_is_read_again(branch):
    tag = tag_of_deleted(branch, NOW)
    [kept] = kept_branches([Tag(tag, "abc", NOW)])
    assert (kept.branch, kept.tag, kept.head, kept.until) == (branch, tag, "abc", NOW + timedelta(days=7))


def test_how_long_counts_from_when_the_tag_was_made_and_not_from_what_its_name_says():
    """A deletion may have waited long for its server."""
    kept = kept_branches([Tag(tag_of_deleted("autumn", NOW - timedelta(days=30)), "abc", NOW)])
    assert overdue(kept, NOW + KEPT_FOR - timedelta(seconds=1)) == []
    assert overdue(kept, NOW + KEPT_FOR) == kept


def test_the_one_that_was_deleted_last_is_told_first_and_what_goes_is_not_told():
    tags = [Tag(tag_of_deleted(f"b{age}", NOW), "abc", NOW - timedelta(days=age)) for age in (3, 1, 7, 2)]
    told = kept_status(kept_branches(tags), NOW)
    assert [entry["branch"] for entry in told] == ["b1", "b2", "b3"]
    assert told[0] == {
        "branch": "b1",
        "head": "abc",
        "tag": "coppice/deleted/b1/20260302T090007Z",
        "deletedAt": "2026-03-01T09:00:07Z",
        "keptUntil": "2026-03-08T09:00:07Z",
    }


def test_a_status_holds_no_more_than_it_may():
    tags = [Tag(tag_of_deleted("autumn", NOW + timedelta(seconds=n)), "abc", NOW) for n in range(MAX_TOLD + 1)]
    assert len(kept_status(kept_branches(tags), NOW)) == MAX_TOLD


@pytest.mark.parametrize("branch", ["a" * 300, "autumn leaves", "autumn~1"])
def test_a_tag_that_somebody_else_has_made_and_no_databranch_can_name_keeps_nothing(branch):
    """A status that says it would be refused, and the store could not say anything any more."""
    assert kept_branches([Tag(tag_of_deleted(branch, NOW), "abc", NOW)]) == []


def test_the_longest_name_of_a_branch_is_kept():
    branch = "a" * 200
    [kept] = kept_branches([Tag(tag_of_deleted(branch, NOW), "abc", NOW)])
    assert kept.branch == branch
