"""Runs an engine's workloads as plain processes: what a Pod would do, without a cluster.

A volume and a run directory are temporary directories, a copy of a running server's volume is taken while the server is stopped between two
instructions (SIGSTOP): for the files that is what an atomic volume snapshot is.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.engines.base import Endpoint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from coppice.engines.base import Workload

PATIENCE = 60
"""Seconds after which a test gives up; no test measures time."""
REASON = "termination-log"


@dataclass(frozen=True)
class Outcome:
    code: int
    output: str
    errors: str
    reason: str
    """What kubelet hands on."""

    @property
    def last_line(self) -> str:
        return self.output.splitlines()[-1]


@dataclass
class Server:
    """A running server process."""

    process: asyncio.subprocess.Process
    port: int
    secret: Mapping[str, str]
    log: Path

    def endpoint(self, username: str, password: str) -> Endpoint:
        return Endpoint("127.0.0.1", self.port, username, password)

    def send(self, number: int) -> None:
        """Signal the server and whatever it has started, in sessions of their own too."""
        if self.process.returncode is None:
            send_all(self.process.pid, number)

    async def stop(self, number: int = signal.SIGTERM) -> None:
        """Stop it as kubelet does: the first process is told, or all are killed."""
        if number == signal.SIGKILL:
            self.send(number)
        else:
            self.process.send_signal(number)
        await asyncio.wait_for(self.process.wait(), PATIENCE)


class Runner:
    """Runs workloads with their paths and port mapped to this machine's."""

    def __init__(self, directory: Path, path: str, user: str | None = None) -> None:
        self.directory = directory
        self.path = path
        # PostgreSQL does not run as root, and root may be who runs the tests.
        self._user = pwd.getpwnam(user) if user is not None and os.geteuid() == 0 else None
        self._number = 0
        self._spawned: list[asyncio.subprocess.Process] = []

    def new(self, name: str) -> Path:
        self._number += 1
        made = self.directory / f"{self._number}-{name}"
        made.mkdir(parents=True)
        self.give(made)
        return made

    def give(self, made: Path) -> None:
        """Let the servers' user own a file or directory."""
        if self._user is not None:
            os.chown(made, self._user.pw_uid, self._user.pw_gid)

    @property
    def _as_user(self) -> dict[str, Any]:
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def load(self, files: Mapping[str, bytes]) -> Path:
        directory = self.new("load")
        for name, content in files.items():
            (directory / name).write_bytes(content)
        return directory

    def copy(self, volume: Path, server: Server | None = None) -> Path:
        """Copy a volume as it is at one instant."""
        made = self.new("copy")
        if server:
            server.send(signal.SIGSTOP)
        try:
            subprocess.run(["cp", "-a", "--reflink=auto", f"{volume}/.", str(made)], check=True)
        finally:
            if server:
                server.send(signal.SIGCONT)
        return made

    def environment(
        self, workload: Workload, volume: Path, secret: Mapping[str, str], *, run: Path, port: int, load: Path | None
    ) -> dict[str, str]:
        return {
            "PATH": self.path,
            **workload.environment,
            **{name: secret[key] for name, key in workload.secret_environment.items() if secret},
            "COPPICE_DATA": str(volume),
            "COPPICE_RUN": str(run),
            "COPPICE_LOAD": str(load or "/nonexistent"),
            "COPPICE_REASON": str(run / REASON),
            "COPPICE_HOST": "127.0.0.1",
            "COPPICE_PORT": str(port),
        }

    async def spawn(self, script: str, environment: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
        with log.open("ab") as sink:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh", "-eu", "-c", script, env=environment, stdout=sink, stderr=sink, start_new_session=True,
                **self._as_user,
            )  # fmt: skip
        self._spawned.append(process)
        return process

    def close(self) -> None:
        """Kill what a failed test has left running."""
        for process in self._spawned:
            kill(process)

    async def run(
        self,
        workload: Workload,
        volume: Path,
        secret: Mapping[str, str] | None = None,
        *,
        script: str | None = None,
        load: Path | None = None,
    ) -> Outcome:
        """Run a job, or one of a workload's scripts, to its end."""
        run = self.new("run")
        reason = run / REASON
        reason.touch()
        self.give(reason)
        environment = self.environment(workload, volume, secret or {}, run=run, port=free_port(), load=load)
        process = await asyncio.create_subprocess_exec(
            "/bin/sh", "-eu", "-c", script or workload.script, env=environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, start_new_session=True, **self._as_user,
        )  # fmt: skip
        try:
            output, errors = await asyncio.wait_for(process.communicate(), PATIENCE)
        finally:
            kill(process)
        assert process.returncode is not None
        return Outcome(process.returncode, output.decode(), errors.decode(), reason.read_text())

    @asynccontextmanager
    async def serving(
        self,
        workload: Workload,
        volume: Path,
        secret: Mapping[str, str],
        *,
        load: Path | None = None,
        run: Path | None = None,
        port: int | None = None,
    ) -> AsyncIterator[Server]:
        """Load and start a server, wait until it listens, kill it at the end if it is still there."""
        if workload.load_script:
            loaded = await self.run(workload, volume, script=workload.load_script, load=load)
            assert loaded.code == 0, loaded.errors
        run, port = run or self.new("run"), port or free_port()
        environment = self.environment(workload, volume, secret, run=run, port=port, load=load)
        log = self.directory / f"{run.name}.log"
        server = Server(await self.spawn(workload.script, environment, log), port, secret, log)
        try:
            await self._wait(workload, environment, server)
            yield server
        finally:
            server.send(signal.SIGKILL)
            await server.process.wait()
            for dead in ("mysql.sock",):
                (run / dead).unlink(missing_ok=True)

    async def _wait(self, workload: Workload, environment: Mapping[str, str], server: Server) -> None:
        assert workload.wait_script
        waiter = await self.spawn(workload.wait_script, environment, server.log)
        ended = [asyncio.ensure_future(waiter.wait()), asyncio.ensure_future(server.process.wait())]
        try:
            await asyncio.wait(ended, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            assert waiter.returncode == 0, f"the server does not listen: {server.log.read_text()[-2000:]}"
        finally:
            for future in ended:
                future.cancel()
            if kill(waiter):
                await waiter.wait()


def kill(process: asyncio.subprocess.Process) -> bool:
    """Kill a script and all it has started; return whether it was still running."""
    if process.returncode is not None:
        return False
    send_all(process.pid, signal.SIGKILL)
    return True


def send_all(process: int, number: int) -> None:
    """Signal a process and all that came from it, until no new one is found: the first one is told first.

    Who is to be killed is stopped before: what a process starts after somebody has looked is nobody's when it is dead.
    All have ended then, as in a container that has: an orphan would still have its files, and locks on them.
    """
    told: set[int] = set()
    first = signal.SIGSTOP if number == signal.SIGKILL else number
    while new := [found for found in _family(process) if found not in told]:
        _send(new, first)
        told.update(new)
    if number == signal.SIGKILL:
        _send(told, number)
        deadline = time.monotonic() + PATIENCE
        while any(_runs(found) for found in told) and time.monotonic() < deadline:
            time.sleep(0.001)


def _send(processes: Iterable[int], number: int) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, number)


def _runs(process: int) -> bool:
    """Return whether a process is there, and more than what its parent has yet to ask for."""
    with suppress(OSError):
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        # Its first thread may have ended before the others.
        return state != "Z" or len(os.listdir(f"/proc/{process}/task")) > 1  # noqa: PTH208 - as the kernel has it
    return False


def _family(process: int) -> list[int]:
    found = [process]
    for member in found:
        with suppress(OSError):
            found.extend(int(child) for child in Path(f"/proc/{member}/task/{member}/children").read_text().split())
    return found


def files(volume: Path) -> set[str]:
    """Return the files of a volume that somebody may be changing."""
    return {os.path.join(directory, name) for directory, _, names in os.walk(volume) for name in names}  # noqa: PTH118


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something that nobody announces."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - what is outside of this process signals nobody
            await asyncio.sleep(0.001)


def environment_of(process: int) -> str:
    return Path(f"/proc/{process}/environ").read_text()


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """Return a port that is free, and the next one as well: a server's second port, on which it listens everywhere.

    They are below those that the kernel gives to connections, one of which might come between.
    """
    while True:
        port = random.randrange(10000, 32000)
        with socket.socket() as probe, socket.socket() as second, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            second.bind(("", port + 1))
            return port


def search_path(variable: str, program: str) -> str | None:
    """Return a PATH on which a program is found, by its own environment variable or the usual one; None if it is nowhere."""
    named = os.environ.get(variable)
    path = os.pathsep.join(filter(None, [str(Path(named).parent) if named else "", os.environ.get("PATH", "")]))
    return path if shutil.which(program, path=path) else None
