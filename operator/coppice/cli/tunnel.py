"""The way from this machine to a clone: its binding Secret, and a port of the loopback that leads to its server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from coppice.cli.environment import through_tunnel
from coppice.cli.problems import Failure, explain
from coppice.cli.session import Session
from coppice.cli.words import next_step, state, title
from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.kube.errors import ForbiddenError, KubeError
from coppice.kube.portforward import LOOPBACK, PortStream, Tunnel
from coppice.manifests.meta import is_owned
from coppice.manifests.secret import read_secret


@dataclass(frozen=True, slots=True)
class Reached:
    """A clone that can be reached: the values of its binding, as they are from here."""

    clone: Manifest
    values: Mapping[str, str] = field(repr=False)


@asynccontextmanager
async def reached(session: Session, clone: Manifest, port: int = 0) -> AsyncIterator[Reached]:
    """Open a tunnel to a clone. Each connection goes to the copy that serves then: a reset does not end the tunnel."""
    values = await _binding(session, clone)
    tunnel = Tunnel(lambda: _dial(session, clone), lambda error: session.say(f"no connection: {explain(error)}"))
    # What stands in the way is told here, and not by the program that finds its connection closed.
    await (await _dial(session, clone)).aclose()
    try:
        await tunnel.open(port)
    except OSError as error:
        raise Failure(f"port {port} of this machine cannot be used: {error}. Name another one, or none") from error
    try:
        templates = (clone["spec"].get("binding") or {}).get("keys") or {}
        yield Reached(clone, through_tunnel(values, templates, host=LOOPBACK, port=tunnel.port))
    finally:
        await tunnel.aclose()


async def _binding(session: Session, clone: Manifest) -> dict[str, str]:
    """Return the values of the clone's Secret: of its own, and not of another one by that name."""
    name = ((clone.get("status") or {}).get("binding") or {}).get("name")
    if name is None:
        raise Failure(f"{title(clone)} is not there yet ({state(clone)}): {next_step(clone)}")
    metadata = clone["metadata"]
    secret = await session.cluster.get("Secret", name, metadata["namespace"])
    if secret is None or not is_owned(secret, metadata["uid"]):
        raise Failure(
            f"Secret {metadata['namespace']}/{name}, which has the login to {title(clone)}, is not there: wait until "
            "the operator has made it anew, and look at the clone with coppice status"
        )
    return read_secret(secret)


async def _dial(session: Session, clone: Manifest) -> PortStream:
    """Connect to the server of the copy that serves now; raises KubeError."""
    metadata = clone["metadata"]
    namespace = metadata["namespace"]
    present = await session.cluster.get("DataClone", metadata["name"], namespace)
    if present is None or present["metadata"]["uid"] != metadata["uid"]:
        raise KubeError(f"{title(clone)} is gone")
    status = present.get("status") or {}
    selector = {labels.OWNER_UID: metadata["uid"], labels.ROLE: "clone", labels.COPY: status.get("copy", "")}
    pods = await session.cluster.list("Pod", namespace, selector)
    running = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    if not running or "endpoint" not in status:
        raise KubeError(f"{title(clone)} has no server that runs ({state(present)}): {next_step(present)}")
    try:
        return await session.cluster.dial(namespace, running[0]["metadata"]["name"], status["endpoint"]["port"])
    except ForbiddenError as error:
        raise ForbiddenError(
            f"connections to Pods of namespace {namespace} are refused: they take the verb create on pods/portforward, "
            "which the role edit has",
            status=error.status,
        ) from error
