"""Where figures are taken: a store with as much data as asked for, a namespace that has its owners' grant, a prober."""

from __future__ import annotations

import asyncio
import copy
import sys
from base64 import b64decode
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from coppice.core import labels
from coppice.core.plan import Ref
from e2e.bench import prober as prober_module
from e2e.bench.api import Api, BenchError, both, connect, named, ready
from e2e.bench.prober import Login, Prober
from e2e.suite.kube import Kube
from e2e.suite.manifests import data_clone, data_grant, data_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from e2e.bench.api import Manifest
    from e2e.harness.cluster import Cluster

STORE: Final = "store"
MEGABYTES: Final = {"10MB": 10, "1GB": 1024}
QUESTION: Final = "SELECT COUNT(*) FROM item WHERE id < 100"
"""What is asked of a new server: some rows of the data, and no more of them for more data."""

_ROWS_OF_MEGABYTE: Final = 1000
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

    cluster: Cluster
    api: Api
    prober: Prober
    owners: str
    preview: str

    async def store_login(self) -> Login:
        """Return how to use the store as its administrator."""
        secret = await self.api.client.get("Secret", f"{STORE}-admin", self.owners)
        service = await self.api.client.get("Service", STORE, self.owners)
        if secret is None or service is None:
            raise BenchError(f"the store in {self.owners} has no Secret or no Service")
        password = decoded(secret)["admin-password"]
        status = await self.api.client.get("DataStore", STORE, self.owners)
        database = (status or {})["status"]["databases"][0]
        return Login(service["spec"]["clusterIP"], "root", password, database)

    async def clone(self, namespace: str, name: str) -> Manifest:
        """Apply a clone of the store's main branch."""
        owners = self.owners if namespace != self.owners else None
        return await self.api.create(data_clone(name, namespace, store=STORE, owners=owners))

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


@asynccontextmanager
async def open_lab(cluster: Cluster, size: str, *, keep: bool) -> AsyncIterator[Lab]:
    """Set up a lab, or take up the one that an earlier run kept; ``keep`` leaves it for the next run."""
    owners, preview = f"bench-{size.lower()}", f"bench-{size.lower()}-preview"
    kube = Kube(cluster)
    for name in (owners, preview):
        kube.make_namespace(name)
    try:
        async with connect(cluster.kubeconfig) as api:
            await api.watch(owners, _WATCHED)
            await api.watch(preview, _WATCHED)
            async with prober_module.run(cluster, api, owners, kube.operator_image()) as prober:
                lab = Lab(cluster, api, prober, owners, preview)
                await _fill(lab, kube, MEGABYTES[size])
                yield lab
    finally:
        if not keep:
            kube.run("delete", "namespace", owners, preview, "--wait", "--timeout=300s")


async def _fill(lab: Lab, kube: Kube, megabytes: int) -> None:
    """Have a store with data that do not compress, in rows of a kilobyte, as one Dolt commit."""
    size, memory = ("2Gi", "1Gi") if megabytes < 1000 else ("8Gi", "3Gi")
    server = {"storage": {"size": size}, "resources": {"memory": memory, "cpu": "100m"}}
    kube.apply(
        data_store(STORE, lab.owners, managed=server),
        data_grant("previews", lab.owners, store=STORE, to=[lab.preview]),
    )
    await lab.api.until("DataStore", both(named(lab.owners, STORE), ready), "the store is Ready")
    login = await lab.store_login()
    # Ready is the Pod's word; kube-proxy may hear of it later.
    await lab.prober.query(login, "SELECT 1")
    with suppress(BenchError):
        await lab.prober.execute(login, [QUESTION])
        return
    say(f"filling the store with {megabytes} MB")
    await lab.prober.execute(
        login, ["DROP TABLE IF EXISTS filling", "CREATE TABLE filling (id INT PRIMARY KEY, payload VARCHAR(1100))"]
    )
    for first in range(0, megabytes * _ROWS_OF_MEGABYTE, 10 * _ROWS_OF_MEGABYTE):
        rows = min(10 * _ROWS_OF_MEGABYTE, megabytes * _ROWS_OF_MEGABYTE - first)
        await lab.prober.execute(login, _rows(first, rows))
    await lab.prober.execute(login, ["RENAME TABLE filling TO item", "CALL dolt_commit('-Am', 'items')"])


def _rows(first: int, rows: int) -> list[str]:
    """Return the statements for some rows; base64 of 740 random bytes is 1000 characters."""
    numbers = f"WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < {rows})"
    insert = f"INSERT INTO filling {numbers} SELECT id + {first}, TO_BASE64(RANDOM_BYTES(740)) FROM n"  # two numbers
    return ["SET cte_max_recursion_depth = 100000", insert]


async def describe(lab: Lab) -> str:
    """Return what the figures were taken on."""
    version = (await lab.api.raw("/version"))["gitVersion"]
    return f"store of {lab.owners.removeprefix('bench-').upper()}, {lab.cluster.profile} profile, Kubernetes {version}"


def say(line: str) -> None:
    """Tell how far a run is, on standard error: the tables alone are on standard output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


async def settle(seconds: float = 1.0) -> None:
    """Keep one run's end out of the next run's figures."""
    await asyncio.sleep(seconds)
