"""The merge cases on the real engine, and a three-way merge in memory beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from coppice.engines.merging import Decision, MergeInputs

from .conftest import open_stage
from .merge_cases import CASES, MYSQL, Case
from .merge_kit import Database, Databases, keys_of, names_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def databases() -> AsyncIterator[Databases]:
    with open_stage("dolt") as stage:
        workload = stage.store(load=False)
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            yield Databases(stage.admin(server))


async def _parted(databases: Databases, case: Case) -> tuple[Database, MergeInputs]:
    database = await databases.new(case.statements(case.base, MYSQL))
    sides = [case.statements(side, MYSQL) for side in (case.ours, case.theirs)]
    return database, await database.diverged(*sides)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_merge_has_what_the_case_says_or_names_its_conflicts(databases: Databases, case: Case) -> None:
    database, inputs = await _parted(databases, case)
    outcome = await databases.engine.merge(databases.at, inputs)
    expected = sorted((named.kind, named.table, named.column or "") for named in case.conflicts)
    assert names_of(outcome.conflicts) == expected
    assert outcome.total == len(expected)
    if case.rows is not None:
        assert outcome.result is not None
        assert await database.ask(case.select, outcome.result) == case.rows
    else:
        assert outcome.result is None
        assert outcome.changes is None
        found = await database.conflicts(inputs)
        assert names_of(found) == expected
        assert keys_of(found) == sorted(((named.kind, named.key) for named in case.conflicts if named.key), key=str)
        assert [(name.id, name.row) for name in outcome.conflicts] == [(each.id, each.row) for each in found]
    assert await database.ask("SELECT name FROM dolt_branches WHERE name LIKE 'coppice/work%'") == ()
    heads = dict(await database.ask("SELECT name, hash FROM dolt_branches"))
    assert (heads["main"], heads["work"]) == (inputs.target, inputs.source)


@pytest.mark.parametrize("side", ["Source", "Target"])
@pytest.mark.parametrize("case", [case for case in CASES if case.conflicts], ids=lambda case: case.name)
async def test_a_decision_for_all_settles_what_can_be_decided(databases: Databases, case: Case, side: str) -> None:
    database, inputs = await _parted(databases, case)
    outcome = await databases.engine.merge(databases.at, replace(inputs, decisions=(Decision(side),)))  # type: ignore[arg-type]
    expected = case.take_source if side == "Source" else case.take_target
    if expected is None:
        assert outcome.result is None
        assert outcome.conflicts
        assert not {conflict.kind for conflict in outcome.conflicts} & {"Cell", "Row"}
    else:
        assert outcome.result is not None, outcome
        assert (outcome.conflicts, outcome.unused) == ((), ())
        assert await database.ask(case.select, outcome.result) == expected
