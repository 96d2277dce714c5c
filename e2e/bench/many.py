"""`python -m e2e.bench many`: many clones at once, beside the same by hand, and what each of them takes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from e2e.bench import by_hand, clone
from e2e.bench.api import BenchError
from e2e.bench.by_hand import Laps, Plan
from e2e.bench.clone import BY_HAND, BY_HAND_ACROSS, COPPICE, COPPICE_ACROSS
from e2e.bench.figures import pair, say, table
from e2e.bench.lab import settle

if TYPE_CHECKING:
    from collections.abc import Sequence

    from e2e.bench.api import Manifest
    from e2e.bench.lab import Lab, Prepared

VARIANTS: Final = (COPPICE, BY_HAND, COPPICE_ACROSS, BY_HAND_ACROSS)
EVERY_SECONDS: Final = 0.1
"""Between two attempts to reach a server: they are many, and share the machine with what they wait for."""

_STATS_PATIENCE_SECONDS: Final = 300.0
_STATS_PAUSE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Batch:
    """Clones made at once: the laps of each from the first request on; what each takes, of a first batch only."""

    laps: list[Laps]
    own_bytes: list[int] = field(default_factory=list)
    memory_bytes: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Many:
    """Makes batches."""

    lab: Lab
    count: int

    async def run(self, runs: int, *, variants: Sequence[str]) -> dict[str, list[Batch]]:
        """Make each variant as often as asked for, in turns."""
        prepared = await self.lab.prepared()
        batches: dict[str, list[Batch]] = {}
        for number in range(runs):
            for variant in variants:
                await settle(3.0)
                self.lab.api.forget()
                batch = await self._batch(variant, prepared, weigh=number == 0)
                batches.setdefault(variant, []).append(batch)
                slowest = max(lap["query"] for lap in batch.laps)
                say(f"run {number + 1} of {runs}, {variant}: all answer after {slowest:.1f} s")
        return batches

    async def _batch(self, variant: str, prepared: Prepared, *, weigh: bool) -> Batch:
        lab = self.lab
        namespace = lab.preview if variant in {COPPICE_ACROSS, BY_HAND_ACROSS} else lab.owners
        names = [f"many-{number:02}" for number in range(self.count)]
        if variant in {COPPICE, COPPICE_ACROSS}:
            make, remove = self._coppice(namespace, names), lab.remove_clone
        else:
            plans = [Plan(name, namespace, prepared, lab.cluster.storage_class) for name in names]
            make, remove = self._by_hand(plans), partial(by_hand.remove, lab)
        made = await make
        batch = Batch([laps for _, laps in made])
        if weigh:
            await self._weigh(batch, namespace)
        await asyncio.gather(*(remove(one) for one, _ in made))
        return batch

    async def _coppice(self, namespace: str, names: list[str]) -> list[tuple[Any, Laps]]:
        return await asyncio.gather(*(clone.make(self.lab, namespace, name, every=EVERY_SECONDS) for name in names))

    async def _by_hand(self, plans: list[Plan]) -> list[tuple[Any, Laps]]:
        laps = await asyncio.gather(*(by_hand.make(self.lab, plan, every=EVERY_SECONDS) for plan in plans))
        return list(zip(plans, laps, strict=True))

    async def _weigh(self, batch: Batch, namespace: str) -> None:
        """Add what each Pod takes, by kubelet's statistics: of a volume it asks the driver once a minute."""
        deadline = time.monotonic() + _STATS_PATIENCE_SECONDS
        while time.monotonic() < deadline:
            pods = [pod for pod in await self._statistics() if _is_one(pod["podRef"], namespace)]
            own = [_own_bytes(pod) for pod in pods]
            memory = [pod.get("memory", {}).get("workingSetBytes") for pod in pods]
            if len(pods) == len(batch.laps) and None not in own and None not in memory:
                batch.own_bytes.extend(int(value or 0) for value in own)
                batch.memory_bytes.extend(int(value or 0) for value in memory)
                return
            await asyncio.sleep(_STATS_PAUSE_SECONDS)
        raise BenchError("kubelet has no statistics of the clones")

    async def _statistics(self) -> list[Manifest]:
        nodes = (await self.lab.api.raw("/api/v1/nodes"))["items"]
        found = []
        for node in nodes:
            summary = await self.lab.api.raw(f"/api/v1/nodes/{node['metadata']['name']}/proxy/stats/summary")
            found += summary["pods"]
        return found


def _is_one(pod: Manifest, namespace: str) -> bool:
    return bool(pod["namespace"] == namespace) and str(pod["name"]).startswith("many-")


def _own_bytes(pod: Manifest) -> Any:
    """Return the bytes that the driver says a Pod's claim occupies by itself, or None while kubelet has not asked."""
    return next((volume.get("usedBytes") for volume in pod.get("volume", ()) if "pvcRef" in volume), None)


def report(batches: dict[str, list[Batch]]) -> str:
    """Return the tables of a run."""
    rows = [["seconds from the first request", "first answers", "half answer", "all answer", "all Pods Ready"]]
    sizes = [["each of them, median / largest", "own bytes, KiB", "memory, MiB"]]
    for variant, made in batches.items():
        answers = [sorted(lap["query"] for lap in batch.laps) for batch in made]
        ready = [max(lap["pod ready"] for lap in batch.laps) for batch in made]
        rows.append(
            [
                f"{variant} ({len(made)} x {len(answers[0])})",
                pair([batch[0] for batch in answers]),
                pair([median(batch) for batch in answers]),
                pair([batch[-1] for batch in answers]),
                pair(ready),
            ]
        )
        own = [value / 1024 for batch in made for value in batch.own_bytes]
        memory = [value / 1024**2 for batch in made for value in batch.memory_bytes]
        sizes.append([variant, f"{median(own):.0f} / {max(own):.0f}", f"{median(memory):.0f} / {max(memory):.0f}"])
    return "\n".join([table("Many clones at once, median / p95 of the runs", rows), table("What each takes", sizes)])
