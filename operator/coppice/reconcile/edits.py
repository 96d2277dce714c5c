"""What is done about values in a Secret of ours that somebody changes: apps need the right ones, and two that insist
would write without end. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from coppice.core.compare import covers
from coppice.core.plan import Manifest
from coppice.reconcile.observed import format_time, parse_time

VALUES = "BindingKept"
"""A condition beside the chain, there only where somebody has lately changed values in a binding Secret."""
REMEMBERED = timedelta(hours=1)
REPAIR_PAUSE = timedelta(minutes=1)
"""How long values that are changed again within that hour are left."""
MAX_KEYS_TOLD = 20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to say of a Secret's values, an empty message for nothing, and whether it may be written now."""

    writes: bool
    holds: bool = True
    reason: str = ""
    message: str = ""


def edited_keys(observed: Manifest, desired: Manifest) -> list[str]:
    """Return the keys of a Secret whose values somebody else has changed: for another copy, which stands in an
    annotation, we do so ourselves.
    """
    theirs, ours = (entry["metadata"].get("annotations") or {} for entry in (observed, desired))
    if not covers(theirs, ours):
        return []
    found = observed.get("data") or {}
    return sorted(key for key, value in desired["data"].items() if key in found and found[key] != value)


def judge_edits(before: Mapping[str, Any] | None, secret: str, edited: Sequence[str], now: datetime) -> Verdict:
    """Return what follows from values that were changed, ``before`` being the condition as it stands."""
    last = None if before is None else parse_time(before["message"].rpartition(" at ")[2])
    lately = last is not None and now - last < REMEMBERED
    if not edited:
        return _as_before(before) if before is not None and lately else Verdict(writes=True)
    told = ", ".join(edited[:MAX_KEYS_TOLD])
    if last is None or not lately:
        message = (
            f"values in Secret {secret} were changed by hand ({told}): have values of your own in another Secret; "
            f"put right at {format_time(now)}"
        )
        return Verdict(writes=True, reason="ValuesRestored", message=message)
    writes = now - last >= REPAIR_PAUSE
    message = (
        f"somebody changes values in Secret {secret} again and again ({told}): they are put right once a minute, and "
        f"are wrong in between. Have that ended; last put right at {format_time(now if writes else last)}"
    )
    return Verdict(writes=writes, holds=False, reason="ValuesContested", message=message)


def _as_before(before: Mapping[str, Any]) -> Verdict:
    reason, message = str(before["reason"]), str(before["message"])
    return Verdict(writes=True, holds=before["status"] == "True", reason=reason, message=message)
