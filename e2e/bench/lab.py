"""Where figures are taken: a store with as much data as asked for, a namespace that has its owners' grant, a prober."""

from __future__ import annotations

import asyncio
import copy
from base64 import b64decode
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from coppice.core import labels
from coppice.core.plan import Ref
from e2e.bench import prober as prober_module
from e2e.bench.api import Api, BenchError, both, connect, named, ready
from e2e.bench.prober import Login, Prober
from e2e.bench.subjects import STORE
from e2e.suite.kube import Kube
from e2e.suite.manifests import data_clone, data_grant, data_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from e2e.bench.api import Manifest
    from e2e.bench.subjects import Subject
    from e2e.harness.cluster import Cluster

_WATCHED: Final = (
    "Pod",
    "PersistentVolumeClaim",
    "Service",
    "Secret",
    "VolumeSnapshot",
    "DataClone",
    "DataSnapshot",
    "DataStore",
)


@dataclass(frozen=True, slots=True)
class Prepared:
    """What clones are made from: the prepared snapshot, and a server's Pod as Coppice makes it of that snapshot."""

    snapshot: str
    restore_size: str
    handle: str
    driver: str
    pod_spec: Manifest


@dataclass(frozen=True, slots=True)
class Lab:
    """A store and those who take clones of it: ``owners`` is the store's namespace, ``preview`` another one."""

    subject: Subject
    cluster: Cluster
    api: Api
    prober: Prober
    owners: str
    preview: str

    async def kubectl(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return what it prints, while the watches go on."""
        return await asyncio.to_thread(self.cluster.run_kubectl, *words, stdin=stdin)

    async def store_login(self) -> Login:
        """Return how to use the store as its administrator."""
        secret = await self.api.client.get("Secret", f"{STORE}-admin", self.owners)
        service = await self.api.client.get("Service", STORE, self.owners)
        if secret is None or service is None:
            raise BenchError(f"the store in {self.owners} has no Secret or no Service")
        password = decoded(secret)["admin-password"]
        status = await self.api.client.get("DataStore", STORE, self.owners)
        database = (status or {})["status"]["databases"][0]
        return Login(service["spec"]["clusterIP"], self.subject.admin, password, database, self.subject.port)

    async def clone(self, namespace: str, name: str) -> Manifest:
        """Apply a clone of the store's main branch."""
        owners = self.owners if namespace != self.owners else None
        source = self.subject.source
        return await self.api.create(data_clone(name, namespace, store=STORE, owners=owners, source=source))

    async def prepared(self) -> Prepared:
        """Make a clone and return what it was made of and as; by it the next ones have a prepared snapshot."""
        clone = await self.clone(self.owners, "template")
        await self.api.until("DataClone", both(named(self.owners, "template"), ready), "the template is Ready")
        found = await self.prepared_for(clone)
        await self.remove_clone(clone)
        return found

    async def prepared_for(self, clone: Manifest) -> Prepared:
        """Return what a clone that is Ready was made of and as."""
        metadata = clone["metadata"]
        status = ((await self.api.client.get("DataClone", metadata["name"], metadata["namespace"])) or {})["status"]
        snapshot = await self.api.client.get("DataSnapshot", status["snapshot"]["name"], self.owners)
        prepared = (snapshot or {})["status"]["prepared"]
        made = await self.api.client.get("VolumeSnapshot", prepared["volumeSnapshotName"], self.owners)
        content = await self.api.client.get(
            "VolumeSnapshotContent", (made or {})["status"]["boundVolumeSnapshotContentName"]
        )
        [pod] = await self.api.client.list("Pod", metadata["namespace"], {labels.OWNER_UID: metadata["uid"]})
        spec = copy.deepcopy(dict(pod["spec"]))
        del spec["nodeName"]
        return Prepared(
            snapshot=prepared["volumeSnapshotName"],
            restore_size=prepared["restoreSize"],
            handle=(content or {})["status"]["snapshotHandle"],
            driver=(content or {})["spec"]["driver"],
            pod_spec=spec,
        )

    async def remove_clone(self, clone: Manifest) -> None:
        """Delete a clone and wait until nothing of it is left."""
        await self.api.delete(clone)
        uid = clone["metadata"]["uid"]
        await self.api.gone("DataClone", lambda found: found["metadata"]["uid"] == uid)
        for kind in ("Pod", "PersistentVolumeClaim"):
            await self.api.gone(
                kind, lambda found: (found["metadata"].get("labels") or {}).get(labels.OWNER_UID) == uid
            )

    async def remove_snapshots(self) -> None:
        """Delete all snapshots of the store and wait until nothing of them is left."""
        for snapshot in await self.api.client.list("DataSnapshot", self.owners):
            await self.api.client.delete(Ref.of(snapshot))
        await self.api.gone("DataSnapshot", lambda _: True)
        await self.api.gone("VolumeSnapshot", lambda found: found["metadata"]["namespace"] == self.owners)


def decoded(secret: Any) -> dict[str, str]:
    """Return a Secret's values as text."""
    return {key: b64decode(value).decode() for key, value in secret["data"].items()}


def build_client(name: str, server: Mapping[str, Any], **more: Any) -> Manifest:
    """Return a Pod that waits for programs to be run in it, with a PostgreSQL server's own image; ``more`` is of its
    container.
    """
    container = {
        "name": name,
        "image": server["spec"]["containers"][0]["image"],
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sh", "-c", "trap 'exit 0' TERM; sleep 86400 & wait"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **more,
    }
    security = {"runAsNonRoot": True, "runAsUser": 999, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": server["metadata"]["namespace"]},
        "spec": {"terminationGracePeriodSeconds": 0, "securityContext": security, "containers": [container]},
    }


@asynccontextmanager
async def open_lab(cluster: Cluster, subject: Subject, *, keep: bool) -> AsyncIterator[Lab]:
    """Set up a lab, or take up the one that an earlier run kept; ``keep`` leaves it for the next run."""
    owners, preview = subject.name, f"{subject.name}-preview"
    kube = Kube(cluster)
    for name in (owners, preview):
        kube.make_namespace(name)
    try:
        async with connect(cluster.kubeconfig) as api:
            await api.watch(owners, _WATCHED)
            await api.watch(preview, _WATCHED)
            async with prober_module.run(cluster, api, owners, kube.operator_image()) as prober:
                lab = Lab(subject, cluster, api, prober, owners, preview)
                await _fill(lab, kube)
                yield lab
    finally:
        if not keep:
            kube.run("delete", "namespace", owners, preview, "--wait", "--timeout=300s")


async def _fill(lab: Lab, kube: Kube) -> None:
    """Have a store with the data that the lab is about."""
    kube.apply(
        data_store(STORE, lab.owners, engine=lab.subject.engine, managed=lab.subject.managed, **lab.subject.terms),
        data_grant("previews", lab.owners, store=STORE, to=[lab.preview]),
    )
    await lab.api.until("DataStore", both(named(lab.owners, STORE), ready), "the store is Ready")
    login = await lab.store_login()
    # Ready is the Pod's word; kube-proxy may hear of it later.
    await lab.prober.query(login, "SELECT 1")
    await lab.subject.fill(lab, login)


async def describe(lab: Lab) -> str:
    """Return what the figures were taken on."""
    version = (await lab.api.raw("/version"))["gitVersion"]
    return f"{lab.subject.engine} store of {lab.subject.size}, {lab.cluster.profile} profile, Kubernetes {version}"


async def settle(seconds: float = 1.0) -> None:
    """Keep one run's end out of the next run's figures."""
    await asyncio.sleep(seconds)
