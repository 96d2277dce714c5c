"""`python -m e2e.bench pull-requests`: from a pull request that the forge shows to an app that answers with its own
data, and from a closed one to nothing left; beside the same manifests applied and deleted by kubectl.

Argo CD is told to look, as a webhook tells it: how long it would wait for its next look is no part of the figures.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from tests.fakes.forge import Forge

from coppice.core.plan import Ref
from e2e.bench.api import both, ending, named, ready, says, vanished
from e2e.bench.by_kubectl import AT_ONCE, IN_WAVES, ByKubectl
from e2e.bench.figures import pair, say, table
from e2e.bench.lab import settle
from e2e.leftovers import namespace_of
from e2e.suite.argocd import NAMESPACE as ARGOCD
from e2e.suite.previews import PREVIEWS, PRICE, SHOP, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.fakes.forge import Answer, Request

    from e2e.bench.api import Api, Seen
    from e2e.bench.by_hand import Laps
    from e2e.suite.argocd import ArgoCD
    from e2e.suite.repository import Repository

BY_ARGOCD: Final = "Argo CD"
VARIANTS: Final = (BY_ARGOCD, IN_WAVES, AT_ONCE)
OWNERS: Final = "bench-previews"
WATCHED: Final = ("Application", "Namespace", "DataClone", "Deployment")
_EVERY_SECONDS: Final = 0.05
_FIRST_BY_KUBECTL: Final = 9001
"""The numbers of pull requests that the forge knows nothing of begin here."""
_OUTSIDE: Final = ("/api/v1/persistentvolumes", "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents")


@dataclass
class NotedForge(Forge):
    """A forge that notes when a list first had a pull request, and when one first lacked it again."""

    listed: dict[int, float] = field(default_factory=dict)
    unlisted: dict[int, float] = field(default_factory=dict)

    def answer(self, request: Request) -> Answer:
        """Return what GitHub would say."""
        answer = super().answer(request)
        if request.path.endswith("/pulls") and isinstance(answer.content, list):
            numbers, at = {pull["number"] for pull in answer.content}, time.time()
            self.listed = dict.fromkeys(numbers, at) | self.listed
            self.unlisted = dict.fromkeys(self.listed.keys() - numbers, at) | self.unlisted
        return answer


@dataclass(frozen=True, slots=True)
class Run:
    """One preview: when what came and went, in seconds; from the forge's answer, or from kubectl's start."""

    opened: Laps
    closed: Laps


@dataclass(slots=True)
class PullRequests:
    """Makes previews, one after the other, in an order drawn anew for each turn."""

    api: Api
    argocd: ArgoCD
    git: Repository
    forge: NotedForge
    runs: dict[str, list[Run]] = field(default_factory=lambda: {variant: [] for variant in VARIANTS})
    order: random.Random = field(default_factory=lambda: random.Random(0))
    """The same in every run."""
    places: list[str] = field(default_factory=list)
    """The namespaces of all previews."""

    async def run(self, runs: int) -> dict[str, list[Run]]:
        """Take as many turns as asked for."""
        for kind in WATCHED:
            await self.api.watch(ARGOCD if kind == "Application" else None, [kind])
        try:
            # The first clone is made from nothing, and leaves a prepared snapshot.
            await self._by_kubectl(IN_WAVES)
            for number in range(runs):
                for variant in self.order.sample(VARIANTS, len(VARIANTS)):
                    await settle(1 + random.random())
                    run = await (self._by_argocd() if variant == BY_ARGOCD else self._by_kubectl(variant))
                    self.runs[variant].append(run)
                    say(f"run {number + 1} of {runs}, {variant}: {run}")
        finally:
            await self._tidy()
        return self.runs

    async def _tidy(self) -> None:
        """Delete what an error has left."""
        for name in self.places:
            found = await self.api.client.get("Namespace", name)
            if found is not None:
                await self.api.client.delete(Ref.of(found))

    async def _by_argocd(self) -> Run:
        title = f"change-{len(self.places)}"
        sha = await asyncio.to_thread(self.git.push, title, title)
        # Argo CD may look by itself at any moment.
        self.api.forget()
        pull = self.forge.repository(SHOP).open(title, title, sha, labels=("preview",))
        name = name_of(pull.number)
        self.places.append(name)
        await asyncio.to_thread(self.argocd.look, PREVIEWS)
        application = named(ARGOCD, name)
        made, laps, synced = await asyncio.gather(
            self.api.until("Application", application, f"there is an Application {name}"),
            self._follow(name),
            self.api.until("Application", both(application, is_synced), f"{name} is Synced and Healthy"),
        )
        moments = {"application": made.at, **laps, "synced": synced.at}
        begun = self.forge.listed[pull.number]

        self.api.forget()
        pull.state, pull.updated = "closed", time.time()
        await asyncio.to_thread(self.argocd.look, PREVIEWS)
        noticed, gone, removed = await asyncio.gather(
            self.api.until("Application", both(application, ending), f"{name} is being deleted"),
            self._vanish(name),
            self.api.until("Application", vanished(ARGOCD, name), f"Application {name} is gone"),
        )
        ends = {"noticed": noticed.at, **gone, "application": removed.at}
        return Run(_since(begun, moments), _since(self.forge.unlisted[pull.number], ends))

    async def _by_kubectl(self, variant: str) -> Run:
        number = _FIRST_BY_KUBECTL + len(self.places)
        self.places.append(name_of(number))
        kubectl = ByKubectl(self.api, self.argocd.kube.cluster, self.git.checkout)
        manifests = await kubectl.rendered(number, f"{number:c>40d}")
        self.api.forget()
        begun = time.time()
        _, laps = await asyncio.gather(kubectl.apply(variant, number, manifests), self._follow(name_of(number)))
        self.api.forget()
        deleted = await kubectl.delete(manifests)
        return Run(_since(begun, laps), _since(deleted, await self._vanish(name_of(number))))

    async def _follow(self, namespace: str) -> Laps:
        """Return when what came in a preview."""
        api, clone, app = self.api, named(namespace, "db"), named(namespace, "app")

        async def data() -> Laps:
            made = await api.until("DataClone", clone, f"{namespace} has a clone")
            served = await api.until("DataClone", both(clone, ready), f"the clone in {namespace} is Ready")
            return {"clone": made.at, "clone ready": served.at}

        async def program() -> Laps:
            made = await api.until("Deployment", app, f"{namespace} has an app")
            answered = await self._first_answer(namespace)
            there = await api.until("Deployment", both(app, says("Available")), f"the app in {namespace} is Available")
            return {"app": made.at, "answer": answered, "available": there.at}

        first, second = await asyncio.gather(data(), program())
        return first | second

    async def _first_answer(self, namespace: str) -> float:
        """Return when the app first showed a track of its data, by the API server's proxy."""
        path = f"/api/v1/namespaces/{namespace}/services/app:80/proxy/api/tracks/1"
        async with asyncio.timeout(600):
            while True:
                with suppress(aiohttp.ClientError):
                    if str((await self.api.raw(path))["UnitPrice"]) == PRICE:
                        return time.time()
                await asyncio.sleep(_EVERY_SECONDS)

    async def _vanish(self, namespace: str) -> Laps:
        """Return when what was gone of a preview."""
        api = self.api
        clone = await api.until("DataClone", vanished(namespace, "db"), f"the clone in {namespace} is gone")
        place = await api.until("Namespace", vanished("", namespace), f"{namespace} is gone")
        while True:
            if not await self._left(namespace):
                return {"clone": clone.at, "namespace": place.at, "nothing": time.time()}
            await asyncio.sleep(_EVERY_SECONDS)

    async def _left(self, namespace: str) -> bool:
        """Return whether there are volumes or snapshots of a preview."""
        found = [item for path in _OUTSIDE for item in (await self.api.raw(path))["items"]]
        return any(namespace_of(item) == namespace for item in found)


def is_synced(seen: Seen) -> bool:
    """Return whether an Application is Synced and Healthy by an operation that has ended well."""
    status: dict[str, Any] = seen.manifest.get("status") or {}
    states = [(status.get(part) or {}).get("status") for part in ("sync", "health")]
    return states == ["Synced", "Healthy"] and (status.get("operationState") or {}).get("phase") == "Succeeded"


def _since(begun: float, moments: Mapping[str, float]) -> Laps:
    return {step: at - begun for step, at in moments.items()}


def split(laps: Laps) -> Laps:
    """Return whose part of the time until the first answer was how long. The app's begins when both it and its data
    are there; whoever applies it has it wait for them, or not.
    """
    applied_late = max(0.0, laps["app"] - laps["clone ready"])
    return {
        "until there is an Application": laps.get("application", 0.0),
        "until the clone is applied": laps["clone"] - laps.get("application", 0.0),
        "Coppice: until the clone is Ready": laps["clone ready"] - laps["clone"],
        "until the app is applied": applied_late,
        "app: until its first answer": laps["answer"] - laps["clone ready"] - applied_late,
        "the whole": laps["answer"],
        "Argo CD's or kubectl's part": laps["clone"] + applied_late,
    }


STEPS: Final = {
    "taken notice": "noticed",
    "clone gone": "clone",
    "namespace gone": "namespace",
    "nothing left": "nothing",
    "Application gone": "application",
}


def report(runs: Mapping[str, Sequence[Run]]) -> str:
    """Return the tables of some runs."""
    head = [f"{variant} ({len(found)})" for variant, found in runs.items()]
    parts = {variant: [split(run.opened) for run in found] for variant, found in runs.items()}
    opened = [["seconds, median / p95", *head]]
    opened += [[step, *_cells(parts, step)] for step in next(iter(parts.values()))[0]]
    whole = {variant: median(part["the whole"] for part in found) for variant, found in parts.items()}
    if IN_WAVES in whole:
        opened.append(
            [f"the whole, ratio to {IN_WAVES}", *(f"{part / whole[IN_WAVES]:.2f}" for part in whole.values())]
        )
    for step, name in (("available", "Deployment Available after"), ("synced", "Application Healthy after")):
        opened.append(
            [name, *_cells({variant: [run.opened for run in found] for variant, found in runs.items()}, step)]
        )
    ends = {variant: [run.closed for run in found] for variant, found in runs.items()}
    closed = [["seconds, median / p95", *head], *([name, *_cells(ends, step)] for name, step in STEPS.items())]
    return "\n".join([table("From a pull request to an app with its own data", opened), table("Closed", closed)])


def _cells(laps: Mapping[str, Sequence[Laps]], step: str) -> list[str]:
    return [pair([lap[step] for lap in found if step in lap]) for found in laps.values()]
