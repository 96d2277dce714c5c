"""DataChangeRequest: what changed on a clone or branch comes into a branch, reviewed and checked (ADR 22).

It is computed on a scratch server of its own, and the store takes the result from there by fast-forward only: a crash
at any point leaves the branch as it was before, or as it is to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from coppice.api.v1alpha1 import DataChangeRequest, InvalidResource, Publish
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import EngineCall, Event, Manifest, Plan, read_note
from coppice.engines.base import EngineError
from coppice.engines.merging import CommitInfo, TargetBusyError, TargetMovedError
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.reconcile.changerequest.chain import PUBLISHED, SOON, TYPES
from coppice.reconcile.changerequest.checks import drop_checks
from coppice.reconcile.changerequest.computations import Computations
from coppice.reconcile.changerequest.mergechain import MergeRequest
from coppice.reconcile.changerequest.observation import RequestObservation
from coppice.reconcile.changerequest.observe import observe_request
from coppice.reconcile.changerequest.patchchain import PatchRequest, pause_after
from coppice.reconcile.changerequest.publish import tag_of
from coppice.reconcile.changerequest.rules import rebases
from coppice.reconcile.changerequest.sources import SOURCE, clone_words, merging_engine, patches
from coppice.reconcile.changerequest.status import request_status, told_before
from coppice.reconcile.draft import Draft, holds, stalls
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.observed import condition, format_time, is_deleting

LOOK_PERIOD = 30.0
"""Seconds between two looks at what is proposed and at where it goes: nobody tells when rows change."""


@dataclass(frozen=True, slots=True)
class DataChangeRequestReconciler:
    """Keeps DataChangeRequests as their specifications say."""

    environment: Environment
    kind: str = "DataChangeRequest"
    computations: Computations = field(default_factory=Computations, compare=False)

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> RequestObservation | None:
        """Read the request, the servers that take part, and what people say."""
        return await observe_request(reader, self.environment, self.computations, key, now)

    def plan(self, observation: RequestObservation) -> Plan:
        """Return what to do for the request now."""
        request = observation.request
        draft = Draft(observation.manifest, observation.now)
        if is_deleting(observation.manifest):
            return _plan_deletion(observation, draft)
        if isinstance(request, InvalidResource):
            draft.facts.append(stalls(SOURCE, "InvalidSpec", request.message))
            return draft.finish(TYPES, told_before(observation))
        if request.status.published is not None or observation.has_landed:
            return _plan_published(observation, request, draft)
        return _plan_open(observation, request, draft)

    def failed(self, observation: RequestObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        if is_deleting(observation.manifest):
            return plan_failure(observation.manifest, error)
        if observation.landed is not None and isinstance(error, EngineError):
            # It is in the target, whatever else can be done about it.
            return self.plan(replace(observation, refused=error))
        if observation.patching is not None and isinstance(error, EngineError):
            return self.plan(replace(observation, refused=self._remembered(observation, error)))
        # Two that fetch from one server at once may get into each other's way.
        fetching = isinstance(error, EngineError) and bool(observation.lacking)
        if fetching or isinstance(error, TargetBusyError | TargetMovedError):
            return self.plan(replace(observation, refused=error))
        return replace(plan_failure(observation.manifest, error), guarded=observation.patching is not None)

    def _remembered(self, seen: RequestObservation, error: EngineError) -> EngineError:
        """Return why a live server has refused something, and do not try the same again at the next knock."""
        if seen.outcome is not None and seen.outcome.changes is not None:
            uid, digest = str(seen.manifest["metadata"]["uid"]), seen.outcome.changes.digest
            self.computations.refusals.remember(uid, digest, seen.now, pause_after(error), error)
        return error


def _plan_deletion(seen: RequestObservation, draft: Draft) -> Plan:
    """Return the plan of a request that goes: what it made elsewhere goes with it, on servers as well.

    A server that does not answer, or refuses, holds nobody up: the next publication sweeps, too.
    """
    _drop(draft, seen.policies)
    engine = None if seen.source is None else merging_engine(seen.source)
    ready = condition(seen.manifest, "Ready")
    if engine is not None and (ready is None or ready["reason"] != "EngineError"):
        for party in (seen.store, seen.origin.party):
            if party is not None and party.content is not None:
                arguments = {"database": party.content.database}
                draft.calls.append(EngineCall(engine.name, party.ref(engine), "sweep", arguments))
    return Plan(calls=tuple(draft.calls), delete=tuple(draft.delete), remove_finalizer=True)


def _plan_open(seen: RequestObservation, request: DataChangeRequest, draft: Draft) -> Plan:
    chain = PatchRequest(request, seen) if patches(request) else MergeRequest(request, seen)
    chain.run(draft)
    # After a call nobody but the next look tells what has come of it.
    called = draft.calls or draft.publication is not None
    requeue = SOON if called else min(LOOK_PERIOD, chain.look_again or LOOK_PERIOD)
    plan = draft.finish(TYPES, request_status(request, seen, chain), requeue_after=requeue)
    finalizer = bool(seen.passages) and labels.FINALIZER not in request.metadata.finalizers
    # The name of a transaction that somebody else has noted meanwhile is not to be written over.
    return replace(plan, add_finalizer=finalizer, guarded=patches(request))


def _plan_published(seen: RequestObservation, request: DataChangeRequest, draft: Draft) -> Plan:
    """Return the plan of a request whose change is in the target: it changes nothing any more, and its scratch server
    goes.
    """
    status = told_before(seen)
    if request.status.published is None:
        status["published"] = {**_arrived(seen, request, draft), "at": format_time(seen.now)}
    reason, message = _published_words(request)
    draft.facts += [holds(kind, reason if kind == PUBLISHED else "Published", message) for kind in TYPES]
    draft.events.append(Event(reason, message))
    status = {**status, "preview": None, "publishing": None, "scratch": None}
    draft.drop(seen.scratch.manifest)
    _drop(draft, seen.policies)
    drop_checks(draft, seen.check_jobs)
    return replace(draft.finish(TYPES, status), remove_finalizer=labels.FINALIZER in request.metadata.finalizers)


def _published_words(request: DataChangeRequest) -> tuple[str, str]:
    """Return how it is said what has become of a request."""
    published = request.status.published
    commit = published.commit if published is not None else read_note(request.status.publishing)[0]
    if request.spec.publish is Publish.DATABASE:
        return "Published", f"the live database of DataStore {request.spec.store.name} has it by transaction {commit}"
    if request.spec.publish is Publish.PATCH:
        return "HandedOver", f"the live database of DataStore {request.spec.store.name} has all of {commit}"
    if rebases(request):
        return "Published", f"{clone_words(request)} is up to branch {request.spec.into.branch}, as commit {commit}"
    return "Published", f"branch {request.spec.into.branch} has it as commit {commit}"


def _arrived(seen: RequestObservation, request: DataChangeRequest, draft: Draft) -> dict[str, str | None]:
    """Return what the status says of what has just been found in the target, and mark it there."""
    commit, _ = read_note(request.status.publishing)
    if seen.landed is None:
        return {"commit": commit}
    if seen.refused is None:
        draft.calls += _mark(seen, request)
    tag = tag_of(request) if seen.refused is None else None
    return {"commit": commit, "before": _before(request, seen.landed), "tag": tag}


def _before(request: DataChangeRequest, landed: CommitInfo) -> str:
    """Return where the target was, or the clone."""
    source = request.status.source
    return source.head if rebases(request) and source is not None else landed.parents[0]


def _mark(seen: RequestObservation, request: DataChangeRequest) -> list[EngineCall]:
    """Return the calls that tag what has landed; a clone may never take anything else, and is swept at once of what was
    left where that was ended in the middle.
    """
    engine = None if seen.source is None else merging_engine(seen.source)
    party = seen.origin.party if rebases(request) else seen.store
    content = None if party is None else party.content
    if engine is None or party is None or content is None or seen.landed is None:
        raise TypeError("what has landed was seen on a server")
    at, database = party.ref(engine), {"database": content.database}
    named = {**database, "tag": tag_of(request), "commit": seen.landed.hash}
    swept = [EngineCall(engine.name, at, "sweep", database)] if rebases(request) else []
    return [*swept, EngineCall(engine.name, at, "create-tag", named)]


def _drop(draft: Draft, policies: Sequence[Manifest]) -> None:
    for policy in policies:
        draft.drop(policy)
