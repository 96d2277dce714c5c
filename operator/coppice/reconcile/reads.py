"""Reads that several kinds need."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from coppice.core.plan import EngineCall, Manifest, ServerRef
from coppice.engines.base import Content, Endpoint, Engine, EngineError
from coppice.engines.squashing import LEFT_AFTER, SQUASH_TAGS, SquashingEngine
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError, NotFoundError
from coppice.manifests.pod import ENGINE_CONTAINER, tls_of
from coppice.manifests.secret import read_secret
from coppice.reconcile.classes import ClusterClasses
from coppice.reconcile.kept import PREFIX, KeptBranch, kept_branches
from coppice.reconcile.observed import condition, is_deleting, parse_time, pod_state

REPORT_LINES = 64
"""How many lines of a log have the report in them: the runtime keeps a long one in pieces of 16 KiB, and kubelet counts
those (k8s.io/cri-client, ``findTailLineStartIndex``)."""

ROUTED_AFTER = timedelta(seconds=15)
"""For how long a Ready server's Service is asked whether it leads there: an operator outside of the cluster asks in
vain."""


async def read_classes(reader: KubeReader) -> ClusterClasses:
    """Return the cluster's storage and snapshot classes."""
    storage = await reader.list("StorageClass")
    try:
        snapshot = tuple(await reader.list("VolumeSnapshotClass"))
    except NotFoundError:
        return ClusterClasses(tuple(storage), None)
    return ClusterClasses(tuple(storage), snapshot)


async def read_snapshots(reader: KubeReader, namespace: str | None, store: str) -> tuple[Manifest, ...]:
    """Read the DataSnapshots of a store, and of whatever had its name before."""
    found = await reader.list("DataSnapshot", namespace)
    return tuple(entry for entry in found if entry["spec"]["store"]["name"] == store)


async def read_tail(reader: KubeReader, pod: Manifest, container: str) -> str:
    """Return the last lines that a program has printed, with its report among them."""
    metadata = pod["metadata"]
    return await reader.log_tail(metadata["namespace"], metadata["name"], container, REPORT_LINES)


async def read_words(reader: KubeReader, pod: Manifest, container: str) -> str:
    """Return the same of what nobody waits for: nothing while the Pod's node does not give it out."""
    try:
        return await read_tail(reader, pod, container)
    except KubeError:
        return ""


async def read_last_line(reader: KubeReader, pod: Manifest) -> str:
    """Return the last line that a program has printed, however long it is."""
    text = await read_tail(reader, pod, ENGINE_CONTAINER)
    # Not splitlines(): what JSON leaves as it is in a name, such as U+2028, is a line's end to that.
    return text.rstrip("\n").rpartition("\n")[2].strip()


@dataclass(frozen=True, slots=True)
class Server:
    """A server's Pod and Secret, as far as they are there."""

    pod: Manifest | None = None
    secret: Manifest | None = None

    def endpoint(self, engine: Engine) -> Endpoint | None:
        """Return where to log in as administrator, or None while there is no running Pod or no Secret, and for one that
        takes TLS and does not say by which authority it is known.
        """
        if self.pod is None or self.secret is None or is_deleting(self.pod):
            return None
        state = pod_state(self.pod)
        if state.ip is None or not state.running:
            return None
        found = _way_in(self.pod, engine)
        if found is None:
            return None
        port, ca = found
        return Endpoint(state.ip, port, engine.admin_user, self.credentials["admin-password"], ca=ca)

    @property
    def credentials(self) -> Mapping[str, str]:
        """Return the values of the Secret; empty without one."""
        return read_secret(self.secret) if self.secret is not None else {}


def server_ref(pod: Manifest, engine: Engine, secret: str) -> ServerRef:
    """Return where a Pod's server listens, or the proxy before it, for a plan."""
    found = _way_in(pod, engine)
    if found is None:
        raise TypeError("a call needs a server that answers")
    port, ca = found
    return ServerRef(str(pod_state(pod).ip), port, pod["metadata"]["namespace"], secret, ca=ca)


def ref_of(endpoint: Endpoint, namespace: str, secret: str) -> ServerRef:
    """Return for a plan where a server listens that an endpoint leads to, and which Secret opens it."""
    return ServerRef(endpoint.host, endpoint.port, namespace, secret, ca=endpoint.ca)


def _way_in(pod: Manifest, engine: Engine) -> tuple[int, str | None] | None:
    """Return the port on which to speak to a Pod's server and the authority by which it is known, or None: without an
    authority the password would go to a proxy in clear, or past it.
    """
    found = tls_of(pod)
    if found is None:
        return engine.port, None
    return None if found[1] is None else found


def by_service(at: Endpoint, service: Manifest | None, pod: Manifest | None, now: datetime) -> Endpoint:
    """Return the way to a server that a Job has, which may try only once: a Pod is Ready a while before its Service's
    name is known and leads there on every node, and whoever knocks until then is refused.
    """
    since = parse_time((condition(pod or {}, "Ready") or {}).get("lastTransitionTime"))
    if service is None or since is None or now - since >= ROUTED_AFTER:
        return at
    metadata = service["metadata"]
    return replace(at, host=f"{metadata['name']}.{metadata['namespace']}.svc")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said when it was asked what it holds: content, or the error instead."""

    content: Content | None = None
    error: EngineError | None = None


async def ask(engine: Engine, endpoint: Endpoint | None, *, database: str | None = None) -> Answer | None:
    """Return a server's answer, or None if there is nobody to ask yet."""
    if endpoint is None:
        return None
    try:
        return Answer(content=await engine.inspect(endpoint, database=database))
    except EngineError as error:
        return Answer(error=error)


async def ask_kept(
    engine: Engine | None, endpoint: Endpoint | None, answer: Answer | None
) -> tuple[KeptBranch, ...] | None:
    """Return the deleted branches that a server keeps, or None while it does not say so."""
    if engine is None or not engine.versioned or endpoint is None or answer is None or answer.content is None:
        return None
    try:
        return tuple(kept_branches(await engine.tags(endpoint, answer.content.database, PREFIX)))
    except EngineError:
        return None


async def ask_left(
    engine: Engine | None, endpoint: Endpoint | None, answer: Answer | None, now: datetime
) -> tuple[str, ...]:
    """Return the tags of squashes that nobody goes on with; none while the server does not say so."""
    if not isinstance(engine, SquashingEngine) or endpoint is None or answer is None or answer.content is None:
        return ()
    try:
        found = await engine.tags(endpoint, answer.content.database, SQUASH_TAGS)
    except EngineError:
        return ()
    return tuple(sorted({tag.name for tag in found if tag.at < now - LEFT_AFTER}))


def ensure_app_user(engine_name: str, engine: Engine, server: ServerRef, database: str) -> EngineCall:
    """Return the call that gives applications a login of their own on a server, with the password in the server's
    Secret.
    """
    return EngineCall(
        engine=engine_name,
        target=server,
        action="ensure-app-user",
        arguments={"username": engine.app_user, "database": database},
        secret_arguments={"password": "app-password"},
    )


async def get_each(reader: KubeReader, namespace: str | None, *wanted: tuple[str, str]) -> list[Manifest | None]:
    """Return several objects of one namespace, given by kind and name, in the order asked for; None for each that is
    not there.
    """
    return list(await gather(*(reader.get(kind, name, namespace) for kind, name in wanted)))
