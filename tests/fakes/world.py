"""The rest of the cluster: storage, snapshots, kubelet and garbage collection over ``FakeKube``, one step at a time.

Every controller's next moves are listed by ``World.actions``; a test takes them all (``turn``) or one by one in an order
of its choice. The rules that bite are kept: finalizers of claims and snapshots in use, drivers that round sizes up,
restores that wait for ever when the snapshot goes, Pods that end gracefully, contents that outlive their snapshot.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.fakes.engine import ADMIN, Branch, Server, Volume, is_masked
from tests.fakes.forges import Told
from tests.fakes.kube import FakeKube, Object
from tests.fakes.merging import MergingFakeEngine

from coppice.core import labels
from coppice.core.conditions import timestamp
from coppice.core.key import Key
from coppice.core.quantities import quantity_bytes
from coppice.engines.base import OUT_OF_BYTES, TORN_COPY
from coppice.manifests.job import CHECK_ROLE, LOAD_ROLE, MASK_ROLE, MIGRATE_ROLE
from coppice.manifests.secret import read_secret
from coppice.manifests.storage import BEING_DELETED
from coppice.reconcile.observed import parse_time

DRIVER = "csi.example.com"
NO_ROOM = "rpc error: code = ResourceExhausted desc = no room in the pool"
ROW_IN_A_MESSAGE = "4111-1111-1111-1111"
"""What a user's program that fails says of a row, where Kubernetes shows it to whoever may read Pods."""
GIB = 1024**3
CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
SOURCE_FINALIZER = "snapshot.storage.kubernetes.io/pvc-as-source-protection"
SNAPSHOT_FINALIZER = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
CONTENT_FINALIZER = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
KUBELET = "example.com/kubelet"
"""Stands for the grace period: a Pod under deletion is there until its containers have ended."""
NAMESPACE_FINALIZER = "kubernetes"


@dataclass(frozen=True)
class Action:
    """One move of one controller: what it is about, for a failing test's reader, and how to make it."""

    name: str
    run: Callable[[], None]


def deleting(found: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in found["metadata"]


def name_of(found: Mapping[str, Any]) -> str:
    return str(found["metadata"]["name"])


def key_of(found: Mapping[str, Any]) -> Key:
    return Key(found["kind"], found["metadata"].get("namespace"), name_of(found))


@dataclass
class Elsewhere:
    """A database outside: its one login, its rows, and who was let in to read them."""

    username: str = "reader"
    password: str = "reads"
    rows: frozenset[str] = frozenset()
    version: str = "14.9"
    reads: int = 0


class SharedKube(FakeKube):
    """A ``FakeKube`` that hands its objects out as they are: it never changes one in place, and nobody else may.

    Copying them at every look would be nearly all of a test's time.
    """

    def peek(self, kind: str, namespace: str | None, name: str) -> Object | None:
        key = self._key(kind, namespace, name)
        return self._shown(key) if key in self._objects else None

    def all(self, kind: str | None = None, namespace: str | None = None) -> list[Object]:
        return [
            self._shown(key) for key in self._objects if kind in {None, key.kind} and namespace in {None, key.namespace}
        ]

    def _shown(self, key: Key) -> Object:
        return super()._shown(key) if key.kind == "Deployment" else self._objects[key]

    def _notify(self, kind: str, manifest: Mapping[str, Any]) -> None:
        for watcher in self._watchers:
            watcher(kind, manifest)


class World:
    """A cluster without an operator."""

    tears = 0
    """How many more captures of a volume with a server hit the middle of a write."""
    load_lasts = False
    """Initial loads come to no end."""
    engine_class: type[MergingFakeEngine] = MergingFakeEngine
    """What its databases are."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)
        self.kube = SharedKube(clock=self._clock)
        self.engine = self._servers()
        self.untold: Callable[[str], bool] = lambda service: False
        """Which Services no node knows of yet."""
        self.volumes: dict[str, Volume] = {}
        """The storage backend's volumes, by the UID of their claim."""
        self.snapshots: dict[str, Volume] = {}
        """The storage backend's snapshots, by handle."""
        self.writes: list[str] = []
        self.broken_images: set[str] = set()
        self.crashing: Callable[[Object], bool] = lambda pod: False
        """Which Pods' programs fail."""
        self.hanging: Callable[[Object], bool] = lambda pod: False
        """Which Pods' masks, checks and migrations come to no end."""
        self.checked: list[tuple[list[str], frozenset[str]]] = []
        """What each check refused to see that came to an end, and what it saw."""
        self.load_fails = False
        """Initial loads end in failure."""
        self.snapshot_error: str | None = None
        """What the driver says instead of making a snapshot."""
        self.strands = False
        """Aliases go before the snapshot-controller has seen them go: their contents wait to be told."""
        self.full = False
        """No volume can be provisioned."""
        self.guarded: bool | None = None
        """Whether the network keeps NetworkPolicies; None: nobody can tell."""
        self.knocks = 0
        """How often somebody wanted to know."""
        self.loads: dict[tuple[str, str], frozenset[str]] = {}
        """Rows of an initial load, by namespace and the ConfigMap's name."""
        self.elsewhere: dict[str, Elsewhere] = {}
        """Databases outside of the cluster, by host."""
        self.dumps: dict[tuple[str, str], tuple[str, str, str]] = {}
        """When a dump was made, of which version and database, by namespace and marker: the facts that lie beside it."""
        self.dump_fails: str | None = None
        """In which word of the engine contract dumps end."""
        self.restore_fails: str | None = None
        self.silent = False
        """Programs of refreshes come to no end."""
        self.podless: bool = False
        """Admission refuses the Pods of Jobs."""
        self.forges = Told(self._clock)
        """The forge, and what it has told the operator."""
        self.violations: list[str] = []
        """What must never happen and did."""
        self._addresses = 0
        self.kube.subscribe(self._on_write)
        self._add_classes()
        for namespace in ("data", "app", "coppice-system"):
            self.add_namespace(namespace)

    def _servers(self) -> MergingFakeEngine:
        engine = self.engine_class()
        engine.named = self._named
        engine.passes = self._passes
        engine.clock = self._clock
        return engine

    async def reaches(self, host: str, port: int) -> bool | None:
        """Return whether a packet to a port gets to a Pod, where a policy forbids it."""
        assert port == 9
        self.knocks += 1
        # A Pod that is gone, though the operator has not heard of it yet, answers nobody.
        return None if self.guarded is None or host not in self.engine.servers else not self.guarded

    def _clock(self) -> datetime:
        return self.now

    def fork(self) -> World:
        """Return another world that is just like this one, with nobody watching it."""
        watchers, self.kube._watchers = self.kube._watchers, [self._on_write]
        try:
            return copy.deepcopy(self)
        finally:
            self.kube._watchers = watchers

    def _add_classes(self) -> None:
        for name, driver, mode, default in (
            ("fast", DRIVER, "Immediate", "true"),
            ("late", DRIVER, "WaitForFirstConsumer", "false"),
            ("dumb", "nfs.example.com", "Immediate", "false"),
        ):
            self.kube.add(
                {
                    "apiVersion": "storage.k8s.io/v1",
                    "kind": "StorageClass",
                    "metadata": {
                        "name": name,
                        "annotations": {"storageclass.kubernetes.io/is-default-class": default},
                    },
                    "provisioner": driver,
                    "volumeBindingMode": mode,
                }
            )
        self.kube.add(
            {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshotClass",
                "metadata": {"name": "snap"},
                "driver": DRIVER,
                "deletionPolicy": "Delete",
            }
        )

    def add_namespace(self, name: str, **labels: str) -> None:
        self.kube.add(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels, "finalizers": [NAMESPACE_FINALIZER]},
            }
        )

    def _on_write(self, event: str, manifest: Mapping[str, Any]) -> None:
        self.writes.append(f"{event} {key_of(manifest)}")
        if event != "DELETED":
            return
        if manifest["kind"] == "PersistentVolumeClaim":
            self.volumes.pop(manifest["metadata"]["uid"], None)
        if manifest["kind"] == "Pod":
            self._stop(manifest)

    # -- moves --

    def turn(self) -> int:
        """Make every move that is possible now; return how many there were."""
        self.kube.collect_garbage()
        actions = list(self.actions())
        for action in actions:
            action.run()
        return len(actions)

    def actions(self) -> Iterator[Action]:
        """Return every move that some controller would make now."""
        for claim in self.kube.all("PersistentVolumeClaim"):
            yield from self._claim_actions(claim)
        for snapshot in self.kube.all("VolumeSnapshot"):
            yield from self._snapshot_actions(snapshot)
        for content in self.kube.all("VolumeSnapshotContent"):
            yield from self._content_actions(content)
        for job in self.kube.all("Job"):
            yield from self._job_actions(job)
        for pod in self.kube.all("Pod"):
            yield from self._pod_actions(pod)
        for namespace in self.kube.all("Namespace"):
            if deleting(namespace) and not self._inhabited(name_of(namespace)):
                yield Action(f"end {key_of(namespace)}", self._unfinalize(namespace, NAMESPACE_FINALIZER))

    def _inhabited(self, namespace: str) -> bool:
        return any(found["kind"] != "Namespace" for found in self.kube.all(None, namespace))

    def _edit(self, found: Object, edit: Callable[[Object], Any]) -> Callable[[], None]:
        """Return an edit that does nothing once the object is gone or has been made anew."""

        def run() -> None:
            present = self.kube.peek(*key_of(found))
            if present is not None and present["metadata"]["uid"] == found["metadata"]["uid"]:
                self.kube.change(*key_of(found), edit)

        return run

    def _finalize(self, found: Object, *finalizers: str) -> Callable[[], None]:
        def edit(draft: Object) -> None:
            if not deleting(draft):
                held = draft["metadata"].setdefault("finalizers", [])
                held.extend(entry for entry in finalizers if entry not in held)

        return self._edit(found, edit)

    def _unfinalize(self, found: Object, *finalizers: str) -> Callable[[], None]:
        def edit(draft: Object) -> None:
            held = [entry for entry in draft["metadata"].get("finalizers", []) if entry not in finalizers]
            draft["metadata"]["finalizers"] = held

        return self._edit(found, edit)

    # -- claims --

    def _claim_actions(self, claim: Object) -> Iterator[Action]:
        what = key_of(claim)
        finalizers = claim["metadata"].get("finalizers", [])
        status = claim.get("status") or {}
        if deleting(claim):
            held = {CLAIM_FINALIZER: self._is_mounted(claim), SOURCE_FINALIZER: self._is_being_captured(claim)}
            free = [entry for entry in finalizers if not held.get(entry, True)]
            if free:
                yield Action(f"release {what}", self._unfinalize(claim, *free))
            return
        if CLAIM_FINALIZER not in finalizers or not status:
            yield Action(f"protect {what}", lambda: self._protect(claim))
        elif status.get("phase") == "Pending" and self._provisions(claim) and self._source_of(claim) is not None:
            if not self.full:
                yield Action(f"bind {what}", lambda: self._bind(claim))
            elif self.kube.peek("Event", what.namespace, self._event_name(claim)) is None:
                yield Action(f"refuse {what}", lambda: self._refuse_volume(claim))
        elif status.get("phase") == "Bound" and self._asked(claim) > quantity_bytes(status["capacity"]["storage"]):
            yield Action(f"expand {what}", self._edit(claim, self._expand))

    def _protect(self, claim: Object) -> None:
        self._finalize(claim, CLAIM_FINALIZER)()
        self._edit(claim, lambda draft: draft.setdefault("status", {"phase": "Pending"}))()

    @staticmethod
    def _asked(claim: Object) -> int:
        return quantity_bytes(claim["spec"]["resources"]["requests"]["storage"])

    def _expand(self, draft: Object) -> None:
        draft["status"]["capacity"]["storage"] = f"{math.ceil(self._asked(draft) / GIB)}Gi"

    def _provisions(self, claim: Object) -> bool:
        found = self.kube.peek("StorageClass", None, claim["spec"].get("storageClassName") or "fast")
        if found is None:
            return False
        return found["volumeBindingMode"] == "Immediate" or any(
            not deleting(pod) for pod in self._pods_of(claim) if (pod.get("status") or {}).get("phase") == "Pending"
        )

    @staticmethod
    def _event_name(claim: Object) -> str:
        return f"{name_of(claim)}.{claim['metadata']['uid']}"

    def _refuse_volume(self, claim: Object) -> None:
        """The provisioner tells the claim, and nobody else, that the pool is full."""
        if self.kube.peek(*key_of(claim)) is None:
            return
        metadata, now = claim["metadata"], timestamp(self.now)
        self.kube.add(
            {
                "apiVersion": "events.k8s.io/v1",
                "kind": "Event",
                "metadata": {"name": self._event_name(claim), "namespace": metadata["namespace"]},
                "type": "Warning",
                "reason": "ProvisioningFailed",
                "note": f"failed to provision volume: {NO_ROOM}",
                "regarding": {"kind": claim["kind"], "name": metadata["name"], "uid": metadata["uid"]},
                "deprecatedFirstTimestamp": now,
                "deprecatedLastTimestamp": now,
            }
        )

    def _source_of(self, claim: Object) -> Volume | None:
        """Return what a new volume holds, or None while it cannot be made."""
        reference = claim["spec"].get("dataSourceRef")
        if reference is None:
            return Volume()
        snapshot = self.kube.peek("VolumeSnapshot", claim["metadata"]["namespace"], reference["name"])
        if snapshot is None or deleting(snapshot) or not (snapshot.get("status") or {}).get("readyToUse"):
            return None  # csi-provisioner: "snapshot is currently being deleted" / "not Ready"; it tries for ever
        if self._asked(claim) < quantity_bytes(snapshot["status"]["restoreSize"]):
            return None  # csi-provisioner refuses a volume smaller than the snapshot
        content = self.kube.peek("VolumeSnapshotContent", None, snapshot["status"]["boundVolumeSnapshotContentName"])
        return None if content is None else self.snapshots.get(content["status"]["snapshotHandle"])

    def _bind(self, claim: Object) -> None:
        source, present = self._source_of(claim), self.kube.peek(*key_of(claim))
        if source is None or present is None or present["metadata"]["uid"] != claim["metadata"]["uid"]:
            return
        uid = claim["metadata"]["uid"]
        self.volumes[uid] = source.copy()
        # Drivers round up, here to whole GiB.
        capacity = f"{math.ceil(self._asked(claim) / GIB)}Gi"

        def edit(draft: Object) -> None:
            draft["spec"]["volumeName"] = f"pv-{uid}"
            draft["status"] = {"phase": "Bound", "capacity": {"storage": capacity}}

        self.kube.change(*key_of(claim), edit)

    def _pods_of(self, claim: Object) -> list[Object]:
        return [
            pod
            for pod in self.kube.all("Pod", claim["metadata"]["namespace"])
            if any(
                volume.get("persistentVolumeClaim", {}).get("claimName") == name_of(claim)
                for volume in pod["spec"].get("volumes", ())
            )
        ]

    def _is_mounted(self, claim: Object) -> bool:
        # kube-controller-manager's pvc-protection: an ended Pod holds its claim as well until it is deleted.
        return any((pod.get("status") or {}).get("nodeName") for pod in self._pods_of(claim))

    def _is_being_captured(self, claim: Object) -> bool:
        return any(
            found["spec"]["source"].get("persistentVolumeClaimName") == name_of(claim)
            and not (found.get("status") or {}).get("readyToUse")
            for found in self.kube.all("VolumeSnapshot", claim["metadata"]["namespace"])
        )

    def volume(self, namespace: str, claim: str) -> Volume:
        found = self.kube.peek("PersistentVolumeClaim", namespace, claim)
        assert found is not None, f"there is no claim {namespace}/{claim}"
        return self.volumes[found["metadata"]["uid"]]

    # -- snapshots --

    def _snapshot_actions(self, snapshot: Object) -> Iterator[Action]:
        what = key_of(snapshot)
        status = snapshot.get("status") or {}
        if deleting(snapshot):
            protected = SNAPSHOT_FINALIZER in snapshot["metadata"].get("finalizers", [])
            if protected and not self._is_being_restored(snapshot):
                yield Action(f"end {what}", lambda: self._end_snapshot(snapshot))
        elif SNAPSHOT_FINALIZER not in snapshot["metadata"].get("finalizers", []):
            yield Action(f"protect {what}", self._finalize(snapshot, SNAPSHOT_FINALIZER))
        elif "volumeSnapshotContentName" in snapshot["spec"]["source"]:
            if not status.get("readyToUse") and self._alias_content(snapshot) is not None:
                yield Action(f"bind {what}", lambda: self._bind_alias(snapshot))
        elif not status.get("boundVolumeSnapshotContentName"):
            if self._capturable(snapshot) is not None:
                yield Action(f"begin {what}", lambda: self._begin_snapshot(snapshot))
        else:
            yield from self._mirror_actions(snapshot, status)

    def _capturable(self, snapshot: Object) -> Object | None:
        source = snapshot["spec"]["source"]["persistentVolumeClaimName"]
        claim = self.kube.peek("PersistentVolumeClaim", snapshot["metadata"]["namespace"], source)
        bound = claim is not None and not deleting(claim) and claim.get("status", {}).get("phase") == "Bound"
        return claim if bound else None

    def _begin_snapshot(self, snapshot: Object) -> None:
        claim = self._capturable(snapshot)
        if claim is None:
            return
        if self.snapshot_error is not None:
            error = {"message": self.snapshot_error, "time": timestamp(self.now)}
            if ((snapshot.get("status") or {}).get("error") or {}).get("message") != self.snapshot_error:
                self._edit(snapshot, lambda draft: draft.update(status={"readyToUse": False, "error": error}))()
            return
        self._finalize(claim, SOURCE_FINALIZER)()
        uid = snapshot["metadata"]["uid"]
        content = f"snapcontent-{uid}"
        classes = self.kube.peek("VolumeSnapshotClass", None, snapshot["spec"]["volumeSnapshotClassName"])
        assert classes is not None
        self.kube.add(
            {
                "apiVersion": "snapshot.storage.k8s.io/v1",
                "kind": "VolumeSnapshotContent",
                "metadata": {"name": content, "finalizers": [CONTENT_FINALIZER]},
                "spec": {
                    "driver": DRIVER,
                    "deletionPolicy": classes["deletionPolicy"],
                    "volumeSnapshotClassName": name_of(classes),
                    "source": {"volumeHandle": claim["metadata"]["uid"]},
                    "volumeSnapshotRef": {
                        "name": name_of(snapshot),
                        "namespace": snapshot["metadata"]["namespace"],
                        "uid": uid,
                    },
                },
            }
        )
        bound = {"boundVolumeSnapshotContentName": content, "readyToUse": False}
        self._edit(snapshot, lambda draft: draft.update(status=bound))()

    def _mirror_actions(self, snapshot: Object, status: Object) -> Iterator[Action]:
        content = self.kube.peek("VolumeSnapshotContent", None, status["boundVolumeSnapshotContentName"])
        if content is None:
            return
        found = content.get("status") or {}
        wanted = {
            "boundVolumeSnapshotContentName": name_of(content),
            "readyToUse": found.get("readyToUse", False),
            **{key: found[key] for key in ("creationTime", "restoreSize") if key in found},
        }
        if wanted != status:
            mirror = self._edit(snapshot, lambda draft: draft.update(status=wanted))
            yield Action(f"mirror {key_of(snapshot)}", mirror)

    def _content_actions(self, content: Object) -> Iterator[Action]:
        what = key_of(content)
        if deleting(content):
            alias = "snapshotHandle" in content["spec"]["source"]
            told = not (self.strands and alias) or BEING_DELETED in content["metadata"].get("annotations", {})
            if (
                CONTENT_FINALIZER in content["metadata"].get("finalizers", [])
                and not self._is_referenced(content)
                and (told or not self.strands)
            ):
                yield Action(f"end {what}", lambda: self._end_content(content))
            return
        if CONTENT_FINALIZER not in content["metadata"].get("finalizers", []):
            yield Action(f"protect {what}", self._finalize(content, CONTENT_FINALIZER))
            return
        status = content.get("status") or {}
        handle = content["spec"]["source"].get("volumeHandle")
        if handle is not None and not status:
            if handle in self.volumes:
                yield Action(f"capture {what}", lambda: self._capture(content, handle))
        elif handle is not None and not status["readyToUse"]:
            ready = self._edit(content, lambda draft: draft["status"].update(readyToUse=True))
            yield Action(f"finish {what}", ready)

    def _capture(self, content: Object, volume: str) -> None:
        """The driver fixes the point in time; the snapshot can be restored a while later."""
        handle = f"snap-{content['metadata']['uid']}"
        if volume not in self.volumes:
            return
        running = [server for server in self.engine.servers.values() if server.volume is self.volumes[volume]]
        self.snapshots[handle] = self.volumes[volume].copy()
        if running and self.tears:
            self.snapshots[handle].halved = True
            self.tears -= 1
        self.snapshots[handle].torn |= any(not server.durable for server in running)
        self._watch_for_unmasked_rows(content, self.volumes[volume])
        claim = next(c for c in self.kube.all("PersistentVolumeClaim") if c["metadata"]["uid"] == volume)
        status = {
            "snapshotHandle": handle,
            "creationTime": timestamp(self.now),
            "restoreSize": claim["status"]["capacity"]["storage"],
            "readyToUse": False,
        }
        self._edit(content, lambda draft: draft.update(status=status))()

    def _watch_for_unmasked_rows(self, content: Object, volume: Volume) -> None:
        """What a prepared snapshot says of its rows is so."""
        reference = content["spec"]["volumeSnapshotRef"]
        snapshot = self.kube.peek("VolumeSnapshot", reference["namespace"], reference["name"])
        metadata = {} if snapshot is None else snapshot["metadata"]
        said = (metadata.get("annotations") or {}).get(labels.CONTENT)
        if said is None or labels.OWNER_UID not in (metadata.get("labels") or {}):
            return
        expected = "ended" if "mask" in json.loads(said) else ""
        if volume.mask_run != expected or (expected and volume.old_rows):
            self.violations.append(
                f"{reference['name']} says {said}, and its mask has {volume.mask_run or 'not begun'}"
            )
        if volume.halved:
            self.violations.append(f"{reference['name']} does not open")
        if volume.torn:
            self.violations.append(f"{reference['name']} may lack what a server has acknowledged")
        if volume.users or volume.cloned:
            self.violations.append(f"{reference['name']} holds what a server on the scratch copy has left")

    def _alias_content(self, snapshot: Object) -> Object | None:
        """Return the pre-provisioned content a snapshot names, if each names the other and the bytes are there."""
        content = self.kube.peek("VolumeSnapshotContent", None, snapshot["spec"]["source"]["volumeSnapshotContentName"])
        if content is None or deleting(content):
            return None
        reference = content["spec"]["volumeSnapshotRef"]
        mutual = (reference["namespace"], reference["name"]) == (snapshot["metadata"]["namespace"], name_of(snapshot))
        fits = mutual and reference.get("uid", snapshot["metadata"]["uid"]) == snapshot["metadata"]["uid"]
        return content if fits and content["spec"]["source"]["snapshotHandle"] in self.snapshots else None

    def _bind_alias(self, snapshot: Object) -> None:
        content = self._alias_content(snapshot)
        if content is None:
            return
        handle = content["spec"]["source"]["snapshotHandle"]
        size = next(
            found["status"]["restoreSize"]
            for found in self.kube.all("VolumeSnapshotContent")
            if (found.get("status") or {}).get("snapshotHandle") == handle
        )
        captured = {"creationTime": timestamp(self.now), "restoreSize": size, "readyToUse": True}

        def take(draft: Object) -> None:
            draft["spec"]["volumeSnapshotRef"]["uid"] = snapshot["metadata"]["uid"]
            draft["status"] = {"snapshotHandle": handle, **captured}

        self._edit(content, take)()
        bound = {"boundVolumeSnapshotContentName": name_of(content), **captured}
        self._edit(snapshot, lambda draft: draft.update(status=bound))()

    def _is_being_restored(self, snapshot: Object) -> bool:
        return any(
            (claim["spec"].get("dataSourceRef") or {}).get("name") == name_of(snapshot)
            and (claim.get("status") or {}).get("phase") == "Pending"
            for claim in self.kube.all("PersistentVolumeClaim", snapshot["metadata"]["namespace"])
        )

    def _end_snapshot(self, snapshot: Object) -> None:
        for content in self.kube.all("VolumeSnapshotContent"):
            reference = content["spec"]["volumeSnapshotRef"]
            if reference.get("uid") == snapshot["metadata"]["uid"] and content["spec"]["deletionPolicy"] == "Delete":
                self.kube.remove(*key_of(content))
        self._unfinalize(snapshot, SNAPSHOT_FINALIZER)()

    def _is_referenced(self, content: Object) -> bool:
        reference = content["spec"]["volumeSnapshotRef"]
        snapshot = self.kube.peek("VolumeSnapshot", reference["namespace"], reference["name"])
        return snapshot is not None and snapshot["metadata"]["uid"] == reference.get("uid")

    def _end_content(self, content: Object) -> None:
        handle = (content.get("status") or {}).get("snapshotHandle")
        if content["spec"]["deletionPolicy"] == "Delete" and handle is not None:
            self.snapshots.pop(handle, None)
        self._unfinalize(content, CONTENT_FINALIZER)()

    # -- Jobs --

    def _job_actions(self, job: Object) -> Iterator[Action]:
        what = key_of(job)
        ended = {entry["type"] for entry in (job.get("status") or {}).get("conditions", ())}
        if deleting(job) or job["spec"].get("suspend") or ended:
            return
        pods = [
            pod
            for pod in self.kube.all("Pod", job["metadata"]["namespace"])
            if job["metadata"]["uid"] in {owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())}
        ]
        phases = [(pod.get("status") or {}).get("phase") for pod in pods]
        deadline = job["spec"].get("activeDeadlineSeconds")
        if "Succeeded" in phases:
            yield Action(f"complete {what}", self._end_job(job, "Complete", "CompletionsReached"))
        elif deadline is not None and self._age(job) > deadline:
            yield Action(f"time out {what}", lambda: self._time_out(job, pods))
        elif phases.count("Failed") > job["spec"].get("backoffLimit", 6):
            yield Action(f"fail {what}", self._end_job(job, "Failed", "BackoffLimitExceeded"))
        elif phases.count("Failed") == len(pods) and not self.podless:
            yield Action(f"run {what}", lambda: self._run_job(job, len(pods)))

    def _age(self, found: Object) -> float:
        created = parse_time(found["metadata"]["creationTimestamp"])
        assert created is not None
        return (self.now - created).total_seconds()

    def _time_out(self, job: Object, pods: list[Object]) -> None:
        for pod in pods:
            if self.kube.peek(*key_of(pod)) is not None and not deleting(pod):
                self.kube.remove(*key_of(pod))
        self._end_job(job, "Failed", "DeadlineExceeded")()

    def _end_job(self, job: Object, condition: str, reason: str) -> Callable[[], None]:
        now = timestamp(self.now)
        ended = {"type": condition, "status": "True", "reason": reason, "lastTransitionTime": now}
        status: Object = {"startTime": job["metadata"]["creationTimestamp"], "conditions": [ended]}
        if condition == "Complete":
            status["completionTime"] = now
        return self._edit(job, lambda draft: draft.update(status=status))

    def _run_job(self, job: Object, number: int) -> None:
        metadata, template = job["metadata"], job["spec"]["template"]
        if self.kube.peek(*key_of(job)) is None:
            return
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
        name = f"{metadata['name']}-{number}-{metadata['uid']}"
        given = template.get("metadata", {})
        found_by = {
            "batch.kubernetes.io/job-name": metadata["name"],
            "batch.kubernetes.io/controller-uid": metadata["uid"],
        }
        self.kube.add(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    **given,
                    "labels": {**given.get("labels", {}), **found_by},
                    "name": name,
                    "namespace": metadata["namespace"],
                    "ownerReferences": [owner],
                },
                "spec": template["spec"],
            }
        )

    def _run_program(self, pod: Object) -> None:
        """Write the container's arguments as rows, as an app that knows nothing but its environment."""
        container, namespace = pod["spec"]["containers"][0], pod["metadata"]["namespace"]
        server = self._connect(self._environment(namespace, container))
        code = 1 if server is None or self.crashing(pod) else 0
        if server is not None:
            # What a program wrote before it failed stays.
            server.volume.write(server.volume.default_branch, *container["args"][: None if code == 0 else 1])
        self._end_program(pod, code)

    def _end_program(self, pod: Object, code: int) -> None:
        """Have a program end: one that fails shows a row to whoever asks kubelet why."""
        name = pod["spec"]["containers"][0]["name"]
        terminated: Object = {"exitCode": code, "finishedAt": timestamp(self.now)}
        if code and pod["metadata"]["labels"][labels.ROLE] in {CHECK_ROLE, LOAD_ROLE, MASK_ROLE, MIGRATE_ROLE}:
            terminated["message"] = f"duplicate key: {ROW_IN_A_MESSAGE}"
        ended = [{"name": name, "state": {"terminated": terminated}}]
        phase = "Failed" if code else "Succeeded"
        self._edit(pod, lambda draft: draft["status"].update(phase=phase, containerStatuses=ended))()

    def _begin_mask(self, pod: Object) -> None:
        """Change half of the rows, as a program does that has not come to its end yet."""
        server = self._connect(self._environment(pod["metadata"]["namespace"], pod["spec"]["containers"][0]))
        if server is None:
            self._end_program(pod, 1)
            return
        container = (pod["spec"].get("initContainers") or pod["spec"]["containers"])[0]
        server.volume.mask_run = "begun"
        rows = server.volume.branches[server.volume.default_branch].rows
        server.volume.mask(server.volume.default_branch, *container["args"][1:], count=len(rows) // 2)
        running = [{"name": pod["spec"]["containers"][0]["name"], "state": {"running": {}}}]
        self._edit(pod, lambda draft: draft["status"].update(phase="Running", containerStatuses=running))()

    def _end_mask(self, pod: Object) -> None:
        """Run the programs of all containers one after the other: ``mask`` some tables, or ``check`` all rows."""
        spec, namespace = pod["spec"], pod["metadata"]["namespace"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            server = self._connect(self._environment(namespace, container))
            if server is None or self.crashing(pod):
                self._end_program(pod, 1)
                return
            program, *tables = container["args"]
            branch = server.volume.default_branch
            if program == "mask":
                server.volume.mask(branch, *tables)
            elif not all(is_masked(row) for row in server.volume.branches[branch].rows):
                self._end_program(pod, 1)
                return
            server.volume.mask_run = "ended" if container is spec["containers"][-1] else "begun"
        self._end_program(pod, 0)

    def _end_check(self, pod: Object) -> None:
        """Look for rows that begin with one of the container's arguments, at the commit that its database names."""
        container, namespace = pod["spec"]["containers"][0], pod["metadata"]["namespace"]
        values = self._environment(namespace, container)
        database, _, commit = values["database"].partition("/")
        server = self._connect({**values, "database": database})
        if server is None or commit not in server.volume.commits:
            self._end_program(pod, 1)
            return
        rows = server.volume.commits[commit].rows
        self.checked.append((container["args"], rows))
        found = self.crashing(pod) or any(row.startswith(tuple(container["args"])) for row in rows)
        self._end_program(pod, int(found))

    def _environment(self, namespace: str, container: Object) -> dict[str, str]:
        values = {}
        for entry in container.get("env", ()):
            reference = entry.get("valueFrom", {}).get("secretKeyRef")
            secret = self.kube.peek("Secret", namespace, reference["name"]) if reference else None
            values[entry["name"]] = entry.get("value", "") if secret is None else read_secret(secret)[reference["key"]]
        return values

    # -- Pods --

    def _pod_actions(self, pod: Object) -> Iterator[Action]:
        what = key_of(pod)
        status = pod.get("status") or {}
        if deleting(pod):
            if pod["metadata"].get("finalizers"):
                yield Action(f"end {what}", lambda: (self._stop(pod), self._unfinalize(pod, KUBELET)())[1])
        elif status.get("phase") in {"Succeeded", "Failed"} or labels.ROLE not in pod["metadata"].get("labels", {}):
            return
        elif not status.get("nodeName"):
            problem = self._unschedulable(pod)
            if problem is None:
                yield Action(f"schedule {what}", lambda: self._schedule(pod))
            elif status != self._refused(problem):
                refused = self._edit(pod, lambda draft: draft.update(status=self._refused(problem)))
                yield Action(f"cannot schedule {what}", refused)
        elif status["phase"] == "Pending":
            problem = self._cannot_start(pod)
            if problem is None and not (self.hanging(pod) and self._migrates(pod)):
                yield Action(f"start {what}", lambda: self._start(pod))
            elif problem is not None and status.get("containerStatuses") != problem:
                waiting = self._edit(pod, lambda draft: draft["status"].update(containerStatuses=problem))
                yield Action(f"cannot start {what}", waiting)
        elif pod["metadata"]["labels"].get(labels.ROLE) in {MASK_ROLE, CHECK_ROLE}:
            if not self.hanging(pod):
                masks = pod["metadata"]["labels"][labels.ROLE] == MASK_ROLE
                yield Action(f"finish {what}", lambda: self._end_mask(pod) if masks else self._end_check(pod))
        elif (server := self.engine.servers.get(status.get("podIP", ""))) is not None and not server.listening:
            yield Action(f"listen {what}", lambda: self._listen(pod, server))

    def _migrates(self, pod: Object) -> bool:
        return bool(pod["metadata"]["labels"].get(labels.ROLE) == MIGRATE_ROLE)

    def _unschedulable(self, pod: Object) -> str | None:
        """Return why the scheduler cannot place a Pod; the empty string while it waits for its own volume."""
        for volume in pod["spec"].get("volumes", ()):
            if "persistentVolumeClaim" not in volume:
                continue
            name = volume["persistentVolumeClaim"]["claimName"]
            claim = self.kube.peek("PersistentVolumeClaim", pod["metadata"]["namespace"], name)
            if claim is None:
                return f'persistentvolumeclaim "{name}" not found'
            if deleting(claim):
                return f'persistentvolumeclaim "{name}" is being deleted'
            if (claim.get("status") or {}).get("phase") != "Bound":
                late = claim["spec"]["storageClassName"] == "late"
                return "" if late else "pod has unbound immediate PersistentVolumeClaims"
        return None

    @staticmethod
    def _refused(problem: str) -> Object:
        conditions = [{"type": "PodScheduled", "status": "False", "message": problem}] if problem else []
        return {"phase": "Pending", "conditions": conditions}

    def _schedule(self, pod: Object) -> None:
        self._finalize(pod, KUBELET)()
        self._edit(pod, lambda draft: draft.update(status={"phase": "Pending", "nodeName": "node-1"}))()

    def _cannot_start(self, pod: Object) -> list[Object] | None:
        container = pod["spec"]["containers"][0]
        if container["image"] in self.broken_images:
            reason, message = "ImagePullBackOff", f'Back-off pulling image "{container["image"]}"'
        elif (missing := self._missing_secret(pod)) is not None:
            reason, message = "CreateContainerConfigError", f'secret "{missing}" not found'
        elif self._lacks_mounted_secret(pod):
            reason, message = "ContainerCreating", ""
        else:
            return None
        return [{"name": container["name"], "state": {"waiting": {"reason": reason, "message": message}}}]

    def _lacks_mounted_secret(self, pod: Object) -> bool:
        names = [volume["secret"]["secretName"] for volume in pod["spec"].get("volumes", ()) if "secret" in volume]
        return any(self.kube.peek("Secret", pod["metadata"]["namespace"], name) is None for name in names)

    def _missing_secret(self, pod: Object) -> str | None:
        for entry in pod["spec"]["containers"][0].get("env", ()):
            reference = entry.get("valueFrom", {}).get("secretKeyRef", {})
            name = reference.get("name")
            secret = self.kube.peek("Secret", pod["metadata"]["namespace"], name) if name else None
            if name and (secret is None or reference["key"] not in secret["data"]):
                return str(name)
        return None

    def _start(self, pod: Object) -> None:
        if pod["metadata"]["labels"].get(labels.ROLE) in {LOAD_ROLE, MIGRATE_ROLE}:
            self._run_program(pod)
            return
        if pod["metadata"]["labels"].get(labels.ROLE) == MASK_ROLE:
            self._begin_mask(pod)
            return
        if pod["metadata"]["labels"].get(labels.ROLE) == CHECK_ROLE:
            running = [{"name": pod["spec"]["containers"][0]["name"], "state": {"running": {}}}]
            self._edit(pod, lambda draft: draft["status"].update(phase="Running", containerStatuses=running))()
            return
        script = json.loads(pod["spec"]["containers"][0]["command"][-1])
        claim = pod["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
        volume = self.volume(pod["metadata"]["namespace"], claim)
        failed = self.crashing(pod)
        if script["run"] in {"dump", "restore"}:
            self._refresh(pod, script, volume, failed=failed)
            return
        if script["run"] == "prepare":
            self._prepare(pod, script, volume, failed=failed)
            return
        if script["run"] == "store" and script["load"] and volume.empty and self.load_fails:
            self._crash(pod, "initContainerStatuses", "load")
            return
        if script["run"] == "store" and script["load"] and volume.empty and self.load_lasts:
            loading = [{"name": "load", "state": {"running": {}}}]
            if pod["status"].get("initContainerStatuses") != loading:
                self._edit(pod, lambda draft: draft["status"].update(initContainerStatuses=loading))()
            return
        failed = failed or not getattr(self, f"_boot_{script['run']}")(pod, script, volume)
        if failed:
            self._crash(pod, "containerStatuses", "engine")
            return
        self._addresses += 1
        address = f"10.0.{self._addresses // 250}.{self._addresses % 250 + 1}"
        self._watch_for_two_servers(pod, volume)
        values = self._environment(pod["metadata"]["namespace"], pod["spec"]["containers"][0])
        self.engine.servers[address] = Server(
            volume,
            pod["metadata"]["uid"],
            durable=script.get("durable", True),
            remote_password=values.get("REMOTE_PASSWORD", ""),
        )
        running = {
            "phase": "Running",
            "podIP": address,
            "initContainerStatuses": [],
            "containerStatuses": [{"name": "engine", "state": {"running": {}}}],
        }
        self._edit(pod, lambda draft: draft["status"].update(running))()

    def _crash(self, pod: Object, where: str, container: str) -> None:
        """A program ends in failure; kubelet counts, and waits longer from time to time until it starts it again."""
        if pod["spec"]["restartPolicy"] == "Never":
            self._end_program(pod, 1)
            return
        [before] = pod["status"].get(where) or [{"restartCount": -1, "lastState": {}}]
        restarts = before["restartCount"]
        ended = parse_time(before["lastState"].get("terminated", {}).get("finishedAt"))
        if ended is not None and self.now < ended + timedelta(seconds=min(10 * 2**restarts, 300)):
            return
        now = timestamp(self.now)
        crashed = {
            "name": container,
            "restartCount": restarts + 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off restarting {container}"}},
            "lastState": {"terminated": {"exitCode": 1, "startedAt": now, "finishedAt": now}},
        }
        self._edit(pod, lambda draft: draft["status"].update({where: [crashed]}))()

    def _watch_for_two_servers(self, pod: Object, volume: Volume) -> None:
        if any(server.volume is volume for server in self.engine.servers.values()):
            self.violations.append(f"a second server on the volume of {key_of(pod)}")

    def _prepare(self, pod: Object, script: Object, volume: Volume, *, failed: bool) -> None:
        if volume.halved and not failed:
            told = {"exitCode": TORN_COPY, "message": "the label shop is torn\n"}
            ended = [{"name": "engine", "state": {"terminated": told}}]
            self._edit(pod, lambda draft: draft["status"].update(phase="Failed", containerStatuses=ended))()
            return
        strange = script["origin"] is not None and volume.marker not in {script["origin"], script["marker"]}
        if failed or strange or volume.database != script["database"] or not self._is_laid_out(pod, script, volume):
            why = f"the volume is not laid out as {script['directory'] or 'expected'}"
            ended = [{"name": "engine", "state": {"terminated": {"exitCode": 1, "message": f"{why}\n"}}}]
            self._edit(pod, lambda draft: draft["status"].update(phase="Failed", containerStatuses=ended))()
            return
        self._watch_for_two_servers(pod, volume)
        volume.users, volume.remotes, volume.marker, volume.layout = {}, set(), script["marker"], "managed"
        volume.cloned = False
        if script["rewrite"]:
            volume.rewrite()
        report = {
            "version": "1.0.0-fake",
            "database": volume.database,
            "default": volume.default_branch,
            "branches": [[s.database, s.branch, s.head, s.working_root] for s in volume.states()],
            "ledger": None if (ledger := volume.ledger()) is None else ledger.applied,
        }
        metadata = pod["metadata"]
        self.kube.logs[metadata["namespace"], metadata["name"], "engine"] = f"preparing\n{json.dumps(report)}\n"
        ended = [{"name": "engine", "state": {"terminated": {"exitCode": 0}}}]
        self._edit(pod, lambda draft: draft["status"].update(phase="Succeeded", containerStatuses=ended))()

    def _refresh(self, pod: Object, script: Object, volume: Volume, *, failed: bool) -> None:
        """A program that fills a mirror's copy runs, and tells how it went in the last line of its log."""
        self._watch_for_two_servers(pod, volume)
        if self.silent:
            self._tell(pod, {"phase": "Dumping", "done": 1, "total": 3})
            running = {"phase": "Running", "containerStatuses": [{"name": "engine", "state": {"running": {}}}]}
            self._edit(pod, lambda draft: draft["status"].update(running))()
            return
        told = {"failed": "", "detail": ""} if failed else getattr(self, f"_run_{script['run']}")(pod, script, volume)
        if not failed:
            self._tell(pod, told)
        ends = {"exitCode": 1 if "failed" in told else 0, "finishedAt": timestamp(self.now)}
        ended = [{"name": "engine", "state": {"terminated": ends}}]
        phase = "Failed" if "failed" in told else "Succeeded"
        self._edit(pod, lambda draft: draft["status"].update(phase=phase, containerStatuses=ended))()

    def _tell(self, pod: Object, told: Object) -> None:
        metadata = pod["metadata"]
        self.kube.logs[metadata["namespace"], metadata["name"], "engine"] = f"begun\n{json.dumps(told)}\n"

    def _run_dump(self, pod: Object, script: Object, volume: Volume) -> Object:
        name = next(v["secret"]["secretName"] for v in pod["spec"]["volumes"] if v["name"] == "source")
        secret = self.kube.peek("Secret", pod["metadata"]["namespace"], name)
        assert secret is not None
        login = read_secret(secret)
        source = self.elsewhere.get(login["host"])
        if volume.marker == script["marker"] or volume.dumped is not None:
            return {"phase": "Done"}
        if source is None:
            return {"failed": "SourceUnreachable", "detail": ""}
        if (source.username, source.password) != (login["username"], login["password"]):
            return {"failed": "SourceRefusesLogin", "detail": ""}
        source.reads += 1
        if self.dump_fails is not None:
            return {"failed": self.dump_fails, "detail": "table album"}
        if script["expects"] and not source.rows:
            return {"failed": "SourceEmpty", "detail": login["database"]}
        volume.dumped = source.rows
        facts = (timestamp(self.now), source.version, login["database"])
        self.dumps[pod["metadata"]["namespace"], script["marker"]] = facts
        return {"phase": "Done"}

    def _run_restore(self, pod: Object, script: Object, volume: Volume) -> Object:
        if volume.dumped is None and volume.marker != script["marker"]:
            return {"failed": "RestoreFailed", "detail": "no dump"}
        if self.restore_fails is not None:
            volume.dumped = None
            return {"failed": self.restore_fails, "detail": ""}
        at, version, database = self.dumps[pod["metadata"]["namespace"], script["marker"]]
        if volume.dumped is not None:
            volume.initialise(database, volume.dumped, self.now)
            volume.marker, volume.dumped = script["marker"], None
        rows = volume.branches[volume.default_branch].rows
        counts = {"tables": 3, "filled": 1 if rows else 0}
        return {"phase": "Done", "at": at, "version": version, "database": database, **counts, "findings": []}

    def _is_laid_out(self, pod: Object, script: Object, volume: Volume) -> bool:
        """Return whether a preparation finds the data, and may read them."""
        if volume.empty or not self._is_owner(pod, volume) or (volume.layout != "managed") != script["adopted"]:
            return False
        return script["directory"] in {None, volume.layout}

    @staticmethod
    def _is_owner(pod: Object, volume: Volume) -> bool:
        security = pod["spec"]["securityContext"]
        return {security[key] for key in ("runAsUser", "runAsGroup", "fsGroup")} == {volume.owner}

    def _admin_password(self, pod: Object) -> str:
        return self._environment(pod["metadata"]["namespace"], pod["spec"]["containers"][0])["ADMIN_PASSWORD"]

    def _boot_store(self, pod: Object, script: Object, volume: Volume) -> bool:
        if script["marker"] is not None and volume.marker != script["marker"]:
            return False
        if volume.empty:
            rows: frozenset[str] = frozenset()
            if script["load"]:
                load = next(v for v in pod["spec"]["volumes"] if v["name"] == "load")
                rows = self.loads.get((pod["metadata"]["namespace"], load["configMap"]["name"]), rows)
            volume.initialise(script["database"], rows, self.now)
        if ADMIN not in volume.users:
            volume.users[ADMIN] = self._admin_password(pod)
        return True

    def _boot_clone(self, pod: Object, script: Object, volume: Volume) -> bool:
        if volume.empty or volume.marker != script["marker"] or not self._is_owner(pod, volume):
            return False
        if not volume.cloned:
            volume.users = {}
            if script["cut"]:
                if script["head"] not in volume.commits:
                    return False
                volume.branches[script["branch"]] = Branch(script["head"], volume.commits[script["head"]].rows)
            volume.default_branch = script["branch"]
            volume.cloned = True
        if not volume.users:
            volume.users[ADMIN] = self._admin_password(pod)
        return True

    def _listen(self, pod: Object, server: Server) -> None:
        server.listening = True
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": timestamp(self.now)}]
        self._edit(pod, lambda draft: draft["status"].update(conditions=ready))()

    def _stop(self, pod: Mapping[str, Any]) -> None:
        address = (pod.get("status") or {}).get("podIP")
        server = self.engine.servers.get(address or "")
        if server is not None and server.pod_uid == pod["metadata"]["uid"]:
            del self.engine.servers[address]

    def evict(self, pod: Object) -> None:
        """The node needs the room: the Pod fails and stays as a record."""
        self._stop(pod)
        self._edit(pod, lambda draft: draft["status"].update(phase="Failed", reason="Evicted", podIP=None))()

    def kill(self, pod: Object) -> None:
        """A program ends by itself, and is not started again."""
        self._stop(pod)
        self._end_program(pod, 137)

    def fill(self, pod: Object) -> None:
        """A server ends because its volume takes no more bytes, and is started in vain; a new Pod's would find room."""
        self._stop(pod)
        full = {
            "name": "engine",
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": OUT_OF_BYTES}},
        }
        self._edit(pod, lambda draft: draft["status"].update(conditions=[], containerStatuses=[full]))()

    # -- people and apps --

    def _named(self, host: str) -> Server | None:
        if not host.endswith(".svc"):
            return None
        service, where, _ = host.split(".")
        return None if self.untold(service) else self.server_behind(where, service)

    def _passes(self, fetcher: str, source: str) -> bool:
        """Return whether the policies let one server fetch from another: all of ours are closed to begin with."""
        one, other = self._at(fetcher), self._at(source)
        if one is None or other is None:
            return False
        if one is other:
            return True
        return self._lets(one, other, "egress", "to") and self._lets(other, one, "ingress", "from")

    def _at(self, address: str) -> Object | None:
        pods = (pod for pod in self.kube.all("Pod") if (pod.get("status") or {}).get("podIP") == address)
        return next(pods, None)

    def _lets(self, pod: Object, peer: Object, direction: str, word: str) -> bool:
        """Return whether some policy lets a Pod's packets to the port to fetch from go out to a peer, or come in."""
        mine, theirs = (found["metadata"].get("labels", {}).items() for found in (pod, peer))
        where = {"kubernetes.io/metadata.name": peer["metadata"]["namespace"]}
        return any(
            entry.get("namespaceSelector", {}).get("matchLabels") == where
            and entry["podSelector"]["matchLabels"].items() <= theirs
            for policy in self.kube.all("NetworkPolicy", pod["metadata"]["namespace"])
            if policy["spec"]["podSelector"]["matchLabels"].items() <= mine
            for rule in policy["spec"].get(direction, ())
            if any(port["port"] == self.engine.remotes_port for port in rule["ports"])
            for entry in rule[word]
            if "podSelector" in entry
        )

    def server_behind(self, namespace: str, service: str) -> Server | None:
        """Return the server that a connection to a Service reaches."""
        found = self.kube.peek("Service", namespace, service)
        if found is None:
            return None
        wanted = found["spec"]["selector"].items()
        for pod in self.kube.all("Pod", namespace):
            status = pod.get("status") or {}
            if wanted <= pod["metadata"]["labels"].items() and not deleting(pod):
                server = self.engine.servers.get(status.get("podIP") or "")
                if server is not None and server.listening:
                    return server
        return None

    def rows(self, namespace: str, secret: str, branch: str | None = None) -> frozenset[str]:
        """Log in like an app with nothing but a binding Secret, and read all rows."""
        server = self.login(namespace, secret)
        server.uses += 1
        return server.volume.branches[branch or server.volume.default_branch].rows

    def login(self, namespace: str, secret: str) -> Server:
        found = self.kube.peek("Secret", namespace, secret)
        assert found is not None, f"there is no Secret {namespace}/{secret}"
        values = read_secret(found)
        server = self._connect(values)
        assert server is not None, f"nobody answers at {values['host']} who takes the login"
        return server

    def _connect(self, values: Mapping[str, str]) -> Server | None:
        """Return the server that answers an app with this binding, if one does and takes its login."""
        server = self._named(values["host"])
        if server is None or server.volume.users.get(values["username"]) != values["password"]:
            return None
        return server if server.volume.database == values["database"] else None

    def tick(self, seconds: float = 1.0) -> None:
        self.now += timedelta(seconds=seconds)
