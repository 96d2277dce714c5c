"""How a change set comes to the live PostgreSQL database: judged by what is there, and written in one transaction.

The live rows are looked at before anybody approves: what both sides have changed is merged cell by cell or a conflict,
and each row that is left to write is guarded by all that it was then. Whoever is asked again finds, by the
transaction's own number, whether it was committed: before that one is known, nothing is.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

from coppice.engines import libpq
from coppice.engines.base import EngineError
from coppice.engines.libpq import Session
from coppice.engines.merging import Conflict, ConflictKind, Side, TargetBusyError, TargetMovedError
from coppice.engines.patching import Fate
from coppice.engines.pgcompare import Place, ask, definitions_query, session_options
from coppice.engines.pgmigrations import quoted
from coppice.engines.pgrows import Cells, Change, conflict, images, merge
from coppice.engines.pgscripts import MISMATCHES, Part, Plan, Script, found_by, source
from coppice.engines.pgtables import Table, by_label

WRITE_SECONDS: Final = 180.0
"""For a whole transaction: others wait for what it holds, and who has begun it is taken to be stuck in the end."""
_BATCH: Final = 200
"""How many live rows are asked for at once."""
_BROKEN: Final[Mapping[str, ConflictKind]] = {
    "23502": "NotNull",
    "23503": "ForeignKey",
    "23505": "Unique",
    "23514": "Check",
    "23P01": "Unique",
}
_MOVED: Final = frozenset({"40001", "40P01", "42P01", "42703", "42701", "42710", "42P07"})
"""Somebody was faster, or a table or column is gone, or there already."""
_LOCKED: Final = "55P03"
_TABLE: Final = "table "
"""What the name of a table's definition begins with."""

_LIVE: Final = (
    " -c idle_in_transaction_session_timeout=60s -c tcp_user_timeout=30s"
    " -c tcp_keepalives_idle=20 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=3"
)
"""A transaction of somebody who is gone ends within about a minute: who asks what became of it waits no longer, and no
live server keeps rows for it that nobody else can see.
"""
_SERVER: Final = """\
SELECT system_identifier::text, left(pg_walfile_name(pg_current_wal_insert_lsn()), 8),
       (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint::text
FROM pg_control_system()"""
"""Which cluster it is, and which of its histories: a transaction's number means nothing beyond. And when it was
started: its volume may have been put back since, and the number be another's.
"""
_NAMED: Final = re.compile(r"xid:([0-9]+)@(-?[0-9]+)-([0-9A-F]{8})-([0-9]+)")
_IN_THE_FUTURE: Final = "22023"

_Key = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What is left to do on the live database, what is in conflict with it, and what was and is ``decided``.

    ``complete``: it holds all of the change set as it is, definitions too.
    """

    plan: Plan
    conflicts: tuple[Conflict, ...] = field(default=(), repr=False)
    decided: tuple[Conflict, ...] = field(default=(), repr=False)
    complete: bool = False


async def judge(target: Place, plan: Plan, salt: str, side_of: Callable[[Conflict], Side | None]) -> Judged:
    """Merge a change set with what the live database holds; ``side_of`` says which side a conflict takes, if decided.

    Only read rights are needed. Rows of a table whose columns change types or names are not looked at, but guarded.
    """
    async with libpq.work_session(target.at, target.database, options=session_options() + _LIVE) as session:
        await ask(session, "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        definitions = {str(name): str(state) for name, state in await ask(session, definitions_query())}
        if await _is_complete(session, plan, definitions):
            return Judged(replace(plan, rows=()), complete=True)
        redefined = sorted(name for name, (before, _) in plan.definitions.items() if definitions.get(name) != before)
        found = _Judgement(salt, side_of)
        found.conflicts.extend(conflict(salt, "Schema", name.removeprefix(_TABLE), {}, None) for name in redefined)
        paths = by_label(plan.new)
        for label, changes in groupby(plan.rows, lambda change: change.table):
            old, new = plan.old.get(paths[label]), plan.new[paths[label]]
            if f"{_TABLE}{label}" in redefined:
                continue
            if old is None or _reshaped(old, new):
                found.rows.extend(changes)
                continue
            await _judge(session, found, old, new, list(changes))
        return Judged(replace(plan, rows=found.rows), tuple(found.conflicts), tuple(found.decided))


async def _judge(session: Session, found: _Judgement, old: Table, new: Table, changes: Sequence[Change]) -> None:
    """Merge the rows of one table with the live ones."""
    known = [name for name in new.stored if name in old.stored]
    first, doubtful, there = len(found.rows), set[_Key](), set[_Key]()
    for batch in _batches(changes):
        live = await _live(session, old, known, [change.key for change in batch])
        asked = {_key(change) for change in batch}
        doubtful |= asked if live.keys() - asked else set()
        there |= {_key(change) for change in batch if change.after is None} & live.keys()
        for change in batch:
            found.add(change, live.get(_key(change)))
    if found.conflicts:
        # What rules say of it is found out when nothing is open any more.
        return
    gone = {_key(row) for row in found.rows[first:] if row.after is None}
    for row in found.rows[first:]:
        if row.before is None and (_key(row) in doubtful or there - gone):
            equal = await _live(session, old, known, [row.key])
            for key in sorted(equal.keys() - gone, key=str):
                found.stands_in_the_way_of(row, new, equal[key])


class _Judgement:
    """Gathers what becomes of the rows."""

    def __init__(self, salt: str, side_of: Callable[[Conflict], Side | None]) -> None:
        self._salt = salt
        self._side_of = side_of
        self.rows: list[Change] = []
        self.conflicts: list[Conflict] = []
        self.decided: list[Conflict] = []

    def add(self, change: Change, ours: Cells | None) -> None:
        """Merge one row."""
        found = merge(change.before, ours, change.after, lambda place: self._side_of(self._named(change, ours, place)))
        self.conflicts.extend(self._named(change, ours, place) for place in found.conflicts)
        self.decided.extend(self._named(change, ours, place) for place in found.decided)
        if (ours, found.row) == (change.before, change.after):
            # It is in memory already.
            self.rows.append(change)
        elif found.row != ours:
            self.rows.append(Change(change.table, change.key, ours, found.row))

    def stands_in_the_way_of(self, row: Change, table: Table, other: Cells) -> None:
        """Name a row that cannot be added, for there is one whose key is equal, and another text."""
        rule = next(constraint.name for constraint in table.constraints if constraint.kind == "p")
        named = conflict(self._salt, "Unique", row.table, row.key, None)
        self.conflicts.append(replace(named, ours=other, theirs=row.after, detail=rule))

    def _named(self, change: Change, ours: Cells | None, place: str | None) -> Conflict:
        kind: ConflictKind = "Row" if place is None else "Cell"
        base, live, theirs = images(place, (change.before, ours, change.after))
        return replace(conflict(self._salt, kind, change.table, change.key, place), base=base, ours=live, theirs=theirs)


async def _is_complete(session: Session, plan: Plan, definitions: Mapping[str, str]) -> bool:
    """Return whether nothing of a change set is left to do; it stops at the first thing that is."""
    if any(definitions.get(name) != after for name, (_, after) in plan.definitions.items()):
        return False
    paths = by_label(plan.new)
    for label, changes in groupby(plan.rows, lambda change: change.table):
        table = plan.new[paths[label]]
        for batch in _batches(list(changes)):
            live = await _live(session, table, table.stored, [change.key for change in batch])
            if any(live.get(_key(change)) != change.after for change in batch):
                return False
    return True


def _reshaped(old: Table, new: Table) -> bool:
    known = {column.number: (column.name, column.type) for column in old.columns}
    now = {column.number: (column.name, column.type) for column in new.columns}
    return any(known[number] != now[number] for number in known.keys() & now.keys())


def _batches(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    for start in range(0, len(changes), _BATCH):
        yield changes[start : start + _BATCH]


def _key(change: Change) -> _Key:
    return tuple(change.key.values())


async def _live(session: Session, table: Table, columns: Sequence[str], keys: Iterable[Cells]) -> Mapping[_Key, Cells]:
    """Return the rows with these keys, and such as count as the same, by their keys to the letter."""
    wanted = ", ".join(f"t.{quoted(name)}" for name in columns)
    where = " OR ".join(f"({found_by(key)})" for key in keys)
    found = [
        dict(zip(columns, row, strict=True))
        async for row in session.texts(f"SELECT {wanted} FROM {source(table)} AS t WHERE {where}")  # noqa: S608 - quoted
    ]
    return {tuple(row[name] for name in table.key): row for row in found}


async def publish(
    target: Place, script: Script, salt: str, begun: Callable[[str], Awaitable[None]]
) -> Sequence[Conflict]:
    """Write a change set, and return nothing; or return the rule that it breaks there, and write nothing.

    ``begun`` is told the name of the transaction when all is written and nothing committed. Raises TargetMovedError
    where a guard does not hold, TargetBusyError where somebody has a table that is needed for longer than is waited.
    """
    at: list[Part] = []
    try:
        async with (
            asyncio.timeout(WRITE_SECONDS),
            libpq.work_session(target.at, target.database, options=session_options() + _LIVE) as session,
        ):
            await _write(session, script, at, begun)
    except libpq.StatementError as error:
        return [_refusal(error, script, at, salt)]
    except TimeoutError:
        raise EngineError(
            f"it cannot be written within {WRITE_SECONDS:.0f} s: publish less at once, or hand it over as a Patch"
        ) from None
    return ()


async def _write(session: Session, script: Script, at: list[Part], begun: Callable[[str], Awaitable[None]]) -> None:
    for stage in (script.opening, script.rows):
        looked = False
        for part in stage:
            if looked and part.guard is None:
                # What comes now rests on it, and would say less well what is wrong.
                await _expect_all(session, script)
            looked = part.guard is not None
            at[:] = [part]
            await session.run(part.statement)
        await _expect_all(session, script)
    at.clear()
    for part in script.closing:
        await session.run(part.statement)
    await _expect_all(session, script)
    # What the end of the transaction looks at is looked at now: there is nothing left for COMMIT to refuse.
    await session.run("SET CONSTRAINTS ALL IMMEDIATE")
    [(number,)] = await ask(session, "SELECT pg_current_xact_id()::text")
    [server] = await ask(session, _SERVER)
    await begun(f"xid:{number}@{'-'.join(map(str, server))}")
    await session.run("COMMIT")


async def _expect_all(session: Session, script: Script) -> None:
    """Raise TargetMovedError for guards that did not hold."""
    failed = [script.guards[int(number) - 1] for (number,) in await ask(session, MISMATCHES)]
    if failed:
        named = ", ".join(sorted({f"{guard.kind} {guard.place}" for guard in failed})[:10])
        raise TargetMovedError(f"{len(failed)} things are not as they were: {named}")


def _refusal(error: libpq.StatementError, script: Script, at: Sequence[Part], salt: str) -> Conflict:
    """Return the rule that was broken, or raise what else was wrong; what the server said may quote rows."""
    if error.state in _MOVED:
        raise TargetMovedError("others have changed the same things at the same moment") from None
    if error.state == _LOCKED:
        raise TargetBusyError("somebody holds a lock on a table that is to be written") from None
    if error.state not in _BROKEN:
        raise EngineError(f"the server refused what was to be written (SQLSTATE {error.state})") from None
    number = at[0].guard if at else None
    change = None if number is None else script.guards[number - 1].change
    table, key = (error.table, {}) if change is None else (change.table, change.key)
    broken = conflict(salt, _BROKEN[error.state], table, key, None)
    return replace(broken, theirs=None if change is None else change.after, detail=error.rule)


async def outcome(target: Place, name: str) -> Fate:
    """Return what became of a transaction by the name that ``begun`` was told: ``Unknown`` if that was too long ago to
    tell, if this is not the server any more that it was on, under its history, or if it was committed on one that was
    started anew since: what was written then is told by the rows.
    """
    named = _NAMED.fullmatch(name)
    if named is None:
        return "Unknown"
    async with libpq.session(target.at, target.database, options=session_options()) as session:
        [(system, timeline, started)] = await session.ask(_SERVER)
        if (system, timeline) != (named[2], named[3]):
            return "Unknown"
        try:
            [(status,)] = await session.ask("SELECT pg_xact_status(%s::xid8)", [named[1]])
        except libpq.StatementError as error:
            if error.state != _IN_THE_FUTURE:
                raise
            return "Unknown"
    committed: Fate = "Committed" if started == named[4] else "Unknown"
    told: Mapping[str | None, Fate] = {"committed": committed, "aborted": "Aborted", "in progress": "Open"}
    return told.get(status, "Unknown")
