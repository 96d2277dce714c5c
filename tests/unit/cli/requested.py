"""Change requests as the operator leaves them, for those who look at them and act upon them."""

from __future__ import annotations

from typing import Any

from tests.fakes.person import Person
from tests.unit.cli.comparing import FIRST, SECOND, THIRD

PATCH = {"proposal": "f00d", "source": SECOND, "resolutions": "e3b0", "digest": "d1d1"}
WAITS = {"id": "0123456789abcdef", "row": "fedcba9876543210", "kind": "Cell", "table": "track", "column": "price"}


def condition(kind: str, reason: str, *, holds: bool, message: str = "") -> dict[str, str]:
    return {"type": kind, "status": "True" if holds else "False", "reason": reason, "message": message}


def computed(**more: Any) -> dict[str, Any]:
    """Return the status of a request whose change is known and waits for somebody's approval."""
    return {
        "observedGeneration": 100,
        "conditions": [
            condition("SourceReady", "Found", holds=True),
            condition("Computed", "Computed", holds=True),
            condition("Mergeable", "Mergeable", holds=True),
            condition("Approved", "ApprovalsMissing", holds=False, message="1 approval is missing"),
            condition("Published", "ApprovalsMissing", holds=False, message="1 approval is missing"),
        ],
        "base": FIRST,
        "source": {"head": SECOND},
        "target": {"branch": "main", "head": FIRST},
        "result": THIRD,
        "patch": PATCH,
        "tables": [{"table": "track", "added": 2, "modified": 1, "deleted": 0}],
        "tableCount": 1,
        **more,
    }


def conflicting(**more: Any) -> dict[str, Any]:
    """Return the status of a request of which one conflict waits."""
    status = computed(**{"conflicts": {"open": 1, "decided": 0, "listed": [WAITS]}, **more})
    for key in ("patch", "result", "tables", "tableCount"):
        status.pop(key)
    return status


def ask(person: Person, status: dict[str, Any] | None = None, *, name: str = "autumn", **spec: Any) -> None:
    """Put a request of bea's beside the store."""
    wished = {
        "title": "Autumn prices",
        "store": {"name": "shop"},
        "author": "bea",
        "from": {"branch": "autumn"},
        "into": {"branch": "main"},
        **spec,
    }
    person.story.add("DataChangeRequest", name, wished, "data")
    if status is not None:
        tell(person, status, name)


def tell(person: Person, status: dict[str, Any], name: str = "autumn") -> None:
    """Be the operator, who has found something out."""
    person.story.kube.change("DataChangeRequest", "data", name, lambda found: found.update(status=status))
