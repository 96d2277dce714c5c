"""What an engine that keeps versions can do with two of them: tell how they differ, and merge one into the other.

Words: the *target* is the branch that is merged into ("ours"), the *source* is what comes ("theirs"), the *base* is
their merge base. A merge is computed on a scratch server, a clone of the target's store that nobody else uses; the
store then takes the result from it. Row values are in ``RowChange`` and ``Conflict`` alone: those go to a person who
asked for them as that person, never into a status, an event or a log.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol, runtime_checkable

from coppice.engines.base import Endpoint, Engine, EngineError

Value = str | int | float | bool | None
"""A cell as a person would write it: text where JSON has no exact form (decimals, times, binary as ``Binary``)."""


class Binary(str):
    """A binary cell as text: ``0x`` and hexadecimal digits. Apart from other text, which may look the same."""

    __slots__ = ()


ChangeKind = Literal["Added", "Modified", "Deleted"]
ConflictKind = Literal["Cell", "Row", "Schema", "ForeignKey", "Unique", "Check", "NotNull"]
"""``Cell``: both sides changed a column of a row, or both added the row. ``Row``: one side deleted a row that the other
changed, or both changed how often a row of a table without a key is there. ``Schema``: both changed a definition, and
not to the same. The others: the merged rows break a constraint of that kind."""
Side = Literal["Source", "Target"]

MAX_CONFLICTS: Final = 100
"""How many conflicts an outcome lists; it counts them all."""


class TargetMovedError(EngineError):
    """The target's branch is no longer where the result was computed for: compute it again."""


class UnrelatedError(EngineError):
    """Two versions share no commit: there is nothing by which to say which of them has changed what."""


class TargetBusyError(EngineError):
    """The target's branch has uncommitted changes, which a publication would bury: the message names it."""


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """One commit, as its author wrote it."""

    hash: str
    parents: tuple[str, ...]
    author: str
    email: str
    time: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Authors:
    """Who made commits: names and addresses, as they wrote them. ``cut``: there are more than these."""

    names: frozenset[str] = frozenset()
    cut: bool = False


@dataclass(frozen=True, slots=True)
class TableChanges:
    """How many rows of a table differ, and whether its definition does."""

    table: str
    added: int
    modified: int
    deleted: int
    schema: bool = False


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """How one version differs from another.

    ``statements`` are the changes of definitions, as the engine's SQL. ``digest`` (64 hexadecimal digits) is the same
    for two pairs of versions if and only if the same rows and definitions become the same: it does not depend on
    commits, on rows that stay, or on the order in which rows are found.
    """

    tables: tuple[TableChanges, ...]
    statements: tuple[str, ...]
    digest: str


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row that differs; ``before`` is None where it was added, ``after`` where it was deleted. ``key`` names the
    row's primary key, or is empty in a table without one.
    """

    table: str
    kind: ChangeKind
    key: Mapping[str, Value]
    before: Mapping[str, Value] | None
    after: Mapping[str, Value] | None


@dataclass(frozen=True, slots=True)
class ConflictName:
    """A conflict without any value: fit for a status."""

    id: str
    row: str
    kind: ConflictKind
    table: str
    column: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Conflict:
    """One thing that both sides changed, or that their sum breaks.

    ``id`` names it: 16 hexadecimal digits of a hash of ``MergeInputs.salt``, kind, table, key and column, the same
    wherever the two branches have moved on to. ``row`` names all conflicts of its row the same way, and is empty for
    ``Schema``. ``column`` is None where the row as a whole is meant. ``base``, ``ours`` and ``theirs`` hold the
    column's value, or the whole row's; for ``Schema`` the definitions; for a constraint the row that breaks it is
    ``theirs`` and ``detail`` names the constraint.
    """

    id: str
    row: str
    kind: ConflictKind
    table: str
    column: str | None = None
    key: Mapping[str, Value] = field(default_factory=dict, repr=False)
    base: object = field(default=None, repr=False)
    ours: object = field(default=None, repr=False)
    theirs: object = field(default=None, repr=False)
    detail: str = ""

    @property
    def name(self) -> ConflictName:
        """Return the conflict without any value."""
        return ConflictName(self.id, self.row, self.kind, self.table, self.column, self.detail)


@dataclass(frozen=True, slots=True)
class Decision:
    """Which side is taken: for one conflict, for all of a row, for all of a table, or, with nothing named, for all.

    The closest one wins, and of two that name the same thing the first. ``Cell`` and ``Row`` conflicts alone can be
    decided; ``Schema`` and broken constraints are mended on the source.
    """

    take: Side
    conflict: str | None = None
    row: str | None = None
    table: str | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """Who made a commit."""

    name: str
    email: str

    @classmethod
    def of(cls, user: str) -> Signature:
        """Return how a user signs: the name is theirs, by which reviewers are told from authors; an address that is
        none becomes nobody's.
        """
        name = plain(user)
        if re.fullmatch(r"[^@\s]+@[^@\s]+", name):
            return cls(name, name)
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "somebody"
        return cls(name, f"{slug}@users.coppice.invalid")


def plain(text: str) -> str:
    """Return a text without what would end its line, or pass for an address, in a commit."""
    return " ".join(re.sub(r"[\x00-\x1f\x7f<>]+", " ", text).split())


@dataclass(frozen=True, slots=True)
class MergeInputs:
    """What is to be merged on a scratch server that holds both commits. ``target`` and ``source`` are whole hashes."""

    database: str
    target: str
    source: str
    author: Signature
    message: str
    salt: str
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, slots=True)
class MergeOutcome:
    """The merge of two commits: ``result`` is a commit with the parents target and source, in this order, or None where
    conflicts are left. Where the source has nothing that the target lacks, ``result`` is the target itself.

    ``conflicts`` are at most ``MAX_CONFLICTS`` of the ``total``, those decided left out; ``decided`` counts those,
    and ``total`` counts both.
    ``unused`` are the decisions that met no conflict, by their place. ``changes`` are from target to result.
    """

    base: str
    result: str | None
    changes: ChangeSet | None
    conflicts: tuple[ConflictName, ...] = ()
    total: int = 0
    decided: int = 0
    unused: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Assertion:
    """A check of the owners': a query that must find nothing. ``name`` is theirs."""

    name: str
    query: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class AssertionResult:
    """What came of a check: how many rows it found (at most 1000 are counted), or why it could not be asked, without
    values.
    """

    name: str
    found: int = 0
    error: str = ""


@runtime_checkable
class MergingEngine(Engine, Protocol):
    """An engine whose versions can be compared and merged. Everything raises UnreachableError, LoginRefusedError or
    EngineError as the rest of the contract does; an unknown commit, branch or table is UnknownVersionError.

    Further actions of ``execute``, each safe to repeat:

    ``commit-work`` (database, branch, author, email, message): make a commit of what was written on a branch and not
    committed; nothing where there is no such thing.
    ``create-tag`` (database, tag, commit): done already when it exists there; EngineError when elsewhere,
    but for a name that begins with ``coppice/``: such a tag is put where it belongs.
    ``ensure-fetch-user`` (password): let somebody with this password fetch from this server, and do nothing else.
    ``drop-fetch-user`` (): nobody may any more.
    ``fetch`` (database, host, commit, password): fetch, from the server at ``host`` that lets the holder of this
    server's own ``remote-password``, which this is, do so, all that is needed to have ``commit``; nothing where it is
    there already.
    ``undo`` (database, branch, commit): on a scratch server, make a branch whose one commit upon ``commit`` has what
    the first parent of ``commit`` had.
    ``set-branch`` (database, branch, commit): on a scratch server or clone, make a branch be at a commit, whatever was
    there, uncommitted too.
    ``fetch-result`` (database, host, result, password): on a store, fetch from the scratch server at ``host`` what
    ``publish`` of this result needs, so that nothing is left for that one to wait for; nothing where it is there
    already.
    ``publish`` (database, branch, expected, source, result, host, password): on a store whose ``remote-password`` this
    is, fetch ``result``, a merge of ``source`` into ``expected``, from the scratch server at ``host`` and move the
    branch from ``expected`` to it, by fast-forward only, which is the compare-and-set. EngineError when it is another
    commit. Done already when the branch holds ``result``. TargetMovedError when it is
    neither there nor at ``expected``; TargetBusyError when it has uncommitted changes.
    ``offer`` (database, commit): on a scratch server, have a commit be one that a ``fast-forward`` may fetch.
    ``fast-forward`` (database, branch, expected, result, host, password): on a clone whose ``remote-password`` this is,
    do the same with a ``result`` that comes from ``expected``, whatever else it comes from; the same errors. It was
    offered before, and nothing else is fetched.
    ``sweep`` (database): take away the logins, remotes and branches that publications from and to this server and
    fetches of it have left when they were ended in the middle; those under way stay, but for who is fetching, which is
    to be let in again. Each publication begins with it.
    ``ensure-check-user`` (database, password, username): on a scratch server, let the login of ``check_binding`` read
    the database and change nothing, with this password and no earlier one; and keep the login ``username`` from
    putting something else in the place of a commit. EngineError where somebody has.
    ``protect`` (database, branches, username): let nobody but the administrator write to, reset, delete, rename or
    force the branches that match one of these (a JSON list; ``*`` stands for anything), by any statement or procedure;
    the login ``username``, if it is there yet, keeps all its other rights, and ``ensure-app-user`` gives it the same.
    It replaces what was said before; an empty list protects none.
    """

    remotes_port: int
    """Where a server lets others fetch: the Pod's second port, or its only one."""
    protects: bool
    """Whether it can keep others from writing to a branch, by ``protect``."""

    async def log(self, at: Endpoint, database: str, start: str, *, limit: int) -> Sequence[CommitInfo]:
        """Return commits from a branch, tag or commit backwards, newest first."""
        ...

    async def authors_between(self, at: Endpoint, database: str, base: str, head: str) -> Authors:
        """Return who made the commits that ``head`` has and ``base`` has not, however many they are."""
        ...

    async def merge_base(self, at: Endpoint, database: str, one: str, other: str) -> str | None:
        """Return the newest commit that two versions share, or None."""
        ...

    async def changes(self, at: Endpoint, database: str, before: str, after: str) -> ChangeSet:
        """Return how two versions differ; both are a branch, tag or commit. Memory does not grow with the rows."""
        ...

    def rows(
        self, at: Endpoint, database: str, before: str, after: str, table: str | None = None
    ) -> AsyncIterator[RowChange]:
        """Hand out the rows that differ as they are found, table by table; who stops early closes the session."""
        ...

    async def merge(self, at: Endpoint, inputs: MergeInputs) -> MergeOutcome:
        """Merge two commits on a scratch server; branches stay where they are. Safe to repeat: with the same inputs it
        finds what it has made.
        """
        ...

    def conflicts(self, at: Endpoint, inputs: MergeInputs) -> AsyncIterator[Conflict]:
        """Hand out the conflicts of a merge with their values, those decided too."""
        ...

    def check_binding(self, *, host: str, database: str, commit: str, password: str) -> Mapping[str, str]:
        """Return what a check's program needs to read a commit on a scratch server, as ``binding`` does."""
        ...

    async def assertions(
        self, at: Endpoint, database: str, commit: str, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        """Ask checks of a commit on a scratch server; whatever a query says, nothing there is changed."""
        ...
