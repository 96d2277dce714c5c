"""Which copy of a clone is wanted, and since when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from coppice.api.v1alpha1 import NEVER, ON_HEAD_CHANGE, DataClone, OnClose, OnRevision, PullRequestState
from coppice.core import labels
from coppice.engines.base import Version
from coppice.reconcile.clone.keepseen import unfinished
from coppice.reconcile.clone.observation import CloneObservation
from coppice.reconcile.copies import Copy
from coppice.reconcile.migrations import content_of, read_attempt
from coppice.reconcile.observed import created_at, format_time, is_deleting, label
from coppice.reconcile.requests import Request, read_request
from coppice.reconcile.schedule import last_time, next_time

REFRESH_PAUSE = timedelta(seconds=60)
"""The least time between two copies of a clone that follows a branch."""
SNAPSHOT_SLACK = timedelta(minutes=10)
"""How long a snapshot may take where a clone is refreshed oftener than that: an older time of its schedule counts."""


@dataclass(frozen=True, slots=True)
class Target:
    """The copy that is wanted: ``copy`` is None while it has no claim yet. ``why`` names what asked for it."""

    number: int
    copy: Copy | None
    why: str

    @property
    def turn(self) -> int:
        """Return its place in the order of the copies."""
        return self.number if self.copy is None else self.copy.turn


def target_of(seen: CloneObservation, clone: DataClone) -> Target:
    """Return the copy that should serve: the newest there is, or the next where something asks for a new copy."""
    newest = seen.newest
    if newest is None:
        return Target(1, None, "it is the first one")
    why = None if is_parting(seen, clone) else asked_anew(seen, clone, newest) or _news(seen, clone, newest)
    return Target(newest.number, newest, "") if why is None else Target(newest.turn + 1, None, why)


def is_parting(seen: CloneObservation, clone: DataClone) -> bool:
    """Return whether what was changed on a clone is being kept, or has yet to be, because its data are to go: no other
    copy takes its place then.
    """
    closed, ends = clone.status.pull_request, clone.status.expires_at
    over = ends is not None and ends <= seen.now
    over = over or (closed is not None and closed.state is PullRequestState.CLOSED)
    over = over or is_deleting(seen.manifest) or unfinished(clone) is not None
    return clone.spec.on_close is OnClose.KEEP_CHANGES and over


def asked_anew(seen: CloneObservation, clone: DataClone, newest: Copy) -> str | None:
    """Return what somebody did to ask for a new copy."""
    reset = reset_request(seen)
    if reset is not None and reset.token != newest.origin.reset:
        return f"a reset was asked for at {reset.token}"
    if clone.spec.on_revision is OnRevision.RESET and is_other_revision(clone, newest) and newest.origin.revision:
        return "there is a new revision"
    if clone.spec.on_revision is OnRevision.RESET_IF_MIGRATIONS_CHANGED and _has_other_migrations(seen, clone, newest):
        return "the migrations changed with the revision"
    return None


def _has_other_migrations(seen: CloneObservation, clone: DataClone, newest: Copy) -> bool:
    """Return whether both revision and migrations are others than when the last ones ran on a copy, or began to: it
    does not matter which of the two is changed first.
    """
    template, done = seen.migration.template, newest.migrated
    if clone.spec.migrations is None or template is None or clone.spec.revision is None:
        return False
    jobs = (job for job in seen.migration.jobs if label(job, labels.COPY) == str(newest.number))
    attempt = next((read_attempt(job) for job in jobs), None)
    ours = attempt is not None and attempt.claim == newest.claim["metadata"]["uid"]
    if attempt is not None and ours and not attempt.is_written_in(done):
        return attempt.content != content_of(template) and attempt.revision != clone.spec.revision
    if done is None:
        return False
    return done.content != content_of(template) and done.revision != clone.spec.revision


def may_have_news(seen: CloneObservation, clone: DataClone) -> bool:
    """Return whether a clone that is well may need another copy all the same, if its source is there."""
    return clone.spec.refresh == ON_HEAD_CHANGE or refresh_asked_at(seen, clone) is not None


def _news(seen: CloneObservation, clone: DataClone, newest: Copy) -> str | None:
    """Return why a clone that is refreshed by itself is to have another copy: one at a time, and not oftener than the
    pause, however busy the branch's writers.
    """
    if seen.serving is not newest or not isinstance(seen.live, Version):
        return None
    if clone.spec.refresh != ON_HEAD_CHANGE:
        due = refresh_asked_at(seen, clone)
        return f"a refresh was due at {format_time(due)}" if due is not None else None
    if seen.live.head == newest.origin.followed_head or refresh_pause_ends(seen, clone) is not None:
        return None
    return f"the branch moved to {seen.live.head}"


def refresh_pause_ends(seen: CloneObservation, clone: DataClone) -> datetime | None:
    """Return from when on a clone that follows a branch may have its next copy, if that is to come."""
    if seen.newest is None or clone.spec.refresh != ON_HEAD_CHANGE:
        return None
    ends = created_at(seen.newest.claim) + REFRESH_PAUSE
    return ends if ends > seen.now else None


def next_refresh(seen: CloneObservation, clone: DataClone) -> datetime | None:
    """Return when a clone that is refreshed by a schedule is due: the first time since its newest copy was made or
    brought back.
    """
    newest = seen.newest
    if newest is None or clone.spec.refresh in {NEVER, ON_HEAD_CHANGE}:
        return None
    since = created_at(newest.claim) if newest.recall is None else newest.recall.at
    return next_time(clone.spec.refresh, since)


def refresh_asked_at(seen: CloneObservation, clone: DataClone) -> datetime | None:
    """Return as of when a scheduled refresh has the branch, if one is due: of several times that passed, the last."""
    due = next_refresh(seen, clone)
    if due is None or due > seen.now:
        return None
    last = last_time(clone.spec.refresh, seen.now - SNAPSHOT_SLACK)
    return due if last is None else max(due, last)


def reset_request(seen: CloneObservation) -> Request | None:
    """Return the reset that is asked for; one in the future waits for its time."""
    request = read_request(seen.manifest, labels.RESET_REQUESTED_AT)
    return request if request is not None and request.at <= seen.now else None


def undo_request(seen: CloneObservation) -> Request | None:
    """Return the undo that is asked for; one in the future waits for its time."""
    request = read_request(seen.manifest, labels.UNDO_REQUESTED_AT)
    return request if request is not None and request.at <= seen.now else None


def is_other_revision(clone: DataClone, copy: Copy) -> bool:
    """Return whether a copy was made for another revision than the clone's; one kept through a change is marked."""
    return clone.spec.revision is not None and clone.spec.revision != copy.origin.revision


def renewed_at(seen: CloneObservation, clone: DataClone) -> datetime:
    """Return when somebody last asked for the clone: its creation, an extension, or a new revision.

    A life begins with its first copy: what a clone waits before, for a grant or a place, is no part of it. Without a
    grant nobody can ask for anything, and what was asked counts when there is one again.
    """
    moments = [created_at(seen.manifest), clone.status.renewed_at]
    moments += [created_at(copy.claim) for copy in seen.copies if copy.number == 1]
    if seen.source is not None and seen.source.terms is not None:
        moments += _requests(seen, clone)
    return min(max(moment for moment in moments if moment is not None), seen.now)


def _requests(seen: CloneObservation, clone: DataClone) -> list[datetime]:
    extension, handled = read_request(seen.manifest, labels.EXTEND_REQUESTED_AT), clone.status.handled
    extended = extension is not None and (handled is None or extension.token != handled.extend_requested_at)
    revised = clone.spec.revision not in {None, clone.status.revision}
    return [*([extension.at] if extension is not None and extended else []), *([seen.now] if revised else [])]


def copy_asked_at(seen: CloneObservation, clone: DataClone) -> datetime:
    """Return when the copy was asked for: with the clone, an extension, a new revision, or the last reset."""
    reset, renewed = reset_request(seen), renewed_at(seen, clone)
    return renewed if reset is None else max(renewed, reset.at)
