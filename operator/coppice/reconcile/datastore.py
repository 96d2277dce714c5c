"""DataStore: a database that the operator runs (``coppice.reconcile.managedstore``), one that somebody else runs
(``coppice.reconcile.adoptedstore``), or a copy of one that is elsewhere (``coppice.reconcile.mirrorstore``).

The claim and the administrator's Secret have no ownerReference: they outlive the object unless ``deletionPolicy:
Delete`` asks otherwise, and a DataStore of the same name takes them over again.
"""

from __future__ import annotations

from asyncio import gather
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from coppice.api.v1alpha1 import Adopted, DataStore, DeletionPolicy, Durability, InvalidResource, Mirror, OnClose
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.plan import Manifest, Plan, Ref
from coppice.engines.base import EngineError
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.manifests.secret import added_name
from coppice.reconcile.adopted import read_adoption
from coppice.reconcile.adoptedstore import AdoptedPlan
from coppice.reconcile.commit.line import is_commit
from coppice.reconcile.draft import Draft, condemned, stalls
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.knocks import Knocks
from coppice.reconcile.load import is_pending, observe_load, read_progress
from coppice.reconcile.managedstore import ManagedPlan
from coppice.reconcile.mirror.copies import MirrorCopy, read_mirror_copies
from coppice.reconcile.mirror.seen import observe_mirror
from coppice.reconcile.mirrorstore import MirrorPlan
from coppice.reconcile.observed import annotation, is_deleting, is_true, label, pod_state
from coppice.reconcile.provisioning import read_complaint
from coppice.reconcile.reads import Server, ask, ask_kept, ask_left, by_service, get_each, read_classes, read_snapshots
from coppice.reconcile.schedule import SnapshotLine, superseded
from coppice.reconcile.storenames import admin_secret_name, binding_name, claim_name, server_pod_name
from coppice.reconcile.stores import ENGINE, TYPES, StoreObservation
from coppice.reconcile.upkeep import observe_upkeep

CLOSED_PORT = 9
"""One on which no server listens and to which no policy lets anybody (discard, RFC 863)."""


@dataclass(frozen=True, slots=True)
class DataStoreReconciler:
    """Keeps DataStores as their specifications say."""

    environment: Environment
    kind: str = "DataStore"
    knocks: Knocks = field(default_factory=Knocks, compare=False)

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> StoreObservation | None:
        """Read the store, what is made for it, and what its server says."""
        manifest = await reader.get("DataStore", key.name, key.namespace)
        if manifest is None:
            self.knocks.forget(key)
            return None
        store = DataStore.parse(manifest)
        engine = None if isinstance(store, InvalidResource) else self.environment.engines.get(store.spec.engine)
        classes, own = await gather(read_classes(reader), read_snapshots(reader, key.namespace, key.name))
        line = None if isinstance(store, InvalidResource) else SnapshotLine(manifest, store, own, now, ready=False)
        seen = StoreObservation(
            manifest=manifest,
            now=now,
            store=store,
            engine=engine,
            classes=classes,
            snapshots=own,
            named_snapshots=frozenset() if line is None else await _named_snapshots(reader, line),
        )
        if isinstance(store, InvalidResource) and is_deleting(manifest):
            return replace(seen, copies=await read_mirror_copies(reader, manifest["metadata"]["namespace"], key.name))
        if isinstance(store, DataStore) and store.spec.adopted is not None:
            return await _with_adoption(reader, seen, store, store.spec.adopted)
        if isinstance(store, DataStore) and store.spec.mirror is not None:
            return await self._with_mirror(reader, key, seen, store, store.spec.mirror)
        return await self._with_server(reader, key, seen)

    async def _with_server(self, reader: KubeReader, key: Key, seen: StoreObservation) -> StoreObservation:
        """Read what is made for a store whose server the operator runs, and ask that."""
        store, engine = seen.store, seen.engine
        claim, pod, secret, added, binding, service, policy = await get_each(
            reader,
            key.namespace,
            ("PersistentVolumeClaim", claim_name(key.name)),
            ("Pod", server_pod_name(key.name)),
            ("Secret", admin_secret_name(key.name)),
            ("Secret", added_name(admin_secret_name(key.name))),
            ("Secret", binding_name(key.name)),
            ("Service", key.name),
            ("NetworkPolicy", key.name),
        )
        server, managed = Server(pod, secret), None if isinstance(store, InvalidResource) else store.spec.managed
        database = None if managed is None else managed.database
        load = replace(await observe_load(reader, store, claim), progress=await read_progress(reader, pod))
        endpoint = None if engine is None else server.endpoint(engine)
        if endpoint is not None and is_pending(claim) and load.job is None:
            endpoint = by_service(endpoint, service, pod, seen.now)
        answer = None if engine is None else await ask(engine, endpoint, database=database)
        return replace(
            seen,
            claim=claim,
            complaint=await read_complaint(reader, claim, seen.now),
            server=server,
            added=added,
            binding=binding,
            service=service,
            policy=policy,
            load=load,
            answer=answer,
            kept=await ask_kept(engine, endpoint, answer),
            left=await ask_left(engine, endpoint, answer, seen.now),
            reached=await self._is_reached(key, server, policy, seen.now),
            certificate=None
            if managed is None or managed.tls is None
            else await reader.get("Secret", managed.tls.secret_name, key.namespace),
            upkeep=await observe_upkeep(reader, store, seen.manifest, engine, pod, endpoint),
            fresh_credentials={} if engine is None else engine.credentials({}),
        )

    async def _with_mirror(
        self, reader: KubeReader, key: Key, seen: StoreObservation, store: DataStore, wanted: Mirror
    ) -> StoreObservation:
        """Read what is made for a mirror, and ask the server of the copy that is served."""
        pod, secret, added, policy = await get_each(
            reader,
            key.namespace,
            ("Pod", server_pod_name(key.name)),
            ("Secret", admin_secret_name(key.name)),
            ("Secret", added_name(admin_secret_name(key.name))),
            ("NetworkPolicy", key.name),
        )
        server, engine = Server(pod, secret), seen.engine
        mirror = await observe_mirror(reader, store, wanted, seen.now, admin=secret)
        return replace(
            seen,
            claim=None if mirror.served is None else mirror.served.claim,
            mirror=mirror,
            server=server,
            added=added,
            policy=policy,
            answer=None if engine is None else await ask(engine, server.endpoint(engine)),
            reached=await self._is_reached(key, server, policy, seen.now),
            fresh_credentials={} if engine is None else engine.credentials({}),
        )

    async def _is_reached(self, key: Key, server: Server, policy: Manifest | None, now: datetime) -> bool | None:
        """Return whether the network lets a packet to the server that its policy forbids."""
        state = pod_state(server.pod) if server.pod is not None else None
        if server.pod is None or policy is None or state is None or state.ip is None or not state.ready:
            return None
        knock = partial(self.environment.reaches, state.ip, CLOSED_PORT)
        return await self.knocks.reached(key, server.pod, policy, now, knock)

    def plan(self, observation: StoreObservation) -> Plan:
        """Return what to do for the store now."""
        store = observation.store
        if isinstance(store, InvalidResource) and is_deleting(observation.manifest):
            return Plan(delete=_doomed(observation, _unfinished(observation.copies)), remove_finalizer=True)
        if isinstance(store, InvalidResource):
            draft = Draft(observation.manifest, observation.now)
            draft.facts.append(stalls(ENGINE, "InvalidSpec", store.message))
            return draft.finish(TYPES, {})
        if is_deleting(observation.manifest):
            return _plan_deletion(observation, store)
        if store.spec.adopted is not None:
            return AdoptedPlan(self.environment, observation, store).plan()
        if store.spec.mirror is not None:
            return _with_finalizer(MirrorPlan(self.environment, observation, store).plan(), store)
        return _with_finalizer(ManagedPlan(self.environment, observation, store).plan(), store)

    def failed(self, observation: StoreObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        return plan_failure(observation.manifest, error)


async def _with_adoption(
    reader: KubeReader, seen: StoreObservation, store: DataStore, wanted: Adopted
) -> StoreObservation:
    """Read what there is of a database that somebody else runs, and ask its server."""
    adoption = await read_adoption(reader, store.metadata.namespace, store.metadata.name, wanted)
    if seen.engine is None:
        return replace(seen, adoption=adoption)
    answer = await ask(seen.engine, adoption.endpoint(seen.engine), database=wanted.database)
    return replace(seen, adoption=adoption, answer=answer)


async def _named_snapshots(reader: KubeReader, line: SnapshotLine) -> frozenset[str]:
    """Return the snapshots that clones and commits need: clones are read only where one is about to go, for there may
    be many.
    """
    if not superseded(line):
        return frozenset()
    metadata = line.store.metadata
    clones = [
        entry
        for entry in await reader.list("DataClone")
        if entry["spec"]["from"]["store"]["name"] == metadata.name
        and (entry["spec"]["from"]["store"].get("namespace") or entry["metadata"]["namespace"]) == metadata.namespace
    ]
    asked_for = {str(entry["spec"]["from"]["snapshot"]) for entry in clones if "snapshot" in entry["spec"]["from"]}
    durable = [entry for entry in clones if _may_be_committed(entry["spec"])]
    return frozenset((*asked_for, *await _origins(reader, durable), *_awaited_parents(line.snapshots)))


def _may_be_committed(clone: Manifest) -> bool:
    """Return whether a clone with this specification is to be a child of what it was made from."""
    return clone.get("durability") == Durability.DURABLE or clone.get("onClose") == OnClose.KEEP_CHANGES


async def _origins(reader: KubeReader, clones: Sequence[Manifest]) -> set[str]:
    """Return the snapshots that such clones may be committed as children of: those of copies that are on their way
    as well, for a migration may take long.
    """
    lists = (
        reader.list("PersistentVolumeClaim", found["namespace"], {labels.OWNER_UID: str(found["uid"])})
        for found in (entry["metadata"] for entry in clones)
    )
    made_from = {annotation(claim, labels.SNAPSHOT) for claims in await gather(*lists) for claim in claims}
    told = {str(entry["status"]["snapshot"]["name"]) for entry in clones if (entry.get("status") or {}).get("snapshot")}
    return told | {name for name in made_from if name is not None}


def _awaited_parents(snapshots: Sequence[Manifest]) -> Iterator[str]:
    """Return the parents of the commits that are still to be made: without them they never can be."""
    for entry in snapshots:
        if is_commit(entry) and not is_deleting(entry) and not is_true(entry, "Ready"):
            yield str(entry["spec"]["commit"]["parent"])


def _plan_deletion(observation: StoreObservation, store: DataStore) -> Plan:
    """Kubernetes collects what the store owns; with Delete, the data goes as well, the server first.

    Of an adopted store nothing is owned, and its data are not for Coppice to delete, whatever the policy says. A
    mirror's copy that is not complete is no data that anybody retains.
    """
    uid, mirror = store.metadata.uid, observation.mirror
    retained = store.spec.adopted is not None or store.spec.deletion_policy is not DeletionPolicy.DELETE
    if retained and mirror is None:
        return Plan(remove_finalizer=True)
    users = [] if mirror is None else list(mirror.pods)
    users += (
        [] if retained else [entry for entry in (observation.load.job, observation.server.pod) if entry is not None]
    )
    running = [Ref.of(entry) for entry in users if label(entry, labels.OWNER_UID) == uid]
    if running:
        return condemned(observation.manifest, running, message="the server is being stopped; its data goes next")
    copies = () if mirror is None else mirror.copies
    data = _unfinished(copies) if retained else [copy.claim for copy in copies]
    if not retained:
        kept = (observation.claim, observation.server.secret, observation.added)
        made = [entry for entry in kept if entry is not None]
        data = [*observation.snapshots, *data, *(entry for entry in made if entry not in data)]
    return Plan(delete=_doomed(observation, data), remove_finalizer=True)


def _unfinished(copies: Iterable[MirrorCopy]) -> list[Manifest]:
    """Return the claims of copies that are not complete: whatever the policy is, they are no data."""
    return [copy.claim for copy in copies if copy.held is None]


def _doomed(observation: StoreObservation, entries: Iterable[Manifest]) -> tuple[Ref, ...]:
    """Return what is the store's own and not on its way out yet."""
    uid = observation.manifest["metadata"]["uid"]
    return tuple(Ref.of(entry) for entry in entries if label(entry, labels.OWNER_UID) == uid and not is_deleting(entry))


def _with_finalizer(plan: Plan, store: DataStore) -> Plan:
    wanted = store.spec.deletion_policy is DeletionPolicy.DELETE or store.spec.mirror is not None
    present = labels.FINALIZER in store.metadata.finalizers
    if wanted == present:
        return plan
    return replace(plan, add_finalizer=wanted, remove_finalizer=not wanted)
