"""Whose yes counts, for what, and what it comes to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.api.v1alpha1 import DataReview, PatchStatus, ProtectedBranches
from coppice.engines.merging import Authors
from coppice.reconcile.changerequest.approval import Proposal, judge, matches, rules_for

AT = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
PATCH = {"proposal": "eeee", "source": "aaaa", "resolutions": "bbbb", "digest": "cccc"}
MAIN = ProtectedBranches.model_validate({"branches": ["main"]})
DATA_OWNERS = ProtectedBranches.model_validate({"branches": ["main"], "reviewers": {"groups": ["data-owners"]}})


def proposal(**changes):
    values = {
        "name": "prices",
        "created_at": AT,
        "author": "ann",
        "commit_authors": Authors(frozenset({"ann", "cy@example.com"})),
        "patch": PatchStatus.model_validate(PATCH),
    }
    return Proposal(**{**values, **changes})


def review(reviewer="bea", verdict="Approve", *, minutes=1, name=None, **spec):
    values = {"request": "prices", "reviewer": reviewer, "verdict": verdict, "patch": PATCH, **spec}
    metadata = {
        "name": name or f"of-{reviewer.rpartition(':')[2].rpartition('@')[0] or 'somebody'}-{verdict.lower()}",
        "namespace": "data",
        "creationTimestamp": (AT + timedelta(minutes=minutes)).isoformat(),
    }
    return DataReview.model_validate({"kind": "DataReview", "metadata": metadata, "spec": values})


def judged(*reviews, rules=(MAIN,), of=None):
    return judge(of or proposal(), reviews, rules_for(rules, "main"))


def test_one_person_who_is_not_the_author_approves():
    found = judged(review())
    assert (found.approved, found.reason, found.approvers) == (True, "Approved", ("bea",))


def test_without_approvals_it_waits_and_says_for_whom():
    found = judged(rules=(DATA_OWNERS,))
    assert (found.approved, found.reason) == (False, "ApprovalsMissing")
    assert "0 of 1 approvals of group data-owners" in found.message
    assert "coppice review prices" in found.message


@pytest.mark.parametrize(
    ("given_review", "why"),
    [
        (review("ann"), "Author"),
        (review("ANN"), "Author"),
        (review("oidc:ann"), "Author"),
        (review("cy@example.com"), "CommitAuthor"),
        (review("system:serviceaccount:ci:bot"), "ServiceAccount"),
        (review(minutes=-1), "OfEarlierRequest"),
        (review(minutes=0), "OfEarlierRequest"),
        (review(patch={**PATCH, "proposal": "dddd"}), "OtherPatch"),
        (review(patch={**PATCH, "source": "dddd"}), "OtherPatch"),
        (review(patch={**PATCH, "resolutions": "dddd"}), "OtherPatch"),
        (review(patch={**PATCH, "digest": "dddd"}), "OtherPatch"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.spec.reviewer,
)
def test_an_approval_that_does_not_count_says_why(given_review, why):
    found = judged(given_review)
    assert not found.approved
    [entry] = found.reviews
    assert (entry.counts, entry.why) == (False, why)


def test_an_approval_of_another_request_is_none_of_this_one():
    found = judged(review(request="others"))
    assert found.reviews == ()
    assert not found.approved


def test_nobody_approves_what_may_hold_commits_of_their_own():
    crowd = proposal(commit_authors=Authors(frozenset({"ann"}), cut=True))
    found = judged(review(), of=crowd)
    assert not found.approved
    assert found.reviews[0].why == "TooManyAuthors"
    assert judged(review("dan", "RequestChanges"), of=crowd).reason == "ChangesRequested"


def test_before_anything_is_computed_no_approval_counts():
    assert not judged(review(), of=proposal(patch=None)).approved


def test_only_those_named_may_approve():
    assert judged(review(), rules=(DATA_OWNERS,)).reviews[0].why == "NotAReviewer"
    assert judged(review(groups=["data-owners"]), rules=(DATA_OWNERS,)).approved


def test_each_rule_that_matches_has_its_own_approvals():
    twice = ProtectedBranches.model_validate({"branches": ["*"], "approvals": 2})
    rules = (DATA_OWNERS, twice)
    assert judged(review("bea"), review("dan"), rules=rules).message.startswith("0 of 1 approvals of group")
    assert judged(review("bea", groups=["data-owners"]), rules=rules).message.startswith("1 of 2 approvals on")
    assert judged(review("bea", groups=["data-owners"]), review("dan"), rules=rules).approved


def test_two_reviews_of_one_person_are_one_approval():
    twice = ProtectedBranches.model_validate({"branches": ["main"], "approvals": 2})
    assert not judged(review(name="one"), review(name="two"), rules=(twice,)).approved


@pytest.mark.parametrize("patch", [PATCH, {**PATCH, "digest": "dddd"}, None])
def test_whoever_asks_for_changes_is_heard_whatever_they_looked_at(patch):
    found = judged(review("dan"), review("bea", "RequestChanges", patch=patch))
    assert (found.approved, found.reason) == (False, "ChangesRequested")
    assert "bea (DataReview of-somebody-requestchanges)" in found.message


def test_who_approves_and_asks_for_changes_asks_for_changes():
    assert judged(review("bea"), review("bea", "RequestChanges", minutes=2)).reason == "ChangesRequested"


def test_the_author_may_hold_up_their_own_request():
    assert judged(review("bea"), review("ann", "RequestChanges")).reason == "ChangesRequested"


def test_a_service_account_that_is_called_like_a_person_silences_nobody():
    robot = proposal(
        author="system:serviceaccount:team:bea", commit_authors=Authors(frozenset({"system:serviceaccount:a:cy"}))
    )
    assert judged(review("bea"), of=robot).approved
    assert judged(review("cy"), of=robot).approved
    assert judged(review("dan"), review("bea", "RequestChanges"), of=robot).reason == "ChangesRequested"


def test_nobody_need_approve_what_goes_into_a_branch_without_protection():
    found = judge(proposal(), (), rules_for((DATA_OWNERS,), "feature/autumn"))
    assert (found.approved, found.reason) == (True, "NoApprovalNeeded")
    blocked = judge(proposal(), (review("bea", "RequestChanges"),), rules_for((DATA_OWNERS,), "feature/autumn"))
    assert not blocked.approved


def test_a_rule_that_names_nobody_is_met_by_nobody():
    nobody = ProtectedBranches.model_validate({"branches": ["main"], "reviewers": {}})
    assert "of nobody" in judged(review(), rules=(nobody,)).message


@pytest.mark.parametrize(
    ("pattern", "branch", "meant"),
    [
        ("main", "main", True),
        ("main", "mainline", False),
        ("release/*", "release/1", True),
        ("release/*", "release/1/hotfix", True),
        ("release/*", "release", False),
        ("*", "feature/x", True),
        ("Main", "main", True),
        ("main", "Main", True),
        ("main", "m\u00e1in", True),
        ("release/*", "Release/2", True),
        ("main", "m", False),
    ],
)
def test_a_pattern_means_these_branches(pattern, branch, meant):
    assert matches(pattern, branch) is meant


REVIEWERS = st.sampled_from(["ann", "bea", "cy@example.com", "dan", "eve", "system:serviceaccount:a:b"])
REVIEWS = st.builds(
    review,
    REVIEWERS,
    st.sampled_from(["Approve", "RequestChanges"]),
    name=st.sampled_from(["r1", "r2", "r3", "r4"]),
    patch=st.sampled_from([PATCH, {**PATCH, "digest": "dddd"}]),
    groups=st.lists(st.sampled_from(["data-owners", "others"]), unique=True),
)


@given(st.lists(REVIEWS, max_size=6))
def test_nothing_is_approved_but_by_people_who_may_and_against_nobodys_objection(reviews):
    found = judged(*reviews, rules=(DATA_OWNERS,))
    yes = {
        entry.spec.reviewer
        for entry in reviews
        if entry.spec.verdict == "Approve"
        and "data-owners" in entry.spec.groups
        and entry.spec.patch is not None
        and entry.spec.patch.dump() == PATCH
    } & {"bea", "dan", "eve"}
    no = {entry.spec.reviewer for entry in reviews if entry.spec.verdict == "RequestChanges"}
    assert found.approved is (bool(yes) and not no - {"system:serviceaccount:a:b"})
    assert set(found.approvers) == yes


@given(st.lists(REVIEWS, max_size=5, unique_by=lambda entry: entry.metadata.name), st.randoms())
def test_the_order_in_which_reviews_are_found_means_nothing(reviews, random):
    shuffled = [*reviews]
    random.shuffle(shuffled)
    assert judged(*reviews) == judged(*shuffled)
