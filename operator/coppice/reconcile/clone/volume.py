"""The link of the chain that makes a copy's volume, through an alias where the store is in another namespace. Pure."""

from __future__ import annotations

from datetime import datetime

from coppice.api.v1alpha1 import DataKind
from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.core.quantities import larger
from coppice.manifests.storage import Claim, build_alias_content, build_alias_snapshot, build_claim
from coppice.reconcile.aliases import stranded_aliases
from coppice.reconcile.choice import Chosen
from coppice.reconcile.clone.names import VOLUME, content_name
from coppice.reconcile.clone.observation import Handle, Misbound, is_foreign
from coppice.reconcile.clone.server import surround_early
from coppice.reconcile.clone.situation import Situation
from coppice.reconcile.clone.target import reset_request, undo_request
from coppice.reconcile.copies import Copy, Origin, is_bound
from coppice.reconcile.draft import Draft, Fact, holds, stalls, waits
from coppice.reconcile.observed import created_at, format_time, is_deleting, volume_snapshot_state
from coppice.reconcile.provisioning import ASKED_EVERY, PATIENCE, waits_for_volume
from coppice.reconcile.trouble import quoted


def volume_is_bound(at: Situation, draft: Draft) -> Fact:
    """Return whether the wanted copy has its volume."""
    copy, name = at.target.copy, at.copy_name(at.target.number)
    if copy is not None and is_deleting(copy.claim) and copy.pod is None:
        return waits(VOLUME, "BeingDeleted", f"claim {name} is being deleted", retry_after=2)
    if copy is not None and is_bound(copy):
        for alias in at.aliases:
            draft.discard(alias)
        return holds(VOLUME, "Bound", f"claim {name}")
    if copy is not None and at.seen.origin_gone:
        return _choose_again(at, draft, copy)
    problem = _unmarked(at, name) or _alias(at, draft)
    if problem is not None:
        return problem
    if copy is not None and _waits_for_consumer(at) and (copy.pod is None or at.seen.complaint is None):
        return holds(VOLUME, "WaitsForConsumer", "the volume is made once the server's Pod is scheduled")
    if copy is None:
        if at.seen.base_class is None:
            # Its class is the clone's.
            return waits(VOLUME, "StoreNotReady", f"{at.source_words} has no volume: see its conditions")
        draft.create.append(_new_claim(at, draft))
        fact = waits(VOLUME, "Copying", f"the volume of copy {at.target.number} is being made")
    else:
        fact = waits_for_volume(VOLUME, "Copying", copy.claim, at.seen.complaint, at.seen.now)
    # After the claim: this is done while the volume is being made.
    engine = at.source.engine if copy is None else at.engine_of(copy)
    if engine is not None:
        surround_early(at, draft, engine)
    return fact


def _unmarked(at: Situation, name: str) -> Fact | None:
    claim = _named(at.seen.unmarked_claims, name)
    if claim is None:
        return None
    if is_deleting(claim):
        return waits(VOLUME, "BeingDeleted", f"claim {name} is being deleted", retry_after=2)
    message = (
        f"claim {name} has lost the annotations that say what it holds ({labels.VERSION} and others), and is not "
        "handed out: put them back, or delete the claim to have a new copy"
    )
    return stalls(VOLUME, "MarksLost", message)


def _choose_again(at: Situation, draft: Draft, copy: Copy) -> Fact:
    draft.drop(copy.pod)
    draft.drop(copy.claim)
    _drop_aliases(at, draft)
    return waits(
        VOLUME,
        "SnapshotGone",
        f"DataSnapshot {copy.origin.snapshot} went before claim {at.copy_name(copy.number)} had its volume: "
        "another is chosen",
        retry_after=2,
    )


def _waits_for_consumer(at: Situation) -> bool:
    storage_class = at.seen.storage_class
    return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"


def _drop_aliases(at: Situation, draft: Draft) -> None:
    draft.apply.extend(stranded_aliases(at.seen.alias_contents, at.seen.alias_snapshots))
    for alias in at.aliases:
        draft.drop(alias)


def _alias(at: Situation, draft: Draft) -> Fact | None:
    """Make the prepared snapshot visible in this namespace for as long as the claim needs it."""
    if not is_foreign(at.clone):
        return None
    handle = at.seen.handle
    if isinstance(handle, Misbound):
        return _misbound(handle)
    if handle is None:
        message = "waits for the storage driver's handle of the snapshot"
        return waits(VOLUME, "SnapshotNotReady", message, retry_after=ASKED_EVERY)
    name, content = at.copy_name(at.target.number), content_name(at.clone.metadata.uid, at.target.number)
    made, bound = _named(at.seen.alias_contents, content), _named(at.seen.alias_snapshots, name)
    if made is not None and _is_outdated(made, bound, handle):
        _drop_aliases(at, draft)
        message = f"VolumeSnapshotContent {content} is of another snapshot or VolumeSnapshot and will be made anew"
        return waits(VOLUME, "BeingDeleted", message, retry_after=2)
    problem = draft.make_once(_alias_content(draft, handle, content, name), made, VOLUME) or draft.make_once(
        build_alias_snapshot(name, draft.owner, content=content, snapshot_class=handle.snapshot_class), bound, VOLUME
    )
    return problem or _unready(name, bound, at.seen.now)


def _misbound(found: Misbound) -> Fact:
    message = (
        f"VolumeSnapshot {found.snapshot} says that it is bound to {found.content}, and that VolumeSnapshotContent is "
        "not its own: somebody has written its status. Have the owners of that namespace delete the DataSnapshot of "
        "the same name; another one is made"
    )
    return stalls(VOLUME, "SnapshotMisbound", message)


def _is_outdated(content: Manifest, alias: Manifest | None, handle: Handle) -> bool:
    """Return whether a content cannot be bound to the alias that is there or is to be made: another snapshot was chosen
    meanwhile, or it was bound to an alias that is gone.
    """
    spec = content["spec"]
    fitting = {None, "", *(() if alias is None else (alias["metadata"]["uid"],))}
    return spec["source"]["snapshotHandle"] != handle.handle or spec["volumeSnapshotRef"].get("uid") not in fitting


def _unready(name: str, alias: Manifest | None, now: datetime) -> Fact | None:
    """Return that an alias cannot be restored yet: csi-provisioner backs off, for seconds, from a claim of one."""
    if alias is None:
        return waits(VOLUME, "SnapshotNotReady", f"waits for VolumeSnapshot {name}")
    state = volume_snapshot_state(alias)
    if state.ready:
        return None
    said = f" (it says: {quoted(state.error)})" if state.error else ""
    if now - created_at(alias) < PATIENCE:
        message = f"waits for VolumeSnapshot {name}{said}"
        return waits(VOLUME, "SnapshotNotReady", message, retry_after=ASKED_EVERY)
    message = (
        f"VolumeSnapshot {name} was made minutes ago and is not ready{said}. Delete it, and the claim of that name if "
        "there is one, to have both made anew; if that does not help, have the cluster's snapshot-controller seen to"
    )
    return stalls(VOLUME, "AliasNotReady", message)


def _alias_content(draft: Draft, handle: Handle, content: str, alias: str) -> Manifest:
    return build_alias_content(
        content,
        draft.owner,
        driver=handle.driver,
        handle=handle.handle,
        snapshot_class=handle.snapshot_class,
        alias=alias,
    )


def _named(manifests: tuple[Manifest, ...], name: str) -> Manifest | None:
    return next((entry for entry in manifests if entry["metadata"]["name"] == name), None)


def _new_claim(at: Situation, draft: Draft) -> Manifest:
    choice, base, number = at.seen.choice, at.seen.base_class, at.target.number
    prepared = choice.snapshot.status.prepared if isinstance(choice, Chosen) else None
    if not isinstance(choice, Chosen) or prepared is None or base is None:
        raise TypeError("the chain goes on without a snapshot")
    return build_claim(
        Claim(
            name=at.copy_name(number),
            owner=draft.owner,
            size=larger(prepared.restore_size, choice.snapshot.status.source_capacity),
            storage_class=_class_name(at) or base,
            from_snapshot=at.copy_name(number) if is_foreign(at.clone) else prepared.volume_snapshot_name,
            labels={labels.COPY: str(number)},
            annotations=_origin(at, choice).annotations(),
        )
    )


def _class_name(at: Situation) -> str | None:
    found = at.seen.storage_class
    return str(found["metadata"]["name"]) if found is not None else None


def _origin(at: Situation, choice: Chosen) -> Origin:
    status, reset, undo = choice.snapshot.status, reset_request(at.seen), undo_request(at.seen)
    return Origin(
        version=choice.version,
        engine=status.engine or "",
        engine_version=status.version or "",
        snapshot=choice.snapshot.metadata.name,
        snapshot_uid=choice.snapshot.metadata.uid,
        captured_at=format_time(status.captured_at) if status.captured_at is not None else "",
        reset=reset.token if reset is not None else "",
        undo=undo.token if undo is not None else "",
        revision=at.clone.spec.revision or "",
        masked=status.data is DataKind.MASKED,
        user_id=status.user_id,
        source_head=choice.source_head,
    )
