"""Programs that stories run beside the cluster never outlive them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.suite.processes import process


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds=10.0):
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "in vain"
        time.sleep(0.02)


def written(path: Path) -> list[int]:
    until(lambda: path.exists() and path.read_text().count("\n") == 2)
    return [int(line) for line in path.read_text().split()]


def test_a_program_and_what_it_started_end_with_the_block(tmp_path: Path):
    script = 'sleep 600 & echo $$ > pids; echo $! >> pids; echo "${GREETING}"; wait'
    with process("shell", ["/bin/sh", "-c", script], tmp_path, {"GREETING": "hello"}):
        pids = written(tmp_path / "pids")
        assert all(map(is_running, pids))
    until(lambda: not any(map(is_running, pids)))
    assert (tmp_path / "shell.log").read_text() == "hello\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own promise")
def test_a_program_dies_with_whoever_started_it(tmp_path: Path):
    code = (
        "from pathlib import Path; from e2e.suite.processes import process; import os, time\n"
        f"with process('sleep', ['sleep', '600'], Path({str(tmp_path)!r})): time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as parent:
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
        until(lambda: children.read_text().strip())
        child = int(children.read_text())
        until(lambda: Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0] == b"sleep")
        parent.kill()
    until(lambda: not is_running(child))
