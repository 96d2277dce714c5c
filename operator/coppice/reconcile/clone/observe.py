"""What is read for a clone: as little as its state allows, for a clone that is well shall cost its store nothing."""

from __future__ import annotations

from asyncio import gather
from dataclasses import dataclass, replace
from datetime import datetime

from coppice.api.v1alpha1 import DataClone, DataStore, InvalidResource, OnClose, Verb
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.orphans import is_released
from coppice.core.plan import Manifest
from coppice.engines.base import (
    Activity,
    Endpoint,
    Engine,
    EngineError,
    Ledger,
    TableLock,
    UnreachableError,
    Version,
)
from coppice.kube.client import KubeReader
from coppice.manifests.job import MIGRATE_ROLE
from coppice.manifests.secret import added_name
from coppice.reconcile.access import Source, reach, read_source, source_problem
from coppice.reconcile.belief import Alleged, look_up
from coppice.reconcile.choice import Choice, Chosen, Wait, Wanted, choose, line_of, newest_commit
from coppice.reconcile.classes import class_of_copies
from coppice.reconcile.clone.apps import asks_for_apps
from coppice.reconcile.clone.keepseen import read_keeping
from coppice.reconcile.clone.migrate import (
    asks_for_connection,
    asks_for_ledger,
    asks_for_locks,
    asks_for_schema,
    migration_name,
)
from coppice.reconcile.clone.names import SOURCE, engine_secret_name, secret_name, service_name
from coppice.reconcile.clone.observation import CloneObservation, Handle, Misbound, is_foreign
from coppice.reconcile.clone.queue import Admissions, has_caps
from coppice.reconcile.clone.target import asked_anew, copy_asked_at, may_have_news, refresh_asked_at, target_of
from coppice.reconcile.copies import Copy, find_copies, is_bound, is_proven
from coppice.reconcile.databranch import reference_of
from coppice.reconcile.environment import Environment
from coppice.reconcile.grants import Untold
from coppice.reconcile.jobs import template_digest
from coppice.reconcile.migrations import MigrationSeen, Schema, Told
from coppice.reconcile.mirror.copies import read_store_claim
from coppice.reconcile.observed import (
    claim_state,
    created_at,
    is_content_of,
    is_deleting,
    is_true,
    label,
    parse_time,
    volume_snapshot_state,
)
from coppice.reconcile.provisioning import read_complaint
from coppice.reconcile.reads import Server, ask, by_service, get_each, read_snapshots

HOLDING_LIMIT = 3
"""How many of the newest snapshots are asked whether they hold a commit; with none, a new one is made."""


async def observe_clone(
    reader: KubeReader, environment: Environment, admissions: Admissions, key: Key, now: datetime
) -> CloneObservation | None:
    """Read a clone, its copies, what the servers say, and its source; None when it is gone."""
    manifest = await reader.get("DataClone", key.name, key.namespace)
    if manifest is None:
        return None
    clone = DataClone.parse(manifest)
    seen = CloneObservation(manifest, now, clone)
    if isinstance(clone, InvalidResource):
        return await _read_remains(reader, seen) if is_deleting(manifest) else seen
    if not is_deleting(manifest):
        return await _read_all(reader, environment, admissions, seen, clone)
    if clone.spec.on_close is OnClose.KEEP_CHANGES:
        seen = await _read_all(reader, environment, admissions, seen, clone)
    return await _read_remains(reader, seen)


async def _read_all(
    reader: KubeReader, environment: Environment, admissions: Admissions, seen: CloneObservation, clone: DataClone
) -> CloneObservation:
    """Read what a valid clone has, and what it is made from."""
    reading = _Reading(reader, environment, admissions, clone)
    alleged = look_up(clone.spec.pull_request, environment.forges)
    seen, requests, source = await gather(
        reading.children(replace(seen, alleged=alleged)), _requests_of(reader, clone), reading.source(alleged)
    )
    if isinstance(source.refusal, Untold) and seen.copies:
        # A forge that has yet to tell takes nothing from who was given it when it had.
        source = replace(source, terms=source.refusal.terms)
    seen = reading.with_credentials(replace(seen, source=source, requests=requests), source)
    keeping = read_keeping(reader, environment.engines, clone, alleged, seen.serving or seen.newest, seen.secret)
    seen = replace(seen, keeping=await keeping)
    return await reading.origin(await reading.server(seen), source)


async def _requests_of(reader: KubeReader, clone: DataClone) -> tuple[Manifest, ...]:
    """Return the change requests that propose what was changed on a clone; those who read of its pull request care."""
    if clone.spec.pull_request is None:
        return ()
    here = clone.metadata.namespace
    owners = clone.spec.from_.store.namespace or here
    found = await reader.list("DataChangeRequest", owners)
    return tuple(entry for entry in found if _proposes(entry, clone.metadata.name, here))


def _proposes(request: Manifest, name: str, namespace: str) -> bool:
    source = request["spec"]["from"].get("clone")
    if source is None or source["name"] != name:
        return False
    return bool((source.get("namespace") or request["metadata"]["namespace"]) == namespace)


async def _read_remains(reader: KubeReader, seen: CloneObservation) -> CloneObservation:
    """Read what a clone under deletion has to remove itself, whether or not its specification can be read."""
    metadata = seen.manifest["metadata"]
    mine = {labels.OWNER_UID: str(metadata["uid"])}
    claims = await reader.list("PersistentVolumeClaim", metadata["namespace"], mine)
    unbound = tuple(entry for entry in claims if not claim_state(entry).bound)
    seen = replace(seen, unbound_claims=unbound)
    # Nothing sleeps with a clone that has no finalizer, and nothing of it is released.
    if labels.FINALIZER in (metadata.get("finalizers") or ()):
        deployments, pods, secrets = await gather(
            reader.list("Deployment", metadata["namespace"]),
            reader.list("Pod", metadata["namespace"], mine),
            reader.list("Secret", metadata["namespace"], mine),
        )
        mine_alone = [entry for entry in (*pods, *claims, *secrets) if entry not in unbound]
        released = tuple(entry for entry in mine_alone if is_released(entry["metadata"]) and not is_deleting(entry))
        seen = replace(seen, deployments=tuple(deployments), released=released)
    return await _read_aliases(reader, seen)


async def _read_aliases(reader: KubeReader, seen: CloneObservation) -> CloneObservation:
    metadata = seen.manifest["metadata"]
    mine = {labels.OWNER_UID: str(metadata["uid"])}
    snapshots, contents = await gather(
        reader.list("VolumeSnapshot", metadata["namespace"], mine), reader.list("VolumeSnapshotContent", None, mine)
    )
    return replace(seen, alias_snapshots=tuple(snapshots), alias_contents=tuple(contents))


@dataclass(frozen=True, slots=True)
class _Reading:
    """The reads for one valid clone, each adding to what was seen."""

    reader: KubeReader
    environment: Environment
    admissions: Admissions
    clone: DataClone

    async def source(self, alleged: Alleged | None) -> Source:
        """Read the store, as far as it may be had."""
        store, namespace = self.clone.spec.from_.store, self.clone.metadata.namespace
        return await read_source(
            self.reader, self.environment, store, namespace=namespace, verb=Verb.CLONE, alleged=alleged
        )

    async def children(self, seen: CloneObservation) -> CloneObservation:
        """Read what was made for the clone."""
        metadata = self.clone.metadata
        name, namespace, uid = metadata.name, metadata.namespace, metadata.uid
        mine = {labels.OWNER_UID: uid}
        (secret, added, binding, service, policy), claims, pods, seen = await gather(
            get_each(
                self.reader,
                namespace,
                ("Secret", engine_secret_name(name, uid)),
                ("Secret", added_name(engine_secret_name(name, uid))),
                ("Secret", secret_name(self.clone)),
                ("Service", service_name(self.clone)),
                ("NetworkPolicy", name),
            ),
            self.reader.list("PersistentVolumeClaim", namespace, mine),
            self.reader.list("Pod", namespace, mine),
            _read_aliases(self.reader, seen) if is_foreign(self.clone) else _as_it_is(seen),
        )
        runners = [pod for pod in pods if label(pod, labels.ROLE) == MIGRATE_ROLE]
        servers = [pod for pod in pods if label(pod, labels.ROLE) != MIGRATE_ROLE]
        copies = find_copies(claims, servers)
        marked = {copy.claim["metadata"]["uid"] for copy in copies}
        unmarked = tuple(claim for claim in claims if claim["metadata"]["uid"] not in marked)
        seen = replace(seen, copies=copies, unmarked_claims=unmarked, pods=tuple(servers))
        seen = replace(seen, secret=secret, added=added, binding=binding, service=service, policy=policy)
        if self.clone.spec.tls is not None:
            certificate = await self.reader.get("Secret", self.clone.spec.tls.secret_name, namespace)
            seen = replace(seen, certificate=certificate)
        if seen.serving is not None or asks_for_apps(seen.manifest, self.clone):
            seen = replace(seen, deployments=tuple(await self.reader.list("Deployment", namespace)))
        return await self._migrations(seen, tuple(runners))

    async def _migrations(self, seen: CloneObservation, pods: tuple[Manifest, ...]) -> CloneObservation:
        """Read what runs migrations, only where some are asked for, or were."""
        wanted, metadata = self.clone.spec.migrations, self.clone.metadata
        if wanted is None and self.clone.status.migrations is None and not pods:
            return seen
        made = {labels.OWNER_UID: metadata.uid, labels.ROLE: MIGRATE_ROLE}
        lists = (self.reader.list(kind, metadata.namespace, made) for kind in ("Job", "Secret", "Service"))
        jobs, secrets, services = await gather(*lists)
        name = None if wanted is None else wanted.job_template
        template = None if name is None else await self.reader.get("Job", name, metadata.namespace)
        found = MigrationSeen(template, tuple(jobs), pods, tuple(secrets), tuple(services))
        seen = replace(seen, migration=found)
        copy = seen.newest
        if wanted is None or copy is None or not asks_for_connection(seen, self.clone, copy):
            return seen
        needed = migration_name(self.clone, copy)
        secret, service = await get_each(self.reader, metadata.namespace, ("Secret", needed), ("Service", needed))
        return replace(seen, migration=replace(found, secret=secret, service=service))

    def with_credentials(self, seen: CloneObservation, source: Source) -> CloneObservation:
        """Draw passwords for a server that has none yet, or too few: here, because a plan is pure."""
        engine = source.engine if seen.newest is None else self.environment.engines.get(seen.newest.origin.engine)
        return seen if engine is None else replace(seen, fresh_credentials=engine.credentials({}))

    async def server(self, seen: CloneObservation) -> CloneObservation:
        """Ask the newest copy's server: for what it holds until that is proven, then for its activity."""
        copy = seen.newest
        engine = self.environment.engines.get(copy.origin.engine) if copy is not None else None
        endpoint = Server(copy.pod, seen.secret).endpoint(engine) if copy is not None and engine is not None else None
        if copy is None or engine is None or endpoint is None:
            return seen
        if is_proven(copy):
            seen = replace(seen, activity=await _activity(engine, endpoint))
        else:
            seen = replace(seen, answer=await ask(engine, endpoint, database=copy.origin.version.database))
        if asks_for_ledger(seen, self.clone, copy):
            told = await _told(engine, endpoint, copy.origin.version.database)
            seen = replace(seen, migration=replace(seen.migration, told=told))
        if engine.locking and asks_for_locks(seen, self.clone, copy):
            locks = await _locks(engine, endpoint, copy.origin.version.database)
            return replace(seen, migration=replace(seen.migration, locks=locks))
        if not asks_for_schema(seen, self.clone, copy):
            return seen
        # As the Job will connect: where it is not to be repeated, one refusal is its end.
        way = by_service(endpoint, seen.migration.service, copy.pod, seen.now)
        schema = await _schema(engine, way, copy.origin.version.database)
        return replace(seen, migration=replace(seen.migration, schema=schema))

    async def origin(self, seen: CloneObservation, source: Source) -> CloneObservation:
        """Ask the store, only where a new copy may be due."""
        if source_problem(source, kind=SOURCE, namespace="", verb=Verb.CLONE) is not None:
            return seen
        if target_of(seen, self.clone).copy is None or may_have_news(seen, self.clone):
            seen = await self._live(seen, source)
        return seen if self._is_settled(seen) else await self._way_to_a_volume(seen, seen.source or source)

    async def _live(self, seen: CloneObservation, source: Source) -> CloneObservation:
        """Read what the reference names now: the store's server says so, or the DataSnapshots of a line."""
        line = line_of(self.clone.spec.from_, versioned=source.engine is None or source.engine.versioned)
        if line is None:
            source = await reach(self.reader, source)
            seen = replace(seen, source=source, live=await _resolve(source, self.clone))
            return replace(seen, ledger=await _live_ledger(source, self.clone))
        own = await read_snapshots(self.reader, source.namespace, source.name)
        raw = source.terms is not None and source.terms.raw
        found = newest_commit(own, line, str((source.manifest or {})["metadata"]["uid"]), raw=raw)
        return replace(seen, live=None if found is None else found.version)

    def _is_settled(self, seen: CloneObservation) -> bool:
        copy = target_of(seen, self.clone).copy
        return copy is not None and is_bound(copy)

    async def _way_to_a_volume(self, seen: CloneObservation, source: Source) -> CloneObservation:
        """Read what the wanted copy's volume is made from."""
        own = await read_snapshots(self.reader, source.namespace, source.name)
        seen = replace(seen, snapshots=own)
        copy = target_of(seen, self.clone).copy
        if copy is not None:
            base = claim_state(copy.claim).storage_class
            storage_class = None if base is None else await self.reader.get("StorageClass", base)
            complaint = await read_complaint(self.reader, copy.claim, seen.now)
            seen = replace(seen, storage_class=storage_class, complaint=complaint)
            seen = replace(seen, origin_gone=_is_origin_gone(copy, own))
        else:
            holding = await _holding(source, self.clone, own, seen.live)
            wanted = _wanted(seen, self.clone, source, holding, await self._mask(source))
            choice = choose(wanted, own)
            base = await self._base_class(source, choice)
            storage_class = None if base is None else await self._class_of_copies(base, source)
            seen = replace(seen, choice=choice, base_class=base, storage_class=storage_class)
        if is_foreign(self.clone):
            seen = await self._place(seen, source)
            seen = replace(seen, handle=await _read_handle(self.reader, seen, source))
        return seen

    async def _base_class(self, source: Source, choice: Choice) -> str | None:
        """Return the class of the volume that the chosen snapshot was made from: the volume itself may be gone."""
        known = choice.snapshot.status.storage_class_name if isinstance(choice, Chosen) else None
        if known is not None:
            return known
        store = source.store if isinstance(source.store, DataStore) else None
        claim = await read_store_claim(self.reader, source.namespace, source.name, store)
        return claim_state(claim).storage_class if claim is not None else None

    async def _mask(self, source: Source) -> str | None:
        mask = source.store.spec.mask if isinstance(source.store, DataStore) else None
        template = None if mask is None else await self.reader.get("Job", mask.job_template, source.namespace)
        if template is None:
            return None if mask is None else ""
        return template_digest(template)

    async def _class_of_copies(self, base: str, source: Source) -> Manifest | None:
        own_bytes = source.store.spec.clones.own_bytes if isinstance(source.store, DataStore) else None
        if own_bytes is None:
            return await self.reader.get("StorageClass", base)
        return class_of_copies(await self.reader.list("StorageClass"), base, own_bytes)

    async def _place(self, seen: CloneObservation, source: Source) -> CloneObservation:
        """Count the clones that come before this one: only where there is a cap and this clone is new and could go
        on.
        """
        hopeless = isinstance(seen.choice, Wait) and seen.choice.stalled
        if source.terms is None or not has_caps(source.terms.max_clones) or seen.copies or hopeless:
            return seen
        everything = await self.reader.survey("DataClone")
        place = self.admissions.place(seen.manifest, source, source.terms.max_clones, everything, seen.now)
        # Read for no other reason than that this clone is looked at again when they go.
        for key in place.followed if place is not None else ():
            await self.reader.get(key.kind, key.name, key.namespace)
        return replace(seen, place=place)


async def _as_it_is(seen: CloneObservation) -> CloneObservation:
    return seen


async def _activity(engine: Engine, endpoint: Endpoint) -> Activity | EngineError:
    try:
        return await engine.activity(endpoint)
    except EngineError as error:
        return error


async def _schema(engine: Engine, endpoint: Endpoint, database: str) -> Schema | EngineError:
    try:
        objects = await engine.schema(endpoint, database)
    except EngineError as error:
        return error
    try:
        return Schema(objects, await engine.ledger(endpoint, database))
    except EngineError:
        # Whatever has a tool's name for its table and cannot be read: it is for people to read, and no reason to wait.
        return Schema(objects)


async def _told(engine: Engine, endpoint: Endpoint, database: str) -> Told | None:
    try:
        return Told(await engine.ledger(endpoint, database))
    except EngineError:
        return None


async def _locks(engine: Engine, endpoint: Endpoint, database: str) -> tuple[TableLock, ...]:
    try:
        return tuple(await engine.locks(endpoint, database))
    except EngineError:
        # One look less: the next one comes in a second.
        return ()


async def _resolve(source: Source, clone: DataClone) -> Version | EngineError | None:
    wanted = clone.spec.from_
    endpoint, engine, database = source.endpoint, source.engine, source.database
    if wanted.snapshot is not None or wanted.migration is not None:
        return None
    if endpoint is None or engine is None or database is None:
        return None
    if wanted.branch is None and not engine.versioned:
        return None
    try:
        return await engine.resolve(endpoint, database, reference_of(wanted))
    except EngineError as error:
        return error


async def _live_ledger(source: Source, clone: DataClone) -> Ledger | EngineError | None:
    """Return what is written down in the store's database. In one that somebody else runs nobody looks for it."""
    endpoint, engine, database = source.endpoint, source.engine, source.database
    if clone.spec.from_.migration is None or source.is_adopted or engine is None:
        return None
    if endpoint is None or database is None:
        return UnreachableError("the server does not run")
    try:
        return await engine.ledger(endpoint, database)
    except EngineError as error:
        return error


async def _holding(
    source: Source, clone: DataClone, snapshots: tuple[Manifest, ...], live: Version | EngineError | None
) -> frozenset[str]:
    """Return the names of the newest snapshots from which the commit asked for can be reached."""
    endpoint, engine = source.endpoint, source.engine
    if clone.spec.from_.branch is not None or not isinstance(live, Version) or engine is None or endpoint is None:
        return frozenset()
    ready = sorted((entry for entry in snapshots if is_true(entry, "Ready")), key=created_at, reverse=True)
    holding = set()
    for entry in ready[:HOLDING_LIMIT]:
        try:
            if await engine.contains(endpoint, live.database, live.head, _heads(entry, live.database)):
                holding.add(str(entry["metadata"]["name"]))
        except EngineError:
            break
    return frozenset(holding)


def _heads(snapshot: Manifest, database: str) -> tuple[str, ...]:
    branches = snapshot["status"].get("branches", ())
    return tuple(str(branch["head"]) for branch in branches if branch["database"] == database)


def _is_origin_gone(copy: Copy, snapshots: tuple[Manifest, ...]) -> bool:
    """Return whether a copy without a volume cannot get one: its snapshot went, and its claim would wait for ever."""
    return not any(
        entry["metadata"]["uid"] == copy.origin.snapshot_uid and not is_deleting(entry) and is_true(entry, "Ready")
        for entry in snapshots
    )


def _wanted(
    seen: CloneObservation, clone: DataClone, source: Source, holding: frozenset[str], mask: str | None
) -> Wanted:
    newest = seen.newest
    by_itself = newest is not None and asked_anew(seen, clone, newest) is None
    scheduled = refresh_asked_at(seen, clone) if by_itself else None
    followed = newest if by_itself and scheduled is None else None
    asked_at = parse_time(followed.origin.captured_at) if followed is not None else copy_asked_at(seen, clone)
    return Wanted(
        source=clone.spec.from_,
        asked_at=scheduled or asked_at or seen.now,
        now=seen.now,
        store_uid=str((source.manifest or {})["metadata"]["uid"]),
        raw=source.terms is not None and source.terms.raw,
        by_grant=is_foreign(clone),
        live=seen.live,
        holding=holding,
        known_since=_known_since(seen, clone),
        known_head=followed.origin.followed_head if followed is not None else None,
        versioned=source.engine is None or source.engine.versioned,
        mask=mask,
        ledger=seen.ledger,
    )


def _known_since(seen: CloneObservation, clone: DataClone) -> datetime:
    """Return since when the store has been seen to say what it says now; a status that was lost begins anew."""
    resolved = clone.status.resolved
    known = resolved is not None and isinstance(seen.live, Version) and resolved.head == seen.live.head
    return resolved.since if resolved is not None and known else seen.now


async def _read_handle(reader: KubeReader, seen: CloneObservation, source: Source) -> Handle | Misbound | None:
    """Return the backend's handle of the snapshot chosen, or of the one the unbound copy is being made from."""
    name = None
    if isinstance(seen.choice, Chosen) and seen.choice.snapshot.status.prepared is not None:
        name = seen.choice.snapshot.status.prepared.volume_snapshot_name
    elif seen.newest is not None:
        name = seen.newest.origin.snapshot
    snapshot = await reader.get("VolumeSnapshot", name, source.namespace) if name is not None else None
    reference = volume_snapshot_state(snapshot).content if snapshot is not None else None
    if snapshot is None or reference is None:
        return None
    content = await reader.get("VolumeSnapshotContent", reference)
    if content is None or not is_content_of(content, snapshot):
        return Misbound(f"{source.namespace}/{name}", reference)
    handle = (content.get("status") or {}).get("snapshotHandle")
    return (
        None
        if handle is None
        else Handle(content["spec"]["driver"], handle, content["spec"].get("volumeSnapshotClassName"))
    )
