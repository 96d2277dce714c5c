"""DataSnapshot: raw snapshot, scratch copy, preparation, mask, prepared snapshot.

The raw snapshot of a commit is one of a clone, handed over from its namespace (``coppice.reconcile.commit``).

The raw VolumeSnapshot holds password hashes, all history and unmasked rows; it stays in the store's namespace and
goes as soon as the prepared one is ready. What preparation found is written on the prepared VolumeSnapshot before
anything is cleaned up, so that the status can be rebuilt from it.
"""

from __future__ import annotations

import json
from asyncio import gather
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from coppice.api.v1alpha1 import DataSnapshot, DataStore, InvalidResource
from coppice.core import labels
from coppice.core.key import Key
from coppice.core.names import child, digest
from coppice.core.plan import EngineCall, Manifest, Plan, Ref
from coppice.core.pullrequests import Forges
from coppice.core.quantities import larger
from coppice.engines.base import BranchState, Content, Engine, EngineError, Finding, Preparation, server_of
from coppice.kube.client import KubeReader
from coppice.kube.errors import KubeError
from coppice.manifests.meta import is_owned
from coppice.manifests.network import build_closed_policy
from coppice.manifests.storage import Claim, build_claim, build_volume_snapshot
from coppice.reconcile import ledgers
from coppice.reconcile.adopted import Adoption, read_adoption
from coppice.reconcile.aliases import stranded_aliases
from coppice.reconcile.backing import Backing, present_backing, recorded_backing, storage_for
from coppice.reconcile.classes import ClusterClasses, NoStorage, StorageChoice
from coppice.reconcile.commit.handover import CAPTURED, LOOK_SECONDS, Handover
from coppice.reconcile.commit.line import is_commit, place_of
from coppice.reconcile.commit.provenance import Provenance
from coppice.reconcile.commit.seen import CommitSeen, capture_name, clone_key, full_name, observe_commit
from coppice.reconcile.draft import Draft, Fact, condemned, holds, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.failure import plan_failure
from coppice.reconcile.mask.chain import Masking
from coppice.reconcile.mask.mark import MaskRecord
from coppice.reconcile.mask.seen import MaskSeen, observe_mask, reporting_pod
from coppice.reconcile.mirror.copies import read_store_claim
from coppice.reconcile.observed import (
    annotation,
    claim_state,
    condition,
    format_time,
    is_deleting,
    is_true,
    pod_state,
    volume_snapshot_state,
)
from coppice.reconcile.preparation import PREPARED, ScratchCopy, prepare_pod_name, run_preparation, scratch_name
from coppice.reconcile.provisioning import Complaint, read_complaint, waits_for_capture, waits_for_volume
from coppice.reconcile.reads import get_each, read_classes, read_last_line, server_ref
from coppice.reconcile.storenames import admin_secret_name, claim_name, server_pod_name
from coppice.reconcile.torn import MOST_TORN, found_torn, is_of_another, known_torn, torn_words

TYPES = (CAPTURED, PREPARED)
MAX_LISTED = 500
"""How many branches a DataSnapshot's status names at most."""
MAX_FINDINGS = 20


def raw_name(snapshot: str) -> str:
    """Return the name of the raw VolumeSnapshot."""
    return child(snapshot, "raw")


@dataclass(frozen=True, slots=True)
class Capture:
    """What is known of a snapshot, as it is kept on the prepared VolumeSnapshot."""

    store_uid: str
    engine: str
    version: str
    captured_at: str
    capacity: str
    content: Content
    storage_class: str | None = None
    user_id: int | None = None
    mask: MaskRecord | None = None
    provenance: Provenance | None = None

    def dump(self) -> str:
        """Return the annotation's text."""
        content = self.content
        return json.dumps(
            {
                "storeUID": self.store_uid,
                "engine": self.engine,
                "version": self.version,
                "capturedAt": self.captured_at,
                "capacity": self.capacity,
                "storageClass": self.storage_class,
                "userID": self.user_id,
                "engineVersion": content.engine_version,
                "database": content.database,
                "defaultBranch": content.default_branch,
                "databases": content.databases,
                "branches": [[s.database, s.branch, s.head, s.working_root] for s in content.branches[:MAX_LISTED]],
                "findings": [[found.reason, found.message] for found in content.findings[:MAX_FINDINGS]],
                **({} if content.ledger is None else {"ledger": ledgers.dump(content.ledger)}),
                **({} if self.mask is None else {"mask": self.mask.dump()}),
                **({} if self.provenance is None else {"commit": replace(self.provenance, mask=None).dump()}),
            },
            separators=(",", ":"),
        )

    @classmethod
    def load(cls, text: str) -> Capture:
        """Parse the annotation's text; raises ValueError or KeyError for anything else."""
        data = json.loads(text)
        return cls(
            store_uid=data["storeUID"],
            engine=data["engine"],
            version=data["version"],
            captured_at=data["capturedAt"],
            capacity=data["capacity"],
            content=Content(
                engine_version=data["engineVersion"],
                database=data["database"],
                default_branch=data["defaultBranch"],
                databases=tuple(data["databases"]),
                branches=tuple(BranchState(*entry) for entry in data["branches"]),
                findings=tuple(Finding(*entry) for entry in data.get("findings", ())),
                ledger=ledgers.load(data["ledger"]) if "ledger" in data else None,
            ),
            storage_class=data.get("storageClass"),
            user_id=data.get("userID"),
            mask=MaskRecord.load(data["mask"]) if "mask" in data else None,
            provenance=Provenance.load(data["commit"]) if "commit" in data else None,
        )


@dataclass(frozen=True, slots=True)
class SnapshotObservation:
    """A DataSnapshot, its store, and the objects on the way from raw to prepared.

    ``source_claim``, ``server`` and ``adoption`` count until the volume is captured; what comes after has all that it
    needs on ``raw``. ``commit``: of a commit, until nothing of it is left elsewhere.
    """

    manifest: Manifest
    now: datetime
    snapshot: DataSnapshot | InvalidResource
    store_manifest: Manifest | None
    store: DataStore | InvalidResource | None
    engine: Engine | None
    classes: ClusterClasses
    source_claim: Manifest | None
    server: Manifest | None
    adoption: Adoption | None
    raw: Manifest | None
    scratch: Manifest | None
    complaint: Complaint | None
    pod: Manifest | None
    policy: Manifest | None
    prepared: Manifest | None
    mask: MaskSeen
    report_line: str
    commit: CommitSeen = field(default_factory=CommitSeen)


@dataclass(frozen=True, slots=True)
class DataSnapshotReconciler:
    """Makes DataSnapshots."""

    environment: Environment
    kind: str = "DataSnapshot"

    async def observe(self, reader: KubeReader, key: Key, now: datetime) -> SnapshotObservation | None:
        """Read the snapshot, its store, and what is on the way."""
        manifest = await reader.get("DataSnapshot", key.name, key.namespace)
        if manifest is None:
            return None
        snapshot = DataSnapshot.parse(manifest)
        store_name = manifest["spec"]["store"]["name"]
        made, classes = await gather(
            get_each(
                reader,
                key.namespace,
                ("DataStore", store_name),
                ("VolumeSnapshot", raw_name(key.name)),
                ("PersistentVolumeClaim", scratch_name(key.name)),
                ("Pod", prepare_pod_name(key.name)),
                ("NetworkPolicy", prepare_pod_name(key.name)),
                ("VolumeSnapshot", key.name),
            ),
            read_classes(reader),
        )
        store_manifest, raw, scratch, pod, policy, prepared = made
        store = DataStore.parse(store_manifest) if store_manifest is not None else None
        engine = self.environment.engines.get(store.spec.engine) if isinstance(store, DataStore) else None
        source, server, adoption, commit = None, None, None, CommitSeen()
        if is_commit(manifest):
            commit = await _observe_handover(reader, self.environment.forges, manifest, raw, prepared)
        elif isinstance(store, DataStore) and store.spec.adopted is None:
            settles = raw is None and engine is not None and engine.capture_action is not None
            source = await read_store_claim(reader, store.metadata.namespace, store_name, store)
            server = await reader.get("Pod", server_pod_name(store_name), key.namespace) if settles else None
        elif isinstance(store, DataStore) and store.spec.adopted is not None and _is_captured_next(raw, prepared):
            adoption = await read_adoption(reader, store.metadata.namespace, store_name, store.spec.adopted)
            source = adoption.claim
        mask = MaskSeen()
        # The raw snapshot goes last: with it, all of the mask's is gone.
        if not is_commit(manifest) and (raw is not None or scratch is not None):
            mask = await observe_mask(
                reader, manifest, store=store, engine=engine, database=_database_in(raw), scratch=scratch, now=now
            )
        return SnapshotObservation(
            manifest=manifest,
            now=now,
            snapshot=snapshot,
            store_manifest=store_manifest,
            store=store,
            engine=engine,
            classes=classes,
            source_claim=source,
            server=server,
            adoption=adoption,
            raw=raw,
            scratch=scratch,
            complaint=await read_complaint(reader, scratch, now),
            pod=pod,
            policy=policy,
            prepared=prepared,
            mask=mask,
            report_line=await _report_line(reader, reporting_pod(mask, key.name, scratch, pod)),
            commit=commit,
        )

    def plan(self, observation: SnapshotObservation) -> Plan:
        """Return what to do for the snapshot now."""
        if is_deleting(observation.manifest):
            return _plan_deletion(observation)
        draft = Draft(observation.manifest, observation.now)
        if isinstance(observation.snapshot, InvalidResource):
            draft.facts.append(stalls(CAPTURED, "InvalidSpec", observation.snapshot.message))
            return draft.finish(TYPES, {})
        return _SnapshotPlan(self.environment, observation, observation.snapshot.metadata.name).plan(draft)

    def failed(self, observation: SnapshotObservation, error: KubeError | EngineError) -> Plan:
        """Return the condition for a write that was refused."""
        return plan_failure(observation.manifest, error)


async def _observe_handover(
    reader: KubeReader, forges: Forges, manifest: Manifest, raw: Manifest | None, prepared: Manifest | None
) -> CommitSeen:
    """Read what is between a clone and the raw snapshot; of a commit that is made there is nothing any more."""
    finalized = labels.FINALIZER in (manifest["metadata"].get("finalizers") or ())
    if prepared is not None and not finalized:
        return CommitSeen()
    return await observe_commit(reader, forges, manifest, raw)


def _plan_deletion(observation: SnapshotObservation) -> Plan:
    """Kubernetes collects what is in the snapshot's namespace; what a commit has elsewhere goes first, and whatever is
    being made of that.
    """
    manifest = observation.manifest
    uid = str(manifest["metadata"]["uid"])
    left = observation.commit.left(uid)
    if not left:
        return Plan(remove_finalizer=is_commit(manifest))
    users = [observation.pod, observation.policy, observation.scratch, observation.raw]
    doomed = [entry for entry in (*users, *left) if entry is not None and is_owned(entry, uid)]
    aliases = [] if observation.commit.alias is None else [observation.commit.alias]
    raws = [] if observation.raw is None else [observation.raw]
    words = ", ".join(f"{entry['kind']} {full_name(entry)}" for entry in left)
    message = (
        f"waits for {words} to go; if that takes long, see its finalizers, and whether the snapshot-controller and the "
        "csi-snapshotter of its driver run"
    )
    plan = condemned(manifest, [Ref.of(entry) for entry in doomed if not is_deleting(entry)], message=message)
    return replace(plan, apply=tuple(stranded_aliases(aliases, raws)), requeue_after=LOOK_SECONDS)


def _database_in(raw: Manifest | None) -> str | None:
    """Return the database that applications get of what was captured, if that is known."""
    backing = None if raw is None else recorded_backing(raw)
    return None if backing is None else backing.database


def _is_captured_next(raw: Manifest | None, prepared: Manifest | None) -> bool:
    """Return whether the volume is still to be captured: only then what is not watched has to be looked at."""
    return prepared is None and (raw is None or is_deleting(raw) or recorded_backing(raw) is None)


async def _report_line(reader: KubeReader, pod: Manifest | None) -> str:
    """Return the last line a finished preparation printed: its report (hashes, never rows)."""
    if pod is None or not pod_state(pod).succeeded:
        return ""
    return await read_last_line(reader, pod)


@dataclass(frozen=True, slots=True)
class _SnapshotPlan:
    """The chain of facts for one snapshot."""

    environment: Environment
    observation: SnapshotObservation
    name: str

    def plan(self, draft: Draft) -> Plan:
        plan = self._plan(draft)
        if not self._is_commit:
            return plan
        present = labels.FINALIZER in (self.observation.manifest["metadata"].get("finalizers") or ())
        wanted = not draft.facts[-1].holds or bool(self.observation.commit.left(draft.owner.uid))
        return replace(plan, add_finalizer=wanted and not present, remove_finalizer=present and not wanted)

    def _plan(self, draft: Draft) -> Plan:
        capture = self._capture_of_prepared()
        if capture is not None:
            return self._with_prepared(draft, capture)
        problem = self._problem_of_prepared(draft)
        if problem is not None:
            draft.facts.append(problem)
            return draft.finish(TYPES, {**(self.observation.manifest.get("status") or {}), "prepared": None})
        for step in (
            self._store_is_there,
            self._raw_is_captured,
            self._scratch_is_there,
            self._preparation_is_done,
            self._mask_is_done,
            self._prepared_is_captured,
        ):
            fact = step(draft)
            draft.facts.append(fact)
            if not fact.holds:
                break
        return draft.finish(TYPES, self._status(None))

    # -- what is there --

    def _capture_of_prepared(self) -> Capture | None:
        """Return what stands on the prepared VolumeSnapshot; one that is not ours, or that goes, says nothing."""
        prepared = self.observation.prepared
        if prepared is None or is_deleting(prepared):
            return None
        if not is_owned(prepared, str(self.observation.manifest["metadata"]["uid"])):
            return None
        try:
            return Capture.load(annotation(prepared, labels.CONTENT) or "")
        except (ValueError, KeyError, TypeError):
            return None

    def _problem_of_prepared(self, draft: Draft) -> Fact | None:
        """Return why there is no VolumeSnapshot to hand out and none can be made; nothing else can be said of it.

        A snapshot holds one point in time for good: once its content is known it is never made a second time but from
        the same raw snapshot, least of all from what the store holds now.
        """
        prepared, raw = self.observation.prepared, self.observation.raw
        known = (self.observation.manifest.get("status") or {}).get("identity") is not None
        if prepared is not None and not is_owned(prepared, draft.owner.uid):
            return draft.make_once({}, prepared, PREPARED)
        if (known or prepared is not None) and (raw is None or is_deleting(raw)):
            return stalls(
                PREPARED,
                "SnapshotLost",
                f"VolumeSnapshot {self.name} was deleted or changed: delete this DataSnapshot and make another",
                retry_after=None,
            )
        return None if prepared is None else self._begin_again(draft)

    def _begin_again(self, draft: Draft) -> Fact:
        draft.drop(self.observation.prepared)
        return waits(PREPARED, "Publishing", f"VolumeSnapshot {self.name} was changed and is made anew", retry_after=2)

    def _with_prepared(self, draft: Draft, capture: Capture) -> Plan:
        """The prepared VolumeSnapshot is there: wait for it, then remove what was on the way."""
        draft.facts.append(holds(CAPTURED, "Captured", f"captured at {capture.captured_at}"))
        prepared, scratch = self.observation.prepared, self.observation.scratch
        if prepared is None:
            raise TypeError("a capture stands on a VolumeSnapshot")
        state = volume_snapshot_state(prepared)
        if state.ready:
            left = self.observation.commit.left(draft.owner.uid)
            for leftover in (*self._on_the_way, scratch, self.observation.raw, *left):
                draft.drop(leftover)
            draft.apply.extend(self._stranded)
            held = "the store" if capture.provenance is None else f"DataClone {capture.provenance.clone}"
            message = f"clones can be made from it; it holds {held} as of {capture.captured_at}"
            draft.facts.append(holds(PREPARED, "Prepared", message))
        elif state.content is None and (scratch is None or is_deleting(scratch)):
            draft.facts.append(self._begin_again(draft))
        else:
            draft.facts.append(waits_for_capture(PREPARED, "Publishing", prepared, self.observation.now))
        return draft.finish(TYPES, self._status(capture))

    @property
    def _on_the_way(self) -> list[Manifest]:
        """Return what was made to prepare the scratch copy, in the order in which it is to go."""
        made = [*self.observation.mask.made, self.observation.pod, self.observation.policy]
        return [entry for entry in made if entry is not None]

    @property
    def _stranded(self) -> list[Manifest]:
        """Return what lets the alias of a commit go."""
        alias, raw = self.observation.commit.alias, self.observation.raw
        return [] if alias is None else stranded_aliases([alias], [] if raw is None else [raw])

    @property
    def _is_commit(self) -> bool:
        return is_commit(self.observation.manifest)

    @property
    def _provenance(self) -> Provenance | None:
        """Return where a commit comes from, once that is captured."""
        return None if self.observation.raw is None else Provenance.of(self.observation.raw)

    @property
    def _captured_at(self) -> str | None:
        """Return the point in time that was captured. An alias is younger."""
        raw, provenance = self.observation.raw, self._provenance
        if self._is_commit or raw is None:
            return None if provenance is None else provenance.captured_at
        moment = volume_snapshot_state(raw).captured_at
        return None if moment is None else format_time(moment)

    def _commit_status(self, provenance: Provenance | None) -> dict[str, Any] | None:
        place = place_of(self.observation.manifest)
        if provenance is None or place is None:
            return None
        return {
            "sequence": place.number,
            "parentUID": provenance.parent_uid,
            "clone": provenance.clone,
            "cloneUID": provenance.clone_uid,
        }

    def _status(self, capture: Capture | None) -> dict[str, Any]:
        if capture is None:
            return {
                "capturedAt": self._captured_at,
                "commit": self._commit_status(self._provenance),
                "tornCopies": self._torn or None,
            }
        content = capture.content
        prepared = self.observation.prepared
        state = volume_snapshot_state(prepared) if prepared is not None else None
        return {
            "storeUID": capture.store_uid,
            "capturedAt": capture.captured_at,
            "engine": capture.engine,
            "version": capture.version,
            "commit": self._commit_status(capture.provenance),
            "tornCopies": self._torn or None,
            "data": "Raw" if capture.mask is None else "Masked",
            "mask": None if capture.mask is None else capture.mask.status,
            "prepared": {"volumeSnapshotName": self.name, "restoreSize": state.restore_size}
            if state is not None and state.ready
            else None,
            "sourceCapacity": capture.capacity,
            "storageClassName": capture.storage_class,
            "userID": capture.user_id,
            "database": content.database,
            "defaultBranch": content.default_branch,
            "branches": [_branch_status(capture, state) for state in content.branches],
            "findings": [{"reason": found.reason, "message": found.message} for found in content.findings],
            "ledger": None if content.ledger is None else ledgers.status(content.ledger),
            "identity": digest(
                *(part for s in content.branches for part in (s.database, s.branch, s.head, s.working_root)), length=32
            ),
        }

    # -- the chain --

    def _store_is_there(self, draft: Draft) -> Fact:
        del draft
        observation = self.observation
        store_name = observation.manifest["spec"]["store"]["name"]
        if observation.store is None:
            return stalls(
                CAPTURED,
                "StoreNotFound",
                f"there is no DataStore {store_name} in this namespace: create it or delete this snapshot",
                retry_after=60,
            )
        if isinstance(observation.store, InvalidResource) or observation.engine is None:
            return waits(
                CAPTURED,
                "StoreNotReady",
                f"DataStore {store_name} is not usable yet: see its conditions",
                retry_after=30,
            )
        if self._is_commit and self._backing is None:
            return holds(CAPTURED, "StoreFound", f"DataStore {store_name} is there")
        if observation.raw is None and not is_true(observation.store_manifest or {}, "Ready"):
            said = (condition(observation.store_manifest or {}, "Ready") or {}).get("message")
            return waits(
                CAPTURED,
                "StoreNotReady",
                f"waits for DataStore {store_name} to be Ready; {f'it says: {said}' if said else 'see its conditions'}",
                retry_after=30,
            )
        backing = self._backing
        if backing is not None and self._image() is None:
            return waits(
                CAPTURED,
                "StoreNotReady",
                f"DataStore {store_name}: its version has no image; see its conditions",
                retry_after=30,
            )
        if backing is None and observation.adoption is not None:
            return waits(
                CAPTURED,
                "StoreNotReady",
                f"the database that DataStore {store_name} adopts is not there at this moment; see its conditions",
                retry_after=10,
            )
        if backing is None or isinstance(self._storage(), NoStorage):
            return waits(
                CAPTURED,
                "StoreNotReady",
                f"DataStore {store_name} has no volume that can be snapshotted; see its conditions",
                retry_after=30,
            )
        return holds(CAPTURED, "StoreReady", f"DataStore {store_name} is Ready")

    @property
    def _backing(self) -> Backing | None:
        """Return what is known of the volume: as it was when it was captured, else as it is."""
        observation, raw = self.observation, self.observation.raw
        recorded = None if raw is None or is_deleting(raw) else recorded_backing(raw)
        if recorded is not None or observation.engine is None:
            return recorded
        return present_backing(self._store, observation.engine, observation.source_claim, observation.adoption)

    @property
    def _volume(self) -> Backing:
        if self._backing is None:
            raise TypeError("the chain goes on without a volume")
        return self._backing

    def _storage(self) -> StorageChoice | NoStorage:
        return storage_for(self._store, self.observation.classes, self._volume)

    @property
    def _store(self) -> DataStore:
        if not isinstance(self.observation.store, DataStore):
            raise TypeError("the chain goes on without a store")
        return self.observation.store

    def _image(self) -> str | None:
        return self.environment.image(self._store.spec.engine, self._volume.version)

    def _chosen(self) -> StorageChoice:
        choice = self._storage()
        if isinstance(choice, NoStorage):
            raise TypeError("the chain goes on without a storage class")
        return choice

    def _raw_is_captured(self, draft: Draft) -> Fact:
        raw, again = self.observation.raw, self._captured_anew(draft)
        if again is not None:
            return again
        if raw is None:
            return self._handover.run(draft) if self._is_commit else self._capture(draft)
        problem = draft.make_once({}, raw, CAPTURED) or self._capture_lost()
        if problem is not None:
            return problem
        if annotation(raw, labels.STORE_UID) != self._store.metadata.uid:
            return stalls(
                CAPTURED,
                "StoreReplaced",
                "the DataStore was deleted and made anew meanwhile: delete this snapshot and make another",
            )
        state = volume_snapshot_state(raw)
        if not state.ready:
            return waits_for_capture(CAPTURED, "Capturing", raw, self.observation.now)
        captured = self._captured_at or format_time(self.observation.now)
        return holds(CAPTURED, "Captured", f"captured at {captured}")

    def _captured_anew(self, draft: Draft) -> Fact | None:
        """Return that what has been captured is not what it should be, if so, and drop it."""
        raw = self.observation.raw
        if raw is not None and self._is_of_replaced_copy(raw):
            draft.drop(raw)
            return waits(CAPTURED, "Capturing", "begins again: the mirror has another copy now", retry_after=2)
        if raw is not None and not is_deleting(raw) and raw["metadata"]["uid"] in self._torn:
            return self._take_anew(draft, raw)
        if raw is None or is_deleting(raw) or is_of_another(self.observation.scratch, raw):
            # A copy of the raw snapshot that was would be dated like the one that will be.
            copies = [entry for entry in (*self._on_the_way, self.observation.scratch) if entry is not None]
            for entry in copies:
                draft.drop(entry)
            message = f"begins again: {raw_name(self.name)} was deleted"
            return waits(CAPTURED, "Capturing", message, retry_after=2) if copies else None
        if not is_owned(raw, draft.owner.uid) or not self._is_commit:
            return None
        if self._backing is not None and self._provenance is not None:
            return None
        draft.drop(raw)
        message = f"begins again: what stands on VolumeSnapshot {raw_name(self.name)} was changed"
        return waits(CAPTURED, "Capturing", message, retry_after=2)

    @property
    def _torn(self) -> tuple[str, ...]:
        """Return the UIDs of what was captured in the middle of a write. For a commit a clone is not captured anew."""
        observation = self.observation
        if self._is_commit:
            return ()
        return found_torn(observation.manifest, observation.raw, observation.scratch, observation.pod)

    def _take_anew(self, draft: Draft, raw: Manifest) -> Fact:
        """Have the volume captured anew. That the last copy is torn is written down before anything of it goes."""
        observation, words = self.observation, torn_words(self.observation.pod)
        if len(self._torn) >= MOST_TORN:
            message = (
                f"{len(self._torn)} times {words}, or what is on it was torn before: see that the store's server is "
                "well and all of its databases open, then delete this DataSnapshot to try again"
            )
            return stalls(CAPTURED, "CopyTorn", message, retry_after=None)
        if raw["metadata"]["uid"] in known_torn(observation.manifest):
            for entry in (*self._on_the_way, observation.scratch, raw):
                draft.drop(entry)
        return waits(CAPTURED, "CopyTorn", f"{words}; another copy is taken", retry_after=1)

    def _capture(self, draft: Draft) -> Fact:
        """Have the store's volume captured."""
        source = self._source_name
        desired = build_volume_snapshot(
            raw_name(self.name),
            draft.owner,
            claim=source,
            snapshot_class=self._chosen().snapshot_class,
            annotations={labels.STORE_UID: self._store.metadata.uid, labels.BACKING: self._volume.text},
        )
        draft.create.append(desired)
        self._settle_source(draft)
        return waits(CAPTURED, "Capturing", f"the volume of claim {source} is being captured")

    @property
    def _handover(self) -> Handover:
        return Handover(
            environment=self.environment,
            manifest=self.observation.manifest,
            raw=raw_name(self.name),
            store=self._store,
            engine=self._engine,
            classes=self.observation.classes,
            seen=self.observation.commit,
        )

    def _capture_lost(self) -> Fact | None:
        """Return that the bytes of a commit went with the clone's namespace before they were copied, if so."""
        capture, scratch = self.observation.commit.capture, self.observation.scratch
        copied = scratch is not None and not is_deleting(scratch) and claim_state(scratch).bound
        if not self._is_commit or copied or (capture is not None and not is_deleting(capture)):
            return None
        manifest = self.observation.manifest
        message = (
            f"VolumeSnapshot {capture_name(manifest)} in namespace {clone_key(manifest)[0]} was deleted before it was "
            "copied: delete this DataSnapshot, and commit the clone anew if it is still there"
        )
        return stalls(CAPTURED, "CaptureLost", message)

    @property
    def _source_name(self) -> str:
        """Return the name of the claim to capture; of a mirror whose copy is gone, the one that was captured."""
        adopted, claim, raw = self._store.spec.adopted, self.observation.source_claim, self.observation.raw
        if adopted is not None:
            return adopted.claim_name
        if self._store.spec.mirror is None:
            return claim_name(self._store.metadata.name)
        named = None if raw is None else raw["spec"]["source"].get("persistentVolumeClaimName")
        return str(claim["metadata"]["name"] if claim is not None else named)

    def _is_of_replaced_copy(self, raw: Manifest) -> bool:
        """Return whether the claim that a raw snapshot names may be gone before anything of it was captured."""
        if (
            self._is_commit
            or self._store.spec.mirror is None
            or is_deleting(raw)
            or volume_snapshot_state(raw).content is not None
        ):
            return False
        return bool(raw["spec"]["source"].get("persistentVolumeClaimName") != self._source_name)

    def _settle_source(self, draft: Draft) -> None:
        """Have the store's server make ready for the capture that follows in the same plan."""
        engine, pod, adoption = self.observation.engine, self.observation.server, self.observation.adoption
        if engine is None or engine.capture_action is None:
            return
        store = self._store.metadata
        target = None if adoption is None else adoption.server_ref(engine)
        if pod is not None:
            target = server_ref(pod, engine, admin_secret_name(store.name))
        if target is None:
            return
        draft.calls.append(EngineCall(self._store.spec.engine, target, engine.capture_action, {}))

    def _scratch_is_there(self, draft: Draft) -> Fact:
        observation, choice = self.observation, self._chosen()
        if observation.raw is None:
            raise TypeError("the chain goes on without a raw snapshot")
        size = volume_snapshot_state(observation.raw).restore_size
        desired = build_claim(
            Claim(
                name=scratch_name(self.name),
                owner=draft.owner,
                size=larger(size, self._volume.capacity),
                storage_class=choice.storage_class,
                from_snapshot=raw_name(self.name),
                annotations={labels.RAW: str(observation.raw["metadata"]["uid"])},
            )
        )
        if observation.scratch is not None and is_deleting(observation.scratch):
            # Even a Pod that has ended holds its claim until it is deleted itself.
            for pod in (observation.pod, *observation.mask.engine_pods):
                draft.drop(pod)
        # The policy is there before the Pod, which comes only when the claim has been seen.
        policy = build_closed_policy(prepare_pod_name(self.name), draft.owner, role="prepare")
        problem = draft.keep(policy, observation.policy, PREPARED)
        problem = problem or draft.make_once(desired, observation.scratch, PREPARED)
        if problem is not None:
            return problem
        if observation.scratch is None:
            return waits(PREPARED, "Copying", "a scratch copy is being made")
        told = observation.complaint is not None and observation.pod is not None
        if not claim_state(observation.scratch).bound and (told or not choice.waits_for_consumer):
            return waits_for_volume(PREPARED, "Copying", observation.scratch, observation.complaint, observation.now)
        return holds(PREPARED, "Copied", "the scratch copy is there")

    def _preparation_is_done(self, draft: Draft) -> Fact:
        if self.observation.pod is None and self._masking.has_begun:
            return holds(PREPARED, "Cleaned", "the scratch copy has been prepared")
        volume = self._volume
        provenance = self._provenance
        inputs = Preparation(
            marker=draft.owner.uid,
            database=volume.database,
            adopted=volume.adopted,
            directory=volume.directory,
            origin=None if provenance is None else provenance.parent_uid,
        )
        desired = self._masking.copy.preparation(prepare_pod_name(self.name), draft.owner, inputs)
        return run_preparation(draft, desired, self.observation.pod)

    @property
    def _engine(self) -> Engine:
        if self.observation.engine is None:
            raise TypeError("the chain goes on without an engine")
        return self.observation.engine

    @property
    def _needed_image(self) -> str:
        image = self._image()
        if image is None:
            raise TypeError("the chain goes on without an image")
        return image

    @property
    def _scratch(self) -> Manifest:
        if self.observation.scratch is None:
            raise TypeError("the chain goes on without a scratch copy")
        return self.observation.scratch

    @property
    def _masking(self) -> Masking:
        copy = ScratchCopy(
            environment=self.environment,
            name=self.name,
            store=self._store,
            engine=self._engine,
            image=self._needed_image,
            claim=self._scratch,
            user_id=self._volume.user_id or self._engine.user_id,
        )
        return Masking(copy, self.observation.mask)

    def _mask_is_done(self, draft: Draft) -> Fact:
        if self._is_commit:
            return holds(PREPARED, "Cleaned", "the rows of a commit are as its clone has them")
        masking = self._masking
        if self.observation.pod is None or masking.is_marked:
            return masking.run(draft)
        content = self._report(prepare_pod_name(self.name)) if self._store.spec.mask is not None else None
        return content if isinstance(content, Fact) else replace(masking, content=content).run(draft)

    def _prepared_is_captured(self, draft: Draft) -> Fact:
        capture = self._new_capture()
        if isinstance(capture, Fact):
            return capture
        draft.create.append(
            build_volume_snapshot(
                self.name,
                draft.owner,
                claim=scratch_name(self.name),
                snapshot_class=self._chosen().snapshot_class,
                annotations={labels.CONTENT: capture.dump()},
            )
        )
        return waits(PREPARED, "Publishing", "the prepared copy is being captured")

    def _new_capture(self) -> Capture | Fact:
        observation = self.observation
        if observation.engine is None or observation.raw is None:
            raise TypeError("the chain goes on without a raw snapshot")
        masking, provenance = self._masking, self._provenance
        content = self._report(masking.rewrite_name if masking.is_marked else prepare_pod_name(self.name))
        if isinstance(content, Fact):
            return content
        mask = masking.record if provenance is None else provenance.mask
        if mask is not None:
            content = replace(content, findings=(*mask.findings, *content.findings))
        return Capture(
            store_uid=self._store.metadata.uid,
            engine=self._store.spec.engine,
            version=self._volume.version,
            captured_at=self._captured_at or format_time(observation.now),
            capacity=self._volume.capacity,
            content=content,
            storage_class=self._volume.storage_class,
            user_id=self._volume.user_id,
            mask=mask,
            provenance=provenance,
        )

    def _report(self, pod: str) -> Content | Fact:
        """Return what the preparation that counts has found."""
        try:
            content = self._engine.report(self.observation.report_line)
        except EngineError as error:
            message = f"Pod {pod} gave no report ({error}): delete this DataSnapshot to try again"
            return stalls(PREPARED, "PreparationFailed", message)
        return self._of_another_server(content) or content

    def _of_another_server(self, content: Content) -> Fact | None:
        """Return that an adopted store's claim holds the data of another server than the one that was asked, if so."""
        adopted, asked = self._store.spec.adopted, self._volume.server
        found = {server_of(state.working_root) for state in content.branches}
        if adopted is None or asked is None or found <= {asked}:
            return None
        message = (
            f"the data on claim {adopted.claim_name} are of another server than the one behind Service "
            f"{adopted.service}: correct spec.adopted.claimName or spec.adopted.directory of DataStore "
            f"{self._store.metadata.name}, then delete this DataSnapshot"
        )
        return stalls(PREPARED, "OtherServer", message)


def _branch_status(capture: Capture, state: BranchState) -> dict[str, Any]:
    """Return what the status says of a branch; of a masked one also where it was in the store."""
    sources = () if capture.mask is None else capture.mask.sources
    source = next((s for s in sources if (s.database, s.branch) == (state.database, state.branch)), None)
    return {
        "database": state.database,
        "branch": state.branch,
        "head": state.head,
        "workingRoot": state.working_root,
        "sourceHead": None if source is None else source.head,
        "sourceWorkingRoot": None if source is None else source.working_root,
    }
