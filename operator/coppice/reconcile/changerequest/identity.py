"""Whether the API server vouches for who wrote a request or a review: only while our admission policies are as they
were made, and for what was written since. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from coppice.core.plan import Manifest
from coppice.manifests.admission import build_policies
from coppice.reconcile.observed import created_at

_NEXT: Final = (
    "have the administrator install Coppice's chart again: until then no review is counted, "
    "and nothing is published into a protected branch"
)

TAKEN_UP: Final = timedelta(seconds=30)
"""How long an API server may go on as before after a policy was made."""


def identity_problem(found: Mapping[tuple[str, str], Manifest | None]) -> str | None:
    """Return what is absent or altered of the policies, or None; ``found`` holds them by kind and name.

    What the API server fills in by itself is no alteration.
    """
    for wanted in build_policies():
        kind, name = str(wanted["kind"]), str(wanted["metadata"]["name"])
        there = found.get((kind, name))
        if there is None or "deletionTimestamp" in there["metadata"]:
            return f"{kind} {name} is absent: {_NEXT}"
        if not _holds(wanted["spec"], there.get("spec") or {}):
            return f"{kind} {name} is not as Coppice made it: {_NEXT}"
    return None


def unvouched(found: Mapping[tuple[str, str], Manifest | None], made: datetime) -> str | None:
    """Return why nobody has vouched for a request's author, or None; for its reviews neither, which are younger.

    While one of the policies was not there anybody could write any name. Whether one was altered, and put right
    again, cannot be told: that takes somebody who may write policies.
    """
    for (kind, name), there in found.items():
        if there is not None and made <= created_at(there) + TAKEN_UP:
            return (
                f"this DataChangeRequest may be older than {kind} {name}, without which anybody could write any "
                "name: propose it again (coppice propose), and have that reviewed"
            )
    return None


_DEFAULTS: Final[Mapping[str, tuple[object, ...]]] = {
    "matchPolicy": ("Equivalent",),
    "namespaceSelector": ({},),
    "objectSelector": ({},),
}
"""What the API server adds to ours where nothing is said: admissionregistration.k8s.io/v1, ``SetDefaults_...``."""


def _holds(wanted: Any, there: Any) -> bool:
    """Return whether something is as wanted, and has nothing beside but defaults."""
    if isinstance(wanted, Mapping) and isinstance(there, Mapping):
        added = there.keys() - wanted.keys()
        if not all(there[key] in _DEFAULTS.get(key, ()) for key in added):
            return False
        return wanted.keys() <= there.keys() and all(_holds(wanted[key], there[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(there, list):
        return len(wanted) == len(there) and all(_holds(*pair) for pair in zip(wanted, there, strict=True))
    return bool(wanted == there)
