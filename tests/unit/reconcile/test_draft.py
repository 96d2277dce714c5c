"""What stands in the way of an object that is to be made: who clears it away, and who has to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from coppice.core import labels
from coppice.reconcile.draft import Draft

NOW = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
CLONE = {
    "apiVersion": "coppice.dev/v1alpha1",
    "kind": "DataClone",
    "metadata": {"name": "db", "namespace": "data", "uid": "new"},
}


def reference(uid, *, kind="DataClone", name="db"):
    return {"apiVersion": "coppice.dev/v1alpha1", "kind": kind, "name": name, "uid": uid}


def service(*references, uid="old", name="db", deleting=False):
    """Return a Service made for a clone with this UID and name."""
    found = {
        labels.OWNER_KIND: "DataClone",
        labels.OWNER_NAMESPACE: "data",
        labels.OWNER_NAME: name,
        labels.OWNER_UID: uid,
    }
    metadata = {"name": "db", "namespace": "data", "labels": found, "ownerReferences": list(references)}
    if deleting:
        metadata["deletionTimestamp"] = "2026-03-02T09:00:00Z"
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata}


@pytest.mark.parametrize(
    ("present", "reason", "stalled"),
    [
        (service(reference("old")), "Leftover", False),
        (service(reference("old"), reference("old", name="other")), "Leftover", False),
        (service(deleting=True), "Leftover", False),
        # Kubernetes collects nothing without an owner, nor what another one needs; neither does the sweep.
        (service(), "NameConflict", True),
        (service(reference("other", kind="Deployment")), "NameConflict", True),
        (service(reference("other", name="other")), "NameConflict", True),
        (service(reference("other", name="other"), name="other"), "NameConflict", True),
        (service(reference("new"), uid="new", deleting=True), "BeingDeleted", False),
        (service(reference("new"), uid="new"), None, None),
    ],
)
def test_what_is_in_the_way_and_whether_it_goes_by_itself(present, reason, stalled):
    fact = Draft(CLONE, NOW).make_once({}, present, "Ready")
    assert (fact and fact.reason, fact and fact.stalled) == (reason, stalled)


def test_what_was_kept_of_a_deleted_object_is_said_with_the_command_that_removes_it():
    fact = Draft(CLONE, NOW).make_once({}, service(), "Ready")
    assert fact is not None
    assert "kubectl delete service db -n data" in fact.message
    assert fact.retry_after is not None
    assert fact.retry_after >= 60
