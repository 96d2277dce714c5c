"""`python -m e2e.bench wake`: from the word that wakes a clone that sleeps to its first answer, beside a Pod of the
same kind made by hand on a claim that is there already.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from coppice.core import labels
from coppice.core.plan import Ref
from e2e.bench import by_hand, clone
from e2e.bench.api import both, labelled, named, ready
from e2e.bench.by_hand import DATABASE, Laps, Plan
from e2e.bench.figures import pair, say, table
from e2e.bench.lab import decoded, settle
from e2e.bench.prober import Login
from e2e.suite.helm import Helm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from e2e.bench.api import Manifest, Seen
    from e2e.bench.lab import Lab
    from e2e.suite.kube import Kube

SLEEP: Final = "20s"
"""After how long without use a clone sleeps here: several times as long as what is measured."""
_SLEEPER: Final = "sleeper"
_BY_HAND: Final = "by-hand"
COLUMNS: Final = {"Pod Ready": "pod ready", "clone Ready": "clone ready", "first answer": "query"}


@dataclass(frozen=True, slots=True)
class Run:
    """One waking, and one Pod by hand."""

    laps: Laps
    by_hand: Laps


@contextmanager
def sleepy(kube: Kube) -> Iterator[None]:
    """Have clones that nobody uses sleep soon, while the block runs."""
    helm = Helm(kube)
    before = helm.values()
    helm.upgrade(before, f"--set=clones.sleep={SLEEP}")
    try:
        yield
    finally:
        helm.upgrade(before)


@dataclass(frozen=True, slots=True)
class Naps:
    """Wakes one clone again and again."""

    lab: Lab

    async def run(self, runs: int) -> list[Run]:
        """Take as many turns as asked for; while the clone gets tired, the Pod by hand has its turn."""
        lab = self.lab
        plan = Plan(_BY_HAND, lab.owners, await lab.prepared(), lab.cluster.storage_class)
        await by_hand.make(lab, plan)
        sleeper, _ = await clone.make(lab, lab.owners, _SLEEPER)
        made = []
        for number in range(runs):
            theirs = await self._by_hand(plan)
            made.append(Run(await self._wake(sleeper), theirs))
            say(f"run {number + 1} of {runs}: {made[-1]}")
        await by_hand.remove(lab, plan)
        await lab.remove_clone(sleeper)
        return made

    async def _wake(self, sleeper: Manifest) -> Laps:
        """Wait until the clone sleeps, and wake it."""
        api, owners = self.lab.api, self.lab.owners
        where, mine = named(owners, _SLEEPER), labelled(labels.OWNER_UID, sleeper["metadata"]["uid"])
        if not api.present("DataClone", is_asleep):
            await api.until("DataClone", lambda seen: where(seen) and is_asleep(seen.manifest), f"{_SLEEPER} sleeps")
        await api.gone("Pod", lambda found: _owner(found) == sleeper["metadata"]["uid"])
        await settle(1 + random.random())
        login = await self._login(f"{_SLEEPER}-binding")
        api.forget()
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        asked = asyncio.create_task(api.until("DataClone", both(where, _asks(moment)), f"{_SLEEPER} is woken"))
        answer = asyncio.create_task(self.lab.prober.query(login, self.lab.subject.question))
        word = f"{labels.WAKE_REQUESTED_AT}={moment}"
        await self.lab.kubectl("annotate", "--overwrite", "-n", owners, "dataclone", _SLEEPER, word)
        begun = (await asked).at
        served = await api.until("Pod", both(mine, ready), f"the Pod of {_SLEEPER} is Ready")
        done = await api.until("DataClone", both(where, ready), f"{_SLEEPER} is Ready")
        laps = {"pod ready": served.at, "clone ready": done.at, "query": await answer}
        return {step: at - begun for step, at in laps.items()}

    async def _by_hand(self, plan: Plan) -> Laps:
        """Delete the Pod and make it again, on its claim."""
        api, where = self.lab.api, named(plan.namespace, plan.name)
        found = await api.client.get("Pod", plan.name, plan.namespace)
        if found is not None:
            await api.client.delete(Ref.of(found))
        await api.gone("Pod", lambda pod: pod["metadata"]["name"] == plan.name)
        await settle(1 + random.random())
        secret = await api.client.get("Secret", plan.name, plan.namespace)
        service = await api.client.get("Service", plan.name, plan.namespace)
        subject, password = self.lab.subject, decoded(secret)["admin-password"]
        host = (service or {})["spec"]["clusterIP"]
        login = Login(host, subject.admin, password, DATABASE, subject.port)
        api.forget()
        answer = asyncio.create_task(self.lab.prober.query(login, subject.question))
        begun = time.time()
        await api.create(plan.pod())
        served = await api.until("Pod", both(where, ready), f"Pod {plan.name} is Ready")
        return {"pod ready": served.at - begun, "query": await answer - begun}

    async def _login(self, secret: str) -> Login:
        told = decoded(await self.lab.api.client.get("Secret", secret, self.lab.owners))
        service = await self.lab.api.client.get("Service", _SLEEPER, self.lab.owners)
        host = (service or {})["spec"]["clusterIP"]
        return Login(host, told["username"], told["password"], told["database"], int(told["port"]))


def is_asleep(manifest: Manifest) -> bool:
    """Return whether a clone sleeps."""
    conditions = (manifest.get("status") or {}).get("conditions") or []
    return any(entry["type"] == "Ready" and entry["reason"] == "Asleep" for entry in conditions)


def _asks(moment: str) -> Callable[[Seen], bool]:
    """Return the test for a clone that is to wake since then."""
    return lambda seen: (seen.manifest["metadata"].get("annotations") or {}).get(labels.WAKE_REQUESTED_AT) == moment


def _owner(found: Manifest) -> str | None:
    uid: str | None = (found["metadata"].get("labels") or {}).get(labels.OWNER_UID)
    return uid


def report(made: Sequence[Run]) -> str:
    """Return the table of some runs."""
    rows = [["seconds, median / p95", *COLUMNS, "answer: ratio"]]
    ours, theirs = [run.laps for run in made], [run.by_hand for run in made]
    ratio = median(lap["query"] for lap in ours) / median(lap["query"] for lap in theirs)
    rows.append(["Coppice, from the annotation", *_cells(ours), f"{ratio:.2f}"])
    rows.append(["by hand, a Pod on its claim", *_cells(theirs), ""])
    return table(f"Asleep to the first answer ({len(made)} runs)", rows)


def _cells(laps: Sequence[Laps]) -> list[str]:
    return [pair([lap[step] for lap in laps if step in lap]) for step in COLUMNS.values()]
