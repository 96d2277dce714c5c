"""What only Dolt does, run for real; most of these are traps that somebody has fallen into."""

from __future__ import annotations

import asyncio
import gzip
import shlex
import socket
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.fakes.certificates import Authority

from coppice.engines.base import (
    Content,
    Endpoint,
    EngineError,
    LoginRefusedError,
    Preparation,
    Reference,
    UnguardedError,
    Workload,
)

from .conftest import MARKER, Stage, open_stage, version_of
from .kit import sql
from .runner import PATIENCE, Outcome, Server, environment_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

CHINOOK = Path(__file__).parents[2] / "examples" / "quickstart" / "data" / "chinook.sql"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("dolt") as stage:
        yield stage


async def _loaded(stage: Stage, files: Mapping[str, bytes], *, database: str | None = None) -> tuple[Path, Outcome]:
    volume, workload = stage.runner.new("volume"), stage.store(database=database)
    outcome = await stage.runner.run(workload, volume, script=workload.load_script, load=stage.runner.load(files))
    return volume, outcome


class TestLoad:
    async def test_the_sample_database_loads_under_its_own_name_as_one_commit(self, stage: Stage) -> None:
        volume, outcome = await _loaded(stage, {"chinook.sql": CHINOOK.read_bytes()})
        assert outcome.code == 0, outcome.errors
        async with stage.runner.serving(stage.store(load=False), volume, stage.secret()) as server:
            admin = stage.admin(server)
            content = await stage.engine.inspect(admin)
            assert content.databases == ("Chinook",)
            assert await sql(admin, "SELECT COUNT(*) FROM Track", database="Chinook") == ((3503,),)
            log = await sql(admin, "SELECT message FROM dolt_log", database="Chinook")
            assert log == (("Initial load",), ("Initialize data repository",))
            assert await sql(admin, "SELECT * FROM dolt_status", database="Chinook") == ()

    async def test_files_load_in_the_order_of_their_names_and_may_be_packed(self, stage: Stage) -> None:
        files = {
            "02.sql.gz": gzip.compress(b"INSERT INTO t VALUES (2)"),
            "10.sql": b"INSERT INTO t SELECT MAX(n) + 1 FROM t",
            "01.sql": b"CREATE TABLE t (n INT PRIMARY KEY);",
            "notes.txt": b"not SQL",
        }
        volume, outcome = await _loaded(stage, files, database="shop")
        assert outcome.code == 0, outcome.errors
        async with stage.runner.serving(stage.store(database="shop"), volume, stage.secret()) as server:
            assert await sql(stage.admin(server), "SELECT n FROM t", database="shop") == ((2,), (3,))

    async def test_a_load_that_makes_no_database_fills_the_fallback(self, stage: Stage) -> None:
        volume, outcome = await _loaded(stage, {"a.sql": b"CREATE TABLE t (n INT PRIMARY KEY)"})
        assert outcome.code == 0, outcome.errors
        async with stage.runner.serving(stage.store(load=False), volume, stage.secret()) as server:
            assert (await stage.engine.inspect(stage.admin(server))).databases == ("fallback",)

    @pytest.mark.parametrize(
        ("files", "database", "message"),
        [
            ({"a.sql": b"CREATE DATABASE a; CREATE DATABASE b"}, None, "a b"),
            ({"a.sql": b"CREATE DATABASE fallback; CREATE TABLE t (n INT PRIMARY KEY)"}, None, "fallback"),
            ({"a.sql": b"DROP DATABASE shop; CREATE DATABASE other"}, "shop", "other"),
            ({"a.txt": b""}, None, "no *.sql"),
            ({"a.sql.gz": b"not packed"}, None, "a.sql.gz"),
        ],
    )
    async def test_a_load_that_leaves_in_doubt_what_apps_get_is_refused(
        self, stage: Stage, files: Mapping[str, bytes], database: str | None, message: str
    ) -> None:
        volume, outcome = await _loaded(stage, files, database=database)
        assert outcome.code != 0
        assert message in outcome.errors
        assert not (volume / "dolt").exists()

    async def test_what_a_load_drops_or_makes_beside_its_data_is_not_kept(self, stage: Stage) -> None:
        files = {
            "a.sql": b"CREATE DATABASE old; DROP DATABASE old; CREATE DATABASE shop; CREATE USER u IDENTIFIED BY 'u'"
        }
        volume, outcome = await _loaded(stage, files)
        assert outcome.code == 0, outcome.errors
        assert [entry.name for entry in (volume / "dolt" / "databases").iterdir()] == ["shop"]
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            assert await sql(stage.admin(server), "SELECT user FROM mysql.user WHERE user = 'u'") == ()

    async def test_a_failing_statement_is_not_repeated_at_length(self, stage: Stage) -> None:
        rows = b", ".join(b"(%d, 'somebody@example.org')" % number for number in range(1000))
        _, outcome = await _loaded(stage, {"a.sql": b"INSERT INTO nowhere VALUES " + rows})
        assert outcome.code != 0
        assert len(outcome.errors) < 1000


class TestPreparation:
    async def _damaged(self, stage: Stage, name: str, content: bytes) -> Outcome:
        volume, outcome = await _loaded(stage, stage.kit.load)
        assert outcome.code == 0, outcome.errors
        (volume / "dolt" / "databases" / "shop" / ".dolt" / name).write_bytes(content)
        return await stage.runner.run(stage.preparation(), volume)

    @pytest.mark.parametrize("name", ["noms/manifest", "repo_state.json"])
    async def test_a_database_that_does_not_open_fails_it(self, stage: Stage, name: str) -> None:
        outcome = await self._damaged(stage, name, b"garbage")
        assert outcome.code != 0
        assert "shop" in outcome.errors

    async def test_a_second_database_that_does_not_open_fails_it_too(self, stage: Stage) -> None:
        """Dolt leaves it out and says so in its log only."""
        files = {**stage.kit.load, "3.sql": b"CREATE DATABASE lost"}
        volume, outcome = await _loaded(stage, files, database="shop2")
        (volume / "dolt" / "databases" / "lost" / ".dolt" / "noms" / "manifest").write_bytes(b"garbage")
        outcome = await stage.runner.run(stage.preparation(), volume)
        assert outcome.code != 0
        assert "lost" in outcome.errors

    async def test_a_hole_in_the_journal_fails_it(self, stage: Stage) -> None:
        """What a copy that is not atomic may look like: Dolt's "possible data loss"."""
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            for _ in range(8):
                await stage.kit.insert(stage.admin(server))
            copy = stage.runner.copy(volume, server)
        journal = copy / "dolt" / "databases" / "shop" / ".dolt" / "noms" / ("v" * 32)
        data = bytearray(journal.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 64] = bytes(64)
        journal.write_bytes(data)
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert outcome.code != 0

    async def test_only_databases_leave(self, stage: Stage) -> None:
        volume, outcome = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            await sql(stage.admin(server), "CREATE DATABASE old")
            await sql(stage.admin(server), "DROP DATABASE old")
            copy = stage.runner.copy(volume, server)
        databases = copy / "dolt" / "databases"
        assert (databases / ".dolt_dropped_databases").exists()
        assert (databases / ".dolt" / "sql-server.info").exists()
        (databases / "export.csv").write_text("rows")
        (databases / "link").symlink_to(volume)
        (databases / "shop" / ".dolt" / "temptf").mkdir(exist_ok=True)
        (databases / "shop" / ".dolt" / "temptf" / "table").write_text("rows")
        (copy / ".loading").mkdir()
        (copy / "backup.sql").write_text("rows")
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert outcome.code == 0, outcome.errors
        assert [entry.name for entry in copy.iterdir()] == ["dolt"]
        assert sorted(entry.name for entry in (copy / "dolt").iterdir()) == ["databases", "marker"]
        assert [entry.name for entry in databases.iterdir()] == ["shop"]
        assert [entry.name for entry in (databases / "shop").iterdir()] == [".dolt"]
        assert not (databases / "shop" / ".dolt" / "temptf" / "table").exists()

    async def test_every_database_and_branch_is_reported_however_it_is_called(self, stage: Stage) -> None:
        odd = "it`s \"a\" $shop, 'really'"
        quoted = odd.replace("`", "``")
        files = {**stage.kit.load, "3.sql": f"CREATE DATABASE `{quoted}`".encode()}
        volume, outcome = await _loaded(stage, files, database="fine-shop")
        assert outcome.code == 0, outcome.errors
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin = stage.admin(server)
            await sql(admin, 'CALL dolt_branch("""quoted"",\'$(id)`")', database=odd)
            said = await stage.engine.inspect(admin, database="shop")
            copy = stage.runner.copy(volume, server)
        assert said.databases == ("fine-shop", odd, "shop")
        assert {state.branch for state in said.branches if state.database == odd} == {"main", '"quoted",\'$(id)`'}
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert stage.engine.report(outcome.last_line) == said

    async def test_settings_that_travel_on_the_volume_are_gone(self, stage: Stage) -> None:
        """SET PERSIST of a server whose HOME is its volume: a clone that kept it would write into the source's remote."""
        volume, _ = await _loaded(stage, stage.kit.load)
        remote = stage.runner.new("remote")
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin = stage.admin(server)
            await sql(admin, f"CALL dolt_remote('add', 'origin', 'file://{remote}')", database="shop")
            await sql(admin, "CALL dolt_push('origin', 'main')", database="shop")
            copy = stage.runner.copy(volume, server)
        settings = '{"sqlserver.global.dolt_replicate_to_remote": "origin"}'
        databases = copy / "dolt" / "databases"
        (databases / "shop" / ".dolt" / "config.json").write_text(settings)
        for directory in (databases / ".dolt", copy / "dolt" / "home" / ".dolt", copy / ".dolt"):
            directory.mkdir(parents=True, exist_ok=True)
            for name in ("config.json", "config_global.json"):
                (directory / name).write_text(settings)
        outcome = await stage.runner.run(stage.preparation(), copy)
        before = {file: file.stat().st_mtime_ns for file in remote.rglob("*")}
        workload = stage.clone(version_of(stage.engine.report(outcome.last_line)))
        async with stage.runner.serving(workload, copy, stage.secret()) as clone:
            admin = stage.admin(clone)
            assert await sql(admin, "SELECT @@GLOBAL.dolt_replicate_to_remote") in (((None,),), (("",),))
            await stage.kit.insert(admin)
            await stage.kit.version(admin)
        assert {file: file.stat().st_mtime_ns for file in remote.rglob("*")} == before


class TestServer:
    async def test_a_commit_policy_makes_every_transaction_a_commit(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(policy="PerTransaction"), volume, stage.secret()) as server:
            admin = stage.admin(server)
            before = version_of(await stage.engine.inspect(admin))
            await stage.kit.insert(admin)
            after = version_of(await stage.engine.inspect(admin))
            assert after.head != before.head
            assert await sql(admin, "SELECT * FROM dolt_status", database="shop") == ()

    async def test_a_server_with_several_databases_asks_which_one_apps_get(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            await sql(stage.admin(server), "CREATE DATABASE more")
            with pytest.raises(EngineError, match="more, shop"):
                await stage.engine.inspect(stage.admin(server))
            assert (await stage.engine.inspect(stage.admin(server), database="SHOP")).database == "shop"

    async def test_more_branches_than_are_listed_are_said_to_be_there(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin = stage.admin(server)
            for number in range(501):
                await sql(admin, f"CALL dolt_branch('b{number:03}')", database="shop")
            content = await stage.engine.inspect(admin)
            assert content.truncated
            assert len(content.branches) == 500
            assert content.state_of("main") is not None, "the default branch is always listed"
            copy = stage.runner.copy(volume, server)
            assert (await stage.engine.resolve(admin, "shop", Reference(branch="b500"))).branch == "b500"
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert stage.engine.report(outcome.last_line) == content

    async def test_a_time_is_followed_along_first_parents(self, stage: Stage) -> None:
        """What was committed on a side branch before, and merged after, was not on the branch at the time."""
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin = stage.admin(server)
            first = version_of(await stage.engine.inspect(admin))
            await sql(admin, "CALL dolt_branch('side')", database="shop")
            await stage.kit.insert(admin, "side")
            side = await stage.kit.version(admin, "side")
            [(then,)] = await sql(admin, f"SELECT date FROM dolt_commits WHERE commit_hash = '{side}'", database="shop")
            await sql(admin, "CALL dolt_merge('side', '--no-ff', '-m', 'merge')", database="shop")
            found = await stage.engine.resolve(admin, "shop", Reference(time=f"{then.isoformat()}Z"))
            assert found.head == first.head
            assert found.working_root == first.working_root

    async def test_a_new_branch_has_a_free_name(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin = stage.admin(server)
            head = version_of(await stage.engine.inspect(admin)).head
            assert (await stage.engine.resolve(admin, "shop", Reference(commit=head))).branch == "coppice"
            await sql(admin, "CALL dolt_branch('coppice')", database="shop")
            assert (await stage.engine.resolve(admin, "shop", Reference(commit=head))).branch == "coppice-1"

    async def test_an_app_reads_and_writes_a_branch_that_was_made_after_its_login(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            app = await stage.ensure_app(server)
            await sql(stage.admin(server), "CALL dolt_branch('later')", database="shop")
            await stage.kit.insert(app, "later")
            assert await stage.kit.count(app, "later") == stage.kit.rows + 1

    async def test_the_administrators_password_is_not_in_a_restarted_servers_environment(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        for restarted in (False, True):
            async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
                environment = environment_of(server.process.pid)
                assert (server.secret["admin-password"] not in environment) is restarted

    async def test_a_statement_that_runs_without_a_current_database_is_activity_while_it_runs(
        self, stage: Stage
    ) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin, app = stage.admin(server), await stage.ensure_app(server)
            assert (await stage.engine.activity(admin)).token == ""
            running = asyncio.create_task(sql(app, "SELECT SLEEP(60)"))
            while not (await stage.engine.activity(admin)).token:  # noqa: ASYNC110 - as in until()
                await asyncio.sleep(0.001)
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def test_the_schema_has_triggers_and_procedures_and_no_counters(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin = stage.admin(server)
            for statement in (
                "CREATE TABLE ticket (id INT PRIMARY KEY AUTO_INCREMENT, name TEXT) COMMENT = 'AUTO_INCREMENT=7 is text'",
                "CREATE TRIGGER tidy BEFORE INSERT ON ticket FOR EACH ROW SET NEW.name = TRIM(NEW.name)",
                "CREATE PROCEDURE answer() SELECT 42",
            ):
                await sql(admin, statement, database="shop")
            before = await stage.engine.schema(admin, "shop")
            assert before.keys() == {"table product", "table ticket", "trigger tidy", "procedure answer"}
            await sql(admin, "INSERT INTO ticket (name) VALUES ('a'), ('b')", database="shop")
            assert await stage.engine.schema(admin, "shop") == before
            await sql(admin, "DROP TRIGGER tidy", database="shop")
            assert (await stage.engine.schema(admin, "shop")).keys() == before.keys() - {"trigger tidy"}

    async def test_a_clone_that_nobody_uses_does_nothing(self, stage: Stage) -> None:
        """Dolt's collector of column statistics takes 1 % of a core and writes 6 KiB a minute into an idle clone."""
        volume, _ = await _loaded(stage, stage.kit.load)
        copy, content = await stage.prepared(volume)
        async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
            asked = await sql(stage.admin(clone), "SELECT @@GLOBAL.dolt_stats_paused, @@GLOBAL.event_scheduler")
            assert asked == ((1, "OFF"),)

    async def test_a_clone_takes_what_comes_from_where_it_is(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        copy, content = await stage.prepared(volume)
        began = version_of(content)
        async with (
            stage.runner.serving(stage.store(), volume, stage.secret()) as store,
            stage.runner.serving(stage.clone(began), copy, stage.secret()) as clone,
        ):
            await stage.kit.insert(stage.admin(store))
            head, password = await stage.kit.version(stage.admin(store)), clone.secret["remote-password"]
            await stage.engine.execute(stage.admin(store), "ensure-fetch-user", {"password": password})
            offered = {"database": began.database, "commit": head}
            await stage.engine.execute(stage.admin(store), "offer", offered)
            move = {"database": began.database, "branch": began.branch, "expected": began.head, "result": head}
            move |= {"host": f"127.0.0.1:{store.port + 1}", "password": password}
            await stage.engine.execute(stage.admin(clone), "fast-forward", move)
            assert version_of(await stage.engine.inspect(stage.admin(clone))).head == head
            assert await stage.kit.count(stage.admin(clone)) == stage.kit.rows + 1

    @pytest.mark.parametrize("probe", ["SELECT 1", "SET @pool = 1"])
    async def test_a_ping_is_no_activity_and_a_probe_by_a_statement_is(self, stage: Stage, probe: str) -> None:
        """docs/engines/dolt.md says so: of a transaction that begins, Dolt does not record what it asks for."""
        volume, _ = await _loaded(stage, stage.kit.load)
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            admin, app = stage.admin(server), await stage.ensure_app(server)
            pooled = await stage.kit.idle(app)
            token = (await stage.engine.activity(admin)).token
            for _ in range(3):
                await pooled.ping()
            assert (await stage.engine.activity(admin)).token == token
            await stage.kit.run(app, probe)
            async with asyncio.timeout(PATIENCE):
                while (await stage.engine.activity(admin)).token == token:  # noqa: ASYNC110 - as in until()
                    await asyncio.sleep(0.01)
            pooled.close()

    async def test_a_restart_alone_is_no_activity(self, stage: Stage) -> None:
        volume, _ = await _loaded(stage, stage.kit.load)
        secret = stage.secret()
        for _ in range(2):
            async with stage.runner.serving(stage.store(), volume, secret) as server:
                assert (await stage.engine.activity(stage.admin(server))).token == ""
                await stage.kit.count(stage.admin(server))

    async def test_a_server_that_stops_answering_is_unreachable(self, stage: Stage) -> None:
        """A listener that takes connections and says nothing: nobody may wait for it for ever."""
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("coppice.engines.mysql.ANSWER_SECONDS", 0.1)
                with pytest.raises(EngineError, match="did not answer"):
                    await stage.engine.inspect(Endpoint("127.0.0.1", port, "root", "x"))


class TestAdopted:
    """A server that somebody else runs in their own way: as the Dolt image does it, with the volume at its data directory,
    or with that somewhere below.
    """

    @asynccontextmanager
    async def _running(
        self, stage: Stage, volume: Path, directory: str = "", options: str = "--data-dir ."
    ) -> AsyncIterator[Server]:
        script = f"""
            export HOME="$COPPICE_RUN" DOLT_ROOT_PATH="$COPPICE_RUN" DOLT_DISABLE_EVENT_FLUSH=1
            cd "$COPPICE_DATA"/{shlex.quote(directory)}
            exec dolt sql-server --host 127.0.0.1 --port "$COPPICE_PORT" --socket "$COPPICE_RUN/s" {options}
        """
        environment = {"DOLT_ROOT_HOST": "%", "DOLT_ROOT_PASSWORD": "theirs"}
        theirs = Workload(script, environment, wait_script=stage.store().wait_script, port=3306)
        (volume / directory).mkdir(parents=True, exist_ok=True)
        async with stage.runner.serving(theirs, volume, {}) as server:
            yield server

    async def _fill(self, server: Server, *names: str) -> None:
        root = server.endpoint("root", "theirs")
        for name in names:
            await sql(root, f"CREATE DATABASE `{name}`")
            await sql(root, "CREATE TABLE product (id CHAR(36) PRIMARY KEY, name TEXT)", database=name)
            await sql(root, "INSERT INTO product VALUES ('1', 'one'), ('2', 'two'), ('3', 'three')", database=name)
            await sql(root, "CALL dolt_commit('-A', '-m', 'theirs')", database=name)
            await sql(root, f"CALL dolt_remote('add', 'origin', 'http://192.0.2.1/{name}')", database=name)
        await sql(root, "CREATE USER looker@'%' IDENTIFIED BY 'looks'")
        for name in names:
            await sql(root, f"GRANT SELECT ON `{name}`.* TO looker@'%'")

    def _looker(self, server: Server) -> Endpoint:
        at = server.endpoint("looker", "looks")
        return Endpoint(at.host, at.port, at.username, at.password, guarded=True)

    def _adoption(self, stage: Stage, database: str, directory: str | None = None) -> Workload:
        return stage.engine.preparation(Preparation(MARKER, database, adopted=True, directory=directory))

    async def _copied(self, stage: Stage, directory: str, *names: str) -> tuple[Path, Content]:
        """Return a copy of such a server's volume while it runs, and what it said that it holds."""
        volume = stage.runner.new("volume")
        async with self._running(stage, volume, directory) as server:
            await self._fill(server, *names)
            said = await stage.engine.inspect(self._looker(server), database=names[0])
            return stage.runner.copy(volume, server), said

    @pytest.mark.parametrize("directory", ["", "databases", "some/where else"])
    @pytest.mark.parametrize("named", [False, True])
    async def test_its_databases_are_found_and_cloned_and_nothing_else_leaves(
        self, stage: Stage, directory: str, *, named: bool
    ) -> None:
        copy, said = await self._copied(stage, directory, "shop", "dolt")
        assert said.databases == ("dolt", "shop")
        (copy / "backup.sql").write_text("rows")
        (copy / ".hidden").mkdir()
        workload = self._adoption(stage, "shop", directory if named and directory else None)
        outcome = await stage.runner.run(workload, copy)
        assert outcome.code == 0, outcome.errors
        content = stage.engine.report(outcome.last_line)
        assert content == said
        assert [entry.name for entry in copy.iterdir()] == ["dolt"]
        assert sorted(entry.name for entry in (copy / "dolt").iterdir()) == ["databases", "marker"]
        async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
            assert await stage.kit.count(stage.admin(clone)) == 3
            assert await stage.kit.outside(stage.admin(clone)) == []
            for user, password in (("root", "theirs"), ("looker", "looks")):
                with pytest.raises(LoginRefusedError):
                    await stage.engine.inspect(clone.endpoint(user, password))

    async def test_a_data_directory_that_is_a_database_itself_keeps_its_name(self, stage: Stage) -> None:
        volume = stage.runner.new("volume") / "store"
        volume.mkdir()
        init = Workload('export HOME="$COPPICE_RUN"; cd "$COPPICE_DATA"; dolt init --name a --email a@b')
        assert (await stage.runner.run(init, volume)).code == 0
        async with self._running(stage, volume) as server:
            root = server.endpoint("root", "theirs")
            await sql(root, "CREATE DATABASE more")
            said = await stage.engine.inspect(root, database="store")
            copy = stage.runner.copy(volume, server)
        outcome = await stage.runner.run(self._adoption(stage, "store"), copy)
        assert outcome.code == 0, outcome.errors
        assert stage.engine.report(outcome.last_line) == said
        taken = stage.runner.copy(volume)
        outcome = await stage.runner.run(self._adoption(stage, "more"), taken)
        assert outcome.code != 0
        assert "itself" in outcome.errors

    async def test_databases_in_several_directories_are_named_and_one_of_them_is_taken(self, stage: Stage) -> None:
        copy, _ = await self._copied(stage, "live", "shop")
        (copy / "old").mkdir()
        (copy / "live" / "shop").rename(copy / "old" / "shop")
        other, said = await self._copied(stage, "live", "shop")
        (copy / "live").rename(other / "before")
        (copy / "old").rename(other / "old")
        outcome = await stage.runner.run(self._adoption(stage, "shop"), other)
        assert outcome.code != 0
        assert "live old" in outcome.errors
        outcome = await stage.runner.run(self._adoption(stage, "shop", "live"), other)
        assert stage.engine.report(outcome.last_line) == said

    @pytest.mark.parametrize(
        ("directory", "words"), [("elsewhere", "elsewhere"), ("../..", "out of the volume"), (None, "empty")]
    )
    async def test_where_there_is_nothing_it_is_said(self, stage: Stage, directory: str | None, words: str) -> None:
        volume = stage.runner.new("volume")
        outcome = await stage.runner.run(self._adoption(stage, "shop", directory), volume)
        assert outcome.code != 0
        assert words in outcome.errors

    async def test_a_volume_that_coppice_laid_out_once_is_taken_as_well(self, stage: Stage) -> None:
        volume, outcome = await _loaded(stage, stage.kit.load)
        assert outcome.code == 0, outcome.errors
        outcome = await stage.runner.run(self._adoption(stage, "shop"), volume)
        assert stage.engine.report(outcome.last_line).databases == ("shop",)

    async def test_wherever_it_is_interrupted_it_goes_on(self, stage: Stage) -> None:
        """Every move of a file fails once, before or after it is done."""
        original, said = await self._copied(stage, "data", "shop", "dolt")
        shim = stage.runner.new("bin")
        for after in (False, True):
            for number in range(1, 20):
                moved = '/bin/mv "$@" || exit' if after else ":"
                (shim / "mv").write_text(
                    f"""#!/bin/sh
                    echo >>{shim}/count
                    if [ "$(wc -l <{shim}/count)" -eq {number} ]; then {moved}; exit 1; fi
                    exec /bin/mv "$@"
                    """
                )
                (shim / "mv").chmod(0o755)
                (shim / "count").unlink(missing_ok=True)
                copy, path = stage.runner.copy(original), stage.runner.path
                stage.runner.path = f"{shim}:{path}"
                interrupted = await stage.runner.run(self._adoption(stage, "shop"), copy)
                stage.runner.path = path
                outcome = await stage.runner.run(self._adoption(stage, "shop"), copy)
                assert outcome.code == 0, (number, after, outcome.errors)
                assert stage.engine.report(outcome.last_line) == said
                if interrupted.code == 0:
                    break
            assert number > 5, "nothing was interrupted"

    async def test_a_login_that_may_only_read_is_enough_and_may_do_no_more(self, stage: Stage) -> None:
        volume = stage.runner.new("volume")
        async with self._running(stage, volume) as server:
            await self._fill(server, "shop")
            at = self._looker(server)
            assert (await stage.engine.inspect(at)).databases == ("shop",)
            head = version_of(await stage.engine.inspect(at)).head
            assert (await stage.engine.resolve(at, "shop", Reference(commit=head))).head == head
            assert await stage.engine.contains(at, "shop", head, (head,))
            with pytest.raises(EngineError):
                await stage.engine.execute(at, "create-branch", {"database": "shop", "branch": "b", "commit": head})

    async def test_a_server_is_known_by_its_certificate_where_one_is_given(self, stage: Stage) -> None:
        authority, own = Authority(), stage.runner.new("tls")
        issued = authority.issue()
        (own / "tls.crt").write_text(issued.certificate)
        (own / "tls.key").write_text(issued.key)
        (own / "server.yaml").write_text(
            "listener: {host: 127.0.0.1, port: ${COPPICE_PORT}, require_secure_transport: true, "
            f"tls_cert: {own}/tls.crt, tls_key: {own}/tls.key}}\n"
        )
        volume = stage.runner.new("volume")
        async with self._running(stage, volume, options=f"--config {own}/server.yaml") as server:
            admin = server.endpoint("root", "theirs")
            trusted = Endpoint(admin.host, admin.port, "root", "theirs", guarded=True, ca=authority.certificate)
            with pytest.raises(EngineError, match="holds no database"):
                await stage.engine.inspect(trusted)
            with pytest.raises(UnguardedError, match="vouches for"):
                await stage.engine.inspect(
                    Endpoint(admin.host, admin.port, "root", "theirs", guarded=True, ca=Authority("other").certificate)
                )
