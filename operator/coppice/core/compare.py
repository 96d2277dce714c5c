"""Whether an object in the cluster already is what we want, so that nothing is written when nothing changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def covers(observed: Any, desired: Any) -> bool:
    """Return whether every field of ``desired`` is in ``observed`` with an equal value.

    The API server adds fields of its own to objects, so the observed may have more keys; lists are compared item by
    item and must be equally long.
    """
    if observed == desired:
        return True
    if isinstance(desired, dict | Mapping):
        return isinstance(observed, dict | Mapping) and all(
            key in observed and covers(observed[key], value) for key, value in desired.items()
        )
    if isinstance(desired, list | tuple):
        return (
            isinstance(observed, list | tuple)
            and len(observed) == len(desired)
            and all(covers(left, right) for left, right in zip(observed, desired, strict=True))
        )
    return False


def surplus_keys(observed: Mapping[str, Any], desired: Mapping[str, Any], field: str) -> tuple[str, ...]:
    """Return the keys that a field of ``observed`` has and that of ``desired`` has not."""
    wanted = desired.get(field) or {}
    return tuple(sorted(key for key in observed.get(field) or {} if key not in wanted))
