"""`coppice operator` as a process: it becomes ready, logs JSON, and ends when told."""

import asyncio
import json
import signal
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SECONDS = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def status(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}") as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.fixture
async def process(cluster, tmp_path):
    (tmp_path / "kubeconfig").write_text(cluster.kubeconfig())
    port = free_port()
    environment = {
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(tmp_path / "kubeconfig"),
        "COPPICE_IDENTITY": "pod-a",
        "COPPICE_METRICS_PORT": str(free_port()),
        "COPPICE_PROBES_PORT": str(port),
    }
    command = [sys.executable, "-m", "coppice", "operator"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    process.port = port
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()


async def until(condition):
    async with asyncio.timeout(SECONDS):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.1)


def lease(cluster):
    path = "/apis/coordination.k8s.io/v1/namespaces/coppice-system/leases/coppice-operator"
    return cluster.request("GET", path).body.get("spec", {})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_leads_works_and_ends_when_told(cluster, process, number):
    await until(lambda: lease(cluster).get("holderIdentity") == "pod-a")
    await until(lambda: status(process.port, "/readyz") == 200)
    assert status(process.port, "/healthz") == 200
    process.send_signal(number)
    _, output = await process.communicate()
    assert process.returncode == 0
    assert lease(cluster)["holderIdentity"] == ""
    lines = [json.loads(line) for line in output.decode().splitlines()]
    assert "leading" in {line["message"] for line in lines}
    assert [line for line in lines if line["level"] not in {"info", "warning"}] == []


async def test_it_ends_while_it_waits_for_the_lease(cluster, process):
    taken = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "coppice-operator", "namespace": "coppice-system"},
        "spec": {"holderIdentity": "another", "leaseDurationSeconds": 600},
    }
    path = "/apis/coordination.k8s.io/v1/namespaces/coppice-system/leases/coppice-operator?fieldManager=test&force=true"
    assert cluster.request("APPLY", path, taken).ok
    await until(lambda: status(process.port, "/readyz") == 200)
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0
    assert lease(cluster)["holderIdentity"] == "another"
    cluster.request("DELETE", path.partition("?")[0])


async def test_a_lost_lease_ends_it_at_once_with_an_error(cluster, process):
    await until(lambda: lease(cluster).get("holderIdentity") == "pod-a")
    path = "/apis/coordination.k8s.io/v1/namespaces/coppice-system/leases/coppice-operator"
    assert cluster.request("PATCH", path, {"spec": {"holderIdentity": "another"}}).ok
    _, output = await process.communicate()
    assert process.returncode == 1
    assert "held by another: ending at once" in output.decode().splitlines()[-1]
    cluster.request("DELETE", path)


async def test_without_credentials_it_says_so(tmp_path):
    environment = {"PYTHONPATH": str(ROOT / "operator"), "KUBECONFIG": str(tmp_path / "none")}
    command = [sys.executable, "-m", "coppice", "operator"]
    process = await asyncio.create_subprocess_exec(*command, env=environment, stderr=asyncio.subprocess.PIPE)
    _, output = await process.communicate()
    assert process.returncode == 1
    assert "set KUBECONFIG" in output.decode()
