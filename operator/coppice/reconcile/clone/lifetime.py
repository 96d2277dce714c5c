"""How long a clone lives and when its server sleeps. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from coppice.api.v1alpha1 import Power
from coppice.core import labels
from coppice.engines.base import Activity
from coppice.reconcile.clone.names import SOURCE
from coppice.reconcile.clone.queue import is_expired
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.target import next_refresh, refresh_pause_ends, renewed_at, undo_request
from coppice.reconcile.clone.undo import Refusal, judge, open_undo
from coppice.reconcile.draft import Draft, Fact, stalls
from coppice.reconcile.lease import LeaseTerms, expires_at, lease_terms, warned_from
from coppice.reconcile.observed import format_time
from coppice.reconcile.requests import read_request

_SIGNS_OF_USE = (labels.WAKE_REQUESTED_AT, labels.RESET_REQUESTED_AT, labels.UNDO_REQUESTED_AT)
LOOK_PERIOD = 60.0
"""Seconds between two looks at a clone that is well."""
USE_PRECISION = timedelta(seconds=10)
"""How exactly the last use is known. Each use that is written down wakes the clone again, and a busy server would have
it looked at without end.
"""


def lease_of(at: Situation) -> LeaseTerms:
    """Return the lease that counts."""
    terms = at.source.terms
    allowed = terms.longest if terms is not None else None
    default = LeaseTerms(idle=at.environment.idle, longest=at.environment.longest)
    return lease_terms(at.clone.spec.lease, allowed=allowed, default=default)


def last_activity(at: Situation) -> datetime:
    """Return when the clone was last used, as far as anybody noticed, or asked for."""
    before = _known_use(at)
    return at.seen.now if _is_used(at) and at.seen.now - before >= USE_PRECISION else before


def activity_token(at: Situation) -> str | None:
    """Return the engine's mark of the last use that is written down."""
    activity = at.seen.activity
    pending = _is_used(at) and at.seen.now - _known_use(at) < USE_PRECISION
    return activity.token if isinstance(activity, Activity) and not pending else at.clone.status.activity


def _is_used(at: Situation) -> bool:
    activity = at.seen.activity
    return isinstance(activity, Activity) and activity.token not in {"", at.clone.status.activity}


def _known_use(at: Situation) -> datetime:
    """Return the last use that is written down, or the last word of somebody who wants the clone."""
    seen = at.seen
    asked = (read_request(seen.manifest, key) for key in _SIGNS_OF_USE)
    requests = [request.at for request in asked if request is not None and request.at <= seen.now]
    moments = [renewed_at(seen, at.clone), at.clone.status.last_activity_at, *requests]
    return max(moment for moment in moments if moment is not None)


def lease_end(at: Situation) -> datetime | None:
    """Return when the lease ends. Nothing but a renewal moves an end that has come, or that outlives its grant."""
    before, renewed = at.clone.status.expires_at, at.clone.status.renewed_at
    asked = renewed_at(at.seen, at.clone)
    # Without copies an end that is written down and has come is why there are none, whatever was told since.
    over = is_expired(at.seen.manifest) or (not at.seen.copies and _end_is_told(at))
    if over and before is not None and renewed is not None and asked <= renewed:
        return before
    if not at.seen.copies:
        return None
    if at.source.terms is None and before is not None:
        return before
    return expires_at(lease_of(at), asked=asked, active=last_activity(at))


def is_unused(at: Situation) -> bool:
    """Return whether nobody has used a clone that serves for so long that its server may rest, if it is to."""
    idle = at.seen.now - last_activity(at) >= at.environment.sleep
    return idle and at.clone.spec.power is Power.AUTO and at.seen.serving is not None


def warned_at(at: Situation, ends: datetime) -> datetime:
    """Return from when on it is said that the lease ends."""
    asked = renewed_at(at.seen, at.clone)
    return warned_from(lease_of(at), ends, asked=asked, before=at.environment.warning)


def _end_is_told(at: Situation) -> bool:
    """Return whether it is written down that the lease has ended."""
    ends = at.clone.status.expires_at
    return ends is not None and ends <= at.seen.now


def next_look(at: Situation, ends: datetime | None) -> float:
    """Return in how many seconds the clone is looked at again, if nothing happens."""
    refreshes = (refresh_pause_ends(at.seen, at.clone), next_refresh(at.seen, at.clone))
    sleeps = last_activity(at) + at.environment.sleep if at.clone.spec.power is Power.AUTO else None
    noticed = _known_use(at) + USE_PRECISION if _is_used(at) else None
    warned = None if ends is None else warned_at(at, ends)
    moments = [
        moment for moment in (ends, sleeps, noticed, warned, *refreshes) if moment is not None and moment > at.seen.now
    ]
    return max(min([LOOK_PERIOD, *((moment - at.seen.now).total_seconds() for moment in moments)]), 1.0)


def expire(at: Situation, draft: Draft, ends: datetime) -> Fact:
    """Remove everything but the object: a GitOps tool would make a deleted object anew for ever."""
    # First the end is written down: without it, what is half removed would read as a clone that has yet to begin.
    if _end_is_told(at):
        drop_everything(at, draft)
    return stalls(
        SOURCE,
        "Expired",
        f"the lease ended at {format_time(ends)} and the data are gone; to have the clone again, annotate it with "
        f"{labels.EXTEND_REQUESTED_AT}=<now>, or set a new spec.revision",
        retry_after=None if _end_is_told(at) else 1,
    )


def drop_everything(at: Situation, draft: Draft) -> None:
    """Remove all that was made for the clone."""
    seen = at.seen
    claims = (copy.claim for copy in seen.copies)
    migration = (*seen.migration.jobs, *seen.migration.secrets, *seen.migration.services)
    children = (*migration, *seen.pods, *claims, seen.binding, seen.service, seen.policy, seen.secret, *at.aliases)
    for child in children:
        draft.drop(child)


def lifetime_status(at: Situation, ends: datetime | None) -> dict[str, Any]:
    """Return the part of the status that says how long the clone lives, and what was asked of it and done."""
    return {
        "renewedAt": format_time(renewed_at(at.seen, at.clone)),
        "lastActivityAt": format_time(last_activity(at)),
        "expiresAt": format_time(ends) if ends is not None else None,
        # Without a grant no revision is acted upon.
        "revision": at.clone.status.revision if at.source.terms is None else at.clone.spec.revision,
        "handled": _handled(at),
    }


def _handled(at: Situation) -> dict[str, str | None]:
    before, newest = at.clone.status.handled, at.seen.newest
    extension = read_request(at.seen.manifest, labels.EXTEND_REQUESTED_AT)
    extended = extension.token if extension is not None and at.source.terms is not None else None
    undo = undo_request(at.seen)
    undone = undo.token if undo is not None and not _is_open(at) else None
    woken = read_request(at.seen.manifest, labels.WAKE_REQUESTED_AT)
    return {
        "resetRequestedAt": (newest.origin.reset or None) if newest is not None else None,
        "undoRequestedAt": undone or (before.undo_requested_at if before is not None else None),
        "extendRequestedAt": extended or (before.extend_requested_at if before is not None else None),
        "wakeRequestedAt": woken.token if woken else before.wake_requested_at if before is not None else None,
    }


def _is_open(at: Situation) -> bool:
    """Return whether the undo that is asked for is still to be done, or waits: one that is refused is over."""
    request = open_undo(at)
    return request is not None and not isinstance(judge(at, request), Refusal)
