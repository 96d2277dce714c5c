"""The word before a lease ends: a condition beside the chain, there only while the end is near. Pure."""

from __future__ import annotations

from datetime import datetime

from coppice.core import labels
from coppice.core.plan import Plan
from coppice.reconcile.clone.lifetime import last_activity, lease_of, warned_at
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.target import renewed_at
from coppice.reconcile.draft import Fact, beside
from coppice.reconcile.lease import ends_for_good
from coppice.reconcile.observed import format_time

ENDING = "LeaseEnding"
"""True while the end is near: of a condition that is there it is the status that says what is wrong."""


def with_warning(plan: Plan, at: Situation, ends: datetime | None) -> Plan:
    """Return the plan of a clone that lives, with a condition and one event when its lease ends soon."""
    if ends is None or at.seen.now < warned_at(at, ends):
        return plan
    return beside(plan, _ending(at, ends), at.seen.manifest, each_message=True)


def _ending(at: Situation, ends: datetime) -> Fact:
    end = f"the lease ends at {format_time(ends)}, and the data go then"
    more = f"annotate the clone with {labels.EXTEND_REQUESTED_AT}=<now> (coppice extend {at.name})"
    if at.source.terms is None:
        message = f"{end}: no grant allows the clone any more. Have the grant restored, and then {more}"
        return Fact(ENDING, holds=True, reason="EndsSoon", message=message, stalled=True)
    if ends_for_good(lease_of(at), ends, asked=renewed_at(at.seen, at.clone)):
        message = f"{end}, used or not. To keep them, {more}"
        return Fact(ENDING, holds=True, reason="EndsSoon", message=message, stalled=True)
    used = format_time(last_activity(at))
    message = f"nobody has used the clone since {used}: {end}. To keep them, use it, or {more}"
    return Fact(ENDING, holds=True, reason="EndsUnused", message=message, stalled=True)
