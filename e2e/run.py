"""`make e2e`: the suite on a real cluster. The cluster is kept if it was up before, or if COPPICE_E2E_KEEP is set;
else it is removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from e2e.harness.__main__ import main as harness
from e2e.harness.cluster import Cluster
from e2e.harness.settings import from_environment
from e2e.install import installed

SUITE = Path(__file__).parent / "suite"


def main() -> int:
    """Run the suite with the arguments given to this program; return pytest's exit code."""
    was_there = Cluster.read(from_environment(os.environ).state) is not None
    try:
        installed()
        command = [sys.executable, "-m", "pytest", str(SUITE), "--durations=10", *sys.argv[1:]]
        return subprocess.run(command, check=False).returncode
    finally:
        if not was_there and not os.environ.get("COPPICE_E2E_KEEP"):
            harness(["down"])


if __name__ == "__main__":
    sys.exit(main())
