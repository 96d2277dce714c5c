"""`python -m e2e.bench operator`: the operator alone with thousands of clones.

A real API server and etcd, the real operator as a process, and nothing else of a cluster: a stub gives claims, Pods
and snapshots their final status at once, and the databases answer at once (``programs/alone.py``). So the time is the
operator's and the API server's.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import signal
import sys
import tempfile
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import yaml

from coppice.core import labels
from coppice.engines.base import BranchState, Content
from coppice.reconcile.datasnapshot import Capture
from e2e.bench.api import Api, BenchError, both, connect, named, ready
from e2e.bench.figures import say, table
from e2e.bench.stub import Stub
from e2e.harness import toolchain
from e2e.suite.manifests import data_clone, data_grant, data_snapshot, data_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from e2e.bench.api import Manifest, Seen
    from e2e.harness.settings import Settings

PROGRAM: Final = Path(__file__).parent / "programs" / "alone.py"
ROOT: Final = Path(__file__).parents[2]
OWNERS: Final = "data"
STORE: Final = "shop"
SNAPSHOT: Final = "first"
SNAPSHOT_API: Final = "snapshot.storage.k8s.io/v1"
DRIVER: Final = "driver.example.com"
CONTENT: Final = Content("1.83.2", "shop", "main", ("shop",), (BranchState("shop", "main", "0" * 32, "1" * 32),))
"""What the one snapshot holds; the servers of ``programs/alone.py`` say the same."""
CLONES_OF_NAMESPACE: Final = 10
SERVICE_RANGE: Final = "--service-cluster-ip-range=10.0.0.0/16"
"""The flag for a Service of each clone."""
CREATORS: Final = 8
MADE: Final = ("Secret", "Service", "NetworkPolicy", "PersistentVolumeClaim", "Pod")
"""What a clone has made for it and keeps; its alias of the snapshot comes and goes."""
HANDS: Final = 16
"""As many as the operator has workers."""
IDLE_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 3600.0
_PAUSE_SECONDS: Final = 0.2
_SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Phase:
    """What the operator took for one phase; ``requests`` by verb and resource."""

    name: str
    seconds: float
    cpu_seconds: float
    resident_mib: float
    reconciles: int
    requests: dict[str, int]


class Process:
    """The operator's process and what can be seen of it."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self._process, self._port = process, port

    async def up(self, log: Path) -> None:
        """Wait until it serves its metrics. Raises BenchError if it ends before."""
        while True:
            if self._process.returncode is not None:
                raise BenchError(f"the operator ended: see {log}")
            with suppress(aiohttp.ClientError):
                await self.metrics()
                return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def metrics(self) -> dict[str, float]:
        """Return all samples by name and labels."""
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{self._port}/metrics") as answer:
            text = await answer.text()
        return {f"{name}{{{tags}}}": float(value) for name, tags, value in _SAMPLE.findall(text)}

    @property
    def cpu_seconds(self) -> float:
        """Return the CPU time so far (proc_pid_stat(5): utime and stime)."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def resident_mib(self) -> float:
        """Return the resident memory now."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    async def stop(self) -> None:
        """End it as Kubernetes does."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        await self._process.wait()


@asynccontextmanager
async def operator(kubeconfig: Path, port: int, log: Path) -> AsyncIterator[Process]:
    """Run the operator while the block runs."""
    environment = {
        "PATH": os.environ["PATH"],
        "KUBECONFIG": str(kubeconfig),
        "COPPICE_METRICS_PORT": str(port),
        "COPPICE_PROBES_PORT": str(port + 1),
        "COPPICE_LOG_LEVEL": "warning",
    }
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(PROGRAM), env=environment, stdout=output, stderr=output, cwd=ROOT
        )
        running = Process(process, port)
        try:
            await running.up(log)
            yield running
        finally:
            await running.stop()


class Scale:
    """One run: an API server, a store, and clones of it."""

    def __init__(self, api: Api, count: int) -> None:
        self._api, self._count = api, count
        self.phases: list[Phase] = []
        self._ready: set[str] = set()

    @asynccontextmanager
    async def phase(self, name: str, process: Process, *, since_start: bool = False) -> AsyncIterator[None]:
        """Take the operator's figures over the block; ``since_start`` counts from the process's beginning."""
        before = {} if since_start else await process.metrics()
        cpu, began = (0.0 if since_start else process.cpu_seconds), time.monotonic()
        yield
        seconds = time.monotonic() - began
        gained = {key: int(value - before.get(key, 0.0)) for key, value in (await process.metrics()).items()}
        found = Phase(
            name=name,
            seconds=seconds,
            cpu_seconds=process.cpu_seconds - cpu,
            resident_mib=process.resident_mib,
            reconciles=sum(n for key, n in gained.items() if key.startswith("coppice_reconciles_total{")),
            requests={key: n for key, n in gained.items() if key.startswith("bench_requests_total{") and n},
        )
        self.phases.append(found)
        say(f"  {name}: {found.seconds:.1f} s, {found.cpu_seconds:.1f} s of CPU, {found.resident_mib:.0f} MiB")

    async def prepare_namespaces(self) -> None:
        """Have the namespaces, and the classes of storage."""
        api = self._api
        namespaces = [f"preview-{number:03}" for number in range(-(-self._count // CLONES_OF_NAMESPACE))]
        for name in ("coppice-system", OWNERS, *namespaces):
            metadata = {"name": name, "labels": {"preview": "true"}}
            await api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        for manifest in _classes():
            await api.create(manifest)

    async def prepare_store(self) -> Manifest:
        """Have a store, and a grant for all namespaces; return the store."""
        api = self._api
        await api.create(data_store(STORE, OWNERS))
        grant = data_grant("previews", OWNERS, store=STORE, to=[])
        grant["spec"]["to"] = {"namespaceSelector": {"matchLabels": {"preview": "true"}}}
        await api.create(grant)
        store = await api.until("DataStore", both(named(OWNERS, STORE), ready), "the store is Ready")
        return store.manifest

    async def prepare_snapshot(self, store: Manifest) -> None:
        """Make a snapshot as it stands when it is prepared: there is no kubelet here that could prepare it.

        No operator may run meanwhile: it would begin to prepare it.
        """
        content = await self._api.create(_content())
        identity = {"apiVersion": SNAPSHOT_API, "kind": content["kind"], "metadata": {"name": SNAPSHOT}}
        status = {"readyToUse": True, "snapshotHandle": "handle"}
        await self._api.client.apply({**identity, "status": status}, manager="stub", subresource="status")
        snapshot = await self._api.create(data_snapshot(SNAPSHOT, OWNERS, store=STORE))
        capture = Capture(
            store_uid=store["metadata"]["uid"],
            engine="dolt",
            version="1.83",
            captured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            capacity="1Gi",
            content=CONTENT,
        )
        await self._api.create(_prepared(snapshot["metadata"]["uid"], capture))

    async def prepared(self) -> None:
        """Wait until the snapshot can be used."""
        await self._api.until("DataSnapshot", both(named(OWNERS, SNAPSHOT), ready), "the snapshot is Ready")

    async def create_clones(self) -> None:
        """Ask for all clones, and wait until all are Ready."""
        numbers = iter(range(self._count))

        async def create() -> None:
            for number in numbers:
                where = f"preview-{number // CLONES_OF_NAMESPACE:03}"
                name = f"db-{number % CLONES_OF_NAMESPACE}"
                await self._api.create(data_clone(name, where, store=STORE, owners=OWNERS))

        await asyncio.gather(*(create() for _ in range(CREATORS)))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self._ready) < self._count:
            if time.monotonic() > deadline:
                raise BenchError(f"only {len(self._ready)} of {self._count} clones are Ready")
            await asyncio.sleep(_PAUSE_SECONDS)

    async def models(self) -> list[Manifest]:
        """Return what one clone had made for it, as anybody could make it."""
        [clone] = [found for found in await self._api.client.list("DataClone", "preview-000") if _is_first(found)]
        mine = {labels.OWNER_UID: clone["metadata"]["uid"]}
        found = [entry for kind in MADE for entry in await self._api.client.list(kind, "preview-000", mine)]
        return [_bare(entry) for entry in found]

    async def make_by_hand(self, models: list[Manifest]) -> None:
        """Make the same objects for as many clones, and remove what a clone has removed."""
        numbers = iter(range(self._count))

        async def make() -> None:
            for number in numbers:
                place = {"name": f"hand-{number}", "namespace": f"preview-{number // CLONES_OF_NAMESPACE:03}"}
                alias = [await self._api.create(entry) for entry in _alias(place)]
                for position, model in enumerate(models):
                    metadata = {**place, "name": f"{place['name']}-{position}"}
                    await self._api.create({**model, "metadata": metadata})
                for entry in reversed(alias):
                    await self._api.delete(entry)

        await asyncio.gather(*(make() for _ in range(HANDS)))

    def on_clone(self, seen: Seen) -> None:
        """Take note of a clone that is Ready."""
        if ready(seen):
            self._ready.add(seen.manifest["metadata"]["uid"])

    async def converged(self, process: Process) -> None:
        """Wait until the process has looked at every clone and nothing is due."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            metrics = await process.metrics()
            looked = metrics.get('coppice_clones{state="Ready"}', 0.0)
            if looked >= self._count and metrics["coppice_queue_depth{}"] == 0:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
        raise BenchError("the operator does not come to rest")


def _is_first(clone: Mapping[str, Any]) -> bool:
    return bool(clone["metadata"]["name"] == "db-0")


def _bare(found: Mapping[str, Any]) -> Manifest:
    """Return an object without what makes it this one."""
    own = {"clusterIP", "clusterIPs", "volumeName"}
    bare = {key: value for key, value in found.items() if key not in {"metadata", "status"}}
    if "spec" in bare:
        bare["spec"] = {key: value for key, value in bare["spec"].items() if key not in own}
    return bare


def _alias(place: Mapping[str, str]) -> list[Manifest]:
    """Return how a snapshot of another namespace is named in this one."""
    content = _content()
    content["metadata"] = {"name": place["name"]}
    content["spec"]["volumeSnapshotRef"] = dict(place)
    source = {"source": {"volumeSnapshotContentName": place["name"]}}
    return [content, {"apiVersion": SNAPSHOT_API, "kind": "VolumeSnapshot", "metadata": dict(place), "spec": source}]


def _classes() -> list[Manifest]:
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    return [
        {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": "fast", "annotations": default},
            "provisioner": DRIVER,
        },
        {
            "apiVersion": SNAPSHOT_API,
            "kind": "VolumeSnapshotClass",
            "metadata": {"name": "fast"},
            "driver": DRIVER,
            "deletionPolicy": "Delete",
        },
    ]


def _content() -> Manifest:
    """Return where the backend keeps the one prepared snapshot."""
    return {
        "apiVersion": SNAPSHOT_API,
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": SNAPSHOT},
        "spec": {
            "driver": DRIVER,
            "deletionPolicy": "Retain",
            "source": {"snapshotHandle": "handle"},
            "volumeSnapshotRef": {"name": SNAPSHOT, "namespace": OWNERS},
        },
    }


def _prepared(uid: str, capture: Capture) -> Manifest:
    """Return the prepared VolumeSnapshot of the DataSnapshot with this UID."""
    mine = {
        labels.MANAGED_BY: labels.MANAGER,
        labels.OWNER_KIND: "DataSnapshot",
        labels.OWNER_NAMESPACE: OWNERS,
        labels.OWNER_NAME: SNAPSHOT,
        labels.OWNER_UID: uid,
    }
    annotations = {labels.CONTENT: capture.dump()}
    return {
        "apiVersion": SNAPSHOT_API,
        "kind": "VolumeSnapshot",
        "metadata": {"name": SNAPSHOT, "namespace": OWNERS, "labels": mine, "annotations": annotations},
        "spec": {"source": {"volumeSnapshotContentName": SNAPSHOT}},
    }


async def run(settings: Settings, count: int) -> list[Phase]:
    """Take all figures."""
    apiserver = importlib.import_module("tests.fakes.apiserver")
    binaries = {
        name: str(toolchain.build(toolchain.TOOLS[tool], settings) / name)
        for name, tool in (("etcd", "etcd"), ("kube-apiserver", "kubernetes"))
    }
    log = settings.cache / "bench" / "operator.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as scratch,
        apiserver.run_api_server(binaries, Path(scratch), SERVICE_RANGE) as server,
    ):
        kubeconfig = Path(scratch) / "kubeconfig"
        kubeconfig.write_text(server.kubeconfig())
        definitions = [*(ROOT / "crds").glob("*.yaml"), *(ROOT / "helm/coppice/crds").glob("snapshot.*.yaml")]
        server.install_crds({path.name: yaml.safe_load(path.read_text()) for path in definitions})
        async with connect(kubeconfig) as api:
            return await _phases(api, count, kubeconfig, log)


async def _phases(api: Api, count: int, kubeconfig: Path, log: Path) -> list[Phase]:
    scale, stub = Scale(api, count), Stub(api)
    await stub.start()
    await api.listen("DataClone", scale.on_clone)
    await api.watch(None, ("DataStore", "DataSnapshot"))
    idle = f"{IDLE_SECONDS:.0f} s in which nothing happens"
    await scale.prepare_namespaces()
    async with operator(kubeconfig, 18070, log):
        store = await scale.prepare_store()
    await scale.prepare_snapshot(store)
    async with operator(kubeconfig, 18080, log) as process:
        await scale.prepared()
        async with scale.phase("all clones asked for at once, until all are Ready", process):
            await scale.create_clones()
        await scale.converged(process)
        models = await scale.models()
        async with scale.phase("the same objects made by hand, without the operator", process):
            await scale.make_by_hand(models)
        async with scale.phase(idle, process):
            await asyncio.sleep(IDLE_SECONDS)
    async with operator(kubeconfig, 18090, log) as process:
        async with scale.phase("a new process, until it has looked at all", process, since_start=True):
            await scale.converged(process)
        async with scale.phase(idle, process):
            await asyncio.sleep(IDLE_SECONDS)
    await stub.aclose()
    return scale.phases


def report(count: int, phases: list[Phase]) -> str:
    """Return the table of a run."""
    head = ["phase", "seconds", "operator's CPU", "resident MiB", "reconciles", "requests", "requests for each clone"]
    rows = [head]
    for phase in phases:
        total = sum(phase.requests.values())
        share = f"{phase.cpu_seconds / phase.seconds:.0%}"
        figures = (f"{phase.seconds:.1f}", share, f"{phase.resident_mib:.0f}", str(phase.reconciles), str(total))
        rows.append([phase.name, *figures, f"{total / count:.1f}"])
    return table(f"The operator with {count} clones", rows)
