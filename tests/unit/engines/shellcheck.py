"""Checks scripts as they are run: put together from their parts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.engines.base import Workload


def scripts_of(workloads: Mapping[str, Workload]) -> dict[str, str]:
    """Return every script of some workloads by name."""
    return {
        f"{name}-{kind}": script
        for name, workload in workloads.items()
        for kind, script in (
            ("script", workload.script), ("load", workload.load_script), ("wait", workload.wait_script),
        )
        if script
    }  # fmt: skip


def complaints(script: str) -> str:
    """Return what shellcheck says of a script for plain sh; empty for nothing."""
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert shellcheck, "shellcheck is part of the development environment"
    # The pieces define more than each whole uses, and variables come from the environment.
    command = [shellcheck, "--shell=sh", "--exclude=SC2034,SC2153,SC2317,SC2329", "-"]
    return subprocess.run(command, input=script, text=True, capture_output=True, check=False).stdout
