"""PostgreSQL's patches by the words of the contract, on a real server: found, tried, judged, checked and written."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from coppice.engines import libpq, pgcompare
from coppice.engines.base import EngineError, UnreachableError
from coppice.engines.merging import Assertion, Decision, TargetBusyError, TargetMovedError
from coppice.engines.patching import BrokenRulesError, Patch, PatchingEngine, PatchInputs, RefusedError
from coppice.engines.pgcompare import change_set
from coppice.engines.postgresql import PostgreSQLEngine

from .conftest import open_stage
from .kit import pg
from .pg_kit import Cluster, Trio, ask, connect, contents, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENGINE = PostgreSQLEngine()
INPUTS = PatchInputs("salt")
TEA = """
CREATE TABLE tea (id int PRIMARY KEY, name text, price numeric(8,2));
INSERT INTO tea VALUES (1, 'green', 5), (2, 'black', 4.50), (3, NULL, NULL)"""
CHANGE = (
    "INSERT INTO tea VALUES (4, 'white', 9); UPDATE tea SET price = 6 WHERE id = 1; DELETE FROM tea WHERE id = 3;"
    "ALTER TABLE tea ADD COLUMN origin text DEFAULT 'Assam'"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    with open_stage("postgresql") as stage:
        workload = stage.store(load=False, database="empty")
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
                await pg(stage.admin(server), statement, "empty")
            yield Cluster(stage.admin(server), await stage.ensure_app(server, "empty"))


class Around:
    """Three databases that are to have one name: an engine that finds each under its own."""

    def __init__(self, trio: Trio) -> None:
        self.trio = trio

    async def patch(self) -> Patch:
        """Return what the clone has changed; base and clone are asked by the name of each."""
        return await change_set(self.trio.base, self.trio.clone)

    @property
    def target(self) -> str:
        return self.trio.target.database


async def noted(names: list[str], name: str) -> None:
    names.append(name)


async def written(around: Around, patch: Patch) -> list[str]:
    names: list[str] = []
    target = around.trio.target
    await ENGINE.write(target.at, target.database, patch, "salt", lambda name: noted(names, name))
    return names


async def test_it_is_an_engine_that_patches() -> None:
    assert isinstance(ENGINE, PatchingEngine)


async def test_what_is_judged_is_written_in_one_transaction_that_can_be_asked_for(cluster: Cluster) -> None:
    around = Around(await cluster.new(TEA))
    trio = around.trio
    await run(trio.clone, CHANGE)
    patch = await around.patch()
    judged = await ENGINE.judge(trio.target.at, around.target, patch, INPUTS)
    assert (judged.conflicts, judged.complete) == ((), False)
    assert judged.patch.changes.digest == patch.changes.digest
    assert patch.size > 0
    [name] = await written(around, judged.patch)
    assert name.startswith("xid:")
    assert await contents(trio.target) == await contents(trio.clone)
    assert await ENGINE.fate(trio.target.at, around.target, name) == "Committed"
    again = await ENGINE.judge(trio.target.at, around.target, patch, INPUTS)
    assert (again.complete, again.conflicts, list(ENGINE.patch_rows(again.patch))) == (True, (), [])
    with pytest.raises(TargetMovedError):
        await written(around, judged.patch)


async def test_a_patch_is_complete_when_somebody_has_run_its_script(cluster: Cluster) -> None:
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, CHANGE)
    patch = await around.patch()
    await run(around.trio.target, ENGINE.script(patch))
    judged = await ENGINE.judge(around.trio.target.at, around.target, patch, INPUTS)
    assert judged.complete
    await run(around.trio.target, "UPDATE tea SET price = 1 WHERE id = 4")
    judged = await ENGINE.judge(around.trio.target.at, around.target, patch, INPUTS)
    assert not judged.complete


async def test_decisions_settle_conflicts_and_those_that_met_none_are_named(cluster: Cluster) -> None:
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, "UPDATE tea SET price = 6 WHERE id = 1; UPDATE tea SET name = 'oolong' WHERE id = 2")
    await run(around.trio.target, "UPDATE tea SET price = 7 WHERE id = 1")
    patch = await around.patch()
    judged = await ENGINE.judge(around.trio.target.at, around.target, patch, INPUTS)
    [conflict] = judged.conflicts
    assert (conflict.table, conflict.column, conflict.key, conflict.theirs) == ("tea", "price", {"id": "1"}, "6.00")
    assert [name.id for name in judged.names] == [conflict.id]
    assert "6.00" not in str(judged.names)
    decisions = (Decision("Source", conflict=conflict.id), Decision("Target", table="coffee"))
    settled = await ENGINE.judge(around.trio.target.at, around.target, patch, PatchInputs("salt", decisions))
    assert (settled.conflicts, [entry.id for entry in settled.decided]) == ((), [conflict.id])
    assert settled.unused == (1,)
    rows = {row.key["id"]: (row.before, row.after) for row in ENGINE.patch_rows(settled.patch, "tea")}
    assert (rows["1"][0] or {})["price"] == "7.00"
    await written(around, settled.patch)
    assert await contents(around.trio.target) == await contents(around.trio.clone)


async def test_what_nobody_takes_note_of_is_not_committed(cluster: Cluster) -> None:
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, CHANGE)
    patch, names = await around.patch(), []

    async def refuse(name: str) -> None:
        names.append(name)
        raise EngineError("somebody has changed the request")

    before = await contents(around.trio.target)
    with pytest.raises(EngineError, match="changed the request"):
        await ENGINE.write(around.trio.target.at, around.target, patch, "salt", refuse)
    async with asyncio.timeout(30):
        while await ENGINE.fate(around.trio.target.at, around.target, names[0]) == "Open":  # noqa: ASYNC110 - the server notices when it does
            await asyncio.sleep(0.05)
    assert await ENGINE.fate(around.trio.target.at, around.target, names[0]) == "Aborted"
    assert await contents(around.trio.target) == before


async def test_what_a_server_that_was_started_since_says_of_a_number_is_not_believed(cluster: Cluster) -> None:
    """It may run on what its volume was before, and have given the number to somebody else."""
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, "DELETE FROM tea")
    [known] = await written(around, await around.patch())
    assert re.fullmatch(r"xid:\d+@-?\d+-[0-9A-F]{8}-\d+", known)
    server, _, started = known.rpartition("-")
    assert await ENGINE.fate(around.trio.target.at, around.target, known) == "Committed"
    for name in (f"{server}-{int(started) - 1}", server):
        assert await ENGINE.fate(around.trio.target.at, around.target, name) == "Unknown"


@pytest.mark.parametrize("name", ["nonsense", "xid:1@17-00000001", "xid:4611686018427387904@{here}"])
async def test_of_another_server_or_history_nothing_can_be_told(cluster: Cluster, name: str) -> None:
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, "DELETE FROM tea")
    [known] = await written(around, await around.patch())
    asked = name.format(here=known.partition("@")[2])
    assert await ENGINE.fate(around.trio.target.at, around.target, asked) == "Unknown"


async def test_rules_that_it_breaks_are_named_and_nothing_is_written_also_such_as_are_looked_at_last(
    cluster: Cluster,
) -> None:
    around = Around(
        await cluster.new(TEA + "; ALTER TABLE tea ADD CONSTRAINT one UNIQUE (name) DEFERRABLE INITIALLY DEFERRED")
    )
    target = around.trio.target
    await run(around.trio.clone, "INSERT INTO tea VALUES (4, 'white', 9)")
    await run(target, "INSERT INTO tea VALUES (5, 'white', 1)")
    before = await contents(target)
    names: list[str] = []
    with pytest.raises(BrokenRulesError) as raised:
        await ENGINE.write(target.at, around.target, await around.patch(), "salt", lambda name: noted(names, name))
    [conflict] = raised.value.conflicts
    assert (conflict.kind, conflict.table, conflict.detail, names) == ("Unique", "tea", "one", [])
    assert "white" not in str(raised.value)
    assert await contents(target) == before


async def test_the_mark_of_a_server_changes_with_every_write_and_not_by_reading(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    admin = cluster.admin
    await pg(admin, "CHECKPOINT", "empty")
    before = await ENGINE.mark(admin, trio.clone.database)
    await ask(trio.clone, "SELECT 1")
    assert await ENGINE.mark(admin, trio.clone.database) == before
    await run(trio.clone, "UPDATE tea SET price = 1 WHERE id = 1")
    assert await ENGINE.mark(admin, trio.clone.database) != before


CHECKS = (
    Assertion("none", "SELECT FROM tea WHERE price < 0 -- all of them"),
    Assertion("some", "SELECT * FROM tea WHERE price > 5;"),
    Assertion("new", "SELECT FROM tea WHERE origin = 'Assam'"),
    Assertion("nonsense", "SELECT FROM coffee"),
    Assertion("writes", "WITH gone AS (DELETE FROM tea RETURNING 1) SELECT FROM gone"),
    Assertion("commits", "SELECT 1) AS q) AS n; COMMIT; SELECT (SELECT count(*) FROM (SELECT 1"),
    Assertion("calls", "SELECT setval('counter', 7)"),
)


async def test_checks_see_the_base_with_the_patch_and_leave_nothing(cluster: Cluster) -> None:
    around = Around(await cluster.new(TEA + "; CREATE SEQUENCE counter"))
    base = around.trio.base
    await run(around.trio.clone, CHANGE)
    patch, before = await around.patch(), await contents(base)
    found = await ENGINE.try_patch(base.at, base.database, patch, CHECKS)
    assert [(result.name, result.found) for result in found[:3]] == [("none", 0), ("some", 2), ("new", 3)]
    assert all(result.error.startswith("the server refused the query: SQLSTATE") for result in found[3:])
    assert await contents(base) == before
    assert (await around.patch()).changes.digest == patch.changes.digest


async def test_somebody_who_holds_the_base_up_is_no_refusal(cluster: Cluster) -> None:
    around = Around(await cluster.new(TEA))
    base = around.trio.base
    await run(around.trio.clone, CHANGE)
    patch = await around.patch()
    async with await connect(base) as other:
        await other.execute("BEGIN")
        await other.execute("LOCK TABLE tea")
        with pytest.raises(TargetBusyError):
            await ENGINE.try_patch(base.at, base.database, patch, ())


async def test_what_cannot_be_written_is_refused_by_name(cluster: Cluster) -> None:
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, "CREATE VIEW cheap AS SELECT * FROM tea WHERE price < 5")
    with pytest.raises(RefusedError, match="view cheap"):
        await around.patch()


async def test_nothing_of_a_patch_is_done_as_administrator(cluster: Cluster) -> None:
    """A default that the live database runs for the patch is run by the applications' login."""
    whoami = "CREATE FUNCTION who() RETURNS text LANGUAGE sql AS 'SELECT current_user::text'"
    around = Around(await cluster.new(f"{TEA}; {whoami}"))
    await run(around.trio.clone, "ALTER TABLE tea ADD COLUMN by text DEFAULT public.who()")
    await written(around, await around.patch())
    assert await ask(around.trio.target, "SELECT DISTINCT by FROM tea") == [(cluster.app.username,)]


async def test_a_clone_that_is_as_it_came_has_nothing_to_write(cluster: Cluster) -> None:
    clone = (await cluster.new(TEA)).clone
    patch = await ENGINE.patch(clone.at, clone.at, clone.database)
    assert (patch.changes.tables, patch.changes.statements, patch.size) == ((), (), 0)
    assert await ENGINE.differences(clone.at, clone.at, clone.database) == patch.changes
    assert [row async for row in ENGINE.rows(clone.at, clone.at, clone.database)] == []


async def test_reading_leaves_the_mark_of_a_server_alone_once_all_was_read(cluster: Cluster) -> None:
    """A request at which nothing changes is not compared for ever: to read a row may write that it has been seen."""
    around = Around(await cluster.new(TEA + "; INSERT INTO tea SELECT n, 'tea', n FROM generate_series(10, 5000) AS n"))
    await run(around.trio.clone, "UPDATE tea SET price = price + 1 WHERE id % 7 = 0")
    admin, database = cluster.admin, around.trio.clone.database
    patch, clone = await around.patch(), around.trio.clone.at
    for _ in range(20):
        before = await ENGINE.mark(admin, database)
        await ENGINE.judge(clone, database, patch, INPUTS)
        await ENGINE.differences(clone, clone, database)
        if await ENGINE.mark(admin, database) == before:
            return
        await asyncio.sleep(0.5)
    pytest.fail("each look writes")


async def test_what_takes_too_long_is_said_in_the_words_of_the_contract(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, "ALTER TABLE tea ADD COLUMN nap text DEFAULT (pg_sleep(0.1)::text)")
    monkeypatch.setattr(libpq, "WORK_SECONDS", 0.2)
    with pytest.raises(UnreachableError, match="did not answer"):
        await around.patch()


async def test_what_the_live_server_says_of_rows_is_not_handed_on(cluster: Cluster) -> None:
    around = Around(
        await cluster.new(
            "CREATE TYPE kind AS ENUM ('hush', 'x'); CREATE TABLE tea (kind kind PRIMARY KEY, n int);"
            " INSERT INTO tea VALUES ('hush', 1)"
        )
    )
    target = around.trio.target
    await run(around.trio.clone, "UPDATE tea SET n = 2")
    await run(target, "ALTER TYPE kind RENAME VALUE 'hush' TO 'loud'")
    with pytest.raises(EngineError, match="SQLSTATE 22P02") as raised:
        await ENGINE.judge(target.at, target.database, await around.patch(), INPUTS)
    assert "hush" not in str(raised.value)


async def test_no_table_of_the_moment_stands_in_for_one_that_a_check_asks(cluster: Cluster) -> None:
    hides = "CREATE FUNCTION hides() RETURNS int LANGUAGE plpgsql AS 'BEGIN CREATE TEMP TABLE IF NOT EXISTS tea (price int); RETURN 1; END'"
    around = Around(await cluster.new(f"{TEA}; {hides}"))
    await run(
        around.trio.clone, "ALTER TABLE tea ADD COLUMN n int DEFAULT public.hides(); UPDATE public.tea SET price = -1"
    )
    base = around.trio.base
    check = Assertion("none", "SELECT FROM tea WHERE price < 0")
    [found] = await ENGINE.try_patch(base.at, base.database, await around.patch(), [check])
    assert found.found == 3


async def test_wide_rows_behind_narrow_ones_are_in_memory_a_few_at_a_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = Around(await cluster.new("CREATE TABLE t (id int PRIMARY KEY, a text)"))
    many = "SELECT 1000 + n, 'x' FROM generate_series(1, 600) n UNION ALL SELECT 9000 + n, repeat('y', 200000) FROM generate_series(1, 30) n"
    await run(around.trio.clone, f"INSERT INTO t {many}")
    fetched, sizes = libpq.Session._fetched, []

    async def measured(session: libpq.Session, cursor: str, count: int) -> list[tuple[str | None, ...]]:
        rows = await fetched(session, cursor, count)
        sizes.append(sum(len(cell or "") for row in rows for cell in row))
        return rows

    monkeypatch.setattr(libpq.Session, "_fetched", measured)
    await around.patch()
    assert 200_000 < max(sizes) <= 1 << 20


async def test_a_row_that_has_no_room_in_a_change_set_is_not_fetched(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = Around(await cluster.new(TEA))
    await run(around.trio.clone, "UPDATE tea SET name = repeat('x', 2000) WHERE id = 1")
    monkeypatch.setattr(pgcompare, "MAX_SIZE", 1000)
    with pytest.raises(RefusedError, match="tea that differ is one of more than 1000 bytes"):
        await around.patch()
