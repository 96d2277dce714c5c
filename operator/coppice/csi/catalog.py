"""What the driver has promised: one small JSON file per volume and snapshot, inside the pool.

Every change is on disk before the call that writes it returns. Each file also carries the state of its object, and is
written before the subvolume is made and again before it is deleted, so that after a crash between any two steps the
catalogue tells what to take back. A subvolume that the catalogue does not name is nobody's leftover: never touched.
"""

import json
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Generic, TypeVar

_SUFFIX = ".json"
_DRAFT = ".draft"


class State(StrEnum):
    """How far an object is: only READY ones exist for the outside."""

    CREATING = "creating"
    READY = "ready"
    DELETING = "deleting"


class SourceKind(StrEnum):
    """What a volume was copied from."""

    SNAPSHOT = "snapshot"
    VOLUME = "volume"


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a volume was copied from."""

    kind: SourceKind
    id: str


@dataclass(frozen=True, kw_only=True)
class VolumeRecord:
    """A volume. `capacity` is the size it was asked for; `own_bytes` (None: unbounded) what it may write by itself."""

    id: str
    name: str
    state: State
    capacity: int
    source: Source | None = None
    own_bytes: int | None = None
    own_bytes_headroom: int = 0


@dataclass(frozen=True, kw_only=True)
class SnapshotRecord:
    """A snapshot. `size` is the capacity of its source at that time, `created_at` nanoseconds since the epoch."""

    id: str
    name: str
    state: State
    source_volume_id: str
    size: int
    created_at: int


Record = TypeVar("Record", VolumeRecord, SnapshotRecord)


class CatalogError(Exception):
    """A file of the catalogue cannot be understood; the message names it."""


def encode(record: VolumeRecord | SnapshotRecord) -> str:
    """The text of a record's file."""
    return json.dumps(asdict(record), indent=1, sort_keys=True) + "\n"


def decode_volume(text: str) -> VolumeRecord:
    """Read a volume's file; raises KeyError, TypeError or ValueError if it is not one."""
    fields = _fields(text)
    source = fields.pop("source")
    return VolumeRecord(
        **{**fields, "state": State(fields["state"])},
        source=Source(kind=SourceKind(source["kind"]), id=source["id"]) if source else None,
    )


def decode_snapshot(text: str) -> SnapshotRecord:
    """Read a snapshot's file; raises KeyError, TypeError or ValueError if it is not one."""
    fields = _fields(text)
    return SnapshotRecord(**{**fields, "state": State(fields["state"])})


class Shelf(Generic[Record]):
    """The records of one kind, in `directory` and in memory; safe for use by several threads."""

    def __init__(self, directory: Path, decode: Callable[[str], Record]) -> None:
        """Read all records; raises CatalogError naming a file that is not one."""
        self._directory = directory
        self._lock = threading.Lock()
        self._records: dict[str, Record] = {}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(directory.iterdir()):
            if path.suffix == _DRAFT:
                path.unlink()
            elif path.suffix == _SUFFIX:
                self._records[path.stem] = _load(path, decode)

    def get(self, identifier: str) -> Record | None:
        """The record of this id in any state."""
        with self._lock:
            return self._records.get(identifier)

    def all(self) -> tuple[Record, ...]:
        """All records in any state, by id."""
        with self._lock:
            return tuple(self._records[key] for key in sorted(self._records))

    def ready(self, identifier: str) -> Record | None:
        """The record of this id if the object exists for the outside."""
        record = self.get(identifier)
        return record if record is not None and record.state is State.READY else None

    def put(self, record: Record) -> None:
        """Write a record to disk, then show it."""
        path = self._path(record.id)
        draft = path.with_suffix(_DRAFT)
        _write_durably(draft, encode(record))
        draft.replace(path)
        _sync_directory(self._directory)
        with self._lock:
            self._records[record.id] = record

    def set_state(self, record: Record, state: State) -> Record:
        """Write a record's next state and return the new record."""
        changed = replace(record, state=state)
        self.put(changed)
        return changed

    def remove(self, identifier: str) -> None:
        """Forget a record whose object is gone from the disk; if a power cut brings it back, recovery drops it."""
        self._path(identifier).unlink(missing_ok=True)
        with self._lock:
            self._records.pop(identifier, None)

    def _path(self, identifier: str) -> Path:
        return self._directory / f"{identifier}{_SUFFIX}"


def _fields(text: str) -> dict[str, Any]:
    fields = json.loads(text)
    if not isinstance(fields, dict):
        raise TypeError("not an object")
    return fields


def _load(path: Path, decode: Callable[[str], Record]) -> Record:
    try:
        record = decode(path.read_text(encoding="utf-8"))
    except (KeyError, TypeError, ValueError) as error:
        raise CatalogError(
            f"{path} is not a record ({error}): restore it, or move it away to give its data up"
        ) from error
    if record.id != path.stem:
        raise CatalogError(f"{path} is the record of {record.id}: rename it")
    return record


def _write_durably(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
