"""What a user reads when a write was refused and repeating it cannot help."""

from __future__ import annotations

from coppice.core.plan import Event, Manifest, Plan
from coppice.engines.base import EngineError
from coppice.kube.errors import ForbiddenError, KubeError, NameConflictError
from coppice.reconcile.observed import condition

RETRY_SECONDS = 60.0


def plan_failure(manifest: Manifest, error: KubeError | EngineError) -> Plan:
    """Return the status that says what was refused and by whom; the other conditions stay as they are."""
    reason, message = _explain(error)
    status = manifest.get("status") or {}
    others = [
        entry for entry in status.get("conditions", ()) if entry["type"] not in {"Ready", "Stalled", "Reconciling"}
    ]
    summary = [
        {"type": "Ready", "status": "False", "reason": reason, "message": message},
        {"type": "Stalled", "status": "True", "reason": reason, "message": message},
        {"type": "Reconciling", "status": "False", "reason": reason, "message": ""},
    ]
    before = condition(manifest, "Ready")
    changed = before is None or before["reason"] != reason
    return Plan(
        status={**status, "conditions": [*others, *summary]},
        events=(Event(reason, message, "Warning"),) if changed else (),
        requeue_after=RETRY_SECONDS,
    )


def _explain(error: KubeError | EngineError) -> tuple[str, str]:
    if isinstance(error, NameConflictError):
        return "NameConflict", f"{error}: rename or delete one of the two"
    if isinstance(error, EngineError):
        return "EngineError", f"the database refused: {error}"
    if isinstance(error, ForbiddenError) and "exceeded quota" in str(error):
        return "QuotaExceeded", f"{error}: free some of it or ask for more"
    if isinstance(error, ForbiddenError):
        return "Forbidden", f"the API server does not let the operator do this: {error}"
    return "Refused", f"the API server refuses what this object needs: {error}"
