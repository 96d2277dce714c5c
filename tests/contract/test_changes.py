"""How versions differ: counts, rows, digests; and what change requests do to branches and tags beside merging them."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import pymysql
import pytest
import pytest_asyncio

from coppice.engines.base import Endpoint, EngineError, UnknownVersionError
from coppice.engines.merging import Assertion, Authors, Binary, MergingEngine, RowChange, TableChanges

from .conftest import Stage, open_stage
from .merge_cases import PLAIN
from .merge_kit import Database, Databases, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from .runner import Server

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served() -> AsyncIterator[tuple[Stage, Server]]:
    with open_stage("dolt") as stage:
        workload = stage.store(load=False)
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            yield stage, server


@pytest.fixture(scope="module")
def databases(served: tuple[Stage, Server]) -> Databases:
    stage, server = served
    return Databases(stage.admin(server))


async def _rows(database: Database, before: str, after: str, table: str | None = None) -> list[RowChange]:
    server = database.server
    return [row async for row in server.engine.rows(server.at, database.name, before, after, table)]


async def test_the_engine_is_one_that_merges(databases: Databases) -> None:
    assert isinstance(databases.engine, MergingEngine)


class TestRows:
    async def test_each_row_is_told_with_its_key_and_both_sides(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        await database.branch("before")
        await database.commit(
            "main",
            ["UPDATE t SET b = NULL WHERE id = 1", "DELETE FROM t WHERE id = 2", "INSERT INTO t VALUES (9, 9, 'ß')"],
        )
        assert await _rows(database, "before", "main") == [
            RowChange("t", "Modified", {"id": 1}, {"id": 1, "a": 1, "b": "one"}, {"id": 1, "a": 1, "b": None}),
            RowChange("t", "Deleted", {"id": 2}, {"id": 2, "a": 2, "b": "two"}, None),
            RowChange("t", "Added", {"id": 9}, None, {"id": 9, "a": 9, "b": "ß"}),
        ]
        changes = await databases.engine.changes(databases.at, database.name, "before", "main")
        assert changes.tables == (TableChanges("t", added=1, modified=1, deleted=1),)
        assert changes.statements == ()
        assert len(bytes.fromhex(changes.digest)) == 32

    async def test_values_are_as_a_person_would_write_them(self, databases: Databases) -> None:
        columns = (
            "id INT PRIMARY KEY, n DECIMAL(20, 4), d DATE, w DATETIME(6), h TIME(6), x VARBINARY(9), j JSON, f DOUBLE,"
            " s VARCHAR(40), e ENUM('a', 'b'), `commit` INT, `commit_date` DATE"
        )
        database = await databases.new([f"CREATE TABLE t ({columns})"])
        await database.branch("before")
        await database.commit(
            "main",
            [
                """INSERT INTO t VALUES (1, 12345678901234.5, '2020-02-29', '2020-02-29 23:59:59.000001', '-26:00:01.5',
                x'00ff', '{"a": [1]}', 0.1, '紅 🌱', 'b', 7, '2021-01-01')"""
            ],
        )
        [row] = await _rows(database, "before", "main", "t")
        assert row.after == {
            "id": 1,
            "n": "12345678901234.5000",
            "d": "2020-02-29",
            "w": "2020-02-29 23:59:59.000001",
            "h": "-26:00:01.500000",
            "x": "0x00ff",
            "j": '{"a":[1]}',
            "f": 0.1,
            "s": "紅 🌱",
            "e": "b",
            "commit": 7,
            "commit_date": "2021-01-01",
        }
        assert isinstance(row.after["x"], Binary)

    async def test_a_row_of_a_table_without_a_key_is_there_as_often_as_it_differs(self, databases: Databases) -> None:
        database = await databases.new(["CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1), (1)"])
        await database.branch("before")
        await database.commit("main", ["DELETE FROM t LIMIT 1", "INSERT INTO t VALUES (2), (2)"])
        found = await _rows(database, "before", "main")
        assert sorted((row.kind, (row.after or row.before or {})["a"]) for row in found) == [
            ("Added", 2),
            ("Added", 2),
            ("Deleted", 1),
        ]
        assert {tuple(row.key) for row in found} == {()}

    async def test_definitions_are_told_as_statements(self, databases: Databases) -> None:
        database = await databases.new(
            [*PLAIN, "CREATE TABLE gone (id INT PRIMARY KEY)", "INSERT INTO gone VALUES (1)"]
        )
        await database.branch("before")
        await database.commit(
            "main",
            [
                "DROP TABLE gone",
                "CREATE TABLE made (id INT PRIMARY KEY)",
                "INSERT INTO made VALUES (1)",
                "ALTER TABLE t ADD COLUMN c INT",
                "CREATE VIEW v AS SELECT 1",
                "CREATE PROCEDURE p() SELECT 1",
            ],
        )
        changes = await databases.engine.changes(databases.at, database.name, "before", "main")
        counts = {each.table: (each.added, each.modified, each.deleted, each.schema) for each in changes.tables}
        assert counts["gone"] == (0, 0, 1, True)
        assert counts["made"] == (1, 0, 0, True)
        assert counts["t"] == (0, 0, 0, True)
        words = "\n".join(changes.statements)
        for expected in (
            "DROP TABLE `gone`",
            "CREATE TABLE `made`",
            "ALTER TABLE `t` ADD `c` int",
            "CREATE VIEW v AS SELECT 1",
            "CREATE PROCEDURE p() SELECT 1",
        ):
            assert expected in words

    async def test_a_renamed_table_has_the_rows_it_had(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        await database.branch("before")
        await database.commit("main", ["RENAME TABLE t TO u", "UPDATE u SET a = 5 WHERE id = 1"])
        changes = await databases.engine.changes(databases.at, database.name, "before", "main")
        assert changes.tables == (TableChanges("u", added=0, modified=1, deleted=0, schema=True),)
        assert changes.statements == ("RENAME TABLE `t` TO `u`;",)

    async def test_with_another_key_all_rows_are_others(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        await database.branch("before")
        await database.commit("main", ["ALTER TABLE t DROP PRIMARY KEY", "ALTER TABLE t ADD PRIMARY KEY (id, b)"])
        changes = await databases.engine.changes(databases.at, database.name, "before", "main")
        assert changes.tables == (TableChanges("t", added=3, modified=0, deleted=3, schema=True),)
        assert changes.statements[-2:] == (
            "ALTER TABLE `t` DROP PRIMARY KEY;",
            "ALTER TABLE `t` ADD PRIMARY KEY (`id`,`b`);",
        )
        assert {tuple(row.key) for row in await _rows(database, "before", "main")} == {("id",), ("id", "b")}

    async def test_who_stops_early_leaves_no_session(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        await database.branch("before")
        await database.commit("main", ["UPDATE t SET a = 0"])
        async with aclosing(databases.engine.rows(databases.at, database.name, "before", "main")) as rows:
            async for row in rows:
                assert row.kind == "Modified"
                break
        [others] = await database.ask("SELECT COUNT(*) FROM information_schema.processlist WHERE id <> connection_id()")
        assert others == (0,)

    async def test_what_is_not_there_is_said_so(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        engine, at = databases.engine, databases.at
        with pytest.raises(UnknownVersionError, match="nowhere"):
            await engine.changes(at, database.name, "main", "nowhere")
        with pytest.raises(UnknownVersionError, match="no table nothing"):
            await _rows(database, "main", "main", "nothing")
        with pytest.raises(UnknownVersionError, match="no database"):
            await engine.log(at, "elsewhere", "main", limit=1)
        with pytest.raises(UnknownVersionError):
            await engine.merge_base(at, database.name, "main", "0" * 32)


class TestDigest:
    async def test_it_is_the_same_for_the_same_changes_upon_other_rows(self, databases: Databases) -> None:
        work = ["UPDATE t SET a = 7 WHERE id = 1", "DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (8, 8, 'x')"]
        digests = []
        for others, order in (
            ([], work),
            (["INSERT INTO t VALUES (100, 1, 'y')", "UPDATE t SET a = 3 WHERE id = 2"], work[::-1]),
        ):
            database = await databases.new([*PLAIN, *others])
            await database.branch("before")
            for statement in order:
                await database.commit("main", [statement])
            digests.append((await databases.engine.changes(databases.at, database.name, "before", "main")).digest)
        assert digests[0] == digests[1]

    @pytest.mark.parametrize(
        "other",
        [
            ["UPDATE t SET a = 8 WHERE id = 1"],
            ["UPDATE t SET a = 7 WHERE id = 2"],
            ["UPDATE t SET a = 7, b = '7' WHERE id = 1"],
            ["UPDATE t SET a = 7 WHERE id = 1", "ALTER TABLE t ADD COLUMN c INT"],
            ["UPDATE t SET a = 7 WHERE id = 1", "CREATE VIEW v AS SELECT 1"],
            ["DELETE FROM t WHERE id = 1"],
            [],
        ],
    )
    async def test_it_is_another_for_other_changes(self, databases: Databases, other: list[str]) -> None:
        database = await databases.new(PLAIN)
        await database.branch("before")
        await database.branch("other")
        await database.commit("main", ["UPDATE t SET a = 7 WHERE id = 1"])
        await database.commit("other", other)
        digests = {
            (await databases.engine.changes(databases.at, database.name, "before", after)).digest
            for after in ("main", "other")
        }
        assert len(digests) == 2


class TestHistory:
    async def test_commits_are_told_with_their_author_and_parents(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        inputs = await database.diverged(["DELETE FROM t WHERE id = 1"], ["DELETE FROM t WHERE id = 2"])
        outcome = await databases.engine.merge(databases.at, inputs)
        assert outcome.result is not None
        merge, *_ = await databases.engine.log(databases.at, database.name, outcome.result, limit=2)
        assert (merge.hash, merge.parents) == (outcome.result, (inputs.target, inputs.source))
        assert (merge.author, merge.email) == ("Ann Editor", "ann@example.org")
        assert merge.message == "Autumn prices: ünïcode"
        assert merge.time.tzinfo is not None
        assert await databases.engine.authors_between(databases.at, database.name, "main", "main") == Authors()
        base = await databases.engine.merge_base(databases.at, database.name, "main", "work")
        assert base == outcome.base
        assert base not in {inputs.target, inputs.source, None}

    async def test_who_made_commits_is_known_however_many_there_are(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        await database.branch("work")
        calls = [
            f"CALL dolt_commit('--allow-empty', '-m', 'work', '--author', '{name} <{name.lower()}@example.org>')"
            for name in ("First", *["Second"] * 1200)
        ]
        await database.commit("work", calls)
        authors = await databases.engine.authors_between(databases.at, database.name, "main", "work")
        assert authors.names >= {"First", "first@example.org", "Second", "second@example.org"}
        assert not authors.cut

    async def test_reading_is_no_activity(self, served: tuple[Stage, Server], databases: Databases) -> None:
        stage, server = served
        database = await databases.new(PLAIN)
        await database.branch("before")
        await database.commit("main", ["UPDATE t SET a = 0"])
        token = (await stage.engine.activity(stage.admin(server))).token
        await databases.engine.changes(databases.at, database.name, "before", "main")
        assert len(await _rows(database, "before", "main")) == 3
        await databases.engine.log(databases.at, database.name, "main", limit=5)
        await databases.engine.authors_between(databases.at, database.name, "before", "main")
        await databases.engine.merge_base(databases.at, database.name, "before", "main")
        assert (await stage.engine.activity(stage.admin(server))).token == token

    async def test_nor_is_what_is_done_already(self, served: tuple[Stage, Server], databases: Databases) -> None:
        stage, server = served
        database = await databases.new(PLAIN)
        commit = await database.commit("main", ["UPDATE t SET a = 0"])
        at, name = databases.at, {"database": database.name}
        work = {**name, "branch": "main", "author": "Bob", "email": "bob@example.org", "message": "mine"}
        tag = {**name, "tag": "before", "commit": commit}
        protect = {**name, "branches": '["main"]', "username": "app"}
        repeated = [
            ("commit-work", work),
            ("create-tag", tag),
            ("protect", protect),
            ("ensure-fetch-user", {"password": "x"}),
        ]
        await stage.ensure_app(server, database.name)
        for action, arguments in repeated:
            await stage.engine.execute(at, action, arguments)
        token = (await stage.engine.activity(at)).token
        for action, arguments in repeated:
            await stage.engine.execute(at, action, arguments)
        await stage.ensure_app(server, database.name)
        assert (await stage.engine.activity(at)).token == token


class TestActions:
    async def _do(self, database: Database, action: str, **arguments: str) -> None:
        server = database.server
        await server.engine.execute(server.at, action, {"database": database.name, **arguments})

    async def test_work_becomes_a_commit_of_its_author_once(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        await run(databases.at, database.name, ["UPDATE t SET a = 0", "CREATE TABLE n (id INT PRIMARY KEY)"])
        wanted = {"branch": "main", "author": "Bob", "email": "bob@example.org", "message": "mine"}
        await self._do(database, "commit-work", **wanted)
        head = await database.ask("SELECT commit_hash, committer, email, message FROM dolt_log LIMIT 1")
        assert head[0][1:] == ("Bob", "bob@example.org", "mine")
        assert await database.ask("SELECT * FROM dolt_status") == ()
        await self._do(database, "commit-work", **wanted)
        assert await database.ask("SELECT commit_hash, committer, email, message FROM dolt_log LIMIT 1") == head
        with pytest.raises(UnknownVersionError, match="no branch nowhere"):
            await self._do(database, "commit-work", **{**wanted, "branch": "nowhere"})

    async def test_a_tag_is_made_once_and_goes_once(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        first = await database.commit("main", ["UPDATE t SET a = 0"])
        second = await database.commit("main", ["UPDATE t SET a = 1"])
        for _ in range(2):
            await self._do(database, "create-tag", tag="before-1", commit=first)
        with pytest.raises(EngineError, match="choose another name"):
            await self._do(database, "create-tag", tag="before-1", commit=second)
        assert await database.ask("SELECT tag_name, tag_hash FROM dolt_tags") == (("before-1", first),)
        await self._do(database, "create-tag", tag="coppice/planted", commit=first)
        for _ in range(2):
            await self._do(database, "create-tag", tag="coppice/planted", commit=second)
        tags = await database.ask("SELECT tag_name, tag_hash FROM dolt_tags ORDER BY tag_name")
        assert tags == (("before-1", first), ("coppice/planted", second))
        await self._do(database, "delete-tag", tag="coppice/planted")
        for _ in range(2):
            await self._do(database, "delete-tag", tag="before-1")
        assert await database.ask("SELECT * FROM dolt_tags") == ()

    async def test_a_branch_is_set_to_a_commit_whatever_was_there(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        first = await database.commit("main", ["UPDATE t SET a = 0"])
        await self._do(database, "set-branch", branch="seen", commit=first)
        second = await database.commit("main", ["UPDATE t SET a = 1"])
        await run(databases.at, f"{database.name}/seen", ["DELETE FROM t", "CREATE TABLE n (id INT PRIMARY KEY)"])
        for _ in range(2):
            await self._do(database, "set-branch", branch="seen", commit=second)
        assert await database.ask("SELECT * FROM dolt_status", "seen") == ()
        assert await database.ask("SELECT hash FROM dolt_branches WHERE name = 'seen'") == ((second,),)
        assert await database.ask("SELECT DISTINCT a FROM t", "seen") == ((1,),)

    async def test_undoing_a_merge_leaves_what_the_target_had(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        inputs = await database.diverged(
            ["UPDATE t SET a = 0 WHERE id = 1"], ["DELETE FROM t WHERE id = 2", "CREATE TABLE n (id INT PRIMARY KEY)"]
        )
        outcome = await databases.engine.merge(databases.at, inputs)
        assert outcome.result is not None
        await self._do(database, "undo", branch="undone", commit=outcome.result)
        head = await database.ask("SELECT hash FROM dolt_branches WHERE name = 'undone'")
        await self._do(database, "undo", branch="undone", commit=outcome.result)
        assert await database.ask("SELECT hash FROM dolt_branches WHERE name = 'undone'") == head
        [made, _] = await databases.engine.log(databases.at, database.name, "undone", limit=2)
        assert made.parents == (outcome.result,)
        differs = await databases.engine.changes(databases.at, database.name, inputs.target, "undone")
        assert differs.tables == ()

    async def test_what_a_branch_held_is_kept_from_when_it_goes_and_not_from_an_earlier_try(
        self, databases: Databases
    ) -> None:
        database = await databases.new(PLAIN)
        head, keep = await database.commit("main", []), "coppice/deleted/b/20260302T090000Z"
        await database.branch("b")
        await self._do(database, "create-tag", tag=keep, commit=head)
        await database.ask("SELECT SLEEP(1)")
        [(gone,)] = await database.ask("SELECT UTC_TIMESTAMP(6)")
        await self._do(database, "delete-branch", branch="b", head=head, keep=keep)
        [tag] = await databases.engine.tags(databases.at, database.name, keep)
        assert tag.at.replace(tzinfo=None) >= gone


class TestAssertions:
    async def _found(self, database: Database, queries: Mapping[str, str]) -> dict[str, int | str]:
        checks = [Assertion(name, query) for name, query in queries.items()]
        server = database.server
        results = await server.engine.assertions(server.at, database.name, "main", checks)
        return {result.name: result.error or result.found for result in results}

    async def test_rows_found_are_counted_and_a_bad_query_is_no_finding(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        found = await self._found(
            database,
            {
                "none": "SELECT * FROM t WHERE a > 10;",
                "two": "SELECT * FROM t WHERE a > 1 -- both",
                "joined": "SELECT t.id, u.id FROM t JOIN t u ON u.id = t.id",
                "named": "WITH x AS (SELECT id FROM t) SELECT * FROM x",
                "many": "SELECT 1 FROM t a, t b, t c, t d, t e, t f, t g",
                "nonsense": "SELEKT",
                "missing": "SELECT 'a secret value' FROM nothing",
            },
        )
        assert {name: found[name] for name in ("none", "two", "joined", "named", "many")} == {
            "none": 0,
            "two": 2,
            "joined": 3,
            "named": 3,
            "many": 1000,
        }
        assert "error" in str(found["nonsense"])
        assert "secret" not in str(found["missing"])

    @pytest.mark.parametrize(
        "query",
        [
            "DELETE FROM t",
            "SELECT 1; DELETE FROM t",
            "SELECT 1) q; DELETE FROM t; SELECT 1 FROM (SELECT 1",
            "SELECT 1) q LIMIT 1) n; DROP TABLE t; -- ",
            "CALL dolt_reset('--hard', 'HEAD~1')",
            "SET GLOBAL max_connections = 7",
            "SELECT * FROM mysql.user",
            "SELECT 1 INTO OUTFILE '/tmp/out'",
            "DROP DATABASE {database}",
        ],
    )
    async def test_whatever_a_query_says_nothing_is_changed(self, databases: Databases, query: str) -> None:
        database = await databases.new(PLAIN)
        [result] = (await self._found(database, {"evil": query.format(database=database.name)})).values()
        assert "error" in str(result)
        assert await database.ask("SELECT COUNT(*) FROM t") == ((3,),)
        assert await database.ask("SELECT * FROM dolt_status") == ()
        assert await database.ask("SELECT @@GLOBAL.max_connections <> 7") == ((1,),)
        assert await database.ask("SELECT user FROM mysql.user WHERE user = 'coppice-check'") == ()

    @pytest.mark.parametrize("procedure", ["dolt_branch", "dolt_tag"])
    async def test_what_has_the_commits_name_is_not_asked_in_its_place(
        self, databases: Databases, procedure: str
    ) -> None:
        database = await databases.new(PLAIN)
        commit = await database.commit("main", ["UPDATE t SET a = -1 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET a = 1 WHERE id = 1"])
        await database.ask(f"CALL {procedure}('{commit.upper()}', 'main')")
        checks = [Assertion("negative", "SELECT 1 FROM t WHERE a < 0")]
        [result] = await database.server.engine.assertions(database.server.at, database.name, commit, checks)
        assert (result.found, "name of a commit" in result.error) == (0, True)


class TestPrograms:
    async def _reader(self, database: Database, commit: str, password: str = "reads") -> tuple[Endpoint, str]:
        """Let a program in, and return with what it connects."""
        engine, at = database.server.engine, database.server.at
        given = {"database": database.name, "password": password, "username": engine.app_user}
        await engine.execute(at, "ensure-check-user", given)
        values = engine.check_binding(host=at.host, database=database.name, commit=commit, password=password)
        return Endpoint(values["host"], at.port, values["username"], values["password"]), values["database"]

    async def test_a_program_reads_the_commit_although_its_branch_moves_on(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        commit = await database.commit("main", ["UPDATE t SET a = 77 WHERE id = 1"])
        await database.commit("main", ["DELETE FROM t"])
        reader, version = await self._reader(database, commit)
        assert await run(reader, version, ["SELECT COUNT(*), SUM(a = 77) FROM t"]) == ((3, 1),)

    async def test_another_password_takes_the_place_of_the_one_before(self, databases: Databases) -> None:
        database = await databases.new(PLAIN)
        commit = await database.commit("main", [])
        before, version = await self._reader(database, commit)
        reader, _ = await self._reader(database, commit, password="another")
        assert await run(reader, version, ["SELECT COUNT(*) FROM t"]) == ((3,),)
        with pytest.raises(pymysql.err.OperationalError):
            await run(before, version, ["SELECT 1"])

    @pytest.mark.parametrize("branch", [None, "main"])
    async def test_a_program_changes_nothing_and_reads_no_login(self, databases: Databases, branch: str | None) -> None:
        database = await databases.new(PLAIN)
        commit = await database.commit("main", [])
        reader, version = await self._reader(database, commit)
        before = await database.ask("SELECT name, hash FROM dolt_branches")
        for statement in (
            "DELETE FROM t",
            "UPDATE t SET a = 0",
            "CREATE TABLE u (id INT PRIMARY KEY)",
            "DROP TABLE t",
            f"DROP DATABASE {database.name}",
            "CALL dolt_reset('--hard', 'HEAD~1')",
            "CALL dolt_commit('--allow-empty', '-m', 'mine')",
            "CALL dolt_branch('mine')",
            "CALL dolt_branch('-D', 'main')",
            "CALL dolt_checkout('-b', 'mine')",
            "CALL dolt_tag('mine')",
            "CALL dolt_remote('add', 'elsewhere', 'http://127.0.0.1:1/x')",
            "INSERT INTO dolt_ignore VALUES ('t', true)",
            "SELECT authentication_string FROM mysql.user",
            "CREATE USER mine",
        ):
            with pytest.raises(pymysql.err.MySQLError):
                await run(reader, version if branch is None else f"{database.name}/{branch}", [statement])
        assert await database.ask("SELECT COUNT(*) FROM t") == ((3,),)
        assert await database.ask("SELECT * FROM dolt_status") == ()
        assert await database.ask("SELECT name, hash FROM dolt_branches") == before
        assert await database.ask("SELECT tag_name FROM dolt_tags") == ()

    async def test_no_app_gives_anything_the_commits_name(
        self, served: tuple[Stage, Server], databases: Databases
    ) -> None:
        """Dolt compares names without case, and looks for a branch and a tag before it looks for a commit."""
        stage, server = served
        database = await databases.new(PLAIN)
        app = await stage.ensure_app(server, database.name)
        commit = await database.commit("main", ["UPDATE t SET a = -1 WHERE id = 1"])
        await database.commit("main", ["UPDATE t SET a = 1 WHERE id = 1"])
        reader, version = await self._reader(database, commit)
        await stage.ensure_app(server, database.name)
        for statement in (
            "CALL dolt_branch('{name}', 'main')",
            "CALL dolt_branch('-c', 'main', '{name}')",
            "CALL dolt_branch('-m', 'mine', '{name}')",
            "CALL dolt_checkout('-b', '{name}')",
            "CALL dolt_checkout('-B', '{name}')",
            "CALL dolt_tag('{name}', 'main')",
            "CREATE EVENT e ON SCHEDULE AT CURRENT_TIMESTAMP DO CALL dolt_tag('{name}', 'main')",
        ):
            await run(app, database.name, ["CALL dolt_branch('-f', 'mine', 'main')"])
            with pytest.raises(pymysql.err.MySQLError):
                await run(app, database.name, [statement.format(name=commit.upper())])
            assert await run(reader, version, ["SELECT a FROM t WHERE id = 1"]) == ((-1,),)
        await run(app, database.name, ["UPDATE t SET a = 2", "CALL dolt_commit('-am', 'mine')"])

    @pytest.mark.parametrize("procedure", ["dolt_branch", "dolt_tag"])
    async def test_no_program_is_let_in_where_something_has_a_commits_name(
        self, databases: Databases, procedure: str
    ) -> None:
        database = await databases.new(PLAIN)
        commit = await database.commit("main", [])
        await database.ask(f"CALL {procedure}('{commit.upper()}', 'main')")
        with pytest.raises(EngineError, match="name of a commit"):
            await self._reader(database, commit)
