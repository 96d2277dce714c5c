"""The first link of the chain: what is proposed is there, it may be proposed, and it can be merged. Pure."""

from __future__ import annotations

from typing import Final

from coppice.api.v1alpha1 import DataChangeRequest, DataClone, DataStore, Publish, Verb
from coppice.engines.base import UnreachableError
from coppice.engines.merging import MergingEngine
from coppice.engines.patching import PatchingEngine
from coppice.reconcile.access import Source, refused, source_problem
from coppice.reconcile.changerequest.observation import Party, RequestObservation
from coppice.reconcile.changerequest.rules import rebases
from coppice.reconcile.clone.keepseen import is_gone
from coppice.reconcile.draft import Fact, holds, stalls, waits
from coppice.reconcile.observed import pod_state

SOURCE: Final = "SourceReady"
BETWEEN_COMMITS: Final = 30.0
"""Seconds at least between two commits of what is written to a clone: an app may write without pause."""


def merging_engine(source: Source) -> MergingEngine | None:
    """Return the store's engine, if it can merge."""
    return source.engine if isinstance(source.engine, MergingEngine) else None


def patching_engine(source: Source) -> PatchingEngine | None:
    """Return the store's engine, if it can tell what a clone has changed, and write it to a live database."""
    return source.engine if isinstance(source.engine, PatchingEngine) else None


def patches(request: DataChangeRequest) -> bool:
    """Return whether it is a live database that changes, and no branch or clone."""
    return request.spec.publish in {Publish.DATABASE, Publish.PATCH}


def store_problem(request: DataChangeRequest, source: Source) -> Fact | None:
    """Return why nothing can be brought into the store, or None."""
    namespace = request.metadata.namespace
    problem = source_problem(source, kind=SOURCE, namespace=namespace, verb=Verb.PROPOSE)
    if problem is not None:
        return problem
    store, name = source.store, f"DataStore {source.name}"
    if not isinstance(store, DataStore):
        raise TypeError("a store that can be used is a valid one")
    if store.spec.managed is None and (store.spec.adopted is None or patching_engine(source) is None):
        message = (
            f"{name} is a database that somebody else runs, or a copy of one: changes come from there; delete this "
            "DataChangeRequest"
        )
        return stalls(SOURCE, "StoreNotManaged", message)
    problem = _engine_problem(request, source)
    if problem is None and store.spec.mask is not None:
        message = (
            f"copies of {name} are masked, and what is masked has no history in common with it: delete this "
            "DataChangeRequest"
        )
        return stalls(SOURCE, "MaskedLineage", message)
    return problem


def _engine_problem(request: DataChangeRequest, source: Source) -> Fact | None:
    """Return why the store's engine cannot do what is asked for, or None."""
    name, engine = f"DataStore {source.name}", "" if source.engine is None else source.engine.name
    merging, patching = merging_engine(source) is not None, patching_engine(source) is not None
    if merging and patches(request):
        message = (
            f"{name} is of engine {engine}, whose changes become a commit on a branch: make this DataChangeRequest "
            "anew with publish: Branch"
        )
        return stalls(SOURCE, "EngineMerges", message)
    if patching and request.spec.from_.revert_of is not None:
        message = (
            f"{name} is of engine {engine}, which keeps no history to take something back from: make the opposite "
            "change on a clone, and propose that with publish: Database or Patch"
        )
        return stalls(SOURCE, "EngineHasNoMerges", message)
    if patching and not patches(request):
        message = (
            f"{name} is of engine {engine}, which has no branches to merge: make this DataChangeRequest anew, from a "
            "clone, with publish: Database or Patch"
        )
        return stalls(SOURCE, "EngineHasNoMerges", message)
    if not merging and not patching:
        message = f"{name} is of engine {engine}, which merges nothing: delete this DataChangeRequest"
        return stalls(SOURCE, "EngineHasNoMerges", message)
    return None


def clone_problem(request: DataChangeRequest, seen: RequestObservation) -> Fact | None:
    """Return why a clone's changes cannot be taken from it now, or None; stalled where they never can."""
    words, clone = clone_words(request), seen.origin.clone
    if seen.origin.manifest is None or is_gone(seen.origin.manifest, clone):
        message = f"there is no {words}: delete this DataChangeRequest, and make another of a clone that is there"
        return stalls(SOURCE, "SourceNotFound", message, retry_after=60)
    if not isinstance(clone, DataClone):
        return waits(SOURCE, "SourceNotReady", f"{words} is not usable: see its conditions")
    store = clone.spec.from_.store
    wanted = (request.metadata.namespace, request.spec.store.name)
    if (store.namespace or clone.metadata.namespace, store.name) != wanted:
        message = f"{words} is not of DataStore {wanted[1]}: delete this DataChangeRequest"
        return stalls(SOURCE, "CloneOfAnotherStore", message)
    if seen.origin.serving is None:
        return waits(SOURCE, "SourceNotReady", f"waits for {words} to be Ready; see its conditions")
    if seen.origin.serving.origin.masked:
        message = (
            f"{words} is of a masked snapshot, which has no history in common with the store: make the change on a "
            "clone of raw data, or on a branch"
        )
        return stalls(SOURCE, "MaskedLineage", message)
    return _outdated(seen, seen.origin.party, words)


def revert_problem(request: DataChangeRequest, seen: RequestObservation) -> Fact | None:
    """Return why a request cannot be undone by this one, or None."""
    found, name = seen.reverted, request.spec.from_.revert_of
    if not isinstance(found, DataChangeRequest):
        message = f"there is no DataChangeRequest {name} in this namespace: make this one anew with the right name"
        return stalls(SOURCE, "SourceNotFound", message, retry_after=60)
    same = (found.spec.store.name, found.spec.into.branch) == (request.spec.store.name, request.spec.into.branch)
    if not same:
        message = (
            f"DataChangeRequest {name} goes into branch {found.spec.into.branch} of DataStore {found.spec.store.name}: "
            "make this one anew into the same"
        )
        return stalls(SOURCE, "OtherTarget", message)
    if rebases(found):
        message = f"DataChangeRequest {name} has changed a clone alone: delete this one, and reset the clone to its tag"
        return stalls(SOURCE, "NotPublished", message)
    if found.status.published is None:
        message = f"DataChangeRequest {name} is not published: there is nothing to take back"
        return stalls(SOURCE, "NotPublished", message, retry_after=60)
    return None


def target_problem(request: DataChangeRequest, seen: RequestObservation) -> Fact | None:
    """Return why the store's server has no branch to merge into now, or None."""
    name, answer = request.spec.store.name, None if seen.store is None else seen.store.answer
    if answer is None or answer.content is None:
        error = None if answer is None else answer.error
        detail = "" if error is None or isinstance(error, UnreachableError) else f": {error}"
        message = f"the server of DataStore {name} does not answer yet{detail}"
        return waits(SOURCE, "StoreNotReady", message, retry_after=5)
    if answer.content.state_of(request.spec.into.branch) is None:
        if patches(request):
            branches = ", ".join(sorted({state.branch for state in answer.content.branches}))
            message = f"the live server of DataStore {name} is branch {branches}: make this DataChangeRequest into that"
            return stalls(SOURCE, "TargetNotFound", message, retry_after=60)
        message = f"DataStore {name} has no branch {request.spec.into.branch}: make it, or this DataChangeRequest anew"
        return stalls(SOURCE, "TargetNotFound", message, retry_after=60)
    return _outdated(seen, seen.store, f"DataStore {name}")


def _outdated(seen: RequestObservation, party: Party | None, words: str) -> Fact | None:
    """Return that nobody can fetch from a server, because it was started before the operator knew how, or None."""
    engine, pod = (
        None if seen.source is None else merging_engine(seen.source),
        None if party is None else party.server.pod,
    )
    if engine is None or pod is None:
        return None
    open_ports = {
        port["containerPort"] for container in pod["spec"]["containers"] for port in container.get("ports") or ()
    }
    if engine.remotes_port in open_ports:
        return None
    metadata = pod["metadata"]
    message = (
        f"the server of {words} was started by an earlier version of the operator, and nothing can be fetched from it: "
        f"restart it, kubectl delete pod {metadata['name']} -n {metadata['namespace']}"
    )
    return stalls(SOURCE, "ServerOutdated", message, retry_after=10)


def proposal_problem(request: DataChangeRequest, seen: RequestObservation) -> Fact | None:
    """Return why it cannot be told what is proposed, or None."""
    wanted = request.spec.from_
    if wanted.revert_of is not None:
        return revert_problem(request, seen)
    if wanted.branch is not None and seen.proposed is None:
        content = None if seen.store is None else seen.store.content
        if content is None or content.state_of(wanted.branch) is not None:
            message = (
                f"the server of DataStore {request.spec.store.name} does not say what branch {wanted.branch} holds"
            )
            return waits(SOURCE, "StoreNotReady", message, retry_after=5)
        message = (
            f"DataStore {request.spec.store.name} has no branch {wanted.branch}: make the branch, or delete this "
            "DataChangeRequest"
        )
        return stalls(SOURCE, "SourceNotFound", message, retry_after=30)
    return None if wanted.clone is None else _clone_unusable(request, seen)


def _clone_unusable(request: DataChangeRequest, seen: RequestObservation) -> Fact | None:
    if seen.refusal is not None:
        return refused(SOURCE, seen.refusal)
    if seen.terms is None:
        message = (
            f"no DataGrant in this namespace gives namespace {_clone_namespace(request)} the verb Propose on DataStore "
            f"{request.spec.store.name}: make one, or propose a clone of this namespace"
        )
        return stalls(SOURCE, "NotGranted", message)
    if not seen.receives:
        message = (
            f"no DataGrant in this namespace gives namespace {_clone_namespace(request)} raw data of DataStore "
            f"{request.spec.store.name} by the verb Clone, and a rebase brings rows there: make one, or delete this "
            "DataChangeRequest"
        )
        return stalls(SOURCE, "NotGranted", message)
    problem = clone_problem(request, seen)
    if patches(request):
        return problem or _clone_unread(request, seen)
    gone = problem is not None and problem.reason == "SourceNotFound"
    if problem is not None and problem.stalled and not gone:
        return problem
    if rebases(request):
        return problem or _clone_untouchable(request, seen)
    if seen.proposed is not None:
        return None
    answers = f"waits for the server of {clone_words(request)} to answer; wake it, if it is asleep"
    return problem or waits(SOURCE, "SourceNotReady", answers, retry_after=10)


def _clone_unread(request: DataChangeRequest, seen: RequestObservation) -> Fact | None:
    """Return why a clone cannot be compared with what it came from now, or None."""
    words, patching, serving = clone_words(request), seen.patching, seen.origin.serving
    if patching is None or serving is None or seen.origin.party is None:
        raise TypeError("a clone without a problem serves")
    if patching.snapshot is None and not patching.based:
        message = (
            f"DataSnapshot {serving.origin.snapshot}, which {words} came from, is gone, and without it nobody can tell "
            "what has changed: make the change on a new clone, and propose that"
        )
        return stalls(SOURCE, "SnapshotGone", message)
    pod = seen.origin.party.server.pod
    if pod is None or not pod_state(pod).running:
        message = f"waits for the server of {words} to answer; wake it, if it is asleep"
        return waits(SOURCE, "SourceNotReady", message, retry_after=10)
    return None


def _clone_untouchable(request: DataChangeRequest, seen: RequestObservation) -> Fact | None:
    """Return why a clone cannot be rebased now, or None."""
    proposed, words = seen.proposed, clone_words(request)
    if proposed is None or proposed.kept:
        message = f"waits for the server of {words} to answer; wake it, if it is asleep"
        return waits(SOURCE, "SourceNotReady", message, retry_after=10)
    if not seen.may_finish:
        message = (
            f"nobody vouches for the author's right to {words} while the admission policies of requests are absent or "
            "altered: install the chart again, and make this DataChangeRequest anew"
        )
        return stalls(SOURCE, "IdentityUnenforced", message, retry_after=60)
    return None


def source_found(request: DataChangeRequest, seen: RequestObservation) -> Fact:
    """Return that what is proposed is there."""
    proposed, wanted = seen.proposed, request.spec.from_
    if patches(request):
        snapshot = "" if seen.origin.serving is None else seen.origin.serving.origin.snapshot
        message = f"proposes what {clone_words(request)} has changed since DataSnapshot {snapshot}"
        return holds(SOURCE, "Found", message)
    if wanted.revert_of is not None:
        return holds(SOURCE, "Found", f"takes back what DataChangeRequest {wanted.revert_of} brought")
    if proposed is None:
        raise TypeError("what is proposed was found")
    if proposed.superseded:
        message = (
            f"{clone_words(request)} has begun anew, without what it had; that is kept, up to commit {proposed.head}. "
            "To propose what is written there now, make another DataChangeRequest"
        )
        return holds(SOURCE, "KeptOfEarlier", message)
    if proposed.kept:
        words = clone_words(request)
        return holds(SOURCE, "Kept", f"{words} cannot be asked; what it had is kept, up to commit {proposed.head}")
    found, left = f"proposes branch {proposed.branch} at {proposed.head}", uncommitted_words(request, seen)
    return holds(SOURCE, "FoundInPart", f"{found}; {left}") if left else holds(SOURCE, "Found", found)


def is_unfinished(seen: RequestObservation) -> bool:
    """Return whether the source has what nobody has committed and is to be committed for the author.

    Only on a clone that is theirs: of the request's own namespace, or one that they have proven a right to. On a branch
    of the store others may be in the middle of something, and a protected one moves by a review alone.
    """
    return seen.proposed is not None and seen.proposed.unsaved and seen.may_finish


def until_committed(request: DataChangeRequest, seen: RequestObservation) -> float:
    """Return for how many seconds what was written since the last commit of this kind waits at least for the next."""
    before = request.status.committed_at
    passed = None if before is None else (seen.now - before).total_seconds()
    return BETWEEN_COMMITS - passed if passed is not None and 0 <= passed < BETWEEN_COMMITS else 0


def uncommitted_words(request: DataChangeRequest, seen: RequestObservation) -> str:
    """Return that rows at the source are no part of what is proposed, and how they become one; or nothing."""
    proposed, wanted = seen.proposed, request.spec.from_
    if proposed is None or not proposed.unsaved:
        return ""
    if is_unfinished(seen):
        return "what has been written there since is committed later, and no part of it yet"
    where = f"{request.spec.store.name}:{wanted.branch}"
    if wanted.clone is not None:
        where = f"{wanted.clone.name} -n {_clone_namespace(request)}"
    return f"what is written there and not committed is no part of it: coppice commit {where} -m MESSAGE"


def clone_words(request: DataChangeRequest) -> str:
    """Return what the clone is called that changes are taken from."""
    wanted = request.spec.from_.clone
    return f"DataClone {_clone_namespace(request)}/{'' if wanted is None else wanted.name}"


def _clone_namespace(request: DataChangeRequest) -> str:
    wanted = request.spec.from_.clone
    return (None if wanted is None else wanted.namespace) or request.metadata.namespace
