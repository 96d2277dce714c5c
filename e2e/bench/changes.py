"""`python -m e2e.bench changes`: a change of some rows of many comes back, beside the same by hand, and what it takes
of the operator's memory.

What is measured of one engine is a ``Work``; whatever is the same for all of them is here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final, Protocol

from coppice.core import labels
from e2e.bench.api import BenchError, both, labelled, named, ready, says
from e2e.bench.by_dump import Postgresql
from e2e.bench.by_merge import Dolt
from e2e.bench.figures import p95, pair, say, table
from e2e.bench.lab import settle
from e2e.bench.proposals import COMPUTED, PUBLISHED, ROWS
from e2e.bench.subjects import STORE
from e2e.bench.weights import weigh_command, weigh_operator
from e2e.suite.manifests import resource

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from e2e.bench.api import Manifest, Seen
    from e2e.bench.by_hand import Laps
    from e2e.bench.lab import Lab
    from e2e.bench.weights import Weighed, Weight

REQUEST: Final = "DataChangeRequest"
SUM: Final = "diff and publish, the sum"
SCRATCH: Final = "scratch clone Ready"
_MANUAL: Final = "Manual"
_MEBIBYTE: Final = 1024**2


class Work(Protocol):
    """What an engine has to do for the figures."""

    async def prepare(self) -> None:
        """Have everything at hand that is in no figure."""

    @property
    def proposal(self) -> Manifest:
        """Return what a request says of where the change is and where it goes. With ``merge: Manual`` its rows are read
        first, and what publishes it is timed from when it is let go.
        """

    async def change(self, run: int) -> None:
        """Change rows where the request has them from, other ones in each run."""

    async def by_hand(self, run: int) -> Laps:
        """Bring such changes back without Coppice; return how long that took: ``COMPUTED``, ``PUBLISHED``, ``ROWS``."""


ENGINES: Final[Mapping[str, Callable[[Lab, int, int], Work]]] = {"dolt": Dolt, "postgresql": Postgresql}


@dataclass(frozen=True, slots=True)
class Run:
    """A request and the same by hand; the operator's weight before, and after: with the most that it had meanwhile."""

    laps: Laps
    by_hand: Laps
    before: Weight
    after: Weight
    shown: Weighed


@dataclass(frozen=True, slots=True)
class Changes:
    """Makes requests, one after the other."""

    lab: Lab
    rows: int
    changed: int

    async def run(self, runs: int) -> list[Run]:
        """Take as many turns as asked for."""
        work = ENGINES[self.lab.subject.engine](self.lab, self.rows, self.changed)
        await self.lab.api.watch(self.lab.owners, [REQUEST])
        await work.prepare()
        author = (await self.lab.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")).strip()
        made = []
        for number in range(runs):
            made.append(await self._turn(work, number, author))
            say(f"run {number + 1} of {runs}: {made[-1]}")
        return made

    async def _turn(self, work: Work, number: int, author: str) -> Run:
        await work.change(number)
        await settle(3.0)
        before = await weigh_operator(self.lab)
        request, laps = await self._propose(work, f"change-{number}", author)
        shown = None
        if request["spec"]["merge"] == _MANUAL:
            shown = await self._show(request)
        laps[PUBLISHED] = await self._publish(request)
        after = await weigh_operator(self.lab)
        await self._scratch_is_gone(request)
        shown = shown or await self._show(request)
        await self.lab.api.delete(request)
        await settle(3.0)
        by_hand = await work.by_hand(number)
        return Run(laps, by_hand, before, after, shown)

    async def _propose(self, work: Work, name: str, author: str) -> tuple[Manifest, Laps]:
        """Propose what changed, and return when what came: the scratch server, and what was computed on it."""
        api = self.lab.api
        api.forget()
        started = time.time()
        request = await api.create(_build_request(name, self.lab.owners, author, work.proposal))
        mine = labelled(labels.OWNER_UID, request["metadata"]["uid"])
        served = await api.until("DataClone", both(mine, ready), f"the scratch clone of {name} is Ready")
        merged = await self._until(request, says("Mergeable"), "Mergeable")
        return request, {SCRATCH: served.at - started, COMPUTED: merged.at - served.at}

    async def _publish(self, request: Manifest) -> float:
        """Let a request go that waits for it, and return how long it took until it was published, from then or from
        when it was computed.
        """
        if request["spec"]["merge"] == _MANUAL:
            name, patch = request["metadata"]["name"], '{"spec": {"merge": "WhenApproved"}}'
            words = ("--namespace", self.lab.owners, "datachangerequest", name, "--type=merge", "--patch", patch)
            await self.lab.kubectl("patch", *words)
        begun = await self._until(request, both(says("Mergeable"), _goes), "let go")
        done = await self._until(request, says("Published"), "Published")
        return done.at - begun.at

    async def _until(self, request: Manifest, test: Callable[[Seen], bool], what: str) -> Seen:
        name = request["metadata"]["name"]
        return await self.lab.api.until(REQUEST, both(named(self.lab.owners, name), test), f"{name} is {what}")

    async def _scratch_is_gone(self, request: Manifest) -> None:
        uid = request["metadata"]["uid"]
        await self.lab.api.gone(
            "DataClone", lambda found: (found["metadata"].get("labels") or {}).get(labels.OWNER_UID) == uid
        )

    async def _show(self, request: Manifest) -> Weighed:
        name = request["metadata"]["name"]
        words = ("--namespace", self.lab.owners, "--rows", "--output", "json")
        shown = await weigh_command(self.lab, "diff", f"request/{name}", *words)
        if shown.lines != self.changed:
            raise BenchError(f"{shown.lines} rows are shown, and {self.changed} were changed")
        return shown


def _goes(seen: Seen) -> bool:
    """Return whether a request is published once it may be."""
    return bool(seen.manifest["spec"]["merge"] != _MANUAL)


def _build_request(name: str, namespace: str, author: str, proposal: Manifest) -> Manifest:
    spec = {"title": f"The rows of {name}", "store": {"name": STORE}, "author": author, **proposal}
    return resource(REQUEST, name, namespace, spec)


def report(made: Sequence[Run], rows: int, changed: int) -> str:
    """Return the tables of some runs."""
    ours = [{**run.laps, ROWS: run.shown.seconds} for run in made]
    theirs = [run.by_hand for run in made]
    for lap in (*ours, *theirs):
        lap[SUM] = lap[COMPUTED] + lap[PUBLISHED]
    seconds = [["seconds, median / p95", "Coppice", "by hand", "ratio"]]
    for step in (SCRATCH, COMPUTED, PUBLISHED, SUM, ROWS):
        here, there = ([lap[step] for lap in laps if step in lap] for laps in (ours, theirs))
        seconds.append([step, pair(here), pair(there), f"{median(here) / median(there):.2f}" if there else ""])
    title = f"{changed:,} changed rows of {rows:,} ({len(made)} runs)"
    return "\n".join([table(title, seconds), _memory(made)])


def _memory(made: Sequence[Run]) -> str:
    columns = {
        "operator, before": [run.before.now for run in made],
        "operator, at most meanwhile": [run.after.most for run in made],
        "operator, after": [run.after.now for run in made],
        "operator's container, before": [run.before.container for run in made],
        "operator's container, after": [run.after.container for run in made],
        "coppice diff, at most": [run.shown.bytes for run in made],
    }
    rows = [["MiB", "median", "p95"]]
    for name, found in columns.items():
        rows.append([name, *(f"{value / _MEBIBYTE:.1f}" for value in (median(found), p95(found)))])
    return table("Memory", rows)
