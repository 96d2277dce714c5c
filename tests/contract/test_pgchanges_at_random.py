"""Change sets of PostgreSQL beside a three-way merge in memory, with random rows on both sides and random decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.engines.pgcompare import change_set, definitions_query
from coppice.engines.pgpublish import judge, publish
from coppice.engines.pgscripts import script_of

from .pg_kit import Trio, ask, run, serving_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from coppice.engines.merging import Conflict, Side
    from coppice.engines.pgcompare import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")

COLUMNS = ("a", "b")
Row = tuple[str | None, str | None]
Rows = dict[str, Row]
Spot = tuple[str, str | None]

KEYS = ("", "'", "NULL", "é\\")
cells = st.sampled_from([None, "", "x", "{\\'\n"])
tables = st.dictionaries(st.sampled_from(KEYS), st.tuples(cells, cells), max_size=4)
SPOTS = [(key, column) for key in KEYS for column in (None, *COLUMNS)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio() -> AsyncIterator[Trio]:
    async with serving_cluster() as cluster:
        yield await cluster.new("CREATE TABLE t (id text PRIMARY KEY, a text, b text)")


@settings(max_examples=25, deadline=None)
@given(tables, tables, tables, st.dictionaries(st.sampled_from(SPOTS), st.sampled_from(["Source", "Target"])))
async def test_it_comes_to_what_the_reference_comes_to(
    trio: Trio, base: Rows, ours: Rows, theirs: Rows, sides: Mapping[Spot, Side]
) -> None:
    for place, rows in ((trio.base, base), (trio.target, ours), (trio.clone, theirs)):
        await _fill(place, rows)
    wanted, disputed = _reference(base, ours, theirs, sides)

    def side_of(conflict: Conflict) -> Side | None:
        return sides.get((str(conflict.key["id"]), conflict.column))

    judged = await judge(trio.target, await change_set(trio.base, trio.clone), "salt", side_of)
    assert {(one.key["id"], one.column) for one in judged.conflicts} == {spot for spot in disputed if spot not in sides}
    assert {(one.key["id"], one.column) for one in judged.decided} == {spot for spot in disputed if spot in sides}
    assert await publish(trio.target, script_of(judged.plan, definitions_query()), "salt", _begun) == ()
    assert {key: (a, b) for key, a, b in await ask(trio.target, "SELECT id, a, b FROM t")} == wanted


async def _begun(number: str) -> None:
    """Take no note."""


async def _fill(place: Place, rows: Rows) -> None:
    values = ", ".join(f"({', '.join(map(_quoted, (key, *row)))})" for key, row in rows.items())
    await run(place, "DELETE FROM t" + (f"; INSERT INTO t VALUES {values}" if values else ""))


def _quoted(cell: str | None) -> str:
    return "NULL" if cell is None else f"convert_from('\\x{cell.encode().hex()}', 'UTF8')"


def _reference(base: Rows, ours: Rows, theirs: Rows, sides: Mapping[Spot, Side]) -> tuple[Rows, set[Spot]]:
    """Return the rows that are to be there, where a conflict that nobody has decided stays as it is on the target."""
    found: Rows = {}
    disputed: set[Spot] = set()
    for key in {*base, *ours, *theirs}:
        one, other, was = ours.get(key), theirs.get(key), base.get(key)
        if other in (one, was):
            row = one
        elif one == was:
            row = other
        elif one is None or other is None:
            disputed.add((key, None))
            row = other if sides.get((key, None)) == "Source" else one
        else:
            merged = [_cell(key, place, (was, one, other), sides, disputed) for place in range(len(COLUMNS))]
            row = (merged[0], merged[1])
        if row is not None:
            found[key] = row
    return found, disputed


def _cell(
    key: str, place: int, rows: tuple[Row | None, Row, Row], sides: Mapping[Spot, Side], disputed: set[Spot]
) -> str | None:
    was, one, other = rows
    if one[place] == other[place] or (was is not None and was[place] == other[place]):
        return one[place]
    if was is not None and was[place] == one[place]:
        return other[place]
    disputed.add((key, COLUMNS[place]))
    return other[place] if sides.get((key, COLUMNS[place])) == "Source" else one[place]
