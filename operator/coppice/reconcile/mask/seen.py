"""What is read for a mask, and the names of what is made for it."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from coppice.api.v1alpha1 import DataStore, InvalidResource
from coppice.core import labels
from coppice.core.names import child, digest
from coppice.core.plan import Manifest
from coppice.engines.base import Content, Endpoint, Engine, EngineError
from coppice.kube.client import KubeReader
from coppice.manifests.job import MASK_ROLE
from coppice.reconcile.mask.mark import Mark
from coppice.reconcile.observed import job_state, label
from coppice.reconcile.preparation import scratch_name
from coppice.reconcile.reads import Answer, Server, ask, by_service

MAX_COMPARED: Final = 10_000
"""Of how many tables it is remembered what they were before."""


@dataclass(frozen=True, slots=True)
class MaskSeen:
    """What the mask is made from, and everything on its way: all that was made for the snapshot, of any copy.

    ``answer`` and ``tables`` are what the scratch copy's server said, where it was asked.
    """

    template: Manifest | None = None
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    secrets: tuple[Manifest, ...] = ()
    service: Manifest | None = None
    policy: Manifest | None = None
    answer: Answer | None = None
    tables: Mapping[str, str] | None = None
    fresh_credentials: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def made(self) -> list[Manifest]:
        """Return all of it, in the order in which it is to go: users before what they use."""
        around = [entry for entry in (self.service, self.policy) if entry is not None]
        return [*self.jobs, *self.engine_pods, *around, *self.secrets]

    @property
    def engine_pods(self) -> list[Manifest]:
        """Return the Pods that have the copy for a volume; those of the Job go with it."""
        return [pod for pod in self.pods if label(pod, labels.ROLE) != MASK_ROLE]

    def in_rewrite(self, snapshot: str, scratch: Manifest | None) -> Manifest | None:
        """Return the Pod that has prepared a masked copy, if there is one."""
        return None if scratch is None else by_name(self.pods, rewrite_name(snapshot, scratch))

    def in_service(self, snapshot: str, scratch: Manifest | None) -> Manifest | None:
        """Return the Pod of the server on the copy, if there is one."""
        return None if scratch is None else by_name(self.pods, server_name(snapshot, scratch))


def by_name(entries: Sequence[Manifest], name: str) -> Manifest | None:
    """Return the object of this name, if it is among them."""
    return next((entry for entry in entries if entry["metadata"]["name"] == name), None)


# What is made for one copy bears its name: whatever is left of an earlier one is not taken for this one's.


def _of_copy(snapshot: str, scratch: Manifest, suffix: str) -> str:
    return child(snapshot, f"{digest(str(scratch['metadata']['uid']), length=5)}-{suffix}")


def server_name(snapshot: str, scratch: Manifest) -> str:
    """Return the name of the server's Pod, and of the Secret with its credentials."""
    return _of_copy(snapshot, scratch, "scratch")


def job_name(snapshot: str, scratch: Manifest) -> str:
    """Return the name of the Job that masks, and of the Secret it connects with."""
    return _of_copy(snapshot, scratch, "masking")


def rewrite_name(snapshot: str, scratch: Manifest) -> str:
    """Return the name of the Pod that prepares the masked copy."""
    return _of_copy(snapshot, scratch, "rewrite")


def mask_service_name(snapshot: str) -> str:
    """Return the name of the Service by which the Job finds the server; it has to begin with a letter."""
    return f"mask-{snapshot}"


async def observe_mask(
    reader: KubeReader,
    manifest: Manifest,
    *,
    store: DataStore | InvalidResource | None,
    engine: Engine | None,
    database: str | None,
    scratch: Manifest | None,
    now: datetime,
) -> MaskSeen:
    """Read what a snapshot on its way is masked with, and what was made for that; ``database`` is the applications'."""
    namespace, name = manifest["metadata"]["namespace"], str(manifest["metadata"]["name"])
    mine = {labels.OWNER_UID: str(manifest["metadata"]["uid"])}
    mask = store.spec.mask if isinstance(store, DataStore) else None
    jobs, pods, secrets, services, policies = await gather(
        *(reader.list(kind, namespace, mine) for kind in ("Job", "Pod", "Secret", "Service", "NetworkPolicy"))
    )
    template = None if mask is None else await reader.get("Job", mask.job_template, namespace)
    seen = MaskSeen(
        template=template,
        jobs=tuple(jobs),
        pods=tuple(pods),
        secrets=tuple(secrets),
        service=by_name(services, mask_service_name(name)),
        policy=by_name(policies, scratch_name(name)),
    )
    if mask is None or engine is None or scratch is None:
        return seen
    seen = replace(seen, fresh_credentials=engine.credentials({}))
    return await _ask_server(seen, _Copy(name, scratch, engine, database), now)


@dataclass(frozen=True, slots=True)
class _Copy:
    """Where to ask, and for what."""

    snapshot: str
    claim: Manifest
    engine: Engine
    database: str | None


async def _ask_server(seen: MaskSeen, copy: _Copy, now: datetime) -> MaskSeen:
    """Ask the server on the copy what it holds, before its rows are changed and when that is done."""
    job, mark = by_name(seen.jobs, job_name(copy.snapshot, copy.claim)), Mark.of(copy.claim)
    if mark is not None and (mark.outcome or job is None or not job_state(job).succeeded):
        return seen
    name = server_name(copy.snapshot, copy.claim)
    endpoint = Server(by_name(seen.pods, name), by_name(seen.secrets, name)).endpoint(copy.engine)
    seen = replace(seen, answer=await ask(copy.engine, endpoint, database=copy.database))
    content = seen.answer.content if seen.answer is not None else None
    if job is None or endpoint is None or content is None:
        return seen
    # As the Job will connect: it would fail where its Service does not lead to the server yet.
    way = by_service(endpoint, seen.service, by_name(seen.pods, name), now)
    try:
        return replace(seen, tables=await _tables(copy.engine, way, content))
    except EngineError as error:
        return replace(seen, answer=Answer(error=error))


async def _tables(engine: Engine, endpoint: Endpoint, content: Content) -> Mapping[str, str]:
    """Return a token for each table; those of other databases than the applications' have these for a prefix."""
    found: dict[str, str] = {}
    for database in content.databases:
        prefix = "" if database == content.database else f"{database}."
        tables = await engine.tables(endpoint, database)
        found |= {f"{prefix}{name}": token for name, token in tables.items()}
    return dict(sorted(found.items())[:MAX_COMPARED])


def reporting_pod(seen: MaskSeen, name: str, scratch: Manifest | None, prepare: Manifest | None) -> Manifest | None:
    """Return the Pod whose report says what the copy holds: that of the second preparation, once a mask may have
    changed it.
    """
    return prepare if scratch is None or Mark.of(scratch) is None else seen.in_rewrite(name, scratch)
