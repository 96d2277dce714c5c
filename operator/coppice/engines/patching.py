"""What an engine without versions can do with a clone: tell how it differs from the snapshot that it came from, and
write that to the live database in one transaction.

Words: the *base* is a server on another copy of that snapshot, which nobody else uses; the *clone* is where somebody
worked; the *target* is the live server. A *patch* is what the clone has changed, and a *judged* patch what is left of
it to write once it was merged with the rows of the target: every row is guarded by what it was then. Patches hold rows
and are in memory alone: what of them may stand in a status are ``changes`` and ``ConflictName``.

The login to each server is the application's where Coppice runs it: it owns the tables, and is no administrator, for
what a clone's catalog says is run on the base and the target. That to the target is the writer's where it is somebody
else's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from coppice.engines.base import Endpoint, Engine, EngineError
from coppice.engines.merging import (
    MAX_CONFLICTS,
    Assertion,
    AssertionResult,
    ChangeSet,
    Conflict,
    ConflictName,
    Decision,
    RowChange,
)

Fate = Literal["Committed", "Aborted", "Open", "Unknown"]
"""What became of a transaction. ``Open``: it may still be committed. ``Unknown``: nobody can tell any more."""

Begun = Callable[[str], Awaitable[None]]
"""Is told the name of a transaction when all is written and nothing committed; if it raises, nothing ever is."""


class RefusedError(EngineError):
    """Something that differs cannot be in a patch: the message names it."""


class BrokenRulesError(EngineError):
    """What was to be written breaks rules of the target's, and nothing was written: ``conflicts`` names them."""

    def __init__(self, conflicts: Sequence[ConflictName]) -> None:
        """Keep the conflicts beside a message that names no values."""
        super().__init__(f"what was to be written breaks {len(conflicts)} rules of the live database")
        self.conflicts = tuple(conflicts)


class Patch(Protocol):
    """What a clone has changed, or what is left of that to write; an engine reads those alone that it made."""

    @property
    def changes(self) -> ChangeSet:
        """What a person reads of it, without a row."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes of memory its rows take."""
        ...


@dataclass(frozen=True, slots=True)
class JudgedPatch:
    """A patch that was merged with the target's rows: what is left to write, and what both have changed.

    ``conflicts`` wait for a decision, and ``patch`` leaves the target as it is there; ``decided`` do not.
    ``complete``: the target holds all of it already, rows and definitions.
    """

    patch: Patch
    conflicts: tuple[Conflict, ...] = field(default=(), repr=False)
    decided: tuple[Conflict, ...] = field(default=(), repr=False)
    unused: tuple[int, ...] = ()
    complete: bool = False

    @property
    def names(self) -> tuple[ConflictName, ...]:
        """Return the first conflicts that wait, without any value."""
        return tuple(conflict.name for conflict in self.conflicts[:MAX_CONFLICTS])


@dataclass(frozen=True, slots=True)
class PatchInputs:
    """What a patch is judged by beside the target's rows; ``salt`` is in the names of conflicts."""

    salt: str
    decisions: tuple[Decision, ...] = ()


@runtime_checkable
class PatchingEngine(Engine, Protocol):
    """An engine whose clones can be compared with what they came from. Everything raises UnreachableError,
    LoginRefusedError or EngineError as the rest of the contract does.
    """

    async def mark(self, at: Endpoint, database: str) -> str:
        """Return what changes whenever anybody writes to a server, by one cheap question of an administrator's. It is
        no activity. It may change though nobody has written rows.
        """
        ...

    async def patch(self, base: Endpoint, clone: Endpoint, database: str) -> Patch:
        """Return what a clone has changed, tried on the base; raises RefusedError where that cannot be written."""
        ...

    async def differences(self, base: Endpoint, clone: Endpoint, database: str) -> ChangeSet:
        """Return what a person reads of all that a clone has changed, however much that is."""
        ...

    def rows(
        self, base: Endpoint, clone: Endpoint, database: str, table: str | None = None
    ) -> AsyncIterator[RowChange]:
        """Hand out the rows that a clone has changed as they are found, however many; who stops early closes the
        sessions.
        """
        ...

    def patch_rows(self, patch: Patch, table: str | None = None) -> Iterator[RowChange]:
        """Hand out the rows of a patch, table by table; of a judged one as they are on the target and will be."""
        ...

    async def judge(self, target: Endpoint, database: str, patch: Patch, inputs: PatchInputs) -> JudgedPatch:
        """Merge a patch with the target's rows. Nothing is written or locked; rights to read are enough."""
        ...

    def script(self, patch: Patch) -> str:
        """Return a patch as SQL that commits if, and only if, everything is as it was when it was judged."""
        ...

    async def try_patch(
        self, base: Endpoint, database: str, patch: Patch, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        """Ask checks of the base with a patch on it, one that was not judged; afterwards the base is as before,
        whatever a query says.
        """
        ...

    async def write(self, target: Endpoint, database: str, patch: Patch, salt: str, begun: Begun) -> None:
        """Write a judged patch in one transaction, whose name ``begun`` is told before it is committed.

        Raises TargetMovedError where something is not as it was judged, TargetBusyError where somebody has a table that
        is needed for longer than is waited, BrokenRulesError for a rule of the target's: then nothing is written. After
        any other error that comes when ``begun`` has returned nobody but ``fate`` knows.
        """
        ...

    async def fate(self, target: Endpoint, database: str, transaction: str) -> Fate:
        """Return what became of a transaction, by the name that ``begun`` was told."""
        ...
