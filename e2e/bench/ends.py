"""`python -m e2e.bench ends`: from the end of a clone, by its lease or by a pull request that has been closed for its
grace, to nothing left of its data; beside the same objects made by hand and deleted at once.

Both ends are one to Coppice; the one of a lease needs no forge in the cluster. How long it takes until a forge's word
is known is what ``e2e.bench.forge`` measures.
"""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Final

from coppice.core import labels
from e2e.bench import by_hand
from e2e.bench.api import DELETED, both, named, ready
from e2e.bench.by_hand import Laps, Plan
from e2e.bench.figures import pair, say, table
from e2e.bench.lab import settle
from e2e.bench.subjects import STORE
from e2e.leftovers import namespace_of
from e2e.suite.manifests import data_clone

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from e2e.bench.api import Manifest, Seen
    from e2e.bench.lab import Lab

LEASE: Final = "15s"
_NAME: Final = "ending"
COLUMNS: Final = {"Pod gone": "pod", "claim gone": "claim", "volume gone": "volume"}
_EVERY_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """One end, and one deletion by hand."""

    laps: Laps
    by_hand: Laps


@dataclass(frozen=True, slots=True)
class Ends:
    """Makes clones that end, one after the other."""

    lab: Lab

    async def run(self, runs: int) -> list[Run]:
        """Take as many turns as asked for."""
        plan = Plan(_NAME, self.lab.owners, await self.lab.prepared(), self.lab.cluster.storage_class)
        made = []
        for number in range(runs):
            made.append(Run(await self._end(), await self._by_hand(plan)))
            say(f"run {number + 1} of {runs}: {made[-1]}")
        return made

    async def _end(self) -> Laps:
        """Make a clone with a short lease, and see it end."""
        lab, api = self.lab, self.lab.api
        await settle(1 + random.random())
        api.forget()
        terms = data_clone(_NAME, lab.owners, store=STORE, source=lab.subject.source, lease={"max": LEASE})
        clone = await api.create(terms)
        await api.until("DataClone", both(named(lab.owners, _NAME), ready), f"{_NAME} is Ready")
        laps = await self._vanish(is_of(clone["metadata"]["uid"]))
        told = await api.client.get("DataClone", _NAME, lab.owners)
        ends = datetime.fromisoformat((told or {})["status"]["expiresAt"]).timestamp()
        await lab.remove_clone(clone)
        return {step: at - ends for step, at in laps.items()}

    async def _by_hand(self, plan: Plan) -> Laps:
        """Make the same objects, and delete them."""
        lab = self.lab
        await settle(1 + random.random())
        lab.api.forget()
        await by_hand.make(lab, plan)
        lab.api.forget()
        begun = time.time()
        laps, _ = await asyncio.gather(self._vanish(is_called(plan.name)), by_hand.remove(lab, plan))
        return {step: at - begun for step, at in laps.items()}

    async def _vanish(self, mine: Callable[[Seen], bool]) -> Laps:
        """Return when what was gone."""
        pod = await self.lab.api.until("Pod", both(mine, _deleted), "the Pod is gone")
        claim = await self.lab.api.until("PersistentVolumeClaim", both(mine, _deleted), "the claim is gone")
        name = claim.manifest["metadata"]["name"]
        while True:
            if not await self._has_volume(name):
                return {"pod": pod.at, "claim": claim.at, "volume": time.time()}
            await asyncio.sleep(_EVERY_SECONDS)

    async def _has_volume(self, claim: str) -> bool:
        volumes = (await self.lab.api.raw("/api/v1/persistentvolumes"))["items"]
        mine = [volume for volume in volumes if namespace_of(volume) == self.lab.owners]
        return any(volume["spec"]["claimRef"]["name"] == claim for volume in mine)


def is_of(uid: str) -> Callable[[Seen], bool]:
    """Return the test for what belongs to a clone, its end included."""
    return lambda seen: _labels(seen.manifest).get(labels.OWNER_UID) == uid


def is_called(name: str) -> Callable[[Seen], bool]:
    """Return the test for what was made by hand under a name, its end included."""
    return lambda seen: _labels(seen.manifest).get("bench") == name


def _labels(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("labels") or {}


def _deleted(seen: Seen) -> bool:
    return seen.change == DELETED


def report(made: Sequence[Run]) -> str:
    """Return the table of some runs."""
    ours, theirs = [run.laps for run in made], [run.by_hand for run in made]
    difference = median(lap["volume"] for lap in ours) - median(lap["volume"] for lap in theirs)
    rows = [
        ["seconds, median / p95", *COLUMNS, "volume: difference"],
        ["Coppice, from the end", *_cells(ours), f"{difference:+.2f}"],
        ["by hand, from the deletion", *_cells(theirs), ""],
    ]
    return table(f"From the end of a clone to nothing left ({len(made)} runs)", rows)


def _cells(laps: Sequence[Laps]) -> list[str]:
    return [pair([lap[step] for lap in laps]) for step in COLUMNS.values()]
