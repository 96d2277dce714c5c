"""An API server over HTTP that can have bad days: the in-memory world behind the paths and streams that clients use.

What it answers well it takes from ``tests.fakes.kube``; beyond that a test can let it refuse, hang, hang up, forget its history,
lose, repeat and shuffle events. The discovery documents are built from the table of resources.
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from tests.fakes.kube import FakeKube

from coppice.core.plan import Ref
from coppice.kube.errors import KubeError
from coppice.kube.resources import RESOURCES, Resource

CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", ("get", "list", "watch"), namespaced=False)
TABLE = RESOURCES | {"CustomResourceDefinition": CRDS}
ALL_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def kubeconfig(url: str, token: str = "sesame") -> str:
    """Return a kubeconfig for clients that want a file."""
    return f"""
        apiVersion: v1
        kind: Config
        current-context: c
        contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
        clusters: [{{name: c, cluster: {{server: "{url}"}}}}]
        users: [{{name: u, user: {{token: {token}}}}}]
        """


@dataclass
class Fault:
    """An answer to give instead of the right one, for the next ``times`` requests that match."""

    times: int
    matches: Callable[[web.Request], bool]
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    hang: bool = False
    hang_up: bool = False
    act: bool = False
    """Do what was asked before the answer gets lost."""


@dataclass(eq=False)
class Stream:
    """One watch: what it selects and what is still to be sent."""

    kind: str
    namespace: str | None
    selector: str
    outbox: "asyncio.Queue[bytes | None]" = field(default_factory=asyncio.Queue)

    def selects(self, manifest: dict[str, Any]) -> bool:
        metadata = manifest["metadata"]
        return (
            manifest["kind"] == self.kind
            and self.namespace in {None, metadata.get("namespace")}
            and _matches(self.selector, manifest)
        )

    def send(self, kind: str, manifest: dict[str, Any]) -> None:
        self.outbox.put_nowait(json.dumps({"type": kind, "object": manifest}).encode() + b"\n")


class HttpApi:
    """The server; ``kube`` is its world, the rest are its moods."""

    def __init__(self, kube: FakeKube | None = None) -> None:
        self.kube = kube or FakeKube()
        self.kube.subscribe(self._on_change)
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.token = ""
        """The bearer token to insist on, if any."""
        self.deaf = False
        """Changes are not streamed: events get lost without a trace."""
        self.repeat = 1
        """How often each event is streamed."""
        self.shuffle = False
        """Each event is preceded by the older ones of the same object, newest first."""
        self._streams: list[Stream] = []
        self._history: list[tuple[int, str, dict[str, Any]]] = []
        self._oldest = 0

    # --- moods -------------------------------------------------------------------------------------------------------------

    def fail(self, times: int = 1, *, method: str | None = None, path: str = "", **fault: Any) -> None:
        """Answer the next requests with this method and this part of the path wrongly; watches are not meant."""

        def matches(request: web.Request) -> bool:
            watching = request.query.get("watch") == "true"
            return not watching and method in {None, request.method} and path in request.path

        self.faults.append(Fault(times, matches, **fault))

    def forget_history(self) -> None:
        """Compact: whoever wants to go on from an older version gets 410, in the middle of its stream."""
        self._oldest = self._latest() + 1
        self._history.clear()
        for stream in self._streams:
            stream.send("ERROR", _status(410, "Expired", "too old resource version"))
            stream.outbox.put_nowait(None)

    def break_streams(self, code: int) -> None:
        """Send an error event on every stream."""
        for stream in self._streams:
            stream.send("ERROR", _status(code, "InternalError", "etcd is unhappy"))

    def install(self, kind: str) -> None:
        """Install the definition of a kind that was missing, and tell who watches definitions."""
        self.kube.missing_kinds.discard(kind)
        resource = TABLE[kind]
        metadata = {"name": f"{resource.plural}.{resource.group}", "resourceVersion": "1"}
        for stream in self._streams:
            if stream.kind == "CustomResourceDefinition":
                stream.send("ADDED", {"metadata": metadata, "spec": {"group": resource.group}})

    def hang_up_streams(self) -> None:
        """Close every stream without a word."""
        for stream in self._streams:
            stream.outbox.put_nowait(None)

    # --- serving -----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def serve(self) -> Any:
        """Serve on a free port of the loopback while the block runs; yields the URL."""
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            self.hang_up_streams()
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return web.json_response(_status(401, "Unauthorized", "unknown token"), status=401)
        fault = self._fault_for(request)
        if fault is None:
            return await self._right_answer(request)
        if fault.act:
            await self._right_answer(request)
        if fault.hang:
            await asyncio.sleep(3600)
        if fault.hang_up:
            assert request.transport is not None
            request.transport.close()
        return web.json_response(
            _status(fault.status, "Fault", "a bad day"), status=fault.status, headers=fault.headers
        )

    def _fault_for(self, request: web.Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request):
                fault.times -= 1
                return fault
        return None

    async def _right_answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        document = _discovery(parts, self.kube.missing_kinds)
        if document is not None:
            return web.json_response(document)
        target = _target(parts)
        if target is None:
            return web.Response(status=404, text="404 page not found\n")
        kind, namespace, name, subresource = target
        if kind in self.kube.missing_kinds:
            return web.Response(status=404, text="404 page not found\n")
        if request.query.get("watch") == "true":
            return await self._watch(request, kind, namespace)
        try:
            return web.json_response(await self._act(request, kind, namespace, name, subresource))
        except KubeError as error:
            status = error.status or 500
            return web.json_response(_status(status, error.reason or "Unknown", str(error)), status=status)

    async def _act(
        self, request: web.Request, kind: str, namespace: str | None, name: str | None, subresource: str | None
    ) -> dict[str, Any]:
        if kind == "CustomResourceDefinition":
            return _list(kind, [], self._latest())
        if request.method == "GET" and name is None:
            found = [entry for entry in await self.kube.list(kind, namespace) if _matches(_selector(request), entry)]
            return _list(kind, found, self._latest())
        if request.method == "GET":
            found = await self.kube.get(kind, name or "", namespace)
            return dict(found) if found else _refuse(404, "NotFound", f"{kind} {name} not found")
        return await self._write(request, kind, namespace, name, subresource)

    async def _write(
        self, request: web.Request, kind: str, namespace: str | None, name: str | None, subresource: str | None
    ) -> dict[str, Any]:
        body = await request.json()
        if request.method == "POST":
            return dict(await self.kube.create(body))
        if request.method == "PATCH":
            force = request.query.get("force") == "true"
            manager = request.query["fieldManager"]
            return dict(await self.kube.apply(body, manager=manager, force=force, subresource=subresource))
        if request.method == "PUT":
            return dict(await self.kube.replace(body))
        uid = (body.get("preconditions") or {}).get("uid", "")
        await self.kube.delete(Ref(TABLE[kind].api_version, kind, name or "", uid, namespace))
        return _status(200, "", "")

    async def _watch(self, request: web.Request, kind: str, namespace: str | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        stream = Stream(kind, namespace, _selector(request))
        since = int(request.query.get("resourceVersion") or 0)
        if since + 1 < self._oldest:
            stream.send("ERROR", _status(410, "Expired", "too old resource version"))
            stream.outbox.put_nowait(None)
        for version, change, manifest in self._history:
            if version > since and stream.selects(manifest) and not self.deaf:
                stream.send(change, manifest)
        self._streams.append(stream)
        try:
            while (line := await stream.outbox.get()) is not None:
                await response.write(line)
        except ConnectionError:
            pass
        finally:
            self._streams.remove(stream)
        return response

    def _on_change(self, change: str, manifest: Any) -> None:
        events = [(change, manifest)]
        if self.shuffle:
            uid = manifest["metadata"]["uid"]
            older = [(kind, seen) for _, kind, seen in self._history if seen["metadata"]["uid"] == uid]
            events = [*reversed(older), *events]
        self._history.append((self._latest(), change, manifest))
        if self.deaf:
            return
        for stream in self._streams:
            for kind, seen in events * self.repeat:
                if stream.selects(seen):
                    stream.send(kind, seen)

    def _latest(self) -> int:
        return self.kube._version


def _selector(request: web.Request) -> str:
    return str(request.query.get("labelSelector", ""))


def _matches(selector: str, manifest: Any) -> bool:
    """Return whether an object has the labels asked for: of a value, or of any."""
    found = manifest["metadata"].get("labels") or {}
    asked = (part.partition("=") for part in selector.split(",") if part)
    return all(name in found and (not equals or found[name] == value) for name, equals, value in asked)


def _target(parts: list[str]) -> tuple[str, str | None, str | None, str | None] | None:
    """Return kind, namespace, name and subresource of a path."""
    prefix = 2 if parts[0] == "api" else 3
    group_version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
    rest = parts[prefix:]
    namespace = None
    if len(rest) > 2 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    for kind, resource in TABLE.items():
        if rest and resource.api_version == group_version and resource.plural == rest[0]:
            name, subresource = [*rest[1:], None, None][:2]
            return kind, namespace, name, subresource
    return None


def _discovery(parts: list[str], missing: set[str]) -> dict[str, Any] | None:
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["apis"]:
        return {"kind": "APIGroupList", "groups": list(_groups(missing))}
    group_version = "/".join(parts[1:])
    known = {kind: resource for kind, resource in TABLE.items() if kind not in missing}
    resources = {kind: resource for kind, resource in known.items() if resource.api_version == group_version}
    if parts[0] not in {"api", "apis"} or not resources:
        return None
    return {
        "kind": "APIResourceList",
        "groupVersion": group_version,
        "resources": [entry for kind, resource in resources.items() for entry in _resources(kind, resource)],
    }


def _groups(missing: set[str]) -> Iterator[dict[str, Any]]:
    known = [resource for kind, resource in TABLE.items() if kind not in missing and resource.group]
    for group, version in sorted({(resource.group, resource.version) for resource in known}):
        preferred = {"groupVersion": f"{group}/{version}", "version": version}
        yield {"name": group, "versions": [preferred], "preferredVersion": preferred}


def _resources(kind: str, resource: Resource) -> Iterator[dict[str, Any]]:
    entry = {"kind": kind, "name": resource.plural, "singularName": kind.lower(), "namespaced": resource.namespaced}
    yield {**entry, "verbs": ALL_VERBS}
    yield {**entry, "name": f"{resource.plural}/status", "verbs": ["get", "patch", "update"]}


def _list(kind: str, items: list[Any], version: int) -> dict[str, Any]:
    return {
        "apiVersion": TABLE[kind].api_version,
        "kind": f"{kind}List",
        "metadata": {"resourceVersion": str(version)},
        "items": items,
    }


def _status(code: int, reason: str, message: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Status", "code": code, "reason": reason, "message": message}


def _refuse(code: int, reason: str, message: str) -> Any:
    raise KubeError(message, status=code, reason=reason)
