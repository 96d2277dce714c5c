"""What is read for a clone whose changes are to be kept when it closes: nothing but the grant until that has begun."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Mapping
from dataclasses import dataclass, replace

from coppice.api.v1alpha1 import DataClone, InvalidResource, KeptChanges, OnClose, Verb
from coppice.core.plan import Manifest
from coppice.engines.base import BranchState, Endpoint, Engine, EngineError, Reference
from coppice.kube.client import KubeReader
from coppice.reconcile.access import Asked, Consent, read_consent
from coppice.reconcile.belief import Alleged
from coppice.reconcile.copies import Copy
from coppice.reconcile.observed import is_deleting
from coppice.reconcile.reads import Server, ask, get_each


@dataclass(frozen=True, slots=True)
class KeepSeen:
    """What there is of the changes that are being kept; what was not needed was not read, and is None.

    ``consent``: whether the clone may propose. ``branch``, ``request`` and ``snapshot`` are objects in the store's
    namespace. ``state``: what the clone's branch holds, and ``saved``: whether all of that is in commits.
    ``namespace_ends``: the clone's namespace is being deleted, and everything in it with the clone.
    """

    consent: Consent | None = None
    branch: Manifest | None = None
    request: Manifest | None = None
    snapshot: Manifest | None = None
    state: BranchState | None = None
    saved: bool = False
    namespace_ends: bool = False


def unfinished(clone: DataClone) -> KeptChanges | None:
    """Return what is being kept of a clone now, as far as it is written down."""
    kept = clone.status.kept
    return kept if kept is not None and kept.finished_at is None else None


def is_gone(manifest: Manifest, clone: DataClone | InvalidResource | None) -> bool:
    """Return whether nothing is to be had of a clone any more: one under deletion may be held for its changes."""
    return is_deleting(manifest) and not (isinstance(clone, DataClone) and unfinished(clone) is not None)


async def read_keeping(
    reader: KubeReader,
    engines: Mapping[str, Engine],
    clone: DataClone,
    alleged: Alleged | None,
    copy: Copy | None,
    secret: Manifest | None,
) -> KeepSeen:
    """Read what has become of the changes on a copy, for a clone that is to keep them."""
    if clone.spec.on_close is not OnClose.KEEP_CHANGES:
        return KeepSeen()
    store, own = clone.spec.from_.store, clone.metadata.namespace
    where, kept = store.namespace or own, unfinished(clone)
    consent = await read_consent(reader, Asked(store.name, where, own, Verb.PROPOSE, alleged))
    ends = clone.metadata.is_deleting and is_deleting(await reader.get("Namespace", own) or {"metadata": {}})
    if kept is None or copy is None:
        return KeepSeen(consent, namespace_ends=ends)
    if kept.snapshot is not None:
        snapshot = await reader.get("DataSnapshot", kept.snapshot, where)
        return KeepSeen(consent, snapshot=snapshot, namespace_ends=ends)
    name = kept.request or ""
    (branch, request), seen = await gather(
        get_each(reader, where, ("DataBranch", name), ("DataChangeRequest", name)),
        _asked(engines.get(copy.origin.engine), copy, secret),
    )
    return replace(seen, consent=consent, branch=branch, request=request, namespace_ends=ends)


async def _asked(engine: Engine | None, copy: Copy, secret: Manifest | None) -> KeepSeen:
    """Ask a copy's server what its branch holds."""
    endpoint = None if engine is None else Server(copy.pod, secret).endpoint(engine)
    if engine is None or endpoint is None:
        return KeepSeen()
    answer = await ask(engine, endpoint, database=copy.origin.version.database)
    content = None if answer is None else answer.content
    state = None if content is None else content.state_of(copy.origin.version.branch)
    return KeepSeen() if state is None else await _compared(engine, endpoint, state)


async def _compared(engine: Engine, endpoint: Endpoint, state: BranchState) -> KeepSeen:
    try:
        newest = await engine.resolve(endpoint, state.database, Reference(commit=state.head))
    except EngineError:
        return KeepSeen()
    return KeepSeen(state=state, saved=newest.working_root == state.working_root)
