# ruff: noqa: S608 - every name in a statement is quoted by identifier() or literal(), and so is every value
"""Merges of two commits of a Dolt database, and what they conflict in.

A merge is made in one transaction on a branch of its own: either it becomes a commit, or nothing of it is left.

Facts this rests on, each with a test in ``tests/contract``:

- Views, triggers, events and procedures are rows of tables that a statement about a conflict does not write to (the
  server breaks off the connection): those are conflicts of definitions, to be mended on the source.
- In a session on another branch Dolt denies its table functions to everybody but the administrator.
- With ``autocommit`` on Dolt rolls a merge with conflicts back before they can be read.
- ``dolt_conflicts_<table>`` has the rows of both sides in the merged definition, and those of the base in its own.
  What it says of the rows that conflict is right, and it is Dolt that finds them; which cells do is found here.
- A column that one side has changed in a row and the other has dropped is in neither: that is a schema conflict.
- ``dolt_verify_constraints`` cannot note what it finds in the middle of a merge (its notes name a root that is not
  stored): rows without their parent are looked for here when decisions have changed rows. The other constraints refuse
  a decision that breaks them.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from coppice.engines import mysql
from coppice.engines.base import Endpoint, EngineError
from coppice.engines.decisions import Decisions
from coppice.engines.digests import hashed
from coppice.engines.doltbranches import signature_of
from coppice.engines.doltchanges import (
    Definition,
    as_value,
    as_values,
    base_of,
    canonical,
    changes,
    commit_info,
    definition_at,
    read_definition,
)
from coppice.engines.doltprotection import reserve
from coppice.engines.doltrefs import LOOK_PREFIX, OWN_PREFIX, branch_row, commit_of, use
from coppice.engines.merging import (
    MAX_CONFLICTS,
    Conflict,
    ConflictKind,
    ConflictName,
    MergeInputs,
    MergeOutcome,
    Side,
    Signature,
    UnrelatedError,
)
from coppice.engines.mysql import Session, identifier, literal

RESULT_PREFIX: Final = f"{OWN_PREFIX}merge-"
_WORK_PREFIX: Final = f"{OWN_PREFIX}merging-"
_BATCH: Final = 200
"""How many rows in conflict are in memory at once."""
_SYSTEM_PREFIX: Final = "dolt_"
_REFUSED: Final = (
    (re.compile(r"table (.+?) has different primary keys"), "the primary keys differ"),
    (re.compile(r"table with same name '(.+?)' added in 2 commits"), "both sides have made this table"),
)
"""What Dolt refuses to merge at all, instead of noting a conflict: the table, and what we call it."""
_RENAMED: Final = re.compile(r"^ALTER TABLE .+ RENAME COLUMN `(.+)` TO `(.+)`;$")
_BROKEN: Final[Mapping[str, ConflictKind]] = {
    "foreign key": "ForeignKey",
    "unique index": "Unique",
    "check constraint": "Check",
    "not null": "NotNull",
}
_REFUSALS: Final[Mapping[int, ConflictKind]] = {1062: "Unique", 3819: "Check", 1048: "NotNull"}
"""By their MySQL numbers, the constraints that refuse to let a decision have its way."""

Cells = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Row:
    """A row that Dolt finds in conflict, None on a side that lacks it; ``counts`` are of a table without a key."""

    id: str
    base: Cells | None
    ours: Cells | None
    theirs: Cells | None
    counts: tuple[int, int, int] | None = None
    added: Mapping[str, Side] = field(default_factory=dict)
    """The columns that one side alone has: the other one's value is only what fills them."""

    @property
    def any(self) -> Cells:
        return self.ours or self.theirs or self.base or {}

    @property
    def cells(self) -> Sequence[str]:
        """Return the columns in which both sides differ, and none of them is as it was."""
        if self.ours is None or self.theirs is None:
            return ()
        base = self.base
        return [
            name
            for name, ours in self.ours.items()
            if ours != self.theirs[name]
            and name not in self.added
            and (base is None or name not in base or (base[name] != ours and base[name] != self.theirs[name]))
        ]

    def taken(self, cells: Iterable[str]) -> frozenset[str]:
        """Return the columns to take from the source, given those that are decided for it: those that it alone has
        changed, too.
        """
        ours, theirs, base = self.ours or {}, self.theirs or {}, self.base
        alone = {name for name in ours if base is not None and name in base and base[name] == ours[name]}
        alone |= {name for name, side in self.added.items() if side == "Source"}
        return frozenset({*cells, *(name for name in alone if theirs[name] != ours[name])})


@dataclass(frozen=True, slots=True)
class _Table:
    """A table with rows in conflict, as it is in the merge."""

    name: str
    definition: Definition
    renamed: Mapping[str, str]
    dropped: Sequence[str]
    added: Mapping[str, Side]

    def key_of(self, row: Cells) -> Cells:
        return {name: row[name] for name in self.definition.key or self.definition.columns if name in row}


@dataclass
class _Tally:
    """What a look at all conflicts has come to."""

    names: list[ConflictName] = field(default_factory=list)
    total: int = 0
    decided: int = 0
    firm: int = 0
    """Those that no decision can bring away."""

    def add(self, conflict: Conflict, side: Side | None) -> None:
        self.total += 1
        if side is not None:
            self.decided += 1
            return
        self.firm += conflict.kind != "ForeignKey"
        self._name(conflict)

    def broken(self, conflict: Conflict) -> None:
        """Count what the decisions break."""
        self.total += 1
        self._name(conflict)

    def _name(self, conflict: Conflict) -> None:
        if len(self.names) < MAX_CONFLICTS:
            self.names.append(conflict.name)


@dataclass(frozen=True, slots=True)
class _Merge:
    """A merge in the middle: ``session`` is in it, and ``beside`` on the database, where alone an application's login
    may use Dolt's table functions.
    """

    inputs: MergeInputs
    base: str
    session: Session
    beside: Session


class _Refused(Exception):  # noqa: N818 - it is an outcome, not an error
    """Dolt does not merge these at all: the conflict says why."""

    def __init__(self, conflict: Conflict) -> None:
        super().__init__(conflict.kind)
        self.conflict = conflict


def result_branch(inputs: MergeInputs) -> str:
    """Return the branch that holds the result of a merge: the same for the same inputs."""
    return f"{RESULT_PREFIX}{hashed(asdict(inputs)).hex()[:16]}"


async def merge(at: Endpoint, inputs: MergeInputs) -> MergeOutcome:
    """Merge two commits, or say why they do not merge."""
    await reserve(at, inputs.database)
    async with mysql.work_session(at) as session:
        await use(session, inputs.database)
        base = await _base(session, inputs)
        known = await _known(session, inputs)
    if base == inputs.source:
        none = await changes(at, inputs.database, inputs.target, inputs.target)
        return MergeOutcome(base, inputs.target, none, unused=tuple(range(len(inputs.decisions))))
    decisions, tally = Decisions(inputs.decisions), _Tally()
    result = None
    try:
        async with _merging(at, inputs, base, f"{_WORK_PREFIX}{result_branch(inputs)[-16:]}") as under_way:
            result = await _settle(under_way, decisions, tally, known)
    except _Refused as refused:
        tally.add(refused.conflict, None)
    found = await changes(at, inputs.database, inputs.target, result) if result else None
    return MergeOutcome(base, result, found, tuple(tally.names), tally.total, tally.decided, decisions.unused)


async def _known(session: Session, inputs: MergeInputs) -> str | None:
    """Return the merge if it was made before. Who writes to the server may have put anything on that branch, and what
    is not the very commit that would be made does not count.
    """
    row = await branch_row(session, result_branch(inputs))
    if row is None:
        return None
    found = await commit_info(session, row[0])
    made = (found.parents, Signature(found.author, found.email), found.message.strip())
    wanted = ((inputs.target, inputs.source), inputs.author, inputs.message.strip())  # Dolt strips it
    return row[0] if made == wanted else None


async def conflicts(at: Endpoint, inputs: MergeInputs) -> AsyncGenerator[Conflict, None]:
    """Hand out the conflicts of a merge that nothing is kept of."""
    async with mysql.work_session(at) as session:
        await use(session, inputs.database)
        base = await _base(session, inputs)
    if base == inputs.source:
        return
    try:
        async with (
            _merging(at, inputs, base, f"{LOOK_PREFIX}{secrets.token_hex(8)}") as under_way,
            aclosing(_found(under_way)) as found,
        ):
            async for conflict in found:
                yield conflict
    except _Refused as refused:
        yield refused.conflict


async def _base(session: Session, inputs: MergeInputs) -> str:
    for commit in (inputs.target, inputs.source):
        await commit_of(session, inputs.database, commit)
    base = await base_of(session, inputs.target, inputs.source)
    if base is None:
        raise UnrelatedError(f"{inputs.target} and {inputs.source} share no commit: there is nothing to merge by")
    return base


@asynccontextmanager
async def _merging(at: Endpoint, inputs: MergeInputs, base: str, branch: str) -> AsyncIterator[_Merge]:
    """Be in the middle of a merge, on a branch that is gone afterwards."""
    async with mysql.work_session(at) as beside:
        await use(beside, inputs.database)
        if await branch_row(beside, branch):
            await beside.ask("CALL dolt_branch('-D', %s)", [branch])
        await beside.ask("CALL dolt_branch(%s, %s)", [branch, inputs.target])
        try:
            async with mysql.work_session(at) as session:
                await use(session, f"{inputs.database}/{branch}")
                await session.ask("SET autocommit = 0; SET foreign_key_checks = 0")
                merge = _Merge(inputs, base, session, beside)
                await _begin(merge)
                yield merge
        finally:
            await beside.ask("CALL dolt_branch('-D', %s)", [branch])


async def _begin(merge: _Merge) -> None:
    try:
        await merge.session.ask("CALL dolt_merge(%s, '--no-ff', '--no-commit')", [merge.inputs.source])
    except mysql.StatementError as error:
        for pattern, words in _REFUSED:
            if table := pattern.search(error.text):
                raise _Refused(await _schema_conflict(merge, table.group(1), words)) from None
        raise EngineError(f"the server refused to merge: error {error.code}") from None


async def _schema_conflict(merge: _Merge, table: str, detail: str) -> Conflict:
    commits = (merge.base, merge.inputs.target, merge.inputs.source)
    definitions = [await definition_at(merge.beside, table, commit) for commit in commits]
    return replace(
        _conflict(merge.inputs, "Schema", table, {}, None),
        row="",
        base=definitions[0],
        ours=definitions[1],
        theirs=definitions[2],
        detail=detail,
    )


async def _settle(merge: _Merge, decisions: Decisions, tally: _Tally, known: str | None) -> str | None:
    """Make the merge commit if nothing is left to decide, and return it."""
    async with aclosing(_found(merge)) as found:
        async for conflict in found:
            tally.add(conflict, decisions.side_of(conflict))
    if tally.firm or (tally.total > tally.decided and not tally.decided):
        return None
    if known is not None:
        tally.names, tally.total = [], tally.decided
        return known
    if tally.decided:
        tally.names, tally.total = [], tally.decided
        async with aclosing(_applied(merge, decisions)) as broken:
            async for conflict in broken:
                tally.broken(conflict)
        if tally.names:
            return None
    [((commit,),)] = await merge.session.ask(
        "CALL dolt_commit('-A', '--allow-empty', '-m', %s, '--author', %s)",
        [merge.inputs.message, signature_of(merge.inputs.author)],
    )
    await merge.beside.ask("CALL dolt_branch('-f', %s, %s)", [result_branch(merge.inputs), commit])
    return str(commit)


async def _found(merge: _Merge) -> AsyncGenerator[Conflict, None]:
    """Hand out all conflicts of a merge."""
    session, inputs = merge.session, merge.inputs
    schemas, data, broken = await session.ask(
        "SELECT table_name, base_schema, our_schema, their_schema, description FROM dolt_schema_conflicts;"
        " SELECT `table` FROM dolt_conflicts WHERE num_conflicts > 0 ORDER BY `table`;"
        " SELECT `table` FROM dolt_constraint_violations ORDER BY `table`"
    )
    for table, base, ours, theirs, description in schemas:
        conflict = _conflict(inputs, "Schema", table, {}, None)
        yield replace(conflict, row="", base=base, ours=ours, theirs=theirs, detail=description)
    for (name,) in data:
        table = await _table(merge, name)
        if table.dropped:
            words = f"one side has dropped {', '.join(table.dropped)}, and both have changed rows"
            yield await _schema_conflict(merge, name, words)
        async with aclosing(_rows(session, table)) as rows:
            async for row in rows:
                for conflict in _conflicts_of(inputs, table, row):
                    yield conflict
    for (name,) in broken:
        async with aclosing(_violations(session, inputs, name)) as found:
            async for conflict in found:
                yield conflict


async def _table(merge: _Merge, name: str) -> _Table:
    [((_, statement),)] = await merge.session.ask(f"SHOW CREATE TABLE {identifier(name)}")
    definition = read_definition(statement)
    old, ours, theirs = [
        read_definition(await definition_at(merge.beside, name, commit) or "").columns
        for commit in (merge.base, merge.inputs.target, merge.inputs.source)
    ]
    renamed = await _renames(merge, name) if set(old) - set(definition.columns) else {}
    new = set(definition.columns) - set(old) - set(renamed.values())
    added: dict[str, Side] = dict.fromkeys(new & set(ours) - set(theirs), "Target")
    added |= dict.fromkeys(new & set(theirs) - set(ours), "Source")
    dropped = [column for column in old if column not in {*definition.columns, *renamed}]
    return _Table(name, definition, renamed, dropped, added if old else {})


async def _renames(merge: _Merge, table: str) -> Mapping[str, str]:
    """Return the new names of columns that either side has renamed, by the old ones."""
    renamed: dict[str, str] = {}
    for commit in (merge.inputs.target, merge.inputs.source):
        [statements] = await merge.beside.ask(
            f"SELECT statement FROM dolt_patch({literal(merge.base)}, {literal(commit)}, {literal(table)})"
            " WHERE diff_type = 'schema'"
        )
        found = [_RENAMED.match(text) for (text,) in statements]
        renamed.update({match.group(1): match.group(2) for match in found if match})
    return renamed


async def _rows(session: Session, table: _Table, limit: int | None = None) -> AsyncGenerator[_Row, None]:
    """Hand out the rows in conflict, all or the first of them.

    The columns are: the commit; the base's; ours and a kind; theirs and a kind; an id; three counts if there is no key.
    """
    width = len(table.definition.columns)
    keyless = not table.definition.key
    statement = f"SELECT * FROM {identifier(f'dolt_conflicts_{table.name}')}"
    if limit is not None:
        statement += f" LIMIT {limit}"
    async with aclosing(session.named_rows(statement)) as rows:
        async for names, row in rows:
            end = len(row) - (4 if keyless else 1)
            theirs, ours = end - 1 - width, end - 2 - 2 * width
            base = {
                table.renamed.get(column, column): row[1 + place]
                for place, column in enumerate(name.removeprefix("base_") for name in names[1:ours])
            }
            counts = tuple(row[end + 1 :]) if keyless else None
            there = [count > 0 for count in counts] if counts else _sides(row[end - 2 - width], row[end - 1])
            columns = table.definition.columns
            yield _Row(
                id=row[end],
                base=base if there[0] else None,
                ours=dict(zip(columns, row[ours : ours + width], strict=True)) if there[1] else None,
                theirs=dict(zip(columns, row[theirs : theirs + width], strict=True)) if there[2] else None,
                counts=(counts[0], counts[1], counts[2]) if counts else None,
                added=table.added,
            )


def _sides(ours: str, theirs: str) -> tuple[bool, bool, bool]:
    """Return on which sides a row with a key is: base, ours, theirs."""
    return "added" not in {ours, theirs}, ours != "removed", theirs != "removed"


def _conflict(inputs: MergeInputs, kind: ConflictKind, table: str, key: Cells, column: str | None) -> Conflict:
    named = [inputs.salt, table, canonical(key)]
    return Conflict(
        id=hashed([*named, kind, column]).hex()[:16],
        row=hashed(named).hex()[:16],
        kind=kind,
        table=table,
        column=column,
        key=as_values(key),
    )


def _conflicts_of(inputs: MergeInputs, table: _Table, row: _Row) -> Iterable[Conflict]:
    key = table.key_of(row.any)
    if table.name.startswith(_SYSTEM_PREFIX):
        yield replace(
            _conflict(inputs, "Schema", table.name, key, None),
            row="",
            base=None if row.base is None else as_values(row.base),
            ours=None if row.ours is None else as_values(row.ours),
            theirs=None if row.theirs is None else as_values(row.theirs),
            detail=" ".join(str(as_value(cell)) for cell in key.values()),
        )
        return
    if row.counts is None and (cells := row.cells):
        for name in cells:
            yield replace(
                _conflict(inputs, "Cell", table.name, key, name),
                base=as_value((row.base or {}).get(name)),
                ours=as_value((row.ours or {})[name]),
                theirs=as_value((row.theirs or {})[name]),
            )
        return
    yield replace(
        _conflict(inputs, "Row", table.name, key, None),
        base=None if row.base is None else as_values(row.base),
        ours=None if row.ours is None else as_values(row.ours),
        theirs=None if row.theirs is None else as_values(row.theirs),
        detail="" if row.counts is None else "{} times before, {} on the target, {} on the source".format(*row.counts),
    )


async def _violations(session: Session, inputs: MergeInputs, table: str) -> AsyncGenerator[Conflict, None]:
    [((_, statement),)] = await session.ask(f"SHOW CREATE TABLE {identifier(table)}")
    definition = read_definition(statement)
    async with aclosing(session.rows(f"SELECT * FROM {identifier(f'dolt_constraint_violations_{table}')}")) as rows:
        async for row in rows:
            cells = dict(zip(definition.columns, row[2 : 2 + len(definition.columns)], strict=True))
            yield _broken(inputs, _BROKEN[row[1]], table, (definition, cells), _constraint(row[-1]))


def _broken(
    inputs: MergeInputs, kind: ConflictKind, table: str, row: tuple[Definition, Cells], constraint: str
) -> Conflict:
    """Return the conflict of a row that breaks a constraint; its name tells two of a row apart."""
    definition, cells = row
    key = {name: cells[name] for name in definition.key or definition.columns}
    conflict = _conflict(inputs, kind, table, key, constraint)
    return replace(conflict, column=None, theirs=as_values(cells), detail=constraint)


def _constraint(information: str) -> str:
    """Return the name of a constraint, or the columns of one that has none."""
    known = json.loads(information)
    return str(known.get("ForeignKey") or known.get("Name") or ", ".join(known.get("Columns", ())))


async def _applied(merge: _Merge, decisions: Decisions) -> AsyncGenerator[Conflict, None]:
    """Let the decisions have their way in a merge, and hand out what they break."""
    session, inputs = merge.session, merge.inputs
    [tables] = await session.ask("SELECT `table` FROM dolt_conflicts ORDER BY `table`")
    for (name,) in tables:
        table = await _table(merge, name)
        try:
            while await _apply(session, inputs, table, decisions):
                pass
        except mysql.StatementError as error:
            kind = _REFUSALS.get(error.code)
            if kind is None:
                raise EngineError(f"the server refused a decision on {name}: error {error.code}") from None
            yield replace(_conflict(inputs, kind, name, {}, None), detail="a decision breaks a constraint")
            return
    async with aclosing(_broken_keys(session, inputs, {name for (name,) in tables})) as found:
        async for conflict in found:
            yield conflict


async def _broken_keys(
    session: Session, inputs: MergeInputs, tables: AbstractSet[str]
) -> AsyncGenerator[Conflict, None]:
    """Look for rows without their parent in all foreign keys from or to some tables, and forget what Dolt has noted of
    the rows as they were before the decisions.
    """
    noted, columns = await session.ask(
        "SELECT `table` FROM dolt_constraint_violations;"
        " SELECT table_name, constraint_name, referenced_table_name, column_name, referenced_column_name"
        " FROM information_schema.key_column_usage WHERE table_schema = database()"
        " AND referenced_table_name IS NOT NULL ORDER BY table_name, constraint_name, ordinal_position"
    )
    touched = tables | {name for (name,) in noted}
    for (name,) in noted:
        await session.ask(f"DELETE FROM {identifier(f'dolt_constraint_violations_{name}')}")
    keys: dict[tuple[str, str, str], list[tuple[str, str]]] = {}
    for child, constraint, parent, column, referenced in columns:
        if child in touched or parent in touched:
            keys.setdefault((child, constraint, parent), []).append((column, referenced))
    for key, pairs in keys.items():
        async with aclosing(_orphans(session, inputs, key, pairs)) as found:
            async for conflict in found:
                yield conflict


async def _orphans(
    session: Session, inputs: MergeInputs, key: tuple[str, str, str], pairs: Sequence[tuple[str, str]]
) -> AsyncGenerator[Conflict, None]:
    child, constraint, parent = key
    same = " AND ".join(f"c.{identifier(column)} = p.{identifier(referenced)}" for column, referenced in pairs)
    there = " AND ".join(f"c.{identifier(column)} IS NOT NULL" for column, _ in pairs)
    [((_, statement),)] = await session.ask(f"SHOW CREATE TABLE {identifier(child)}")
    definition = read_definition(statement)
    statement = (
        f"SELECT c.* FROM {identifier(child)} c LEFT JOIN {identifier(parent)} p ON {same}"
        f" WHERE {there} AND p.{identifier(pairs[0][1])} IS NULL"
    )
    async with aclosing(session.named_rows(statement)) as rows:
        async for names, row in rows:
            cells = dict(zip(names, row, strict=True))
            yield _broken(inputs, "ForeignKey", child, (definition, cells), constraint)


async def _apply(session: Session, inputs: MergeInputs, table: _Table, decisions: Decisions) -> bool:
    """Settle the first rows that are in conflict, and return whether there were any. Statements cannot be sent while
    rows are coming, and all of them may be more than there is memory for.
    """
    async with aclosing(_rows(session, table, _BATCH)) as found:
        rows = [row async for row in found]
    cells: dict[frozenset[str], list[str]] = {}
    for row in rows:
        sides = {conflict.column: decisions.side_of(conflict) for conflict in _conflicts_of(inputs, table, row)}
        if None not in sides:
            taken = row.taken(column for column, side in sides.items() if side == "Source" and column)
            cells.setdefault(taken, []).append(row.id)
        elif sides[None] == "Source":
            await _take_row(session, table, row)
        else:
            continue
    for taken, ids in cells.items():
        await _take_cells(session, table, sorted(taken), ids)
    if rows:
        await session.ask(f"DELETE FROM {identifier(f'dolt_conflicts_{table.name}')} {_only(row.id for row in rows)}")
    return bool(rows)


def _only(ids: Iterable[str]) -> str:
    """Return what picks rows in conflict: they are the first ones, and without a limit all would be looked at."""
    places = [literal(each) for each in ids]
    return f"WHERE dolt_conflict_id IN ({', '.join(places)}) LIMIT {len(places)}"


async def _take_cells(session: Session, table: _Table, columns: Sequence[str], ids: Sequence[str]) -> None:
    """Give rows the source's values of some columns, without a value's leaving the server."""
    if not columns:
        return
    values = ", ".join(f"{identifier(f'our_{name}')} = {identifier(f'their_{name}')}" for name in columns)
    await session.ask(f"UPDATE {identifier(f'dolt_conflicts_{table.name}')} SET {values} {_only(ids)}")


async def _take_row(session: Session, table: _Table, row: _Row) -> None:
    """Make a row be there as often as it is on the source."""
    conflicts = identifier(f"dolt_conflicts_{table.name}")
    where = f"FROM {conflicts} {_only([row.id])}"
    _, ours, theirs = row.counts or (0, int(row.ours is not None), int(row.theirs is not None))
    names = table.definition.columns
    if theirs > ours:
        values = ", ".join(identifier(f"their_{name}") for name in names)
        columns = ", ".join(identifier(name) for name in names)
        insert = f"INSERT INTO {identifier(table.name)} ({columns}) SELECT {values} {where}"
        await session.ask("; ".join([insert] * (theirs - ours)))
    if ours > theirs:
        keys = table.definition.key or names
        side = "our_" if row.counts is None or row.ours else "base_"
        same = " AND ".join(f"{identifier(name)} <=> (SELECT {identifier(side + name)} {where})" for name in keys)
        await session.ask(f"DELETE FROM {identifier(table.name)} WHERE {same} LIMIT {ours - theirs}")
