"""Why a DataSnapshot that is Stalled may yet become Ready by itself: another would be held up by the same. Pure."""

from __future__ import annotations

from coppice.core.plan import Manifest
from coppice.reconcile.observed import condition

SETBACKS = {"PreparationStuck", "ProvisioningFailed", "CaptureRefused"}
"""Its Pod does not start; its scratch claim has no volume; the storage driver makes no snapshot."""


def has_given_up(snapshot: Manifest) -> bool:
    """Return whether a DataSnapshot has failed for good."""
    stalled = condition(snapshot, "Stalled")
    return stalled is not None and stalled["status"] == "True" and stalled["reason"] not in SETBACKS
