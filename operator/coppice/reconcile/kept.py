"""What deleted branches held is kept for a while, under a tag at the newest commit of each. Pure.

The tag's name says which branch it was, and the server when the tag was made: nothing else has to remember, and a
deletion that is repeated after a crash keeps the same thing under the same name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from coppice.api.v1alpha1.common import NEW_BRANCH_PATTERN
from coppice.engines.base import Tag
from coppice.reconcile.observed import format_time

PREFIX: Final = "coppice/deleted/"
KEPT_FOR: Final = timedelta(days=7)
MAX_TOLD: Final = 50
_FORM: Final = re.compile(re.escape(PREFIX) + r"(?P<branch>.+)/[0-9]{8}T[0-9]{6}Z")
_BRANCH: Final = re.compile(NEW_BRANCH_PATTERN)
_MAX_BRANCH: Final = 200
"""What a DataBranch may be called, by its CRD: what somebody else has put there is nothing that could be restored."""


@dataclass(frozen=True, slots=True)
class KeptBranch:
    """A branch that was deleted, as it was then."""

    branch: str
    tag: str
    head: str
    deleted: datetime

    @property
    def until(self) -> datetime:
        """Return when it goes for good."""
        return self.deleted + KEPT_FOR


def tag_of_deleted(branch: str, asked: datetime) -> str:
    """Return the tag under which a branch is kept whose deletion was asked for at this moment."""
    return f"{PREFIX}{branch}/{asked.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def kept_branches(tags: Iterable[Tag]) -> list[KeptBranch]:
    """Return the branches that these tags keep, the ones deleted last first; tags of another form keep none."""
    matches = ((tag, _FORM.fullmatch(tag.name)) for tag in tags)
    found = [KeptBranch(match["branch"], tag.name, tag.commit, tag.at) for tag, match in matches if match is not None]
    found = [kept for kept in found if len(kept.branch) <= _MAX_BRANCH and _BRANCH.fullmatch(kept.branch)]
    return sorted(found, key=lambda kept: (kept.deleted, kept.tag), reverse=True)


def overdue(kept: Iterable[KeptBranch], now: datetime) -> list[KeptBranch]:
    """Return those that have been kept for long enough."""
    return [entry for entry in kept if entry.until <= now]


def kept_status(kept: Iterable[KeptBranch], now: datetime) -> list[dict[str, Any]]:
    """Return what can be restored, for a status."""
    told = [entry for entry in kept if entry.until > now][:MAX_TOLD]
    return [
        {
            "branch": entry.branch,
            "head": entry.head,
            "tag": entry.tag,
            "deletedAt": format_time(entry.deleted),
            "keptUntil": format_time(entry.until),
        }
        for entry in told
    ]
