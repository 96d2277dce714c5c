"""`python -m e2e.bench source`: what a database that is written to all the time feels of a snapshot.

pgbench works on the store from a Pod of its own, in windows that take turns: in every second one a DataSnapshot is
made, with its scratch copy and preparation on the same machine.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from e2e.bench.api import BenchError, both, named, ready
from e2e.bench.figures import pair, say, table
from e2e.bench.lab import build_client, settle
from e2e.bench.subjects import STORE
from e2e.suite.manifests import data_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2e.bench.lab import Lab

QUIET: Final = "nothing else"
SNAPSHOT: Final = "a snapshot is made"
WINDOW_SECONDS: Final = 20
_LEAD_SECONDS: Final = 3.0
"""How far into a window the snapshot is asked for."""
_CLIENTS: Final = 4
_NAME: Final = "load"
_WINDOW: Final = """
set -eu; programs=$(echo /usr/lib/postgresql/*/bin); [ ! -d "$programs" ] || PATH=$programs:$PATH
cd /tmp; rm -f window.*
pgbench -n -h "$1" -U "$2" -c "$3" -T "$4" -l --log-prefix=window "$5" >/dev/null
cut -d' ' -f3 window.* | sort -n | awk '{ value[NR] = $1 }
  END { printf "{\\"count\\": %d, \\"p50\\": %d, \\"p99\\": %d, \\"worst\\": %d}\\n",
    NR, value[int((NR + 1) / 2)], value[int(NR * 0.99)], value[NR] }'
"""
"""Latencies in microseconds: the third column of pgbench's log of transactions
(https://www.postgresql.org/docs/15/pgbench.html, "Per-Transaction Logging").
"""


@dataclass(frozen=True, slots=True)
class Window:
    """What pgbench measured: transactions each second, and latencies in milliseconds. ``snapshot_seconds``: how long
    the snapshot took that was made meanwhile.
    """

    rate: float
    p50: float
    p99: float
    worst: float
    snapshot_seconds: float | None = None


async def measure(lab: Lab, runs: int) -> dict[str, list[Window]]:
    """Return the windows by what else went on."""
    if lab.subject.engine != "postgresql":
        raise BenchError("pgbench works on PostgreSQL only")
    await _start_load(lab)
    await _window(lab)
    found: dict[str, list[Window]] = {QUIET: [], SNAPSHOT: []}
    for number in range(runs):
        for kind, windows in found.items():
            await settle()
            windows.append(await _window(lab, f"window-{number}" if kind == SNAPSHOT else None))
            say(f"run {number + 1} of {runs}, {kind}: {windows[-1]}")
    return found


async def _window(lab: Lab, snapshot: str | None = None) -> Window:
    login = await lab.store_login()
    words = ("window", login.host, login.user, str(_CLIENTS), str(WINDOW_SECONDS), str(login.database))
    program = f"read -r PGPASSWORD; export PGPASSWORD; {_WINDOW}"
    working = asyncio.create_task(
        lab.kubectl(
            *("exec", "-i", "-n", lab.owners, _NAME, "--", "sh", "-c", program, *words), stdin=f"{login.password}\n"
        )
    )
    taken = None if snapshot is None else await _make_snapshot(lab, snapshot)
    if taken is not None and working.done():
        raise BenchError(f"the snapshot took {taken:.0f} s, longer than the window")
    told = json.loads(await working)
    await lab.remove_snapshots()
    p50, p99, worst = (told[name] / 1000 for name in ("p50", "p99", "worst"))
    return Window(told["count"] / WINDOW_SECONDS, p50, p99, worst, snapshot_seconds=taken)


async def _make_snapshot(lab: Lab, name: str) -> float:
    await settle(_LEAD_SECONDS)
    started = time.time()
    await lab.api.create(data_snapshot(name, lab.owners, store=STORE))
    done = await lab.api.until("DataSnapshot", both(named(lab.owners, name), ready), f"snapshot {name} is Ready")
    return done.at - started


async def _start_load(lab: Lab) -> None:
    if await lab.api.client.get("Pod", _NAME, lab.owners) is None:
        server = await lab.api.client.get("Pod", f"{STORE}-server", lab.owners)
        await lab.api.create(build_client(_NAME, server or {}))
    await lab.kubectl("wait", "-n", lab.owners, f"pod/{_NAME}", "--for=condition=Ready", "--timeout=60s")


def report(found: Mapping[str, Sequence[Window]]) -> str:
    """Return the table of a run."""
    rows = [["pgbench while", "transactions / s", "ratio", "p50 ms", "p99 ms", "ratio", "worst ms", "snapshot s"]]
    quiet = found[QUIET]
    for kind, windows in found.items():
        rates, tails = [window.rate for window in windows], [window.p99 for window in windows]
        taken = [window.snapshot_seconds for window in windows if window.snapshot_seconds is not None]
        rows.append(
            [
                f"{kind} ({len(windows)} x {WINDOW_SECONDS} s)",
                pair(rates),
                f"{median(rates) / median(window.rate for window in quiet):.2f}",
                pair([window.p50 for window in windows]),
                pair(tails),
                f"{median(tails) / median(window.p99 for window in quiet):.2f}",
                pair([window.worst for window in windows]),
                pair(taken),
            ]
        )
    return table(f"A database at work ({_CLIENTS} clients), median / p95 of the windows", rows)
