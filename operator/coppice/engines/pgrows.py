"""Rows of PostgreSQL and what becomes of them: how one differs, and how two changes of one are merged. No I/O.

A cell is the text that the server has for a value, with the settings in ``pgtables.READING``: its input function makes
the same value of it on every server, whatever the type. Two cells are equal if the texts are: ``1.0`` and ``1.00`` of
a ``numeric`` are two values, as they are to whoever reads them. Columns that the server computes are not in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from sys import getsizeof
from typing import Final

from coppice.engines.digests import addend, hashed, summary
from coppice.engines.merging import ChangeKind, ChangeSet, Conflict, ConflictKind, RowChange, Side, TableChanges

Cell = str | None
Cells = Mapping[str, Cell]

WHOLE_ROW: Final = None
"""Where a conflict is that is of a row and of none of its columns."""


@dataclass(frozen=True, slots=True)
class Change:
    """One row that differs. ``before`` is None where it was added, ``after`` where it was deleted.

    ``before`` lacks the columns that are new: nobody had a value there.
    """

    table: str
    key: Cells = field(repr=False)
    before: Cells | None = field(repr=False)
    after: Cells | None = field(repr=False)

    @property
    def kind(self) -> ChangeKind:
        """Return what happened to the row."""
        if self.before is None:
            return "Added"
        return "Deleted" if self.after is None else "Modified"

    @property
    def row(self) -> RowChange:
        """Return the change as a person reads it."""
        return RowChange(self.table, self.kind, self.key, self.before, self.after)

    @property
    def size(self) -> int:
        """Return about how many bytes of memory it takes: of many short cells, more than their characters."""
        return getsizeof(self.key) + _size(self.before) + _size(self.after)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that a modification sets."""
        before, after = self.before or {}, self.after or {}
        return tuple(name for name, cell in after.items() if name not in before or before[name] != cell)


def _size(row: Cells | None) -> int:
    return 0 if row is None else getsizeof(row) + sum(map(getsizeof, row.values()))


@dataclass(slots=True)
class Tally:
    """The rows of one table that differ, counted and summed up as they are found, in whatever order."""

    counts: dict[ChangeKind, int] = field(default_factory=lambda: {"Added": 0, "Modified": 0, "Deleted": 0})
    total: int = 0

    def add(self, change: Change) -> None:
        """Count one more."""
        self.counts[change.kind] += 1
        self.total += addend([change.before, change.after])

    @property
    def summary(self) -> object:
        """Return what a digest has of the table."""
        return summary(self.counts, self.total)


def summarised(tallies: Mapping[str, Tally], redefined: Collection[str], statements: Sequence[str]) -> ChangeSet:
    """Return what a person reads of a change set, by the tables' names: those with rows that differ, and those that are
    defined otherwise.
    """
    told = tuple(f"{statement};" for statement in statements)
    empty = Tally()
    found = {name: tallies.get(name, empty) for name in sorted({*tallies, *redefined})}
    found = {name: tally for name, tally in found.items() if name in redefined or any(tally.counts.values())}
    tables = (
        TableChanges(name, counts["Added"], counts["Modified"], counts["Deleted"], schema=name in redefined)
        for name, counts in ((name, tally.counts) for name, tally in found.items())
    )
    digest = hashed([[[name, tally.summary] for name, tally in found.items()], told]).hex()
    return ChangeSet(tuple(tables), told, digest)


def tallied(changes: Iterable[Change]) -> Mapping[str, Tally]:
    """Return rows that differ, counted by table."""
    tallies: dict[str, Tally] = {}
    for change in changes:
        tallies.setdefault(change.table, Tally()).add(change)
    return tallies


@dataclass(frozen=True, slots=True)
class Merged:
    """What becomes of a row: ``row`` is None where it is not there any more. ``conflicts`` are the places of those
    that nobody has decided, ``decided`` of the others: a column's name, or ``WHOLE_ROW``. While there are conflicts
    ``row`` has what the target has in their places.
    """

    row: Cells | None = field(repr=False)
    conflicts: tuple[str | None, ...] = ()
    decided: tuple[str | None, ...] = ()


def merge(
    base: Cells | None, ours: Cells | None, theirs: Cells | None, side_of: Callable[[str | None], Side | None]
) -> Merged:
    """Merge what the target (``ours``) and the source (``theirs``) have made of a row.

    ``side_of`` is asked for each place in conflict which side is taken there, and says None where that is open.
    Columns that the base has not are new on the source: the target has no value there.
    """
    if theirs in (ours, base):
        return Merged(ours)
    if ours == base:
        return Merged(theirs)
    if ours is None or theirs is None:
        side = side_of(WHOLE_ROW)
        places: tuple[str | None, ...] = (WHOLE_ROW,)
        return Merged(theirs if side == "Source" else ours, *((places, ()) if side is None else ((), places)))
    return _merge_cells(base, ours, theirs, side_of)


def _merge_cells(
    base: Cells | None, ours: Cells, theirs: Cells, side_of: Callable[[str | None], Side | None]
) -> Merged:
    row: dict[str, Cell] = {}
    conflicts: list[str | None] = []
    decided: list[str | None] = []
    for name, cell in theirs.items():
        known = base is not None and name in base
        was = base[name] if base is not None and name in base else None
        if name not in ours or cell == ours[name] or (known and was == ours[name]):
            row[name] = cell
        elif known and was == cell:
            row[name] = ours[name]
        else:
            side = side_of(name)
            (conflicts if side is None else decided).append(name)
            row[name] = cell if side == "Source" else ours[name]
    return Merged(row, tuple(conflicts), tuple(decided))


def conflict(salt: str, kind: ConflictKind, table: str, key: Cells, column: str | None) -> Conflict:
    """Return a conflict by its name, without any value but the key's."""
    named = [salt, table, dict(key)]
    return Conflict(
        id=hashed([*named, kind, column]).hex()[:16],
        row=hashed(named).hex()[:16] if kind != "Schema" else "",
        kind=kind,
        table=table,
        column=column,
        key=key,
    )


def images(place: str | None, rows: Iterable[Cells | None]) -> tuple[object, ...]:
    """Return what each side has in a place: a cell, or the whole row."""
    return tuple(row if place is WHOLE_ROW or row is None else row.get(place) for row in rows)
