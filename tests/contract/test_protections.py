"""A protected branch: every way round its protection that somebody has thought of, tried by the application's login."""

from __future__ import annotations

import asyncio
import re
from itertools import count
from typing import TYPE_CHECKING

import pymysql.err
import pytest
import pytest_asyncio

from coppice.engines.merging import MergingEngine

from .conftest import Stage, open_stage
from .merge_cases import PLAIN
from .merge_kit import Database, Databases, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from coppice.engines.base import Endpoint

    from .runner import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUSED = re.compile(r"denied|permission|cannot (create|delete|add|update)")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[tuple[Stage, Server]]:
    with open_stage("dolt") as stage:
        workload = stage.store(load=False)
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            yield stage, server


class Guarded:
    """A database with a protected branch, a branch of the application's, and the application's login."""

    def __init__(self, stage: Stage, server: Server, database: Database) -> None:
        self.stage, self.server, self.database = stage, server, database
        self.admin: Endpoint = stage.admin(server)
        self.app: Endpoint = stage.app(server)

    async def protect(self, *branches: str) -> None:
        await self.stage.protect(self.server, self.database.name, *branches)

    async def ensure_app(self) -> None:
        await self.stage.ensure_app(self.server, self.database.name)

    async def as_app(self, *statements: str, branch: str | None = None) -> tuple[tuple[object, ...], ...]:
        database = self.database.name if branch is None else f"{self.database.name}/{branch}"
        return await run(self.app, database, statements)

    async def state(self) -> Sequence[object]:
        """Return all of the protected branch that anybody sees."""
        return [
            await self.database.ask("SELECT * FROM t ORDER BY id"),
            await self.database.ask(
                "SELECT name, hash FROM dolt_branches WHERE name IN ('main', 'release/1') OR name LIKE 'coppice/%'"
            ),
            await self.database.ask("SELECT tag_name, tag_hash FROM dolt_tags"),
            await self.database.ask("SELECT * FROM dolt_status"),
            await self.database.ask("SELECT table_name FROM information_schema.tables WHERE table_schema = database()"),
        ]


@pytest_asyncio.fixture(loop_scope="module")
async def guarded(served: tuple[Stage, Server]) -> AsyncIterator[Guarded]:
    stage, server = served
    database = await Databases(stage.admin(server), numbers=_NUMBERS).new(PLAIN)
    guarded = Guarded(stage, server, database)
    await database.commit("main", ["UPDATE t SET a = 100 WHERE id = 3"])
    await database.branch("release/1")
    await database.ask("CALL dolt_tag('coppice/prices-0a1b2/before')")
    await database.ask("CALL dolt_tag('coppice/deleted/dev/20260302T090000Z')")
    await guarded.ensure_app()
    await guarded.as_app("CALL dolt_branch('dev', 'main')")
    await database.commit("dev", ["UPDATE t SET a = 0"])
    await guarded.protect("main", "release/*")
    yield guarded
    await run(guarded.admin, None, [f"DROP DATABASE IF EXISTS {database.name}"])


_NUMBERS = count()

BYPASSES = [
    # Rows and definitions.
    "INSERT INTO t VALUES (9, 9, 'nine')",
    "UPDATE t SET a = 9",
    "DELETE FROM t",
    "TRUNCATE t",
    "REPLACE INTO t VALUES (1, 9, 'nine')",
    "CREATE TABLE mine (id INT PRIMARY KEY)",
    "DROP TABLE t",
    "ALTER TABLE t ADD COLUMN c INT",
    "ALTER TABLE t DROP COLUMN a",
    "RENAME TABLE t TO u",
    "CREATE INDEX i ON t (a)",
    "CREATE VIEW v AS SELECT 1",
    "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET new.a = 1",
    "CREATE PROCEDURE p() SELECT 1",
    "CREATE EVENT e ON SCHEDULE EVERY 1 SECOND DO DELETE FROM t",
    # Commits.
    "CALL dolt_commit('--allow-empty', '-m', 'mine')",
    "CALL dolt_commit('--amend', '-m', 'mine')",
    "CALL dolt_reset('--hard', 'HEAD~1')",
    "CALL dolt_reset('--soft', 'HEAD~1')",
    "CALL dolt_reset('HEAD~1')",
    "CALL dolt_merge('dev')",
    "CALL dolt_merge('dev', '--squash')",
    "CALL dolt_cherry_pick('dev')",
    "CALL dolt_revert('HEAD')",
    "CALL dolt_rebase('dev')",
    "CALL dolt_stash('push', 'mine')",
    "CALL dolt_add('-A')",
    "CALL dolt_rm('t')",
    "CALL dolt_clean()",
    "CALL dolt_checkout('t')",
    "CALL dolt_pull('origin')",
    # Branches.
    "CALL dolt_branch('-f', 'main', 'dev')",
    "CALL dolt_branch('-f', 'MAIN', 'dev')",
    "CALL dolt_branch('-m', 'main', 'gone')",
    "CALL dolt_branch('-m', '-f', 'dev', 'main')",
    "CALL dolt_branch('-c', '-f', 'dev', 'main')",
    "CALL dolt_branch('-D', 'release/1')",
    "CALL dolt_branch('-d', 'release/1')",
    "CALL dolt_branch('-m', 'release/1', 'gone')",
    "CALL dolt_branch('-f', 'release/1', 'dev')",
    "CALL dolt_branch('release/2', 'dev')",
    "CALL dolt_checkout('-B', 'main', 'dev')",
    "CALL dolt_checkout('-b', 'release/3', 'dev')",
    # What Coppice calls its own, and tags, by which a publication is undone and deleted branches are kept.
    "CALL dolt_branch('coppice/merge-0123456789abcdef', 'dev')",
    "CALL dolt_branch('-f', 'coppice/publish-0123456789abcdef', 'dev')",
    "CALL dolt_branch('-m', 'dev', 'coppice/merging-0123456789abcdef')",
    "CALL dolt_checkout('-b', 'coppice/fetched-0123456789abcdef', 'dev')",
    "CALL dolt_tag('mine')",
    "CALL dolt_tag('-d', 'coppice/prices-0a1b2/before')",
    "CALL dolt_tag('coppice/deleted/main/20260302T090000Z', 'dev')",
    "CALL dolt_tag('-d', 'coppice/deleted/dev/20260302T090000Z')",
    # The name of a branch is a pattern, of which its creator is the administrator.
    "CALL dolt_branch('%', 'dev')",
    "CALL dolt_branch('ma%', 'dev')",
    "CALL dolt_branch('mai_', 'dev')",
    "CALL dolt_branch('____', 'dev')",
    "CALL dolt_branch('-c', 'dev', 'm%n')",
    "CALL dolt_branch('-m', 'dev', 'mai_')",
    "CALL dolt_checkout('-b', 'mai_', 'dev')",
    # The rules themselves.
    "INSERT INTO dolt_branch_control VALUES ('{database}', 'main', 'app', '%', 'admin')",
    "INSERT INTO dolt_branch_control VALUES ('{database}', 'mai_', 'app', '%', 'admin')",
    "INSERT INTO dolt_branch_control VALUES ('%', '%', 'app', '%', 'admin')",
    "REPLACE INTO dolt_branch_control VALUES ('{database}', 'main', '%', '%', 'write')",
    "UPDATE dolt_branch_control SET permissions = 'admin'",
    "DELETE FROM dolt_branch_control",
    "DELETE FROM dolt_branch_namespace_control",
    "INSERT INTO dolt_branch_namespace_control VALUES ('{database}', 'main', 'app', '%')",
    "GRANT ALL ON *.* TO app",
    "GRANT EXECUTE ON {database}.* TO app",
    "CREATE USER other",
    # Dolt's own tables, one of which puts another branch's rows in the place of a table's.
    "INSERT INTO dolt_nonlocal_tables VALUES ('t', 'dev', '', 'immediate')",
    "REPLACE INTO dolt_nonlocal_tables VALUES ('t', 'dev', '', 'immediate')",
    "INSERT INTO dolt_ignore VALUES ('x', 1)",
    "INSERT INTO dolt_docs VALUES ('README.md', 'x')",
    "INSERT INTO dolt_query_catalog VALUES ('a', 1, 'a', 'SELECT 1', 'x')",
    "INSERT INTO dolt_tests VALUES ('a', 'b', 'SELECT 1', 'expected_rows', '==', '1')",
    "INSERT INTO dolt_schemas VALUES ('view', 'v', 'CREATE VIEW v AS SELECT 1', NULL, NULL)",
    "DELETE FROM dolt_workspace_t",
    # The whole database.
    "DROP DATABASE {database}",
    "DROP SCHEMA `{database}/main`",
    "CALL dolt_undrop('{database}')",
    "CALL dolt_purge_dropped_databases()",
    "CALL dolt_clone('file:///tmp/x', '{database}')",
    "CALL dolt_backup('restore', 'file:///tmp/x', '{database}')",
    "CALL dolt_remote('add', 'out', 'http://192.0.2.1/x')",
    "CALL dolt_push('out', 'dev:main')",
    "CALL dolt_fetch('out')",
    "CALL dolt_gc()",
    "CALL dolt_update_column_tag('t', 'a', '1')",
]


@pytest.mark.parametrize("again", [False, True], ids=["", "ensured again"])
async def test_no_statement_or_procedure_goes_round_it(guarded: Guarded, again: bool) -> None:  # noqa: FBT001
    if again:
        await guarded.ensure_app()
    before = await guarded.state()
    let_through = []
    for statement in BYPASSES:
        for branch in ("main", None):
            text = statement.format(database=guarded.database.name)
            try:
                await guarded.as_app(text, branch=branch)
            except pymysql.err.MySQLError as error:
                if REFUSED.search(str(error)):
                    continue
                let_through.append(f"{branch}: {text}: {error}")
            else:
                let_through.append(f"{branch}: {text}")
    assert let_through == []
    assert await guarded.state() == before


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO `{database}/main`.t VALUES (9, 9, 'nine')",
        "DELETE FROM `{database}/release/1`.t",
        "UPDATE `{database}/main`.t m JOIN t d ON d.id = m.id SET m.a = 9",
        "USE `{database}/main`; DELETE FROM t",
        "CALL dolt_branch('-f', 'main', 'dev')",
        "CALL dolt_branch('-m', '-f', 'dev', 'release/1')",
        "DROP TABLE `{database}/main`.t",
        "CREATE TABLE `{database}/main`.mine (id INT PRIMARY KEY)",
    ],
)
async def test_nor_from_another_branch(guarded: Guarded, statement: str) -> None:
    before = await guarded.state()
    text = statement.format(database=guarded.database.name)
    with pytest.raises(pymysql.err.MySQLError, match=REFUSED):
        await guarded.as_app(*text.split("; "), branch="dev")
    assert await guarded.state() == before


async def test_a_procedure_named_by_another_branch_works_on_its_own(guarded: Guarded) -> None:
    before = await guarded.state()
    await guarded.as_app(
        f"CALL `{guarded.database.name}/main`.dolt_commit('--allow-empty', '-m', 'mine')", branch="dev"
    )
    assert await guarded.state() == before


async def test_what_an_app_stored_on_its_own_branch_does_nothing_elsewhere(guarded: Guarded) -> None:
    before = await guarded.state()
    name = guarded.database.name
    await guarded.as_app(
        f"CREATE PROCEDURE away() DELETE FROM `{name}/main`.t",
        f"CREATE TRIGGER away BEFORE INSERT ON t FOR EACH ROW DELETE FROM `{name}/main`.t",
        branch="dev",
    )
    for statement in ("CALL away()", "INSERT INTO t VALUES (9, 9, 'nine')"):
        with pytest.raises(pymysql.err.MySQLError):
            await guarded.as_app(statement, branch="dev")
    assert await guarded.state() == before


@pytest.mark.parametrize("definer", ["", "DEFINER='root'@'%' "])
async def test_no_event_writes_for_an_app_from_a_branch_of_its_own(guarded: Guarded, definer: str) -> None:
    await guarded.protect()
    name = guarded.database.name
    event = (
        f"CREATE {definer}EVENT e{{}} ON SCHEDULE EVERY 1 SECOND"
        f" DO INSERT INTO `{name}/release/1`.t VALUES ({{}}, 9, 'nine')"
    )
    await guarded.as_app(event.format(1, 900))
    await guarded.protect("release/*")
    await guarded.as_app("CREATE TABLE mine (id INT PRIMARY KEY)")  # main is the app's, but for its events
    await run(guarded.admin, f"{name}/release/1", ["CALL dolt_reset('--hard')"])
    before = await guarded.state()
    for statement in (event.format(2, 901), "ALTER EVENT e1 ENABLE", "ALTER EVENT e1 ON SCHEDULE EVERY 2 SECOND"):
        for branch in (None, "dev"):
            with pytest.raises(pymysql.err.MySQLError, match="denied"):
                await guarded.as_app(statement, branch=branch)
    assert await guarded.database.ask("SELECT @@GLOBAL.event_scheduler") == (("OFF",),)
    await guarded.as_app("SET GLOBAL event_scheduler = ON")  # Dolt refuses no setting to anybody
    await asyncio.sleep(2.5)
    assert await guarded.state() == before
    assert await guarded.database.ask("SELECT id FROM t WHERE id >= 900", "release/1") == ()
    await guarded.protect()
    assert await guarded.database.ask("SELECT @@GLOBAL.event_scheduler") == (("ON",),)
    await guarded.as_app("DROP EVENT e1")


@pytest.mark.parametrize("branch", ["main", "dev"])
async def test_a_table_of_a_branch_that_is_gone_keeps_no_protection_away(guarded: Guarded, branch: str) -> None:
    await guarded.protect()
    await guarded.as_app(
        "CALL dolt_branch('going', 'dev')",
        "INSERT INTO dolt_nonlocal_tables VALUES ('u', 'going', '', 'immediate')",
        "CALL dolt_branch('-D', 'going')",
        branch=branch,
    )
    for _ in range(2):
        await guarded.protect("main", "release/*")
        with pytest.raises(pymysql.err.MySQLError, match=r"permission|branch not found"):
            await guarded.as_app("DELETE FROM t", branch="main")
        with pytest.raises(pymysql.err.MySQLError, match="denied"):
            await guarded.as_app("CALL dolt_checkout('-B', 'main', 'dev')")
        await guarded.as_app("UPDATE t SET a = a + 1", branch="dev")
        await guarded.ensure_app()


async def test_the_app_keeps_its_work_on_its_own_branches(guarded: Guarded) -> None:
    await guarded.as_app(
        "INSERT INTO t VALUES (9, 9, 'nine')",
        "ALTER TABLE t ADD COLUMN c INT",
        "CREATE VIEW v AS SELECT 1",
        "CALL dolt_commit('-A', '-m', 'mine')",
        "CALL dolt_reset('--hard', 'HEAD')",
        "CALL dolt_revert('HEAD')",
        "DROP TABLE t",
        "CALL dolt_reset('--hard', 'HEAD')",
        "CALL dolt_branch('next', 'dev')",
        "CALL dolt_branch('-m', 'next', 'other')",
        "CALL dolt_branch('-D', 'other')",
        branch="dev",
    )
    assert await guarded.as_app("SELECT COUNT(*) FROM t") == ((3,),)
    await guarded.as_app("CALL dolt_branch('side', 'dev')", branch="dev")
    await guarded.as_app("INSERT INTO t (id) VALUES (8)", "CALL dolt_commit('-a', '-m', 'side')", branch="side")
    await guarded.as_app("CALL dolt_merge('side', '--no-ff')", branch="dev")


async def test_a_table_that_is_new_can_be_written_to_once_the_login_is_ensured_again(guarded: Guarded) -> None:
    await guarded.as_app("CREATE TABLE mine (id INT PRIMARY KEY)", branch="dev")
    with pytest.raises(pymysql.err.MySQLError, match="denied"):
        await guarded.as_app("INSERT INTO mine VALUES (1)", branch="dev")
    await guarded.ensure_app()
    await guarded.as_app("INSERT INTO mine VALUES (1)", "DROP TABLE mine", branch="dev")


async def test_the_app_reads_changes_and_conflicts(guarded: Guarded) -> None:
    database = guarded.database
    heads = dict(await database.ask("SELECT name, hash FROM dolt_branches"))
    await database.commit("main", ["UPDATE t SET a = 5 WHERE id = 1", "ALTER TABLE t RENAME COLUMN b TO c"])
    [(head,)] = await database.ask("SELECT hash FROM dolt_branches WHERE name = 'main'")
    inputs = database.inputs(head, heads["dev"])
    engine = guarded.stage.engine
    assert isinstance(engine, MergingEngine)
    found = [conflict async for conflict in engine.conflicts(guarded.app, inputs)]
    assert [(each.kind, each.column, each.key) for each in found] == [("Cell", "a", {"id": 1})]
    rows = [row async for row in engine.rows(guarded.app, database.name, "release/1", "dev")]
    assert len(rows) == 3


async def test_what_somebody_made_before_does_not_count(guarded: Guarded) -> None:
    await guarded.protect()
    await guarded.as_app("CALL dolt_branch('mai_', 'dev')", "CALL dolt_branch('release/9', 'dev')")
    await guarded.protect("main", "release/*")
    for branch in ("main", "release/9"):
        with pytest.raises(pymysql.err.MySQLError, match="permission"):
            await guarded.as_app("DELETE FROM t", branch=branch)
    await guarded.as_app("DELETE FROM t", branch="mai_")


async def test_protection_follows_the_rules_and_is_the_same_again(guarded: Guarded) -> None:
    rules = "SELECT * FROM dolt_branch_control WHERE `database` = database() ORDER BY branch, user"
    rules = rules.replace("database()", f"'{guarded.database.name}'")
    first = await guarded.database.ask(rules)
    await guarded.protect("main", "release/*")
    assert await guarded.database.ask(rules) == first
    await guarded.protect("release/1")
    await guarded.as_app("DELETE FROM t WHERE id = 1")
    with pytest.raises(pymysql.err.MySQLError, match="permission"):
        await guarded.as_app("DELETE FROM t", branch="release/1")
    await guarded.protect()
    assert await guarded.database.ask(rules) == ()
    await guarded.as_app("DELETE FROM t", branch="release/1")
    await guarded.as_app("CALL dolt_checkout('-B', 'main', 'dev')", "DROP TABLE t")


async def test_the_administrator_still_may(guarded: Guarded) -> None:
    await guarded.database.commit("main", ["DELETE FROM t WHERE id = 1"])
    await guarded.database.branch("release/2")
    await run(guarded.admin, f"{guarded.database.name}/main", ["CALL dolt_branch('-D', 'release/2')"])


@pytest.mark.parametrize("branches", [(), ("main", "release/*")], ids=["nothing", "branches"])
async def test_a_login_that_is_made_later_has_the_rights_of_one_that_was_there(
    served: tuple[Stage, Server], branches: tuple[str, ...]
) -> None:
    stage, old = served
    rights = []
    async with stage.runner.serving(stage.store(load=False), stage.runner.new("volume"), stage.secret()) as new:
        for server, first in ((old, True), (new, False)):
            database = await Databases(stage.admin(server), numbers=iter([7000])).new(PLAIN)
            guarded = Guarded(stage, server, database)
            if first:
                await guarded.ensure_app()
            await guarded.protect(*branches)
            if not first:
                assert await run(guarded.admin, None, ["SELECT user FROM mysql.user WHERE user = 'app'"]) == ()
                await guarded.ensure_app()
            rights.append(await run(guarded.admin, None, ["SHOW GRANTS FOR app@'%'"]))
            await run(guarded.admin, None, [f"DROP DATABASE {database.name}"])
    assert _about("d7000", rights[0]) == _about("d7000", rights[1]) != []


def _about(database: str, rights: Sequence[tuple[object, ...]]) -> list[str]:
    return sorted(str(right) for (right,) in rights if f"`{database}`" in str(right))
