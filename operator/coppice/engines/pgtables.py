"""The tables of a PostgreSQL database as its catalog describes them, and in which order they are written. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from coppice.engines.merging import ChangeKind
from coppice.engines.patching import RefusedError

READING: Final = (
    "-c synchronize_seqscans=off -c datestyle=ISO -c intervalstyle=postgres -c timezone=UTC -c bytea_output=hex"
    " -c extra_float_digits=1 -c lc_monetary=C -c xmloption=content -c standard_conforming_strings=on"
)
"""With these settings the text of a value is the same on every server, and read by every server as the same value."""

ACTING: Final = frozenset("cnd")
"""What a foreign key does to rows that refer to one: CASCADE, SET NULL, SET DEFAULT."""
_OPS: Final[Sequence[ChangeKind]] = ("Deleted", "Modified", "Added")


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``number`` is its own for good: in a copy, the same column has it under another name, too.
    ``default`` is an expression, also that of a generated one; ``identity`` is ``a`` (ALWAYS), ``d``
    (BY DEFAULT) or empty; ``collation`` is None where it is the type's; ``sequence`` is the one that belongs to it.
    """

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    identity: str = ""
    generated: bool = False
    collation: str | None = None
    sequence: str | None = None
    number: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint; ``kind`` and the actions are letters of ``pg_constraint`` (``t``: a trigger that checks).
    ``parent`` is what a foreign key refers to.
    """

    name: str
    kind: str
    definition: str
    columns: tuple[str, ...] = ()
    deferrable: bool = False
    parent: tuple[str, str] | None = None
    parent_columns: tuple[str, ...] = ()
    on_update: str = " "
    on_delete: str = " "

    @property
    def binds(self) -> bool:
        """Return whether a foreign key is looked at before the end of a transaction that puts off all that it can.

        What acts on other rows (CASCADE) acts at once even so.
        """
        return not self.deferrable or self.on_delete in ACTING


@dataclass(frozen=True, slots=True)
class Index:
    """An index that is of no constraint."""

    name: str
    definition: str


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that fires. Constraint triggers are among constraints instead: they check what is written."""

    name: str
    always: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or one with all its partitions."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...] = ()
    indexes: tuple[Index, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    partitioned: bool = False
    unlogged: bool = False
    inherits: bool = False
    secured: bool = False
    ruled: bool = False
    inner_triggers: bool = False

    @property
    def path(self) -> tuple[str, str]:
        """Return the schema and the name."""
        return self.schema, self.name

    @property
    def label(self) -> str:
        """Return what a person calls it, and ``schema.sql``."""
        return self.name if self.schema == "public" else f"{self.schema}.{self.name}"

    @property
    def key(self) -> tuple[str, ...]:
        """Return the columns of the primary key."""
        return next((constraint.columns for constraint in self.constraints if constraint.kind == "p"), ())

    @property
    def stored(self) -> tuple[str, ...]:
        """Return the columns whose values are not computed from others."""
        return tuple(column.name for column in self.columns if not column.generated)

    @property
    def declared(self) -> tuple[Constraint, ...]:
        """Return the constraints that a statement for the table can make."""
        return tuple(constraint for constraint in self.constraints if constraint.kind != "t")

    @property
    def foreign_keys(self) -> tuple[Constraint, ...]:
        """Return what refers to rows of a table."""
        return tuple(constraint for constraint in self.constraints if constraint.kind == "f")

    def column(self, name: str) -> Column | None:
        """Return a column by its name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def obstacle(self) -> str | None:
        """Return why the rows that differ cannot be in a change set, or None."""
        if not self.key:
            return "it has no primary key, by which rows would be told apart"
        if self.unlogged:
            return "it is UNLOGGED, and empty in every copy"
        if self.inherits:
            return "it inherits from a table, or a table from it"
        if self.ruled:
            return "it has rules, which do something else instead of what is written"
        if self.inner_triggers:
            return "a partition of it has triggers of its own"
        return None


def read_tables(rows: Iterable[Mapping[str, Any]]) -> Mapping[tuple[str, str], Table]:
    """Return the tables that ``scripts/postgresql/tables.sql`` has found."""
    tables = (_read(row) for row in rows)
    return {table.path: table for table in tables}


def _read(row: Mapping[str, Any]) -> Table:
    constraints = (
        {
            **found,
            "columns": tuple(found["columns"]),
            "parent": tuple(found["parent"]) if found["parent"] else None,
            "parent_columns": tuple(found["parent_columns"]),
        }
        for found in row["constraints"]
    )
    parts = {
        "columns": tuple(Column(**found) for found in row["columns"]),
        "constraints": tuple(Constraint(**found) for found in constraints),
        "indexes": tuple(Index(**found) for found in row["indexes"]),
        "triggers": tuple(Trigger(**found) for found in row["triggers"]),
    }
    return Table(**{**row, **parts})


def by_label(tables: Mapping[tuple[str, str], Table]) -> Mapping[str, tuple[str, str]]:
    """Return where the tables are that people call by these names; raises RefusedError for a name of two."""
    paths: dict[str, tuple[str, str]] = {}
    for path, table in tables.items():
        if table.label in paths:
            raise RefusedError(f"there are two tables that are called {table.label}: rename the one in public")
        paths[table.label] = path
    return paths


def writing_order(
    tables: Mapping[tuple[str, str], Table], written: Iterable[tuple[tuple[str, str], ChangeKind]]
) -> Sequence[tuple[tuple[str, str], ChangeKind]]:
    """Return in which order rows are deleted, modified and added, so that no foreign key is broken on the way.

    A row comes after the one that it refers to, and goes before it; what refers to another one now does so before the
    old one goes. As far as that leaves a choice, rows go first: what they had for themselves alone is free then.
    """
    wanted = set(written)
    sorter: TopologicalSorter[tuple[tuple[str, str], ChangeKind]] = TopologicalSorter()
    for path, kind in sorted(wanted, key=_place):
        sorter.add((path, kind), *(step for step in _before(tables, path, kind) if step in wanted))
    try:
        sorter.prepare()
    except CycleError as error:
        names = sorted({tables[path].label for path, _ in error.args[1]})
        raise RefusedError(
            f"the foreign keys of {', '.join(names)} refer to each other in a circle: make one of them DEFERRABLE"
        ) from None
    order: list[tuple[tuple[str, str], ChangeKind]] = []
    ready = list(sorter.get_ready())
    while ready:
        ready.sort(key=_place)
        step = ready.pop(0)
        order.append(step)
        sorter.done(step)
        ready.extend(sorter.get_ready())
    return order


def _place(step: tuple[tuple[str, str], ChangeKind]) -> tuple[int, tuple[str, str]]:
    return _OPS.index(step[1]), step[0]


def _before(
    tables: Mapping[tuple[str, str], Table], path: tuple[str, str], kind: ChangeKind
) -> Iterable[tuple[tuple[str, str], ChangeKind]]:
    """Hand out what is done before."""
    if kind == "Deleted":
        for child in tables.values():
            if child.path != path and any(key.binds and key.parent == path for key in child.foreign_keys):
                yield from ((child.path, "Deleted"), (child.path, "Modified"))
        return
    for key in tables[path].foreign_keys:
        if key.binds and key.parent is not None and key.parent != path:
            yield key.parent, "Added"
