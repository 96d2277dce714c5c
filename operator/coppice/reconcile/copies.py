"""The copies of a clone: its claims by number, each with what it was made from written on it. Pure.

A reset or refresh makes the copy with the next number beside the one that serves; creating its claim is the
compare-and-set. Which one serves is written on the binding Secret, because that is what apps have been told. An undo
makes no copy: it writes on the claim of the one before that it is the newest again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from coppice.core import labels
from coppice.core.names import child, digest
from coppice.core.plan import Manifest
from coppice.engines.base import Version
from coppice.manifests.meta import build_annotations
from coppice.reconcile.locks import Locks, read_locks
from coppice.reconcile.migrations import Migrated, read_migrated
from coppice.reconcile.observed import annotation, claim_state, format_time, label, parse_time, read_mark

_IN_VERSION = {"database", "branch", "head", "workingRoot", "newBranch", "engineVersion"}


@dataclass(frozen=True, slots=True)
class Origin:
    """What a copy was made from and for. ``engine_version`` is the one that wrote the data.

    ``reset`` and ``undo`` are the newest requests that stood when it was made or brought back. ``masked``: whether its
    rows are; then ``source_head`` is where the branch was in the store. ``user_id`` owns the files of one that comes
    from an adopted database.
    """

    version: Version
    engine: str
    engine_version: str
    snapshot: str
    snapshot_uid: str
    captured_at: str
    reset: str
    undo: str
    revision: str
    masked: bool
    user_id: int | None = None
    source_head: str | None = None

    @property
    def followed_head(self) -> str:
        """Return what the branch's head in the store is compared with by a clone that follows it."""
        return self.version.head if self.source_head is None else self.source_head

    def annotations(self) -> dict[str, str]:
        """Return the claim's annotations."""
        return {
            labels.VERSION: json.dumps(
                {
                    "database": self.version.database,
                    "branch": self.version.branch,
                    "head": self.version.head,
                    "workingRoot": self.version.working_root,
                    "newBranch": self.version.new_branch,
                    "engineVersion": self.engine_version,
                    "masked": self.masked,
                    **({} if self.user_id is None else {"userID": self.user_id}),
                    **({} if self.source_head is None else {"sourceHead": self.source_head}),
                },
                separators=(",", ":"),
            ),
            labels.ENGINE: self.engine,
            labels.SNAPSHOT: self.snapshot,
            labels.SNAPSHOT_UID: self.snapshot_uid,
            labels.CAPTURED_AT: self.captured_at,
            labels.RESET_TOKEN: self.reset,
            labels.UNDO_TOKEN: self.undo,
            labels.REVISION_TOKEN: self.revision,
        }


def _origin(claim: Manifest) -> Origin | None:
    data = read_mark(claim, labels.VERSION)
    if not data.keys() >= _IN_VERSION:
        return None
    return Origin(
        version=Version(data["database"], data["branch"], data["head"], data["workingRoot"], data["newBranch"]),
        engine=annotation(claim, labels.ENGINE) or "",
        engine_version=data["engineVersion"],
        snapshot=annotation(claim, labels.SNAPSHOT) or "",
        snapshot_uid=annotation(claim, labels.SNAPSHOT_UID) or "",
        captured_at=annotation(claim, labels.CAPTURED_AT) or "",
        reset=annotation(claim, labels.RESET_TOKEN) or "",
        undo=annotation(claim, labels.UNDO_TOKEN) or "",
        revision=annotation(claim, labels.REVISION_TOKEN) or "",
        masked=data.get("masked") is True,
        user_id=data.get("userID"),
        source_head=data.get("sourceHead"),
    )


@dataclass(frozen=True, slots=True)
class Recall:
    """An undo that brought a copy back: when, and its place in the order of the copies since."""

    turn: int
    at: datetime

    @property
    def text(self) -> str:
        """Return the annotation's value."""
        return json.dumps({"turn": self.turn, "at": format_time(self.at)}, separators=(",", ":"))


def _recall(claim: Manifest) -> Recall | None:
    data = read_mark(claim, labels.RECALLED)
    turn, at = data.get("turn"), parse_time(str(data.get("at")))
    return Recall(turn, at) if isinstance(turn, int) and at is not None else None


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy that exists: its claim, and its Pod if there is one. The number is its name for good."""

    number: int
    claim: Manifest
    pod: Manifest | None
    origin: Origin
    recall: Recall | None = None

    @property
    def turn(self) -> int:
        """Return its place in the order of the copies: the highest one is the newest."""
        return self.number if self.recall is None else self.recall.turn

    @property
    def proven_under(self) -> str | None:
        """Return the UID of the Secret with the credentials that its server took over; None before it has proved itself
        with them.
        """
        return annotation(self.claim, labels.PROVEN)

    @property
    def serves_since(self) -> datetime | None:
        """Return when apps were first told of it; None before."""
        return parse_time(annotation(self.claim, labels.SERVES_SINCE))

    @property
    def migrated(self) -> Migrated | None:
        """Return the migrations that have run on it; None where none has."""
        return read_migrated(self.claim)

    @property
    def locks(self) -> Locks | None:
        """Return what the migration that runs on it, or ran last and failed, was seen to lock; None for nothing."""
        return read_locks(self.claim)


def copy_name(clone: str, uid: str, number: int) -> str:
    """Return the name of a copy's claim, Pod and alias snapshot.

    The clone's UID is in it: a clone that is deleted and made anew under the same name need not wait for the old
    claim to go.
    """
    return child(clone, f"{digest(uid, length=5)}-{number}")


def find_copies(claims: Sequence[Manifest], pods: Sequence[Manifest]) -> tuple[Copy, ...]:
    """Return the copies among a clone's claims, the newest last; claims without the marks of a copy are not ours to
    judge and are left out.
    """
    pod_of = {label(pod, labels.COPY): pod for pod in pods}
    copies = []
    for claim in claims:
        number, origin = label(claim, labels.COPY), _origin(claim)
        if number is not None and number.isdigit() and origin is not None:
            copies.append(Copy(int(number), claim, pod_of.get(number), origin, _recall(claim)))
    return tuple(sorted(copies, key=lambda copy: copy.turn))


def is_bound(copy: Copy) -> bool:
    """Return whether a copy has its volume."""
    return claim_state(copy.claim).bound


def is_proven(copy: Copy) -> bool:
    """Return whether a copy once held what was asked for: migrations and apps change it from then on, so it is asked
    only once.
    """
    return copy.proven_under is not None


def has_served(copy: Copy) -> bool:
    """Return whether apps have ever been told of a copy."""
    return copy.serves_since is not None


@dataclass(frozen=True, slots=True)
class Marks:
    """What may change on a copy's claim: the requests and revision in ``origin``, and what becomes true only once."""

    origin: Origin
    recall: Recall | None
    proven_under: str | None
    serves_since: datetime | None
    migrated: Migrated | None
    locks: Locks | None

    @classmethod
    def of(cls, copy: Copy) -> Marks:
        """Return a copy's marks as they are."""
        return cls(copy.origin, copy.recall, copy.proven_under, copy.serves_since, copy.migrated, copy.locks)


def build_marks(copy: Copy, marks: Marks) -> dict[str, Any]:
    """Return the apply that writes marks on a copy's claim. It claims nothing else of it.

    All of them every time: an apply takes away what it leaves out.
    """
    since, origin = marks.serves_since, marks.origin
    optional = {
        labels.PROVEN: marks.proven_under,
        labels.SERVES_SINCE: None if since is None else format_time(since),
        labels.RECALLED: None if marks.recall is None else marks.recall.text,
        labels.MIGRATED: None if marks.migrated is None else marks.migrated.text,
        labels.LOCKS: None if marks.locks is None else marks.locks.text,
    }
    written = {
        labels.RESET_TOKEN: origin.reset,
        labels.UNDO_TOKEN: origin.undo,
        labels.REVISION_TOKEN: origin.revision,
        **{key: value for key, value in optional.items() if value is not None},
    }
    return build_annotations(copy.claim, written)


def serving_copy(copies: Sequence[Copy], binding: Manifest | None) -> Copy | None:
    """Return the copy apps have been told of, if it is there.

    A number says too little: after a claim was lost, another copy may bear it, and apps have yet to be told of that.
    """
    told = annotation(binding, labels.COPY) if binding is not None else None
    return next((copy for copy in copies if str(copy.number) == told and has_served(copy)), None)
