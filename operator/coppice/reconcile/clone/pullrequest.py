"""What the end of a pull request means for its clone. Pure.

A clone ends with its pull request, a grace time after that was closed, and comes back when it is reopened. It ends by
nothing but its forge's word, and only by one that is younger than the grace: a pull request that was reopened meanwhile
is live, though the forge may be away since. Once a clone has ended it stays so for as long as nobody says that the pull
request is open, however often the operator forgets what it was told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from coppice.api.v1alpha1 import PullRequestState, PullRequestStatus
from coppice.core.plan import Plan
from coppice.core.pullrequests import ForgeTerms, PullRequest, PullRequestKey, State, UnknownReason
from coppice.reconcile.belief import Alleged
from coppice.reconcile.clone.keep import held
from coppice.reconcile.clone.lifetime import drop_everything
from coppice.reconcile.clone.names import SOURCE
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.draft import Draft, Fact, beside, holds, stalls, unknown
from coppice.reconcile.observed import condition, format_time

OPEN = "PullRequestOpen"
"""A condition beside the chain, there for every clone that names a pull request."""
LOOK_PERIOD = 300.0
"""Seconds between two looks, at a clone that has ended as well: whoever looks is interested, and the forge is asked on.
"""


@dataclass(frozen=True, slots=True)
class Closing:
    """That a pull request is closed. ``ends``: when its clone ends by that; ``is_due``: it does, or has, now, and is
    ``held`` for as long as its changes are yet to be kept.
    """

    key: PullRequestKey
    closed_at: datetime
    ends: datetime
    is_due: bool
    held: bool
    dry_run: bool

    @property
    def is_over(self) -> bool:
        """Return whether the clone has ended."""
        return self.is_due and not self.held


def closing(at: Situation) -> Closing | None:
    """Return what is due because the clone's pull request is closed, or None while it is not known to be."""
    alleged, now = at.seen.alleged, at.seen.now
    before, told = at.clone.status.pull_request, _told(at)
    if alleged is None or told is None or told.state is not PullRequestState.CLOSED:
        return None
    terms = at.environment.forges.terms(alleged.key.host) or ForgeTerms()
    closed_at = told.closed_at or now
    ends = closed_at + terms.grace
    has_ended = before is not None and before.ended_at is not None
    is_due = has_ended or (not terms.dry_run and now >= ends and _is_said_since(alleged, ends))
    is_held = not has_ended and held(at, closed_at) is not None
    return Closing(alleged.key, closed_at, ends, is_due, is_held, terms.dry_run)


def _is_said_since(alleged: Alleged, moment: datetime) -> bool:
    """Return whether the forge has said what is known at some time since."""
    known = alleged.known
    return isinstance(known, PullRequest) and known.read_at is not None and known.read_at >= moment


def end(at: Situation, draft: Draft, closed: Closing) -> Fact:
    """Remove everything but the object: a GitOps tool would make a deleted object anew for ever."""
    # First it is written down: half removed and forgotten, it would read as a clone that has yet to begin.
    told = at.clone.status.pull_request is not None and at.clone.status.pull_request.ended_at is not None
    if told:
        drop_everything(at, draft)
    message = (
        f"{closed.key} was closed at {format_time(closed.closed_at)} and the data are gone; they come anew when it is "
        "reopened. Else delete this DataClone"
    )
    return stalls(SOURCE, "PullRequestClosed", message, retry_after=LOOK_PERIOD if told else 1)


def with_pull_request(plan: Plan, at: Situation) -> Plan:
    """Return a clone's plan with what is known of its pull request."""
    alleged, told = at.seen.alleged, _told(at)
    if alleged is None or told is None or plan.status is None:
        return plan
    closed = closing(at)
    plan = replace(plan, status={**plan.status, "pullRequest": _status(at, told, closed)})
    fact = _fact(at, alleged, closed)
    # That no forge is configured is for the administrator to know, not for an event of each clone.
    said = plan.events if fact.reason == UnknownReason.NOT_CONFIGURED else None
    plan = beside(plan, fact, at.seen.manifest)
    plan = replace(plan, requeue_after=min(_next_look(at, closed), plan.requeue_after or LOOK_PERIOD))
    return plan if said is None else replace(plan, events=said)


def _next_look(at: Situation, closed: Closing | None) -> float:
    """Return in how many seconds the pull request is looked at again, whatever else is due."""
    if closed is None or closed.is_over or closed.ends <= at.seen.now:
        return LOOK_PERIOD
    return max(min((closed.ends - at.seen.now).total_seconds(), LOOK_PERIOD), 1.0)


def _told(at: Situation) -> PullRequestStatus | None:
    """Return how the pull request is, as far as anybody was told: by its forge, else as the status remembers it.

    An operator that has just begun knows nothing. That its forge has not told yet says nothing new.
    """
    alleged, before = at.seen.alleged, at.clone.status.pull_request
    if alleged is None:
        return None
    known = alleged.known
    if isinstance(known, PullRequest):
        state = PullRequestState.CLOSED if known.state is State.CLOSED else PullRequestState.OPEN
        return PullRequestStatus(state=state, closed_at=known.closed_at, **_details(at, known))
    remembered = before is not None and (known.reason is UnknownReason.UNAVAILABLE or before.ended_at is not None)
    return before if remembered else PullRequestStatus(state=PullRequestState.UNKNOWN)


def _details(at: Situation, known: PullRequest) -> dict[str, Any]:
    """Return what is told only where the namespace speaks for the repository: the forge shows a private one to the
    operator, not to whoever writes its name into a clone.
    """
    if at.source.speaks_for != known.key:
        return {}
    return {"fork": known.fork, "head_revision": known.head, "url": known.url or None}


def _status(at: Situation, told: PullRequestStatus, closed: Closing | None) -> dict[str, Any]:
    before, ended_at = at.clone.status.pull_request, None
    if closed is not None and closed.is_over:
        ended_at = before.ended_at if before is not None and before.ended_at is not None else at.seen.now
    found = _written(told, ended_at)
    same = before is not None and _written(before, before.ended_at) == found
    checked_at = before.checked_at if same and before is not None else at.seen.now
    return {**found, "checkedAt": None if checked_at is None else format_time(checked_at)}


def _written(told: PullRequestStatus, ended_at: datetime | None) -> dict[str, Any]:
    return {
        "state": told.state.value,
        "fork": told.fork,
        "headRevision": told.head_revision,
        "url": told.url,
        "closedAt": None if told.closed_at is None else format_time(told.closed_at),
        "endedAt": None if ended_at is None else format_time(ended_at),
    }


def _fact(at: Situation, alleged: Alleged, closed: Closing | None) -> Fact:
    known = alleged.known
    if closed is not None:
        return Fact(OPEN, holds=False, reason="Closed", message=_closed_words(closed))
    if isinstance(known, PullRequest):
        return holds(OPEN, "Open", f"{alleged.key} is open")
    before = condition(at.seen.manifest, OPEN)
    if known.reason is UnknownReason.UNAVAILABLE and before is not None and before["reason"] == "Open":
        return holds(OPEN, "Open", str(before["message"]))
    return unknown(OPEN, known.reason, known.message)


def _closed_words(closed: Closing) -> str:
    since, ends = format_time(closed.closed_at), format_time(closed.ends)
    if closed.is_over:
        return f"{closed.key} was closed at {since}, and the clone has ended by that"
    if closed.is_due:
        return f"{closed.key} was closed at {since}, and the clone ends as soon as its changes are kept"
    if closed.dry_run:
        return f"{closed.key} was closed at {since}; the clone would end at {ends}, but its forge is on dry run"
    return f"{closed.key} was closed at {since}: the clone ends at {ends} unless it is reopened"
