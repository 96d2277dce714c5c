"""What whoever reviewed a request reads on their review."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.story import Story

BOB = "bob@example.com"
MOMENT = "2026-03-02T09:00:00Z"
PATCH = {"proposal": "f00d", "source": "a1", "resolutions": "b2", "digest": "c3"}


def entry(*, counts: bool = True, verdict: str = "Approve", **more: Any) -> dict[str, Any]:
    return {"review": "fix-bob", "reviewer": BOB, "verdict": verdict, "counts": counts, **more}


def judged(story: Story, *reviews: dict[str, Any], **status: Any) -> None:
    """Let a request say what it has made of its reviews."""
    story.kube.change(
        "DataChangeRequest", "data", "fix", lambda found: found.update(status={"reviews": list(reviews), **status})
    )


@pytest.fixture
async def reviewed(story: Story) -> Story:
    """A request that nobody looks after yet, with bob's approval."""
    story.operator.reconcilers.pop("DataChangeRequest", None)
    story.request()
    story.review(patch=PATCH)
    await story.settle()
    return story


def counted(story: Story) -> tuple[str, str]:
    found = story.condition("DataReview", "fix-bob", of="Counted")
    return str(found["status"]), str(found["reason"])


async def test_a_review_waits_for_its_request_to_have_something_to_show(reviewed: Story) -> None:
    assert counted(reviewed) == ("False", "Pending")
    assert reviewed.condition("DataReview", "fix-bob", of="Reconciling")["status"] == "True"


async def test_a_review_says_that_it_counts(reviewed: Story) -> None:
    judged(reviewed, entry())
    await reviewed.settle()
    assert counted(reviewed) == ("True", "Counts")
    reviewed.expect_ready("DataReview", "fix-bob")


async def test_a_review_that_asks_for_changes_says_that_it_blocks(reviewed: Story) -> None:
    reviewed.edit("DataReview", "fix-bob", verdict="RequestChanges")
    judged(reviewed, entry())
    await reviewed.settle()
    assert counted(reviewed) == ("False", "Pending")
    judged(reviewed, entry(verdict="RequestChanges"))
    await reviewed.settle()
    assert counted(reviewed) == ("True", "Blocks")


@pytest.mark.parametrize(
    "why",
    ["OfEarlierRequest", "ServiceAccount", "Author", "CommitAuthor", "TooManyAuthors", "NotAReviewer", "OtherPatch"],
)
async def test_a_review_says_why_it_does_not_count(reviewed: Story, why: str) -> None:
    judged(reviewed, entry(counts=False, why=why))
    await reviewed.settle()
    assert counted(reviewed) == ("False", why)
    assert reviewed.condition("DataReview", "fix-bob", of="Stalled")["status"] == "False"


async def test_an_approval_does_not_count_while_nobody_vouches_for_who_wrote_it(reviewed: Story) -> None:
    absent = {"reason": "IdentityUnenforced", "message": "a policy is absent", "lastTransitionTime": MOMENT}
    unvouched = entry(counts=False, why="IdentityUnenforced")
    judged(reviewed, unvouched, conditions=[{"type": "Approved", "status": "False", **absent}])
    await reviewed.settle()
    assert counted(reviewed) == ("False", "IdentityUnenforced")
    assert "a policy is absent" in reviewed.condition("DataReview", "fix-bob")["message"]


async def test_a_review_of_somebody_else_under_its_name_is_another_one(reviewed: Story) -> None:
    judged(reviewed, {**entry(), "reviewer": "carol@example.com"})
    await reviewed.settle()
    assert counted(reviewed) == ("False", "Pending")


async def test_a_review_after_the_publication_says_so(reviewed: Story) -> None:
    published = {"commit": "d4", "before": "e5", "tag": "coppice/fix", "at": MOMENT}
    judged(reviewed, published=published)
    await reviewed.settle()
    assert counted(reviewed) == ("False", "Published")


async def test_a_review_without_a_request_is_left_to_its_reviewer(reviewed: Story) -> None:
    reviewed.delete("DataChangeRequest", "fix")
    await reviewed.settle()
    message = reviewed.expect_stalled("DataReview", "fix-bob", "RequestNotFound")
    assert "delete this DataReview" in message
    assert "fix-bob" in reviewed.names("DataReview")


async def test_of_a_review_nothing_but_its_status_is_written(reviewed: Story) -> None:
    before = reviewed.get("DataReview", "fix-bob")
    judged(reviewed, entry())
    await reviewed.settle()
    after = reviewed.get("DataReview", "fix-bob")
    kept = ("labels", "annotations", "finalizers", "ownerReferences")
    assert [after["metadata"].get(key) for key in kept] == [before["metadata"].get(key) for key in kept]
    assert after["spec"] == before["spec"]
