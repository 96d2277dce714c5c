"""DataClone: a running copy of a store, made from a prepared snapshot, with credentials of its own (design: "From
apply to bound").

Facts in order: the source may be used, a snapshot keeps the promise, the volume is there, the server answers with the
state that was asked for, the migrations have run, and only then is the binding written. A reset or refresh goes
through the same facts with the next copy, beside the one that serves.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from coppice.api.v1alpha1 import InvalidResource, OnClose
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Plan, Ref
from coppice.engines.base import EngineError
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError, WiringConflictError
from coppice.reconcile.aliases import stranded_aliases
from coppice.reconcile.clone.apps import apps_back, with_apps
from coppice.reconcile.clone.asides import with_asides
from coppice.reconcile.clone.binding import apps_are_told, server_proves_itself
from coppice.reconcile.clone.comment import with_comment
from coppice.reconcile.clone.keep import held, is_let_go, lost, with_kept
from coppice.reconcile.clone.leftovers import drop_replaced, drop_strays
from coppice.reconcile.clone.lifetime import expire, lease_end, lifetime_status, next_look
from coppice.reconcile.clone.migrate import migrations_have_run
from coppice.reconcile.clone.names import ENGINE, SNAPSHOT, SOURCE, VOLUME, types_of
from coppice.reconcile.clone.observation import CloneObservation, is_foreign
from coppice.reconcile.clone.observe import observe_clone
from coppice.reconcile.clone.pullrequest import closing, end, with_pull_request
from coppice.reconcile.clone.queue import Admissions
from coppice.reconcile.clone.server import keep_serving, server_runs
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.source import snapshot_is_chosen, source_may_be_used
from coppice.reconcile.clone.status import clone_status
from coppice.reconcile.clone.undo import plan_undo
from coppice.reconcile.clone.volume import volume_is_bound
from coppice.reconcile.clone.warning import with_warning
from coppice.reconcile.draft import Draft, condemned, stalls
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.observed import deletion_asked_at, is_deleting

CHAIN = (
    source_may_be_used,
    snapshot_is_chosen,
    volume_is_bound,
    server_runs,
    server_proves_itself,
    migrations_have_run,
    apps_are_told,
)


@dataclass(frozen=True, slots=True)
class DataCloneReconciler:
    """Keeps DataClones as their specifications say."""

    environment: Environment
    kind: str = "DataClone"
    admissions: Admissions = field(default_factory=Admissions, compare=False)

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> CloneObservation | None:
        """Read the clone, its source, its copies, and what the servers say."""
        return await observe_clone(reader, self.environment, self.admissions, key, now)

    def plan(self, observation: CloneObservation) -> Plan:
        """Return what to do for the clone now."""
        if is_deleting(observation.manifest):
            return _plan_parting(self.environment, observation)
        draft = Draft(observation.manifest, observation.now)
        if isinstance(observation.clone, InvalidResource):
            draft.facts.append(stalls(SOURCE, "InvalidSpec", observation.clone.message))
            return draft.finish((SOURCE, SNAPSHOT, VOLUME, ENGINE), {})
        at = Situation(self.environment, observation, observation.clone)
        plan = _plan_end(at, draft)
        undo = plan_undo(at) if plan is None else None
        return undo or _with_all(plan or _plan_life(at, draft), at)

    def failed(self, observation: CloneObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        if isinstance(error, WiringConflictError):
            # The data are ready all the same: only the wiring's own condition says otherwise.
            return self.plan(replace(observation, unwired=error.refusals, unscaled=error.unscaled))
        return plan_failure(observation.manifest, error)


def _with_all(plan: Plan, at: Situation) -> Plan:
    """Return a clone's plan with what is beside its chain."""
    plan = with_kept(with_asides(plan, at), at, _due(at))
    return with_comment(with_pull_request(plan, at), at)


def _due(at: Situation) -> datetime | None:
    """Return since when a clone's data go unless something holds them, or None while it lives."""
    closed, ends = closing(at), lease_end(at)
    if closed is not None and closed.is_due:
        return closed.closed_at
    if ends is not None and ends <= at.seen.now:
        return ends
    return deletion_asked_at(at.seen.manifest) if is_deleting(at.seen.manifest) else None


def _plan_parting(environment: Environment, seen: CloneObservation) -> Plan:
    """Return the plan of a clone under deletion: it lives on for as long as what was changed on it is to be kept."""
    if isinstance(seen.clone, InvalidResource) or seen.source is None:
        return _plan_deletion(seen)
    at = Situation(environment, seen, seen.clone)
    due = _due(at)
    if labels.FINALIZER in at.clone.metadata.finalizers and not is_let_go(at, due):
        return _with_all(_plan_life(at, Draft(seen.manifest, seen.now)), at)
    plan, event = _plan_deletion(seen), lost(at, due)
    return replace(plan, events=(*plan.events, event)) if event is not None and plan.remove_finalizer else plan


def _plan_deletion(seen: CloneObservation) -> Plan:
    """Kubernetes collects what is in the clone's namespace, but for what was released from that; the alias contents are
    not in any, so they go first.

    So do claims that still wait for their volume: the snapshot-controller lets no snapshot go that one is made from.
    """
    doomed = [*seen.released, *seen.unbound_claims, *seen.alias_snapshots, *seen.alias_contents]
    scale = apps_back(seen)
    if seen.unscaled:
        named = ", ".join(f"Deployment {name} ({words})" for name, words in seen.unscaled.items())
        return condemned(seen.manifest, [], message=f"what sleeps with the clone cannot be woken: {named}")
    if not doomed:
        return Plan(scale=scale, remove_finalizer=True)
    return Plan(
        scale=scale,
        apply=tuple(stranded_aliases(seen.alias_contents, seen.alias_snapshots)),
        delete=tuple(Ref.of(entry) for entry in doomed if not is_deleting(entry)),
        requeue_after=2,
    )


def _plan_end(at: Situation, draft: Draft) -> Plan | None:
    """Return the plan of a clone whose pull request is closed or whose lease has ended, or None while it lives."""
    closed, ends = closing(at), lease_end(at)
    if closed is not None and closed.is_over:
        draft.facts.append(end(at, draft, closed))
        # Whoever reopens asks for it anew: no lease of before counts then.
        return with_apps(draft.finish(types_of(at.clone), lifetime_status(at, None)), at, over=True)
    if ends is not None and ends <= at.seen.now and held(at, ends) is None:
        draft.facts.append(expire(at, draft, ends))
        return with_apps(draft.finish(types_of(at.clone), lifetime_status(at, ends)), at, over=True)
    return None


def _plan_life(at: Situation, draft: Draft) -> Plan:
    """Return the plan of a clone that lives."""
    ends = lease_end(at)
    for link in CHAIN:
        fact = link(at, draft)
        draft.facts.append(fact)
        if not fact.holds:
            break
    drop_strays(at, draft)
    served = at.seen.serving
    if draft.facts[-1].holds:
        served = at.wanted_copy
        drop_replaced(at, draft)
    else:
        keep_serving(at, draft)
    plan = draft.finish(types_of(at.clone), clone_status(at, served, ends), requeue_after=next_look(at, ends))
    held_back = is_foreign(at.clone) or at.clone.spec.on_close is OnClose.KEEP_CHANGES
    wanted = held_back and labels.FINALIZER not in at.clone.metadata.finalizers
    return with_apps(with_warning(replace(plan, add_finalizer=wanted), at, ends), at)
