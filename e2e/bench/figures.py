"""Medians, tables, and the state of the machine they were taken on. Pure, but for reading /proc and writing the raw
results outside of the repository, and telling how far a run is.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2e.harness.settings import Settings


def say(line: str) -> None:
    """Tell how far a run is, on standard error: the tables alone are on standard output."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def p95(values: Sequence[float]) -> float:
    """Return the 95th percentile by nearest rank: the largest value of up to 19."""
    ordered = sorted(values)
    return ordered[math.ceil(0.95 * len(ordered)) - 1]


def pair(values: Sequence[float]) -> str:
    """Return median and 95th percentile, in seconds."""
    return f"{median(values):.2f} / {p95(values):.2f}" if values else "-"


def table(title: str, rows: Sequence[Sequence[str]]) -> str:
    """Return a table of plain text: the first row is its head, the first column its names."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(row: Sequence[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([title, "", line(rows[0]), rule, *(line(row) for row in rows[1:]), ""])


@dataclass(frozen=True, slots=True)
class Machine:
    """How busy the machine was, from ``start`` to ``describe``."""

    at: float
    load: float
    busy: float
    total: float

    @classmethod
    def start(cls) -> Machine:
        """Begin to look."""
        return cls(time.time(), os.getloadavg()[0], *_cpu_seconds())

    def describe(self) -> str:
        """Return a line on the time since the start."""
        busy, total = _cpu_seconds()
        share = (busy - self.busy) / max(total - self.total, 1e-9)
        return (
            f"{os.cpu_count()} CPUs, load average {self.load:.1f} before and {os.getloadavg()[0]:.1f} after, "
            f"{share:.0%} busy over {time.time() - self.at:.0f} s"
        )


def _cpu_seconds() -> tuple[float, float]:
    """Return busy and all CPU time so far (https://docs.kernel.org/filesystems/proc.html, 1.7)."""
    user, nice, system, idle, waiting, *rest = map(float, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + waiting


def write_raw(settings: Settings, command: str, results: Any) -> Path:
    """Keep the raw results in the cache; return where."""
    folder = settings.cache / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{command}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path.write_text(json.dumps(results, indent=1))
    return path
