"""How much memory the operator has, and had at most since it was last asked; and the same of a program.

The kernel keeps a process's largest size, so that nothing has to be looked at in between
(https://docs.kernel.org/filesystems/proc.html, ``clear_refs`` and ``VmHWM``). The operator's container has one process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from e2e.bench.api import BenchError
from e2e.harness import shell
from e2e.install import NAMESPACE

if TYPE_CHECKING:
    from e2e.bench.lab import Lab

PROGRAM: Final = Path(__file__).parent / "programs" / "weigh.py"
_LOOK: Final = """
grep -E '^(VmRSS|VmHWM):' /proc/1/status
cd /sys/fs/cgroup; echo "container: $(cat memory.current 2>/dev/null || cat memory/memory.usage_in_bytes)"
echo 5 >/proc/1/clear_refs
"""
"""The container's own number is in either version of control groups: the file of the second, or that of the first."""


@dataclass(frozen=True, slots=True)
class Weight:
    """Bytes of the operator: resident now, resident at most since the last look, and what its container is charged
    with, which includes files that the kernel keeps in memory.
    """

    now: int
    most: int
    container: int


@dataclass(frozen=True, slots=True)
class Weighed:
    """A program that has ended: how long it took, how many lines it printed, and how many bytes it had at most."""

    seconds: float
    lines: int
    bytes: int


async def weigh_operator(lab: Lab) -> Weight:
    """Look at the operator, and have the kernel forget its largest size so far."""
    words = ("exec", "-n", NAMESPACE, "deployment/coppice", "--", "sh", "-c", _LOOK)
    return read_weight(await lab.kubectl(*words))


def read_weight(told: str) -> Weight:
    """Return what was told as lines of a name and a number; raises BenchError."""
    values = {name: words.split() for name, _, words in (line.partition(":") for line in told.splitlines())}
    try:
        now, most = (int(values[name][0]) * 1024 for name in ("VmRSS", "VmHWM"))
        return Weight(now, most, int(values["container"][0]))
    except (LookupError, ValueError):
        raise BenchError(f"the operator's memory is not to be read from {told!r}") from None


async def weigh_command(lab: Lab, *words: str) -> Weighed:
    """Run the `coppice` command as the cluster's administrator."""
    command = (sys.executable, str(PROGRAM), sys.executable, "-m", "coppice", *words)
    told = await asyncio.to_thread(shell.run, command, env=lab.cluster.environment)
    return Weighed(**json.loads(told))
