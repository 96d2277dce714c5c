"""Volumes and snapshots: the steps that make and remove them, each of which may be the last before a crash.

Making one: the catalogue says CREATING, the subvolume is made, the catalogue says READY. Removing one: the catalogue
says DELETING, the subvolume goes, and once the file system has committed that, the record goes. Recovery takes back
whatever is CREATING or DELETING, so the callers' repetition finds a clean start.
"""

import errno
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from coppice.csi import btrfs, mounts
from coppice.csi.catalog import (
    Shelf,
    SnapshotRecord,
    Source,
    SourceKind,
    State,
    VolumeRecord,
    decode_snapshot,
    decode_volume,
)
from coppice.csi.errors import CsiError, data_loss, failed_precondition, resource_exhausted
from coppice.csi.locks import Locks
from coppice.csi.parameters import Owner
from coppice.csi.pool import Pool
from coppice.csi.quota import QuotaMode, limit_at_start

_log = logging.getLogger(__name__)


def volume_id(name: str) -> str:
    """The id of the volume of this name, so that a repeated creation finds the first one."""
    return f"vol-{_digest(name)}"


def snapshot_id(name: str) -> str:
    """The id of the snapshot of this name."""
    return f"snap-{_digest(name)}"


class Volumes:
    """All volumes and snapshots of a pool."""

    def __init__(self, pool: Pool) -> None:
        """Read the catalogue; call `recover` before anything else."""
        self.pool = pool
        self.locks = Locks()
        self._volumes_directory = pool.root / "volumes"
        self._snapshots_directory = pool.root / "snapshots"
        for directory in (self._volumes_directory, self._snapshots_directory):
            directory.mkdir(mode=0o700, exist_ok=True)
        self.volumes: Shelf[VolumeRecord] = Shelf(pool.root / "catalog" / "volumes", decode_volume)
        self.snapshots: Shelf[SnapshotRecord] = Shelf(pool.root / "catalog" / "snapshots", decode_snapshot)
        self._deleted = threading.Event()

    @classmethod
    def recovered(cls, pool: Pool) -> Self:
        """The volumes of a pool after taking back what a crash left half done."""
        volumes = cls(pool)
        volumes.recover()
        return volumes

    def path(self, record: VolumeRecord | SnapshotRecord) -> Path:
        """Where the object's subvolume is."""
        directory = self._volumes_directory if isinstance(record, VolumeRecord) else self._snapshots_directory
        return directory / record.id

    def data(self, record: VolumeRecord | SnapshotRecord) -> Path:
        """Where the object's data is; raises DATA_LOSS if the subvolume is gone, rather than give out an empty one."""
        path = self.path(record)
        if not btrfs.is_subvolume(path):
            raise data_loss(
                f"{record.id} is in the catalogue but {path} is gone: restore it from a backup, or delete {record.id}"
            )
        return path

    def recover(self) -> None:
        """Take back what is half made, finish what is half deleted, and say in the log what does not fit."""
        for record in self._all():
            if record.state is not State.READY:
                _log.info("recovering: %s was %s", record.id, record.state)
                self._discard(record)
            elif not btrfs.is_subvolume(self.path(record)):
                _log.error("%s is in the catalogue but %s is gone", record.id, self.path(record))
        for path in (*self._volumes_directory.iterdir(), *self._snapshots_directory.iterdir()):
            if self.volumes.get(path.name) is None and self.snapshots.get(path.name) is None:
                _log.warning("%s is not in the catalogue: left alone; look at it, then remove it by hand", path)

    def create_volume(self, record: VolumeRecord, owner: Owner) -> VolumeRecord:
        """Make the volume, empty with that owner, or a copy of its source; the caller holds the locks of both."""
        self._require_room(record.id)
        leftover = self.volumes.get(record.id)
        if leftover is not None:
            self._discard(leftover)
        with self._undone_on_error(record):
            self.volumes.put(record)
            path = self.path(record)
            if record.source is None:
                btrfs.create_subvolume(path)
                _set_owner(path, owner)
            else:
                _copy(self._source_path(record.source), path, read_only=False)
            return self.volumes.set_state(record, State.READY)

    def create_snapshot(self, record: SnapshotRecord, source: VolumeRecord) -> SnapshotRecord:
        """Make the snapshot; the caller holds its lock and the source's."""
        self._require_room(record.id)
        leftover = self.snapshots.get(record.id)
        if leftover is not None:
            self._discard(leftover)
        with self._undone_on_error(record):
            self.snapshots.put(record)
            _copy(self.data(source), self.path(record), read_only=True)
            return self.snapshots.set_state(record, State.READY)

    def delete(self, record: VolumeRecord | SnapshotRecord) -> None:
        """Remove the object with all that is in it; the caller holds its lock.

        Raises FAILED_PRECONDITION while it is mounted: the kernel would delete it under a running program.
        """
        path = self.path(record)
        mounted = mounts.of_directory(mounts.read(), path)
        if mounted:
            raise failed_precondition(
                f"{record.id} is mounted at {mounted[0].mount_point}: stop the Pod that uses it first"
            )
        try:
            self._set_state(record, State.DELETING)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            # Not a byte is left to note the deletion, which alone can make room: a crash right here leaves a record
            # without its subvolume, and the caller's repetition removes that.
            _log.warning("pool %s is full: deleting %s without noting it first", self.pool.root, record.id)
            self._discard(record)
            return
        if btrfs.is_subvolume(path):
            btrfs.destroy_subvolume(path)
        self._deleted.set()

    def apply_limit(self, record: VolumeRecord) -> None:
        """Set the bound of a volume that is about to be published (see `limit_at_start`)."""
        if record.own_bytes is None:
            return
        path = self.data(record)
        used = self.own_bytes(record)
        limit = limit_at_start(record.own_bytes, record.own_bytes_headroom, used)
        if limit > record.own_bytes:
            _log.warning(
                "%s wrote %d of its own %d bytes: bound raised to %d", record.id, used, record.own_bytes, limit
            )
        self.pool.quota.limit_own_bytes(path, limit)

    def own_bytes(self, record: VolumeRecord) -> int:
        """Bytes that the volume occupies by itself; 0 where quotas are off."""
        return self.pool.quota.own_bytes(self.data(record)) or 0

    @property
    def counts_bytes(self) -> bool:
        """Whether usage can be told and bounded."""
        return self.pool.quota.mode is not QuotaMode.OFF

    def forget_deleted(self, stop: threading.Event) -> None:
        """Until `stop`, drop the records of deleted objects after the file system has committed their deletion."""
        while not stop.is_set():
            self._deleted.wait()
            self._deleted.clear()
            try:
                self.drop_deleted_records()
            except OSError:
                _log.exception("records of deleted volumes stay until the next deletion or restart")

    def wake(self) -> None:
        """Let `forget_deleted` look at its `stop`."""
        self._deleted.set()

    def drop_deleted_records(self) -> None:
        """Drop the records of deleted objects, after a commit: a power cut must not bring back nameless data."""
        gone = [
            record
            for record in self._all()
            if record.state is State.DELETING and not btrfs.is_subvolume(self.path(record))
        ]
        if not gone:
            return
        btrfs.sync(self.pool.root)
        for record in gone:
            # An object of the same name may be in the making: it drops the old record itself.
            with suppress(CsiError), self.locks.exclusive(record.id):
                if self._current(record) is record:
                    self._drop(record)

    @contextmanager
    def _undone_on_error(self, record: VolumeRecord | SnapshotRecord) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._discard(record)
            raise

    def _all(self) -> tuple[VolumeRecord | SnapshotRecord, ...]:
        records: list[VolumeRecord | SnapshotRecord] = [*self.volumes.all(), *self.snapshots.all()]
        return tuple(records)

    def _current(self, record: VolumeRecord | SnapshotRecord) -> VolumeRecord | SnapshotRecord | None:
        return self.volumes.get(record.id) if isinstance(record, VolumeRecord) else self.snapshots.get(record.id)

    def _drop(self, record: VolumeRecord | SnapshotRecord) -> None:
        shelf = self.volumes if isinstance(record, VolumeRecord) else self.snapshots
        shelf.remove(record.id)

    def _discard(self, record: VolumeRecord | SnapshotRecord) -> None:
        """Remove what is left of an object that is half made or half deleted."""
        path = self.path(record)
        if btrfs.is_subvolume(path):
            btrfs.destroy_subvolume(path)
            btrfs.sync(self.pool.root)
        self._drop(record)

    def _set_state(self, record: VolumeRecord | SnapshotRecord, state: State) -> None:
        if isinstance(record, VolumeRecord):
            self.volumes.set_state(record, state)
        else:
            self.snapshots.set_state(record, state)

    def _source_path(self, source: Source) -> Path:
        found: VolumeRecord | SnapshotRecord | None
        found = self.snapshots.ready(source.id) if source.kind is SourceKind.SNAPSHOT else self.volumes.ready(source.id)
        if found is None:
            raise data_loss(f"source {source.id} is not in the catalogue any more")
        return self.data(found)

    def _require_room(self, wanted: str) -> None:
        free = self.pool.free_bytes()
        if free < self.pool.reserve:
            raise resource_exhausted(
                f"no room for {wanted}: pool {self.pool.root} has {free} bytes free and keeps {self.pool.reserve} in "
                "reserve; delete clones or snapshots (space returns within a minute), or enlarge the pool"
            )


def _copy(source: Path, target: Path, *, read_only: bool) -> None:
    """Copy a subvolume, unless others are nested in it: their data would silently be missing from the copy."""
    _refuse_nested(source)
    btrfs.create_snapshot(source, target, read_only=read_only)
    # Looked at again, because a program may have nested one meanwhile.
    _refuse_nested(source)


def _refuse_nested(source: Path) -> None:
    nested = btrfs.nested_subvolumes(source)
    if nested:
        raise failed_precondition(
            f"{source.name} has a btrfs subvolume inside, {nested[0].relative_to(source)}, which a copy would lack: "
            "turn it into a plain directory, or delete it"
        )


def _set_owner(path: Path, owner: Owner) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, owner.uid, owner.gid)
        os.fchmod(descriptor, owner.mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:32]
