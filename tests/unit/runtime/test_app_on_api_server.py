"""The whole runtime, kopf included, against a real API server."""

import pytest
from kubernetes.aio.client import Configuration
from tests.fakes.apiserver import ApiServer
from tests.unit.runtime.builders import clone
from tests.unit.runtime.process import running

from coppice.core.plan import Ref
from coppice.kube.aio import AioKubeClient


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
    async with running() as operator:
        made = await client.create(applied_clone(namespace))
        found = await operator.until(is_ready(client, namespace))
        assert found["status"]["observedGeneration"] == 1
        assert found["metadata"]["finalizers"] == ["coppice.dev/cleanup"]
        assert "annotations" not in found["metadata"]
        await client.delete(Ref.of(made))

        async def is_gone():
            return await client.get("DataClone", "db", namespace) is None

        await operator.until(is_gone)


async def test_a_deleted_child_comes_back(client, namespace):
    async with running() as operator:
        await client.create(applied_clone(namespace))
        await operator.until(is_ready(client, namespace))
        before = await client.get("Secret", "db", namespace)
        await client.delete(Ref.of(before))

        async def is_back():
            found = await client.get("Secret", "db", namespace)
            return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

        await operator.until(is_back)


async def test_what_happened_while_nobody_ran_is_made_up_for(client, namespace):
    await client.create(applied_clone(namespace))
    async with running() as operator:
        await operator.until(is_ready(client, namespace))


def holds_the_lease(client, identity):
    async def holds():
        found = await client.get("Lease", "coppice-operator", "coppice-system")
        return found is not None and found["spec"].get("holderIdentity") == identity

    return holds


async def test_one_leads_and_the_other_takes_over_at_once(client, namespace):
    async with running(identity="first") as first:
        await first.until(holds_the_lease(client, "first"))
        async with running(identity="second") as second:
            for path in ("/healthz", "/readyz"):
                assert await second.probe(path) == (200, "ok")
            assert await holds_the_lease(client, "first")()
            await client.create(applied_clone(namespace))
            await first.stopped()
            await second.until(is_ready(client, namespace))
            assert await holds_the_lease(client, "second")()


async def test_events_metrics_and_probes(cluster, client, namespace):
    async with running() as operator:
        await client.create(applied_clone(namespace))
        await operator.until(is_ready(client, namespace))

        def reported():
            path = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
            return cluster.request("GET", path).body["items"]

        (event,) = await operator.until(reported)
        assert (event["reason"], event["type"], event["regarding"]["name"]) == ("Ready", "Normal", "db")
        text = await operator.metrics()
        assert 'coppice_clone_step_seconds_count{step="total"} 1.0' in text
        assert 'coppice_clones{state="Ready"}' in text
        assert 'coppice_reconciles_total{kind="DataClone",outcome="done"}' in text
        assert await operator.probe("/healthz") == (200, "ok")

        async def is_ready_itself():
            return await operator.probe("/readyz") == (200, "ok")

        await operator.until(is_ready_itself)
