"""Copies that were taken in the middle of a write and so do not open (``coppice.engines.base.TORN_COPY``). Pure.

What was captured then is written down in the status before it is deleted, by its UID, so that whoever goes on after a
crash neither uses it nor takes more copies than MOST_TORN.
"""

from __future__ import annotations

from typing import Final

from coppice.core import labels
from coppice.core.plan import Manifest
from coppice.reconcile.observed import annotation, pod_state
from coppice.reconcile.trouble import reason_of_failure

MOST_TORN: Final = 4
"""How many copies may be torn one after another before somebody is to look: one in some hundreds is, under load."""


def known_torn(snapshot: Manifest) -> tuple[str, ...]:
    """Return the UIDs of a DataSnapshot's raw VolumeSnapshots that are known to be torn."""
    return tuple((snapshot.get("status") or {}).get("tornCopies") or ())


def found_torn(
    snapshot: Manifest, raw: Manifest | None, scratch: Manifest | None, pod: Manifest | None
) -> tuple[str, ...]:
    """Return them with the one that the preparation of its scratch copy has found to be so by now."""
    known = known_torn(snapshot)
    if raw is None or scratch is None or pod is None or raw["metadata"]["uid"] in known or is_of_another(scratch, raw):
        return known
    is_of_copy = annotation(pod, labels.INPUTS) == scratch["metadata"]["uid"]
    return (*known, str(raw["metadata"]["uid"])) if is_of_copy and pod_state(pod).torn else known


def is_of_another(scratch: Manifest | None, raw: Manifest | None) -> bool:
    """Return whether a scratch copy was made from an earlier raw VolumeSnapshot of the same name: it may be gone, and
    nobody has told yet. One that an older operator has made does not say from which.
    """
    if scratch is None or raw is None:
        return False
    return annotation(scratch, labels.RAW) not in {None, raw["metadata"]["uid"]}


def torn_words(pod: Manifest | None) -> str:
    """Return what a condition says of a torn copy, with the preparation's own words."""
    why = "" if pod is None else reason_of_failure(pod)
    return f"the volume was captured in the middle of a write{f' ({why})' if why else ''}"
