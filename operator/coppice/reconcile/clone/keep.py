"""What was changed on a clone is left on a branch of its store before its data go, where its owner has said so
(``onClose: KeepChanges``). Pure.

An engine that merges gets a branch at the commit that the clone began at, and a change request from the clone into
that: by the way of every request, over its scratch server, for nothing of a clone comes into a store otherwise. Of an
engine without branches a commit is made, which is a DataSnapshot. All of it is in the store's namespace, outlives the
clone, and is people's to delete. What is made is written down first: after a crash it is the same again.

While it is not there the clone's data stay, whatever else would end them. Why it cannot be is a condition beside the
chain, from the day on that the clone is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from coppice.api.v1alpha1 import API_VERSION, DataChangeRequest, InvalidResource, KeptChanges, OnClose
from coppice.core import labels
from coppice.core.names import digest
from coppice.core.plan import EngineCall, Event, Manifest, Plan
from coppice.engines.base import Engine
from coppice.engines.merging import MergingEngine
from coppice.manifests.meta import Owner, build_metadata, build_release, is_owned
from coppice.reconcile.access import refused
from coppice.reconcile.clone.keepseen import KeepSeen, unfinished
from coppice.reconcile.clone.names import SOURCE
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.copies import Copy, is_proven
from coppice.reconcile.draft import Draft, Fact, beside, holds, stalls, waits
from coppice.reconcile.observed import condition, format_time, is_deleting, is_true, parse_time, pod_state
from coppice.reconcile.reads import server_ref

KEPT: Final = "ChangesKept"
"""A condition beside the chain, there for every clone that is to keep its changes."""
SOON: Final = 0.1
LOOK_SECONDS: Final = 30.0
SECOND_THOUGHTS: Final = timedelta(minutes=10)
"""How long owners may think twice who take back what a clone is to keep changes of."""
_NAME_KEPT: Final = 20


@dataclass(slots=True)
class _Work:
    """What is done for a clone's changes now: what the status says of them, and what is made."""

    kept: KeptChanges | None
    calls: list[EngineCall] = field(default_factory=list)
    create: list[Manifest] = field(default_factory=list)


def held(at: Situation, due: datetime | None) -> Copy | None:
    """Return the copy whose data may not go yet, because what was changed on it is to be kept and is not. ``due``:
    since when they are to go.

    One that apps were never told of has nothing to keep, and one that is on its way out nothing that could be. What was
    kept before the data were to go this time is not all: they lived on, as with a pull request that was reopened. What
    the owners have taken back is not held beyond the lease.
    """
    copy, kept = _worked_on(at), at.clone.status.kept
    if at.clone.spec.on_close is not OnClose.KEEP_CHANGES or copy is None or is_deleting(copy.claim):
        return None
    if _is_over(at, copy):
        return None
    if kept is None or kept.finished_at is None or due is None or kept.claim != _uid(copy):
        return copy
    return copy if due.replace(microsecond=0) > kept.finished_at else None


def _is_taken_back(at: Situation, copy: Copy) -> bool:
    """Return whether the owners do not allow a copy any more."""
    terms, refusal = at.source.terms, at.source.refusal
    if terms is None:
        return refusal is None or not refusal.waits
    return not (terms.raw or copy.origin.masked)


def _is_over(at: Situation, copy: Copy) -> bool:
    """Return whether the time has ended for which owners leave a copy that they have taken back, some minutes ago at
    least: a grant may be made anew.
    """
    ends, told = at.clone.status.expires_at, condition(at.seen.manifest, SOURCE)
    since = None if told is None or told["status"] == "True" else parse_time(told.get("lastTransitionTime"))
    if not _is_taken_back(at, copy) or ends is None or since is None:
        return False
    return max(ends, since + SECOND_THOUGHTS) <= at.seen.now


def is_let_go(at: Situation, due: datetime | None) -> bool:
    """Return whether a clone under deletion is held by nothing, for what it would keep has nowhere to be, or goes with
    its namespace at the same time.
    """
    source = at.source.manifest
    return held(at, due) is None or at.seen.keeping.namespace_ends or source is None or is_deleting(source)


def lost(at: Situation, due: datetime | None) -> Event | None:
    """Return what is said of a clone that goes without what it was to keep, if it does."""
    kept, served = at.clone.status.kept, at.clone.status.copy_id is not None
    if held(at, due) is None and (not served or (kept is not None and kept.finished_at is not None)):
        return None
    copy = _worked_on(at)
    if copy is not None and _is_over(at, copy):
        return _taken_back(at)
    if at.seen.keeping.namespace_ends:
        why = f"namespace {at.namespace} is being deleted"
    elif at.source.manifest is None or is_deleting(at.source.manifest):
        why = f"{_store(at)} is gone"
    else:
        why = "somebody has deleted its volume"
    message = f"what was changed on DataClone {at.namespace}/{at.name} is not kept, for {why}"
    return Event("ChangesLost", message, "Warning")


def _taken_back(at: Situation) -> Event:
    message = f"what was changed here is not kept, for the owners of {_store(at)} have taken the data back"
    return Event("ChangesLost", message, "Warning")


def _worked_on(at: Situation) -> Copy | None:
    """Return the copy that apps have, or had if somebody has taken away what they know it by."""
    newest = at.seen.newest
    return at.seen.serving or (newest if newest is not None and is_proven(newest) else None)


def _uid(copy: Copy) -> str:
    return str(copy.claim["metadata"]["uid"])


def with_kept(plan: Plan, at: Situation, due: datetime | None) -> Plan:
    """Return a clone's plan with what is done for its changes. ``due``: since when its data go as soon as that is done,
    if they do.
    """
    status, before = plan.status, at.clone.status.kept
    if status is None:
        return plan
    work = _Work(before)
    fact = _fact(at, work, due) if at.clone.spec.on_close is OnClose.KEEP_CHANGES else None
    found = None if work.kept is None else work.kept.dump()
    plan = replace(
        plan,
        calls=(*plan.calls, *work.calls),
        create=(*plan.create, *work.create),
        prune=(*plan.prune, *_releases(at)),
        status={**status, "kept": found},
    )
    # Whoever deletes it, and waits, is told what they wait for, though that has long been known.
    plan = beside(plan, fact, at.seen.manifest, each_message=fact is not None and fact.stalled and due is not None)
    later = None if fact is None else fact.retry_after
    delays = [delay for delay in (later, plan.requeue_after) if delay is not None]
    return replace(plan, requeue_after=min(delays, default=None))


def _fact(at: Situation, work: _Work, due: datetime | None) -> Fact:
    """Return whether a clone's changes are kept, or will be, and add to the work what is next."""
    copy = held(at, due)
    if copy is None:
        return _lost_words(at) or _kept_words(work.kept)
    problem = _impossible(at, copy)
    if due is None:
        # What is changed from now on is kept anew, on a branch of its own.
        work.kept = None if unfinished(at.clone) is not None else work.kept
        message = f"what is changed here is left on a branch of {_store(at)} before the data go"
        return problem or holds(KEPT, "KeptAtTheEnd", message)
    fact = problem or _next(at, copy, work, due)
    if not fact.stalled:
        return fact
    until = "Until the lease ends" if _is_taken_back(at, copy) else "Until then"
    stays = "this DataClone, and its data, stay" if is_deleting(at.seen.manifest) else "the data stay"
    return replace(fact, message=f"{fact.message}. {until} {stays}")


def _next(at: Situation, copy: Copy, work: _Work, due: datetime) -> Fact:
    """Add to the work what is next for a copy that can be kept, and return what is waited for."""
    kept = work.kept
    if kept is None or kept.claim != _uid(copy) or kept.finished_at is not None:
        work.kept = _begin(at, copy, due)
        return waits(KEPT, "Keeping", "what was changed here is about to be kept", retry_after=SOON)
    return _Keeper(at, copy, kept, at.seen.keeping, work).run()


def _releases(at: Situation) -> list[Manifest]:
    """Return what takes that which the changes are on from the garbage collector, if they are to be kept.

    Where somebody deletes the clone in the foreground it would be gone before anything could be done. The finalizer,
    which is there before, removes it instead.
    """
    copy, seen = _worked_on(at), at.seen
    if at.clone.spec.on_close is not OnClose.KEEP_CHANGES or copy is None:
        return []
    if labels.FINALIZER not in at.clone.metadata.finalizers:
        return []
    needed = (copy.pod, copy.claim, seen.secret, seen.added)
    return [build_release(entry) for entry in needed if entry is not None and _is_collected(entry, at)]


def _is_collected(manifest: Manifest, at: Situation) -> bool:
    references = manifest["metadata"].get("ownerReferences") or ()
    uids = [reference["uid"] for reference in references]
    return uids == [at.clone.metadata.uid] and is_owned(manifest, uids[0]) and not is_deleting(manifest)


def _lost_words(at: Situation) -> Fact | None:
    """Return that a clone's data go, or have gone, without what it was to keep, if so."""
    copy, before = _worked_on(at), condition(at.seen.manifest, KEPT)
    if copy is not None and _is_over(at, copy):
        return stalls(KEPT, "ChangesLost", _taken_back(at).message, retry_after=None)
    if copy is None and before is not None and before["reason"] == "ChangesLost":
        return stalls(KEPT, "ChangesLost", before["message"], retry_after=None)
    return None


def _kept_words(kept: KeptChanges | None) -> Fact:
    """Return what is said of a clone that has nothing more to keep."""
    if kept is None or kept.finished_at is None or kept.branch is None:
        return holds(KEPT, "NothingChanged", "nothing was changed that could be kept")
    by = f"DataSnapshot {kept.snapshot}" if kept.snapshot is not None else f"DataChangeRequest {kept.request}"
    return holds(KEPT, "Kept", f"what was changed here is on branch {kept.branch} of the store, by {by}")


def _store(at: Situation) -> str:
    return f"DataStore {at.source.namespace}/{at.source.name}"


def _impossible(at: Situation, copy: Copy) -> Fact | None:
    """Return why a copy's changes cannot be kept as things are, or None."""
    consent, engine, next_step = at.seen.keeping.consent, at.engine_of(copy), "or set spec.onClose to Discard"
    if consent is not None and consent.refusal is not None:
        fact = refused(KEPT, consent.refusal)
        return replace(fact, message=f"{fact.message}, {next_step}")
    if consent is None or consent.terms is None:
        message = (
            f"no DataGrant in namespace {at.source.namespace} gives this namespace the verb Propose on DataStore "
            f"{at.source.name}, and what is changed here cannot be kept: ask its owners for one, {next_step}"
        )
        return stalls(KEPT, "NotGranted", message, retry_after=60)
    if at.source.manifest is None or is_deleting(at.source.manifest):
        message = (
            f"{_store(at)} is gone, and what is changed here cannot be kept: carry it elsewhere by hand, {next_step}"
        )
        return stalls(KEPT, "StoreNotFound", message, retry_after=60)
    if _merges(engine) and at.store is not None and at.store.spec.managed is None:
        message = (
            f"somebody else runs the database of {_store(at)}, and no branch is made there, so what is changed here "
            f"cannot be kept: carry it elsewhere by hand, {next_step}"
        )
        return stalls(KEPT, "StoreNotManaged", message)
    masked = copy.origin.masked or (at.store is not None and at.store.spec.mask is not None)
    if masked and _merges(engine):
        message = (
            f"the rows are masked, which have no history in common with {_store(at)}, and what is changed here cannot "
            "be kept: carry it elsewhere by hand, and set spec.onClose to Discard"
        )
        return stalls(KEPT, "MaskedLineage", message)
    if engine is None or (engine.versioned and not _merges(engine)):
        message = f"engine {copy.origin.engine} can carry nothing from a clone to a branch: do so by hand, {next_step}"
        return stalls(KEPT, "EngineHasNoMerges", message)
    return None


def _merges(engine: Engine | None) -> bool:
    return engine is not None and engine.versioned and isinstance(engine, MergingEngine)


def keeps_still(at: Situation, copy: Copy) -> bool:
    """Return whether a copy's server is not to run because its volume is being committed.

    Only of one that serves can a commit be made: where somebody has removed what says so, it comes back first.
    """
    kept = unfinished(at.clone)
    is_kept = kept is not None and kept.snapshot is not None and kept.claim == _uid(copy)
    return is_kept and at.seen.serving is copy


def keeps_awake(at: Situation, copy: Copy) -> bool:
    """Return whether a copy's server is to run because what was changed is taken from it."""
    kept = unfinished(at.clone)
    return kept is not None and kept.request is not None and kept.claim == _uid(copy)


def _begin(at: Situation, copy: Copy, due: datetime) -> KeptChanges:
    """Return what is made for a copy that is to go: under the same names, however often that is forgotten, but under
    others if it is to go another time.
    """
    since, token = due.replace(microsecond=0), digest(at.clone.metadata.uid, _uid(copy), format_time(due))
    name = f"kept-{at.name[:_NAME_KEPT].rstrip('-')}-{token}"
    if _merges(at.engine_of(copy)):
        branch = f"kept-{at.namespace}-{at.name}-{token}"
        return KeptChanges(claim=_uid(copy), since=since, branch=branch, request=name)
    return KeptChanges(claim=_uid(copy), since=since, branch=name, snapshot=f"{name}-1")


@dataclass(frozen=True, slots=True)
class _Keeper:
    """What is next for changes that are being kept."""

    at: Situation
    copy: Copy
    kept: KeptChanges
    seen: KeepSeen
    work: _Work

    def run(self) -> Fact:
        """Plan what is next, and return what is waited for."""
        return self._by_snapshot() if self.kept.snapshot is not None else self._by_request()

    @property
    def _owner(self) -> Owner:
        return Owner.of(self.at.seen.manifest)

    def _waits(self, message: str, *, retry_after: float = LOOK_SECONDS) -> Fact:
        return waits(KEPT, "Keeping", message, retry_after=retry_after)

    def _finish(self, *, changed: bool = True) -> Fact:
        """Write down that all is kept: the data may go from then on."""
        lost = {} if changed else {"branch": None, "request": None, "snapshot": None}
        self.work.kept = self.kept.model_copy(update={"finished_at": self.at.seen.now, **lost})
        return replace(_kept_words(self.work.kept), retry_after=SOON)

    # -- an engine that merges --

    def _by_request(self) -> Fact:
        state, version = self.seen.state, self.copy.origin.version
        if self._is_there():
            return self._finish()
        if state is None:
            return self._waits("waits for the server to say what was changed", retry_after=5)
        same = (state.head, state.working_root) == (version.head, version.working_root)
        if same and self.seen.request is None:
            return self._finish(changed=False)
        if not self.seen.saved and self.seen.request is None:
            self._commit_work(state.branch)
        return self._branch_is_there() or self._propose()

    def _is_there(self) -> bool:
        """Return whether the request has brought all that it found to the branch."""
        manifest = self.seen.request
        if manifest is None or not _is_own(manifest, self._owner):
            return False
        request, merges = DataChangeRequest.parse(manifest), condition(manifest, "Mergeable")
        if isinstance(request, InvalidResource):
            return False
        nothing = merges is not None and merges["reason"] == "NothingToMerge"
        return request.status.published is not None or nothing

    def _commit_work(self, branch: str) -> None:
        """Commit what nobody has committed, before anything is proposed: what is in no commit is no part of that.

        It is called once more with the request, and then no more: an app may write without pause.
        """
        pod, engine = self.copy.pod, self.at.engine_of(self.copy)
        if pod is None or pod_state(pod).ip is None or engine is None:
            raise TypeError("a server that answers has an address")
        arguments = {
            "database": self.copy.origin.version.database,
            "branch": branch,
            "author": "Coppice",
            "email": self.at.environment.user,
            "message": self._title,
        }
        self.work.calls.append(self._call(engine, pod, arguments))

    def _call(self, engine: Engine, pod: Manifest, arguments: dict[str, str]) -> EngineCall:
        target = server_ref(pod, engine, self.at.engine_secret)
        return EngineCall(self.copy.origin.engine, target, "commit-work", arguments)

    @property
    def _title(self) -> str:
        return f"Changes on DataClone {self.at.namespace}/{self.at.name}"

    def _branch_is_there(self) -> Fact | None:
        source, name = self.at.source, self.kept.request or ""
        spec = {
            "store": {"name": source.name},
            "branchName": self.kept.branch,
            "from": {"commit": self.copy.origin.version.head},
        }
        problem = self._have(self._build("DataBranch", name, spec), self.seen.branch)
        if problem is not None:
            return problem
        found = self.seen.branch
        if found is None or not is_true(found, "Ready"):
            return self._trouble_of("DataBranch", name, found)
        return None

    def _propose(self) -> Fact:
        name = self.kept.request or ""
        spec = {
            "title": self._title,
            "description": "Left there because the clone was closed.",
            "store": {"name": self.at.source.name},
            "author": self.at.environment.user,
            "from": {"clone": {"name": self.at.name, "namespace": self.at.namespace}},
            "into": {"branch": self.kept.branch},
            "preview": False,
        }
        problem = self._have(self._build("DataChangeRequest", name, spec), self.seen.request)
        return problem or self._trouble_of("DataChangeRequest", name, self.seen.request)

    # -- an engine without branches --

    def _by_snapshot(self) -> Fact:
        found, name = self.seen.snapshot, self.kept.snapshot or ""
        if found is not None and _is_own(found, self._owner) and is_true(found, "Ready"):
            return self._finish()
        spec = {
            "store": {"name": self.at.source.name},
            "from": {"clone": {"name": self.at.name, "namespace": self.at.namespace}},
            "commit": {"branch": self.kept.branch, "parent": self.copy.origin.snapshot},
        }
        problem = self._have(self._build("DataSnapshot", name, spec), found)
        return problem or self._trouble_of("DataSnapshot", name, found)

    # -- objects in the store's namespace --

    def _build(self, kind: str, name: str, spec: dict[str, Any]) -> Manifest:
        """Return an object that says by its labels which clone it is of, and outlives that."""
        metadata = build_metadata(name, self._owner, namespace=self.at.source.namespace, owned=False)
        return {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}

    def _have(self, desired: Manifest, observed: Manifest | None) -> Fact | None:
        draft = Draft(self.at.seen.manifest, self.at.seen.now)
        problem = draft.make_once(desired, observed, KEPT)
        self.work.create += draft.create
        return problem

    def _trouble_of(self, kind: str, name: str, found: Manifest | None) -> Fact:
        """Return what an object waits for, or what somebody has to do for it."""
        ready = None if found is None else condition(found, "Ready")
        words = f"{kind} {self.at.source.namespace}/{name}"
        if found is None or ready is None:
            return self._waits(f"{words} is being made")
        if not is_true(found, "Stalled"):
            return self._waits(f"{words} brings there what was changed: {ready['message']}")
        message = f"{words} cannot keep what was changed: {ready['message']}. Or set spec.onClose to Discard"
        return stalls(KEPT, "KeepingStalled", message, retry_after=LOOK_SECONDS)


def _is_own(manifest: Manifest, owner: Owner) -> bool:
    found = manifest["metadata"].get("labels") or {}
    return all(found.get(key) == value for key, value in owner.labels.items())
