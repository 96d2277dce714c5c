"""The operator as it is released, with servers that answer at once: kopf, client, queue, reconcilers and executor are
the real ones, and only the databases are none. It counts its own requests and tells them with its other metrics.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import Counter

from coppice.core.pullrequests import NoForges
from coppice.engines.base import Activity, BranchState, Content, Version
from coppice.engines.dolt import DoltEngine
from coppice.kube.aio import AioKubeClient
from coppice.runtime import logs
from coppice.runtime.app import run_operator
from coppice.runtime.main import build_reconcilers
from coppice.runtime.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from coppice.engines.base import Endpoint, Reference
    from coppice.runtime.leader import Operator

DATABASE: Final = "shop"
HEAD: Final = "0" * 32
ROOT: Final = "1" * 32
CONTENT: Final = Content("1.83.2", DATABASE, "main", (DATABASE,), (BranchState(DATABASE, "main", HEAD, ROOT),))
REQUESTS: Final = Counter("bench_requests_total", "Requests but watches.", ["verb", "resource"], registry=None)
_RESOURCE: Final = re.compile(r"^/(?:api|apis/[^/]+)/[^/]+/(?:namespaces/[^/]+/(?=.))?([^/]+)(/[^/]+)?")


class InstantDolt(DoltEngine):
    """Dolt whose servers all hold the same, and say so without being asked over a network."""

    async def inspect(self, at: Endpoint, *, database: str | None = None) -> Content:
        """Return the one content there is."""
        del at, database
        return CONTENT

    async def resolve(self, at: Endpoint, database: str, reference: Reference) -> Version:
        """Return the one version there is."""
        del at, database, reference
        return Version(DATABASE, "main", HEAD, ROOT)

    async def contains(self, at: Endpoint, database: str, commit: str, heads: tuple[str, ...]) -> bool:
        """Return whether it is the one commit."""
        del at, database
        return commit in heads

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        """Do nothing."""

    async def activity(self, at: Endpoint) -> Activity:
        """Return that nobody did anything."""
        del at
        return Activity("", 0)


def count_requests() -> None:
    """Count what every client sends from now on."""
    send = AioKubeClient._send  # noqa: SLF001 - nothing public is passed by all requests

    async def counted(self: AioKubeClient, method: str, path: str, *rest: Any, **more: Any) -> bytes:
        found = _RESOURCE.match(path)
        verb = "LIST" if method == "GET" and found is not None and found[2] is None else method
        REQUESTS.labels(verb, found[1] if found is not None else path).inc()
        return await send(self, method, path, *rest, **more)

    AioKubeClient._send = counted  # type: ignore[method-assign]  # noqa: SLF001


async def main() -> None:
    """Run until a signal comes."""
    settings = dataclasses.replace(read_settings(), images={"dolt": {"1.83": "dolt"}})
    engines = {"dolt": InstantDolt()}

    def started(operator: Operator, metrics: int, probes: int) -> None:
        del metrics, probes
        operator.metrics.registry.register(REQUESTS)

    logs.set_up(settings.log_level)
    count_requests()
    await run_operator(
        settings, reconcilers=build_reconcilers(settings, engines, NoForges()), engines=engines, started=started
    )


asyncio.run(main())
