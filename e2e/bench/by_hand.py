"""A clone without Coppice, as somebody who knows all the traps would make it: the baseline.

The same image, script and probe, on a claim from the same prepared snapshot; everything is made as early as it helps
and no earlier (a Pod before its claim is Bound waits in the scheduler's backoff, a claim before its snapshot is ready
in the provisioner's).
"""

from __future__ import annotations

import asyncio
import copy
import secrets
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from coppice.core.plan import Ref
from e2e.bench.api import both, bound, named, ready, restorable
from e2e.bench.lab import decoded
from e2e.bench.prober import EVERY_SECONDS, Login
from e2e.bench.subjects import STORE

if TYPE_CHECKING:
    from e2e.bench.api import Manifest
    from e2e.bench.lab import Lab, Prepared

Laps = dict[str, float]
SNAPSHOT_API: Final = "snapshot.storage.k8s.io/v1"
DATABASE: Final = STORE
"""What a managed store calls its database if nothing else is said."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The objects of one copy."""

    name: str
    namespace: str
    prepared: Prepared
    storage_class: str

    def metadata(self) -> Manifest:
        return {"name": self.name, "namespace": self.namespace, "labels": {"bench": self.name}}

    def claim(self, *, empty: bool = False) -> Manifest:
        source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": self._snapshot}
        spec: Manifest = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": self.storage_class,
            "resources": {"requests": {"storage": self.prepared.restore_size}},
        }
        if not empty:
            spec["dataSourceRef"] = source
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": self.metadata(), "spec": spec}

    @property
    def foreign(self) -> bool:
        return self.namespace.endswith("-preview")

    @property
    def _snapshot(self) -> str:
        return self.name if self.foreign else self.prepared.snapshot

    def secret(self) -> Manifest:
        """Return one password under every key that the Pod asks for."""
        value = b64encode(secrets.token_urlsafe(24).encode()).decode()
        [container] = self.prepared.pod_spec["containers"]
        asked = [entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"] if "valueFrom" in entry]
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self.metadata(),
            "type": "Opaque",
            "immutable": True,
            "data": dict.fromkeys(asked, value),
        }

    def service(self, port: int) -> Manifest:
        spec = {"selector": {"bench": self.name}, "ports": [{"port": port, "targetPort": port}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": self.metadata(), "spec": spec}

    def pod(self, *, command: list[str] | None = None, **more: Any) -> Manifest:
        """Return Coppice's Pod under another name; with a command it runs that, and has no probes."""
        spec = copy.deepcopy(self.prepared.pod_spec)
        [data] = [volume for volume in spec["volumes"] if volume["name"] == "data"]
        data["persistentVolumeClaim"]["claimName"] = self.name
        [container] = spec["containers"]
        for entry in container["env"]:
            if "valueFrom" in entry:
                entry["valueFrom"]["secretKeyRef"]["name"] = self.name
        # Nobody is there who could tell kubelet to look again (``Draft.route``), so it looks often by itself.
        container["readinessProbe"]["periodSeconds"] = 1
        if command is not None:
            container |= {"command": command, **more}
            for probe in ("readinessProbe", "livenessProbe"):
                container.pop(probe, None)
        return {"apiVersion": "v1", "kind": "Pod", "metadata": self.metadata(), "spec": spec}

    def aliases(self) -> list[Manifest]:
        """Return what shows another namespace's snapshot in this one."""
        content = f"bench-{self.namespace}-{self.name}"
        return [
            {
                "apiVersion": SNAPSHOT_API,
                "kind": "VolumeSnapshotContent",
                "metadata": {"name": content},
                "spec": {
                    "driver": self.prepared.driver,
                    "deletionPolicy": "Retain",
                    "source": {"snapshotHandle": self.prepared.handle},
                    "volumeSnapshotRef": {"name": self.name, "namespace": self.namespace},
                },
            },
            {
                "apiVersion": SNAPSHOT_API,
                "kind": "VolumeSnapshot",
                "metadata": {"name": self.name, "namespace": self.namespace},
                "spec": {"source": {"volumeSnapshotContentName": content}},
            },
        ]


async def make(lab: Lab, plan: Plan, *, every: float = EVERY_SECONDS) -> Laps:
    """Make a copy and return when what came, in seconds from the first request."""
    api, name, namespace = lab.api, plan.name, plan.namespace
    started = time.time()
    secret = plan.secret()

    async def storage() -> dict[str, float]:
        if plan.foreign:
            await asyncio.gather(*(api.create(alias) for alias in plan.aliases()))
            await api.until("VolumeSnapshot", both(named(namespace, name), restorable), f"snapshot {name} is ready")
        await api.create(plan.claim())
        claimed = await api.until(
            "PersistentVolumeClaim", both(named(namespace, name), bound), f"claim {name} is Bound"
        )
        await api.create(plan.pod())
        served = await api.until("Pod", both(named(namespace, name), ready), f"Pod {name} is Ready")
        return {"claim bound": claimed.at, "pod ready": served.at}

    async def network() -> dict[str, float]:
        subject = lab.subject
        service, _ = await asyncio.gather(api.create(plan.service(subject.port)), api.create(secret))
        host = service["spec"]["clusterIP"]
        greeted = await lab.prober.greeting(host, subject.port, every=every)
        login = Login(host, subject.admin, decoded(secret)["admin-password"], DATABASE, subject.port)
        return {"greeting": greeted, "query": await lab.prober.query(login, subject.question, every=every)}

    storage_laps, network_laps = await asyncio.gather(storage(), network())
    return {step: at - started for step, at in (storage_laps | network_laps).items()}


async def make_empty(lab: Lab, plan: Plan) -> Laps:
    """Make a Pod that sleeps on an empty claim: what Kubernetes alone takes."""
    api, where = lab.api, named(plan.namespace, plan.name)
    started = time.time()
    await api.create(plan.claim(empty=True))
    claimed = await api.until("PersistentVolumeClaim", both(where, bound), f"claim {plan.name} is Bound")
    await api.create(plan.pod(command=["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"], env=[]))
    served = await api.until("Pod", both(where, ready), f"Pod {plan.name} is Ready")
    return {"claim bound": claimed.at - started, "pod ready": served.at - started}


async def remove(lab: Lab, plan: Plan) -> None:
    """Delete what was made, and wait until it is gone."""
    made = {"Pod": "v1", "Service": "v1", "Secret": "v1", "PersistentVolumeClaim": "v1"}
    if plan.foreign:
        made |= {"VolumeSnapshot": SNAPSHOT_API}
    for kind in made:
        found = await lab.api.client.get(kind, plan.name, plan.namespace)
        if found is not None:
            await lab.api.client.delete(Ref.of(found))
    if plan.foreign:
        content = await lab.api.client.get("VolumeSnapshotContent", f"bench-{plan.namespace}-{plan.name}")
        if content is not None:
            await lab.api.client.delete(Ref.of(content))
    for kind in made:
        await lab.api.gone(
            kind,
            lambda found: (found["metadata"]["namespace"], found["metadata"]["name"]) == (plan.namespace, plan.name),
        )
