"""The operator as tests run it: in a thread with an event loop of its own, as a process would have it."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
from tests.unit.runtime.builders import CloneReconciler

from coppice.runtime.app import run_operator
from coppice.runtime.leader import Operator
from coppice.runtime.settings import Settings

SECONDS = 60


class Ended(Exception):  # noqa: N818 - it is what happened, not what went wrong
    """The operator has ended though nobody asked it to; the cause is what ended it."""


class Running:
    """An operator that runs."""

    def __init__(self) -> None:
        self.operator: Operator | None = None
        self.metrics_port = self.probes_port = 0
        self._task: asyncio.Task[None] | None = None
        self._stop: Callable[[], None] | None = None

    async def start(self, reconciler, settings: Settings) -> None:
        here, started = asyncio.get_running_loop(), asyncio.Event()

        async def main() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            self._stop = lambda: loop.call_soon_threadsafe(stop.set)

            def report(operator: Operator, metrics: int, probes: int) -> None:
                self.operator, self.metrics_port, self.probes_port = operator, metrics, probes
                here.call_soon_threadsafe(started.set)

            await run_operator(settings, reconcilers=[reconciler], engines={}, stop=stop, started=report)

        self._task = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(main())))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        self._require_alive()

    def request_stop(self) -> None:
        assert self._stop is not None
        self._stop()

    async def stopped(self) -> None:
        """Stop and wait for the end."""
        assert self._task is not None
        if not self._task.done():
            self.request_stop()
        await self._task

    async def until(self, condition: Callable[[], object | Awaitable[object]]) -> object:
        """Wait for what must come true; Ended if the operator ends meanwhile."""
        async with asyncio.timeout(SECONDS):
            while True:
                found = condition()
                if asyncio.iscoroutine(found):
                    found = await found
                if found:
                    return found
                self._require_alive()
                await asyncio.sleep(0.02)

    async def ended(self) -> None:
        """Wait for the operator to end by itself, and raise why."""
        assert self._task is not None
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({self._task})
        self._require_alive()

    async def probe(self, path: str) -> tuple[int, str]:
        """Ask a probe as the kubelet does."""
        return await self._fetch(self.probes_port, path)

    async def metrics(self) -> str:
        """Scrape."""
        return (await self._fetch(self.metrics_port, "/metrics"))[1]

    def _require_alive(self) -> None:
        assert self._task is not None
        if self._task.done():
            raise Ended from self._task.exception()

    @staticmethod
    async def _fetch(port: int, path: str) -> tuple[int, str]:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}{path}") as response:
            return response.status, await response.text()


@asynccontextmanager
async def running(reconciler=None, **settings):
    """Run the operator until the block ends."""
    values = {"identity": "a", "metrics_port": 0, "probes_port": 0, "resync": timedelta(seconds=600), **settings}
    process = Running()
    await process.start(reconciler or CloneReconciler(), Settings(**values))
    try:
        yield process
    except Ended:
        raise
    except BaseException:
        process.request_stop()
        raise
    else:
        await process.stopped()
