"""How a request's author decides conflicts, in the engine's words, and what an approval remembers of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from coppice.api.v1alpha1 import Resolution
from coppice.engines.merging import Decision


def decisions_of(resolutions: Sequence[Resolution]) -> tuple[Decision, ...]:
    """Return the decisions, in the order in which they stand."""
    return tuple(
        Decision(take=entry.take.value, conflict=entry.conflict, row=entry.row, table=entry.table)
        for entry in resolutions
    )


def digest_of(resolutions: Sequence[Resolution]) -> str:
    """Return 16 hexadecimal digits that are others when something else is decided.

    Two entries that name the same thing and take different sides have an order that matters: the first one holds.
    """
    seen: dict[tuple[str, str], str] = {}
    for entry in resolutions:
        names = (("conflict", entry.conflict), ("row", entry.row), ("table", entry.table))
        seen.setdefault(next(((kind, name) for kind, name in names if name is not None), ("", "")), entry.take.value)
    text = json.dumps(sorted((kind, name, take) for (kind, name), take in seen.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
