"""What is Dolt's alone in merging: how a result is found again, and what decisions come to. The cases are in
``test_merge_cases.py``.
"""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pymysql.err
import pytest
import pytest_asyncio

from coppice.engines.base import UnknownVersionError
from coppice.engines.doltmerge import result_branch
from coppice.engines.merging import MAX_CONFLICTS, Conflict, Decision, MergeInputs

from .conftest import open_stage
from .merge_cases import PLAIN
from .merge_kit import Database, Databases, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def databases() -> AsyncIterator[Databases]:
    with open_stage("dolt") as stage:
        workload = stage.store(load=False)
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            yield Databases(stage.admin(server))


FORGED = ("ceo <ceo@example.org>", "Ann Editor <ann@example.org>")


@pytest.mark.parametrize("author", FORGED)
async def test_what_somebody_has_put_in_the_place_of_the_merge_does_not_count(
    databases: Databases, author: str
) -> None:
    database = await databases.new(PLAIN)
    inputs = await database.diverged(
        ["UPDATE t SET a = 10 WHERE id = 1"], ["UPDATE t SET b = 'yours' WHERE id IN (1, 2)"]
    )
    place = result_branch(inputs)
    await database.branch(place, inputs.target)
    await database.commit(place, ["INSERT INTO t VALUES (666, 6, 'six')"], "smuggled in")
    call = f"CALL dolt_commit('-A', '-m', '{inputs.message}', '--author', '{author}')"
    undone = ["DELETE FROM t WHERE id = 666", "UPDATE t SET b = 'yours' WHERE id IN (1, 2)", call]
    await run(databases.at, f"{database.name}/{place}", undone)
    planted = (await database.ask("SELECT dolt_hashof('HEAD')", place))[0][0]
    outcome = await databases.engine.merge(databases.at, inputs)
    assert outcome.result is not None
    assert outcome.result != planted
    [made] = await databases.engine.log(databases.at, database.name, outcome.result, limit=1)
    assert (made.parents, made.author, made.message) == (
        (inputs.target, inputs.source),
        inputs.author.name,
        inputs.message,
    )
    assert await databases.engine.merge(databases.at, inputs) == outcome


@pytest.mark.parametrize("message", [" Prices\n\n", "Prices\n\nReviewed-by: o'neil\nReviewed-by: ü", "'q\"\\n%s"])
async def test_a_merge_is_found_again_whatever_it_says(databases: Databases, message: str) -> None:
    database = await databases.new(PLAIN)
    parted = await database.diverged(["UPDATE t SET a = 10 WHERE id = 1"], ["DELETE FROM t WHERE id = 2"])
    inputs = replace(parted, message=message)
    outcome = await databases.engine.merge(databases.at, inputs)
    assert await databases.engine.merge(databases.at, inputs) == outcome


@pytest.mark.parametrize(("author", "message"), [(FORGED[0], None), (FORGED[1], "Reviewed-by: ceo")])
async def test_nor_does_a_merge_of_the_same_two_that_says_something_else(
    databases: Databases, author: str, message: str | None
) -> None:
    database = await databases.new(PLAIN)
    inputs = await database.diverged(
        ["UPDATE t SET a = 10 WHERE id = 1"], ["UPDATE t SET b = 'yours' WHERE id IN (1, 2)"]
    )
    place = result_branch(inputs)
    await database.branch(place, inputs.target)
    call = f"CALL dolt_merge('{inputs.source}', '--no-ff', '-m', '{message or inputs.message}', '--author', '{author}')"
    await run(databases.at, f"{database.name}/{place}", [call])
    planted = (await database.ask("SELECT dolt_hashof('HEAD')", place))[0][0]
    outcome = await databases.engine.merge(databases.at, inputs)
    assert outcome.result not in {None, planted}


async def test_nobody_but_the_administrator_makes_a_branch_of_that_name_once_there_was_a_merge(
    databases: Databases,
) -> None:
    database = await databases.new(PLAIN)
    inputs = await database.diverged(["UPDATE t SET a = 10 WHERE id = 1"], ["DELETE FROM t WHERE id = 2"])
    made = {"username": "preview", "password": "x", "database": database.name}
    await databases.engine.execute(databases.at, "ensure-app-user", made)
    app = replace(databases.at, username="preview", password="x")
    await databases.engine.merge(databases.at, inputs)
    await databases.engine.execute(databases.at, "ensure-app-user", made)
    with pytest.raises(pymysql.err.MySQLError, match="cannot create"):
        await run(app, database.name, ["CALL dolt_branch('coppice/merge-0123456789abcdef', 'main')"])
    with pytest.raises(pymysql.err.MySQLError, match="permission"):
        await run(app, f"{database.name}/{result_branch(inputs)}", ["DELETE FROM t"])
    await run(app, database.name, ["DELETE FROM t", "CALL dolt_tag('mine')", "CALL dolt_checkout('-b', 'mine')"])
    assert [conflict async for conflict in databases.engine.conflicts(app, inputs)] == []


class TestDecisions:
    async def _conflicting(self, databases: Databases) -> tuple[Database, MergeInputs, dict[str, Conflict]]:
        database = await databases.new(
            [*PLAIN, "CREATE TABLE u (id INT PRIMARY KEY, a INT)", "INSERT INTO u VALUES (1, 1)"]
        )
        inputs = await database.diverged(
            ["UPDATE t SET a = 10, b = 'mine' WHERE id < 3", "UPDATE u SET a = 10"],
            ["UPDATE t SET a = 11, b = 'yours' WHERE id < 3", "UPDATE u SET a = 11"],
        )
        found = await database.conflicts(inputs)
        return database, inputs, {f"{each.table}{each.key['id']}{each.column}": each for each in found}

    async def test_the_closest_one_wins(self, databases: Databases) -> None:
        database, inputs, known = await self._conflicting(databases)
        assert sorted(known) == ["t1a", "t1b", "t2a", "t2b", "u1a"]
        assert known["t1a"].row == known["t1b"].row
        assert len({each.row for each in known.values()}) == 3
        decisions = (
            Decision("Source", conflict=known["t1a"].id),
            Decision("Target", row=known["t1a"].row),
            Decision("Source", table="t"),
            Decision("Target"),
        )
        outcome = await databases.engine.merge(databases.at, replace(inputs, decisions=decisions))
        assert outcome.result is not None
        assert (outcome.total, outcome.decided, outcome.unused) == (5, 5, ())
        rows = await database.ask("SELECT * FROM t ORDER BY id", outcome.result)
        assert rows == ((1, 11, "mine"), (2, 11, "yours"), (3, 3, "three"))
        assert await database.ask("SELECT a FROM u", outcome.result) == ((10,),)

    @pytest.mark.parametrize("by", ["conflict", "row", "table", "all"])
    async def test_of_two_about_the_same_the_first_wins(self, databases: Databases, by: str) -> None:
        database, inputs, known = await self._conflicting(databases)
        named = {
            "conflict": {"conflict": known["t1a"].id},
            "row": {"row": known["t1a"].row},
            "table": {"table": "t"},
            "all": {},
        }
        decisions = (Decision("Source", **named[by]), Decision("Target", **named[by]), Decision("Target", table="u"))
        if by in {"conflict", "row"}:
            decisions = (*decisions, Decision("Target"))
        outcome = await databases.engine.merge(databases.at, replace(inputs, decisions=decisions))
        assert outcome.result is not None
        assert await database.ask("SELECT a FROM t WHERE id = 1", outcome.result) == ((11,),)
        assert await database.ask("SELECT a FROM u", outcome.result) == ((10,),)

    async def test_the_rows_in_conflict_are_not_held_all_at_once(self, databases: Databases) -> None:
        digits = " UNION ALL ".join(["SELECT 0 AS n", *(f"SELECT {digit}" for digit in range(1, 10))])
        many = f"SELECT x.n + 10 * y.n + 100 * z.n FROM ({digits}) x CROSS JOIN ({digits}) y CROSS JOIN ({digits}) z"
        database = await databases.new(
            ["CREATE TABLE wide (id INT PRIMARY KEY, a INT, b TEXT)", f"INSERT INTO wide (id) {many}"]
        )
        inputs = await database.diverged(
            ["UPDATE wide SET a = 1, b = REPEAT('x', 20000)"], ["UPDATE wide SET a = 2, b = REPEAT('y', 20000)"]
        )
        tracemalloc.start()
        outcome = await databases.engine.merge(databases.at, replace(inputs, decisions=(Decision("Source"),)))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (outcome.total, outcome.decided) == (2000, 2000)
        assert await database.ask("SELECT DISTINCT a, LEFT(b, 1) FROM wide", str(outcome.result)) == ((2, "y"),)
        assert peak < 1000 * 2 * 20000 / 2

    async def test_what_is_left_is_named_and_what_meets_nothing_too(self, databases: Databases) -> None:
        _, inputs, known = await self._conflicting(databases)
        decisions = (
            Decision("Source", conflict="0" * 16),
            Decision("Source", row=known["t1a"].row),
            Decision("Target", table="nothing"),
            Decision("Target", conflict=known["u1a"].id),
        )
        outcome = await databases.engine.merge(databases.at, replace(inputs, decisions=decisions))
        assert outcome.result is None
        assert (outcome.total, outcome.decided, outcome.unused) == (5, 3, (0, 2))
        assert {name.id for name in outcome.conflicts} == {known["t2a"].id, known["t2b"].id}

    async def test_a_conflict_has_the_same_name_wherever_the_branches_have_moved_on_to(
        self, databases: Databases
    ) -> None:
        database, inputs, known = await self._conflicting(databases)
        target = await database.commit("main", ["UPDATE t SET a = 12 WHERE id = 1", "INSERT INTO t VALUES (7, 7, 'x')"])
        source = await database.commit("work", ["UPDATE t SET b = 'again' WHERE id = 2"])
        moved = await database.conflicts(database.inputs(target, source))
        assert {each.id for each in moved} == {each.id for each in known.values()}
        salted = await database.conflicts(replace(inputs, salt="another"))
        assert not {each.id for each in salted} & {each.id for each in known.values()}

    async def test_a_view_that_both_sides_have_changed_is_to_be_mended_on_the_source(
        self, databases: Databases
    ) -> None:
        database = await databases.new(["CREATE VIEW v AS SELECT 1 AS n"])
        inputs = await database.diverged(
            ["CREATE OR REPLACE VIEW v AS SELECT 2 AS n"], ["CREATE OR REPLACE VIEW v AS SELECT 3 AS n"]
        )
        [conflict] = await database.conflicts(inputs)
        assert (conflict.kind, conflict.table, conflict.detail) == ("Schema", "dolt_schemas", "view v")
        assert "SELECT 3" in str(conflict.theirs)
        outcome = await databases.engine.merge(databases.at, replace(inputs, decisions=(Decision("Source"),)))
        assert (outcome.result, outcome.total, outcome.unused) == (None, 1, (0,))

    async def test_a_decision_that_breaks_a_constraint_is_a_conflict(self, databases: Databases) -> None:
        database = await databases.new(
            ["CREATE TABLE t (id INT PRIMARY KEY, e VARCHAR(9) UNIQUE)", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"]
        )
        inputs = await database.diverged(
            ["UPDATE t SET e = 'mine' WHERE id = 1", "INSERT INTO t VALUES (3, 'c')"],
            ["UPDATE t SET e = 'c' WHERE id = 1"],
        )
        outcome = await databases.engine.merge(databases.at, replace(inputs, decisions=(Decision("Source"),)))
        assert outcome.result is None
        assert [(each.kind, each.table) for each in outcome.conflicts] == [("Unique", "t")]


async def test_a_merge_is_found_again_and_another_one_is_another(databases: Databases) -> None:
    database = await databases.new(PLAIN)
    inputs = await database.diverged(["UPDATE t SET a = 5 WHERE id = 1"], ["UPDATE t SET a = 6 WHERE id = 1"])
    decided = replace(inputs, decisions=(Decision("Source"),))
    first = await databases.engine.merge(databases.at, decided)
    assert await databases.engine.merge(databases.at, decided) == first
    other = await databases.engine.merge(databases.at, replace(inputs, decisions=(Decision("Target"),)))
    assert other.result not in {None, first.result}
    assert await databases.engine.merge(databases.at, decided) == first


async def test_a_source_with_nothing_new_gives_the_target(databases: Databases) -> None:
    database = await databases.new(PLAIN)
    await database.branch("work")
    target = await database.commit("main", ["UPDATE t SET a = 5"])
    [(source,)] = await database.ask("SELECT hash FROM dolt_branches WHERE name = 'work'")
    for old in (source, target):
        inputs = replace(database.inputs(target, old), decisions=(Decision("Source"),))
        outcome = await databases.engine.merge(databases.at, inputs)
        assert (outcome.result, outcome.base, outcome.unused) == (target, old, (0,))
        assert outcome.changes is not None
        assert outcome.changes.tables == ()
        assert await database.conflicts(inputs) == []


async def test_a_target_that_has_nothing_of_its_own_still_gets_one_commit(databases: Databases) -> None:
    database = await databases.new(PLAIN)
    inputs = await database.diverged([], ["UPDATE t SET a = 5"])
    outcome = await databases.engine.merge(databases.at, replace(inputs, target=(await _base(database, inputs))))
    assert outcome.result is not None
    [commit] = await databases.engine.log(databases.at, database.name, outcome.result, limit=1)
    assert commit.parents == (outcome.base, inputs.source)


async def _base(database: Database, inputs: MergeInputs) -> str:
    found = await database.server.engine.merge_base(database.server.at, database.name, inputs.target, inputs.source)
    assert found is not None
    return found


async def test_many_conflicts_are_counted_and_some_are_named(databases: Databases) -> None:
    rows = ", ".join(f"({number}, 0)" for number in range(MAX_CONFLICTS + 7))
    database = await databases.new(["CREATE TABLE t (id INT PRIMARY KEY, a INT)", f"INSERT INTO t VALUES {rows}"])
    inputs = await database.diverged(["UPDATE t SET a = 1"], ["UPDATE t SET a = 2"])
    outcome = await databases.engine.merge(databases.at, inputs)
    assert (len(outcome.conflicts), outcome.total) == (MAX_CONFLICTS, MAX_CONFLICTS + 7)
    assert len(await database.conflicts(inputs)) == MAX_CONFLICTS + 7
    decided = await databases.engine.merge(databases.at, replace(inputs, decisions=(Decision("Source"),)))
    assert await database.ask("SELECT DISTINCT a FROM t", decided.result or "") == ((2,),)


async def test_names_of_conflicts_hold_no_values(databases: Databases) -> None:
    database = await databases.new(
        ["CREATE TABLE t (id VARCHAR(40) PRIMARY KEY, a VARCHAR(40))", "INSERT INTO t VALUES ('key-secret', 'x')"]
    )
    inputs = await database.diverged(["UPDATE t SET a = 'one-secret'"], ["UPDATE t SET a = 'two-secret'"])
    outcome = await databases.engine.merge(databases.at, inputs)
    assert outcome.total == 1
    assert "secret" not in repr(outcome)
    assert "secret" not in repr(await database.conflicts(inputs))


async def test_what_cannot_be_merged_is_said_so(databases: Databases) -> None:
    database = await databases.new(PLAIN)
    inputs = await database.diverged([], ["UPDATE t SET a = 5"])
    with pytest.raises(UnknownVersionError, match="0000"):
        await databases.engine.merge(databases.at, replace(inputs, source="0" * 32))
    with pytest.raises(UnknownVersionError, match="nowhere"):
        await databases.engine.merge(databases.at, replace(inputs, database="nowhere"))
