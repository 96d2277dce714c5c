"""One-off requests by annotation: ``coppice.dev/<verb>-requested-at``, with the time of asking as the value. Pure.

The value is the request's identity as well: the same one is acted upon once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from coppice.core.plan import Manifest
from coppice.reconcile.draft import Fact, stalls
from coppice.reconcile.observed import annotation, parse_time

ACCEPTED: Final = "RequestAccepted"
"""The condition: beside the chain, there only while there is something to say of a request that stands."""


@dataclass(frozen=True, slots=True)
class Request:
    """Something that was asked for: ``token`` is the annotation as it was written, ``at`` the time in it."""

    token: str
    at: datetime


def read_request(manifest: Manifest, key: str) -> Request | None:
    """Return the request that stands in an annotation; None for none, and for one that is not a time."""
    token = annotation(manifest, key)
    at = parse_time(token)
    return Request(token, at) if token is not None and at is not None else None


def unreadable(manifest: Manifest, keys: Sequence[str]) -> list[str]:
    """Return which of these annotations are there and hold no time."""
    return [key for key in keys if annotation(manifest, key) and read_request(manifest, key) is None]


def not_a_time(key: str) -> Fact:
    """Return that an annotation asks for nothing."""
    return stalls(ACCEPTED, "NotATime", f"annotation {key} is not a time in RFC 3339 and is not acted upon")


def together(problems: Sequence[Fact]) -> Fact | None:
    """Return the first of what is to be said of the requests that stand, with the words of all of it."""
    if not problems:
        return None
    return replace(problems[0], message="; ".join(problem.message for problem in problems))
