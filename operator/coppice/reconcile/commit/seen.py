"""What is read for a commit: as little as its state allows."""

from __future__ import annotations

from asyncio import gather
from dataclasses import dataclass, replace

from coppice.api.v1alpha1 import DataClone, Durability, InvalidResource, Verb
from coppice.core import labels
from coppice.core.names import handover_name
from coppice.core.plan import Manifest
from coppice.core.pullrequests import Forges
from coppice.kube.client import KubeReader
from coppice.manifests.job import MIGRATE_ROLE
from coppice.manifests.meta import is_owned
from coppice.reconcile.access import Asked, read_consent_for
from coppice.reconcile.belief import Refusal
from coppice.reconcile.clone.keepseen import unfinished
from coppice.reconcile.clone.names import secret_name
from coppice.reconcile.copies import Copy, find_copies
from coppice.reconcile.grants import Terms
from coppice.reconcile.observed import is_deleting, label, volume_snapshot_state
from coppice.reconcile.reads import read_snapshots


@dataclass(frozen=True, slots=True)
class CommitSeen:
    """What is on the way of a commit from the clone to the raw snapshot in the store's namespace; what was not needed
    was not read, and is None or empty.

    ``capture`` is the VolumeSnapshot in the clone's namespace, ``content`` what it is bound to, ``alias`` the content
    that brings it into the store's. ``terms``: whether the clone's namespace may do so, by the ``verb``; ``refusal``:
    why not, where there is a grant that might allow it. ``snapshots``: all of the store. ``attachments``: of volumes to
    nodes.
    """

    capture: Manifest | None = None
    alias: Manifest | None = None
    content: Manifest | None = None
    terms: Terms | None = None
    refusal: Refusal | None = None
    verb: Verb = Verb.BRANCH
    snapshots: tuple[Manifest, ...] = ()
    manifest: Manifest | None = None
    clone: DataClone | InvalidResource | None = None
    copies: tuple[Copy, ...] = ()
    binding: Manifest | None = None
    pods: tuple[Manifest, ...] = ()
    attachments: tuple[Manifest, ...] = ()

    def left(self, uid: str) -> list[Manifest]:
        """Return what the DataSnapshot with this UID has to see off, because Kubernetes does not collect it.

        A capture that was asked to go is the clone's namespace's to hold: whoever does shall not hold the commit.
        """
        own = [entry for entry in (self.alias, self.capture) if entry is not None and is_owned(entry, uid)]
        return [entry for entry in own if entry is self.alias or not is_deleting(entry)]


def clone_key(snapshot: Manifest) -> tuple[str, str]:
    """Return namespace and name of the clone that a DataSnapshot commits."""
    reference = snapshot["spec"]["from"]["clone"]
    return str(reference.get("namespace") or snapshot["metadata"]["namespace"]), str(reference["name"])


def full_name(manifest: Manifest) -> str:
    """Return the name of what a commit has elsewhere, with its namespace if it has one."""
    metadata = manifest["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if "namespace" in metadata else str(metadata["name"])


def capture_name(snapshot: Manifest) -> str:
    """Return the name of the VolumeSnapshot of the clone's volume."""
    return handover_name(str(snapshot["metadata"]["uid"]), clone_key(snapshot)[0])


def alias_name(snapshot: Manifest) -> str:
    """Return the name of the VolumeSnapshotContent that brings it into the store's namespace."""
    return handover_name(str(snapshot["metadata"]["uid"]), "")


async def observe_commit(reader: KubeReader, forges: Forges, snapshot: Manifest, raw: Manifest | None) -> CommitSeen:
    """Read what is made for a commit, and of what, while it has no raw snapshot yet."""
    namespace, _ = clone_key(snapshot)
    capture, alias = await gather(
        reader.get("VolumeSnapshot", capture_name(snapshot), namespace),
        reader.get("VolumeSnapshotContent", alias_name(snapshot)),
    )
    seen = CommitSeen(capture=capture, alias=alias)
    if is_deleting(snapshot) or (raw is not None and not is_deleting(raw)):
        return seen
    seen = await _read_clone(reader, seen, snapshot)
    return await _read_content(reader, await _read_line(reader, forges, seen, snapshot))


def keeps(clone: DataClone | InvalidResource | None, snapshot: Manifest) -> bool:
    """Return whether a commit is the one by which a clone keeps its changes before it goes: the clone says so."""
    kept = None if not isinstance(clone, DataClone) else unfinished(clone)
    commit = (kept.snapshot, kept.branch) if kept is not None else None
    return commit == (snapshot["metadata"]["name"], snapshot["spec"]["commit"]["branch"])


async def _read_line(reader: KubeReader, forges: Forges, seen: CommitSeen, snapshot: Manifest) -> CommitSeen:
    """Read the branch, and whether the clone's namespace may add to it."""
    where, store = snapshot["metadata"]["namespace"], snapshot["spec"]["store"]["name"]
    namespace, name = clone_key(snapshot)
    # What a clone leaves when it goes is on a branch of its own, and nobody else's is moved by it.
    verb = Verb.PROPOSE if keeps(seen.clone, snapshot) else Verb.BRANCH
    snapshots, consent = await gather(
        read_snapshots(reader, where, store),
        read_consent_for(reader, forges, Asked(store, where, namespace, verb), name),
    )
    return replace(seen, snapshots=snapshots, terms=consent.terms, refusal=consent.refusal, verb=verb)


async def _read_clone(reader: KubeReader, seen: CommitSeen, snapshot: Manifest) -> CommitSeen:
    """Read the clone and its copies."""
    namespace, name = clone_key(snapshot)
    manifest = await reader.get("DataClone", name, namespace)
    clone = None if manifest is None else DataClone.parse(manifest)
    seen = replace(seen, manifest=manifest, clone=clone)
    if clone is None or isinstance(clone, InvalidResource):
        return seen
    mine = {labels.OWNER_UID: clone.metadata.uid}
    claims, pods, binding = await gather(
        reader.list("PersistentVolumeClaim", namespace, mine),
        reader.list("Pod", namespace, mine),
        reader.get("Secret", secret_name(clone), namespace),
    )
    servers = tuple(pod for pod in pods if label(pod, labels.ROLE) != MIGRATE_ROLE)
    fast = clone.spec.durability is Durability.FAST
    attachments = await reader.list("VolumeAttachment") if fast else ()
    return replace(
        seen,
        copies=find_copies(claims, servers),
        binding=binding,
        pods=servers,
        attachments=tuple(attachments),
    )


async def _read_content(reader: KubeReader, seen: CommitSeen) -> CommitSeen:
    bound = None if seen.capture is None else volume_snapshot_state(seen.capture).content
    content = None if bound is None else await reader.get("VolumeSnapshotContent", bound)
    return replace(seen, content=content)
