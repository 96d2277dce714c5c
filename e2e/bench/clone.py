"""`python -m e2e.bench clone`: one clone at a time, from the request to the first answer, beside the same by hand."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING

from coppice.core import labels
from e2e.bench import by_hand
from e2e.bench.api import Seen, both, bound, labelled, named, ready, restorable, running, succeeded
from e2e.bench.by_hand import Laps, Plan
from e2e.bench.figures import pair, say, table
from e2e.bench.lab import Lab, Prepared, decoded, settle
from e2e.bench.prober import EVERY_SECONDS, Login
from e2e.bench.restore import copy_in_the_server, dump_and_restore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from e2e.bench.api import Manifest

COLUMNS = {
    "claim Bound": "claim bound",
    "Pod running": "pod running",
    "Pod Ready": "pod ready",
    "clone Ready": "clone ready",
    "first answer": "query",
}
STEPS = {
    "resolve": ("", "asked"),
    "capture": ("asked", "captured"),
    "scratch": ("captured", "scratch bound"),
    "prepare": ("scratch bound", "prepared"),
    "publish": ("prepared", "published"),
    "copy": ("published", "claim bound"),
    "start": ("claim bound", "pod ready"),
    "answer": ("pod ready", "query"),
}
"""From nothing: each step with the laps it lies between."""
COPPICE = "Coppice"
BY_HAND = "by hand"
COPPICE_ACROSS = "Coppice, other namespace"
BY_HAND_ACROSS = "by hand, other namespace"
FROM_NOTHING = "Coppice, from nothing"
EMPTY = "bare Pod, empty claim"
RESTORE = "dump and restore"
TEMPLATE = "CREATE DATABASE ... TEMPLATE"
"""PostgreSQL's own copy: a database beside the original, in the same server."""
VARIANTS = (FROM_NOTHING, COPPICE, BY_HAND, COPPICE_ACROSS, BY_HAND_ACROSS, EMPTY, RESTORE, TEMPLATE)
WHOLE = frozenset({RESTORE, TEMPLATE})
"""What copies all data."""


def variants_of(engine: str) -> tuple[str, ...]:
    """Return what can be compared with an engine's clones."""
    return VARIANTS if engine == "postgresql" else tuple(entry for entry in VARIANTS if entry != TEMPLATE)


async def make(lab: Lab, namespace: str, name: str, *, every: float = EVERY_SECONDS) -> tuple[Manifest, Laps]:
    """Make a clone and return it, and when what came, in seconds from the request."""
    api, started = lab.api, time.time()
    clone = await lab.clone(namespace, name)
    mine = labelled(labels.OWNER_UID, clone["metadata"]["uid"])

    async def storage() -> dict[str, float]:
        claimed = await api.until("PersistentVolumeClaim", both(mine, bound), f"the claim of {name} is Bound")
        made = await api.until("Pod", mine, f"{name} has a Pod")
        runs = await api.until("Pod", both(mine, running), f"the Pod of {name} runs")
        served = await api.until("Pod", both(mine, ready), f"the Pod of {name} is Ready")
        return {"claim bound": claimed.at, "pod made": made.at, "pod running": runs.at, "pod ready": served.at}

    async def network() -> dict[str, float]:
        service = await api.until("Service", named(namespace, name), f"{name} has a Service")
        host = service.manifest["spec"]["clusterIP"]
        greeted = await lab.prober.greeting(host, lab.subject.port, every=every)
        secret = await api.until("Secret", named(namespace, f"{name}-binding"), f"{name} has a binding")
        told = decoded(secret.manifest)
        login = Login(host, told["username"], told["password"], told["database"], int(told["port"]))
        answered = await lab.prober.query(login, lab.subject.question, every=every)
        return {"service made": service.at, "greeting": greeted, "binding": secret.at, "query": answered}

    async def end() -> dict[str, float]:
        done = await api.until("DataClone", both(named(namespace, name), ready), f"{name} is Ready")
        return {"clone ready": done.at}

    laps = await asyncio.gather(storage(), network(), end())
    return clone, {step: at - started for lap in laps for step, at in lap.items()}


async def make_from_nothing(lab: Lab, name: str) -> tuple[Manifest, Laps]:
    """Make a clone of a store without a snapshot; the laps of the snapshot come before those of the clone."""
    await lab.remove_snapshots()
    await settle(1 + random.random())
    lab.api.forget()
    started = time.time()
    watching = asyncio.create_task(_snapshot_laps(lab))
    clone, laps = await make(lab, lab.owners, name)
    moments = await watching
    return clone, {step: at - started for step, at in moments.items()} | laps


async def _snapshot_laps(lab: Lab) -> dict[str, float]:
    api, owners = lab.api, lab.owners
    asked = await api.until("DataSnapshot", lambda _: True, "a snapshot is asked for")
    name = asked.manifest["metadata"]["name"]
    raw = await api.until("VolumeSnapshot", both(named(owners, f"{name}-raw"), restorable), "the raw snapshot is ready")
    scratch = await api.until(
        "PersistentVolumeClaim", both(named(owners, f"{name}-scratch"), bound), "the scratch copy is Bound"
    )
    started = await api.until("Pod", both(named(owners, f"{name}-prepare"), _has_started), "preparation has begun")
    cleaned = await api.until("Pod", both(named(owners, f"{name}-prepare"), succeeded), "preparation has ended")
    prepared = await api.until(
        "VolumeSnapshot", both(named(owners, name), restorable), "the prepared snapshot is ready"
    )
    published = await api.until("DataSnapshot", both(named(owners, name), ready), "the snapshot is Ready")
    return {
        "asked": asked.at,
        "captured": raw.at,
        "scratch bound": scratch.at,
        "preparing": started.at,
        "prepared": cleaned.at,
        "captured again": prepared.at,
        "published": published.at,
    }


def _has_started(seen: Seen) -> bool:
    return running(seen) or succeeded(seen)


@dataclass(slots=True)
class Clones:
    """All laps in one lab, by variant; ``restores``: in how many turns all data are also copied."""

    lab: Lab
    variants: Sequence[str]
    restores: int
    laps: dict[str, list[Laps]] = field(default_factory=dict)
    prepared: Prepared | None = None
    order: random.Random = field(default_factory=lambda: random.Random(0))
    """The same in every run."""

    def _add(self, variant: str, laps: Laps) -> None:
        self.laps.setdefault(variant, []).append(laps)
        say(
            f"  {variant}: " + ", ".join(f"{step} {seconds:.2f}" for step, seconds in sorted(laps.items(), key=_second))
        )

    async def turn(self, number: int) -> None:
        """Make every variant once, in an order drawn anew for each turn."""
        prepared = self.prepared = self.prepared or await self.lab.prepared()
        if FROM_NOTHING in self.variants:
            prepared = self.prepared = await self._from_nothing()
        turn = [variant for variant in self.variants if variant != FROM_NOTHING]
        self.order.shuffle(turn)
        for variant in turn:
            if variant in WHOLE and number >= self.restores:
                continue
            await settle(1 + random.random())
            self.lab.api.forget()
            await self._one(variant, Plan("lap", self.lab.owners, prepared, self.lab.cluster.storage_class))

    async def _from_nothing(self) -> Prepared:
        clone, laps = await make_from_nothing(self.lab, "lap")
        self._add(FROM_NOTHING, laps)
        prepared = await self.lab.prepared_for(clone)
        await self.lab.remove_clone(clone)
        return prepared

    async def _one(self, variant: str, plan: Plan) -> None:
        lab = self.lab
        if variant in {COPPICE_ACROSS, BY_HAND_ACROSS}:
            plan = replace(plan, namespace=lab.preview)
        if variant in {COPPICE, COPPICE_ACROSS}:
            clone, laps = await make(lab, plan.namespace, plan.name)
            self._add(variant, laps)
            await lab.remove_clone(clone)
            return
        if variant == TEMPLATE:
            self._add(variant, await copy_in_the_server(lab, plan.name))
            return
        work = {EMPTY: by_hand.make_empty, RESTORE: dump_and_restore}.get(variant, by_hand.make)
        self._add(variant, await work(lab, plan))
        await by_hand.remove(lab, plan)


async def alternate(labs: Sequence[Clones], runs: int) -> None:
    """Have the labs take turns, so that what the machine does meanwhile falls upon all of them."""
    for number in range(runs):
        for clones in labs:
            say(f"run {number + 1} of {runs} in {clones.lab.owners}")
            await clones.turn(number)


def _second(entry: tuple[str, float]) -> float:
    return entry[1]


def report(laps: dict[str, list[Laps]]) -> str:
    """Return the tables of a run."""
    parts = [_comparison(laps)]
    if FROM_NOTHING in laps:
        parts.append(_steps(laps[FROM_NOTHING]))
    return "\n".join(parts)


def compare_sizes(laps: Mapping[str, Mapping[str, list[Laps]]]) -> str:
    """Return how the first answers of several sizes compare, each with the first of them."""
    (first, base), *others = laps.items()
    rows = [["first answer, median / p95", first, *(f"{size}, ratio" for size, _ in others)]]
    for variant in (entry for entry in (FROM_NOTHING, COPPICE, BY_HAND, RESTORE, TEMPLATE) if entry in base):
        ours = [lap["query"] for lap in base[variant]]
        theirs = [[lap["query"] for lap in found[variant]] for _, found in others]
        ratios = [f"{pair(answers)}, {median(answers) / median(ours):.2f}" for answers in theirs]
        rows.append([variant, pair(ours), *ratios])
    return table("Sizes", rows)


def _comparison(laps: dict[str, list[Laps]]) -> str:
    head = ["seconds from the request, median / p95", *COLUMNS, "answer: ratio", "and difference to"]
    rows = [head]
    for variant in (entry for entry in VARIANTS if entry in laps):
        columns = [pair([lap[step] for lap in laps[variant] if step in lap]) for step in COLUMNS.values()]
        rows.append([f"{variant} ({len(laps[variant])})", *columns, *_against(variant, laps)])
    return table("One clone at a time", rows)


def _against(variant: str, laps: dict[str, list[Laps]]) -> tuple[str, str]:
    """Return ratio and difference of the medians to the first answer of the same work by hand."""
    baseline = BY_HAND_ACROSS if variant == COPPICE_ACROSS else BY_HAND
    if baseline not in laps or variant == baseline or "query" not in laps[variant][0]:
        return "", ""
    ours, theirs = (median(lap["query"] for lap in laps[name]) for name in (variant, baseline))
    return f"{ours / theirs:.2f}", f"{ours - theirs:+.2f} {baseline}"


def _steps(laps: list[Laps]) -> str:
    rows = [["step", "ends with", "seconds, median / p95"]]
    for name, (begin, end) in STEPS.items():
        rows.append([name, end, pair([lap[end] - (lap[begin] if begin else 0.0) for lap in laps])])
    return table("From nothing, step by step", rows)
