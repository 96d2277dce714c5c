"""The chains of facts for a store whose server the operator runs: what they have in common, and that of one that is
managed. Pure.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coppice.api.v1alpha1 import ComputeResources, Managed
from coppice.api.v1alpha1.datastore import Load, Storage
from coppice.core import labels
from coppice.core.names import digest
from coppice.core.plan import EngineCall, Manifest, ServerRef
from coppice.core.quantities import quantity_bytes
from coppice.engines.base import Content, LoginRefusedError, StoreServer, UnreachableError
from coppice.engines.upkeep import UpkeepEngine
from coppice.manifests.meta import Owner
from coppice.manifests.network import build_policy, build_service
from coppice.manifests.pod import Proxy, Resources, ServerPod, build_pod
from coppice.manifests.secret import added_name, build_binding_secret, build_engine_secret, lacking_keys
from coppice.manifests.storage import Claim, build_claim
from coppice.reconcile.certificate import Tls, Wish
from coppice.reconcile.classes import NoStorage, StorageChoice, choose_storage
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits, with_uid
from coppice.reconcile.kept import kept_status, overdue
from coppice.reconcile.load import (
    DONE,
    first_mark,
    is_pending,
    is_read_by_server,
    kept_mark,
    load_volume,
    loading_name,
    run_load,
    source_is_there,
)
from coppice.reconcile.observed import annotation, claim_state, is_deleting, label
from coppice.reconcile.protection import is_protected, protect, protection_status, reviews_alone, unprotectable
from coppice.reconcile.provisioning import waits_for_volume
from coppice.reconcile.reads import ensure_app_user, server_ref
from coppice.reconcile.requests import read_request
from coppice.reconcile.storenames import admin_secret_name, binding_name, claim_name, default_database, server_pod_name
from coppice.reconcile.stores import ENGINE, GUARDED, SERVER, STORAGE, StorePlan
from coppice.reconcile.upkeep import Upkeep, size_status

PROGRESS_SECONDS = 5.0
"""Between two looks at how far an initial load is."""


@dataclass(frozen=True, slots=True)
class ServedPlan(StorePlan):
    """What is the same for every store whose server the operator runs: its Secret, its Pod, and whether it answers."""

    @property
    @abstractmethod
    def asked_storage(self) -> Storage:
        """Return what is asked for of the volume."""

    @property
    @abstractmethod
    def asked_resources(self) -> ComputeResources | None:
        """Return what is asked for of a node."""

    @property
    @abstractmethod
    def asked_version(self) -> str:
        """Return the version that is asked for."""

    @property
    def name(self) -> str:
        """Return the store's name."""
        return self.store.metadata.name

    def engine_is_supported(self, draft: Draft) -> Fact:
        """Return whether there is the engine, and an image of the version."""
        del draft
        spec = self.store.spec
        if self.observation.engine is None:
            return self.unknown_engine()
        if self.environment.image(spec.engine, self.asked_version) is None:
            return self.unsupported_version(self.asked_version)
        return holds(ENGINE, "Supported", f"{spec.engine} {self.asked_version}")

    def storage(self) -> StorageChoice | NoStorage:
        """Return the classes of the volume and its snapshots."""
        storage = self.asked_storage
        return choose_storage(
            self.observation.classes, storage=self._storage_class_name(), snapshot=storage.snapshot_class_name
        )

    def _storage_class_name(self) -> str | None:
        """Return the class asked for; once there is a claim, its class, whatever the cluster's default becomes."""
        claim = self.observation.claim
        asked = self.asked_storage.storage_class_name
        return asked if asked is not None or claim is None else claim_state(claim).storage_class

    def class_can_snapshot(self, draft: Draft) -> Fact:
        """Return whether volumes of the class can be captured."""
        del draft
        choice = self.storage()
        if isinstance(choice, NoStorage):
            return stalls(STORAGE, choice.reason, choice.message, retry_after=60)
        return holds(STORAGE, "CanSnapshot", f"{choice.storage_class} with snapshots by {choice.snapshot_class}")

    def network_is_guarded(self) -> Fact | None:
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

    def desired_secret(self, owner: Owner) -> dict[str, Any]:
        """Return the administrator's Secret."""
        return build_engine_secret(admin_secret_name(self.name), owner, self.observation.fresh_credentials, owned=False)

    def _is_of_this_store(self, secret: Manifest) -> bool:
        """Return whether a Secret was made for this store or for an earlier one of its name."""
        return label(secret, labels.OWNER_NAME) == self.name and label(secret, labels.OWNER_KIND) == self._kind

    def _secret_conflict(self, name: str) -> Fact:
        return stalls(
            SERVER,
            "NameConflict",
            f"Secret {name} exists and is not of this store: rename one of the two",
            retry_after=60,
        )

    def keep_secret(self, draft: Draft) -> Fact | None:
        """Keep the administrator's Secret ours, and what completes it; return why that cannot be, or None."""
        secret = self.observation.server.secret
        wanted = [(self.desired_secret(draft.owner), secret)]
        if self._lacking:
            fresh = {key: self.observation.fresh_credentials[key] for key in self._lacking}
            name = added_name(admin_secret_name(self.name))
            added = build_engine_secret(name, draft.owner, fresh, owned=False)
            wanted.append((added, self.observation.added))
        for desired, observed in wanted:
            if observed is None:
                draft.create.append(desired)
            elif label(observed, labels.OWNER_UID) != draft.owner.uid:
                if not self._is_of_this_store(observed):
                    return self._secret_conflict(desired["metadata"]["name"])
                body = {"apiVersion": "v1", "kind": "Secret", "metadata": desired["metadata"]}
                draft.apply.append(with_uid(body, observed))
        return None

    @property
    def _lacking(self) -> list[str]:
        """Return what the Secret of an older operator lacks of what a server is to have."""
        return lacking_keys(self.observation.server.secret, self.observation.fresh_credentials)

    @property
    def _kind(self) -> str:
        return "DataStore"

    def build_server(
        self,
        owner: Owner,
        *,
        image: str,
        inputs: StoreServer,
        claim: str,
        digested: Sequence[str],
        load: Load | None,
        proxy: Proxy | None = None,
    ) -> dict[str, Any]:
        """Return the Pod of the server; it is replaced when one of the inputs that are ``digested`` is another."""
        resources = self.resources
        return build_pod(
            ServerPod(
                name=server_pod_name(self.name),
                owner=owner,
                role="store",
                image=image,
                user_id=self.engine.user_id,
                workload=self.engine.store_server(inputs),
                claim=claim,
                secret=admin_secret_name(self.name),
                resources=resources,
                annotations={labels.INPUTS: digest(image, *digested, resources.memory, resources.cpu)},
                load_volume=load_volume(load),
                added=self._lacking,
                proxy=proxy,
            )
        )

    @property
    def resources(self) -> Resources:
        """Return what the server gets of a node."""
        asked = self.asked_resources
        default = self.environment.server
        if asked is None:
            return default
        return Resources(memory=asked.memory or default.memory, cpu=asked.cpu or default.cpu)

    def server_answers(self, draft: Draft) -> Fact:
        """Return whether the server answers with real reads."""
        del draft
        answer = self.observation.answer
        if answer is None or isinstance(answer.error, UnreachableError):
            return waits(SERVER, "NotAnswering", "the server runs but does not answer yet", retry_after=1)
        if isinstance(answer.error, LoginRefusedError):
            return stalls(
                SERVER,
                "CredentialsRefused",
                f"the server refuses the credentials in Secret {admin_secret_name(self.name)}: restore "
                "that Secret from a backup",
                retry_after=30,
            )
        if answer.error is not None or answer.content is None:
            return waits(SERVER, "EngineError", f"the server answered with an error: {answer.error}", retry_after=10)
        return self.answering

    @property
    @abstractmethod
    def answering(self) -> Fact:
        """Return that the server answers, and where."""


@dataclass(frozen=True, slots=True)
class ManagedPlan(ServedPlan):
    """The chain for a managed store: one volume for good, and a login for applications."""

    def steps(self) -> Sequence[Callable[[Draft], Fact]]:
        """Return the chain."""
        return (
            self.engine_is_supported,
            self.class_can_snapshot,
            self._load_is_there,
            self._certificate_is_there,
            self._claim_is_there,
            self._server_runs,
            self.server_answers,
            self._load_is_done,
            self._protection_is_in_force,
            self._deleted_branches_go,
            self._apps_can_connect,
        )

    @property
    def _upkeep(self) -> Upkeep | None:
        """Return the optimization that is asked for, if so."""
        request = read_request(self.observation.manifest, labels.OPTIMIZE_REQUESTED_AT)
        if request is None or not isinstance(self.observation.engine, UpkeepEngine):
            return None
        claim = self.observation.claim
        return Upkeep(
            store=self.store,
            request=request,
            seen=self.observation.upkeep,
            capacity=None if claim is None else claim_state(claim).capacity,
            now=self.observation.now,
        )

    @property
    def _managed(self) -> Managed:
        if self.store.spec.managed is None:
            raise TypeError("the store is not managed")
        return self.store.spec.managed

    @property
    def asked_storage(self) -> Storage:
        """Return what is asked for of the volume."""
        return self._managed.storage

    @property
    def asked_resources(self) -> ComputeResources | None:
        """Return what is asked for of a node."""
        return self._managed.resources

    @property
    def asked_version(self) -> str:
        """Return the version that is asked for."""
        return self._managed.version

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
                return self._secret_conflict(admin_secret_name(self.name))
            if secret is not None:
                return stalls(
                    STORAGE,
                    "ClaimLost",
                    f"the claim {claim_name(self.name)} is gone but Secret "
                    f"{admin_secret_name(self.name)} shows that there was data: "
                    "restore the claim from a snapshot, or delete that Secret to begin with an empty store",
                )
            draft.create.append(self._desired_claim(draft.owner, choice, first_mark(self._load)))
            draft.create.append(self.desired_secret(draft.owner))
            return waits(STORAGE, "ClaimCreated", f"made the claim {claim_name(self.name)}")
        problem = self._take_over(draft, choice, observed)
        if problem is not None:
            return problem
        state = claim_state(observed)
        if state.lost:
            return stalls(
                STORAGE,
                "ClaimLost",
                f"the volume of claim {claim_name(self.name)} is gone: restore it from a snapshot",
            )
        complaint, pod = self.observation.complaint, self.observation.server.pod
        if not state.bound and (not choice.waits_for_consumer or (pod is not None and complaint is not None)):
            return waits_for_volume(STORAGE, "ClaimPending", observed, complaint, self.observation.now)
        return holds(STORAGE, "Bound", f"claim {claim_name(self.name)} with {state.capacity}")

    def _desired_claim(self, owner: Owner, choice: StorageChoice, mark: Mapping[str, str]) -> dict[str, Any]:
        return build_claim(
            Claim(
                name=claim_name(self.name),
                owner=owner,
                size=self._managed.storage.size,
                storage_class=choice.storage_class,
                labels={labels.STORE: self.name},
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
        if label(observed, labels.STORE) != self.name or label(observed, labels.OWNER_NAME) != self.name:
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

    def _certificate_is_there(self, draft: Draft) -> Fact:
        return self._tls.lacks(draft, self.observation.server.pod, SERVER) or draft.facts[-1]

    @property
    def _tls(self) -> Tls:
        wanted = self._managed.tls
        wish = None if wanted is None else Wish(wanted.secret_name, labels.STORE, self.name, "spec.managed.tls")
        return Tls(self.engine, wish, self.observation.certificate, self.environment.tls_image)

    @property
    def _port(self) -> int:
        """Return the port on which clients connect."""
        return self._tls.port_of(self.observation.server.pod)

    def _server_runs(self, draft: Draft) -> Fact:
        problem = self._keep_around(draft)
        if problem is not None:
            return problem
        pod, progress = self.observation.server.pod, self.observation.load.progress
        if pod is not None and not self._tls.is_had:
            return draft.leave_server(pod, SERVER)
        fact = draft.run_server(self._desired_pod(draft.owner), pod, SERVER, replace_outdated=True)
        if fact.reason != "Starting" or progress is None:
            return fact
        # Nothing else tells of it: a Pod does not change while it reads.
        words = f"{progress.done} of {progress.total} files of the initial load are in"
        return waits(SERVER, "Loading", words, retry_after=PROGRESS_SECONDS)

    def _keep_around(self, draft: Draft) -> Fact | None:
        """Keep the Secret, Service and NetworkPolicy of the server."""
        secret = self.observation.server.secret
        if secret is None and self.store.status.version is not None:
            return stalls(
                SERVER,
                "CredentialsLost",
                f"Secret {admin_secret_name(self.name)} is gone and the server takes no other: "
                "restore that Secret from a backup",
                retry_after=60,
            )
        problem = self.keep_secret(draft)
        if problem is not None:
            return problem
        port = self._port
        service = build_service(self.name, draft.owner, port=port, selector={labels.ROLE: "store"})
        policy = build_policy(
            self.name, draft.owner, role="store", ports=[port], operator_namespace=self.environment.operator_namespace
        )
        return draft.keep(service, self.observation.service, SERVER) or draft.keep(
            policy, self.observation.policy, SERVER
        )

    def _desired_pod(self, owner: Owner) -> dict[str, Any]:
        managed, tls = self._managed, self._tls
        image = self.environment.image(self.store.spec.engine, managed.version)
        if image is None:
            raise TypeError("the chain goes on without an image")
        inputs = StoreServer(
            database=managed.database,
            fallback_database=default_database(self.name),
            commit_policy=managed.commit_policy.value,
            has_load=is_read_by_server(self._load),
        )
        return self.build_server(
            owner,
            image=image,
            inputs=inputs,
            claim=claim_name(self.name),
            digested=(managed.commit_policy.value, *tls.inputs),
            load=self._load,
            proxy=tls.proxy,
        )

    def _load_is_done(self, draft: Draft) -> Fact:
        """Until a Job that is to fill the database has done so, it alone is told how to connect."""
        seen, choice = self.observation.load, self.storage()
        if not is_pending(self.observation.claim):
            for leftover in (seen.job, seen.secret):
                draft.drop(leftover)
            return self.answering
        if isinstance(choice, NoStorage):
            raise TypeError("the chain goes on without a storage class")
        name = loading_name(self.name)
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

    def _protection_is_in_force(self, draft: Draft) -> Fact:
        """Before apps can connect, and not before a Job has filled the database, which it does as they would."""
        problem = unprotectable(self.store, self.engine)
        if problem is not None:
            return problem
        server, content = self._server_ref, self._answered
        protect(draft, self.store, self.engine, server, content=content, pod_uid=self._server_uid)
        guarded = self.store.spec.protection and not reviews_alone(self.store, self.engine)
        return is_protected(self.store) if guarded else self.answering

    def _deleted_branches_go(self, draft: Draft) -> Fact:
        """Let go what was kept of deleted branches for long enough, and what squashes have left."""
        kept = overdue(self.observation.kept or (), self.observation.now)
        for tag in (*(entry.tag for entry in kept), *self.observation.left):
            arguments = {"database": self._database, "tag": tag}
            draft.calls.append(EngineCall(self.store.spec.engine, self._server_ref, "delete-tag", arguments))
        return draft.facts[-1]

    def branches_are_protected(self, draft: Draft) -> Fact:
        """Return the fact before: protection has been seen to."""
        return draft.facts[-1]

    def protection_status(self, draft: Draft) -> Mapping[str, Any]:
        """Return the part of the status that says which branches are protected."""
        return protection_status(draft, self.store, self._server_uid)

    @property
    def _server_uid(self) -> str | None:
        pod = self.observation.server.pod
        return None if pod is None else str(pod["metadata"]["uid"])

    def _apps_can_connect(self, draft: Draft) -> Fact:
        problem = self._log_in(draft, binding_name(self.name), self.observation.binding)
        return problem or draft.route(self.observation.server.pod, SERVER) or self.answering

    def upkeep_status(self, draft: Draft) -> Mapping[str, Any]:
        """Plan the next part of an optimization that is asked for, if apps can connect; return how far it is."""
        upkeep, told = self._upkeep, self.store.status.optimization
        if upkeep is not None and len(draft.facts) > len(self.steps()):
            told = upkeep.run(draft, self._server_ref)
        return {"optimization": None if told is None else told.dump()}

    @property
    def answering(self) -> Fact:
        """Return that the server answers, and where."""
        return holds(SERVER, "Answering", f"the server answers at {self._host}:{self._port}")

    @property
    def _host(self) -> str:
        return f"{self.name}.{self.store.metadata.namespace}.svc"

    @property
    def _answered(self) -> Content:
        answer = self.observation.answer
        if answer is None or answer.content is None:
            raise TypeError("the chain goes on without an answer")
        return answer.content

    @property
    def _database(self) -> str:
        return self._answered.database

    @property
    def _server_ref(self) -> ServerRef:
        pod = self.observation.server.pod
        if pod is None:
            raise TypeError("the chain goes on without a server")
        return server_ref(pod, self.engine, admin_secret_name(self.name))

    def _log_in(self, draft: Draft, name: str, observed: Manifest | None) -> Fact | None:
        """Give apps a login of their own, then write it down in a Secret."""
        password = self.observation.server.credentials["app-password"]
        values = self.engine.binding(host=self._host, database=self._database, password=password)
        bound = self._tls.bind(values, self.observation.server.pod)
        secret = build_binding_secret(name, draft.owner, bound, {})
        problem = draft.keep(secret, observed, SERVER)
        if draft.writes(secret):
            draft.calls.append(ensure_app_user(self.store.spec.engine, self.engine, self._server_ref, self._database))
        return problem

    def status(self) -> dict[str, Any]:
        """Return what was last seen of the server."""
        claim, told, progress = self.observation.claim, self.store.status, self.observation.load.progress
        return {
            "endpoint": self._endpoint,
            "binding": {"name": binding_name(self.name)},
            "capacity": claim_state(claim).capacity if claim is not None else None,
            "deletedBranches": self._deleted_branches,
            "load": None if progress is None else {"done": progress.done, "total": progress.total},
            "size": size_status(told.size, self.observation.upkeep.size),
            **self.content_status(kept=claim is not None),
        }

    @property
    def _endpoint(self) -> dict[str, Any] | None:
        seen = self.observation
        if seen.engine is None:
            return None
        port = self._tls.told_port(seen.service, seen.server.pod, self.store.metadata.uid)
        return {"host": self._host, "port": port}

    @property
    def _deleted_branches(self) -> list[dict[str, Any]]:
        """Return what can be restored; while the server does not say, what it said last."""
        now, kept = self.observation.now, self.observation.kept
        if kept is not None:
            return kept_status(kept, now)
        told = (self.observation.manifest.get("status") or {}).get("deletedBranches") or ()
        return [entry for entry in told if self.observation.claim is not None]
