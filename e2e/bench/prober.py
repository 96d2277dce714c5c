"""The prober's other half: a Pod in the cluster that runs ``programs/prober.py``, and what is asked of it."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from e2e.bench.api import BenchError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from e2e.bench.api import Api, Manifest
    from e2e.harness.cluster import Cluster

PROGRAM: Final = Path(__file__).parent / "programs" / "prober.py"
NAME: Final = "prober"
EVERY_SECONDS: Final = 0.02
PATIENCE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Login:
    """A server and somebody who may use it."""

    host: str
    user: str
    password: str
    database: str | None = None
    port: int = 3306


class Prober:
    """Waits for servers; all moments are by the clock of the machine that the cluster runs on."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._asked = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}

    async def greeting(self, host: str, port: int = 3306, *, every: float = EVERY_SECONDS) -> float:
        """Return when a server behind a Service first said anything."""
        return float((await self._ask({"what": "greeting", "host": host, "port": port, "every": every}))["at"])

    async def query(self, login: Login, statement: str, *, every: float = EVERY_SECONDS) -> float:
        """Return when a statement was first answered."""
        told = await self._ask({"what": "query", **_of(login), "statements": [statement], "every": every})
        return float(told["at"])

    async def execute(self, login: Login, statements: list[str]) -> list[float]:
        """Run statements in one session, once; return when each was answered."""
        told = await self._ask({"what": "query", **_of(login), "statements": statements, "every": None})
        return list(map(float, told["each"]))

    async def check_clock(self) -> None:
        """Raise BenchError if the cluster's clock is not this machine's: all figures mix the two."""
        before = time.time()
        there = (await self._ask({"what": "clock"}))["at"]
        if not before <= there <= time.time():
            raise BenchError("the cluster's clock is not this machine's: run this on the cluster's machine")

    async def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        if self._process.stdin is None:
            raise BenchError("the prober takes no questions")
        self._asked += 1
        number = self._asked
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._process.stdin.write(json.dumps({**what, "id": number}).encode() + b"\n")
        try:
            return await asyncio.wait_for(answer, PATIENCE_SECONDS)
        except TimeoutError:
            raise BenchError(f"the prober had no answer to {what['what']} from {what.get('host')}") from None
        finally:
            del self._waiting[number]

    async def listen(self) -> None:
        """Hand out answers until the prober ends."""
        if self._process.stdout is None:
            raise BenchError("the prober gives no answers")
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            waiting = self._waiting.get(told["id"])
            if waiting is None or waiting.done():
                continue
            if "error" in told:
                waiting.set_exception(BenchError(f"the prober failed: {told['error']}"))
            else:
                waiting.set_result(told)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(BenchError("the prober ended; see its standard error above"))


def _of(login: Login) -> dict[str, Any]:
    return {
        "host": login.host,
        "port": login.port,
        "user": login.user,
        "password": login.password,
        "database": login.database,
    }


def build_pod(namespace: str, image: str) -> Manifest:
    """Return the Pod: the operator's image, which has Python and a MySQL client."""
    container = {
        "name": NAME,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", "import signal; signal.pause()"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"terminationGracePeriodSeconds": 0, "securityContext": security, "containers": [container]},
    }


@asynccontextmanager
async def run(cluster: Cluster, api: Api, namespace: str, image: str) -> AsyncIterator[Prober]:
    """Run a prober while the block runs."""
    pod = await api.client.get("Pod", NAME, namespace) or await api.create(build_pod(namespace, image))
    del pod
    cluster.run_kubectl("wait", "-n", namespace, f"pod/{NAME}", "--for=condition=Ready", "--timeout=120s")
    process = await asyncio.create_subprocess_exec(
        str(cluster.kubectl),
        *("exec", "-i", "-n", namespace, NAME, "--", "python3", "-u", "-c", PROGRAM.read_text(encoding="utf-8")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**cluster.environment},
    )
    prober = Prober(process)
    listening = asyncio.create_task(prober.listen())
    try:
        await prober.check_clock()
        yield prober
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        await listening
