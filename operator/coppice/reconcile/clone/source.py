"""First links of the chain: the source may be used, and a snapshot of it keeps the promise. Pure."""

from __future__ import annotations

from coppice.api.v1alpha1 import Verb
from coppice.reconcile.access import refused, source_problem
from coppice.reconcile.belief import Refusal
from coppice.reconcile.choice import Chosen, MakeSnapshot, Wait
from coppice.reconcile.clone.leftovers import end_migration
from coppice.reconcile.clone.names import SNAPSHOT, SOURCE
from coppice.reconcile.clone.queue import Place
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.copies import Copy, is_bound
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.schedule import CLONE, build_data_snapshot, next_number


def source_may_be_used(at: Situation, draft: Draft) -> Fact:
    """Return whether the store is there and its owners allow what is asked; stop what they allow no more."""
    problem = source_problem(at.source, kind=SOURCE, namespace=at.namespace, verb=Verb.CLONE)
    copy, unmasked, refusal = at.target.copy, _unmasked(at), at.source.refusal
    _stop(at, draft, unmasked)
    if refusal is not None and refusal.waits:
        return _untold(at, refusal, copy)
    if problem is None and copy is not None and copy in unmasked:
        return _masked_only(at)
    if problem is None:
        return holds(SOURCE, "StoreReady", at.source_words)
    if at.source.terms is None and at.seen.copies:
        _stop(at, draft, at.seen.copies)
        message = f"{problem.message}. The server is stopped and the data are kept until the lease ends"
        return stalls(SOURCE, "GrantRevoked" if refusal is None else problem.reason, message)
    if at.seen.serving is not None and copy is not None:
        return holds(SOURCE, "SourceGone", f"{problem.message}. This clone lives on, but cannot be reset")
    return problem


def _untold(at: Situation, refusal: Refusal, copy: Copy | None) -> Fact:
    """Return that the forge has yet to tell; a copy that there is was given when it had."""
    if copy is None or not is_bound(copy):
        return refused(SOURCE, refusal)
    return holds(SOURCE, "StoreReady", f"DataStore {at.source.namespace}/{at.source.name}; {refusal.message}")


def _masked_only(at: Situation) -> Fact:
    return stalls(
        SOURCE,
        "MaskedOnly",
        f"DataGrant {at.grant} gives masked data only and this clone has others. The server is stopped and the data "
        "are kept until the lease ends; ask for a grant with data: Raw, or for a reset once the store has a masked "
        "snapshot",
    )


def _unmasked(at: Situation) -> tuple[Copy, ...]:
    """Return the copies that hold more than the grant gives now."""
    terms = at.source.terms
    if terms is None or terms.raw:
        return ()
    return tuple(copy for copy in at.seen.copies if not copy.origin.masked)


def _stop(at: Situation, draft: Draft, copies: tuple[Copy, ...]) -> None:
    """Stop the servers of copies that are not allowed any more, and end what is only on its way."""
    for copy in copies:
        draft.drop(copy.pod)
        end_migration(at, draft, copy)
        if not is_bound(copy):
            for entry in (copy.claim, *at.aliases):
                draft.drop(entry)


def snapshot_is_chosen(at: Situation, draft: Draft) -> Fact:
    """Return whether there is a snapshot for the wanted copy; have one made where none keeps the promise."""
    target = at.target
    if target.copy is not None:
        origin = target.copy.origin
        message = f"copy {target.number} is from DataSnapshot {origin.snapshot}, captured at {origin.captured_at}"
        return holds(SNAPSHOT, "Chosen", message)
    if at.seen.place is not None:
        return _queued(at, at.seen.place)
    match at.seen.choice:
        case Chosen(snapshot=snapshot):
            message = f"copy {target.number} will be from DataSnapshot {snapshot.metadata.name}: {target.why}"
            return holds(SNAPSHOT, "Chosen", message)
        case MakeSnapshot():
            return _make_snapshot(at, draft)
        case Wait(reason=reason, message=message, stalled=True):
            return stalls(SNAPSHOT, reason, message, retry_after=60)
        case Wait(reason="StoreNotReady", message=message):
            return waits(SNAPSHOT, "StoreNotReady", f"{at.source_words}: {message}; see its conditions", retry_after=10)
        case Wait(reason=reason, message=message):
            return waits(SNAPSHOT, reason, message, retry_after=10)
        case None:
            message = f"waits for {at.source_words}; see its conditions"
            return waits(SNAPSHOT, "StoreNotReady", message, retry_after=5)


def _queued(at: Situation, place: Place) -> Fact:
    return waits(
        SNAPSHOT,
        "Queued",
        f"DataGrant {at.grant} has no room: place {place.number} in the queue; delete a clone that is not needed, or "
        "ask the store's owners for a higher maxClones",
        retry_after=place.ask_again,
    )


def _make_snapshot(at: Situation, draft: Draft) -> Fact:
    if at.source.manifest is None:
        raise TypeError("a snapshot was chosen to be made of a store that is not there")
    number = next_number(at.seen.snapshots, at.source.name)
    snapshot = build_data_snapshot(at.source.manifest, number, CLONE)
    draft.create.append(snapshot)
    message = f"asked for DataSnapshot {snapshot['metadata']['name']}"
    return waits(SNAPSHOT, "SnapshotPending", message, retry_after=1)
