"""Wiring of Deployments that ask for it: the binding's keys as environment variables, beside what the user wrote.

A Deployment is the user's own, so nothing of it is ever changed: entries are added by server-side apply with a field
manager of their own and without force, only where a container has none of that name, and one container in which a name
is taken keeps its whole Deployment as it is. ``metadata.managedFields`` says which entries are ours, by the format
of https://kubernetes.io/docs/reference/using-api/server-side-apply/.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coppice.core import labels
from coppice.core.plan import Manifest, Plan
from coppice.kube.client import WIRING_MANAGER
from coppice.manifests.meta import build_identity
from coppice.reconcile.draft import Fact, beside, holds, stalls
from coppice.reconcile.observed import annotation, is_deleting

WIRED = "Wired"

Entries = Mapping[str, Sequence[Mapping[str, Any]]]
"""Environment entries, by the name of the container."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What to apply to Deployments, and what to say of it: no fact where no Deployment asks for the clone."""

    apply: tuple[Manifest, ...] = ()
    fact: Fact | None = None


def wire(
    deployments: Sequence[Manifest],
    clone: str,
    *,
    secret: str,
    keys: Collection[str],
    refused: Mapping[str, str] | None = None,
) -> Wiring:
    """Return how the Deployments of a clone's namespace get the ``keys`` of its binding Secret, or lose them again.

    ``refused``: the API server's words, by the name of a Deployment, where it has just refused to have one wired.
    """
    patches: list[Manifest] = []
    wired: list[str] = []
    problems: list[str] = []
    for deployment in deployments:
        name, asked = str(deployment["metadata"]["name"]), annotation(deployment, labels.CLONE_OPT_IN)
        owned = _owned(deployment)
        if is_deleting(deployment) or (asked is not None and asked != clone):
            continue
        if asked is None:
            patches += [_patch(deployment, {})] if owned else []
            continue
        taken = _taken(deployment, secret, keys, owned)
        if taken is not None:
            problems.append(f"Deployment {name}: {taken}")
            continue
        entries = _entries(deployment, secret, keys, owned)
        if _is_due(deployment, entries, owned):
            patches.append(_patch(deployment, entries))
        if refused is not None and name in refused:
            problems.append(f"Deployment {name}: {refused[name]}. It is tried again every minute; {_WAY_OUT}")
            continue
        wired.append(name)
    return Wiring(tuple(patches), _fact(wired, problems, secret))


def with_wiring(plan: Plan, wiring: Wiring, manifest: Manifest) -> Plan:
    """Return a clone's plan with its wiring: a condition beside the chain, for the data are ready either way."""
    return beside(replace(plan, wire=wiring.apply), wiring.fact, manifest)


_WAY_OUT = f"take the annotation {labels.CLONE_OPT_IN} away if the Deployment is not to be wired"


def _fact(wired: list[str], problems: list[str], secret: str) -> Fact | None:
    if problems:
        return stalls(WIRED, "WiringConflict", "; ".join(problems))
    if wired:
        return holds(WIRED, "Wired", f"Secret {secret} is in the environment of Deployment {', '.join(wired)}")
    return None


def _entry(secret: str, key: str) -> dict[str, Any]:
    return {"name": key, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}


def _containers(deployment: Manifest) -> Iterator[tuple[str, dict[str, Mapping[str, Any]]]]:
    """Yield each container's name with its environment by name; init containers are not wired."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        yield str(container["name"]), {str(entry["name"]): entry for entry in container.get("env") or ()}


def _taken(deployment: Manifest, secret: str, keys: Collection[str], owned: Collection[tuple[str, str]]) -> str | None:
    """Return where a name is taken by something else, and what to do about it."""
    for container, present in _containers(deployment):
        for key in keys:
            found = present.get(key)
            if found is not None and (container, key) not in owned and found != _entry(secret, key):
                return f"container {container} has another {key} in its env: remove it there, or {_WAY_OUT}"
    return None


def _entries(
    deployment: Manifest, secret: str, keys: Collection[str], owned: Collection[tuple[str, str]]
) -> dict[str, list[dict[str, Any]]]:
    """Return the entries that are to be ours; one that the user wrote just so stays the user's alone."""
    found = {
        container: [_entry(secret, key) for key in keys if key not in present or (container, key) in owned]
        for container, present in _containers(deployment)
    }
    return {container: entries for container, entries in found.items() if entries}


def _is_due(deployment: Manifest, entries: Entries, owned: Collection[tuple[str, str]]) -> bool:
    wanted = {(container, entry["name"]) for container, found in entries.items() for entry in found}
    present = dict(_containers(deployment))
    stale = any(present[container].get(entry["name"]) != entry for container in entries for entry in entries[container])
    return stale or not set(owned) <= wanted


def _patch(deployment: Manifest, entries: Entries) -> dict[str, Any]:
    """Return the apply that makes exactly these entries ours; without any it names the Deployment and owns nothing."""
    patch = build_identity(deployment)
    if not entries:
        return patch
    containers = [{"name": container, "env": list(found)} for container, found in entries.items()]
    return {**patch, "spec": {"template": {"spec": {"containers": containers}}}}


def _owned(deployment: Manifest) -> frozenset[tuple[str, str]]:
    """Return which entries are ours, as container and name.

    Somebody who replaces the value of one takes over its ``valueFrom``, but not the name: the value is what counts.
    """
    return frozenset(
        (container, name)
        for fields in deployment["metadata"].get("managedFields") or ()
        if fields.get("manager") == WIRING_MANAGER and fields.get("operation") == "Apply"
        for container, inner in _items(_dig(fields.get("fieldsV1"), "spec", "template", "spec", "containers"))
        for name, entry in _items(inner.get("f:env"))
        if "f:valueFrom" in entry
    )


def _dig(fields: Mapping[str, Any] | None, *path: str) -> Mapping[str, Any] | None:
    for step in path:
        fields = (fields or {}).get(f"f:{step}")
    return fields


def _items(fields: Mapping[str, Any] | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the elements of a list by their name; ``k:{"name":"app"}`` is the key of one."""
    for key, inner in (fields or {}).items():
        if key.startswith("k:"):
            yield str(json.loads(key.removeprefix("k:"))["name"]), inner
