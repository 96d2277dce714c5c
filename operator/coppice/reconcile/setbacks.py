"""Why a DataSnapshot that is Stalled may yet become Ready by itself: another would be held up by the same. Pure."""

from __future__ import annotations

from coppice.core.plan import Manifest
from coppice.reconcile.observed import condition

SETBACKS = {"PreparationStuck", "ProvisioningFailed", "CaptureRefused"}
"""Its Pod does not start; its scratch claim has no volume; the storage driver makes no snapshot."""

MASK_SETBACKS = {"MaskFailed", "MaskNotSuspended", "MaskNotStarted", "MaskServerFailed"}
"""Its mask fails. It goes on once that is put right, but is not kept for it: each has a whole copy."""


def has_given_up(snapshot: Manifest) -> bool:
    """Return whether a DataSnapshot has failed for good."""
    stalled = condition(snapshot, "Stalled")
    return stalled is not None and stalled["status"] == "True" and stalled["reason"] not in SETBACKS


def may_yet_come(snapshot: Manifest) -> bool:
    """Return whether a DataSnapshot that is not Ready is waited for: where it is Stalled, another would be as well."""
    stalled = condition(snapshot, "Stalled")
    return not has_given_up(snapshot) or (stalled is not None and stalled["reason"] in MASK_SETBACKS)
