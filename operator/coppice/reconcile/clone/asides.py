"""What was asked of a clone and cannot be had, where the clone is well all the same. Pure.

Conditions beside the chain, there only while there is something to say: they neither keep a clone from being Ready nor
make it Stalled.
"""

from __future__ import annotations

from coppice.api.v1alpha1 import NEVER, ON_HEAD_CHANGE
from coppice.core import labels
from coppice.core.durations import format_duration
from coppice.core.plan import Plan
from coppice.engines.ledgers import lacking
from coppice.reconcile.clone.lifetime import lease_of
from coppice.reconcile.clone.room import room_left
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.target import undo_request
from coppice.reconcile.clone.undo import Refusal, judge, open_undo
from coppice.reconcile.draft import Fact, beside, stalls
from coppice.reconcile.ledgers import cut
from coppice.reconcile.observed import condition
from coppice.reconcile.requests import ACCEPTED, not_a_time, read_request, together, unreadable
from coppice.reconcile.schedule import unscheduled

LEASE = "LeaseGranted"
REFRESH = "RefreshScheduled"
LEDGER = "LedgerDiverged"
"""True where the data have migrations that the release has not: of all conditions the one that says what is wrong."""
MAX_NAMED = 20
"""How many versions are named."""
REQUESTS = (
    labels.RESET_REQUESTED_AT,
    labels.UNDO_REQUESTED_AT,
    labels.EXTEND_REQUESTED_AT,
    labels.WAKE_REQUESTED_AT,
)


def with_asides(plan: Plan, at: Situation) -> Plan:
    """Return a clone's plan with what it cannot have, each with one event."""
    for fact in (_lease(at), _requests(at), _refresh(at), _ledger(at)):
        plan = beside(plan, fact, at.seen.manifest, each_message=True)
    return beside(plan, room_left(at), at.seen.manifest)


def _lease(at: Situation) -> Fact | None:
    terms, lease = at.source.terms, lease_of(at)
    if lease.refused is None or terms is None or terms.longest is None:
        return None
    longest = format_duration(terms.longest)
    return stalls(
        LEASE,
        "LeaseShortened",
        f"more is asked for ({lease.refused}) than is given: {longest} applies, the maxLease of DataGrant {at.grant}. "
        "Ask for less, or the store's owners for a higher maxLease",
    )


def _refresh(at: Situation) -> Fact | None:
    refresh = at.clone.spec.refresh
    schedule = None if refresh in {NEVER, ON_HEAD_CHANGE} else refresh
    return unscheduled(REFRESH, schedule, at.seen.now, field="spec.refresh", effect="the clone is never refreshed")


def _ledger(at: Situation) -> Fact | None:
    """Return whether the data have migrations that the release does not know, where somebody has said what it has."""
    wanted, told = at.clone.spec.migrations, at.seen.migration.told
    if wanted is None or wanted.versions is None:
        return None
    if told is None:
        return _as_said(at)
    if told.ledger is None:
        message = "no migration tool that is known has written anything down in the database"
        return Fact(LEDGER, holds=False, reason="NoLedger", message=message)
    lacks = lacking(told.ledger, wanted.versions)
    if not lacks:
        message = f"all that {told.ledger.tool} has written down in the data is in spec.migrations.versions"
        return Fact(LEDGER, holds=False, reason="LedgerKnown", message=message)
    named = ", ".join(cut(version) for version in lacks[:MAX_NAMED])
    more = f" and {len(lacks) - MAX_NAMED} more" if len(lacks) > MAX_NAMED else ""
    message = (
        f"the data have migrations of {told.ledger.tool} that spec.migrations.versions has not: {named}{more}. Bring "
        "the release up to the data, or make this DataClone anew with from.migration and a version that the release has"
    )
    return Fact(LEDGER, holds=True, reason="VersionsUnknown", message=message, stalled=True)


def _as_said(at: Situation) -> Fact | None:
    """Return what was said before: of a server that is not asked now nothing else is known."""
    before = condition(at.seen.manifest, LEDGER)
    if before is None:
        return None
    reason, diverged = str(before["reason"]), before["status"] == "True"
    return Fact(LEDGER, holds=diverged, reason=reason, message=str(before["message"]), stalled=diverged)


def _requests(at: Situation) -> Fact | None:
    return together([*_refused_undo(at), *_future_extension(at), *_unreadable(at)])


def _refused_undo(at: Situation) -> list[Fact]:
    request = undo_request(at.seen)
    if request is None:
        return []
    found = judge(at, request) if open_undo(at) is not None else None
    if isinstance(found, Refusal):
        message = f"the undo asked for at {request.token} is refused and nothing is changed: {found.message}"
        return [stalls(ACCEPTED, found.reason, message)]
    # A refusal is said for as long as the request stands.
    before = condition(at.seen.manifest, ACCEPTED)
    if before is None:
        return []
    reason, parts = str(before["reason"]), str(before["message"]).split("; ")
    return [stalls(ACCEPTED, reason, part) for part in parts if _is_refusal(part, request.token)]


def _is_refusal(text: str, token: str) -> bool:
    return text.startswith(f"the undo asked for at {token} is refused")


def _future_extension(at: Situation) -> list[Fact]:
    request = read_request(at.seen.manifest, labels.EXTEND_REQUESTED_AT)
    if request is None or request.at <= at.seen.now:
        return []
    message = (
        f"the extension asked for at {request.token} lies ahead: the lease counts from when that was first seen, for "
        "no request reaches beyond the lease's own length. See status.expiresAt, and ask again when it draws near"
    )
    return [stalls(ACCEPTED, "ExtensionShortened", message)]


def _unreadable(at: Situation) -> list[Fact]:
    return [not_a_time(key) for key in unreadable(at.seen.manifest, REQUESTS)]
