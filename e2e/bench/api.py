"""The cluster as the benchmarks meet it: requests without the time that kubectl takes to start, and watches that stamp
every change with the moment it was seen.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from coppice.core.plan import Ref
from coppice.kube.aio import AioKubeClient
from coppice.kube.login import load_configuration
from coppice.kube.resources import RESOURCES, Resource
from coppice.reconcile.observed import pod_state

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from pathlib import Path

Manifest = dict[str, Any]
PATIENCE_SECONDS: Final = 600.0
DELETED: Final = "DELETED"
KINDS: Final = {**RESOURCES, "Application": Resource("argoproj.io", "v1alpha1", "applications", ())}
"""What can be watched."""
_PAUSE_SECONDS: Final = 0.2
_LINE_LIMIT: Final = 8 * 1024 * 1024


class BenchError(RuntimeError):
    """A figure cannot be taken; the message says why."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A change of an object; ``at`` is the machine's clock when the event was read, in seconds."""

    at: float
    change: str
    manifest: Manifest


@dataclass(slots=True)
class _Waiting:
    test: Callable[[Seen], bool]
    found: asyncio.Future[Seen]


class Api:
    """Requests, and what the watches have seen since ``forget``."""

    def __init__(self, client: AioKubeClient, session: aiohttp.ClientSession, server: str) -> None:
        self.client = client
        self._session = session
        self._server = server
        self._log: defaultdict[str, list[Seen]] = defaultdict(list)
        self._waiting: defaultdict[str, list[_Waiting]] = defaultdict(list)
        self._tasks: list[asyncio.Task[None]] = []
        self._present: dict[tuple[str, str, str], Manifest] = {}

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object."""
        return dict(await self.client.create(manifest))

    async def delete(self, manifest: Manifest) -> None:
        """Delete exactly this object."""
        await self.client.delete(Ref.of(manifest))

    async def raw(self, path: str) -> Any:
        """Return what the API server answers at a path: JSON, or text where it is none."""
        async with self._session.get(self._server + path) as response:
            response.raise_for_status()
            text = await response.text()
        return json.loads(text) if text.startswith(("{", "[")) else text

    async def watch(self, namespace: str | None, kinds: Iterable[str]) -> None:
        """Begin to watch kinds in a namespace, or in all; return when all watches stand."""
        for kind in kinds:
            await self._begin(namespace, kind, self._take)

    async def listen(self, kind: str, listener: Callable[[Seen], None]) -> None:
        """Call back with every change of a kind in all namespaces, and remember none of them."""
        await self._begin(None, kind, lambda _, seen: listener(seen))

    async def _begin(self, namespace: str | None, kind: str, take: Callable[[str, Seen], None]) -> None:
        standing = asyncio.Event()
        task = asyncio.create_task(self._watch(kind, namespace, standing, take), name=f"watch {kind}")
        task.add_done_callback(self._watch_ended)
        self._tasks.append(task)
        stands = asyncio.create_task(standing.wait())
        await asyncio.wait({task, stands}, return_when=asyncio.FIRST_COMPLETED)
        stands.cancel()
        if task.done():
            await task

    def _watch_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            return
        error = BenchError(f"the {task.get_name()} ended: {task.exception()}")
        for waiting in (entry for entries in self._waiting.values() for entry in entries):
            if not waiting.found.done():
                waiting.found.set_exception(error)

    async def _watch(
        self, kind: str, namespace: str | None, standing: asyncio.Event, take: Callable[[str, Seen], None]
    ) -> None:
        resource = KINDS[kind]
        place = f"/namespaces/{namespace}" if namespace is not None else ""
        prefix = f"/apis/{resource.group}" if resource.group else "/api"
        url = f"{self._server}{prefix}/{resource.version}{place}/{resource.plural}?watch=true&timeoutSeconds=7200"
        while True:
            async with self._session.get(url) as response:
                if response.status == HTTPStatus.TOO_MANY_REQUESTS:  # the server's cache of a new kind is not up yet
                    await asyncio.sleep(_PAUSE_SECONDS)
                    continue
                response.raise_for_status()
                standing.set()
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise BenchError(f"the watch of {kind} broke: {event['object'].get('message')}")
                    take(kind, Seen(time.time(), event["type"], event["object"]))
                return

    def _take(self, kind: str, seen: Seen) -> None:
        metadata = seen.manifest["metadata"]
        key = (kind, metadata.get("namespace", ""), metadata["name"])
        if seen.change == DELETED:
            self._present.pop(key, None)
        else:
            self._present[key] = seen.manifest
        self._log[kind].append(seen)
        for waiting in tuple(self._waiting[kind]):
            if not waiting.found.done() and waiting.test(seen):
                waiting.found.set_result(seen)

    async def until(self, kind: str, test: Callable[[Seen], bool], what: str) -> Seen:
        """Return the first change since ``forget`` that passes a test. Raises BenchError after a while, or when a watch
        has ended.
        """
        for seen in self._log[kind]:
            if test(seen):
                return seen
        waiting = _Waiting(test, asyncio.get_running_loop().create_future())
        self._waiting[kind].append(waiting)
        try:
            return await asyncio.wait_for(waiting.found, PATIENCE_SECONDS)
        except TimeoutError:
            raise BenchError(f"waited {PATIENCE_SECONDS:.0f} s in vain until {what}") from None
        finally:
            self._waiting[kind].remove(waiting)

    async def gone(self, kind: str, names: Callable[[Manifest], bool]) -> None:
        """Wait until no object of a kind that the test selects is there any more."""
        while left := self.present(kind, names):
            uid = left[0]["metadata"]["uid"]
            await self.until(
                kind,
                lambda seen, uid=uid: seen.change == DELETED and seen.manifest["metadata"]["uid"] == uid,  # type: ignore[misc]
                f"{kind} {left[0]['metadata']['name']} is gone",
            )

    def present(self, kind: str, test: Callable[[Manifest], bool]) -> list[Manifest]:
        """Return the objects of a watched kind that are there as far as the watches have seen."""
        return [manifest for (of, _, _), manifest in self._present.items() if of == kind and test(manifest)]

    def forget(self) -> None:
        """Drop what was seen."""
        self._log.clear()

    async def aclose(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def connect(kubeconfig: Path) -> AsyncIterator[Api]:
    """Open the way to a cluster's API server."""
    environment = {"KUBECONFIG": str(kubeconfig)}
    configuration = await load_configuration(environment)
    trust = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        trust.load_cert_chain(configuration.cert_file, configuration.key_file)
    token = await configuration.get_api_key_with_prefix("BearerToken")
    headers = {"Authorization": token} if token else {}
    client = AioKubeClient(await load_configuration(environment))
    connector = aiohttp.TCPConnector(ssl=trust, limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, timeout=timeout, read_bufsize=_LINE_LIMIT
    ) as session:
        api = Api(client, session, configuration.host)
        try:
            yield api
        finally:
            await api.aclose()
            await client.aclose()


def named(namespace: str, name: str) -> Callable[[Seen], bool]:
    """Return the test for changes, other than its end, of one object."""

    def test(seen: Seen) -> bool:
        metadata = seen.manifest["metadata"]
        return seen.change != DELETED and metadata["name"] == name and metadata.get("namespace", "") == namespace

    return test


def vanished(namespace: str, name: str) -> Callable[[Seen], bool]:
    """Return the test for the end of one object."""

    def test(seen: Seen) -> bool:
        metadata = seen.manifest["metadata"]
        return seen.change == DELETED and metadata["name"] == name and metadata.get("namespace", "") == namespace

    return test


def ending(seen: Seen) -> bool:
    """Return whether an object is being deleted."""
    return seen.change == DELETED or "deletionTimestamp" in seen.manifest["metadata"]


def both(*tests: Callable[[Seen], bool]) -> Callable[[Seen], bool]:
    """Return the test that asks for all of several."""
    return lambda seen: all(test(seen) for test in tests)


def labelled(key: str, value: str) -> Callable[[Seen], bool]:
    """Return the test for changes, other than its end, of an object with a label."""
    return lambda seen: seen.change != DELETED and (seen.manifest["metadata"].get("labels") or {}).get(key) == value


def bound(seen: Seen) -> bool:
    """Return whether a claim has its volume."""
    return bool((seen.manifest.get("status") or {}).get("phase") == "Bound")


def restorable(seen: Seen) -> bool:
    """Return whether a VolumeSnapshot can be restored."""
    return bool((seen.manifest.get("status") or {}).get("readyToUse"))


def running(seen: Seen) -> bool:
    """Return whether all containers of a Pod run."""
    states = (seen.manifest.get("status") or {}).get("containerStatuses") or []
    return bool(states) and all("running" in (entry.get("state") or {}) for entry in states)


def succeeded(seen: Seen) -> bool:
    """Return whether a Pod has done its work, though kubelet may call it Succeeded only later."""
    return pod_state(seen.manifest).succeeded


def says(condition: str) -> Callable[[Seen], bool]:
    """Return the test for an object of which a condition is True."""

    def test(seen: Seen) -> bool:
        conditions = (seen.manifest.get("status") or {}).get("conditions") or []
        return any(entry["type"] == condition and entry["status"] == "True" for entry in conditions)

    return test


def ready(seen: Seen) -> bool:
    """Return whether an object says that it is Ready."""
    return says("Ready")(seen)
