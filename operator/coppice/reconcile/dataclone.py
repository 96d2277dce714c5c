"""DataClone: a running copy of a store, made from a prepared snapshot, with credentials of its own (design: "From
apply to bound").

Facts in order: the source may be used, a snapshot keeps the promise, the volume is there, the server answers with the
state that was asked for, and only then is the binding written. A reset or refresh goes through the same facts with
the next copy, beside the one that serves.
"""

from __future__ import annotations

from asyncio import gather
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from coppice.api.v1alpha1 import (
    BINDING_KEYS,
    DataClone,
    DataKind,
    DataStore,
    InvalidResource,
    OnRevision,
    Power,
    Refresh,
    Verb,
)
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.names import child, digest
from coppice.core.plan import Manifest, Plan, Ref, ServerRef
from coppice.engines.base import (
    Activity,
    CloneServer,
    CommitPolicy,
    Content,
    Endpoint,
    Engine,
    EngineError,
    LoginRefusedError,
    UnreachableError,
    Version,
)
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError, WiringConflictError
from coppice.manifests.network import build_policy, build_service
from coppice.manifests.pod import Resources, ServerPod, build_pod
from coppice.manifests.secret import build_binding_secret, build_engine_secret
from coppice.manifests.storage import Claim, build_alias_content, build_alias_snapshot, build_claim
from coppice.reconcile.access import Source, read_source, source_problem
from coppice.reconcile.choice import Choice, Chosen, MakeSnapshot, Wait, Wanted, choose
from coppice.reconcile.copies import Copy, Origin, copy_name, find_copies, is_proven, serving_copy
from coppice.reconcile.databranch import reference_of
from coppice.reconcile.datasnapshot import larger
from coppice.reconcile.datastore import claim_name
from coppice.reconcile.draft import Draft, Fact, holds, rests, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.lease import LeaseTerms, expires_at, lease_terms
from coppice.reconcile.observed import (
    claim_state,
    created_at,
    format_time,
    is_deleting,
    is_true,
    label,
    parse_time,
    pod_state,
    volume_snapshot_state,
)
from coppice.reconcile.reads import Answer, Server, ask, ensure_app_user, get_each
from coppice.reconcile.requests import Request, read_request, unreadable
from coppice.reconcile.schedule import CLONE, build_data_snapshot, next_number
from coppice.reconcile.wiring import wire, with_wiring

SOURCE = "SourceReady"
SNAPSHOT = "SnapshotReady"
VOLUME = "VolumeReady"
ENGINE = "EngineReady"
TYPES = (SOURCE, SNAPSHOT, VOLUME, ENGINE)
LOOK_PERIOD = 60.0
"""Seconds between two looks at a clone that is well."""
HOLDING_LIMIT = 3
"""How many of the newest snapshots are asked whether they hold a commit; with none, a new one is made."""
GRACE_SECONDS = 5
REFRESH_PAUSE = timedelta(seconds=60)
"""The least time between two copies of a clone that follows a branch."""


def engine_secret_name(clone: str, uid: str) -> str:
    """Return the name of the Secret that opens a clone's server to the operator.

    The clone's UID is in it: kubelet caches an immutable Secret by name for as long as any Pod on the node uses it,
    so under one name the first Pod of a clone made anew could be given the credentials of the old one.
    """
    return child(clone, f"{digest(uid, length=5)}-engine")


@dataclass(frozen=True, slots=True)
class Handle:
    """Where the storage backend keeps a prepared snapshot."""

    driver: str
    handle: str
    snapshot_class: str | None


@dataclass(frozen=True, slots=True)
class CloneObservation:
    """A DataClone and everything around it."""

    manifest: Manifest
    now: datetime
    clone: DataClone | InvalidResource
    source: Source | None = None
    store_claim: Manifest | None = None
    storage_class: Manifest | None = None
    snapshots: tuple[Manifest, ...] = ()
    live: Version | EngineError | None = None
    choice: Choice | None = None
    handle: Handle | None = None
    origin_gone: bool = False
    others: int | None = None
    copies: tuple[Copy, ...] = ()
    unbound_claims: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    secret: Manifest | None = None
    binding: Manifest | None = None
    service: Manifest | None = None
    policy: Manifest | None = None
    alias_snapshots: tuple[Manifest, ...] = ()
    alias_contents: tuple[Manifest, ...] = ()
    answer: Answer | None = None
    activity: Activity | EngineError | None = None
    deployments: tuple[Manifest, ...] = ()
    unwired: Mapping[str, str] | None = None
    fresh_credentials: Mapping[str, str] = field(repr=False, default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataCloneReconciler:
    """Keeps DataClones as their specifications say."""

    environment: Environment
    kind: str = "DataClone"

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> CloneObservation | None:
        """Read the clone, its source, its copies, and what the servers say."""
        manifest = await reader.get("DataClone", key.name, key.namespace)
        if manifest is None:
            return None
        clone = DataClone.parse(manifest)
        seen = CloneObservation(manifest, now, clone)
        if is_deleting(manifest):
            return await _observe_remains(reader, seen)
        if isinstance(clone, InvalidResource):
            return seen
        seen = await self._observe_children(reader, seen, clone)
        source = await read_source(
            reader, self.environment, clone.spec.from_.store, namespace=clone.metadata.namespace, verb=Verb.CLONE
        )
        seen = replace(seen, source=source, fresh_credentials=self._credentials(seen, source))
        seen = await self._observe_server(seen, clone)
        return await self._observe_source(reader, seen, clone, source)

    def _credentials(self, seen: CloneObservation, source: Source) -> Mapping[str, str]:
        """Return passwords for a server that has none yet: drawn here, because a plan is pure."""
        engine = self.environment.engines.get(seen.copies[-1].origin.engine) if seen.copies else source.engine
        return {} if engine is None or seen.secret is not None else engine.credentials({})

    async def _observe_children(self, reader: KubeReader, seen: CloneObservation, clone: DataClone) -> CloneObservation:
        name, namespace, uid = clone.metadata.name, clone.metadata.namespace, clone.metadata.uid
        mine = {labels.OWNER_UID: uid}
        names, claims, pods = await gather(
            get_each(
                reader,
                namespace,
                ("Secret", engine_secret_name(name, uid)),
                ("Secret", secret_name(clone)),
                ("Service", service_name(clone)),
                ("NetworkPolicy", name),
            ),
            reader.list("PersistentVolumeClaim", namespace, mine),
            reader.list("Pod", namespace, mine),
        )
        secret, binding, service, policy = names
        seen = replace(
            seen,
            copies=find_copies(claims, pods),
            pods=tuple(pods),
            secret=secret,
            binding=binding,
            service=service,
            policy=policy,
        )
        if serving_copy(seen.copies, seen.binding) is not None:
            seen = replace(seen, deployments=tuple(await reader.list("Deployment", namespace)))
        return await _observe_aliases(reader, seen) if is_foreign(clone) else seen

    async def _observe_server(self, seen: CloneObservation, clone: DataClone) -> CloneObservation:
        copy = seen.copies[-1] if seen.copies else None
        engine = self.environment.engines.get(copy.origin.engine) if copy is not None else None
        if copy is None or engine is None:
            return seen
        endpoint = Server(copy.pod, seen.secret).endpoint(engine)
        if endpoint is None:
            return seen
        if serving_copy(seen.copies, seen.binding) is copy and not _needs_proof(seen, clone):
            return replace(seen, activity=await _activity(engine, endpoint))
        return replace(seen, answer=await ask(engine, endpoint, database=copy.origin.version.database))

    async def _observe_source(
        self, reader: KubeReader, seen: CloneObservation, clone: DataClone, source: Source
    ) -> CloneObservation:
        """Ask the store only where a new copy may be due; a clone that is well costs its store nothing."""
        if seen.source is None or source_problem(source, kind=SOURCE, namespace="", verb=Verb.CLONE) is not None:
            return seen
        target = target_of(seen, clone)
        follows = clone.spec.refresh is Refresh.ON_HEAD_CHANGE
        if target.copy is not None and is_bound(target.copy) and not follows:
            return seen
        live = await _resolve(source, clone)
        seen = replace(seen, live=live)
        target = target_of(seen, clone)
        if target.copy is not None and is_bound(target.copy):
            return seen
        snapshots, store_claim = await gather(
            reader.list("DataSnapshot", source.namespace),
            reader.get("PersistentVolumeClaim", claim_name(source.name), source.namespace),
        )
        own = tuple(entry for entry in snapshots if entry["spec"]["store"]["name"] == source.name)
        seen = replace(seen, snapshots=own, store_claim=store_claim)
        storage_class = claim_state(store_claim).storage_class if store_claim is not None else None
        if storage_class is not None:
            seen = replace(seen, storage_class=await reader.get("StorageClass", storage_class))
        if target.copy is not None:
            seen = replace(seen, origin_gone=_is_origin_gone(target.copy, own))
        else:
            holding = await _holding(source, clone, own, live)
            seen = replace(seen, choice=choose(_wanted(seen, clone, source, holding), own))
        if is_foreign(clone):
            seen = replace(seen, handle=await _read_handle(reader, seen, source))
            seen = await self._count_others(reader, seen, clone, source)
        return seen

    async def _count_others(
        self, reader: KubeReader, seen: CloneObservation, clone: DataClone, source: Source
    ) -> CloneObservation:
        """Count the clones that live under the grant and come before this one; only where the grant has a cap and this
        clone is new.
        """
        caps = source.terms.max_clones if source.terms is not None else None
        if caps is None or (caps.per_namespace is None and caps.total is None) or seen.copies:
            return seen
        everything = await reader.list("DataClone")
        return replace(seen, others=_over_cap(seen, clone, source, everything))

    def plan(self, observation: CloneObservation) -> Plan:
        """Return what to do for the clone now."""
        clone = observation.clone
        draft = Draft(observation.manifest, observation.now)
        if is_deleting(observation.manifest):
            return _plan_deletion(observation)
        if isinstance(clone, InvalidResource):
            draft.facts.append(stalls(SOURCE, "InvalidSpec", clone.message))
            return draft.finish(TYPES, {})
        return _ClonePlan(self.environment, observation, clone).plan(draft)

    def failed(self, observation: CloneObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        if isinstance(error, WiringConflictError):
            # The data are ready all the same: only the wiring's own condition says otherwise.
            return self.plan(replace(observation, unwired=error.refusals))
        return plan_failure(observation.manifest, error)


# -- names and small facts --


def secret_name(clone: DataClone) -> str:
    """Return the name of the binding Secret."""
    return clone.spec.binding.secret_name or child(clone.metadata.name, "binding")


def service_name(clone: DataClone) -> str:
    """Return the name of the Service."""
    return clone.spec.binding.service_name or clone.metadata.name


def is_foreign(clone: DataClone) -> bool:
    """Return whether the store is in another namespace, so that alias objects are needed."""
    where = clone.spec.from_.store.namespace
    return where is not None and where != clone.metadata.namespace


def is_bound(copy: Copy) -> bool:
    """Return whether a copy has its volume."""
    return claim_state(copy.claim).bound


def content_name(uid: str, number: int) -> str:
    """Return the name of an alias VolumeSnapshotContent; it is cluster-scoped, so the clone's UID makes it unique."""
    return f"coppice-{digest(uid, str(number), length=24)}"


def _needs_proof(seen: CloneObservation, clone: DataClone) -> bool:
    """Return whether the binding has to be written again, which is only done after asking the server."""
    del clone
    return seen.binding is None


@dataclass(frozen=True, slots=True)
class Target:
    """The copy that is wanted: ``copy`` is None while it has no claim yet. ``why`` names what asked for it."""

    number: int
    copy: Copy | None
    why: str


def target_of(seen: CloneObservation, clone: DataClone) -> Target:
    """Return the copy that should serve: the newest one there is, or the next one where something asks for a new
    copy.
    """
    newest = seen.copies[-1] if seen.copies else None
    if newest is None:
        return Target(1, None, "the clone is new")
    why = _due(seen, clone, newest)
    if why is not None:
        return Target(newest.number + 1, None, why)
    return Target(newest.number, newest, "")


def _due(seen: CloneObservation, clone: DataClone, newest: Copy) -> str | None:
    return _asked_anew(seen, clone, newest) or _news(seen, clone, newest)


def _asked_anew(seen: CloneObservation, clone: DataClone, newest: Copy) -> str | None:
    """Return what somebody did to ask for a new copy."""
    reset = _reset_request(seen)
    if reset is not None and reset.token != newest.origin.reset:
        return f"a reset was asked for ({reset.token})"
    if clone.spec.on_revision is OnRevision.RESET and _is_other_revision(clone, newest) and newest.origin.revision:
        return "there is a new revision"
    return None


def _news(seen: CloneObservation, clone: DataClone, newest: Copy) -> str | None:
    """Return what is new on the branch that a clone follows; not oftener than the pause, however busy its writers."""
    follows = clone.spec.refresh is Refresh.ON_HEAD_CHANGE and serving_copy(seen.copies, seen.binding) is newest
    if not follows or not isinstance(seen.live, Version) or seen.live.head == newest.origin.version.head:
        return None
    if seen.now - created_at(newest.claim) < REFRESH_PAUSE:
        return None
    return f"the branch moved to {seen.live.head}"


def _reset_request(seen: CloneObservation) -> Request | None:
    """Return the reset that is asked for; one in the future waits for its time."""
    request = read_request(seen.manifest, labels.RESET_REQUESTED_AT)
    return request if request is not None and request.at <= seen.now else None


def _is_other_revision(clone: DataClone, copy: Copy) -> bool:
    """Return whether a copy was made for another revision than the clone's; one kept through a change is marked."""
    return clone.spec.revision is not None and clone.spec.revision != copy.origin.revision


def renewed_at(seen: CloneObservation, clone: DataClone) -> datetime:
    """Return when somebody last asked for the clone: its creation, an extension, or a new revision.

    A life begins with its first copy: what a clone waits before, for a grant or a place, is no part of it. Without a
    grant nobody can ask for anything, and what was asked counts when there is one again.
    """
    status, now = clone.status, seen.now
    moments = [created_at(seen.manifest), status.renewed_at]
    moments += [created_at(copy.claim) for copy in seen.copies if copy.number == 1]
    if seen.source is None or seen.source.terms is None:
        return min(max(moment for moment in moments if moment is not None), now)
    extension = read_request(seen.manifest, labels.EXTEND_REQUESTED_AT)
    handled = status.handled.extend_requested_at if status.handled is not None else None
    if extension is not None and extension.token != handled:
        moments.append(extension.at)
    if clone.spec.revision not in {None, status.revision}:
        moments.append(now)
    return min(max(moment for moment in moments if moment is not None), now)


# -- reads --


async def _observe_remains(reader: KubeReader, seen: CloneObservation) -> CloneObservation:
    """Read what a clone under deletion has to remove itself, whether or not its specification can be read."""
    metadata = seen.manifest["metadata"]
    mine = {labels.OWNER_UID: str(metadata["uid"])}
    claims = await reader.list("PersistentVolumeClaim", metadata["namespace"], mine)
    unbound = tuple(entry for entry in claims if not claim_state(entry).bound)
    return await _observe_aliases(reader, replace(seen, unbound_claims=unbound))


async def _observe_aliases(reader: KubeReader, seen: CloneObservation) -> CloneObservation:
    metadata = seen.manifest["metadata"]
    mine = {labels.OWNER_UID: str(metadata["uid"])}
    snapshots, contents = await gather(
        reader.list("VolumeSnapshot", metadata["namespace"], mine), reader.list("VolumeSnapshotContent", None, mine)
    )
    return replace(seen, alias_snapshots=tuple(snapshots), alias_contents=tuple(contents))


async def _activity(engine: Engine, endpoint: Endpoint) -> Activity | EngineError:
    try:
        return await engine.activity(endpoint)
    except EngineError as error:
        return error


async def _resolve(source: Source, clone: DataClone) -> Version | EngineError | None:
    wanted = clone.spec.from_
    endpoint, engine, database = source.endpoint, source.engine, source.database
    if wanted.snapshot is not None or endpoint is None or engine is None or database is None:
        return None
    try:
        return await engine.resolve(endpoint, database, reference_of(wanted))
    except EngineError as error:
        return error


async def _holding(
    source: Source, clone: DataClone, snapshots: tuple[Manifest, ...], live: Version | EngineError | None
) -> frozenset[str]:
    """Return the names of the newest snapshots from which the commit asked for can be reached."""
    if clone.spec.from_.branch is not None or not isinstance(live, Version) or source.engine is None:
        return frozenset()
    endpoint = source.endpoint
    ready = sorted((entry for entry in snapshots if is_true(entry, "Ready")), key=created_at, reverse=True)
    holding = set()
    for entry in ready[:HOLDING_LIMIT]:
        heads = tuple(
            str(branch["head"]) for branch in entry["status"].get("branches", ()) if branch["database"] == live.database
        )
        try:
            if endpoint is not None and await source.engine.contains(endpoint, live.database, live.head, heads):
                holding.add(str(entry["metadata"]["name"]))
        except EngineError:
            break
    return frozenset(holding)


def _is_origin_gone(copy: Copy, snapshots: tuple[Manifest, ...]) -> bool:
    """Return whether a copy that has no volume yet cannot get one: its snapshot went, and its claim would wait for
    ever.
    """
    return not any(
        entry["metadata"]["uid"] == copy.origin.snapshot_uid and not is_deleting(entry) and is_true(entry, "Ready")
        for entry in snapshots
    )


def _wanted(seen: CloneObservation, clone: DataClone, source: Source, holding: frozenset[str]) -> Wanted:
    newest = seen.copies[-1] if seen.copies else None
    news = newest if newest is not None and _asked_anew(seen, clone, newest) is None else None
    return Wanted(
        source=clone.spec.from_,
        asked_at=_copy_asked_at(seen, clone) if news is None else parse_time(news.origin.captured_at) or seen.now,
        now=seen.now,
        store_uid=str((source.manifest or {})["metadata"]["uid"]),
        raw=source.terms is not None and source.terms.raw,
        live=seen.live,
        holding=holding,
        known_head=news.origin.version.head if news is not None else None,
    )


def _copy_asked_at(seen: CloneObservation, clone: DataClone) -> datetime:
    """Return when the copy was asked for: with the clone, an extension, a new revision, or the last reset."""
    reset = _reset_request(seen)
    renewed = renewed_at(seen, clone)
    return renewed if reset is None else max(renewed, reset.at)


async def _read_handle(reader: KubeReader, seen: CloneObservation, source: Source) -> Handle | None:
    """Return the backend's handle of the snapshot chosen, or of the one the unbound copy is being made from."""
    name = None
    if isinstance(seen.choice, Chosen) and seen.choice.snapshot.status.prepared is not None:
        name = seen.choice.snapshot.status.prepared.volume_snapshot_name
    elif seen.copies:
        name = seen.copies[-1].origin.snapshot
    snapshot = await reader.get("VolumeSnapshot", name, source.namespace) if name is not None else None
    content_ref = volume_snapshot_state(snapshot).content if snapshot is not None else None
    content = await reader.get("VolumeSnapshotContent", content_ref) if content_ref is not None else None
    handle = ((content or {}).get("status") or {}).get("snapshotHandle")
    if content is None or handle is None:
        return None
    return Handle(content["spec"]["driver"], handle, content["spec"].get("volumeSnapshotClassName"))


def _over_cap(seen: CloneObservation, clone: DataClone, source: Source, everything: Any) -> int | None:
    """Return this clone's place in the queue behind the grant's caps (1 is next), or None if there is room."""
    caps = source.terms.max_clones if source.terms is not None else None
    if caps is None:
        return None
    ahead = [
        entry
        for entry in everything
        if _names_store(entry, source)
        and entry["metadata"]["uid"] != seen.manifest["metadata"]["uid"]
        and not is_deleting(entry)
        and not _is_expired(entry)
        and (_before(entry, seen.manifest) or is_true(entry, SNAPSHOT))
    ]
    here = [entry for entry in ahead if entry["metadata"]["namespace"] == clone.metadata.namespace]
    over = [len(found) - cap + 1 for found, cap in ((here, caps.per_namespace), (ahead, caps.total)) if cap is not None]
    worst = max(over, default=0)
    return worst if worst > 0 else None


def _names_store(entry: Manifest, source: Source) -> bool:
    store = entry["spec"]["from"]["store"]
    where = store.get("namespace") or entry["metadata"]["namespace"]
    foreign = entry["metadata"]["namespace"] != source.namespace
    return bool(store["name"] == source.name and where == source.namespace and foreign)


def _is_expired(entry: Manifest) -> bool:
    ready = next((c for c in (entry.get("status") or {}).get("conditions") or () if c["type"] == "Ready"), None)
    return ready is not None and ready["reason"] == "Expired"


def _before(entry: Manifest, other: Manifest) -> bool:
    return (created_at(entry), str(entry["metadata"]["uid"])) < (created_at(other), str(other["metadata"]["uid"]))


# -- plans --


def _plan_deletion(observation: CloneObservation) -> Plan:
    """Kubernetes collects what is in the clone's namespace; the alias contents are not in any, so they go first.

    So do claims that still wait for their volume: the snapshot-controller lets no snapshot go that one is made from.
    """
    doomed = [*observation.unbound_claims, *observation.alias_snapshots, *observation.alias_contents]
    if not doomed:
        return Plan(remove_finalizer=True)
    return Plan(delete=tuple(Ref.of(entry) for entry in doomed if not is_deleting(entry)), requeue_after=2)


@dataclass(frozen=True, slots=True)
class _ClonePlan:
    """The chain of facts for one clone."""

    environment: Environment
    observation: CloneObservation
    clone: DataClone

    def plan(self, draft: Draft) -> Plan:
        expiry = self._expires_at()
        if expiry is not None and expiry <= self.observation.now:
            return self._expired(draft, expiry)
        for step in (
            self._source_may_be_used,
            self._snapshot_is_chosen,
            self._volume_is_bound,
            self._server_runs,
            self._server_proves_itself,
        ):
            fact = step(draft)
            draft.facts.append(fact)
            if not fact.holds:
                break
        self._drop_strays(draft)
        served = bool(draft.facts) and draft.facts[-1].type == ENGINE and draft.facts[-1].holds
        if served:
            self._drop_replaced(draft)
        plan = draft.finish(TYPES, self._status(draft, expiry), requeue_after=self._next_look(expiry))
        wiring = wire(
            self.observation.deployments,
            self._name,
            secret=secret_name(self.clone),
            keys=self.clone.spec.binding.keys or BINDING_KEYS,
            refused=self.observation.unwired,
        )
        wanted = is_foreign(self.clone) and labels.FINALIZER not in self.clone.metadata.finalizers
        return replace(with_wiring(plan, wiring, self.observation.manifest), add_finalizer=wanted)

    # -- what is wanted --

    @property
    def _name(self) -> str:
        return self.clone.metadata.name

    @property
    def _source(self) -> Source:
        if self.observation.source is None:
            raise TypeError("a valid clone has a source")
        return self.observation.source

    @property
    def _target(self) -> Target:
        return target_of(self.observation, self.clone)

    @property
    def _serving(self) -> Copy | None:
        return serving_copy(self.observation.copies, self.observation.binding)

    @property
    def _engine_secret(self) -> str:
        return engine_secret_name(self._name, self.clone.metadata.uid)

    def _copy_name(self, number: int) -> str:
        return copy_name(self._name, self.clone.metadata.uid, number)

    def _lease(self) -> LeaseTerms:
        terms = self._source.terms
        allowed = terms.longest if terms is not None else None
        default = LeaseTerms(idle=self.environment.idle, longest=self.environment.longest)
        return lease_terms(self.clone.spec.lease, allowed=allowed, default=default)

    def _renewed_at(self) -> datetime:
        return renewed_at(self.observation, self.clone)

    def _last_activity(self) -> datetime:
        activity, status = self.observation.activity, self.clone.status
        asked = (
            read_request(self.observation.manifest, key)
            for key in (labels.WAKE_REQUESTED_AT, labels.RESET_REQUESTED_AT)
        )
        requests = [request.at for request in asked if request is not None and request.at <= self.observation.now]
        moments = [self._renewed_at(), status.last_activity_at, *requests]
        before = max(moment for moment in moments if moment is not None)
        if isinstance(activity, Activity) and activity.token and activity.token != status.activity:
            return self.observation.now
        return before

    def _expires_at(self) -> datetime | None:
        """Return when the lease ends. Nothing but a renewal moves an end that has come, or that outlives its grant."""
        before, renewed = self.clone.status.expires_at, self.clone.status.renewed_at
        if self._was_expired() and before is not None and renewed is not None and self._renewed_at() <= renewed:
            return before
        if not self.observation.copies:
            return None
        if self._source.terms is None and before is not None:
            return before
        return expires_at(self._lease(), asked=self._renewed_at(), active=self._last_activity())

    def _was_expired(self) -> bool:
        return _is_expired(self.observation.manifest)

    def _next_look(self, expiry: datetime | None) -> float:
        moments = [moment for moment in (expiry, self._refresh_pause_ends()) if moment is not None]
        return max(min([LOOK_PERIOD, *((moment - self.observation.now).total_seconds() for moment in moments)]), 1.0)

    def _refresh_pause_ends(self) -> datetime | None:
        """Return from when on a clone that follows a branch may have its next copy, if that is to come."""
        newest = self.observation.copies[-1] if self.observation.copies else None
        if newest is None or self.clone.spec.refresh is not Refresh.ON_HEAD_CHANGE:
            return None
        ends = created_at(newest.claim) + REFRESH_PAUSE
        return ends if ends > self.observation.now else None

    def _expired(self, draft: Draft, expiry: datetime) -> Plan:
        """Remove everything but the object: a GitOps tool would make a deleted object anew for ever."""
        observation = self.observation
        for child_object in (
            *observation.pods,
            *(copy.claim for copy in observation.copies),
            observation.binding,
            observation.service,
            observation.policy,
            observation.secret,
            *observation.alias_snapshots,
            *observation.alias_contents,
        ):
            draft.drop(child_object)
        message = (
            f"the lease ended at {format_time(expiry)} and the data are gone; to have the clone again, "
            "annotate it with "
            f"{labels.EXTEND_REQUESTED_AT}=<now>, or set a new spec.revision"
        )
        draft.facts.append(stalls(SOURCE, "Expired", message, retry_after=None))
        status = {
            "expiresAt": format_time(expiry),
            "renewedAt": format_time(self._renewed_at()),
            "lastActivityAt": format_time(self._last_activity()),
            "revision": self._revision(),
            "handled": self._handled(),
        }
        return draft.finish(TYPES, status)

    # -- the chain --

    def _source_may_be_used(self, draft: Draft) -> Fact:
        problem = source_problem(self._source, kind=SOURCE, namespace=self.clone.metadata.namespace, verb=Verb.CLONE)
        unmasked = self._unmasked()
        self._stop(draft, unmasked)
        if problem is None and self._target.copy is not None and self._target.copy in unmasked:
            return stalls(
                SOURCE,
                "MaskedOnly",
                f"DataGrant {self._grant} gives masked data only and this clone has others. The server is stopped and "
                "the data are kept until the lease ends; ask for a grant with data: Raw, or for a reset once the store "
                "has a masked snapshot",
            )
        if problem is None:
            return holds(SOURCE, "StoreReady", "; ".join([self._source_words(), *self._notes()]))
        if problem.reason == "NotGranted" and self.observation.copies:
            self._stop(draft, self.observation.copies)
            return stalls(
                SOURCE,
                "GrantRevoked",
                f"{problem.message}. The server is stopped and the data are kept until the lease ends",
            )
        if self._serving is not None and self._target.copy is not None:
            return holds(SOURCE, "SourceGone", f"{problem.message}. This clone lives on, but cannot be reset")
        return problem

    def _unmasked(self) -> tuple[Copy, ...]:
        """Return the copies that hold more than the grant gives now."""
        terms = self._source.terms
        if terms is None or terms.raw:
            return ()
        return tuple(copy for copy in self.observation.copies if not copy.origin.masked)

    def _stop(self, draft: Draft, copies: tuple[Copy, ...]) -> None:
        """Stop the servers of copies that are not allowed any more, and end what is only on its way."""
        for copy in copies:
            draft.drop(copy.pod)
            if not is_bound(copy):
                draft.drop(copy.claim)
                self._drop_aliases(draft)

    def _notes(self) -> list[str]:
        """Return what was asked for and cannot be had, where the clone does not fail for it."""
        refused = self._lease().refused
        requests = (labels.RESET_REQUESTED_AT, labels.EXTEND_REQUESTED_AT, labels.WAKE_REQUESTED_AT)
        return [
            *([] if refused is None else [refused]),
            *(
                f"annotation {key} is not a time in RFC 3339 and is not acted upon"
                for key in unreadable(self.observation.manifest, requests)
            ),
        ]

    def _source_words(self) -> str:
        source = self._source
        by = f", by DataGrant {source.terms.grant}" if source.terms is not None and source.terms.grant else ""
        return f"DataStore {source.namespace}/{source.name}{by}"

    def _snapshot_is_chosen(self, draft: Draft) -> Fact:
        target = self._target
        if target.copy is not None:
            origin = target.copy.origin
            return holds(
                SNAPSHOT,
                "Chosen",
                f"copy {target.number} is from DataSnapshot {origin.snapshot}, captured at {origin.captured_at}",
            )
        if self.observation.others is not None:
            return waits(
                SNAPSHOT,
                "Queued",
                f"DataGrant {self._grant} has no room: place {self.observation.others} in the queue; "
                "delete a clone that is not needed, "
                "or ask the store's owners for a higher maxClones",
                retry_after=10,
            )
        choice = self.observation.choice
        if isinstance(choice, Chosen):
            return holds(
                SNAPSHOT, "Chosen", f"copy {target.number} will be from DataSnapshot {choice.snapshot.metadata.name}"
            )
        if isinstance(choice, MakeSnapshot):
            return self._make_snapshot(draft)
        if isinstance(choice, Wait):
            make = stalls if choice.stalled else waits
            return make(SNAPSHOT, choice.reason, choice.message, retry_after=60 if choice.stalled else 10)
        return waits(SNAPSHOT, "StoreNotReady", f"waits for {self._source_words()}; see its conditions", retry_after=5)

    @property
    def _grant(self) -> str:
        return self._source.terms.grant or "" if self._source.terms is not None else ""

    def _make_snapshot(self, draft: Draft) -> Fact:
        source = self._source
        if source.manifest is None:
            raise TypeError("a snapshot was chosen to be made of a store that is not there")
        number = next_number(self.observation.snapshots, source.name)
        snapshot = build_data_snapshot(source.manifest, number, CLONE)
        draft.create.append(snapshot)
        return waits(
            SNAPSHOT, "SnapshotPending", f"asked for DataSnapshot {snapshot['metadata']['name']}", retry_after=1
        )

    def _volume_is_bound(self, draft: Draft) -> Fact:
        target = self._target
        copy, name = target.copy, self._copy_name(target.number)
        if copy is not None and is_deleting(copy.claim) and copy.pod is None:
            return waits(VOLUME, "BeingDeleted", f"claim {name} is being deleted", retry_after=2)
        if copy is not None and is_bound(copy):
            self._drop_aliases(draft)
            return holds(VOLUME, "Bound", f"claim {name}")
        if copy is not None and self.observation.origin_gone:
            draft.drop(copy.pod)
            draft.drop(copy.claim)
            self._drop_aliases(draft)
            return waits(
                VOLUME,
                "SnapshotGone",
                f"DataSnapshot {copy.origin.snapshot} went before claim {name} had its volume: another is chosen",
                retry_after=2,
            )
        problem = self._alias(draft, target.number)
        if problem is not None:
            return problem
        if copy is None:
            draft.create.append(self._new_claim(draft, target))
            return waits(VOLUME, "Copying", f"the volume of copy {target.number} is being made")
        if self._waits_for_consumer():
            return holds(VOLUME, "WaitsForConsumer", "the volume is made once the server's Pod is scheduled")
        return waits(
            VOLUME,
            "Copying",
            f"waits for the volume of claim {self._copy_name(target.number)}; see its events",
            retry_after=30,
        )

    def _waits_for_consumer(self) -> bool:
        storage_class = self.observation.storage_class
        return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"

    def _alias(self, draft: Draft, number: int) -> Fact | None:
        """Make the prepared snapshot visible in this namespace for as long as the claim needs it."""
        if not is_foreign(self.clone):
            return None
        handle = self.observation.handle
        if handle is None:
            return waits(
                VOLUME, "SnapshotNotReady", "waits for the storage driver's handle of the snapshot", retry_after=2
            )
        name, content = self._copy_name(number), content_name(self.clone.metadata.uid, number)
        owner = draft.owner
        made = {str(entry["metadata"]["name"]): entry for entry in self.observation.alias_contents}.get(content)
        bound = {str(entry["metadata"]["name"]): entry for entry in self.observation.alias_snapshots}.get(name)
        if made is not None and made["spec"]["source"]["snapshotHandle"] != handle.handle:
            self._drop_aliases(draft)
            return waits(VOLUME, "BeingDeleted", "another snapshot was chosen meanwhile", retry_after=2)
        problem = draft.make_once(
            build_alias_content(
                content,
                owner,
                driver=handle.driver,
                handle=handle.handle,
                snapshot_class=handle.snapshot_class,
                alias=name,
            ),
            made,
            VOLUME,
        ) or draft.make_once(
            build_alias_snapshot(name, owner, content=content, snapshot_class=handle.snapshot_class), bound, VOLUME
        )
        if problem is None and (bound is None or not volume_snapshot_state(bound).ready):
            # csi-provisioner backs off, for seconds, from a claim whose snapshot is not ready yet.
            return waits(VOLUME, "SnapshotNotReady", f"waits for VolumeSnapshot {name}")
        return problem

    def _drop_aliases(self, draft: Draft) -> None:
        for alias in (*self.observation.alias_snapshots, *self.observation.alias_contents):
            draft.drop(alias)

    def _new_claim(self, draft: Draft, target: Target) -> Manifest:
        choice, store_claim = self.observation.choice, self.observation.store_claim
        if not isinstance(choice, Chosen) or store_claim is None or choice.snapshot.status.prepared is None:
            raise TypeError("the chain goes on without a snapshot")
        status = choice.snapshot.status
        reset = _reset_request(self.observation)
        origin = Origin(
            version=choice.version,
            engine=status.engine or "",
            engine_version=status.version or "",
            snapshot=choice.snapshot.metadata.name,
            snapshot_uid=choice.snapshot.metadata.uid,
            captured_at=format_time(status.captured_at) if status.captured_at is not None else "",
            reset=reset.token if reset is not None else "",
            revision=self.clone.spec.revision or "",
            masked=status.data is DataKind.MASKED,
        )
        foreign = is_foreign(self.clone)
        prepared = choice.snapshot.status.prepared
        return build_claim(
            Claim(
                name=self._copy_name(target.number),
                owner=draft.owner,
                size=larger(prepared.restore_size, status.source_capacity),
                storage_class=claim_state(store_claim).storage_class or "",
                from_snapshot=self._copy_name(target.number) if foreign else prepared.volume_snapshot_name,
                labels={labels.COPY: str(target.number)},
                annotations=origin.annotations(),
            )
        )

    def _server_runs(self, draft: Draft) -> Fact:
        copy = self._target.copy
        if copy is None:
            raise TypeError("the chain goes on without a copy")
        resting = self._rests(copy)
        if resting is not None:
            for pod in self.observation.pods:
                draft.drop(pod)
            return resting
        problem = self._keep_around(draft, copy)
        if problem is not None:
            return problem
        desired = self._pod(draft, copy)
        if isinstance(desired, Fact):
            return desired
        # Without the store nobody knows its profiles: a server that runs is left as it is.
        return draft.run_server(desired, copy.pod, ENGINE, replace_outdated=self._store is not None)

    def _rests(self, copy: Copy) -> Fact | None:
        """Return why the server is not to run, if so. A copy that nobody has been told of yet is not put to sleep."""
        if self.clone.spec.power is Power.OFF:
            return rests(
                ENGINE,
                "PoweredOff",
                "the server is off and the data are kept: set spec.power to On or Auto to have it again",
            )
        idle = self.observation.now - self._last_activity()
        if self.clone.spec.power is not Power.AUTO or self._serving is not copy or idle < self.environment.sleep:
            return None
        return rests(
            ENGINE,
            "Asleep",
            f"nobody has used the clone since {format_time(self._last_activity())}: the server is stopped and the data "
            f"are kept. To wake it, annotate it with {labels.WAKE_REQUESTED_AT}=<now>, or set spec.power to On",
        )

    def _keep_around(self, draft: Draft, copy: Copy) -> Fact | None:
        """Keep the operator's Secret, the policy, and, for the first copy, the Service: nobody can log in yet, and the
        route is there in time.
        """
        engine = self._engine_of(copy)
        if engine is None:
            return stalls(ENGINE, "UnknownEngine", f"this operator has no engine {copy.origin.engine} any more")
        observation = self.observation
        secret = build_engine_secret(self._engine_secret, draft.owner, observation.fresh_credentials)
        policy = build_policy(
            self._name, draft.owner, port=engine.port, operator_namespace=self.environment.operator_namespace
        )
        problem = draft.make_once(secret, observation.secret, ENGINE) or draft.keep(policy, observation.policy, ENGINE)
        if problem is None and self._serving is None:
            problem = self._keep_service(draft, copy, engine)
        return problem

    def _keep_service(self, draft: Draft, copy: Copy, engine: Engine) -> Fact | None:
        service = build_service(
            service_name(self.clone), draft.owner, port=engine.port, selector={labels.COPY: str(copy.number)}
        )
        return draft.keep(service, self.observation.service, ENGINE)

    def _engine_of(self, copy: Copy) -> Engine | None:
        return self.environment.engines.get(copy.origin.engine)

    def _pod(self, draft: Draft, copy: Copy) -> dict[str, Any] | Fact:
        engine = self._engine_of(copy)
        image = self.environment.image(copy.origin.engine, copy.origin.engine_version)
        if engine is None or image is None:
            return stalls(
                ENGINE,
                "UnsupportedVersion",
                f"the administrator offers no image for {copy.origin.engine} {copy.origin.engine_version}, "
                "which wrote the snapshot",
            )
        resources = self._resources()
        if isinstance(resources, Fact):
            return resources
        policy: CommitPolicy = self.clone.spec.commit_policy.value
        selector = self._store.spec.clones.node_selector if self._store is not None else {}
        # The claim's UID: what the Pod expects on its volume is part of its script.
        inputs = digest(image, policy, resources.memory, resources.cpu, str(copy.claim["metadata"]["uid"]))
        workload = engine.clone_server(
            CloneServer(version=copy.origin.version, commit_policy=policy, marker=copy.origin.snapshot_uid)
        )
        return build_pod(
            ServerPod(
                name=self._copy_name(copy.number),
                owner=draft.owner,
                role="clone",
                image=image,
                user_id=engine.user_id,
                workload=workload,
                claim=self._copy_name(copy.number),
                secret=self._engine_secret,
                resources=resources,
                node_selector=selector,
                labels={labels.COPY: str(copy.number)},
                annotations={labels.INPUTS: inputs},
                grace_seconds=GRACE_SECONDS,
            )
        )

    @property
    def _store(self) -> DataStore | None:
        store = self._source.store
        return store if isinstance(store, DataStore) else None

    def _resources(self) -> Resources | Fact:
        default = self.environment.server
        profiles = self._store.spec.clones.profiles if self._store is not None else {}
        asked = profiles.get(self.clone.spec.profile)
        if asked is None:
            if self.clone.spec.profile == "default" or self._store is None:
                return default
            offered = ", ".join(sorted({"default", *profiles}))
            return stalls(
                ENGINE,
                "UnknownProfile",
                f"{self._source_words()} has no profile {self.clone.spec.profile}; there are: {offered}",
            )
        return Resources(memory=asked.memory or default.memory, cpu=asked.cpu or default.cpu)

    def _server_proves_itself(self, draft: Draft) -> Fact:
        copy = self._target.copy
        engine = self._engine_of(copy) if copy is not None else None
        if copy is None or engine is None:
            raise TypeError("the chain goes on without a server")
        activity = self.observation.activity
        if isinstance(activity, Activity):
            return self._bound(draft, copy, engine)
        if isinstance(activity, EngineError):
            return self._server_problem(activity)
        answer = self.observation.answer
        if answer is None or answer.content is None:
            return self._server_problem(None if answer is None else answer.error)
        if self._serving is not copy and not is_proven(copy):
            wrong = _wrong_identity(answer.content, copy.origin.version)
            if wrong is not None:
                return stalls(
                    ENGINE,
                    "WrongIdentity",
                    f"the copy does not hold what was asked for: {wrong}. It is not handed out; ask for a "
                    "reset to try again, and report this",
                    retry_after=None,
                )
        return self._bound(draft, copy, engine)

    def _server_problem(self, error: EngineError | None) -> Fact:
        if isinstance(error, LoginRefusedError):
            return stalls(
                ENGINE,
                "CredentialsRefused",
                f"the server refuses the credentials in Secret {self._engine_secret}: restore that Secret, "
                "or ask for a reset",
                retry_after=30,
            )
        if error is None or isinstance(error, UnreachableError):
            return waits(ENGINE, "NotAnswering", "the server runs but does not answer yet", retry_after=0.5)
        return waits(ENGINE, "EngineError", f"the server answered with an error: {error}", retry_after=10)

    def _bound(self, draft: Draft, copy: Copy, engine: Engine) -> Fact:
        """Give apps a login, then tell them."""
        host = f"{service_name(self.clone)}.{self.clone.metadata.namespace}.svc"
        password = Server(None, self.observation.secret).credentials["app-password"]
        values = dict(engine.binding(host=host, database=copy.origin.version.database, password=password))
        values |= {key: template.format_map(values) for key, template in self.clone.spec.binding.keys.items()}
        secret = build_binding_secret(secret_name(self.clone), draft.owner, values, {labels.COPY: str(copy.number)})
        if self._serving is not copy and copy.pod is not None:
            server = ServerRef(
                str(pod_state(copy.pod).ip), engine.port, self.clone.metadata.namespace, self._engine_secret
            )
            draft.calls.append(ensure_app_user(copy.origin.engine, engine, server, copy.origin.version.database))
        marks = self._marks(copy)
        if marks:
            # Before the binding: as soon as apps have it they may change what would have to be proven.
            draft.apply.append(_annotated(copy.claim, marks))
        problem = self._keep_service(draft, copy, engine) or draft.keep(secret, self.observation.binding, ENGINE)
        return problem or holds(
            ENGINE,
            "Answering",
            f"answers at {host}:{engine.port} with {copy.origin.version.branch} at {copy.origin.version.head}",
        )

    def _marks(self, copy: Copy) -> dict[str, str]:
        """Return what is still to be written on the claim of a copy that serves.

        A revision through which the data are kept is the copy's own from then on, so that it is not acted upon later.
        An apply that left a mark out would take it away: all of them, or none.
        """
        revision = self.clone.spec.revision if _is_other_revision(self.clone, copy) else None
        if is_proven(copy) and revision is None:
            return {}
        return {labels.PROVEN: "true", labels.REVISION_TOKEN: revision or copy.origin.revision}

    def _drop_strays(self, draft: Draft) -> None:
        """Remove Pods whose claim is gone, and copies that were overtaken by a newer request before they served."""
        known = {str(copy.number) for copy in self.observation.copies}
        for pod in self.observation.pods:
            if label(pod, labels.COPY) not in known:
                draft.drop(pod)
        serving = self._serving
        for copy in self.observation.copies:
            if serving is not None and serving.number < copy.number < self._target.number:
                draft.drop(copy.pod)
                draft.drop(copy.claim)

    def _drop_replaced(self, draft: Draft) -> None:
        """Remove what an earlier copy had, its claim after the undo window."""
        kept = self._previous()
        for copy in self.observation.copies:
            if copy.number < self._target.number:
                draft.drop(copy.pod)
                if kept is None or copy is not kept[0]:
                    draft.drop(copy.claim)

    def _previous(self) -> tuple[Copy, datetime] | None:
        """Return the copy that a reset replaced, and until when it is kept; a refresh or a revision keeps none."""
        target = self._target.copy
        older = [copy for copy in self.observation.copies if copy.number < self._target.number]
        older = [copy for copy in older if not is_deleting(copy.claim)]
        if target is None or not older or target.origin.reset in {"", older[-1].origin.reset}:
            return None
        ends = created_at(target.claim) + self.environment.undo
        return (older[-1], ends) if ends > self.observation.now else None

    # -- status --

    def _revision(self) -> str | None:
        """Return the revision that was acted upon; without a grant none is."""
        return self.clone.status.revision if self._source.terms is None else self.clone.spec.revision

    def _handled(self) -> dict[str, str | None]:
        before = self.clone.status.handled
        newest = self.observation.copies[-1] if self.observation.copies else None
        extension = read_request(self.observation.manifest, labels.EXTEND_REQUESTED_AT)
        if self._source.terms is None:
            extension = None
        woken = read_request(self.observation.manifest, labels.WAKE_REQUESTED_AT)
        return {
            "resetRequestedAt": (newest.origin.reset or None) if newest is not None else None,
            "extendRequestedAt": extension.token if extension else before.extend_requested_at if before else None,
            "wakeRequestedAt": woken.token if woken else before.wake_requested_at if before else None,
        }

    def _status(self, draft: Draft, expiry: datetime | None) -> dict[str, Any]:
        served = self._target.copy if draft.facts[-1].type == ENGINE and draft.facts[-1].holds else self._serving
        status: dict[str, Any] = {
            "renewedAt": format_time(self._renewed_at()),
            "lastActivityAt": format_time(self._last_activity()),
            "activity": self.observation.activity.token
            if isinstance(self.observation.activity, Activity)
            else self.clone.status.activity,
            "expiresAt": format_time(expiry) if expiry is not None else None,
            "revision": self._revision(),
            "handled": self._handled(),
        }
        if served is None:
            return status
        origin, engine = served.origin, self._engine_of(served)
        previous = self._previous()
        host = f"{service_name(self.clone)}.{self.clone.metadata.namespace}.svc"
        return {
            **status,
            "binding": {"name": secret_name(self.clone)},
            "endpoint": {"host": host, "port": engine.port} if engine is not None else None,
            "copy": str(served.number),
            "snapshot": {"name": origin.snapshot, "uid": origin.snapshot_uid},
            "source": {
                "store": f"{self._source.namespace}/{self._source.name}",
                "branch": None if origin.version.new_branch else origin.version.branch,
                "head": origin.version.head,
                "workingRoot": origin.version.working_root,
                "capturedAt": origin.captured_at or None,
            },
            "previous": {"copy": str(previous[0].number), "keptUntil": format_time(previous[1])}
            if previous is not None
            else None,
        }


def _annotated(observed: Manifest, annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return the apply that adds annotations to an object of ours, and claims nothing else of it."""
    metadata = {key: observed["metadata"][key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": observed["apiVersion"],
        "kind": observed["kind"],
        "metadata": {**metadata, "annotations": dict(annotations)},
    }


def _wrong_identity(content: Content, version: Version) -> str | None:
    state = content.state_of(version.branch)
    if state is None:
        return f"branch {version.branch} of database {version.database} is not there"
    if state.head != version.head:
        return f"branch {version.branch} is at {state.head}, not at {version.head}"
    if state.working_root != version.working_root:
        return f"the data on branch {version.branch} have the hash {state.working_root}, not {version.working_root}"
    return None
