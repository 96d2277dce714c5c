"""Merges on the real engines beside a three-way merge in memory, with random rows on both sides and random decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.engines.merging import Conflict, Decision, Side

from .merge_engines import ENGINES, Merging, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .merge_cases import Dialect

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLUMNS = ("a", "b")
Row = tuple[str | None, str | None]
Rows = Mapping[str, Row]
Place = tuple[str, str | None]

KEYS = ("", "'", "NULL", "é\\", "%s")
PLACES = [(key, column) for key in KEYS for column in (None, *COLUMNS)]
cells = st.sampled_from([None, "", "x", "{\\'\n"])
tables = st.dictionaries(st.sampled_from(KEYS), st.tuples(cells, cells), max_size=len(KEYS))
decisions = st.dictionaries(st.sampled_from(PLACES), st.sampled_from(["Source", "Target"]))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def merging(request: pytest.FixtureRequest) -> AsyncIterator[Merging]:
    async with serving(request.param) as found:
        yield found


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


def merged(base: Rows, ours: Rows, theirs: Rows, sides: Mapping[Place, Side]) -> dict[str, Row]:
    """Return the merge, given a side for each conflict; where there is none, the target's is taken."""
    found: dict[str, Row] = {}
    for key in {*base, *ours, *theirs}:
        row = _merged_row(key, (base.get(key), ours.get(key), theirs.get(key)), sides)
        if row is not None:
            found[key] = row
    return found


def _merged_row(key: str, row: tuple[Row | None, Row | None, Row | None], sides: Mapping[Place, Side]) -> Row | None:
    base, ours, theirs = row
    if theirs in (ours, base):
        return ours
    if ours == base:
        return theirs
    if ours is None or theirs is None:
        return theirs if sides.get((key, None)) == "Source" else ours
    cells = []
    for place, column in enumerate(COLUMNS):
        mine, other = ours[place], theirs[place]
        unchanged = base is not None and base[place] == mine
        cells.append(other if unchanged or sides.get((key, column)) == "Source" else mine)
    return cells[0], cells[1]


def _places(conflicts: tuple[Conflict, ...]) -> Mapping[Place, Conflict]:
    return {(str(conflict.key["id"]), conflict.column): conflict for conflict in conflicts}


def _statements(dialect: Dialect, before: Rows, after: Rows) -> list[str]:
    changed = [key for key in {*before, *after} if before.get(key) != after.get(key)]
    gone = [f"DELETE FROM t WHERE id = {dialect.literal(key)}" for key in changed if key in before]
    new = [
        f"INSERT INTO t VALUES ({', '.join(map(dialect.literal, (key, *after[key])))})"
        for key in changed
        if key in after
    ]
    return gone + new


@settings(max_examples=40, deadline=None)
@given(base=tables, ours=tables, theirs=tables, sides=decisions)
async def test_a_merge_is_what_the_rules_say(
    merging: Merging, base: Rows, ours: Rows, theirs: Rows, sides: Mapping[Place, Side]
) -> None:
    dialect = merging.dialect
    table = "CREATE TABLE t (id VARCHAR(9) PRIMARY KEY, a VARCHAR(9), b VARCHAR(9))"
    parted = await merging.part(
        [table, *_statements(dialect, {}, base)],
        _statements(dialect, base, ours),
        _statements(dialect, base, theirs),
    )
    disputed = conflicts_of(base, ours, theirs)
    found = await parted.merge()
    known = _places(found.conflicts)
    assert set(known) == disputed
    some = {place: side for place, side in sides.items() if place in disputed}
    for chosen in (some, {**dict.fromkeys(disputed, "Target"), **some}):
        if not found.done:
            found = await parted.merge(
                tuple(Decision(side, conflict=known[place].id) for place, side in chosen.items())
            )
            assert set(_places(found.conflicts)) == disputed - set(chosen)
            assert (found.decided, found.unused) == (len(chosen), ())
    assert found.done
    rows = await parted.ask("SELECT id, a, b FROM t")
    assert {key: (a, b) for key, a, b in rows} == merged(base, ours, theirs, sides)
