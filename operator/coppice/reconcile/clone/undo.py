"""Undo of a reset: the copy before it serves again, and the one after it takes its place in the undo window. Pure.

One write does it: the old copy's claim is marked as the newest. What follows, from its server to the Service, is what
follows for any newest copy, and another undo goes the other way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from coppice.api.v1alpha1 import ON_HEAD_CHANGE
from coppice.core.durations import format_duration
from coppice.core.plan import Event, Plan
from coppice.reconcile.clone.leftovers import previous_copy
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.target import reset_request, undo_request
from coppice.reconcile.copies import Copy, Marks, Recall, build_marks
from coppice.reconcile.observed import is_deleting
from coppice.reconcile.requests import Request


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an undo is not done; it is not done later either, when apps may have begun to use what there is."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class BringBack:
    """The copy that is to serve again, and the reset that is undone."""

    copy: Copy
    reset: str


def open_undo(at: Situation) -> Request | None:
    """Return the undo that was asked for and neither done nor refused yet."""
    request, newest, handled = undo_request(at.seen), at.seen.newest, at.clone.status.handled
    if request is None:
        return None
    done = newest is not None and newest.origin.undo == request.token
    told = handled is not None and handled.undo_requested_at == request.token
    return None if done or told else request


def judge(at: Situation, request: Request) -> BringBack | Refusal | None:
    """Return what an undo means now; None while no grant lets the clone have anything."""
    newest = at.seen.newest
    if at.source.terms is None:
        return None
    if newest is None:
        return Refusal("NothingToUndo", "the clone has no copy yet")
    reset = reset_request(at.seen)
    if reset is not None and reset.token != newest.origin.reset and reset.at <= request.at:
        # The reset has not begun: it is called off.
        return _judge_copy(at, at.seen.serving or newest, reset.token)
    return _judge_copy(at, _replaced(at, newest, request), newest.origin.reset)


def _replaced(at: Situation, newest: Copy, request: Request) -> Copy | None:
    """Return the copy that the last reset, or its undo, replaced or is about to replace."""
    serving = at.seen.serving
    if serving is not None and serving is not newest and _is_swap(newest, serving):
        # In progress: the copy that serves is there, however long that takes.
        return serving
    # Asked for in time is in time, also for an operator that was away meanwhile.
    kept = previous_copy(at, asked_at=request.at)
    return None if kept is None else kept[0]


def _is_swap(newest: Copy, serving: Copy) -> bool:
    """Return whether the newest copy is to replace the one that serves because of a reset, or of its undo."""
    return newest.recall is not None or newest.origin.reset not in {"", serving.origin.reset}


def _judge_copy(at: Situation, copy: Copy | None, reset: str) -> BringBack | Refusal:
    if copy is None or is_deleting(copy.claim):
        kept = format_duration(at.environment.undo)
        message = (
            f"there is no copy to go back to: the one before a reset is kept for {kept}, the one before a refresh or a "
            "new revision is not kept"
        )
        return Refusal("NothingToUndo", message)
    problem = None if copy is at.seen.newest else _problem(at, copy)
    return BringBack(copy, reset) if problem is None else Refusal("UndoRefused", f"copy {copy.number} {problem}")


def _problem(at: Situation, copy: Copy) -> str | None:
    terms, secret = at.source.terms, at.seen.secret
    if at.clone.spec.refresh == ON_HEAD_CHANGE:
        return "would be refreshed away at once: set spec.refresh to Never and ask again"
    if terms is not None and not terms.raw and not copy.origin.masked:
        return f"has data that are not masked, and DataGrant {at.grant} gives masked data only"
    if secret is None or secret["metadata"]["uid"] != copy.proven_under:
        return f"has a server that knows other credentials than those in Secret {at.engine_secret}, which was replaced"
    origin = copy.origin
    if copy is not at.seen.serving and at.environment.image(origin.engine, origin.engine_version) is None:
        return f"was written by {origin.engine} {origin.engine_version}, and the administrator offers no image for it"
    return None


def plan_undo(at: Situation) -> Plan | None:
    """Return the plan of an undo, if one is to be done: one write and one event. The next look goes on from there."""
    request, newest = open_undo(at), at.seen.newest
    found = None if request is None else judge(at, request)
    if request is None or newest is None or not isinstance(found, BringBack):
        return None
    copy = found.copy
    recall = copy.recall if copy is newest else Recall(newest.turn + 1, at.seen.now)
    # What was acted upon for the newest copy was acted upon.
    origin = replace(copy.origin, reset=found.reset, undo=request.token, revision=newest.origin.revision)
    migrated = None if copy.migrated is None else replace(copy.migrated, revision=newest.origin.revision)
    marks = build_marks(copy, replace(Marks.of(copy), origin=origin, recall=recall, migrated=migrated))
    message = f"copy {copy.number} serves again, as was asked for at {request.token}"
    return Plan(apply=(marks,), events=(Event("Undoing", message),), requeue_after=1)
