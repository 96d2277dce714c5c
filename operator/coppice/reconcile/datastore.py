"""DataStore: a database that the operator runs, with its claim, its server and its snapshots.

The claim and the administrator's Secret have no ownerReference: they outlive the object unless ``deletionPolicy:
Delete`` asks otherwise, and a DataStore of the same name takes them over again.
"""

from __future__ import annotations

from asyncio import gather
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from coppice.api.v1alpha1 import DataStore, DeletionPolicy, InvalidResource
from coppice.api.v1alpha1.datastore import Load
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.names import child, digest
from coppice.core.plan import EngineCall, Manifest, Plan, Ref, ServerRef
from coppice.core.quantities import quantity_bytes
from coppice.engines.base import Engine, EngineError, LoginRefusedError, StoreServer, UnreachableError
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.manifests.meta import Owner
from coppice.manifests.network import build_policy, build_service
from coppice.manifests.pod import Resources, ServerPod, build_pod
from coppice.manifests.secret import build_binding_secret, build_engine_secret
from coppice.manifests.storage import Claim, build_claim
from coppice.reconcile.classes import ClusterClasses, NoStorage, StorageChoice, bounded_class, choose_storage
from coppice.reconcile.draft import Draft, Fact, beside, condemned, holds, stalls, waits, with_uid
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.knocks import Knocks
from coppice.reconcile.load import (
    DONE,
    LoadSeen,
    first_mark,
    is_pending,
    is_read_by_server,
    kept_mark,
    load_volume,
    loading_name,
    observe_load,
    run_load,
    source_is_there,
)
from coppice.reconcile.observed import (
    annotation,
    claim_state,
    is_deleting,
    is_true,
    label,
    pod_state,
)
from coppice.reconcile.provisioning import Complaint, read_complaint, waits_for_volume
from coppice.reconcile.reads import Answer, Server, ask, ensure_app_user, get_each, read_classes
from coppice.reconcile.schedule import SnapshotLine, plan_snapshots, superseded, unscheduled

ENGINE = "EngineSupported"
STORAGE = "StorageReady"
SERVER = "ServerReady"
TYPES = (ENGINE, STORAGE, SERVER)
BOUNDED = "ClonesBounded"
GUARDED = "NetworkGuarded"
SCHEDULED = "SnapshotsScheduled"
"""Conditions beside the chain, there only where there is something to say: the store is well either way."""
CLOSED_PORT = 9
"""One on which no server listens and to which no policy lets anybody (discard, RFC 863)."""
HEALTH_PERIOD = 60.0
"""Seconds between two looks at a server that is well; its heads in status are at most this old."""
MAX_LISTED = 100


def claim_name(store: str) -> str:
    """Return the name of a store's claim."""
    return child(store, "data")


def admin_secret_name(store: str) -> str:
    """Return the name of the Secret that opens a store's server to the operator."""
    return child(store, "admin")


def binding_name(store: str) -> str:
    """Return the name of the Secret for apps in the store's own namespace."""
    return child(store, "binding")


def server_pod_name(store: str) -> str:
    """Return the name of the Pod of a store's server."""
    return child(store, "server")


def default_database(store: str) -> str:
    """Return the database that is made where neither the store nor its load names one."""
    return store.replace("-", "_")


@dataclass(frozen=True, slots=True)
class StoreObservation:
    """A DataStore and everything around it."""

    manifest: Manifest
    now: datetime
    store: DataStore | InvalidResource
    engine: Engine | None
    classes: ClusterClasses
    claim: Manifest | None
    complaint: Complaint | None
    server: Server
    binding: Manifest | None
    service: Manifest | None
    policy: Manifest | None
    load: LoadSeen
    answer: Answer | None
    reached: bool | None
    snapshots: tuple[Manifest, ...]
    named_snapshots: frozenset[str]
    fresh_credentials: Mapping[str, str] = field(repr=False, default_factory=dict)


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
        made, classes, snapshots = await gather(
            get_each(
                reader,
                key.namespace,
                ("PersistentVolumeClaim", claim_name(key.name)),
                ("Pod", server_pod_name(key.name)),
                ("Secret", admin_secret_name(key.name)),
                ("Secret", binding_name(key.name)),
                ("Service", key.name),
                ("NetworkPolicy", key.name),
            ),
            read_classes(reader),
            reader.list("DataSnapshot", key.namespace),
        )
        claim, pod, secret, binding, service, policy = made
        server = Server(pod, secret)
        database = None if isinstance(store, InvalidResource) else store.spec.managed.database
        own = tuple(entry for entry in snapshots if entry["spec"]["store"]["name"] == key.name)
        line = None if isinstance(store, InvalidResource) else SnapshotLine(manifest, store, own, now, ready=False)
        return StoreObservation(
            manifest=manifest,
            now=now,
            store=store,
            engine=engine,
            classes=classes,
            claim=claim,
            complaint=await read_complaint(reader, claim, now),
            server=server,
            binding=binding,
            service=service,
            policy=policy,
            load=await observe_load(reader, store, claim),
            answer=None if engine is None else await ask(engine, server.endpoint(engine), database=database),
            reached=await self._is_reached(key, server, policy, now),
            snapshots=own,
            named_snapshots=frozenset() if line is None else await _named_snapshots(reader, line),
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
            return Plan(remove_finalizer=True)
        if isinstance(store, InvalidResource):
            draft = Draft(observation.manifest, observation.now)
            draft.facts.append(stalls(ENGINE, "InvalidSpec", store.message))
            return draft.finish(TYPES, {})
        if is_deleting(observation.manifest):
            return _plan_deletion(observation, store)
        return _StorePlan(self.environment, observation, store).plan()

    def failed(self, observation: StoreObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        return plan_failure(observation.manifest, error)


async def _named_snapshots(reader: KubeReader, line: SnapshotLine) -> frozenset[str]:
    """Return the snapshots that clones name: read only where one is about to go, for there may be many clones."""
    if not superseded(line):
        return frozenset()
    metadata = line.store.metadata
    return frozenset(
        str(entry["spec"]["from"]["snapshot"])
        for entry in await reader.list("DataClone")
        if "snapshot" in entry["spec"]["from"]
        and entry["spec"]["from"]["store"]["name"] == metadata.name
        and (entry["spec"]["from"]["store"].get("namespace") or entry["metadata"]["namespace"]) == metadata.namespace
    )


def _plan_deletion(observation: StoreObservation, store: DataStore) -> Plan:
    """Kubernetes collects what the store owns; with Delete, the data goes as well, the server first."""
    if store.spec.deletion_policy is not DeletionPolicy.DELETE:
        return Plan(remove_finalizer=True)
    uid = store.metadata.uid
    users = [observation.load.job, observation.server.pod]
    running = [Ref.of(entry) for entry in users if entry is not None and label(entry, labels.OWNER_UID) == uid]
    if running:
        return condemned(observation.manifest, running, message="the server is being stopped; its data goes next")
    made = [entry for entry in observation.snapshots if label(entry, labels.OWNER_UID) == uid]
    data = [observation.claim, observation.server.secret]
    doomed = [*made, *(entry for entry in data if entry is not None and label(entry, labels.OWNER_UID) == uid)]
    return Plan(delete=tuple(Ref.of(entry) for entry in doomed if not is_deleting(entry)), remove_finalizer=True)


@dataclass(frozen=True, slots=True)
class _StorePlan:
    """The chain of facts for one store."""

    environment: Environment
    observation: StoreObservation
    store: DataStore

    def plan(self) -> Plan:
        draft = Draft(self.observation.manifest, self.observation.now)
        for step in (
            self._engine_is_supported,
            self._class_can_snapshot,
            self._load_is_there,
            self._claim_is_there,
            self._server_runs,
            self._server_answers,
            self._load_is_done,
            self._apps_can_connect,
        ):
            fact = step(draft)
            draft.facts.append(fact)
            if not fact.holds:
                break
        next_snapshot = self._plan_snapshots(draft)
        requeue = min(HEALTH_PERIOD, next_snapshot) if next_snapshot is not None else HEALTH_PERIOD
        plan = draft.finish(TYPES, self._status(), requeue_after=requeue)
        for aside in (self._clones_are_bounded(), self._network_is_guarded(), self._snapshots_come()):
            plan = beside(plan, aside, self.observation.manifest)
        return self._with_finalizer(plan)

    def _with_finalizer(self, plan: Plan) -> Plan:
        wanted = self.store.spec.deletion_policy is DeletionPolicy.DELETE
        present = labels.FINALIZER in self.store.metadata.finalizers
        if wanted == present:
            return plan
        return replace(plan, add_finalizer=wanted, remove_finalizer=not wanted)

    @property
    def _name(self) -> str:
        return self.store.metadata.name

    def _engine_is_supported(self, draft: Draft) -> Fact:
        del draft
        spec = self.store.spec
        if self.observation.engine is None:
            known = ", ".join(sorted(self.environment.engines)) or "none"
            return stalls(ENGINE, "UnknownEngine", f"there is no engine {spec.engine}; this operator has: {known}")
        if self.environment.image(spec.engine, spec.managed.version) is None:
            offered = ", ".join(sorted(self.environment.images.get(spec.engine, {}))) or "none"
            return stalls(
                ENGINE,
                "UnsupportedVersion",
                f"the administrator offers no image for {spec.engine} {spec.managed.version}; there are: {offered}",
            )
        return holds(ENGINE, "Supported", f"{spec.engine} {spec.managed.version}")

    def _storage(self) -> StorageChoice | NoStorage:
        storage = self.store.spec.managed.storage
        return choose_storage(
            self.observation.classes, storage=self._storage_class_name(), snapshot=storage.snapshot_class_name
        )

    def _storage_class_name(self) -> str | None:
        """Return the class asked for; once there is a claim, its class, whatever the cluster's default becomes."""
        claim = self.observation.claim
        asked = self.store.spec.managed.storage.storage_class_name
        return asked if asked is not None or claim is None else claim_state(claim).storage_class

    def _class_can_snapshot(self, draft: Draft) -> Fact:
        del draft
        choice = self._storage()
        if isinstance(choice, NoStorage):
            return stalls(STORAGE, choice.reason, choice.message, retry_after=60)
        return holds(STORAGE, "CanSnapshot", f"{choice.storage_class} with snapshots by {choice.snapshot_class}")

    def _clones_are_bounded(self) -> Fact | None:
        """Return whether clones are kept to ``clones.ownBytes``; None where that is not asked for or not known yet.

        Where no class can, clones are made all the same: a bound guards the pool, and many drivers have none.
        """
        asked, choice = self.store.spec.clones.own_bytes, self._storage()
        if asked is None or isinstance(choice, NoStorage):
            return None
        found = bounded_class(self.observation.classes.storage, choice.storage_class, asked)
        if found is not None:
            return holds(BOUNDED, "OwnBytesBounded", f"StorageClass {found['metadata']['name']} bounds them to {asked}")
        return stalls(
            BOUNDED,
            "OwnBytesUnbounded",
            f"clones may write more than {asked} of their own: no StorageClass like {choice.storage_class} has "
            f"parameters.ownBytes: {asked}. Have the administrator make one (coppice-local: local.boundedClasses of "
            f"the chart), or leave clones.ownBytes out if the driver {choice.driver} has no such bound",
        )

    def _network_is_guarded(self) -> Fact | None:
        """Return whether NetworkPolicies keep strangers from servers; None while nobody can tell."""
        if self.observation.reached is None:
            return None
        if not self.observation.reached:
            return holds(GUARDED, "PoliciesEnforced", "the network keeps NetworkPolicies")
        return stalls(
            GUARDED,
            "PoliciesNotEnforced",
            "the network of this cluster keeps no NetworkPolicies: any Pod can knock at the server and at its clones', "
            "and only their credentials keep it out. Have the administrator install a network plug-in that does",
        )

    def _snapshots_come(self) -> Fact | None:
        return unscheduled(
            SCHEDULED,
            self.store.spec.snapshots.schedule,
            self.observation.now,
            field="spec.snapshots.schedule",
            effect="no snapshot is made by it",
        )

    @property
    def _load(self) -> Load | None:
        return self.store.spec.managed.load

    def _load_is_there(self, draft: Draft) -> Fact:
        del draft
        if self.observation.claim is not None:
            return holds(STORAGE, "LoadFound", "the claim is there, and a load is not looked for again")
        return source_is_there(self._load, self.observation.load, STORAGE)

    def _claim_is_there(self, draft: Draft) -> Fact:
        choice = self._storage()
        if isinstance(choice, NoStorage):
            raise TypeError("the chain goes on without a storage class")
        observed = self.observation.claim
        if observed is None:
            secret = self.observation.server.secret
            if secret is not None and not self._is_of_this_store(secret):
                return self._secret_conflict()
            if secret is not None:
                return stalls(
                    STORAGE,
                    "ClaimLost",
                    f"the claim {claim_name(self._name)} is gone but Secret "
                    f"{admin_secret_name(self._name)} shows that there was data: "
                    "restore the claim from a snapshot, or delete that Secret to begin with an empty store",
                )
            draft.create.append(self._desired_claim(draft.owner, choice, first_mark(self._load)))
            draft.create.append(self._desired_secret(draft.owner))
            return waits(STORAGE, "ClaimCreated", f"made the claim {claim_name(self._name)}")
        problem = self._take_over(draft, choice, observed)
        if problem is not None:
            return problem
        state = claim_state(observed)
        if state.lost:
            return stalls(
                STORAGE,
                "ClaimLost",
                f"the volume of claim {claim_name(self._name)} is gone: restore it from a snapshot",
            )
        complaint, pod = self.observation.complaint, self.observation.server.pod
        if not state.bound and (not choice.waits_for_consumer or (pod is not None and complaint is not None)):
            return waits_for_volume(STORAGE, "ClaimPending", observed, complaint, self.observation.now)
        return holds(STORAGE, "Bound", f"claim {claim_name(self._name)} with {state.capacity}")

    def _desired_claim(self, owner: Owner, choice: StorageChoice, mark: Mapping[str, str]) -> dict[str, Any]:
        return build_claim(
            Claim(
                name=claim_name(self._name),
                owner=owner,
                size=self.store.spec.managed.storage.size,
                storage_class=choice.storage_class,
                labels={labels.STORE: self._name},
                annotations={labels.ENGINE: self.store.spec.engine, **mark},
                owned=False,
            )
        )

    def _changed_claim(self, owner: Owner, choice: StorageChoice, mark: Mapping[str, str]) -> dict[str, Any]:
        """Return the apply that makes the claim ours, of the size asked for if that is larger, and with this mark.

        Always all of it: an apply takes away what an earlier one has set and it leaves out.
        """
        observed = self.observation.claim
        if observed is None:
            raise TypeError("the chain goes on without a claim")
        desired = self._desired_claim(owner, choice, mark)
        sizes = [entry["spec"]["resources"]["requests"]["storage"] for entry in (observed, desired)]
        spec = {"resources": {"requests": {"storage": max(sizes, key=quantity_bytes)}}}
        return with_uid({**desired, "spec": spec}, observed)

    def _take_over(self, draft: Draft, choice: StorageChoice, observed: Manifest) -> Fact | None:
        """Make a claim of an earlier store of this name ours; grow it where a larger size is asked for."""
        name = observed["metadata"]["name"]
        engine = annotation(observed, labels.ENGINE)
        if label(observed, labels.STORE) != self._name or label(observed, labels.OWNER_NAME) != self._name:
            return stalls(
                STORAGE,
                "NameConflict",
                f"PersistentVolumeClaim {name} exists and is not of this store: rename the store or the claim",
                retry_after=60,
            )
        if engine != self.store.spec.engine:
            return stalls(
                STORAGE,
                "ForeignData",
                f"PersistentVolumeClaim {name} holds data of {engine}: create this store under another name",
                retry_after=60,
            )
        if is_deleting(observed):
            volume = observed["spec"].get("volumeName", "of the claim")
            return stalls(
                STORAGE,
                "ClaimDeleting",
                f"PersistentVolumeClaim {name} is being deleted and goes once the server's Pod does: to keep the data, "
                f"set persistentVolumeReclaimPolicy of PersistentVolume {volume} to Retain, or dump them while the "
                "server runs",
            )
        change = self._changed_claim(draft.owner, choice, kept_mark(observed))
        grows = change["spec"]["resources"]["requests"] != observed["spec"]["resources"]["requests"]
        if grows or label(observed, labels.OWNER_UID) != draft.owner.uid:
            draft.apply.append(change)
        return None

    def _desired_secret(self, owner: Owner) -> dict[str, Any]:
        return build_engine_secret(
            admin_secret_name(self._name), owner, self.observation.fresh_credentials, owned=False
        )

    def _is_of_this_store(self, secret: Manifest) -> bool:
        """Return whether a Secret was made for this store or for an earlier one of its name."""
        return label(secret, labels.OWNER_NAME) == self._name and label(secret, labels.OWNER_KIND) == self.kind

    def _secret_conflict(self) -> Fact:
        return stalls(
            SERVER,
            "NameConflict",
            f"Secret {admin_secret_name(self._name)} exists and is not of this store: rename one of the two",
            retry_after=60,
        )

    def _server_runs(self, draft: Draft) -> Fact:
        problem = self._keep_around(draft)
        if problem is not None:
            return problem
        desired = self._desired_pod(draft.owner)
        return draft.run_server(desired, self.observation.server.pod, SERVER, replace_outdated=True)

    def _keep_around(self, draft: Draft) -> Fact | None:
        """Keep the Secret, Service and NetworkPolicy of the server."""
        secret = self.observation.server.secret
        if secret is None and self.store.status.version is not None:
            return stalls(
                SERVER,
                "CredentialsLost",
                f"Secret {admin_secret_name(self._name)} is gone and the server takes no other: "
                "restore that Secret from a backup",
                retry_after=60,
            )
        if secret is None:
            draft.create.append(self._desired_secret(draft.owner))
        elif label(secret, labels.OWNER_UID) != draft.owner.uid:
            if not self._is_of_this_store(secret):
                return self._secret_conflict()
            body = {"apiVersion": "v1", "kind": "Secret", "metadata": self._desired_secret(draft.owner)["metadata"]}
            draft.apply.append(with_uid(body, secret))
        port = self._engine.port
        service = build_service(self._name, draft.owner, port=port, selector={labels.ROLE: "store"})
        policy = build_policy(
            self._name, draft.owner, role="store", port=port, operator_namespace=self.environment.operator_namespace
        )
        return draft.keep(service, self.observation.service, SERVER) or draft.keep(
            policy, self.observation.policy, SERVER
        )

    @property
    def kind(self) -> str:
        return "DataStore"

    @property
    def _engine(self) -> Engine:
        if self.observation.engine is None:
            raise TypeError("the chain goes on without an engine")
        return self.observation.engine

    def _desired_pod(self, owner: Owner) -> dict[str, Any]:
        managed = self.store.spec.managed
        workload = self._engine.store_server(
            StoreServer(
                database=managed.database,
                fallback_database=default_database(self._name),
                commit_policy=managed.commit_policy.value,
                has_load=is_read_by_server(self._load),
            )
        )
        image = self.environment.image(self.store.spec.engine, managed.version)
        if image is None:
            raise TypeError("the chain goes on without an image")
        resources = self._resources()
        inputs = digest(image, managed.commit_policy.value, resources.memory, resources.cpu)
        return build_pod(
            ServerPod(
                name=server_pod_name(self._name),
                owner=owner,
                role="store",
                image=image,
                user_id=self._engine.user_id,
                workload=workload,
                claim=claim_name(self._name),
                secret=admin_secret_name(self._name),
                resources=resources,
                annotations={labels.INPUTS: inputs},
                load_volume=load_volume(self._load),
            )
        )

    def _resources(self) -> Resources:
        asked = self.store.spec.managed.resources
        default = self.environment.server
        if asked is None:
            return default
        return Resources(memory=asked.memory or default.memory, cpu=asked.cpu or default.cpu)

    def _server_answers(self, draft: Draft) -> Fact:
        del draft
        answer = self.observation.answer
        if answer is None or isinstance(answer.error, UnreachableError):
            return waits(SERVER, "NotAnswering", "the server runs but does not answer yet", retry_after=1)
        if isinstance(answer.error, LoginRefusedError):
            return stalls(
                SERVER,
                "CredentialsRefused",
                f"the server refuses the credentials in Secret {admin_secret_name(self._name)}: restore "
                "that Secret from a backup",
                retry_after=30,
            )
        if answer.error is not None or answer.content is None:
            return waits(SERVER, "EngineError", f"the server answered with an error: {answer.error}", retry_after=10)
        return self._answering

    @property
    def _answering(self) -> Fact:
        return holds(SERVER, "Answering", f"the server answers at {self._host}:{self._engine.port}")

    def _load_is_done(self, draft: Draft) -> Fact:
        """Until a Job that is to fill the database has done so, it alone is told how to connect."""
        seen, choice = self.observation.load, self._storage()
        if not is_pending(self.observation.claim):
            for leftover in (seen.job, seen.secret):
                draft.drop(leftover)
            return self._answering
        if isinstance(choice, NoStorage):
            raise TypeError("the chain goes on without a storage class")
        name = loading_name(self._name)
        problem = self._log_in(draft, name, seen.secret) or draft.route(self.observation.server.pod, SERVER)
        if problem is not None:
            return problem
        if seen.secret is None:
            return waits(SERVER, "Loading", f"Secret {name} is being made for the Job that fills the database")
        fact = run_load(draft, self._load, seen, SERVER)
        if not fact.holds:
            return fact
        draft.calls.append(EngineCall(self.store.spec.engine, self._server_ref, "commit-load", {}))
        draft.apply.append(self._changed_claim(draft.owner, choice, {labels.LOAD: DONE}))
        return waits(SERVER, "Loaded", fact.message)

    def _apps_can_connect(self, draft: Draft) -> Fact:
        problem = self._log_in(draft, binding_name(self._name), self.observation.binding)
        return problem or draft.route(self.observation.server.pod, SERVER) or self._answering

    @property
    def _host(self) -> str:
        return f"{self._name}.{self.store.metadata.namespace}.svc"

    @property
    def _database(self) -> str:
        answer = self.observation.answer
        if answer is None or answer.content is None:
            raise TypeError("the chain goes on without an answer")
        return answer.content.database

    @property
    def _server_ref(self) -> ServerRef:
        pod = self.observation.server.pod
        if pod is None:
            raise TypeError("the chain goes on without a server")
        return ServerRef(
            host=str(pod_state(pod).ip),
            port=self._engine.port,
            secret_namespace=self.store.metadata.namespace,
            secret_name=admin_secret_name(self._name),
        )

    def _log_in(self, draft: Draft, name: str, observed: Manifest | None) -> Fact | None:
        """Give apps a login of their own, then write it down in a Secret."""
        password = self.observation.server.credentials["app-password"]
        values = self._engine.binding(host=self._host, database=self._database, password=password)
        secret = build_binding_secret(name, draft.owner, values, {})
        problem = draft.keep(secret, observed, SERVER)
        if draft.writes(secret):
            draft.calls.append(ensure_app_user(self.store.spec.engine, self._engine, self._server_ref, self._database))
        return problem

    def _plan_snapshots(self, draft: Draft) -> float | None:
        """Plan scheduled snapshots and drop the ones no longer kept; return the seconds until the next one."""
        line = SnapshotLine(
            manifest=self.observation.manifest,
            store=self.store,
            snapshots=self.observation.snapshots,
            now=self.observation.now,
            ready=all(fact.holds for fact in draft.facts),
            named=self.observation.named_snapshots,
        )
        schedule = plan_snapshots(line)
        draft.create.extend(schedule.create)
        draft.delete.extend(schedule.delete)
        return schedule.next_in

    def _status(self) -> dict[str, Any]:
        observation = self.observation
        status: dict[str, Any] = {
            "endpoint": {"host": self._host, "port": self._engine.port} if observation.engine is not None else None,
            "binding": {"name": binding_name(self._name)},
            "capacity": claim_state(observation.claim).capacity if observation.claim is not None else None,
        }
        newest = newest_ready(observation.snapshots)
        if newest is not None:
            status["lastSnapshot"] = {"name": newest["metadata"]["name"], "time": newest["status"]["capturedAt"]}
        content = observation.answer.content if observation.answer is not None else None
        if content is None:
            before = (observation.manifest.get("status") or {}) if observation.claim is not None else {}
            return {**status, **{key: before.get(key) for key in ("version", "databases", "branches", "branchCount")}}
        own = [state for state in content.branches if state.database == content.database]
        return {
            **status,
            "version": content.engine_version,
            "databases": [content.database, *(name for name in content.databases if name != content.database)][
                :MAX_LISTED
            ],
            "branches": [
                {"name": state.branch, "head": state.head, "workingRoot": state.working_root}
                for state in own[:MAX_LISTED]
            ],
            "branchCount": len(own),
        }


def newest_ready(snapshots: tuple[Manifest, ...]) -> Manifest | None:
    """Return the DataSnapshot that holds the youngest point in time and is ready, or None; of several that hold the
    same second, one and the same in whatever order they are listed.
    """
    ready = [entry for entry in snapshots if is_true(entry, "Ready") and (entry.get("status") or {}).get("capturedAt")]
    return max(ready, key=lambda entry: (str(entry["status"]["capturedAt"]), entry["metadata"]["name"]), default=None)
