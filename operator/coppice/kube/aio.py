"""The KubeClient of production: the official client's asyncio transport, without its typed models.

Objects stay JSON as the API server sends them, paths come from ``RESOURCES``, and one function turns every refusal
into ``coppice.kube.errors``. Requests are documented under https://kubernetes.io/docs/reference/using-api/api-concepts/
and, for apply, .../server-side-apply/.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client import ApiClient

from coppice.kube.client import FIELD_MANAGER, Caller
from coppice.kube.errors import (
    AlreadyExistsError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    KubeError,
    NotFoundError,
    TransientError,
)
from coppice.kube.portforward import HEARTBEAT_SECONDS, SUBPROTOCOL, WebSocketStream
from coppice.kube.resources import RESOURCES, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kubernetes.aio.client import Configuration

    from coppice.core.plan import Manifest, Ref

REQUEST_SECONDS: Final = 30.0
CHUNK: Final = 500
"""Objects per page of a list: large lists neither burst the server's memory nor ours."""

_JSON: Final = "application/json"
_MERGE: Final = "application/merge-patch+json"
"""RFC 7386."""
_APPLY: Final = "application/apply-patch+yaml"
"""JSON is YAML, so the body is JSON under this name."""

_WHOAMI: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
"""Everybody who is known to the API server may ask it who they are (ClusterRole system:basic-user)."""
_TRANSIENT: Final = frozenset({408, 429})
_NEW_NAMESPACE: Final = "error looking up service account"
"""Of a Pod's 403, in the words of the ServiceAccount admission plug-in: a namespace gets its account some time after it
is made, on a busy cluster seconds later."""
_GONE: Final = 410
"""On a list: the page token has expired (etcd compaction); the list is started over."""


class AioKubeClient:
    """Requests to one API server over one connection pool; ``aclose`` ends it.

    ``manager`` is whose writes they are: the operator's, if nobody else is named.
    """

    def __init__(
        self,
        configuration: Configuration,
        *,
        request_seconds: float = REQUEST_SECONDS,
        manager: str = FIELD_MANAGER,
    ) -> None:
        configuration.retries = None  # the work queue repeats, with its own backoff
        # Like kopf's own requests, ours ignore HTTPS_PROXY and ~/.netrc (a kubeconfig's proxy-url counts): with them,
        # aiohttp asks a thread twice per request.
        configuration.client_session_kwargs = {"trust_env": False}
        self._api = ApiClient(configuration)
        self._api.user_agent = manager
        self._manager = manager
        self._timeout = aiohttp.ClientTimeout(total=request_seconds)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, kind: str, name: str, namespace: str | None = None) -> Manifest | None:
        """Return the object, or None when there is none; NotFoundError when the cluster has no such kind."""
        try:
            return await self._json("GET", _path(RESOURCES[kind], namespace, name))
        except NotFoundError as error:
            if error.reason == "NotFound":
                return None
            raise

    async def list(
        self, kind: str, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Sequence[Manifest]:
        """Return all matching objects, consistent as of one moment; NotFoundError when the cluster has no such kind."""
        selector = ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
        return await self._list(kind, namespace, {"labelSelector": selector})

    async def survey(self, kind: str) -> Sequence[Manifest]:
        """Return all objects of a kind that are watched."""
        return await self._list(kind, None, {"labelSelector": RESOURCES[kind].selector})

    async def events_of(self, manifest: Manifest) -> Sequence[Manifest]:
        """Return the Events about exactly this object."""
        metadata = manifest["metadata"]
        selector = f"regarding.uid={metadata['uid']}"
        return await self._list("Event", metadata.get("namespace"), {"fieldSelector": selector})

    async def _list(self, kind: str, namespace: str | None, selectors: Mapping[str, str]) -> Sequence[Manifest]:
        resource = RESOURCES[kind]
        query = {"limit": str(CHUNK), **{name: selector for name, selector in selectors.items() if selector}}
        found: list[Manifest] = []
        while True:
            try:
                page = await self._json("GET", _path(resource, namespace), query)
            except KubeError as error:
                if error.status != _GONE or "continue" not in query:
                    raise
                del query["continue"]
                found.clear()
                continue
            # Items of a list carry no type of their own.
            typed = {"apiVersion": resource.api_version, "kind": kind}
            found += [{**typed, **item} for item in page.get("items") or ()]
            token = page["metadata"].get("continue")
            if not token:
                return found
            query["continue"] = token

    async def log_tail(self, namespace: str, pod: str, container: str, lines: int) -> str:
        """Return the last lines a container printed; empty when the Pod is gone or has not started."""
        path = f"{_path(RESOURCES['Pod'], namespace, pod)}/log"
        query = {"container": container, "tailLines": str(lines)}
        try:
            return (await self._send("GET", path, query)).decode(errors="replace")
        except NotFoundError:
            return ""
        except InvalidError as error:
            if "waiting to start" in str(error):
                return ""
            raise

    async def create(self, manifest: Manifest) -> Manifest:
        """Create an object; AlreadyExistsError when the name is taken."""
        resource, metadata = RESOURCES[manifest["kind"]], manifest["metadata"]
        path = _path(resource, metadata.get("namespace"))
        return await self._json("POST", path, {"fieldManager": self._manager}, manifest)

    async def apply(
        self, manifest: Manifest, *, manager: str = FIELD_MANAGER, force: bool = True, subresource: str | None = None
    ) -> Manifest:
        """Server-side apply; with ``metadata.uid`` set, a vanished or recreated object is a ConflictError."""
        query = {"fieldManager": manager, "force": str(force).lower()}
        return await self._json("PATCH", _path_of(manifest, subresource), query, manifest, content_type=_APPLY)

    async def replace(self, manifest: Manifest) -> Manifest:
        """Replace an object as a whole if it still has the ``metadata.resourceVersion`` given; ConflictError if not."""
        return await self._json("PUT", _path_of(manifest), {"fieldManager": FIELD_MANAGER}, manifest)

    async def prune(self, manifest: Manifest) -> Manifest:
        """Merge patch that takes away what is null in it, from exactly the version of the object that it names.

        Server-side apply cannot: it takes away only what its own field manager has set.
        """
        return await self._json(
            "PATCH", _path_of(manifest), {"fieldManager": FIELD_MANAGER}, manifest, content_type=_MERGE
        )

    async def amend(self, manifest: Manifest) -> Manifest:
        """Merge patch of exactly the version of the object that it names; ConflictError when that has changed since."""
        return await self._json(
            "PATCH", _path_of(manifest), {"fieldManager": self._manager}, manifest, content_type=_MERGE
        )

    async def whoami(self) -> Caller:
        """Return whom the API server takes us for."""
        question = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = await self._json("POST", _WHOAMI, {}, question)
        known = answer["status"]["userInfo"]
        return Caller(known["username"], tuple(known.get("groups") or ()))

    async def delete(self, ref: Ref) -> None:
        """Delete exactly this object; one that is gone or was recreated counts as deleted."""
        resource = RESOURCES[ref.kind]
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": ref.uid},
            # Always said: without it the API server leaves the Pods of a Job behind.
            "propagationPolicy": "Foreground" if resource.outlasts else "Background",
        }
        try:
            await self._send("DELETE", _path(resource, ref.namespace, ref.name), {}, body)
        except (NotFoundError, ConflictError):
            return

    async def dial(self, namespace: str, pod: str, port: int) -> WebSocketStream:
        """Open a connection to a port of a Pod; it ends with this client at the latest."""
        path = f"{_path(RESOURCES['Pod'], namespace, pod)}/portforward"
        _, url, headers, _, _ = await self._api.param_serialize(
            "GET", path, query_params=[("ports", str(port))], header_params={}, auth_settings=["BearerToken"]
        )
        rest = self._api.rest_client
        if rest.pool_manager is None:
            rest.pool_manager = rest._create_pool_manager()  # noqa: SLF001 - as the library's own WebSocket client does
        try:
            socket = await rest.pool_manager.ws_connect(
                url,
                headers=headers,
                protocols=(SUBPROTOCOL,),
                heartbeat=HEARTBEAT_SECONDS,
                max_msg_size=0,
                proxy=rest.proxy,
                proxy_headers=rest.proxy_headers,
                server_hostname=self._api.configuration.tls_server_name,
            )
        except aiohttp.WSServerHandshakeError as error:
            # The answer's body, which says more, is not to be had.
            raise _error(f"GET {path}", error.status, b"", error.headers or {}) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransientError(f"GET {path}: {error}") from error
        return WebSocketStream(socket)

    async def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        *,
        content_type: str = _JSON,
    ) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self._send(method, path, query, body, content_type=content_type))
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Manifest | None = None,
        *,
        content_type: str = _JSON,
    ) -> bytes:
        """Send one request and return the answer's body; raises KubeError for everything but success."""
        what = f"{method} {path}"
        try:
            _, url, headers, _, _ = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params={"Accept": _JSON, "Content-Type": content_type},
                auth_settings=["BearerToken"],
            )
            response = await self._api.call_api(method, url, headers, body, _request_timeout=self._timeout)
            payload: bytes = await response.read()
        except TimeoutError as error:
            raise TransientError(f"{what}: no answer within {self._timeout.total:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransientError(f"{what}: {error}") from error
        if response.status >= 300:
            raise _error(what, response.status, payload, response.headers)
        return payload


def _error(what: str, status: int, payload: bytes, headers: Mapping[str, str]) -> KubeError:
    """Return the exception for a refusal: the only place that knows HTTP codes."""
    answer = _status_object(payload)
    reason = answer.get("reason", "")
    message = f"{what}: {answer.get('message') or payload[:200].decode(errors='replace').strip() or status}"
    details = {"status": status, "reason": reason, "retry_after": _retry_after(answer, headers)}
    if status in _TRANSIENT or status >= 500 or (status == 403 and _NEW_NAMESPACE in message):
        return TransientError(message, **details)
    if status == 409 or _is_recreated(answer):
        return (AlreadyExistsError if reason == "AlreadyExists" else ConflictError)(message, **details)
    kinds: dict[int, type[KubeError]] = {
        400: InvalidError,
        403: ForbiddenError,
        404: NotFoundError,
        413: InvalidError,
        422: InvalidError,
    }
    # 401 is transient: the token has just been rotated, or the API server's authenticator is not up yet.
    return kinds.get(status, TransientError)(message, **details)


def _is_recreated(answer: Mapping[str, Any]) -> bool:
    """Return whether an apply met an object with another UID: 409 where it is gone, but 422 where the name is taken."""
    causes = (answer.get("details") or {}).get("causes") or ()
    return answer.get("code") == 422 and any(cause.get("field") == "metadata.uid" for cause in causes)


def _status_object(payload: bytes) -> dict[str, Any]:
    """Return the metav1.Status of an answer, or an empty one: a kind that does not exist is answered in plain text."""
    try:
        answer = json.loads(payload)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}


def _retry_after(answer: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    value = headers.get("Retry-After") or (answer.get("details") or {}).get("retryAfterSeconds")
    try:
        return float(value) if value else None
    except ValueError:
        return None


def _path_of(manifest: Manifest, subresource: str | None = None) -> str:
    metadata = manifest["metadata"]
    path = _path(RESOURCES[manifest["kind"]], metadata.get("namespace"), metadata["name"])
    return f"{path}/{subresource}" if subresource else path


def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    """Return the path of an object, or of a collection (of all namespaces when ``namespace`` is None)."""
    parts = ["apis", resource.group, resource.version] if resource.group else ["api", resource.version]
    if resource.namespaced and namespace:
        parts += ["namespaces", namespace]
    parts.append(resource.plural)
    if name is not None:
        if resource.namespaced and not namespace:
            raise ValueError(f"{resource.plural} {name} needs a namespace")
        parts.append(name)
    return "/" + "/".join(quote(part, safe="") for part in parts)
