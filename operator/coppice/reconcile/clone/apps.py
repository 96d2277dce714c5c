"""The Deployments beside a clone that asked to be wired to it, or to sleep with it. Pure."""

from __future__ import annotations

from coppice.api.v1alpha1 import BINDING_KEYS, DataClone, Power
from coppice.core.plan import Manifest, Plan, Scale
from coppice.reconcile.clone.lifetime import is_unused
from coppice.reconcile.clone.names import secret_name
from coppice.reconcile.clone.observation import CloneObservation
from coppice.reconcile.clone.queue import is_expired
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.observed import condition
from coppice.reconcile.scaling import SCALED, Scaling, give_back, scale, with_scaling
from coppice.reconcile.wiring import Wiring, wire, with_wiring


def asks_for_apps(manifest: Manifest, clone: DataClone) -> bool:
    """Return whether there may be Deployments to scale of a clone that serves nobody: it is off, its lease is over, or
    some were scaled before.
    """
    return clone.spec.power is Power.OFF or is_expired(manifest) or condition(manifest, SCALED) is not None


def with_apps(plan: Plan, at: Situation, *, over: bool = False) -> Plan:
    """Return a clone's plan with what becomes of the Deployments; ``over``: its lease has ended."""
    plan = with_scaling(plan, _scaling(at, asleep=over or _is_asleep(at)), at.seen.manifest)
    return plan if over else with_wiring(plan, _wiring(at), at.seen.manifest)


def apps_back(seen: CloneObservation) -> tuple[Scale, ...]:
    """Return what wakes the Deployments that sleep with a clone under deletion."""
    return give_back(seen.deployments, str(seen.manifest["metadata"]["name"]))


def _is_asleep(at: Situation) -> bool:
    """Return whether nobody is to have an app: whatever a refresh or a migration does with the data meanwhile."""
    return at.clone.spec.power is Power.OFF or is_unused(at)


def _scaling(at: Situation, *, asleep: bool) -> Scaling:
    return scale(at.seen.deployments, at.name, asleep=asleep, refused=at.seen.unscaled)


def _wiring(at: Situation) -> Wiring:
    return wire(
        at.seen.deployments if at.seen.serving is not None else (),
        at.name,
        secret=secret_name(at.clone),
        keys=at.clone.spec.binding.keys or BINDING_KEYS,
        refused=at.seen.unwired,
    )
