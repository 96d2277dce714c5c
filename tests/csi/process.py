"""The driver as users run it: a process of its own, spoken to over its socket."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from coppice.csi.pool import PoolSettings

_COMMAND = (sys.executable, "-c", "from coppice.csi.main import csi; csi()")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    """Wait for a condition; a limit only so that a failure ends."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


@dataclass
class DriverProcess:
    """A driver process; `start` waits until it serves."""

    settings: PoolSettings
    directory: Path
    options: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def socket(self) -> Path:
        return self.directory / "csi.sock"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def start(self) -> None:
        self.directory.mkdir(exist_ok=True)
        arguments = (
            *("--endpoint", f"unix://{self.socket}", "--node-id", "node-1", "--pool-sparse"),
            *("--pool", str(self.settings.directory), "--pool-size", str(self.settings.size)),
            *("--pool-reserve", str(self.settings.reserve), *self.options),
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        with self.log.open("ab") as log:
            served = self.log.stat().st_size
            self.process = subprocess.Popen([*_COMMAND, *arguments], env=environment, stdout=log, stderr=log)
        until(lambda: self._serves(served))

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """End in order; the exit code."""
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        assert self.process is not None
        return self.process.wait()

    def _serves(self, log_start: int) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return b"serving at" in self.log.read_bytes()[log_start:]

    def _end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait()
