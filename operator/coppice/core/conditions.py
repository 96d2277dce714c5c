"""Status as it is written: a plan says what is true now, these functions add what must be remembered from before.

A plan function gives conditions as ``{type, status, reason, message}``. When a condition last changed, and for which
generation of the object it was found, follow from the status that is there: an unchanged status is an equal status, and
is not written again.
Conventions: kubernetes/community, contributors/devel/sig-architecture/api-conventions.md, "Typical status properties".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

Condition = Mapping[str, Any]


def timestamp(moment: datetime) -> str:
    """Return a moment as Kubernetes writes ``metav1.Time``: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge_conditions(
    old: Sequence[Condition], new: Sequence[Condition], now: datetime, *, generation: int | None = None
) -> list[dict[str, Any]]:
    """Return ``new`` with ``lastTransitionTime`` and ``observedGeneration``; what is not in ``new`` is dropped.

    ``lastTransitionTime`` moves only when ``status`` flips; a new reason or message keeps it, and so does a
    condition carried over from ``old``.
    """
    before = {condition["type"]: condition for condition in old}
    moment = timestamp(now)
    merged = []
    for condition in new:
        previous = before.get(condition["type"])
        since = moment
        if previous is not None and previous.get("status") == condition["status"]:
            since = previous.get("lastTransitionTime") or moment
        entry = {**condition, "lastTransitionTime": since}
        if generation is not None:
            entry["observedGeneration"] = generation
        merged.append(entry)
    return merged


def complete_status(desired: Mapping[str, Any], manifest: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """Return the status to write for an object as read: conditions merged, ``observedGeneration`` set, None dropped."""
    generation = manifest["metadata"].get("generation")
    status: dict[str, Any] = _without_none(desired)
    if generation is not None:
        status["observedGeneration"] = generation
    if "conditions" in status:
        current = manifest.get("status", {}).get("conditions", ())
        status["conditions"] = merge_conditions(current, status["conditions"], now, generation=generation)
    return status


def same_status(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two statuses say the same: absent and None are one, and the order of conditions means nothing."""
    return one == other or _canonical(one) == _canonical(other)


def _canonical(status: Mapping[str, Any]) -> dict[str, Any]:
    canonical: dict[str, Any] = _without_none(status)
    if "conditions" in canonical:
        canonical["conditions"] = {condition["type"]: condition for condition in canonical["conditions"]}
    return canonical


def _without_none(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
