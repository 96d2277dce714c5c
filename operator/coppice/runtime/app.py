"""The operator as a process: lease first, then kopf for the watches, then an orderly end.

kopf is used for what it is best at, and for nothing else: low-level event handlers put no annotation, no finalizer and
no status on any object (the settings below are explained at their fields in ``kopf.OperatorSettings``).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any, Final, cast

import kopf

from coppice.core import labels
from coppice.forges.book import Book
from coppice.kube.aio import AioKubeClient
from coppice.kube.lease import Lease, LeaseTerms
from coppice.kube.login import load_configuration
from coppice.kube.resources import RESOURCES
from coppice.runtime.leader import Operator
from coppice.runtime.login import connection_info
from coppice.runtime.web import serve_metrics, serve_probes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from coppice.engines.base import Engine
    from coppice.runtime.controller import Reconciler
    from coppice.runtime.settings import Settings

logger = logging.getLogger(__name__)

LEASE_REQUEST_SECONDS: Final = 5.0
UNUSED_FINALIZER: Final = f"{labels.PREFIX}/kopf-unused"
"""kopf removes its finalizer from every object it sees; under the default name it would remove other operators'."""


async def run_operator(
    settings: Settings,
    *,
    reconcilers: Iterable[Reconciler[Any]],
    engines: Mapping[str, Engine],
    forges: Book | None = None,
    stop: asyncio.Event | None = None,
    started: Callable[[Operator, int, int], None] | None = None,
) -> None:
    """Lead when it is our turn, and serve until ``stop`` is set or a signal arrives.

    Raises ``coppice.kube.lease.LeaseLostError``, after which the process must end at once, and whatever ended kopf.
    ``started`` is called with the operator and the ports of metrics and probes.
    """
    stop = stop or asyncio.Event()
    async with AsyncExitStack() as stack:
        client = AioKubeClient(await load_configuration())
        stack.push_async_callback(client.aclose)
        forges = forges if forges is not None else Book()
        stack.push_async_callback(forges.aclose)
        operator = Operator(settings, client=client, reconcilers=reconcilers, engines=engines, forges=forges)
        metrics = serve_metrics(settings.metrics_port, operator.metrics, operator.refresh_metrics)
        probes = serve_probes(settings.probes_port, alive=operator.ailments, ready=operator.unready)
        ports = await stack.enter_async_context(metrics), await stack.enter_async_context(probes)
        # Renewing the lease must not wait for a connection behind reconciliations.
        lease_client = AioKubeClient(await load_configuration(), request_seconds=LEASE_REQUEST_SECONDS)
        stack.push_async_callback(lease_client.aclose)
        lease = Lease(
            lease_client,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.identity,
            terms=LeaseTerms(),
        )
        if started is not None:
            started(operator, *ports)
        _on_signals(stop.set)  # until kopf, which has handlers of its own, takes over
        if await _acquired(lease, stop):
            await _lead(lease, operator, stop)


async def _acquired(lease: Lease, stop: asyncio.Event) -> bool:
    """Wait for the lease; False if the operator is stopped before it comes."""
    acquiring = asyncio.create_task(lease.acquire())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({acquiring, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if acquiring.done():
        await acquiring
        return True
    acquiring.cancel()
    with suppress(asyncio.CancelledError):
        await acquiring
    await lease.release()
    return False


async def _lead(lease: Lease, operator: Operator, stop: asyncio.Event) -> None:
    """Serve for as long as the lease is held, and give it back only when everything has ended."""
    holding = asyncio.create_task(lease.hold(), name="lease")
    serving = asyncio.create_task(_serve(operator, stop), name="kopf")
    try:
        await asyncio.wait({holding, serving}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await holding
    finally:
        if not serving.done():
            operator.abort()
            serving.cancel()
            await asyncio.wait({serving}, timeout=LEASE_REQUEST_SECONDS)
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)
    await lease.release()
    await serving


async def _serve(operator: Operator, stop: asyncio.Event) -> None:
    await kopf.operator(
        registry=build_registry(operator),
        settings=build_settings(),
        clusterwide=True,
        standalone=True,
        # Left out, kopf makes one from the name of the system's user; a Pod's user need not have one.
        identity=cast("Any", "coppice"),
        stop_flag=stop,
    )


def build_registry(operator: Operator) -> kopf.OperatorRegistry:
    """Return kopf's handlers: one per watched kind, the login, and the start and end of the workers."""
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(id="start-workers", registry=registry)
    async def start(**_: Any) -> None:
        operator.start()

    @kopf.on.cleanup(id="drain-workers", registry=registry)
    async def drain(**_: Any) -> None:
        await operator.drain()

    @kopf.on.login(id="login", registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(await load_configuration())

    for kind, resource in RESOURCES.items():
        if resource.watched:
            where = (resource.group, resource.version, resource.plural)
            watch = kopf.on.event(*where, id=f"watch-{resource.plural}", registry=registry)
            watch(_handler(operator, kind))
    return registry


def _handler(operator: Operator, kind: str) -> Callable[..., Any]:
    async def enqueue(event: Mapping[str, Any], **_: Any) -> None:
        operator.on_event(kind, event["object"], deleted=event["type"] == "DELETED")

    return enqueue


class NothingToCompare(kopf.DiffBaseStorage):
    """kopf compares each object with what it was, for handlers of a kind that we have none of: half of its work."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        """Return that nothing in an object is worth comparing."""
        return cast("kopf.BodyEssence", {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        """Return that nothing was stored."""
        return None

    def store(self, **_: Any) -> None:
        """Store nothing."""


def build_settings() -> kopf.OperatorSettings:
    """Return kopf's settings: watch, and touch nothing."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.persistence.finalizer = UNUSED_FINALIZER
    settings.persistence.diffbase_storage = NothingToCompare()
    settings.networking.request_timeout = 30
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 630
    settings.watching.chunk_size = 500
    for resource in RESOURCES.values():
        if resource.watched and resource.selector:
            where = (resource.group, resource.version, resource.plural)
            settings.watching.label_selectors[where] = resource.selector
    return settings


def _on_signals(act: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    # Only the main thread can be told of signals; elsewhere (in tests) there is the stop event.
    with suppress(RuntimeError, ValueError):
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, act)
