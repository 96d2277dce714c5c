"""What is cleared up behind the chain: servers without a claim, copies overtaken or replaced. Pure."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from coppice.core import labels
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.copies import Copy, has_served
from coppice.reconcile.draft import Draft
from coppice.reconcile.observed import is_deleting, job_state, label


def drop_strays(at: Situation, draft: Draft) -> None:
    """Remove Pods whose claim is gone, and copies that were overtaken by a newer request before they served.

    One that an undo was about to bring back has served before: it keeps its data until the newest copy serves.
    """
    known = {str(copy.number) for copy in at.seen.copies}
    _drop_stray_migrations(at, draft, known)
    for pod in at.seen.pods:
        if label(pod, labels.COPY) not in known:
            draft.drop(pod)
    serving = at.seen.serving
    for copy in at.seen.copies:
        if serving is not None and serving.turn < copy.turn < at.target.turn:
            draft.drop(copy.pod)
            if not has_served(copy):
                draft.drop(copy.claim)


def _drop_stray_migrations(at: Situation, draft: Draft, known: Collection[str]) -> None:
    """Remove what was made to run migrations on copies that are gone, or not wanted any more; but not a Job that has
    succeeded there: an undo may bring the copy back, and is to find that written down.
    """
    seen = at.seen.migration
    for entry in (*seen.jobs, *seen.secrets, *seen.services):
        number = label(entry, labels.COPY)
        finished = entry["kind"] == "Job" and job_state(entry).succeeded
        if number not in known or (number != str(at.target.number) and not finished):
            draft.drop(entry)


def end_migration(at: Situation, draft: Draft, copy: Copy) -> None:
    """End a migration that runs on a copy whose server is being stopped; it begins anew when there is one again."""
    for job in at.seen.migration.jobs:
        if label(job, labels.COPY) == str(copy.number) and job_state(job).is_on_its_way:
            draft.drop(job)


def drop_replaced(at: Situation, draft: Draft) -> None:
    """Remove what an earlier copy had, its claim after the undo window; only once the wanted copy serves."""
    kept = previous_copy(at)
    for copy in at.seen.copies:
        if copy.turn < at.target.turn:
            draft.drop(copy.pod)
            if kept is None or copy is not kept[0]:
                draft.drop(copy.claim)


def previous_copy(at: Situation, *, asked_at: datetime | None = None) -> tuple[Copy, datetime] | None:
    """Return the copy that a reset or its undo replaced, and until when it is kept; now, or for what was asked then.

    A refresh or a revision keeps none, and one that apps were never told of is worth nothing.
    """
    target = at.target.copy
    if target is None:
        return None
    older = [copy for copy in at.seen.copies if copy.turn < target.turn and _is_worth_keeping(copy)]
    if not older or (target.recall is None and target.origin.reset in {"", older[-1].origin.reset}):
        return None
    ends = _came_at(at, target) + at.environment.undo
    return (older[-1], ends) if ends > (asked_at or at.seen.now) else None


def _came_at(at: Situation, target: Copy) -> datetime:
    """Return since when a copy has taken another's place; one that does not serve yet cannot do so before now."""
    if target.recall is not None:
        return target.recall.at
    return target.serves_since or at.seen.now


def _is_worth_keeping(copy: Copy) -> bool:
    return has_served(copy) and not is_deleting(copy.claim)
