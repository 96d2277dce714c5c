"""What runs while this replica leads: events in, keys through the queue, reconciliations out, all again now and then.

kopf knows nothing of this, and this nothing of kopf (``coppice.runtime.app`` joins them).
"""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from coppice.core import labels
from coppice.core.key import Key
from coppice.core.orphans import Orphan, find_orphans
from coppice.forges.board import Board
from coppice.forges.book import Book
from coppice.kube.cache import CachedKube, WatchCache
from coppice.kube.errors import KubeError, NotFoundError
from coppice.kube.resources import RESOURCES
from coppice.runtime.controller import Controller, Reconciler
from coppice.runtime.dependencies import Dependencies
from coppice.runtime.events import EventRecorder
from coppice.runtime.executor import Executor
from coppice.runtime.health import Watches
from coppice.runtime.metrics import Metrics
from coppice.runtime.pullrequests import PullRequestClones, count_answer, tell_forges
from coppice.runtime.queue import WorkQueue
from coppice.runtime.sweep import Sweeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from coppice.core.plan import Manifest
    from coppice.core.pullrequests import PullRequestKey
    from coppice.engines.base import Engine
    from coppice.kube.client import KubeClient
    from coppice.runtime.settings import Settings

logger = logging.getLogger(__name__)

RETRY_RESYNC_SECONDS: Final = 10.0
SECOND_RESYNC_SECONDS: Final = 10.0
"""How soon everything is looked at again after the first time. A watch begins some time after the workers do, on a busy
API server some time later than another: what was made and deleted before that, no event tells of."""
SETTLING: Final = 6
"""By how much later each further resync comes, until they come once in a period."""
SPREAD: Final = 0.1
"""The part of the time until the next resync over which keys come due: a user's change need not wait behind all."""

_LATE_RESYNCS: Final = 3
_SLOW_KINDS: Final = frozenset({"DataChangeRequest"})
"""Kinds whose reconciliation waits for a server to merge, or to fetch from another one, which may say nothing."""
_SLOW_PART: Final = 4
"""The part of the workers that these may have: a quarter."""


def _is_slow(key: Key) -> bool:
    return key.kind in _SLOW_KINDS


class Operator:
    """Everything that runs while this replica leads."""

    def __init__(
        self,
        settings: Settings,
        *,
        client: KubeClient,
        reconcilers: Iterable[Reconciler[Any]],
        engines: Mapping[str, Engine],
        forges: Book | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._client = client
        self._clock = clock
        self.metrics = Metrics()
        self.queue: WorkQueue[Key] = WorkQueue(slow=_is_slow, slow_limit=max(1, settings.workers // _SLOW_PART))
        self._dependencies = Dependencies()
        self._forges = forges if forges is not None else Book(clock=clock)
        self._board = Board(self._forges, clock=clock)
        self._pull_requests = PullRequestClones(self.metrics, self._forges)
        self._forges.report(self._on_news, partial(count_answer, self.metrics))
        self._recorder = EventRecorder(client, identity=settings.identity, clock=clock)
        self._cache = WatchCache()
        cached = CachedKube(client, self._cache)
        self._controller = Controller(
            reconcilers={reconciler.kind: reconciler for reconciler in reconcilers},
            reader=cached,
            live=client,
            executor=Executor(
                client=cached,
                live=client,
                engines=engines,
                recorder=self._recorder,
                board=self._board,
                metrics=self.metrics,
            ),
            dependencies=self._dependencies,
            metrics=self.metrics,
            clock=clock,
        )
        self._sweeper = Sweeper(client, self.metrics)
        self._watches = Watches()
        self._workers: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []
        self._listed = asyncio.Event()
        self._resynced_at: float | None = None
        self._started_at: float | None = None

    def on_event(self, kind: str, manifest: Manifest, *, deleted: bool) -> None:
        """Wake everybody whom a change of an object may concern."""
        metadata, key = manifest["metadata"], Key.of(kind, manifest)
        self._watches.event(key, metadata.get("resourceVersion", ""), _now(), deleted=deleted)
        if deleted:
            self._cache.deleted(kind, manifest)
            self._pull_requests.gone(key)
            if key.kind == PullRequestClones.KIND:
                self._board.gone(f"{key.namespace}/{key.name}")
        else:
            self._cache.take(kind, manifest)
            self._pull_requests.seen(key, manifest)
        for concerned in self._concerned(key, metadata.get("labels") or {}):
            self.queue.add(concerned)

    def start(self) -> None:
        """Start the workers, the resync, the posting of Events and the questions to forges."""
        self._started_at = _now()
        self.metrics.leading.set(1)
        self._workers = [
            asyncio.create_task(self._work(), name=f"worker {number}") for number in range(self._settings.workers)
        ]
        self._background = [
            asyncio.create_task(self._resync_forever(), name="resync"),
            asyncio.create_task(self._recorder.run(), name="events"),
            asyncio.create_task(self._forges.run(), name="forges"),
            asyncio.create_task(self._board.run(), name="notices on pull requests"),
        ]

    def stop(self) -> None:
        """Take up nothing more; what is being worked on goes on until ``drain``."""
        self.queue.close()

    async def drain(self) -> None:
        """Let the workers finish, for a while, and end everything."""
        self.stop()
        if self._workers:
            _, late = await asyncio.wait(self._workers, timeout=self._settings.drain.total_seconds())
            if late:
                logger.warning("%d reconciliations did not finish in time and are cut off", len(late))
        self.abort()
        await asyncio.gather(*self._workers, *self._background, return_exceptions=True)
        await self._recorder.flush()

    def abort(self) -> None:
        """Cut everything off at once: another replica may lead by now."""
        self.stop()
        self.metrics.leading.set(0)
        for task in (*self._workers, *self._background):
            task.cancel()

    def refresh_metrics(self) -> None:
        """Set the gauges that are read off the queue and the book of pull requests."""
        self.metrics.queue_depth.set(self.queue.depth)
        self.metrics.queue_oldest.set(self.queue.oldest_wait)
        tell_forges(self.metrics, self._forges)

    def ailments(self) -> list[str]:
        """Return why the process should be restarted, in a line each; nothing while it works or has not started."""
        if self._started_at is None:
            return []
        found = [f"no event of {kind} arrives any more" for kind in sorted(self._watches.silent(_now()))]
        if self.queue.longest_work > self._settings.stuck.total_seconds():
            found.append(f"a reconciliation has been running for {self.queue.longest_work:.0f} s")
        since = _now() - (self._started_at if self._resynced_at is None else self._resynced_at)
        if since > _LATE_RESYNCS * self._settings.resync.total_seconds():
            found.append(f"the last resync was {since:.0f} s ago")
        found += [f"{task.get_name()} has ended" for task in (*self._workers, *self._background) if task.done()]
        return found

    def unready(self) -> list[str]:
        """Return why this leader does not serve yet; nothing once it has listed its kinds."""
        if self._started_at is not None and self._resynced_at is None:
            return ["the kinds of Coppice have not been listed yet"]
        return []

    def _on_news(self, pull_request: PullRequestKey) -> None:
        """Wake the clones of a pull request of which something new is known."""
        for key in self._pull_requests.of(pull_request):
            self.queue.add(key)

    def _concerned(self, key: Key, object_labels: Mapping[str, str]) -> set[Key]:
        found = self._dependencies.readers_of(key, object_labels)
        if key.kind in self._controller.kinds:
            found.add(key)
        # Who owns a child is told by its labels, too: a key that has not been reconciled yet has read nothing.
        owner_kind = object_labels.get(labels.OWNER_KIND)
        if owner_kind in self._controller.kinds:
            name, namespace = object_labels.get(labels.OWNER_NAME), object_labels.get(labels.OWNER_NAMESPACE)
            if name and namespace:
                found.add(Key(owner_kind, namespace, name))
        return found

    async def _work(self) -> None:
        # Before, every look at an object would read what the lists are about to bring.
        await self._listed.wait()
        while (key := await self.queue.get()) is not None:
            try:
                outcome = await self._controller.run_once(key)
                if outcome.retry:
                    self.queue.retry(key, at_least=outcome.delay or 0.0)
                else:
                    self.queue.forget(key)
                    if outcome.delay is not None:
                        self.queue.add_after(key, outcome.delay)
            finally:
                self.queue.done(key)

    async def _resync_forever(self) -> None:
        period, settling = self._settings.resync.total_seconds(), SECOND_RESYNC_SECONDS
        while True:
            delay = min(period, settling)
            try:
                await self.resync(spread=delay * SPREAD)
                settling *= SETTLING
            except NotFoundError as error:
                logger.error("the CustomResourceDefinitions are not installed (kubectl apply -f crds/): %s", error)  # noqa: TRY400 - no bug
                delay = RETRY_RESYNC_SECONDS
            except KubeError as error:
                logger.warning("resync: %s", error)
                delay = RETRY_RESYNC_SECONDS
            self._listed.set()
            await asyncio.sleep(delay)

    async def resync(self, *, spread: float) -> None:
        """List everything: what no event has told of is found, and every object is looked at again.

        The first time at once, later within ``spread`` seconds. What was left behind is removed.
        """
        first = self._resynced_at is None
        owned = {kind: await self._list(kind) for kind in sorted(self._controller.kinds)}
        alive = {manifest["metadata"]["uid"] for found in owned.values() for manifest in found.values()}
        orphans: list[Orphan] = []
        for kind, resource in RESOURCES.items():
            if resource.cached and kind not in owned:
                orphans += await self._list_orphans(kind, alive)
        for key in chain.from_iterable(owned.values()):
            self._make_due(key, 0.0 if first else spread)
        self._resynced_at = _now()
        self.metrics.last_resync.set(self._clock().timestamp())
        await self._sweeper.sweep(orphans, self._resynced_at)

    async def _list_orphans(self, kind: str, alive: set[str]) -> tuple[Orphan, ...]:
        """Return the objects of a kind whose owner is gone; a store's data outlive it on purpose and are none."""
        try:
            found = await self._list(kind)
        except NotFoundError:
            self._cache.unlisted(kind)
            return ()
        orphans = find_orphans(found.values(), alive)
        if RESOURCES[kind].labelled:
            self.metrics.orphans.labels(kind).set(len(orphans))
        return orphans

    async def _list(self, kind: str) -> dict[Key, Manifest]:
        """List a kind of all namespaces; whose disappearance no event told is woken here."""
        begun, tick = _now(), self._cache.now()
        listed = await self._client.survey(kind)
        found = {Key.of(kind, manifest): manifest for manifest in listed}
        self._cache.listed(kind, found.values(), tick)
        if kind == PullRequestClones.KIND:
            self._pull_requests.listed(found)
        versions = {key: manifest["metadata"].get("resourceVersion", "") for key, manifest in found.items()}
        for key in self._watches.listed(kind, versions, begun):
            for concerned in self._concerned(key, {}):
                self.queue.add(concerned)
        return found

    def _make_due(self, key: Key, within: float) -> None:
        if within:
            self.queue.add_after(key, random.uniform(0, within))  # noqa: S311 - no secret
        else:
            self.queue.add(key)


def _now() -> float:
    return asyncio.get_running_loop().time()
