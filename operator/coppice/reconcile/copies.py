"""The copies of a clone: its claims by number, each with what it was made from written on it. Pure.

A reset or refresh makes the copy with the next number beside the one that serves; creating its claim is the
compare-and-set. Which one serves is written on the binding Secret, because that is what apps have been told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from coppice.core import labels
from coppice.core.names import child, digest
from coppice.core.plan import Manifest
from coppice.engines.base import Version
from coppice.reconcile.observed import annotation, claim_state, label


@dataclass(frozen=True, slots=True)
class Origin:
    """What a copy was made from and for. ``engine_version`` is the one that wrote the data.

    ``masked``: whether its rows are.
    """

    version: Version
    engine: str
    engine_version: str
    snapshot: str
    snapshot_uid: str
    captured_at: str
    reset: str
    revision: str
    masked: bool

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
                },
                separators=(",", ":"),
            ),
            labels.ENGINE: self.engine,
            labels.SNAPSHOT: self.snapshot,
            labels.SNAPSHOT_UID: self.snapshot_uid,
            labels.CAPTURED_AT: self.captured_at,
            labels.RESET_TOKEN: self.reset,
            labels.REVISION_TOKEN: self.revision,
        }


def _origin(claim: Manifest) -> Origin | None:
    text = annotation(claim, labels.VERSION)
    if text is None:
        return None
    data = json.loads(text)
    return Origin(
        version=Version(data["database"], data["branch"], data["head"], data["workingRoot"], data["newBranch"]),
        engine=annotation(claim, labels.ENGINE) or "",
        engine_version=data["engineVersion"],
        snapshot=annotation(claim, labels.SNAPSHOT) or "",
        snapshot_uid=annotation(claim, labels.SNAPSHOT_UID) or "",
        captured_at=annotation(claim, labels.CAPTURED_AT) or "",
        reset=annotation(claim, labels.RESET_TOKEN) or "",
        revision=annotation(claim, labels.REVISION_TOKEN) or "",
        masked=data.get("masked") is True,
    )


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy that exists: its claim, and its Pod if there is one."""

    number: int
    claim: Manifest
    pod: Manifest | None
    origin: Origin


def copy_name(clone: str, uid: str, number: int) -> str:
    """Return the name of a copy's claim, Pod and alias snapshot.

    The clone's UID is in it: a clone that is deleted and made anew under the same name need not wait for the old
    claim to go.
    """
    return child(clone, f"{digest(uid, length=5)}-{number}")


def find_copies(claims: Sequence[Manifest], pods: Sequence[Manifest]) -> tuple[Copy, ...]:
    """Return the copies among a clone's claims, oldest first; claims without the marks of a copy are not ours to
    judge and are left out.
    """
    pod_of = {label(pod, labels.COPY): pod for pod in pods}
    copies = []
    for claim in claims:
        number, origin = label(claim, labels.COPY), _origin(claim)
        if number is not None and number.isdigit() and origin is not None:
            copies.append(Copy(int(number), claim, pod_of.get(number), origin))
    return tuple(sorted(copies, key=lambda copy: copy.number))


def is_bound(copy: Copy) -> bool:
    """Return whether a copy has its volume."""
    return claim_state(copy.claim).bound


def is_proven(copy: Copy) -> bool:
    """Return whether a copy once held what was asked for: apps change it from then on, so it is asked only once."""
    return annotation(copy.claim, labels.PROVEN) is not None


def serving_copy(copies: Sequence[Copy], binding: Manifest | None) -> Copy | None:
    """Return the copy apps have been told of, if it is there.

    A number says too little: after a claim was lost, another copy may bear it, and has yet to be proven.
    """
    told = annotation(binding, labels.COPY) if binding is not None else None
    return next((copy for copy in copies if str(copy.number) == told and is_proven(copy)), None)
