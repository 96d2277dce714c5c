"""The way from this machine to a clone's or store's server: the binding Secret, and a port of the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from coppice.cli.environment import through_tunnel
from coppice.cli.problems import Failure, explain
from coppice.cli.session import Session
from coppice.cli.words import next_step, state, title
from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.engines.base import Endpoint
from coppice.kube.errors import ForbiddenError, KubeError
from coppice.kube.portforward import LOOPBACK, PortStream, Tunnel
from coppice.manifests.meta import is_owned
from coppice.manifests.secret import CA, read_login, read_secret


@dataclass(frozen=True, slots=True)
class Reached:
    """A DataClone or DataStore that can be reached: the values of its binding, as they are from here."""

    of: Manifest
    values: Mapping[str, str] = field(repr=False)
    ca: str | None = None
    """The authority by which the server is known, where its clients begin with TLS."""


@asynccontextmanager
async def reached(session: Session, found: Manifest, port: int = 0) -> AsyncIterator[Reached]:
    """Open a tunnel to a clone or store. Each connection goes to what serves then: a reset does not end the tunnel."""
    values = await binding_of(session, found)
    async with _forwarded(session, lambda: _dial(session, found), port) as local:
        templates = (found["spec"].get("binding") or {}).get("keys") or {}
        yield Reached(found, through_tunnel(values, templates, host=LOOPBACK, port=local), values.get(CA))


@asynccontextmanager
async def written_to(session: Session, store: Manifest) -> AsyncIterator[Endpoint]:
    """Open a tunnel to an adopted database, with the login that approved changes are written with."""
    metadata, name = store["metadata"], store["spec"]["adopted"]["writer"]["secretName"]
    secret = await session.cluster.get("Secret", name, metadata["namespace"])
    login = None if secret is None else read_login(secret)
    if login is None:
        raise Failure(f"Secret {metadata['namespace']}/{name}, with which {title(store)} is written to, has no login")
    source = (store.get("status") or {}).get("source") or {}
    if "port" not in source:
        raise Failure(f"{title(store)} has no server that runs ({state(store)}): {next_step(store)}")

    async def dial() -> PortStream:
        return await _dialled(session, metadata["namespace"], source["pod"], source["port"])

    async with _forwarded(session, dial, 0) as local:
        yield Endpoint(LOOPBACK, local, login.username, login.password, guarded=True, ca=login.ca)


@asynccontextmanager
async def _forwarded(session: Session, dial: Callable[[], Awaitable[PortStream]], port: int) -> AsyncIterator[int]:
    """Open a tunnel from a port of this machine, any one for 0; what stands in its way is told."""
    tunnel = Tunnel(dial, lambda error: session.say(f"no connection: {explain(error)}"))
    # Here, and not by the program that finds its connection closed.
    await (await dial()).aclose()
    try:
        await tunnel.open(port)
    except OSError as error:
        raise Failure(f"port {port} of this machine cannot be used: {error}. Name another one, or none") from error
    try:
        yield tunnel.port
    finally:
        await tunnel.aclose()


async def binding_of(session: Session, found: Manifest) -> dict[str, str]:
    """Return the values of the object's Secret: of its own, and not of another one by that name."""
    if found["kind"] == "DataStore" and "managed" not in found["spec"]:
        raise Failure(
            f"{title(found)} is a server that Coppice has no login for others to: look at a clone of it instead, "
            f"coppice clone NAME --from {found['metadata']['namespace']}/{found['metadata']['name']}"
        )
    name = ((found.get("status") or {}).get("binding") or {}).get("name")
    if name is None:
        raise Failure(f"{title(found)} is not there yet ({state(found)}): {next_step(found)}")
    metadata = found["metadata"]
    secret = await session.cluster.get("Secret", name, metadata["namespace"])
    if secret is None or not is_owned(secret, metadata["uid"]):
        raise Failure(
            f"Secret {metadata['namespace']}/{name}, which has the login to {title(found)}, is not there: wait until "
            "the operator has made it anew, and look with coppice status"
        )
    return read_secret(secret)


async def _dial(session: Session, found: Manifest) -> PortStream:
    """Connect to the server that serves now; raises KubeError."""
    metadata = found["metadata"]
    namespace = metadata["namespace"]
    present = await session.cluster.get(found["kind"], metadata["name"], namespace)
    if present is None or present["metadata"]["uid"] != metadata["uid"]:
        raise KubeError(f"{title(found)} is gone")
    status = present.get("status") or {}
    pods = await session.cluster.list("Pod", namespace, _server_of(present))
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if not running or "endpoint" not in status:
        raise KubeError(f"{title(found)} has no server that runs ({state(present)}): {next_step(present)}")
    return await _dialled(session, namespace, running[0]["metadata"]["name"], status["endpoint"]["port"])


async def _dialled(session: Session, namespace: str, pod: str, port: int) -> PortStream:
    try:
        return await session.cluster.dial(namespace, pod, port)
    except ForbiddenError as error:
        raise ForbiddenError(
            f"connections to Pods of namespace {namespace} are refused: they take the verb create on pods/portforward, "
            "which the role edit has",
            status=error.status,
        ) from error


def _server_of(present: Manifest) -> dict[str, str]:
    """Return the labels of the Pod that serves: of a clone that of its present copy."""
    uid = present["metadata"]["uid"]
    if present["kind"] == "DataStore":
        return {labels.OWNER_UID: uid, labels.ROLE: "store"}
    copy = (present.get("status") or {}).get("copy", "")
    return {labels.OWNER_UID: uid, labels.ROLE: "clone", labels.COPY: copy}
