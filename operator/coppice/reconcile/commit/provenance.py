"""What is known of a commit: which copy of which clone it is, and what that was made from. Pure.

It is worked out from the store's namespace, and written there: on the raw VolumeSnapshot, then on the prepared one.
What stands on objects of the clone's namespace is only believed of that namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from coppice.api.v1alpha1 import DataSnapshot
from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.reconcile.mask.mark import MaskRecord
from coppice.reconcile.observed import read_mark


@dataclass(frozen=True, slots=True)
class Pin:
    """Exactly what is captured. ``generation`` is that of a clone that was off: while it stays, no server was started;
    None for one that is Durable, whose server may run.
    """

    clone_uid: str
    claim: str
    claim_uid: str
    generation: int | None

    def dump(self) -> dict[str, Any]:
        """Return it as JSON."""
        return asdict(self)

    @classmethod
    def of(cls, capture: Manifest) -> Pin | None:
        """Return what stands on a capture; None for what somebody has changed."""
        try:
            return cls(**read_mark(capture, labels.SOURCE))
        except TypeError:
            return None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a commit comes from. ``mask`` is what its rows were masked with before they ever came into a clone."""

    clone: str
    clone_uid: str
    parent_uid: str
    captured_at: str
    mask: MaskRecord | None

    def dump(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "clone": self.clone,
            "cloneUID": self.clone_uid,
            "parentUID": self.parent_uid,
            "capturedAt": self.captured_at,
            **({} if self.mask is None else {"mask": self.mask.dump()}),
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Provenance:
        """Parse what ``dump`` returned; raises KeyError or TypeError for anything else."""
        return cls(
            clone=data["clone"],
            clone_uid=data["cloneUID"],
            parent_uid=data["parentUID"],
            captured_at=data["capturedAt"],
            mask=MaskRecord.load(data["mask"]) if "mask" in data else None,
        )

    @classmethod
    def of(cls, raw: Manifest) -> Provenance | None:
        """Return what stands on the raw VolumeSnapshot of a commit; None for what somebody has changed."""
        try:
            return cls.load(read_mark(raw, labels.SOURCE))
        except (KeyError, TypeError):
            return None


def inherited_mask(parent: DataSnapshot) -> MaskRecord | None:
    """Return the mask of what is made of a snapshot: its own. Where its branches were in the store says nothing of what
    has been made of it since.
    """
    mask = parent.status.mask
    return None if mask is None else MaskRecord(mask.job_template, mask.digest, mask.tables, mask.table_count, ())
