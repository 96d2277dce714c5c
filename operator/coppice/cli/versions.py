"""Which data a person's words mean: ``data/shop:main..feature/autumn``, ``db``, ``request/autumn-prices``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from coppice.cli.wishes import Place, WrongWordsError, read_place

KINDS: Final[Mapping[str, str]] = {"store": "DataStore", "clone": "DataClone", "request": "DataChangeRequest"}
"""By the word that may stand before a name."""


@dataclass(frozen=True, slots=True)
class Subject:
    """An object by name, of a kind that may be left out, and what is meant of its data."""

    place: Place
    kind: str | None = None
    point: str = ""
    """What stands behind the colon: a branch, tag or commit, or two of them."""


@dataclass(frozen=True, slots=True)
class Span:
    """Two versions; ``since_base``: not the first one counts, but what both have in common."""

    before: str
    after: str
    since_base: bool = False


def read_subject(text: str) -> Subject:
    """Return what ``[KIND/][NAMESPACE/]NAME[:POINT]`` means."""
    named, colon, point = text.partition(":")
    if colon and not point:
        raise WrongWordsError(f"{text!r} names no branch: leave out the colon, or write shop:main")
    if ".." in named:
        raise WrongWordsError(f"{text!r} names no store or clone: write it before, shop:{named}")
    word, slash, rest = named.partition("/")
    kind = KINDS.get(word) if slash else None
    return Subject(read_place(rest if kind else named), kind, point)


def read_branch(text: str, example: str) -> tuple[Place, str]:
    """Return what ``[NAMESPACE/]STORE:BRANCH`` means."""
    named, _, branch = text.partition(":")
    if not named or not branch:
        raise WrongWordsError(f"{text!r} is not [NAMESPACE/]STORE:BRANCH, for example {example}")
    return read_place(named), branch


def read_span(text: str) -> Span | None:
    """Return what ``A..B`` (from A to B) or ``A...B`` (what B has since it left A) means; None for a single version."""
    for dots in ("...", ".."):
        before, found, after = text.partition(dots)
        if found:
            if not before or not after:
                raise WrongWordsError(f"{text!r} lacks a version on one side of the dots: main..feature/autumn")
            return Span(before, after, since_base=dots == "...")
    return None
