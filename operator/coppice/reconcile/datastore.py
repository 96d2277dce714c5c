"""DataStore: a database that the operator runs, with its claim, its server and its snapshots, or one that somebody else
runs (``coppice.reconcile.adoptedstore``).

The claim and the administrator's Secret have no ownerReference: they outlive the object unless ``deletionPolicy:
Delete`` asks otherwise, and a DataStore of the same name takes them over again.
"""

from __future__ import annotations

from asyncio import gather
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any

from coppice.api.v1alpha1 import Adopted, DataStore, DeletionPolicy, Durability, InvalidResource, Managed
from coppice.api.v1alpha1.datastore import Load
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.names import child, digest
from coppice.core.plan import EngineCall, Manifest, Plan, Ref, ServerRef
from coppice.core.quantities import quantity_bytes
from coppice.engines.base import EngineError, LoginRefusedError, StoreServer, UnreachableError
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.manifests.meta import Owner
from coppice.manifests.network import build_policy, build_service
from coppice.manifests.pod import Resources, ServerPod, build_pod
from coppice.manifests.secret import build_binding_secret, build_engine_secret
from coppice.manifests.storage import Claim, build_claim
from coppice.reconcile.adopted import read_adoption
from coppice.reconcile.adoptedstore import AdoptedPlan
from coppice.reconcile.classes import NoStorage, StorageChoice, choose_storage
from coppice.reconcile.draft import Draft, Fact, condemned, holds, stalls, waits, with_uid
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.knocks import Knocks
from coppice.reconcile.load import (
    DONE,
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
    label,
    pod_state,
)
from coppice.reconcile.provisioning import read_complaint, waits_for_volume
from coppice.reconcile.reads import Server, ask, ensure_app_user, get_each, read_classes
from coppice.reconcile.schedule import SnapshotLine, superseded
from coppice.reconcile.stores import ENGINE, GUARDED, SERVER, STORAGE, TYPES, StoreObservation, StorePlan

CLOSED_PORT = 9
"""One on which no server listens and to which no policy lets anybody (discard, RFC 863)."""


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
        classes, snapshots = await gather(read_classes(reader), reader.list("DataSnapshot", key.namespace))
        own = tuple(entry for entry in snapshots if entry["spec"]["store"]["name"] == key.name)
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
        if isinstance(store, DataStore) and store.spec.adopted is not None:
            return await _with_adoption(reader, seen, store, store.spec.adopted)
        return await self._with_server(reader, key, seen)

    async def _with_server(self, reader: KubeReader, key: Key, seen: StoreObservation) -> StoreObservation:
        """Read what is made for a store whose server the operator runs, and ask that."""
        store, engine = seen.store, seen.engine
        claim, pod, secret, binding, service, policy = await get_each(
            reader,
            key.namespace,
            ("PersistentVolumeClaim", claim_name(key.name)),
            ("Pod", server_pod_name(key.name)),
            ("Secret", admin_secret_name(key.name)),
            ("Secret", binding_name(key.name)),
            ("Service", key.name),
            ("NetworkPolicy", key.name),
        )
        server, managed = Server(pod, secret), None if isinstance(store, InvalidResource) else store.spec.managed
        database = None if managed is None else managed.database
        return replace(
            seen,
            claim=claim,
            complaint=await read_complaint(reader, claim, seen.now),
            server=server,
            binding=binding,
            service=service,
            policy=policy,
            load=await observe_load(reader, store, claim),
            answer=None if engine is None else await ask(engine, server.endpoint(engine), database=database),
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
            return Plan(remove_finalizer=True)
        if isinstance(store, InvalidResource):
            draft = Draft(observation.manifest, observation.now)
            draft.facts.append(stalls(ENGINE, "InvalidSpec", store.message))
            return draft.finish(TYPES, {})
        if is_deleting(observation.manifest):
            return _plan_deletion(observation, store)
        if store.spec.managed is None:
            return AdoptedPlan(self.environment, observation, store).plan()
        return _with_finalizer(_ManagedPlan(self.environment, observation, store).plan(), store)

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
    """Return the snapshots that clones need: read only where one is about to go, for there may be many clones."""
    if not superseded(line):
        return frozenset()
    metadata = line.store.metadata
    clones = [
        entry
        for entry in await reader.list("DataClone")
        if entry["spec"]["from"]["store"]["name"] == metadata.name
        and (entry["spec"]["from"]["store"].get("namespace") or entry["metadata"]["namespace"]) == metadata.namespace
    ]
    return frozenset(name for entry in clones for name in _needed_snapshots(entry))


def _needed_snapshots(clone: Manifest) -> Iterator[str]:
    """Return the snapshot that a clone asks for by name, and the one that it may be committed as a child of."""
    if "snapshot" in clone["spec"]["from"]:
        yield str(clone["spec"]["from"]["snapshot"])
    present = (clone.get("status") or {}).get("snapshot")
    if clone["spec"].get("durability") == Durability.DURABLE and present is not None:
        yield str(present["name"])


def _plan_deletion(observation: StoreObservation, store: DataStore) -> Plan:
    """Kubernetes collects what the store owns; with Delete, the data goes as well, the server first.

    Of an adopted store nothing is owned, and its data are not for Coppice to delete, whatever the policy says.
    """
    if store.spec.adopted is not None or store.spec.deletion_policy is not DeletionPolicy.DELETE:
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


def _with_finalizer(plan: Plan, store: DataStore) -> Plan:
    wanted = store.spec.deletion_policy is DeletionPolicy.DELETE
    present = labels.FINALIZER in store.metadata.finalizers
    if wanted == present:
        return plan
    return replace(plan, add_finalizer=wanted, remove_finalizer=not wanted)


@dataclass(frozen=True, slots=True)
class _ManagedPlan(StorePlan):
    """The chain of facts for a store whose server the operator runs."""

    def steps(self) -> Sequence[Callable[[Draft], Fact]]:
        return (
            self._engine_is_supported,
            self._class_can_snapshot,
            self._load_is_there,
            self._claim_is_there,
            self._server_runs,
            self._server_answers,
            self._load_is_done,
            self._apps_can_connect,
        )

    @property
    def _managed(self) -> Managed:
        if self.store.spec.managed is None:
            raise TypeError("the store is not managed")
        return self.store.spec.managed

    @property
    def _name(self) -> str:
        return self.store.metadata.name

    def _engine_is_supported(self, draft: Draft) -> Fact:
        del draft
        spec = self.store.spec
        if self.observation.engine is None:
            return self.unknown_engine()
        if self.environment.image(spec.engine, self._managed.version) is None:
            return self.unsupported_version(self._managed.version)
        return holds(ENGINE, "Supported", f"{spec.engine} {self._managed.version}")

    def storage(self) -> StorageChoice | NoStorage:
        storage = self._managed.storage
        return choose_storage(
            self.observation.classes, storage=self._storage_class_name(), snapshot=storage.snapshot_class_name
        )

    def _storage_class_name(self) -> str | None:
        """Return the class asked for; once there is a claim, its class, whatever the cluster's default becomes."""
        claim = self.observation.claim
        asked = self._managed.storage.storage_class_name
        return asked if asked is not None or claim is None else claim_state(claim).storage_class

    def _class_can_snapshot(self, draft: Draft) -> Fact:
        del draft
        choice = self.storage()
        if isinstance(choice, NoStorage):
            return stalls(STORAGE, choice.reason, choice.message, retry_after=60)
        return holds(STORAGE, "CanSnapshot", f"{choice.storage_class} with snapshots by {choice.snapshot_class}")

    def network_is_guarded(self) -> Fact | None:
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

    @property
    def _load(self) -> Load | None:
        return self._managed.load

    def _load_is_there(self, draft: Draft) -> Fact:
        del draft
        if self.observation.claim is not None:
            return holds(STORAGE, "LoadFound", "the claim is there, and a load is not looked for again")
        return source_is_there(self._load, self.observation.load, STORAGE)

    def _claim_is_there(self, draft: Draft) -> Fact:
        choice = self.storage()
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
                size=self._managed.storage.size,
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
        port = self.engine.port
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

    def _desired_pod(self, owner: Owner) -> dict[str, Any]:
        managed = self._managed
        workload = self.engine.store_server(
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
                user_id=self.engine.user_id,
                workload=workload,
                claim=claim_name(self._name),
                secret=admin_secret_name(self._name),
                resources=resources,
                annotations={labels.INPUTS: inputs},
                load_volume=load_volume(self._load),
            )
        )

    def _resources(self) -> Resources:
        asked = self._managed.resources
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
        return holds(SERVER, "Answering", f"the server answers at {self._host}:{self.engine.port}")

    def _load_is_done(self, draft: Draft) -> Fact:
        """Until a Job that is to fill the database has done so, it alone is told how to connect."""
        seen, choice = self.observation.load, self.storage()
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
            port=self.engine.port,
            secret_namespace=self.store.metadata.namespace,
            secret_name=admin_secret_name(self._name),
        )

    def _log_in(self, draft: Draft, name: str, observed: Manifest | None) -> Fact | None:
        """Give apps a login of their own, then write it down in a Secret."""
        password = self.observation.server.credentials["app-password"]
        values = self.engine.binding(host=self._host, database=self._database, password=password)
        secret = build_binding_secret(name, draft.owner, values, {})
        problem = draft.keep(secret, observed, SERVER)
        if draft.writes(secret):
            draft.calls.append(ensure_app_user(self.store.spec.engine, self.engine, self._server_ref, self._database))
        return problem

    def status(self) -> dict[str, Any]:
        claim = self.observation.claim
        return {
            "endpoint": None
            if self.observation.engine is None
            else {"host": self._host, "port": self.observation.engine.port},
            "binding": {"name": binding_name(self._name)},
            "capacity": claim_state(claim).capacity if claim is not None else None,
            **self.content_status(kept=claim is not None),
        }
