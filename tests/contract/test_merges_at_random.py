"""Merges on the real engine beside a three-way merge in memory, with random rows on both sides and random decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.engines.merging import Conflict, Decision, Side

from .conftest import open_stage
from .merge_kit import Databases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLUMNS = ("a", "b")
Row = tuple[int | None, int | None]
Rows = Mapping[int, Row]
Place = tuple[int, str | None]

cells = st.one_of(st.none(), st.integers(0, 2))
tables = st.dictionaries(st.integers(1, 5), st.tuples(cells, cells), max_size=5)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def databases() -> AsyncIterator[Databases]:
    with open_stage("dolt") as stage:
        workload = stage.store(load=False)
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            yield Databases(stage.admin(server))


def conflicts_of(base: Rows, ours: Rows, theirs: Rows) -> set[Place]:
    """Return where the two sides conflict: a cell, or a row as a whole."""
    return {
        (key, column)
        for key in {*base, *ours, *theirs}
        for column in _row_conflicts(base.get(key), ours.get(key), theirs.get(key))
    }


def _row_conflicts(base: Row | None, ours: Row | None, theirs: Row | None) -> list[str | None]:
    if ours == theirs or base in (ours, theirs):
        return []
    if ours is None or theirs is None:
        return [None]
    return [
        column
        for place, column in enumerate(COLUMNS)
        if ours[place] != theirs[place] and (base is None or base[place] not in (ours[place], theirs[place]))
    ]


def merged(base: Rows, ours: Rows, theirs: Rows, sides: Mapping[Place, Side]) -> dict[int, Row]:
    """Return the merge, given a side for each conflict."""
    found: dict[int, Row] = {}
    for key in {*base, *ours, *theirs}:
        row = _merged_row(key, (base.get(key), ours.get(key), theirs.get(key)), sides)
        if row is not None:
            found[key] = row
    return found


def _merged_row(key: int, row: tuple[Row | None, Row | None, Row | None], sides: Mapping[Place, Side]) -> Row | None:
    base, ours, theirs = row
    if theirs in (ours, base):
        return ours
    if ours == base:
        return theirs
    if ours is None or theirs is None:
        return theirs if sides[key, None] == "Source" else ours
    cells = []
    for place, column in enumerate(COLUMNS):
        mine, other = ours[place], theirs[place]
        unchanged = base is not None and base[place] == mine
        cells.append(other if unchanged or sides.get((key, column)) == "Source" else mine)
    return cells[0], cells[1]


def _place(conflict: Conflict) -> Place:
    return int(str(conflict.key["id"])), conflict.column


def _statements(before: Rows, after: Rows) -> list[str]:
    gone = [f"DELETE FROM t WHERE id = {key}" for key in before if key not in after]
    new = [
        f"REPLACE INTO t VALUES ({key}, {_literal(row[0])}, {_literal(row[1])})"
        for key, row in after.items()
        if before.get(key) != row
    ]
    return gone + new


def _literal(cell: int | None) -> str:
    return "NULL" if cell is None else str(cell)


@settings(max_examples=60, deadline=None)
@given(base=tables, ours=tables, theirs=tables, choices=st.lists(st.booleans(), min_size=10, max_size=10))
async def test_a_merge_is_what_the_rules_say(
    databases: Databases, base: Rows, ours: Rows, theirs: Rows, choices: list[bool]
) -> None:
    database = await databases.new(["CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT)", *_statements({}, base)])
    inputs = await database.diverged(_statements(base, ours), _statements(base, theirs))
    found = await database.conflicts(inputs)
    assert {_place(conflict) for conflict in found} == conflicts_of(base, ours, theirs)
    sides: dict[Place, Side] = {
        _place(conflict): "Source" if choice else "Target" for conflict, choice in zip(found, choices, strict=False)
    }
    decisions = tuple(Decision(sides[_place(conflict)], conflict=conflict.id) for conflict in found)
    outcome = await databases.engine.merge(databases.at, database.inputs(inputs.target, inputs.source, decisions))
    assert outcome.result is not None
    assert (outcome.total, outcome.decided, outcome.unused) == (len(found), len(found), ())
    rows = await database.ask("SELECT * FROM t", outcome.result)
    assert {key: (a, b) for key, a, b in rows} == merged(base, ours, theirs, sides)
