"""The whole runtime, kopf included, against a real API server."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from kubernetes.aio.client import Configuration
from tests.fakes.apiserver import ApiServer
from tests.unit.runtime.builders import CloneReconciler, clone

from coppice.core.plan import Ref
from coppice.crdgen import crd_manifests
from coppice.kube.aio import AioKubeClient
from coppice.runtime.app import run_operator
from coppice.runtime.settings import Settings

SECONDS = 60


@pytest.fixture(scope="session")
def cluster(api_server: ApiServer) -> ApiServer:
    api_server.install_crds(crd_manifests())
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "coppice-system"}}
    api_server.request("POST", "/api/v1/namespaces", body)
    return api_server


@pytest.fixture
def namespace(cluster: ApiServer) -> str:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}}
    return cluster.request("POST", "/api/v1/namespaces", body).body["metadata"]["name"]


@pytest.fixture
async def client(cluster: ApiServer, tmp_path, monkeypatch):
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    configuration = Configuration(host=cluster.url, ssl_ca_cert=str(cluster.ca_file))
    configuration.api_key["BearerToken"] = f"Bearer {cluster.token}"
    client = AioKubeClient(configuration)
    yield client
    await client.aclose()


@asynccontextmanager
async def running(identity="a"):
    """The operator, until the block ends; yields it with its ports."""
    ready, stop = asyncio.get_running_loop().create_future(), asyncio.Event()
    settings = Settings(identity=identity, metrics_port=0, probes_port=0)
    task = asyncio.create_task(
        run_operator(
            settings,
            reconcilers=[CloneReconciler()],
            engines={},
            stop=stop,
            started=lambda operator, *ports: ready.set_result((operator, *ports)),
        )
    )
    try:
        yield await ready
    finally:
        stop.set()
        await task


async def until(condition):
    """Wait for what must come true."""
    async with asyncio.timeout(SECONDS):
        while not (found := await condition()):  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.02)
        return found


def is_ready(client, namespace):
    async def check():
        found = await client.get("DataClone", "db", namespace)
        conditions = (found.get("status") or {}).get("conditions", ())
        return found if any(entry["status"] == "True" for entry in conditions) else None

    return check


def applied_clone(namespace):
    source = {"store": {"name": "shop"}, "branch": "main"}
    return clone(namespace=namespace, **{"from": source})


async def test_a_clone_becomes_ready_and_goes(client, namespace):
    async with running():
        made = await client.create(applied_clone(namespace))
        found = await until(is_ready(client, namespace))
        assert found["status"]["observedGeneration"] == 1
        assert found["metadata"]["finalizers"] == ["coppice.dev/cleanup"]
        assert "annotations" not in found["metadata"]
        await client.delete(Ref.of(made))

        async def is_gone():
            return await client.get("DataClone", "db", namespace) is None

        await until(is_gone)


async def test_a_deleted_child_comes_back(client, namespace):
    async with running():
        await client.create(applied_clone(namespace))
        await until(is_ready(client, namespace))
        before = await client.get("Secret", "db", namespace)
        await client.delete(Ref.of(before))

        async def is_back():
            found = await client.get("Secret", "db", namespace)
            return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

        await until(is_back)


async def test_what_happened_while_nobody_ran_is_made_up_for(client, namespace):
    await client.create(applied_clone(namespace))
    async with running():
        await until(is_ready(client, namespace))


async def test_one_leads_and_the_other_takes_over_at_once(client, namespace):
    async with running("first"), running("second") as (_, _, probes):
        async with aiohttp.ClientSession() as session:
            for path in ("healthz", "readyz"):
                async with session.get(f"http://127.0.0.1:{probes}/{path}") as response:
                    assert response.status == 200
        lease = await client.get("Lease", "coppice-operator", "coppice-system")
        assert lease["spec"]["holderIdentity"] == "first"
    async with running("third"):
        await client.create(applied_clone(namespace))
        await until(is_ready(client, namespace))


async def test_events_metrics_and_probes(cluster, client, namespace):
    async with running() as (_, metrics, probes), aiohttp.ClientSession() as session:
        await client.create(applied_clone(namespace))
        await until(is_ready(client, namespace))

        async def reported():
            path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
            return cluster.request("GET", path).body["items"]

        (event,) = await until(reported)
        assert (event["reason"], event["type"], event["regarding"]["name"]) == ("Ready", "Normal", "db")
        async with session.get(f"http://127.0.0.1:{metrics}/metrics") as response:
            text = await response.text()
        assert 'coppice_clone_step_seconds_count{step="total"} 1.0' in text
        assert 'coppice_clones{state="Ready"}' in text
        assert 'coppice_reconciles_total{kind="DataClone",outcome="done"}' in text
        for path in ("healthz", "readyz"):
            async with session.get(f"http://127.0.0.1:{probes}/{path}") as response:
                assert (response.status, await response.text()) == (200, "ok")
