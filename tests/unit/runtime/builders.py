"""A reconciler small enough to read at a glance: a clone has a Secret, and is Ready with it."""

from dataclasses import dataclass
from datetime import UTC, datetime

from coppice.core import labels
from coppice.core.plan import Event, Plan
from coppice.manifests.meta import Owner, build_metadata

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def clone(name="db", namespace="app", **spec):
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "coppice.dev/v1alpha1", "kind": "DataClone", "metadata": metadata, "spec": spec}


def secret(owner, name=None, **data):
    metadata = build_metadata(name or owner["metadata"]["name"], Owner.of(owner))
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def ready(status, reason, message=""):
    return {"type": "Ready", "status": status, "reason": reason, "message": message}


@dataclass(frozen=True)
class CloneObservation:
    manifest: dict
    now: datetime
    secret: dict | None


class CloneReconciler:
    kind = "DataClone"

    async def observe(self, reader, key, now):
        manifest = await reader.get(key.kind, key.name, key.namespace)
        if manifest is None:
            return None
        return CloneObservation(manifest, now, await reader.get("Secret", key.name, key.namespace))

    def plan(self, observation):
        manifest = observation.manifest
        if "deletionTimestamp" in manifest["metadata"]:
            return Plan(remove_finalizer=True)
        if observation.secret is None:
            status = {"conditions": [ready("False", "Pending")]}
            return Plan(add_finalizer=True, create=(secret(manifest, password="eA=="),), status=status)
        status = {"conditions": [ready("True", "Made")], "binding": {"name": observation.secret["metadata"]["name"]}}
        return Plan(status=status, events=(Event("Ready", "the clone is ready"),))

    def failed(self, observation, error):
        status = {"conditions": [ready("False", type(error).__name__, str(error))]}
        return Plan(status=status, events=(Event("Refused", "see the condition", "Warning"),))


class Recorder:
    def __init__(self):
        self.events = []

    def record(self, manifest, event):
        self.events.append((manifest["metadata"]["name"], event.reason))


def converged(kube, name="db", namespace="app"):
    """What a user sees in the end, without times and versions."""
    manifest = kube.peek("DataClone", namespace, name)
    found = kube.peek("Secret", namespace, name)
    assert manifest is not None
    assert found is not None
    return (
        manifest["metadata"]["finalizers"],
        [(entry["type"], entry["status"], entry["reason"]) for entry in manifest["status"]["conditions"]],
        manifest["status"]["binding"],
        found["data"],
        found["metadata"]["labels"][labels.OWNER_UID] == manifest["metadata"]["uid"],
    )
