"""How a PostgreSQL clone differs from the snapshot that it came from, read from two servers.

The *base* is a server on a copy of the snapshot, which nobody else uses; the *clone* is where somebody worked. The
login to the base owns the tables and is no superuser: statements are tried there that the clone's catalog has words in.

- Each side adds up its rows in buckets by a hash of their keys. Rows are read only where two sums differ, in the order
  of their keys' bytes, on both sides at once: in memory are the sums and a few rows, whatever the size of the tables.
- First the base gets the clone's columns, in a transaction that is rolled back. So rows are compared that have the same
  columns, and a row that only a new default has changed does not differ.
- The whole change set is tried on the base before anybody reads it: afterwards the two must be the same, definitions to
  the word and rows to the sum. What is not is refused by name, and so is a definition that does not read there as the
  clone has told it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Final

from coppice.engines import libpq
from coppice.engines.base import Endpoint
from coppice.engines.libpq import Session
from coppice.engines.merging import ChangeSet, TargetBusyError
from coppice.engines.patching import RefusedError
from coppice.engines.pgmigrations import Migration, Path, Tables, migration, quoted, renames
from coppice.engines.pgrows import Change, Tally, summarised
from coppice.engines.pgscripts import (
    MISMATCHES,
    OWN_NAMES,
    Part,
    Plan,
    Script,
    Sums,
    script_of,
    source,
    sums,
    sums_of,
    text_of,
)
from coppice.engines.pgtables import READING, Table, by_label, read_tables
from coppice.engines.shell import statements

MAX_ROWS: Final = 100_000
MAX_SIZE: Final = 1 << 26
"""How many rows a change set that is to be published may have, and about how many bytes of memory they may take: they
are all there, and in one transaction."""
MAX_TOLD: Final = 1000
"""How many characters are told of what differs: a definition may be as long as somebody likes."""
_BUCKETS: Final = 1 << 16
_BUSY: Final = frozenset({"40001", "40P01", "55P03", "57014"})
"""What becomes of statements for somebody else's sake: serialization, deadlock, lock_timeout, and being cancelled."""
_OPTIONS: Final = (
    f"{READING} -c search_path=pg_catalog,pg_temp -c row_security=off -c statement_timeout=0 -c lock_timeout=10s"
    " -c idle_in_transaction_session_timeout=0 -c default_transaction_read_only=off"
)
_TOTAL: Final = "SELECT count(*)::text, coalesce(max(oid), 0)::text FROM pg_largeobject_metadata"

Definitions = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """A database on a server, and who asks."""

    at: Endpoint
    database: str


@dataclass(frozen=True, slots=True)
class _Side:
    session: Session
    tables: Tables
    definitions: Definitions


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two servers whose tables have the same columns, for as long as this lasts. ``named`` are the tables of the base
    when nothing but columns had their names in the clone.
    """

    base: _Side
    clone: _Side
    named: Tables
    migration: Migration
    lost: Sequence[Sums]

    @property
    def redefined(self) -> Collection[str]:
        """Return the names of definitions that differ."""
        old, new = self.base.definitions, self.clone.definitions
        return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))

    @property
    def redefined_tables(self) -> Collection[str]:
        """Return those of them that are tables with rows, by what people call them."""
        tables = {table.label for side in (self.base, self.clone) for table in side.tables.values()}
        return {label for label in tables if f"table {label}" in self.redefined}


async def changes(base: Place, clone: Place) -> ChangeSet:
    """Count and hash what differs; nothing of it is kept."""
    async with _compared(base, clone) as pair:
        tallies: dict[str, Tally] = {}
        async with aclosing(_all(pair)) as found:
            async for change in found:
                tallies.setdefault(change.table, Tally()).add(change)
        return summarised(tallies, pair.redefined_tables, pair.migration.statements)


async def rows(base: Place, clone: Place, table: str | None = None) -> AsyncGenerator[Change, None]:
    """Hand out the rows that differ as they are found, table by table."""
    async with _compared(base, clone) as pair, aclosing(_all(pair, table)) as found:
        async for change in found:
            yield change


async def change_set(base: Place, clone: Place) -> Plan:
    """Return a change set that was tried on the base; raises RefusedError where it does not lead to the clone's rows
    and definitions.
    """
    kept: list[Change] = []
    async with _compared(base, clone) as pair:
        size = 0
        async with aclosing(_all(pair)) as found:
            async for change in found:
                kept.append(change)
                size += change.size
                if len(kept) > MAX_ROWS or size > MAX_SIZE:
                    raise RefusedError(f"more differs than {MAX_ROWS} rows, or {MAX_SIZE >> 20} MiB of memory for them")
        definitions = {
            name: (pair.base.definitions.get(name), pair.clone.definitions.get(name)) for name in pair.redefined
        }
        for label in {change.table for change in kept}:
            name = f"table {label}"
            definitions[name] = (pair.base.definitions.get(name), pair.clone.definitions.get(name))
        plan = Plan(pair.base.tables, pair.clone.tables, pair.migration, definitions, kept, pair.lost)
        await pair.base.session.ask("ROLLBACK")
        await _prove(pair, script_of(plan, definitions_query()))
    return plan


def definitions_query() -> str:
    """Return the query for all definitions by name, with their hashes."""
    return statements("postgresql/schema")


def session_options() -> str:
    """Return the settings of a session that reads or writes rows."""
    return _OPTIONS


async def ask(session: Session, statement: str) -> list[libpq.Row]:
    """Run one statement that may take its time."""
    return await session.ask_long(statement)


async def tables_of(session: Session) -> Tables:
    """Return the tables of a database."""
    return read_tables(row for (row,) in await ask(session, statements("postgresql/tables")))


@asynccontextmanager
async def _compared(base: Place, clone: Place) -> AsyncIterator[_Pair]:
    """Open both, and let the base have the clone's columns until this ends."""
    async with (
        libpq.work_session(base.at, base.database, options=_OPTIONS) as one,
        libpq.work_session(clone.at, clone.database, options=_OPTIONS) as other,
    ):
        await ask(one, "BEGIN ISOLATION LEVEL REPEATABLE READ")
        await ask(other, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        sides = [await _side(session) for session in (one, other)]
        await _refuse_large_objects(one, other)
        for side in sides:
            by_label(side.tables)
        yield await _made_alike(*sides)


async def _made_alike(base: _Side, clone: _Side) -> _Pair:
    """Give the base the clone's columns."""
    session = base.session
    renamed = renames(base.tables, clone.tables)
    await ask(session, "SAVEPOINT names")
    for statement in renamed:
        await _try(session, statement)
    named = await tables_of(session)
    found = migration(named, clone.tables)
    await ask(session, "ROLLBACK TO SAVEPOINT names")
    gone = [(base.tables[table.path], columns) for table, columns in found.lost]
    lost = [Sums(table, columns, await _sums(session, table, columns)) for table, columns in gone]
    steps = replace(found, first=renamed + found.first)
    for statement in steps.first:
        await _try(session, statement)
    await session.run(OWN_NAMES)
    return _Pair(base, clone, named, steps, lost)


async def _side(session: Session) -> _Side:
    await session.run(OWN_NAMES)
    [(encoding,)] = await ask(session, "SHOW server_encoding")
    if encoding == "SQL_ASCII":
        raise RefusedError("the database is in SQL_ASCII: nobody knows what its text means")
    found = await ask(session, definitions_query())
    return _Side(session, await tables_of(session), {str(name): str(state) for name, state in found})


async def _refuse_large_objects(one: Session, other: Session) -> None:
    if await ask(one, _TOTAL) != await ask(other, _TOTAL):
        raise RefusedError("large objects differ: they are in no table, and in no change set")


async def _try(session: Session, statement: str) -> None:
    """Run a statement on the base; what the server says of it may quote rows, and is not handed on."""
    try:
        await session.run(statement)
    except libpq.StatementError as error:
        _refuse_if_busy(error)
        raise RefusedError(
            f"this cannot be done with the rows as they were (SQLSTATE {error.state}): {statement[:MAX_TOLD]}"
        ) from None


def _refuse_if_busy(error: libpq.StatementError) -> None:
    """Raise TargetBusyError for what is wrong with the moment, and with nothing that was to be done: people compare
    there as well.
    """
    if error.state in _BUSY:
        raise TargetBusyError(f"somebody else compares on the same server (SQLSTATE {error.state})") from None


async def _sums(session: Session, table: Table, columns: Sequence[str]) -> tuple[str, ...]:
    [found] = await ask(session, sums_of(table, columns))
    return tuple(map(str, found))


async def _all(pair: _Pair, table: str | None = None) -> AsyncGenerator[Change, None]:
    """Hand out the rows that differ, of one table or of all."""
    for path, found in pair.clone.tables.items():
        if table in (None, found.label):
            async with aclosing(_differing(pair, path)) as differing:
                async for change in differing:
                    yield change


async def _differing(pair: _Pair, path: Path) -> AsyncGenerator[Change, None]:
    """Hand out the rows of a table that differ, in the order of their keys."""
    table = pair.clone.tables[path]
    buckets = await _buckets(pair, table)
    if buckets and table.obstacle:
        raise RefusedError(f"rows of {table.label} differ, but {table.obstacle}")
    if not buckets:
        return
    widest = max(buckets.values())
    if widest > MAX_SIZE:
        raise RefusedError(f"among the rows of {table.label} that differ is one of more than {MAX_SIZE} bytes")
    old = pair.named.get(path)
    known = [name for name in table.stored if old is not None and name in old.stored]
    sides = [side.session.texts(_rows_query(table, buckets), widest=widest) for side in (pair.base, pair.clone)]
    async with aclosing(sides[0]) as ours, aclosing(sides[1]) as theirs:
        async for before, after in _joined(ours, theirs):
            if before != after:
                yield _change(table, known, before, after)


def _change(table: Table, known: Sequence[str], before: _Row | None, after: _Row | None) -> Change:
    one, other = (None if row is None else dict(zip(table.stored, row[1:], strict=True)) for row in (before, after))
    row = other or one or {}
    key = {name: row[name] for name in table.key}
    return Change(table.label, key, None if one is None else {name: one[name] for name in known}, other)


_Row = tuple[str | None, ...]


async def _joined(
    ours: AsyncIterator[_Row], theirs: AsyncIterator[_Row]
) -> AsyncGenerator[tuple[_Row | None, _Row | None], None]:
    """Hand out the rows of two streams by their first cells, in whose order they are."""
    one, other = await anext(ours, None), await anext(theirs, None)
    while one is not None or other is not None:
        before = one if other is None or (one is not None and _place(one) <= _place(other)) else None
        after = other if one is None or (other is not None and _place(other) <= _place(one)) else None
        yield before, after
        one = one if before is None else await anext(ours, None)
        other = other if after is None else await anext(theirs, None)


def _place(row: _Row) -> str:
    return row[0] or ""


def _bucket(table: Table) -> str:
    return f"(hashtextextended({text_of(table.key or table.stored)}, 0) & {_BUCKETS - 1})"


def _rows_query(table: Table, buckets: Collection[int]) -> str:
    columns = ", ".join(f"t.{quoted(name)}" for name in table.stored)
    listed = ",".join(map(str, sorted(buckets)))
    among = "" if len(buckets) > _BUCKETS // 2 else f" WHERE {_bucket(table)} = ANY ('{{{listed}}}'::bigint[])"
    return f"SELECT {text_of(table.key)}, {columns} FROM {source(table)} AS t{among} ORDER BY 1"  # noqa: S608 - quoted


async def _buckets(pair: _Pair, table: Table) -> Mapping[int, int]:
    """Return the buckets whose sums differ, with how many bytes their widest row has."""
    # The fence has each row's text made once; as a constant of this very type it leaves several processes at it.
    rows = f"SELECT {_bucket(table)} AS bucket, {text_of(table.stored)} AS whole FROM {source(table)} AS t OFFSET '0'"  # noqa: S608 - quoted
    query = f"SELECT bucket::text, {sums('whole')}, max(octet_length(whole))::text FROM ({rows}) AS r GROUP BY bucket"  # noqa: S608
    sides = (pair.base.session, pair.clone.session)
    old, new = await asyncio.gather(*(_summed(session, query) for session in sides))
    differing = [bucket for bucket in {*old, *new} if old.get(bucket) != new.get(bucket)]
    return {bucket: max(int(side[bucket][-1] or 1) for side in (old, new) if bucket in side) for bucket in differing}


async def _summed(session: Session, query: str) -> Mapping[int, _Row]:
    return {int(row[0]): tuple(row[1:]) for row in await ask(session, query)}


async def rehearse(base: Session, script: Script) -> None:
    """Do all of a change set on the base but the end."""
    for part in chain(script.opening, script.rows):
        await _try_part(base, script, part)
    failed = [script.guards[int(number) - 1] for (number,) in await ask(base, MISMATCHES)]
    if failed:
        raise RefusedError(f"the change set does not fit what it came from: {failed[0].kind} {failed[0].place}")
    for part in script.closing:
        await _try_part(base, script, part)


async def _prove(pair: _Pair, script: Script) -> None:
    """Do all of it on the base, and compare."""
    base = pair.base.session
    await rehearse(base, script)
    found = await _side(base)
    _refuse_other_definitions(found, pair.clone)
    for path, table in pair.clone.tables.items():
        if found.tables[path].columns != table.columns or await _buckets(pair, table):
            raise RefusedError(f"rows of {table.label} do not become what they are in the clone")
    await ask(base, "ROLLBACK")


async def _try_part(session: Session, script: Script, part: Part) -> None:
    if part.guard is None:
        await _try(session, part.statement)
        return
    try:
        await session.run(part.statement)
    except libpq.StatementError as error:
        _refuse_if_busy(error)
        guard = script.guards[part.guard - 1]
        raise RefusedError(
            f"{guard.kind} {guard.place} cannot be written as it is in the clone (SQLSTATE {error.state})"
        ) from None


def _refuse_other_definitions(found: _Side, wanted: _Side) -> None:
    """Raise RefusedError for what the statements did not make the same, or what reads otherwise than it was told."""
    names = {*found.definitions, *wanted.definitions}
    other = sorted(name for name in names if found.definitions.get(name) != wanted.definitions.get(name))
    other += [f"table {table.label}" for path, table in wanted.tables.items() if found.tables.get(path) != table]
    if other:
        raise RefusedError(f"this differs in a way that is in no change set: {', '.join(other[:10])[:MAX_TOLD]}")
