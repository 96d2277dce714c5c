"""Guarded SQL: a change set as statements of one transaction that is committed if, and only if, every guard held.

What this rests on, each with a test in ``tests/contract/test_pgchanges.py``:

- Everything is judged by one snapshot (REPEATABLE READ): what others write meanwhile to the same rows makes the
  transaction fail, and so does a row that a foreign key's action would reach and the snapshot does not show. Tables
  whose definitions change are locked before the snapshot is taken.
- A statement that writes a row also notes, in the same statement, how many rows it found; a foreign key that is
  looked at when the transaction ends refers each note to the number 1, and each guard to its note. So a client that
  goes on after an error commits nothing either.
- Rows are compared by ``format('%s', value)``: that is the type's own output, whatever casts or operators there are.
- A literal without a type is read by its column's type, in the SELECT of an INSERT too.
- Triggers do not fire: what they have done where the change was made is part of the change set. Constraint triggers
  do, for they only check.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal

from psycopg import sql

from coppice.engines.merging import ChangeKind, ChangeSet
from coppice.engines.patching import RefusedError
from coppice.engines.pgmigrations import Migration, Path, Tables, name_of, quoted
from coppice.engines.pgrows import Cell, Cells, Change, summarised, tallied
from coppice.engines.pgtables import ACTING, READING, Constraint, Table, by_label, writing_order

MAX_SKIPPED: Final = 1_000_000
"""How many numbers of a sequence a publication passes over at most: one that was set far ahead would be used up."""
_GUARDS: Final = "pg_temp.coppice_guards"
OWN_NAMES: Final = "SET LOCAL search_path = pg_catalog, pg_temp"
"""No function that somebody has made stands in for the server's own. Said again after definitions have changed: a new
default may be a call that sets it otherwise.
"""
_SETTINGS: Final = (
    ("client_encoding", "utf8"),
    ("row_security", "off"),
    ("lock_timeout", "'10s'"),
    *((name, f"'{value}'") for name, _, value in (one.strip().partition("=") for one in READING.split("-c ")[1:])),
)
"""With ``row_security`` off a row that is hidden from the writer is an error, and no row that is not there."""
_INTEGERS: Final = frozenset({"smallint", "integer", "bigint"})

GuardKind = Literal["Definition", "Lost", "Reach", "Row", "Sequence", "Outcome"]
"""``Definition``: a definition is as it was; ``Lost``: so are the values that end with a column or table; ``Reach``: no
other foreign keys act when a row is deleted, or what one refers to changes; ``Row``: a row is as it was, or it is not
there yet; ``Sequence``: a sequence is not far behind; ``Outcome``: a definition has become what it was to become.
"""


@dataclass(frozen=True, slots=True)
class Guard:
    """What must hold; ``place`` is a definition's name or a table's, ``change`` the row's."""

    kind: GuardKind
    place: str
    change: Change | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Part:
    """A statement, and the number of the guard that it notes."""

    statement: str = field(repr=False)
    guard: int | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """A sum over all rows of a table, before anything: what is in these columns, for each row by its key."""

    table: Table
    columns: tuple[str, ...]
    found: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a publication does. ``old`` and ``new`` are the tables before and after, ``definitions`` what the
    definitions by name must be, before and after (None: there is none); ``rows`` have, for ``before``, what the target
    must hold.
    """

    old: Tables
    new: Tables
    migration: Migration
    definitions: Mapping[str, tuple[str | None, str | None]]
    rows: Sequence[Change] = field(repr=False)
    lost: Sequence[Sums] = ()

    @property
    def changes(self) -> ChangeSet:
        """Return what a person reads of it."""
        labels = {table.label for tables in (self.old, self.new) for table in tables.values()}
        redefined = {name for name, (before, after) in self.definitions.items() if before != after}
        return summarised(
            tallied(self.rows), {label for label in labels if f"table {label}" in redefined}, self.migration.statements
        )

    @property
    def size(self) -> int:
        """Return about how many bytes of memory its rows take."""
        return sum(change.size for change in self.rows)


@dataclass(frozen=True, slots=True)
class _Rows:
    """The statements of rows, each made when it is its turn: all at once, everything would be in memory twice."""

    tables: Tables
    order: Sequence[tuple[Table, Change, int]]

    def __iter__(self) -> Iterator[Part]:
        for table, change, number in self.order:
            noted = f"INSERT INTO {_GUARDS} SELECT {number}, {literal(table.label)}, count(*) FROM done"  # noqa: S608 - quoted
            yield Part(f"WITH done AS ({_write(self.tables, table, change)} RETURNING 1) {noted}", number)


@dataclass(frozen=True, slots=True)
class Script:
    """The statements in their order: what comes before a row is written, the rows, and the rest, without COMMIT."""

    opening: tuple[Part, ...]
    rows: Iterable[Part]
    closing: tuple[Part, ...]
    guards: tuple[Guard, ...]

    @property
    def text(self) -> str:
        """Return the script as it is handed over."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield "-- Either all of this is done, or nothing. A guard that did not hold is listed before the end:"
        yield "-- something is not as it was when this was reviewed. Then the change set is to be made again."
        for part in (*self.opening, *self.rows, MISMATCHES_SHOWN, *self.closing):
            if part.guard is not None:
                yield f"-- {part.guard}: {_told(self.guards[part.guard - 1])}"
            yield f"{part.statement};"
        yield "COMMIT;\n"


def _told(guard: Guard) -> str:
    """Return what a guard is about, in one line that ends where it should."""
    key = "" if guard.change is None else f", {dict(guard.change.key)!r}"
    return " ".join(f"{guard.kind} {guard.place}{key}".splitlines())


MISMATCHES: Final = f"SELECT number FROM {_GUARDS} WHERE found <> 1 ORDER BY number"  # noqa: S608 - a constant
MISMATCHES_SHOWN: Final = Part(
    f"SELECT number AS guard, place AS did_not_hold FROM {_GUARDS} WHERE found <> 1 ORDER BY number"  # noqa: S608 - a constant
)


def literal(cell: Cell) -> str:
    """Return a cell as it is written in a statement."""
    return sql.Literal(cell).as_string(None)


def source(table: Table) -> str:
    """Return where a table's rows are read: with its partitions, without what inherits from it."""
    return name_of(table.path) if table.partitioned else f"ONLY {name_of(table.path)}"


def text_of(columns: Iterable[str]) -> str:
    """Return an expression for the text of some columns of ``t`` together, which is another for other values."""
    return f"format('%s', ROW({', '.join(f't.{quoted(name)}' for name in columns)})) COLLATE \"C\""


def sums(text: str) -> str:
    """Return expressions for how many rows there are, and for two sums of hashes of their text."""
    hashes = (f"coalesce(sum(hashtextextended({text}, {seed})), 0)::text" for seed in (1, 2))
    return f"count(*)::text, {', '.join(hashes)}"


def sums_of(table: Table, columns: Iterable[str]) -> str:
    """Return the query of ``Sums``."""
    wanted = dict.fromkeys((*table.key, *columns))
    return f"SELECT {sums(text_of(wanted))} FROM {source(table)} AS t"  # noqa: S608 - quoted


def same(row: Cells) -> str:
    """Return a condition for ``t`` to be this very row in these columns."""
    return " AND ".join(
        f"t.{quoted(name)} IS NOT DISTINCT FROM NULL"
        if cell is None
        else f"format('%s', t.{quoted(name)}) COLLATE \"C\" = {literal(cell)}"
        for name, cell in row.items()
    )


def found_by(key: Cells) -> str:
    """Return a condition that an index answers; more than one row may fulfil it."""
    return " AND ".join(f"t.{quoted(name)} = {literal(cell)}" for name, cell in key.items())


def script_of(plan: Plan, definitions_query: str) -> Script:
    """Return the statements of a plan; ``definitions_query`` names all definitions with their hashes."""
    return _Writer(plan, definitions_query).script()


class _Writer:
    """Numbers the guards while the statements are written."""

    def __init__(self, plan: Plan, definitions_query: str) -> None:
        self._plan = plan
        self._query = definitions_query
        self._guards: list[Guard] = []
        self._written: dict[Path, dict[ChangeKind, list[Change]]] = defaultdict(lambda: defaultdict(list))
        paths = by_label(plan.new)
        for change in plan.rows:
            self._written[paths[change.table]][change.kind].append(change)
        for path, kinds in self._written.items():
            _refuse(plan.new, plan.new[path], kinds)

    def script(self) -> Script:
        """Return all; the head is written last, for it has the number of guards."""
        opening, rows, closing = list(self._conditions()), list(self._rows()), list(self._rest())
        return Script((*self._head(), *opening), _Rows(self._plan.new, rows), tuple(closing), tuple(self._guards))

    def _head(self) -> Iterator[Part]:
        yield Part("BEGIN ISOLATION LEVEL REPEATABLE READ")
        yield Part(OWN_NAMES)
        for name, value in _SETTINGS:
            yield Part(f"SET LOCAL {name} = {value}")
        for path in sorted(self._plan.old):
            if mode := self._mode(path):
                yield Part(f"LOCK TABLE {name_of(path)} IN {mode} MODE")
        yield Part("CREATE TEMP TABLE coppice_one (n bigint PRIMARY KEY) ON COMMIT DROP")
        yield Part("INSERT INTO pg_temp.coppice_one VALUES (1)")
        yield Part(
            "CREATE TEMP TABLE coppice_guards (number int PRIMARY KEY, place text, found bigint"
            " CONSTRAINT is_as_it_was REFERENCES pg_temp.coppice_one DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"
        )
        yield Part(
            "CREATE TEMP TABLE coppice_expected (number int CONSTRAINT was_looked_at"
            f" REFERENCES {_GUARDS} DEFERRABLE INITIALLY DEFERRED) ON COMMIT DROP"
        )
        yield Part(f"INSERT INTO pg_temp.coppice_expected SELECT generate_series(1, {len(self._guards)})")

    def _mode(self, path: Path) -> str | None:
        if self._plan.old[path] != self._plan.new.get(path):
            return "ACCESS EXCLUSIVE"
        if path in self._written:
            return "SHARE ROW EXCLUSIVE" if self._plan.old[path].triggers else "ROW EXCLUSIVE"
        return None

    def _conditions(self) -> Iterator[Part]:
        plan = self._plan
        yield from self._definitions("Definition")
        for lost in plan.lost:
            found = ", ".join(map(literal, lost.found))
            query = f"SELECT count(*) FROM ({sums_of(lost.table, lost.columns)}) AS t (a, b, c)"  # noqa: S608 - quoted
            yield self._asked(Guard("Lost", lost.table.label), f"{query} WHERE (a, b, c) = ({found})")
        for path, kinds in sorted(self._written.items()):
            if "Deleted" in kinds and path in plan.old:
                yield self._asked(Guard("Reach", plan.old[path].label), _reach(plan.old, path))
        yield from map(Part, (*plan.migration.first, OWN_NAMES))
        for path, kinds in sorted(self._written.items()):
            if changed := {name for change in kinds.get("Modified", ()) for name in change.columns}:
                yield self._asked(Guard("Reach", plan.new[path].label), _unfollowed(path, changed))
        for sequence, values in self._advanced():
            within = f"SELECT (({_behind(sequence, values)}) <= {MAX_SKIPPED})::int"
            yield self._asked(Guard("Sequence", sequence), within)
        yield from self._triggers("DISABLE")
        yield from self._put_off("DEFERRED")

    def _rows(self) -> Iterator[tuple[Table, Change, int]]:
        tables = self._plan.new
        for path, kind in writing_order(
            tables, [(path, kind) for path, kinds in self._written.items() for kind in kinds]
        ):
            table = tables[path]
            for change in _by_their_own_reference(table, kind, self._written[path][kind]):
                yield table, change, self._guard(Guard("Row", table.label, change))

    def _rest(self) -> Iterator[Part]:
        yield from self._put_off("IMMEDIATE")
        yield from map(Part, (*self._plan.migration.last, OWN_NAMES))
        yield from self._triggers("ENABLE")
        yield from self._definitions("Outcome")
        for sequence, values in self._advanced():
            many = f"generate_series(1, ({_behind(sequence, values)}))"
            yield Part(f"SELECT count(nextval({literal(sequence)})) FROM {many}")  # noqa: S608 - quoted

    def _guard(self, guard: Guard) -> int:
        self._guards.append(guard)
        return len(self._guards)

    def _asked(self, guard: Guard, query: str) -> Part:
        """Return a part that notes what a query finds: one number, which is to be 1."""
        number = self._guard(guard)
        return Part(f"INSERT INTO {_GUARDS} SELECT {number}, {literal(guard.place)}, ({query})", number)

    def _definitions(self, kind: Literal["Definition", "Outcome"]) -> Iterator[Part]:
        table = f"coppice_{kind.lower()}"
        yield Part(f"CREATE TEMP TABLE {table} (name, definition) ON COMMIT DROP AS {self._query}")
        for name, (before, after) in sorted(self._plan.definitions.items()):
            wanted = before if kind == "Definition" else after
            named = f"FROM pg_temp.{table} WHERE name = {literal(name)}"
            yield self._asked(
                Guard(kind, name),
                f"SELECT 1 - count(*) {named}"
                if wanted is None
                else f"SELECT count(*) {named} AND definition = {literal(wanted)}",
            )

    def _triggers(self, word: Literal["DISABLE", "ENABLE"]) -> Iterator[Part]:
        for path in sorted(self._written):
            for trigger in self._plan.old[path].triggers if path in self._plan.old else ():
                how = " ALWAYS" if trigger.always and word == "ENABLE" else ""
                yield Part(f"ALTER TABLE {name_of(path)} {word}{how} TRIGGER {quoted(trigger.name)}")

    def _put_off(self, when: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[Part]:
        names = {
            (table.schema, constraint.name)
            for path, table in self._plan.old.items()
            for constraint in table.constraints
            if constraint.deferrable
            and path in self._plan.new
            and constraint in self._plan.new[path].constraints
            and (path in self._written or constraint.parent in self._written)
        }
        if names:
            yield Part(f"SET CONSTRAINTS {', '.join(map(name_of, sorted(names)))} {when}")

    def _advanced(self) -> Iterator[tuple[str, frozenset[int]]]:
        """Hand out the sequences of which rows were given numbers, with the outermost of those."""
        for path, kinds in sorted(self._written.items()):
            for column in self._plan.new[path].columns:
                if column.sequence is None or column.type not in _INTEGERS:
                    continue
                cells = ((change.after or {})[column.name] for change in kinds.get("Added", ()))
                if numbers := [int(cell) for cell in cells if cell is not None]:
                    yield column.sequence, frozenset({min(numbers), max(numbers)})


def _behind(sequence: str, values: Iterable[int]) -> str:
    """Return a query for how many numbers a sequence has to give until it is past these."""
    last = "last_value - CASE WHEN is_called THEN 0 ELSE seqincrement END"
    steps = ", ".join(f"ceil(({value}::numeric - ({last})) / seqincrement)" for value in sorted(values))
    return (
        f"SELECT greatest(0, {steps})::bigint FROM {sequence}, pg_sequence"  # noqa: S608 - the server's own quoting
        f" WHERE seqrelid = {literal(sequence)}::regclass"
    )


def _reach(tables: Tables, path: Path) -> str:
    """Return a query for whether no other foreign keys than those that are known act when a row is deleted."""
    known = [(table, key) for table, key in _children(tables, path) if key.on_delete in ACTING]
    names = ", ".join(f"({', '.join(map(literal, (*table.path, key.name)))})" for table, key in known)
    among = f"count(*) FILTER (WHERE (n.nspname::text, c.relname::text, conname::text) IN ({names}))" if known else "0"
    return (
        f"SELECT (count(*) = {len(known)} AND {among} = {len(known)})::int"  # noqa: S608 - quoted
        " FROM pg_constraint JOIN pg_class c ON c.oid = conrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        f" WHERE contype = 'f' AND conparentid = 0 AND confdeltype IN ('c', 'n', 'd') AND {_refers_to(path)}"
    )


def _unfollowed(path: Path, columns: Iterable[str]) -> str:
    """Return a query for whether no foreign key changes other rows with these columns; none that is known does."""
    names = ", ".join(map(literal, sorted(columns)))
    return (
        "SELECT (count(*) = 0)::int FROM pg_constraint WHERE contype = 'f' AND confupdtype IN ('c', 'n', 'd')"  # noqa: S608 - quoted
        f" AND {_refers_to(path)} AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = confrelid"
        f" AND attnum = ANY (confkey) AND attname IN ({names}))"
    )


def _refers_to(path: Path) -> str:
    """Return a condition for a foreign key to refer to a table, or to a partition of it."""
    parent = f"{literal(name_of(path))}::regclass"
    return f"(confrelid = {parent} OR confrelid IN (SELECT relid FROM pg_partition_tree({parent})))"  # noqa: S608 - quoted


def _children(tables: Tables, path: Path) -> Iterator[tuple[Table, Constraint]]:
    for table in tables.values():
        for key in table.foreign_keys:
            if key.parent == path:
                yield table, key


def _refuse(tables: Tables, table: Table, kinds: Mapping[ChangeKind, Sequence[Change]]) -> None:
    """Raise RefusedError for rows that cannot be written as they are."""
    if table.obstacle:
        raise RefusedError(f"rows of {table.label} differ, but {table.obstacle}")
    changed = {name for change in kinds.get("Modified", ()) for name in change.columns}
    for column in table.columns:
        if column.identity == "a" and column.name in changed:
            raise RefusedError(f"rows of {table.label} differ in {column.name}, which is GENERATED ALWAYS AS IDENTITY")
    for child, key in _children(tables, table.path):
        if key.on_update in ACTING and changed.intersection(key.parent_columns):
            raise RefusedError(
                f"rows of {table.label} differ in what {child.label} refers to, and {key.name} would change rows there"
            )


def _write(tables: Tables, table: Table, change: Change) -> str:
    """Return the statement for one row, which finds none if something is not as it was."""
    name = name_of(table.path)
    if change.before is None:
        cells = change.after or {}
        columns, values = ", ".join(map(quoted, cells)), ", ".join(map(literal, cells.values()))
        overriding = " OVERRIDING SYSTEM VALUE" if any(column.identity for column in table.columns) else ""
        there = f"SELECT FROM {name} AS t WHERE {found_by(change.key)}"
        return f"INSERT INTO {name} ({columns}){overriding} SELECT {values} WHERE NOT EXISTS ({there})"
    where = f"WHERE {found_by(change.key)} AND {same(change.before)}"
    if change.after is None:
        return f"DELETE FROM {source(table)} AS t {where}{''.join(_unreferred(tables, table))}"  # noqa: S608 - quoted
    sets = ", ".join(f"{quoted(column)} = {literal(change.after[column])}" for column in change.columns)
    return f"UPDATE {source(table)} AS t SET {sets} {where}"  # noqa: S608 - quoted


def _unreferred(tables: Tables, table: Table) -> Iterator[str]:
    """Hand out conditions for a row to go alone: nobody has reviewed that others go with it."""
    for child, key in _children(tables, table.path):
        if key.on_delete in ACTING:
            pairs = zip(key.columns, key.parent_columns, strict=True)
            match = " AND ".join(f"c.{quoted(column)} = t.{quoted(parent)}" for column, parent in pairs)
            keys = [f"ROW({', '.join(f'{alias}.{quoted(name)}' for name in table.key)})" for alias in "ct"]
            other = f" AND {keys[0]} IS DISTINCT FROM {keys[1]}" if child.path == table.path else ""
            yield f" AND NOT EXISTS (SELECT FROM {name_of(child.path)} AS c WHERE {match}{other})"


def _by_their_own_reference(table: Table, kind: ChangeKind, changes: Sequence[Change]) -> Iterable[Change]:
    """Return rows of one table so that those that refer to others of them come after those, or go before."""
    keys = [
        key
        for key in table.foreign_keys
        if key.parent == table.path and (not key.deferrable or key.on_delete in ACTING)
    ]
    if not keys or kind == "Modified":
        return changes
    rows = [(change.after if kind == "Added" else change.before) or {} for change in changes]
    needed: dict[int, set[int]] = {place: set() for place in range(len(rows))}
    for key in keys:
        places = {tuple(row[name] for name in key.parent_columns): place for place, row in enumerate(rows)}
        for place, row in enumerate(rows):
            parent = places.get(tuple(row[name] for name in key.columns), place)
            if parent != place:
                needed[place if kind == "Added" else parent].add(parent if kind == "Added" else place)
    try:
        return [changes[place] for place in TopologicalSorter(needed).static_order()]
    except CycleError:
        raise RefusedError(
            f"rows of {table.label} refer to each other in a circle: make its foreign key DEFERRABLE"
        ) from None
