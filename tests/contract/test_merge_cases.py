"""The one list of merge cases on every engine that brings two lines of data together."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from coppice.engines.merging import Decision, Side, TableChanges

from .merge_cases import CASES, MYSQL, NO_DOCUMENTS, POSTGRESQL, TERMINUSDB, Case, Dialect, Outcome, large
from .merge_engines import Merged, Merging, Parted, part, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 1_000_000 if os.environ.get("COPPICE_THOROUGH") else 100_000
"""How many rows the large table has: a power of ten."""

DIALECTS = (MYSQL, POSTGRESQL, TERMINUSDB)
DECIDED = [
    pytest.param(dialect.engine, case, id=f"{dialect.engine}-{case.name}")
    for dialect in DIALECTS
    for case in CASES
    if case.outcome_on(dialect).conflicts and case.beyond(dialect) is None
]
SIDES: tuple[Side, ...] = ("Source", "Target")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[dialect.engine for dialect in DIALECTS])
async def merging(request: pytest.FixtureRequest) -> AsyncIterator[Merging]:
    async with serving(request.param) as found:
        yield found


def _told(merged: Merged) -> list[str]:
    return sorted(f"{each.kind} {each.table} {each.column} {dict(each.key)}" for each in merged.conflicts)


def _expected(outcome: Outcome, dialect: Dialect) -> list[str]:
    return sorted(f"{each.kind} {each.table} {each.column} {dict(dialect.key(each.key))}" for each in outcome.conflicts)


async def _rows(merging: Merging, parted: Parted, case: Case) -> tuple[tuple[object, ...], ...]:
    [select] = merging.dialect.statements((case.select,))
    return tuple(await parted.ask(select))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_merge_has_what_the_case_says_or_names_what_is_in_its_way(merging: Merging, case: Case) -> None:
    if why := case.beyond(merging.dialect):
        pytest.skip(why)
    outcome = case.outcome_on(merging.dialect)
    parted = await part(merging, case)
    merged = await parted.merge()
    assert _told(merged) == _expected(outcome, merging.dialect)
    assert outcome.refused in merged.refused
    assert bool(outcome.refused) == bool(merged.refused)
    assert outcome.moved in merged.moved
    assert bool(outcome.moved) == bool(merged.moved)
    assert merged.done == (outcome.rows is not None)
    if merged.done:
        assert await _rows(merging, parted, case) == outcome.rows


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("merging", "case"), DECIDED, indirect=["merging"])
async def test_a_decision_for_all_settles_what_can_be_decided(merging: Merging, case: Case, side: Side) -> None:
    outcome = case.outcome_on(merging.dialect)
    parted = await part(merging, case)
    merged = await parted.merge((Decision(side),))
    expected = outcome.take_source if side == "Source" else outcome.take_target
    if expected is None:
        assert merged.conflicts
        assert not {conflict.kind for conflict in merged.conflicts} & {"Cell", "Row"}
    else:
        assert merged.done, merged
        assert merged.unused == ()
        assert await _rows(merging, parted, case) == expected


async def test_a_thousand_rows_of_a_large_table_are_found_and_merged(merging: Merging) -> None:
    case = large(MANY)
    parted = await part(merging, case)
    merged = await parted.merge()
    assert merged.tables == (TableChanges("t", added=0, modified=1000, deleted=0),)
    assert await _rows(merging, parted, case) == case.outcome.rows


async def test_an_outcome_is_one_thing_and_another_engines_says_why() -> None:
    assert set(NO_DOCUMENTS) <= {case.name for case in CASES}
    for case in CASES:
        assert set(case.otherwise) <= {dialect.engine for dialect in DIALECTS}
        assert all(outcome.why for outcome in case.otherwise.values()), case.name
        for outcome in (case.outcome, *case.otherwise.values()):
            said = (outcome.rows is not None, bool(outcome.conflicts), bool(outcome.refused), bool(outcome.moved))
            assert sum(said) == 1, case.name
