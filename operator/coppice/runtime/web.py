"""The operator's two ports: ``/metrics`` for Prometheus, ``/healthz`` and ``/readyz`` for the kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

if TYPE_CHECKING:
    from coppice.runtime.metrics import Metrics

Handler = Callable[[web.Request], Awaitable[web.Response]]
Check = Callable[[], Sequence[str]]
"""Returns what is wrong, in a line each; nothing when all is well."""


@asynccontextmanager
async def serve_metrics(port: int, metrics: Metrics, refresh: Callable[[], None]) -> AsyncIterator[int]:
    """Serve ``/metrics`` while the block runs; ``refresh`` sets the gauges before each answer. Yields the port."""

    async def answer(_: web.Request) -> web.Response:
        refresh()
        return _closing(web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}))

    async with _served(port, {"/metrics": answer}) as actual:
        yield actual


@asynccontextmanager
async def serve_probes(port: int, *, alive: Check, ready: Check) -> AsyncIterator[int]:
    """Serve the probes while the block runs: 200, or 500 with what is wrong. Yields the port."""
    async with _served(port, {"/healthz": _probe(alive), "/readyz": _probe(ready)}) as actual:
        yield actual


def _probe(check: Check) -> Handler:
    async def answer(_: web.Request) -> web.Response:
        problems = check()
        return _closing(web.Response(status=500 if problems else 200, text="\n".join(problems) or "ok"))

    return answer


def _closing(response: web.Response) -> web.Response:
    """Close the connection after this answer: at its end kopf waits for every task, idle connections included."""
    response.force_close()
    return response


@asynccontextmanager
async def _served(port: int, handlers: Mapping[str, Handler]) -> AsyncIterator[int]:
    application = web.Application()
    for path, handler in handlers.items():
        application.router.add_get(path, handler)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        # With port 0, IPv4 and IPv6 get a port each; an IPv4 address is the shorter tuple.
        yield min(runner.addresses, key=len)[1]
    finally:
        await runner.cleanup()
