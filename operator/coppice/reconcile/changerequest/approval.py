"""Whether people have said yes to what would be published, by the rules of the store's owners. Pure.

Who a review is of is what the API server has vouched for by an admission policy (``identity``); without it nothing here
means anything. An approval is of one patch: of the request itself, the proposed head, the
resolutions, and all that changes on the target.
When the target moves and the same rows change in the same way, it is still of what would be published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Final
from unicodedata import combining, normalize

from coppice.api.v1alpha1 import Check, DataReview, PatchStatus, ProtectedBranches, ReviewStatus, Verdict
from coppice.engines.merging import Authors

SERVICE_ACCOUNT: Final = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the store's owners ask for of a branch: each entry of ``spec.protection`` that matches it."""

    entries: tuple[ProtectedBranches, ...] = ()

    @property
    def protected(self) -> bool:
        """Return whether the branch is protected at all."""
        return bool(self.entries)

    @property
    def approvals(self) -> int:
        """Return how many people must approve at least."""
        return max((entry.approvals for entry in self.entries), default=0)

    @property
    def checks(self) -> tuple[Check, ...]:
        """Return what must hold of the merged data."""
        return tuple(check for entry in self.entries for check in entry.checks)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is reviewed. ``commit_authors`` are those of the proposed commits."""

    name: str
    created_at: datetime
    author: str
    commit_authors: Authors
    patch: PatchStatus | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the reviews come to: each of them, who has approved, and a condition's reason and message."""

    reviews: tuple[ReviewStatus, ...]
    approvers: tuple[str, ...]
    approved: bool
    reason: str
    message: str


def rules_for(protection: Sequence[ProtectedBranches], branch: str) -> Rules:
    """Return the rules for a branch; ``*`` in a pattern stands for anything, ``/`` too."""
    matching = (entry for entry in protection if any(matches(pattern, branch) for pattern in entry.branches))
    return Rules(tuple(matching))


def matches(pattern: str, branch: str) -> bool:
    """Return whether a pattern of ``spec.protection`` means a branch; it holds no wildcard but ``*``.

    Letters are compared without case and accents, as an engine may that protects the branch: of two branches which it
    takes for one, none goes without a rule.
    """
    return fnmatchcase(_folded(branch), _folded(pattern))


def _folded(name: str) -> str:
    return "".join(letter for letter in normalize("NFKD", name.casefold()) if not combining(letter))


def judge(proposal: Proposal, reviews: Sequence[DataReview], rules: Rules) -> Judgement:
    """Return what the reviews of a request come to; those of others are left out."""
    ours = sorted((entry for entry in reviews if entry.spec.request == proposal.name), key=_order)
    seen = tuple(_seen(proposal, review, rules) for review in ours)
    blocking = [entry for entry in seen if entry.counts and entry.verdict == Verdict.REQUEST_CHANGES]
    counted = [
        review for review, entry in zip(ours, seen, strict=True) if entry.counts and entry.verdict == Verdict.APPROVE
    ]
    approvers = tuple(sorted({review.spec.reviewer for review in counted}))
    if blocking:
        who = ", ".join(sorted({f"{entry.reviewer} (DataReview {entry.review})" for entry in blocking}))
        message = f"changes are asked for by {who}: they may approve, or delete their review, when it is put right"
        return Judgement(seen, approvers, approved=False, reason="ChangesRequested", message=message)
    lacking = [words for entry in rules.entries if (words := _lacks(entry, counted))]
    if lacking:
        message = f"{'; '.join(dict.fromkeys(lacking))}: coppice review {proposal.name}"
        return Judgement(seen, approvers, approved=False, reason="ApprovalsMissing", message=message)
    if not rules.approvals:
        return Judgement(seen, approvers, approved=True, reason="NoApprovalNeeded", message="nobody need approve")
    message = f"approved by {', '.join(approvers)}"
    return Judgement(seen, approvers, approved=True, reason="Approved", message=message)


def _order(review: DataReview) -> tuple[str, str]:
    return review.spec.reviewer, review.metadata.name


def _seen(proposal: Proposal, review: DataReview, rules: Rules) -> ReviewStatus:
    why = _why_not(proposal, review, rules)
    return ReviewStatus(
        review=review.metadata.name,
        reviewer=review.spec.reviewer,
        verdict=review.spec.verdict.value,
        counts=why is None,
        why=why,
    )


def _why_not(proposal: Proposal, review: DataReview, rules: Rules) -> str | None:
    """Return why a review does not count, or None.

    Whoever asks for changes is heard, whatever state they looked at and whether or not they might approve: the safe
    side is not to publish.
    """
    reviewer = review.spec.reviewer
    if review.metadata.is_deleting:
        return "Deleted"
    if _is_older(review, proposal.created_at):
        return "OfEarlierRequest"
    if reviewer.startswith(SERVICE_ACCOUNT):
        return "ServiceAccount"
    if review.spec.verdict is Verdict.REQUEST_CHANGES:
        return None
    if _same(reviewer, proposal.author):
        return "Author"
    own = _own_work(reviewer, proposal.commit_authors)
    if own is not None:
        return own
    if not any(_may_approve(entry, review) for entry in rules.entries) and rules.entries:
        return "NotAReviewer"
    patch = review.spec.patch
    if patch is None or proposal.patch is None or patch.dump() != proposal.patch.dump():
        return "OtherPatch"
    return None


def _is_older(review: DataReview, moment: datetime) -> bool:
    """Return whether a review is older than something. Times are in whole seconds: of the same second it is taken to
    be, unless it asks for changes.
    """
    made = review.metadata.creation_timestamp
    vetoes = review.spec.verdict is Verdict.REQUEST_CHANGES
    return made is None or made < moment or (made == moment and not vetoes)


def _own_work(reviewer: str, authors: Authors) -> str | None:
    if any(_same(reviewer, author) for author in authors.names):
        return "CommitAuthor"
    return "TooManyAuthors" if authors.cut else None


def _same(reviewer: str, author: str) -> bool:
    """Return whether two names may be one person's: rather one approval too few than one's own.

    The API server may put a prefix before what an identity provider says, and commits hold names and addresses as
    whoever made them wrote them. A service account is called what somebody with a namespace likes, and is no person.
    """
    return _bare(reviewer.casefold()) == _bare(author.casefold())


def _bare(name: str) -> str:
    return name if name.startswith(SERVICE_ACCOUNT) else name.rpartition(":")[2]


def _may_approve(entry: ProtectedBranches, review: DataReview) -> bool:
    if entry.reviewers is None:
        return True
    wanted = entry.reviewers
    return review.spec.reviewer in wanted.users or not set(wanted.groups).isdisjoint(review.spec.groups)


def _lacks(entry: ProtectedBranches, counted: Sequence[DataReview]) -> str:
    """Return what one rule still asks for, or nothing."""
    people = {review.spec.reviewer for review in counted if _may_approve(entry, review)}
    if len(people) >= entry.approvals:
        return ""
    whose = ""
    if entry.reviewers is not None:
        named = [*entry.reviewers.users, *(f"group {group}" for group in entry.reviewers.groups)]
        whose = f" of {', '.join(named)}" if named else " of nobody: name users or groups in spec.protection"
    return f"{len(people)} of {entry.approvals} approvals{whose} on branches {', '.join(entry.branches)}"
