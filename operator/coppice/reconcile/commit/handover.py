"""The way of a commit from the clone to the raw snapshot in the store's namespace. Pure.

What is captured is pinned: that claim of that clone, and where its server must not run, that generation of it. Only
what still is as pinned once it has been captured is handed over: a clone that is reset, woken, deleted or made anew
meanwhile makes no wrong commit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from coppice.api.v1alpha1 import DataClone, DataSnapshot, DataStore, Durability, InvalidResource, Power
from coppice.core import labels
from coppice.core.plan import EngineCall, Manifest
from coppice.core.quantities import larger
from coppice.engines.base import Engine
from coppice.manifests.meta import is_owned
from coppice.manifests.storage import build_alias_content, build_alias_snapshot, build_volume_snapshot
from coppice.reconcile.access import refused
from coppice.reconcile.aliases import stranded_aliases
from coppice.reconcile.backing import Backing, storage_for
from coppice.reconcile.classes import ClusterClasses, NoStorage
from coppice.reconcile.clone.keepseen import is_gone
from coppice.reconcile.clone.names import ENGINE, engine_secret_name
from coppice.reconcile.commit.line import Place, commits_on, place_of
from coppice.reconcile.commit.provenance import Pin, Provenance, inherited_mask
from coppice.reconcile.commit.seen import CommitSeen, alias_name, capture_name, clone_key, full_name, keeps
from coppice.reconcile.copies import Copy, serving_copy
from coppice.reconcile.draft import Draft, Fact, stalls, waits
from coppice.reconcile.environment import Environment
from coppice.reconcile.observed import (
    claim_state,
    condition,
    created_at,
    format_time,
    is_content_of,
    is_deleting,
    is_true,
    parse_time,
    pod_state,
    volume_snapshot_state,
)
from coppice.reconcile.provisioning import PATIENCE, waits_for_capture
from coppice.reconcile.reads import server_ref

CAPTURED: Final = "Captured"
LOOK_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Handover:
    """A commit that has no raw snapshot in the store's namespace yet; ``raw`` is to be its name."""

    environment: Environment
    manifest: Manifest
    raw: str
    store: DataStore
    engine: Engine
    classes: ClusterClasses
    seen: CommitSeen

    def run(self, draft: Draft) -> Fact:
        """Plan what is next, and return what is waited for."""
        if self.engine.versioned:
            return self._has_branches()
        problem = self._not_granted() or self._out_of_line()
        parent = self._parent(self._place) if problem is None else problem
        if isinstance(parent, Fact):
            return self._give_up(draft, parent) if parent.stalled else parent
        if self.seen.capture is None:
            return self._capture(draft, parent)
        return self._take_over(draft, parent, self.seen.capture)

    def _has_branches(self) -> Fact:
        name = self.store.spec.engine
        message = (
            f"DataStore {self._store} is of engine {name}, which has branches of its own: commit there, and make a "
            "DataBranch; then delete this DataSnapshot"
        )
        return stalls(CAPTURED, "EngineHasBranches", message)

    # -- who, and where to --

    @property
    def _store(self) -> str:
        return self.store.metadata.name

    @property
    def _clone_words(self) -> str:
        namespace, name = clone_key(self.manifest)
        return f"DataClone {namespace}/{name}"

    def _not_granted(self) -> Fact | None:
        if self.seen.refusal is not None:
            return refused(CAPTURED, self.seen.refusal)
        if self.seen.terms is not None:
            return None
        namespace, _ = clone_key(self.manifest)
        verb = self.seen.verb.value
        message = (
            f"no DataGrant in this namespace gives namespace {namespace} the verb {verb} on DataStore {self._store}: "
            "make one, or commit a clone of this namespace"
        )
        return stalls(CAPTURED, "NotGranted", message)

    @property
    def _place(self) -> Place:
        place = place_of(self.manifest)
        if place is None:
            raise TypeError("the chain goes on without a place")
        return place

    def _out_of_line(self) -> Fact | None:
        place = place_of(self.manifest)
        if place is None:
            message = "metadata.name is not <branch>-<n>: make it anew under the next name of the branch"
            return stalls(CAPTURED, "InvalidSpec", message)
        newest = next(iter(commits_on(self.seen.snapshots, place.branch)), self.manifest)
        later = place_of(newest)
        if later is None or later.number <= place.number:
            return None
        message = (
            f"branch {place.branch} has gone on to DataSnapshot {newest['metadata']['name']}: delete this one, and "
            f"commit a clone of the branch as {place.branch}-{later.number + 1}"
        )
        return stalls(CAPTURED, "BranchMovedOn", message)

    def _parent(self, place: Place) -> DataSnapshot | Fact:
        name = str(self.manifest["spec"]["commit"]["parent"])
        found = next((entry for entry in self.seen.snapshots if entry["metadata"]["name"] == name), None)
        if found is None or is_deleting(found):
            message = (
                f"there is no DataSnapshot {name} of DataStore {self._store} any more: delete this one, and commit a "
                "clone of a DataSnapshot that is there"
            )
            return stalls(CAPTURED, "ParentNotFound", message)
        if place.number > 1 and place_of(found) != Place(place.branch, place.number - 1):
            message = (
                f"DataSnapshot {name} is no commit on branch {place.branch}: delete this one, and begin a branch of "
                "another name with it"
            )
            return stalls(CAPTURED, "ParentNotOnBranch", message)
        parent = DataSnapshot.parse(found)
        if isinstance(parent, InvalidResource) or not is_true(found, "Ready"):
            message = f"waits for DataSnapshot {name}, the parent; see its conditions"
            return waits(CAPTURED, "ParentNotReady", message, retry_after=LOOK_SECONDS)
        if parent.status.store_uid != self.store.metadata.uid:
            message = (
                f"DataSnapshot {name} is of an earlier DataStore of this name: delete this one, and commit a clone of "
                "the DataStore there is now"
            )
            return stalls(CAPTURED, "StoreReplaced", message)
        return parent

    # -- the capture, where the clone is --

    def _capture(self, draft: Draft, parent: DataSnapshot) -> Fact:
        clone = self._clone()
        if isinstance(clone, Fact):
            return clone
        copy = self._copy()
        if isinstance(copy, Fact):
            return copy
        problem = self._unrelated(copy, parent) or self._unsafe(clone, copy)
        if problem is not None:
            return problem
        backing = self._backing(copy, parent)
        if self.environment.image(self.store.spec.engine, backing.version) is None:
            return self._no_image(backing)
        storage = storage_for(self.store, self.classes, backing)
        if isinstance(storage, NoStorage):
            return stalls(CAPTURED, storage.reason, storage.message, retry_after=60)
        namespace, claim = clone.metadata.namespace, copy.claim["metadata"]
        runs = clone.spec.durability is Durability.DURABLE
        pin = Pin(clone.metadata.uid, claim["name"], claim["uid"], None if runs else clone.metadata.generation)
        unsettled = self._settle(draft, clone, copy)
        if unsettled is not None:
            return unsettled
        draft.create.append(
            build_volume_snapshot(
                capture_name(self.manifest),
                draft.owner,
                claim=claim["name"],
                snapshot_class=storage.snapshot_class,
                annotations={labels.SOURCE: json.dumps(pin.dump(), separators=(",", ":"))},
                namespace=namespace,
            )
        )
        return waits(CAPTURED, "Capturing", f"copy {copy.number} of {self._clone_words} is being captured")

    def _no_image(self, backing: Backing) -> Fact:
        engine = self.store.spec.engine
        message = (
            f"the administrator offers no image for {engine} {backing.version}, which wrote the parent: have it added "
            f"again (engines.{engine}.images of the chart)"
        )
        return stalls(CAPTURED, "UnsupportedVersion", message)

    def _clone(self) -> DataClone | Fact:
        clone = self.seen.clone
        if clone is None or isinstance(clone, InvalidResource) or is_gone(self.seen.manifest or {}, clone):
            message = f"there is no {self._clone_words}: delete this DataSnapshot, and commit a clone that is there"
            return stalls(CAPTURED, "CloneNotFound", message)
        reference = clone.spec.from_.store
        if (reference.namespace or clone.metadata.namespace, reference.name) != (
            self.store.metadata.namespace,
            self._store,
        ):
            message = f"{self._clone_words} is not of DataStore {self._store}: delete this DataSnapshot"
            return stalls(CAPTURED, "CloneOfAnotherStore", message)
        return clone

    def _copy(self) -> Copy | Fact:
        """Return the copy that apps have, if no other is to take its place, and if it was meant."""
        serving = serving_copy(self.seen.copies, self.seen.binding)
        if serving is None or serving is not self.seen.copies[-1] or is_deleting(serving.claim):
            message = f"waits for {self._clone_words} to have one copy, and that serves; see its conditions"
            return waits(CAPTURED, "CloneNotReady", message, retry_after=LOOK_SECONDS)
        # A copy that serves is older than the second in which somebody can have seen it do so.
        since = created_at(serving.claim) if serving.recall is None else serving.recall.at
        if since >= created_at(self.manifest):
            message = (
                f"copy {serving.number} of {self._clone_words} was made, or brought back, after this DataSnapshot was "
                "asked for, and is not what was meant: look at the clone, then delete this DataSnapshot and make it "
                "anew"
            )
            return stalls(CAPTURED, "CloneReplaced", message)
        return serving

    def _unrelated(self, copy: Copy, parent: DataSnapshot) -> Fact | None:
        if copy.origin.snapshot_uid == parent.metadata.uid:
            return None
        message = (
            f"copy {copy.number} of {self._clone_words} was made from DataSnapshot {copy.origin.snapshot}, and that is "
            f"not {parent.metadata.name} as it is now: delete this DataSnapshot; make a clone of the branch anew and "
            "bring the changes into that, or begin another branch with this one"
        )
        return stalls(CAPTURED, "NotOfParent", message)

    def _unsafe(self, clone: DataClone, copy: Copy) -> Fact | None:
        """Return why the volume may lack what the clone's server has acknowledged, if so."""
        if clone.spec.durability is Durability.DURABLE:
            return None
        if clone.spec.power is not Power.OFF and not keeps(clone, self.manifest):
            message = (
                f"{self._clone_words} is not Durable, so that its volume may lack what its server has acknowledged: "
                "set its spec.power to Off until this DataSnapshot is Ready. What is to be committed while it runs is "
                "made with spec.durability: Durable"
            )
            return stalls(CAPTURED, "CloneNotDurable", message, retry_after=60)
        if self._is_off(clone) and not self._is_attached(copy):
            return None
        message = f"waits for {self._clone_words} to be off, and its volume to be unmounted"
        return waits(CAPTURED, "CloneStopping", message, retry_after=5)

    def _is_off(self, clone: DataClone) -> bool:
        """Return whether no server runs, and none is started before the clone's specification is another one."""
        engine = condition(self.seen.manifest or {}, ENGINE)
        told = clone.status.observed_generation == clone.metadata.generation
        return (
            told and engine is not None and engine["reason"] in {"PoweredOff", "StoppedToKeep"} and not self.seen.pods
        )

    def _is_attached(self, copy: Copy) -> bool:
        """Return whether a node has the volume, and may hold back writes to it. Of a driver that attaches nothing none
        is told.
        """
        volume = claim_state(copy.claim).volume
        sources = (entry["spec"]["source"].get("persistentVolumeName") for entry in self.seen.attachments)
        return volume is not None and volume in sources

    def _settle(self, draft: Draft, clone: DataClone, copy: Copy) -> Fact | None:
        """Have a server that runs make ready for the capture that follows in the same plan.

        A call that finds nobody is repeated before anything is reported: only a clone that says that its server answers
        is called.
        """
        if self.engine.capture_action is None or copy.pod is None or is_deleting(copy.pod):
            return None
        state, metadata = pod_state(copy.pod), clone.metadata
        if state.ip is None or not state.running:
            return None
        manifest = self.seen.manifest or {}
        if not (is_true(manifest, ENGINE) and clone.status.observed_generation == metadata.generation):
            message = f"waits for the server of {self._clone_words} to answer; see its conditions"
            return waits(CAPTURED, "CloneNotAnswering", message, retry_after=LOOK_SECONDS)
        secret = engine_secret_name(metadata.name, metadata.uid)
        target = server_ref(copy.pod, self.engine, secret)
        draft.calls.append(EngineCall(self.store.spec.engine, target, self.engine.capture_action, {}))
        return None

    def _backing(self, copy: Copy, parent: DataSnapshot) -> Backing:
        """Return what is to be known of the volume: by what it was made from, which its namespace cannot change."""
        state, status = claim_state(copy.claim), parent.status
        restore = None if self.seen.capture is None else volume_snapshot_state(self.seen.capture).restore_size
        return Backing(
            version=status.version or "",
            database=status.database or "",
            capacity=larger(state.capacity, restore),
            storage_class=status.storage_class_name or state.storage_class,
            user_id=status.user_id,
        )

    # -- the handover --

    def _take_over(self, draft: Draft, parent: DataSnapshot, capture: Manifest) -> Fact:
        """Make the capture the raw snapshot, if it is what it was to be."""
        problem = self._held(draft, capture) or draft.make_once({}, capture, CAPTURED)
        if problem is not None:
            return problem
        pin = Pin.of(capture)
        copy = self._pinned(pin)
        if pin is None or copy is None or not self._is_of(pin, capture):
            return self._begin_again(draft, capture)
        unrelated = self._unrelated(copy, parent)
        if unrelated is not None:
            return self._give_up(draft, unrelated)
        state, handle = volume_snapshot_state(capture), self._handle
        if not state.ready or handle is None:
            return waits_for_capture(CAPTURED, "Capturing", capture, draft.now)
        if self.seen.alias is not None and self._is_outdated(self.seen.alias, handle):
            self._drop_alias(draft)
            message = f"waits for VolumeSnapshotContent {alias_name(self.manifest)} to go, which was handed over before"
            return waits(CAPTURED, "Capturing", message, retry_after=LOOK_SECONDS)
        namespace, name = clone_key(self.manifest)
        captured = format_time(state.captured_at or draft.now)
        provenance = Provenance(
            f"{namespace}/{name}", pin.clone_uid, parent.metadata.uid, captured, inherited_mask(parent)
        )
        return self._hand_over(draft, handle, provenance, self._backing(copy, parent))

    def _held(self, draft: Draft, capture: Manifest) -> Fact | None:
        """Return that a capture is on its way out, if so; whoever may in its namespace can hold it there."""
        since = parse_time(capture["metadata"].get("deletionTimestamp"))
        if since is None or not is_owned(capture, draft.owner.uid):
            return None
        message = f"VolumeSnapshot {full_name(capture)} is being deleted, and is made anew once it is gone"
        if draft.now - since < PATIENCE:
            return waits(CAPTURED, "Capturing", message, retry_after=LOOK_SECONDS)
        return stalls(CAPTURED, "CaptureHeld", f"{message}: see what its finalizers wait for")

    def _begin_again(self, draft: Draft, capture: Manifest) -> Fact:
        """Remove a capture that is not what it was to be; not as fast as somebody can spoil the next one."""
        message = (
            f"{self._clone_words} or VolumeSnapshot {full_name(capture)} is not as it was when the capture began, and "
            "it begins again within half a minute: leave both as they are until this DataSnapshot is Ready"
        )
        rest = LOOK_SECONDS - (draft.now - created_at(capture)).total_seconds()
        if rest > 0:
            return waits(CAPTURED, "CloneChanged", message, retry_after=rest)
        return self._give_up(draft, waits(CAPTURED, "CloneChanged", message, retry_after=2))

    def _pinned(self, pin: Pin | None) -> Copy | None:
        """Return the copy that was captured, if it is there and nobody can have written to it since unnoticed.

        A claim of this UID has been the only one of its name all along.
        """
        if pin is None:
            return None
        metadata = (self.seen.manifest or {}).get("metadata") or {}
        stayed = metadata.get("uid") == pin.clone_uid and metadata.get("generation") == pin.generation
        if pin.generation is not None and not stayed:
            return None
        uids = (pin.claim, pin.claim_uid)
        return next((copy for copy in self.seen.copies if _identity(copy) == uids), None)

    def _is_of(self, pin: Pin, capture: Manifest) -> bool:
        """Return whether a capture is one of the claim that was pinned, and its content is its own."""
        source, content = capture["spec"]["source"], self.seen.content
        own = content is None or is_content_of(content, capture)
        return own and source.get("persistentVolumeClaimName") == pin.claim

    def _give_up(self, draft: Draft, fact: Fact) -> Fact:
        """Remove what was captured and is not to be handed over."""
        draft.drop(self.seen.capture)
        self._drop_alias(draft)
        return fact

    def _is_outdated(self, alias: Manifest, handle: str) -> bool:
        """Return whether a content cannot be bound to the VolumeSnapshot that is to be made: it is of another capture,
        or was bound to one that is gone.
        """
        spec = alias["spec"]
        bound = spec["volumeSnapshotRef"].get("uid") not in {None, ""}
        return is_deleting(alias) or bound or spec["source"]["snapshotHandle"] != handle

    def _drop_alias(self, draft: Draft) -> None:
        if self.seen.alias is not None:
            draft.apply.extend(stranded_aliases([self.seen.alias], []))
            draft.drop(self.seen.alias)

    @property
    def _handle(self) -> str | None:
        handle = ((self.seen.content or {}).get("status") or {}).get("snapshotHandle")
        return None if handle is None else str(handle)

    def _hand_over(self, draft: Draft, handle: str, provenance: Provenance, backing: Backing) -> Fact:
        spec, name = (self.seen.content or {})["spec"], alias_name(self.manifest)
        content = build_alias_content(
            name,
            draft.owner,
            driver=spec["driver"],
            handle=handle,
            snapshot_class=spec.get("volumeSnapshotClassName"),
            alias=self.raw,
        )
        problem = draft.make_once(content, self.seen.alias, CAPTURED)
        if problem is not None:
            return problem
        draft.create.append(
            build_alias_snapshot(
                self.raw,
                draft.owner,
                content=name,
                snapshot_class=spec.get("volumeSnapshotClassName"),
                annotations={
                    labels.STORE_UID: self.store.metadata.uid,
                    labels.BACKING: backing.text,
                    labels.SOURCE: json.dumps(provenance.dump(), separators=(",", ":")),
                },
            )
        )
        return waits(CAPTURED, "Capturing", f"what was captured of {self._clone_words} is being taken over")


def _identity(copy: Copy) -> tuple[str, str]:
    metadata = copy.claim["metadata"]
    return str(metadata["name"]), str(metadata["uid"])
