"""What a clone's status says. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from coppice.engines.base import Version
from coppice.reconcile.clone.leftovers import previous_copy
from coppice.reconcile.clone.lifetime import activity_token, lifetime_status
from coppice.reconcile.clone.migrate import migrations_status
from coppice.reconcile.clone.names import secret_name
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.copies import Copy
from coppice.reconcile.observed import format_time


def clone_status(at: Situation, served: Copy | None, ends: datetime | None) -> dict[str, Any]:
    """Return the status of a clone whose apps have been told of the copy ``served``, if of any."""
    status = {
        **lifetime_status(at, ends),
        "resolved": _resolved(at),
        "activity": activity_token(at),
        "migrations": migrations_status(at, served),
    }
    return status if served is None else {**status, **_served_status(at, served)}


def _resolved(at: Situation) -> dict[str, Any] | None:
    """Return what the reference names, and since when: a snapshot captured later holds it."""
    live, before = at.seen.live, at.clone.status.resolved
    if at.clone.spec.from_.branch is not None:
        return None
    if not isinstance(live, Version) or (before is not None and before.head == live.head):
        return None if before is None else {"head": before.head, "since": format_time(before.since)}
    return {"head": live.head, "since": format_time(at.seen.now)}


def _served_status(at: Situation, served: Copy) -> dict[str, Any]:
    origin, engine = served.origin, at.engine_of(served)
    uid = at.clone.metadata.uid
    port = None if engine is None else at.tls(engine).told_port(at.seen.service, served.pod, uid)
    previous = previous_copy(at) if served is at.target.copy else None
    version = origin.version
    return {
        "binding": {"name": secret_name(at.clone)},
        "endpoint": None if port is None else {"host": at.host, "port": port},
        "copy": str(served.number),
        "snapshot": {"name": origin.snapshot, "uid": origin.snapshot_uid},
        "source": {
            "store": f"{at.source.namespace}/{at.source.name}",
            # An engine without branches calls every one its own.
            "branch": None if version.new_branch else at.clone.spec.from_.branch or version.branch,
            "head": version.head,
            "workingRoot": version.working_root,
            "capturedAt": origin.captured_at or None,
        },
        "previous": {"copy": str(previous[0].number), "keptUntil": format_time(previous[1])} if previous else None,
    }
