"""`make e2e`: the suite on a real cluster, several modules at a time: most of a story is waiting. What is marked
``alone`` follows. The cluster is kept if it was up before, or if COPPICE_E2E_KEEP is set;
else it is removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2e.harness.__main__ import main as harness
from e2e.harness.cluster import Cluster
from e2e.harness.settings import from_environment
from e2e.install import installed

SUITE = Path(__file__).parent / "suite"
WORKERS = 3
TOGETHER = ("-m", "not alone", f"--numprocesses={WORKERS}", "--dist=loadfile", "--no-loadscope-reorder")
ALONE = ("-m", "alone")
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED


def main() -> int:
    """Run the suite with the arguments given to this program; return pytest's exit code."""
    was_there = Cluster.read(from_environment(os.environ).state) is not None
    try:
        installed()
        ended = {_pytest(*phase, *sys.argv[1:]) for phase in (TOGETHER, ALONE)}
    finally:
        if not was_there and not os.environ.get("COPPICE_E2E_KEEP"):
            harness(["down"])
    if ended == {NO_TESTS}:
        return NO_TESTS
    return max(ended - {NO_TESTS})


def _pytest(*words: str) -> int:
    command = [sys.executable, "-m", "pytest", str(SUITE), "--durations=10", *words]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
