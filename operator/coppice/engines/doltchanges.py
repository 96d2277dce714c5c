# ruff: noqa: S608 - every name in a statement is quoted by identifier() or literal(), and so is every value
"""How two versions of a Dolt database differ: commits, counts, rows.

Facts this rests on, each with a test in ``tests/contract``:

- ``dolt_diff(from, to, table)`` walks only what differs, whatever the size of the table. Its columns are all those of
  the newer definition, two of the commit, all those of the older one, two more and the kind: they are taken by their
  places, as a column of a user's may be called ``commit``.
- Where the primary key's columns differ, that function pairs rows that have nothing to do with each other, and
  ``dolt_diff_summary`` and ``dolt_patch`` say nothing. Such a table is read whole, from either side.
- Nothing of this leaves a trace in ``activity``: it is asked in a transaction begun before any ``USE``.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from coppice.engines import mysql
from coppice.engines.base import Endpoint, UnknownVersionError
from coppice.engines.digests import addend, hashed, summary
from coppice.engines.doltrefs import commit_of, use
from coppice.engines.merging import Authors, Binary, ChangeKind, ChangeSet, CommitInfo, RowChange, TableChanges, Value
from coppice.engines.mysql import Session, identifier, literal

MAX_AUTHORS: Final = 1000
_KINDS: Final[Mapping[str, ChangeKind]] = {"added": "Added", "modified": "Modified", "removed": "Deleted"}
_COLUMN: Final = re.compile(r"^  `((?:[^`]|``)+)` ", re.MULTILINE)
_KEY: Final = re.compile(r"^  PRIMARY KEY \((.+?)\),?$", re.MULTILINE)
_NAME: Final = re.compile(r"`((?:[^`]|``)+)`")
_COUNTER: Final = re.compile(r" AUTO_INCREMENT=\d+(?=[^\n]*\Z)")
_PROGRAMS: Final = {"dolt_schemas": "fragment", "dolt_procedures": "create_stmt"}
"""The tables that hold views, triggers, events and procedures, and the column that is the statement."""

Cells = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Definition:
    """The names of a table's columns, and of those of its primary key."""

    columns: tuple[str, ...]
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A table that differs: its name on either side, and its definition there, or None where it does not exist."""

    before: str | None
    after: str | None
    old: str | None
    new: str | None

    @property
    def name(self) -> str:
        """Return the name it has now, or had last."""
        return self.after or self.before or ""

    @property
    def redefined(self) -> bool:
        """Return whether the definitions differ, or the names."""
        return self.before != self.after or self.old != self.new

    @property
    def rekeyed(self) -> bool:
        """Return whether rows of the two sides cannot be told to be the same."""
        if self.old is None or self.new is None:
            return False
        return read_definition(self.old).key != read_definition(self.new).key


@dataclass(frozen=True, slots=True)
class Change:
    """One row that differs, with values as the driver has them."""

    kind: ChangeKind
    before: Cells | None
    after: Cells | None


def read_definition(statement: str) -> Definition:
    """Return the columns and the key that a ``CREATE TABLE`` of Dolt's names."""
    key = _KEY.search(statement)
    names = [_unquoted(match) for match in _NAME.findall(key.group(1))] if key else []
    return Definition(tuple(_unquoted(match) for match in _COLUMN.findall(statement)), tuple(names))


def _unquoted(name: str) -> str:
    return name.replace("``", "`")


def as_value(cell: Any) -> Value:
    """Return a cell as a person would write it."""
    match cell:
        case None | str() | int() | float():
            return cell
        case bytes():
            return Binary(f"0x{cell.hex()}")
        case datetime():
            return cell.isoformat(sep=" ")
        case date():
            return cell.isoformat()
        case timedelta():
            return _time(cell)
        case Decimal():
            return format(cell, "f")
        case _:
            return str(cell)


def _time(span: timedelta) -> str:
    """Return a TIME, which may be negative or longer than a day."""
    microseconds = abs(span) // timedelta(microseconds=1)
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return ("-" if span < timedelta() else "") + text + (f".{fraction:06}" if fraction else "")


def as_values(cells: Cells) -> dict[str, Value]:
    """Return a row as a person would write it."""
    return {name: as_value(cell) for name, cell in cells.items()}


def canonical(cells: Cells | None) -> Any:
    """Return a row as JSON in which cells are equal only if they are, type and all."""
    if cells is None:
        return None
    return {name: [type(cell).__name__, as_value(cell)] for name, cell in cells.items()}


@asynccontextmanager
async def reading(at: Endpoint, database: str) -> AsyncIterator[Session]:
    """Open a session that may take its time and leaves no trace of having read."""
    async with mysql.work_session(at) as session:
        await session.ask("START TRANSACTION READ ONLY")
        await use(session, database)
        yield session


async def log(at: Endpoint, database: str, start: str, *, limit: int) -> Sequence[CommitInfo]:
    """Return commits backwards from a version."""
    async with reading(at, database) as session:
        return await _log(session, await commit_of(session, database, start), limit)


async def authors_between(at: Endpoint, database: str, base: str, head: str) -> Authors:
    """Return who made the commits that ``head`` has and ``base`` has not."""
    async with reading(at, database) as session:
        commits = [await commit_of(session, database, version) for version in (base, head)]
        [rows] = await session.ask(
            f"SELECT DISTINCT committer, email FROM dolt_log({literal('..'.join(commits))}) LIMIT {MAX_AUTHORS + 1}"
        )
    names = frozenset(str(name) for row in rows[:MAX_AUTHORS] for name in row)
    return Authors(names, cut=len(rows) > MAX_AUTHORS)


async def commit_info(session: Session, commit: str) -> CommitInfo:
    """Return a commit that is there."""
    [info] = await _log(session, commit, 1)
    return info


async def _log(session: Session, revisions: str, limit: int) -> Sequence[CommitInfo]:
    [rows] = await session.ask(
        "SELECT commit_hash, parents, committer, email, date, message"
        f" FROM dolt_log({literal(revisions)}, '--parents') LIMIT {int(limit)}"
    )
    return [
        CommitInfo(commit, tuple(filter(None, parents.split(", "))), author, email, time.replace(tzinfo=UTC), message)
        for commit, parents, author, email, time, message in rows
    ]


async def merge_base(at: Endpoint, database: str, one: str, other: str) -> str | None:
    """Return the newest commit that two versions share."""
    async with reading(at, database) as session:
        return await base_of(session, *[await commit_of(session, database, version) for version in (one, other)])


async def base_of(session: Session, one: str, other: str) -> str | None:
    """Return the newest commit that two commits share."""
    try:
        [((base,),)] = await session.ask(f"SELECT dolt_merge_base({literal(one)}, {literal(other)})")
    except mysql.StatementError as error:
        if "no common ancestor" not in error.text:
            raise
        return None
    return str(base) if base else None


async def changes(at: Endpoint, database: str, before: str, after: str) -> ChangeSet:
    """Count and hash what differs; one pass, and no more than one row in memory."""
    async with reading(at, database) as session:
        old, new = [await commit_of(session, database, version) for version in (before, after)]
        return await changes_between(session, old, new)


async def changes_between(session: Session, old: str, new: str) -> ChangeSet:
    """Count and hash what differs between two commits of the current database."""
    tables: list[TableChanges] = []
    statements: list[str] = []
    digests: list[Any] = []
    for pair in await _pairs(session, old, new):
        counts: dict[ChangeKind, int] = {"Added": 0, "Modified": 0, "Deleted": 0}
        total = 0
        if pair.redefined and pair.name not in _PROGRAMS:
            statements.extend(await _statements(session, old, new, pair))
        async with aclosing(_changed(session, old, new, pair)) as rows:
            async for row in rows:
                counts[row.kind] += 1
                total += addend([canonical(row.before), canonical(row.after)])
                if pair.name in _PROGRAMS:
                    statements.append(_program(pair.name, row))
        redefined = pair.redefined or pair.name in _PROGRAMS
        tables.append(TableChanges(pair.name, counts["Added"], counts["Modified"], counts["Deleted"], redefined))
        definitions = [pair.old, pair.new] if pair.redefined else None
        digests.append([pair.before, pair.after, definitions, *summary(counts, total)])
    return ChangeSet(tuple(tables), tuple(statements), hashed(digests).hex())


async def rows(
    at: Endpoint, database: str, before: str, after: str, table: str | None = None
) -> AsyncGenerator[RowChange, None]:
    """Hand out the rows that differ."""
    async with reading(at, database) as session:
        old, new = [await commit_of(session, database, version) for version in (before, after)]
        pairs = [
            pair for pair in await _pairs(session, old, new) if table is None or table in (pair.before, pair.after)
        ]
        if table is not None and not pairs:
            await _expect_table(session, table, (old, new))
        for pair in pairs:
            async with aclosing(_changed(session, old, new, pair)) as found:
                async for change in found:
                    yield _row_change(pair, change)


async def _expect_table(session: Session, table: str, commits: Sequence[str]) -> None:
    for commit in commits:
        if await definition_at(session, table, commit) is not None:
            return
    raise UnknownVersionError(f"there is no table {table}")


async def definition_at(session: Session, table: str, commit: str) -> str | None:
    """Return a table's definition in a commit, or None where it has no such table."""
    try:
        [((_, statement),)] = await session.ask(f"SHOW CREATE TABLE {identifier(table)} AS OF {literal(commit)}")
    except mysql.StatementError as error:
        if error.code != mysql.UNKNOWN_TABLE:
            raise
        return None
    return str(statement)


async def _pairs(session: Session, old: str, new: str) -> Sequence[Pair]:
    """Return the tables that differ, in the order of their names; neither of the two functions names all of them."""
    versions = f"{literal(old)}, {literal(new)}"
    summary, schemas = await session.ask(
        f"SELECT from_table_name, to_table_name FROM dolt_diff_summary({versions});"
        " SELECT from_table_name, to_table_name, from_create_statement, to_create_statement"
        f" FROM dolt_schema_diff({versions})"
    )
    pairs = {
        (before, after): Pair(before or None, after or None, _plain(from_statement), _plain(to_statement))
        for before, after, from_statement, to_statement in schemas
    }
    for before, after in summary:
        if (before, after) not in pairs:
            statement = await definition_at(session, after or before, new if after else old)
            plain = _plain(statement or "")
            pairs[before, after] = Pair(before or None, after or None, plain, plain)
    return sorted(pairs.values(), key=lambda pair: (pair.name, pair.before or ""))


def _plain(statement: str) -> str | None:
    """Return a definition without its counter, or None for no definition."""
    return _COUNTER.sub("", statement.removesuffix(";")) or None


async def _statements(session: Session, old: str, new: str, pair: Pair) -> Sequence[str]:
    """Return what changes a definition; where Dolt has no statement for it, the new definition."""
    [found] = await session.ask(
        f"SELECT statement FROM dolt_patch({literal(old)}, {literal(new)}, {literal(pair.name)})"
        " WHERE diff_type = 'schema' ORDER BY statement_order"
    )
    statements = [_COUNTER.sub("", statement) for (statement,) in found]
    if pair.rekeyed:
        return [*(text for text in statements if " PRIMARY KEY" not in text), *_key_statements(pair)]
    return statements if statements or pair.new is None else [f"{pair.new};"]


def _key_statements(pair: Pair) -> Iterable[str]:
    old, new = (read_definition(statement or "").key for statement in (pair.old, pair.new))
    if old:
        yield f"ALTER TABLE {identifier(pair.name)} DROP PRIMARY KEY;"
    if new:
        yield f"ALTER TABLE {identifier(pair.name)} ADD PRIMARY KEY ({','.join(map(identifier, new))});"


def _program(table: str, change: Change) -> str:
    """Return the statement of a view, trigger, event or procedure that is new, or what drops one."""
    if change.after is not None:
        return f"{str(change.after[_PROGRAMS[table]]).rstrip(';')};"
    gone = change.before or {}
    kind = str(gone.get("type", "procedure")).upper()
    return f"DROP {kind} {identifier(str(gone['name']))};"


async def _changed(session: Session, old: str, new: str, pair: Pair) -> AsyncGenerator[Change, None]:
    if pair.rekeyed:
        async for change in _replaced(session, old, new, pair):
            yield change
        return
    statement = f"SELECT * FROM dolt_diff({literal(old)}, {literal(new)}, {literal(pair.name)})"
    async with aclosing(session.named_rows(statement)) as found:
        async for names, row in found:
            split = len(names) - 1 - names[::-1].index("to_commit_date")
            after = _cells(names[: split - 1], row, 0, "to_")
            before = _cells(names[split + 1 : -3], row, split + 1, "from_")
            kind = _KINDS[row[-1]]
            yield Change(kind, None if kind == "Added" else before, None if kind == "Deleted" else after)


def _cells(names: Sequence[str], row: Sequence[Any], place: int, prefix: str) -> Cells:
    return {name.removeprefix(prefix): row[place + number] for number, name in enumerate(names)}


async def _replaced(session: Session, old: str, new: str, pair: Pair) -> AsyncGenerator[Change, None]:
    for name, commit in ((pair.before, old), (pair.after, new)):
        statement = f"SELECT * FROM {identifier(name or '')} AS OF {literal(commit)}"
        async with aclosing(session.named_rows(statement)) as found:
            async for names, row in found:
                cells = dict(zip(names, row, strict=True))
                yield Change("Deleted", cells, None) if commit == old else Change("Added", None, cells)


def _row_change(pair: Pair, change: Change) -> RowChange:
    row, statement = (change.before, pair.old) if change.after is None else (change.after, pair.new)
    cells = row or {}
    key = read_definition(statement or "").key
    return RowChange(
        table=pair.name,
        kind=change.kind,
        key={name: as_value(cells[name]) for name in key},
        before=None if change.before is None else as_values(change.before),
        after=None if change.after is None else as_values(change.after),
    )
