"""Which snapshot a clone is made from. Pure.

The promise: a clone of a branch holds everything that was acknowledged before the clone was asked for, or, with
``maxAge``, before that long ago. A snapshot keeps it if it was captured late enough, or if the branch has not moved
since. If there is none, the next one of the store's line is made, and everybody who asked before it is captured
shares it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from coppice.api.v1alpha1 import LIVE_BRANCH, CloneFrom, DataSnapshot, SnapshotBranch
from coppice.core.durations import parse_duration
from coppice.core.plan import Manifest
from coppice.engines.base import EngineError, Ledger, UnknownVersionError, UnreachableError, Version
from coppice.engines.ledgers import is_within
from coppice.reconcile.commit.line import branches_of, commits_on, is_commit
from coppice.reconcile.datasnapshot import MAX_LISTED
from coppice.reconcile.ledgers import describe, find_within, known_ledgers, place
from coppice.reconcile.observed import condition, created_at, format_time, is_deleting, is_true
from coppice.reconcile.setbacks import may_yet_come

CLOCK_STEP = timedelta(seconds=1)
"""The API server's times have whole seconds, rounded down: only a capture in a later second is surely later."""
SNAPSHOT_LOST = "SnapshotLost"
"""What a DataSnapshot says whose prepared VolumeSnapshot was deleted by hand."""
_NEVER = datetime.max.replace(tzinfo=UTC)
FAILURE_PAUSE = timedelta(seconds=60)
"""How long a failed snapshot keeps the next one from being tried."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a clone asks for. ``live`` is what the store's server says the reference names now, if it was asked.

    ``holding`` are the names of the snapshots from which the live version's commit can be reached; ``known_since`` is
    since when the reference has been seen to name it, for a tag may move. ``raw``: unmasked data are allowed.
    ``by_grant``: the clone is not in the store's namespace, whose owners may have everything there.
    ``mask`` is the digest of what the store's next snapshot will be masked with: empty while that Job is not there,
    None for nothing.
    ``versioned``: the engine keeps commits; where it does not, the snapshots are all there is to choose from.
    ``ledger``: for a migration, what is written down in the database now; None for nothing, and where it is not asked.
    ``known_head``: for a clone that follows its branch, where its copy is; only what is newer and at
    another head is news.
    """

    source: CloneFrom
    asked_at: datetime
    now: datetime
    store_uid: str
    raw: bool
    by_grant: bool
    live: Version | EngineError | None
    holding: frozenset[str]
    known_since: datetime
    known_head: str | None = None
    versioned: bool = True
    mask: str | None = None
    ledger: Ledger | EngineError | None = None

    @property
    def line(self) -> str | None:
        """Return the branch that is a line of DataSnapshots, if one is asked for."""
        return line_of(self.source, versioned=self.versioned)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The snapshot to clone, and the version the clone must come up with."""

    snapshot: DataSnapshot
    version: Version

    @property
    def source_head(self) -> str | None:
        """Return where the branch was in the store, where the rows of the snapshot are masked."""
        source = _source(self.snapshot, self.version.branch)
        return None if source is None else source.head


@dataclass(frozen=True, slots=True)
class MakeSnapshot:
    """No snapshot fits: make the store's next one."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do yet; ``reason`` and ``message`` say why. ``stalled``: somebody must act."""

    reason: str
    message: str
    stalled: bool = False


Choice = Chosen | MakeSnapshot | Wait


def line_of(source: CloneFrom, *, versioned: bool) -> str | None:
    """Return the branch that is asked for where that is a line of DataSnapshots, and not the store's own."""
    return None if versioned or source.branch == LIVE_BRANCH else source.branch


def newest_commit(snapshots: Sequence[Manifest], branch: str, store_uid: str, *, raw: bool) -> Chosen | None:
    """Return the newest commit on a branch that may be had and can be cloned, or None."""
    for entry in commits_on(snapshots, branch):
        snapshot = _parse_ready(entry)
        if snapshot is None or not _may_be_had(snapshot, store_uid, raw=raw):
            continue
        version = _recorded(snapshot, snapshot.status.default_branch or "")
        if version is not None:
            return Chosen(snapshot, version)
    return None


def _may_be_had(snapshot: DataSnapshot, store_uid: str, *, raw: bool) -> bool:
    return snapshot.status.store_uid == store_uid and (raw or snapshot.status.data == "Masked")


def choose(wanted: Wanted, snapshots: Sequence[Manifest]) -> Choice:
    """Return what to do about a snapshot for a clone."""
    if wanted.source.snapshot is not None:
        return _named(wanted, snapshots, wanted.source.snapshot)
    known = [entry for entry in snapshots if not is_deleting(entry)]
    line = wanted.line
    if line is not None:
        return _on_line(wanted, known, line)
    if wanted.source.commit is None:
        # What was made of a clone says nothing of the store.
        known = [entry for entry in known if not is_commit(entry)]
    usable = ready_snapshots(known, wanted.store_uid)
    if not wanted.raw:
        usable = [entry for entry in usable if entry.status.data == "Masked"]
    if wanted.source.migration is not None:
        return _at_migration(wanted, wanted.source.migration, usable, known)
    for snapshot in usable:
        version = _version_in(wanted, snapshot)
        if version is not None:
            return Chosen(snapshot, version)
    return _unlisted(wanted, usable) or _without_history(wanted, usable) or _none_fits(wanted, known)


def ready_snapshots(manifests: Sequence[Manifest], store_uid: str) -> list[DataSnapshot]:
    """Return the snapshots of a store that can be cloned, the newest first; what was asked to go is not among them."""
    ready = (_parse_ready(entry) for entry in manifests if not is_deleting(entry))
    own = [entry for entry in ready if entry is not None and entry.status.store_uid == store_uid]
    return sorted(own, key=lambda entry: entry.status.captured_at or _NEVER, reverse=True)


def _on_line(wanted: Wanted, known: Sequence[Manifest], branch: str) -> Choice:
    """A branch of an engine that keeps none: the newest commit on it, as it is now."""
    found = newest_commit(known, branch, wanted.store_uid, raw=wanted.raw)
    if found is not None:
        return found
    if newest_commit(known, branch, wanted.store_uid, raw=True) is not None:
        return _masked_only()
    pending = next((entry for entry in commits_on(known, branch) if not is_true(entry, "Ready")), None)
    if pending is not None:
        return Wait("SnapshotPending", f"waits for DataSnapshot {pending['metadata']['name']}; see its conditions")
    there = ", ".join([LIVE_BRANCH, *branches_of(entry for entry in known if _is_told(wanted, entry))])
    return Wait(
        "UnknownVersion",
        f"there is no branch {branch}; there are: {there}. Commit a clone to it (see `kubectl explain "
        "datasnapshot.spec.commit`), or make this DataClone anew with the right name",
        stalled=True,
    )


def _is_told(wanted: Wanted, manifest: Manifest) -> bool:
    """Return whether a commit is there for whoever asks; of one that is still to be made nobody knows what it holds."""
    snapshot = _parse_ready(manifest)
    if snapshot is None:
        return wanted.raw and not is_true(manifest, "Ready")
    return _may_be_had(snapshot, wanted.store_uid, raw=wanted.raw)


def _parse_ready(manifest: Manifest) -> DataSnapshot | None:
    snapshot = DataSnapshot.parse(manifest) if is_true(manifest, "Ready") else None
    return snapshot if isinstance(snapshot, DataSnapshot) and snapshot.status.prepared is not None else None


def _named(wanted: Wanted, snapshots: Sequence[Manifest], name: str) -> Choice:
    found = next((entry for entry in snapshots if entry["metadata"]["name"] == name), None)
    if found is None or is_deleting(found):
        return Wait(
            "SnapshotNotFound",
            f"there is no DataSnapshot {name} of this store: make this DataClone anew with the right name",
            stalled=True,
        )
    snapshot = _parse_ready(found)
    if snapshot is None:
        return Wait("SnapshotNotReady", f"waits for DataSnapshot {name}; see its conditions")
    if wanted.by_grant and snapshot.status.store_uid != wanted.store_uid:
        return _of_another_store(name)
    if not wanted.raw and snapshot.status.data != "Masked":
        return _masked_only()
    status = snapshot.status
    version = _recorded(snapshot, status.default_branch or "")
    if version is None:
        return Wait(
            "SnapshotUnusable",
            f"DataSnapshot {name} does not say what its default branch holds: make another",
            stalled=True,
        )
    return Chosen(snapshot, version)


def _of_another_store(name: str) -> Wait:
    """Return that a grant gives the store there is, and not what one of the same name held before it."""
    return Wait(
        "StoreReplaced",
        f"DataSnapshot {name} is of an earlier DataStore of this name, and the grant gives the one there is now: make "
        "this DataClone anew with a snapshot of it; in the store's own namespace its owners can clone the old one",
        stalled=True,
    )


def _masked_only() -> Wait:
    return Wait(
        "MaskedOnly",
        "the grant gives masked data only and there is no masked snapshot: ask the store's owners for a mask "
        "(spec.mask of the DataStore) and a snapshot made since, or for a grant with data: Raw",
        stalled=True,
    )


def _recorded(snapshot: DataSnapshot, branch: str) -> Version | None:
    """Return the state of a branch as preparation found it in the snapshot."""
    entry = _entry(snapshot, branch)
    return None if entry is None else Version(entry.database, branch, entry.head, entry.working_root or "")


def _source(snapshot: DataSnapshot, branch: str) -> Version | None:
    """Return the state of a branch in the store when the snapshot was captured, where its mask has changed it since."""
    entry = _entry(snapshot, branch)
    if entry is None or entry.source_head is None:
        return None
    return Version(entry.database, branch, entry.source_head, entry.source_working_root or "")


def _entry(snapshot: DataSnapshot, branch: str) -> SnapshotBranch | None:
    status = snapshot.status
    return next((e for e in status.branches if (e.database, e.branch) == (status.database, branch)), None)


def _version_in(wanted: Wanted, snapshot: DataSnapshot) -> Version | None:
    """Return the version a clone of this snapshot would have, or None if the snapshot does not keep the promise."""
    branch = wanted.source.branch
    if branch is None and not wanted.versioned:
        return _kept_in(wanted, snapshot)
    if branch is None:
        return _commit_in(wanted, snapshot)
    recorded = _recorded(snapshot, branch)
    captured = snapshot.status.captured_at
    source = _source(snapshot, branch) or recorded
    if recorded is None or source is None or captured is None or source.head == wanted.known_head:
        return None
    unmoved = isinstance(wanted.live, Version) and _same_data(wanted.live, source) and _same_mask(wanted, snapshot)
    return recorded if unmoved or captured >= _oldest_allowed(wanted) else None


def _same_mask(wanted: Wanted, snapshot: DataSnapshot) -> bool:
    """Return whether the next snapshot would be masked with the same: whoever adds or corrects a mask means it for what
    is asked for from then on.
    """
    mask = snapshot.status.mask
    return wanted.mask == (None if mask is None else mask.digest)


def _same_data(one: Version, other: Version) -> bool:
    return (one.database, one.head, one.working_root) == (other.database, other.head, other.working_root)


def _oldest_allowed(wanted: Wanted) -> datetime:
    if wanted.source.max_age is not None and wanted.known_head is None:
        return wanted.now - parse_duration(wanted.source.max_age)
    return wanted.asked_at + CLOCK_STEP


def _commit_in(wanted: Wanted, snapshot: DataSnapshot) -> Version | None:
    """A tag, commit or time: any snapshot with the commit in the history of a branch, or one captured after we knew of
    it, for a tag may keep what is on no branch. A masked one has no history.
    """
    if not isinstance(wanted.live, Version) or snapshot.status.data == "Masked":
        return None
    captured = snapshot.status.captured_at
    later = captured is not None and captured >= wanted.known_since + CLOCK_STEP
    return wanted.live if later or snapshot.metadata.name in wanted.holding else None


def _kept_in(wanted: Wanted, snapshot: DataSnapshot) -> Version | None:
    """A commit or time of an engine without history: the snapshot itself is that commit, or not younger than that."""
    recorded, captured = _recorded(snapshot, snapshot.status.default_branch or ""), snapshot.status.captured_at
    commit, time = wanted.source.commit, wanted.source.time
    if recorded is None or captured is None:
        return None
    if commit is not None:
        source = _source(snapshot, recorded.branch) or recorded
        return recorded if commit in {recorded.head, source.head} else None
    return recorded if time is not None and captured <= time else None


def _nothing_kept(wanted: Wanted) -> Wait:
    """Return that what was asked for is in no snapshot, where no new one could hold it either."""
    source = wanted.source
    what = f"tag {source.tag}" if source.tag is not None else f"commit {source.commit}"
    if source.time is not None:
        what = f"DataSnapshot as old as {format_time(source.time)}"
    return Wait(
        "UnknownVersion",
        f"the engine of this store keeps no history of its own, and its snapshots have no {what}: see `kubectl get "
        "datasnapshots`, and correct spec.from by making this DataClone anew",
        stalled=True,
    )


def _at_migration(wanted: Wanted, migration: str, usable: Sequence[DataSnapshot], known: Sequence[Manifest]) -> Choice:
    """Return the newest snapshot that has nothing beyond a version of the migration tool."""
    live = wanted.ledger if isinstance(wanted.ledger, Ledger) else None
    told = [snapshot for snapshot in usable if _recorded(snapshot, snapshot.status.default_branch or "") is not None]
    found = find_within(told, migration, live)
    version = None if found is None else _recorded(found, found.status.default_branch or "")
    if found is not None and version is not None:
        return Chosen(found, version)
    return _none_at_migration(wanted, migration, usable, known)


def _none_at_migration(
    wanted: Wanted, migration: str, usable: Sequence[DataSnapshot], known: Sequence[Manifest]
) -> Choice:
    """Have one made only where that will be within the version, by what the database says now.

    One that was made since and is not, whatever the database said before, is not followed by another without end.
    """
    live = wanted.ledger
    fits = isinstance(live, Ledger) and is_within(live, migration, known_ledgers(usable, None)) is True
    made = any((entry.status.captured_at or wanted.now) >= wanted.asked_at for entry in usable)
    if (fits and not made) or any(may_yet_come(entry) for entry in known if not is_true(entry, "Ready")):
        return _next_snapshot(wanted, known)
    if not usable and not wanted.raw and wanted.mask is None:
        return _masked_only()
    if isinstance(live, EngineError):
        return _no_answer(live)
    order = " Alembic writes down no order: ask for the version that a snapshot is at." if _is_alembic(usable) else ""
    # What the database says of itself is no masked data.
    now = "" if live is None or not wanted.raw else f"; the database is at {place(live)} now"
    message = (
        f"no DataSnapshot of this store is known to be at or before migration {migration}: {describe(usable)}{now}."
        f"{order} Make this DataClone anew with a version that one is at, or with from.snapshot"
    )
    return Wait("NoSnapshotFits", message, stalled=True)


def _is_alembic(usable: Sequence[DataSnapshot]) -> bool:
    return any(ledger.tool == "alembic" for ledger in known_ledgers(usable, None))


def _unlisted(wanted: Wanted, snapshots: Sequence[DataSnapshot]) -> Wait | None:
    """Return that the branch is one of more than a snapshot lists, if so: the next one would not list it either, and
    would be followed by another without end.
    """
    branch, oldest = wanted.source.branch, _oldest_allowed(wanted)
    if branch is None or not isinstance(wanted.live, Version):
        return None
    for snapshot in snapshots:
        captured, listed = snapshot.status.captured_at, len(snapshot.status.branches)
        if captured is not None and captured >= oldest and listed >= MAX_LISTED and _recorded(snapshot, branch) is None:
            message = (
                f"DataSnapshot {snapshot.metadata.name} lists {listed} branches, and {branch} is not one of them: "
                f"delete branches that are not needed, or make this DataClone anew with from.commit {wanted.live.head}"
            )
            return Wait("BranchNotListed", message, stalled=True)
    return None


def _without_history(wanted: Wanted, usable: Sequence[DataSnapshot]) -> Wait | None:
    """Return that what was asked for is in no masked copy of an engine that keeps history, if so: masked data are a new
    root, with what the default branch held alone, and the next snapshot is masked, too.
    """
    branch = wanted.source.branch
    if not wanted.versioned or wanted.mask is None or not isinstance(wanted.live, Version):
        return None
    only = next((entry.status.default_branch for entry in usable if entry.status.data == "Masked"), None)
    if branch is not None and only in {None, branch}:
        return None
    what = f"branch {branch}" if branch is not None else "history"
    message = (
        f"the store masks its copies, and masked data have no {what}: make this DataClone anew with "
        f"{'the default branch' if only is None else f'from.branch {only}'} or from.snapshot"
    )
    return Wait("MaskedHistory", message, stalled=True)


def _none_fits(wanted: Wanted, snapshots: Sequence[Manifest]) -> Choice:
    if wanted.source.branch is None and not wanted.versioned:
        return _nothing_kept(wanted)
    if isinstance(wanted.live, UnknownVersionError):
        return Wait("UnknownVersion", f"{wanted.live}: correct spec.from by making this DataClone anew", stalled=True)
    if not isinstance(wanted.live, Version):
        return _no_answer(wanted.live)
    return _next_snapshot(wanted, snapshots)


def _no_answer(error: EngineError | None) -> Wait:
    detail = "" if error is None or isinstance(error, UnreachableError) else f": {error}"
    return Wait("StoreNotReady", f"no snapshot fits and its server does not answer yet{detail}")


def _next_snapshot(wanted: Wanted, snapshots: Sequence[Manifest]) -> Choice:
    """Return that the next snapshot is waited for, or to be made."""
    if not wanted.raw and wanted.mask is None:
        return _masked_only()
    on_the_way = [entry for entry in snapshots if not is_true(entry, "Ready") and not _is_lost(entry)]
    failed = [entry for entry in on_the_way if not may_yet_come(entry)]
    pending = [entry for entry in on_the_way if may_yet_come(entry)]
    if pending:
        newest = max(pending, key=created_at)
        name, stalled = newest["metadata"]["name"], condition(newest, "Stalled")
        held_up = f", which is held up ({stalled['reason']})" if stalled and stalled["status"] == "True" else ""
        return Wait("SnapshotPending", f"waits for DataSnapshot {name}{held_up}; see its conditions")
    if failed and wanted.now - max(created_at(entry) for entry in failed) < FAILURE_PAUSE:
        newest = max(failed, key=created_at)
        return Wait(
            "SnapshotFailed",
            f"DataSnapshot {newest['metadata']['name']} failed: see its conditions; another is tried in a minute",
        )
    return MakeSnapshot()


def _is_lost(manifest: Manifest) -> bool:
    """Return whether a snapshot was there once: that it is not any more is no failure to make one."""
    stalled = condition(manifest, "Stalled")
    return stalled is not None and stalled["reason"] == SNAPSHOT_LOST
