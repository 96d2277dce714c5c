"""Migrations of a clone's copies: which one a Job runs, and which ones have run, in the words of the marks that say so.
Pure.

A migration is what the Pod template of a user's Job says. It runs once on a copy. What runs is written on the Job that
runs it, with what was there before; what has run is written on the copy's claim, from which status is rebuilt.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from coppice.core import labels
from coppice.core.names import digest
from coppice.core.plan import Manifest
from coppice.engines.base import EngineError, Ledger, TableLock
from coppice.manifests.job import copied_spec
from coppice.reconcile.ledgers import MAX_FAILED, cut
from coppice.reconcile.locks import Held, Locks, locks_of
from coppice.reconcile.observed import annotation, format_time, parse_time, read_mark

MAX_CHANGES: Final = 50
"""How many changed objects are named."""
MAX_RAN: Final = 50
"""How many migrations of a copy are known; one that is older would run again if it were asked for again."""
MAX_PACKED: Final = 128 * 1024
"""Bytes of the packed schema on a Job, whose annotations may have twice as many: for a larger one, what has changed is
not told object by object."""
_DIGITS: Final = 12


def content_of(template: Manifest) -> str:
    """Return a digest of what a user's Job runs: not how often it may fail, and nothing of which Job it is."""
    return digest(json.dumps(copied_spec(template)["template"], sort_keys=True), length=16)


@dataclass(frozen=True, slots=True)
class Schema:
    """What is defined in a database, each object by a hash, and what a migration tool has written down there."""

    objects: Mapping[str, str]
    ledger: Ledger | None = None

    @property
    def fingerprint(self) -> str:
        """Return one digest for all of it."""
        return digest(*(part for entry in sorted(self.objects.items()) for part in entry), length=16)

    @property
    def newest(self) -> str | None:
        """Return the newest version of the migration tool."""
        newest = None if self.ledger is None else self.ledger.newest
        return None if newest is None else cut(newest)

    def pack(self) -> str | None:
        """Return the objects as text, or None where that is too long."""
        short = {name: value[:_DIGITS] for name, value in sorted(self.objects.items())}
        packed = b64encode(zlib.compress(json.dumps(short, separators=(",", ":")).encode(), 9)).decode()
        return packed if len(packed) <= MAX_PACKED else None


def _unpack(packed: str | None) -> dict[str, str] | None:
    """Return packed objects; None for what is missing, or somebody else's."""
    try:
        data = json.loads(zlib.decompress(b64decode(packed or "", validate=True)))
    except (ValueError, NotBase64, zlib.error):
        return None
    return data if isinstance(data, dict) else None


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a migration's Job runs: ``content`` on the volume of the claim with this UID, for a revision of the clone.

    ``schema`` and ``version`` are the fingerprint, and the newest version in the ledger, from just before.
    """

    content: str
    claim: str
    revision: str
    schema: str
    version: str | None

    def is_written_in(self, done: Migrated | None) -> bool:
        """Return whether the marks of its copy say that it has succeeded."""
        return done is not None and self.content in done.ran and self.content != done.begun

    def annotations(self, before: Schema) -> dict[str, str]:
        """Return the Job's annotations."""
        data = {
            "content": self.content,
            "claim": self.claim,
            "revision": self.revision,
            "schema": self.schema,
            "version": self.version,
        }
        packed = before.pack()
        return {
            labels.MIGRATION: json.dumps(data, separators=(",", ":")),
            **({} if packed is None else {labels.SCHEMA: packed}),
        }


def read_attempt(job: Manifest) -> Attempt | None:
    """Return what a Job of ours runs; None where somebody has taken that off it."""
    data = read_mark(job, labels.MIGRATION)
    try:
        return Attempt(data["content"], data["claim"], data["revision"], data["schema"], data["version"])
    except KeyError:
        return None


@dataclass(frozen=True, slots=True)
class Migrated:
    """What has run on a copy: the last migration, and the contents of ``ran`` before and with it.

    ``inputs`` is the user's Job as it was, ``changes`` some of the objects that came, went or changed; None where that
    is not known. ``locks``: the tables that it was seen to lock. ``begun``: the content of one that was begun since and
    has not succeeded; nobody knows what it left.
    """

    content: str
    inputs: str
    revision: str
    job: str
    started_at: datetime
    finished_at: datetime
    schema_before: str
    schema_after: str
    changes: tuple[str, ...] | None
    change_count: int | None
    tool: str | None
    version_before: str | None
    version_after: str | None
    failed: tuple[str, ...]
    ran: tuple[str, ...]
    begun: str = ""
    locks: tuple[Held, ...] = ()

    @property
    def text(self) -> str:
        """Return the annotation's value."""
        data = {
            "content": self.content,
            "inputs": self.inputs,
            "revision": self.revision,
            "job": self.job,
            "startedAt": format_time(self.started_at),
            "finishedAt": format_time(self.finished_at),
            "schemaBefore": self.schema_before,
            "schemaAfter": self.schema_after,
            "changes": self.changes,
            "changeCount": self.change_count,
            "tool": self.tool,
            "versionBefore": self.version_before,
            "versionAfter": self.version_after,
            "failed": self.failed,
            "ran": self.ran,
            "begun": self.begun,
            "locks": [[one.table, one.held, one.waited] for one in self.locks],
        }
        return json.dumps(data, separators=(",", ":"))


def read_migrated(claim: Manifest) -> Migrated | None:
    """Return what has run on the copy of a claim; None for nothing, and for what somebody else has written there."""
    data = read_mark(claim, labels.MIGRATED)
    try:
        started, finished = parse_time(data["startedAt"]), parse_time(data["finishedAt"])
        if started is None or finished is None:
            return None
        return Migrated(
            content=data["content"],
            inputs=data["inputs"],
            revision=data["revision"],
            job=data["job"],
            started_at=started,
            finished_at=finished,
            schema_before=data["schemaBefore"],
            schema_after=data["schemaAfter"],
            changes=None if data["changes"] is None else tuple(data["changes"]),
            change_count=data["changeCount"],
            tool=data["tool"],
            version_before=data["versionBefore"],
            version_after=data["versionAfter"],
            failed=tuple(data["failed"]),
            ran=tuple(data["ran"]),
            begun=data["begun"],
            locks=tuple(Held(str(table), float(held), float(waited)) for table, held, waited in data.get("locks", ())),
        )
    except (KeyError, TypeError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Finished:
    """A Job that has succeeded: what it ran, from when to when."""

    job: Manifest
    attempt: Attempt
    started_at: datetime
    finished_at: datetime


def record(finished: Finished, after: Schema, before: Migrated | None, locks: Locks | None = None) -> Migrated:
    """Return what is to be written on the claim of a copy on which a migration has just run."""
    attempt, ledger = finished.attempt, after.ledger
    changes = _changes(_unpack(annotation(finished.job, labels.SCHEMA)), after)
    ran = [content for content in (() if before is None else before.ran) if content != attempt.content]
    return Migrated(
        content=attempt.content,
        inputs=annotation(finished.job, labels.INPUTS) or "",
        revision=attempt.revision,
        job=str(finished.job["metadata"]["name"]),
        started_at=finished.started_at,
        finished_at=finished.finished_at,
        schema_before=attempt.schema,
        schema_after=after.fingerprint,
        changes=None if changes is None else tuple(changes[:MAX_CHANGES]),
        change_count=None if changes is None else len(changes),
        tool=None if ledger is None else ledger.tool,
        version_before=attempt.version,
        version_after=after.newest,
        failed=() if ledger is None else tuple(cut(version) for version in ledger.failed[-MAX_FAILED:]),
        ran=(*ran, attempt.content)[-MAX_RAN:],
        locks=locks_of(finished.job, locks),
    )


def _changes(before: Mapping[str, Any] | None, after: Schema) -> list[str] | None:
    if before is None:
        return None
    changes = []
    for name in sorted({*before, *after.objects}):
        old, new = before.get(name), after.objects.get(name)
        if old is None:
            changes.append(cut(f"created {name}"))
        elif new is None:
            changes.append(cut(f"dropped {name}"))
        elif old != new[:_DIGITS]:
            changes.append(cut(f"altered {name}"))
    return changes


@dataclass(frozen=True, slots=True)
class Told:
    """What a copy's server has said of the ledger in it; None where there is none."""

    ledger: Ledger | None


@dataclass(frozen=True, slots=True)
class MigrationSeen:
    """A clone's migrations: the user's Job, and what was made to run them, of whichever copy.

    ``secret`` and ``service``: what has the name that is needed for the newest copy, whosever it is; read where there
    is something to run. ``schema``: what that copy's server says, before a migration is to begin and after one has
    ended; ``locks``: what is locked there while one runs; ``told``: what is written down there, where somebody has said
    what should be.
    """

    template: Manifest | None = None
    jobs: tuple[Manifest, ...] = ()
    pods: tuple[Manifest, ...] = ()
    secrets: tuple[Manifest, ...] = ()
    services: tuple[Manifest, ...] = ()
    secret: Manifest | None = None
    service: Manifest | None = None
    schema: Schema | EngineError | None = None
    locks: tuple[TableLock, ...] = ()
    told: Told | None = None
