"""Deployments that sleep with a clone: none of their Pods run while the clone's server does not.

A Deployment is the user's own, and how many Pods it has is often somebody's business: a GitOps tool's, an autoscaler's,
a person's. So one is scaled only where nobody has said how many it has, which is one Pod, by the API server's default:
then to give the field up is to put back what was before. It is taken and given up by server-side apply under a field
manager of its own, in one write with a mark that says for which clone; each write means the Deployment exactly as it
was observed (``metadata.resourceVersion``). A mark without the field says that somebody has scaled the Deployment
since, and it is left alone until the clone is awake.

By what makes the Deployment, the default has an owner or none: whoever sends all of an object (``kubectl create``,
``helm``, client-side ``kubectl apply``) owns what the API server adds. Only that is taken by force.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coppice.core import labels
from coppice.core.plan import Manifest, Plan, Scale
from coppice.kube.client import SCALING_MANAGER
from coppice.manifests.meta import build_identity
from coppice.reconcile.draft import Fact, beside, holds, stalls
from coppice.reconcile.observed import annotation, is_deleting, read_mark

SCALED = "AppsScaled"
DEFAULT = 1
"""How many Pods a Deployment has about which nobody has said anything."""
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_AUTOSCALER = "kube-controller-manager"
_WAY_OUT = f"or take the annotation {labels.SLEEP_OPT_IN} away"


@dataclass(frozen=True, slots=True)
class Scaling:
    """What to apply to Deployments, and what to say of it: no fact where no Deployment asks to sleep with the clone."""

    apply: tuple[Scale, ...] = ()
    fact: Fact | None = None


def scale(
    deployments: Sequence[Manifest], clone: str, *, asleep: bool, refused: Mapping[str, str] | None = None
) -> Scaling:
    """Return how the Deployments of a clone's namespace go to sleep with it, or come back.

    ``refused``: the API server's words, by the name of a Deployment, where it has just refused to have one scaled.
    """
    present = [entry for entry in deployments if not is_deleting(entry)]
    asking = [entry for entry in present if annotation(entry, labels.SLEEP_OPT_IN) == clone]
    steps = [_sleep(entry, clone) if asleep else _release(entry) for entry in asking]
    left = [_release(entry) for entry in present if entry not in asking and _is_left_behind(entry, clone)]
    words = {str(entry["metadata"]["name"]): _problem(entry, asleep=asleep) for entry in asking}
    said = {name: f"{text}. It is tried again every minute; {_WAY_OUT}" for name, text in (refused or {}).items()}
    problems = {name: text for name, text in {**words, **said}.items() if text is not None}
    apply = tuple(step for step in (*steps, *left) if step is not None)
    return Scaling(apply, _fact(list(words), problems, asleep=asleep))


def with_scaling(plan: Plan, scaling: Scaling, manifest: Manifest) -> Plan:
    """Return a clone's plan with its scaling, and a condition beside the chain.

    The finalizer is there before a Deployment sleeps: a clone that goes has to give it back.
    """
    unheld = labels.FINALIZER not in (manifest["metadata"].get("finalizers") or ())
    add = plan.add_finalizer or (scaling.fact is not None and unheld)
    plan = replace(plan, scale=scaling.apply, add_finalizer=add)
    return beside(plan, scaling.fact, manifest, each_message=True)


def give_back(deployments: Sequence[Manifest], clone: str) -> tuple[Scale, ...]:
    """Return what makes Deployments awake that sleep with a clone that goes."""
    present = [entry for entry in deployments if not is_deleting(entry)]
    mine = [
        entry for entry in present if annotation(entry, labels.SLEEP_OPT_IN) == clone or _is_left_behind(entry, clone)
    ]
    return tuple(step for step in map(_release, mine) if step is not None)


def _fact(names: list[str], problems: Mapping[str, str], *, asleep: bool) -> Fact | None:
    if problems:
        words = "; ".join(f"Deployment {name}: {text}" for name, text in problems.items())
        return stalls(SCALED, "ScalingConflict", words)
    if not names:
        return None
    listed = ", ".join(names)
    if asleep:
        return holds(SCALED, "ScaledDown", f"while the clone sleeps there are no Pods of Deployment {listed}")
    return holds(SCALED, "ScaledUp", f"Deployment {listed} will sleep with the clone, and is awake")


def _sleep(deployment: Manifest, clone: str) -> Scale | None:
    """Return the write that takes a Deployment's Pods away, or None where that is done or not to be done."""
    owned = _owned(deployment)
    if owned.replicas:
        # The mark is ours to write, whoever has written over it.
        return None if _mark(deployment) == clone else Scale(_patch(deployment, clone), force=True)
    if owned.mark or _replicas(deployment) == 0 or _chosen(deployment) is not None:
        return None
    return Scale(_patch(deployment, clone), force=any(True for _ in _owners(deployment)))


def _release(deployment: Manifest) -> Scale | None:
    """Return the write that gives up what is ours of a Deployment: what nobody has then is the default again."""
    return Scale(_patch(deployment, None)) if _owned(deployment).anything else None


def _is_left_behind(deployment: Manifest, clone: str) -> bool:
    """Return whether a Deployment that does not ask for this clone any more was put to sleep with it."""
    mark = _mark(deployment)
    nobody = mark is None and annotation(deployment, labels.SLEEP_OPT_IN) is None
    return mark == clone or nobody


def _mark(deployment: Manifest) -> str | None:
    """Return the clone with which a Deployment was put to sleep, unless somebody has written that over."""
    return annotation(deployment, labels.ASLEEP_WITH) if _owned(deployment).mark else None


def _patch(deployment: Manifest, clone: str | None) -> dict[str, Any]:
    """Return the apply that makes exactly the Deployment as it was observed sleep with a clone; or with none."""
    body, version = build_identity(deployment), deployment["metadata"]["resourceVersion"]
    metadata = {**body["metadata"], "resourceVersion": version}
    if clone is None:
        return {**body, "metadata": metadata}
    metadata["annotations"] = {labels.ASLEEP_WITH: clone}
    return {**body, "metadata": metadata, "spec": {"replicas": 0}}


def _replicas(deployment: Manifest) -> int:
    found = deployment["spec"].get("replicas")
    return DEFAULT if found is None else int(found)


def _problem(deployment: Manifest, *, asleep: bool) -> str | None:
    """Return why a Deployment that asks for it is not scaled, and what to do about it."""
    owned, number = _owned(deployment), _replicas(deployment)
    if owned.replicas or number == 0:
        return None
    if asleep and owned.mark:
        return (
            f"it was scaled to {number} while the clone sleeps{_by(deployment)}, and is left so until the clone wakes: "
            f"leave spec.replicas to the operator, as to a HorizontalPodAutoscaler, {_WAY_OUT}"
        )
    return _chosen(deployment)


def _chosen(deployment: Manifest) -> str | None:
    """Return that somebody has said how many Pods a Deployment has, and how it is made nobody's word again."""
    owners = list(_owners(deployment))
    if any(owner.manager == _AUTOSCALER for owner in owners):
        return f"an autoscaler says how many Pods it has: leave that to it, {_WAY_OUT}"
    by = _by(deployment)
    applied = read_mark(deployment, _LAST_APPLIED).get("spec")
    declared = isinstance(applied, dict) and "replicas" in applied
    if declared or any(owner.applies for owner in owners):
        return (
            f"spec.replicas stands in its manifest{by}, and would be set again: leave it out there, as for a "
            f"HorizontalPodAutoscaler, {_WAY_OUT}"
        )
    if _replicas(deployment) != DEFAULT:
        return (
            f"it was scaled to {_replicas(deployment)}{by}: scale it to {DEFAULT}, which is what it has when nobody "
            f"says anything, {_WAY_OUT}"
        )
    return None


@dataclass(frozen=True, slots=True)
class _Owned:
    """What of a Deployment is ours."""

    replicas: bool = False
    mark: bool = False

    @property
    def anything(self) -> bool:
        return self.replicas or self.mark


@dataclass(frozen=True, slots=True)
class _Owner:
    """Somebody else who owns the number of Pods; ``applies``: by server-side apply, so that a manifest has it."""

    manager: str
    applies: bool


def _owned(deployment: Manifest) -> _Owned:
    for entry in _entries(deployment):
        if _is_ours(entry):
            marks = _dig(entry.get("fieldsV1"), "metadata", "annotations") or {}
            return _Owned(_has_replicas(entry), f"f:{labels.ASLEEP_WITH}" in marks)
    return _Owned()


def _owners(deployment: Manifest) -> Iterator[_Owner]:
    for entry in _entries(deployment):
        if _has_replicas(entry) and not _is_ours(entry):
            yield _Owner(str(entry.get("manager", "")), entry.get("operation") == "Apply")


def _by(deployment: Manifest) -> str:
    found = ", ".join(owner.manager for owner in _owners(deployment))
    return f", by {found}" if found else ""


def _entries(deployment: Manifest) -> Sequence[Mapping[str, Any]]:
    return deployment["metadata"].get("managedFields") or ()


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("manager") == SCALING_MANAGER and entry.get("operation") == "Apply"


def _has_replicas(entry: Mapping[str, Any]) -> bool:
    return "f:replicas" in (_dig(entry.get("fieldsV1"), "spec") or {})


def _dig(fields: Mapping[str, Any] | None, *path: str) -> Mapping[str, Any] | None:
    for step in path:
        fields = (fields or {}).get(f"f:{step}")
    return fields
