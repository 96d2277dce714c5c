"""An engine with versions that can be compared: what it has is given to it, and what it is asked is noted."""

from __future__ import annotations

import weakref
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.fakes.engine import FakeEngine

from coppice.engines.base import Content, Endpoint, LoginRefusedError, Reference, UnknownVersionError, Version
from coppice.engines.merging import (
    Assertion,
    AssertionResult,
    Authors,
    ChangeSet,
    CommitInfo,
    Conflict,
    MergeInputs,
    MergeOutcome,
    RowChange,
    TableChanges,
)

FIRST, SECOND, THIRD = "a" * 32, "b" * 32, "c" * 32


class Row(RowChange):
    """A changed row of which can be told whether anybody keeps it."""

    __hash__ = object.__hash__


def added(number: int, **cells: object) -> Row:
    return Row("track", "Added", {"id": number}, None, {"id": number, **cells})  # type: ignore[dict-item]


@dataclass
class Comparing(FakeEngine):
    """See ``coppice.engines.merging.MergingEngine``."""

    remotes_port: int = 50051
    protects: bool = True
    heads: dict[str, str] = field(default_factory=lambda: {"main": FIRST, "autumn": SECOND})
    uncommitted: set[str] = field(default_factory=set)
    found: Iterable[RowChange] = ()
    conflicting: Sequence[Conflict] = ()
    commits: Sequence[CommitInfo] = ()
    change_set: ChangeSet = field(
        default_factory=lambda: ChangeSet((TableChanges("track", 2, 1, 0, schema=True),), ("ALTER TABLE track",), "d")
    )
    base: str | None = FIRST
    password: str | None = None
    """The only one that is accepted, if any."""

    def __post_init__(self) -> None:
        super().__init__()
        self.compared: list[tuple[str, str, str, str | None]] = []
        self.merges: list[MergeInputs] = []
        self.done: list[tuple[str, Mapping[str, str]]] = []
        self.ended = 0
        """How many streams were ended."""
        self.handed_out = 0
        self.kept = 0
        """How many rows were kept at once, at most."""

    def _login(self, at: Endpoint) -> None:
        self.logins.append(at)
        if self.password is not None and at.password != self.password:
            raise LoginRefusedError("the server refused the login")

    async def inspect(self, at: Endpoint, *, database: str | None = None) -> Content:
        self._login(at)
        return Content("1.0.0-fake", "shop", "coppice", ("shop",), ())

    async def resolve(self, at: Endpoint, database: str, reference: Reference) -> Version:
        self._login(at)
        if reference.commit is not None:
            return Version(database, "coppice", reference.commit, f"root-{reference.commit}", new_branch=True)
        branch = reference.branch or ""
        if branch not in self.heads:
            raise UnknownVersionError(f"there is no branch {branch}; there are {', '.join(self.heads)}")
        root = "written" if branch in self.uncommitted else f"root-{self.heads[branch]}"
        return Version(database, branch, self.heads[branch], root)

    async def execute(self, at: Endpoint, action: str, arguments: Mapping[str, str]) -> None:
        self._login(at)
        self.done.append((action, arguments))
        if action in self.refused:
            raise self.refused[action]
        if action == "commit-work" and arguments["branch"] in self.uncommitted:
            self.uncommitted.remove(arguments["branch"])
            self.heads[arguments["branch"]] = THIRD

    async def log(self, at: Endpoint, database: str, start: str, *, limit: int) -> Sequence[CommitInfo]:
        self._login(at)
        self.compared.append((database, start, "", None))
        return self.commits[:limit]

    async def authors_between(self, at: Endpoint, database: str, base: str, head: str) -> Authors:
        raise AssertionError("nobody asks for this")

    async def merge_base(self, at: Endpoint, database: str, one: str, other: str) -> str | None:
        self._login(at)
        return self.base

    async def changes(self, at: Endpoint, database: str, before: str, after: str) -> ChangeSet:
        self._login(at)
        self.compared.append((database, before, after, None))
        return self.change_set

    async def rows(
        self, at: Endpoint, database: str, before: str, after: str, table: str | None = None
    ) -> AsyncIterator[RowChange]:
        self._login(at)
        self.compared.append((database, before, after, table))
        living: weakref.WeakSet[RowChange] = weakref.WeakSet()
        try:
            for row in self.found:
                if isinstance(row, Row):
                    living.add(row)
                self.kept = max(self.kept, len(living))
                self.handed_out += 1
                yield row
        finally:
            self.ended += 1

    async def merge(self, at: Endpoint, inputs: MergeInputs) -> MergeOutcome:
        raise AssertionError("a person's command merges nothing")

    async def conflicts(self, at: Endpoint, inputs: MergeInputs) -> AsyncIterator[Conflict]:
        self._login(at)
        self.merges.append(inputs)
        for conflict in self.conflicting:
            yield conflict

    def check_binding(self, *, host: str, database: str, commit: str, password: str) -> Mapping[str, str]:
        raise AssertionError("nobody asks for this")

    async def assertions(
        self, at: Endpoint, database: str, commit: str, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        raise AssertionError("nobody asks for this")


def commit(hash_: str, message: str, author: str = "ann") -> CommitInfo:
    return CommitInfo(hash_, (), author, f"{author}@example.com", datetime(2026, 3, 1, 12, tzinfo=UTC), message)
