"""What only PostgreSQL does, run for real; most of these are traps that a naive copy falls into."""

from __future__ import annotations

import asyncio
import gzip
import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest

from coppice.engines.base import (
    Endpoint,
    EngineError,
    LoginRefusedError,
    Preparation,
    Reference,
    UnguardedError,
    UnknownVersionError,
    Workload,
)

from .conftest import MARKER, Stage, open_stage, version_of
from .kit import NOTING, needs_login_triggers, pg
from .runner import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from coppice.engines.base import Content

    from .runner import Outcome, Server

COMMIT = "c0de0000-0000-4000-8000-000000000001"
"""The UID of a DataSnapshot that is a commit."""


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("postgresql") as stage:
        yield stage


_TAKING_OVER = """
CREATE FUNCTION {name}({arguments}) RETURNS {result} LANGUAGE plpgsql AS $body$ BEGIN
  BEGIN CREATE ROLE planted SUPERUSER LOGIN PASSWORD 'planted'; EXCEPTION WHEN others THEN NULL; END;
  RETURN {value};
END $body$"""
"""A function of the application's that makes a superuser, if one runs it."""


def _taking_over(name: str, arguments: str, *, result: str = "text", value: str) -> str:
    return _TAKING_OVER.format(name=name, arguments=arguments, result=result, value=value)


PLANTED = (
    *(
        _taking_over("public.format", f"text, {kind}", value="pg_catalog.format($1, $2)")
        for kind in ("name", "regclass", "oid")
    ),
    *(
        _taking_over("public.format", f"text, {kinds}", value="pg_catalog.format($1, $2, $3)")
        for kinds in ("name, text", "regclass, text", "name, name")
    ),
    _taking_over("public.plus", "text, name", value="pg_catalog.concat($1, $2)"),
    "CREATE OPERATOR public.|| (FUNCTION = public.plus, LEFTARG = text, RIGHTARG = name)",
    "CREATE VIEW public.pg_tables AS SELECT * FROM pg_catalog.pg_tables WHERE public.format('%s', schemaname) <> ''",
    "CREATE VIEW public.pg_locks AS SELECT * FROM pg_catalog.pg_locks WHERE public.format('%s', 'a'::name) <> ''",
    "ALTER DATABASE shop SET search_path = public, pg_catalog",
    # The largest table, whose rows are the proof of a copy.
    "CREATE TABLE public.big AS SELECT n, repeat('x', 1000) AS text FROM generate_series(1, 5000) n",
    _taking_over("public.big_as_text", "public.big", value="'one'"),
    "CREATE CAST (public.big AS text) WITH FUNCTION public.big_as_text(public.big)",
    "ANALYZE public.big",
    # A migration tool's table, of a type that they have made.
    "CREATE TYPE public.version AS ENUM ('1', '2')",
    _taking_over("public.version_as_json", "public.version", result="json", value="to_json('1'::text)"),
    "CREATE CAST (public.version AS json) WITH FUNCTION public.version_as_json(public.version)",
    "CREATE TABLE public.flyway_schema_history (installed_rank int, version public.version, type text, success bool)",
    "INSERT INTO public.flyway_schema_history VALUES (1, '1', 'SQL', true)",
)
ARMED = """
CREATE FUNCTION public.armed() RETURNS event_trigger LANGUAGE plpgsql AS $body$ BEGIN
  BEGIN CREATE ROLE planted SUPERUSER LOGIN PASSWORD 'planted'; EXCEPTION WHEN others THEN NULL; END;
END $body$;
CREATE TABLE public.superusers ();
CREATE EVENT TRIGGER armed ON ddl_command_end EXECUTE FUNCTION public.armed()"""
CLOSED = """
CREATE FUNCTION public.close() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $$closed$$; END';
CREATE EVENT TRIGGER close ON login EXECUTE FUNCTION public.close();
ALTER EVENT TRIGGER close ENABLE ALWAYS"""
"""A trigger that lets nobody in."""
WHO_MAY_ALL = "SELECT rolname FROM pg_roles WHERE rolsuper ORDER BY rolname"
BORN = [("coppice_admin",), ("coppice_bootstrap",)]


@asynccontextmanager
async def source(stage: Stage, *statements: str) -> AsyncIterator[tuple[Path, Server]]:
    """A store that somebody works with."""
    volume, load = stage.runner.new("volume"), stage.runner.load(stage.kit.load)
    async with stage.runner.serving(stage.store(), volume, stage.secret(), load=load) as server:
        for statement in statements:
            await pg(stage.admin(server), statement, "shop")
        yield volume, server


@asynccontextmanager
async def cloned(stage: Stage, copy: Path, content: Content) -> AsyncIterator[Server]:
    async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
        assert await stage.engine.inspect(stage.admin(clone), database=content.database) is not None
        await stage.ensure_app(clone)
        yield clone


async def until_equal(at: Endpoint, statement: str, expected: Sequence[tuple[Any, ...]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while list(await pg(at, statement, "shop")) != list(expected):  # noqa: ASYNC110 - replication signals nobody
            await asyncio.sleep(0.05)


class TestLoad:
    async def _loaded(
        self, stage: Stage, files: Mapping[str, bytes], *, database: str | None = None
    ) -> tuple[Path, Outcome]:
        volume, workload = stage.runner.new("volume"), stage.store(database=database)
        outcome = await stage.runner.run(workload, volume, script=workload.load_script, load=stage.runner.load(files))
        return volume, outcome

    async def test_files_load_in_the_order_of_their_names_and_may_be_packed(self, stage: Stage) -> None:
        files = {
            "02.sql.gz": gzip.compress(b"INSERT INTO t VALUES (2)"),
            "10.sql": b"INSERT INTO t SELECT max(n) + 1 FROM t",
            "01.sql": b"CREATE TABLE t (n int PRIMARY KEY);",
            "notes.txt": b"not SQL",
        }
        volume, outcome = await self._loaded(stage, files, database="shop")
        assert outcome.code == 0, outcome.errors
        async with stage.runner.serving(stage.store(database="shop"), volume, stage.secret()) as server:
            app = await stage.ensure_app(server, "shop")
            assert await pg(app, "SELECT n FROM t ORDER BY n", "shop") == [(2,), (3,)]

    @pytest.mark.parametrize(
        ("files", "database", "message"),
        [
            ({"a.sql": b"CREATE DATABASE a; CREATE DATABASE b"}, None, "a b"),
            ({"a.sql": b"CREATE DATABASE a; CREATE TABLE t (n int)"}, None, "outside"),
            ({"a.sql": b"\\connect postgres\nDROP DATABASE shop; CREATE DATABASE other"}, "shop", "other"),
            ({"a.txt": b""}, None, "no *.sql"),
            ({"a.sql.gz": b"not packed"}, None, "a.sql.gz"),
        ],
    )
    async def test_a_load_that_leaves_in_doubt_what_apps_get_is_refused(
        self, stage: Stage, files: Mapping[str, bytes], database: str | None, message: str
    ) -> None:
        volume, outcome = await self._loaded(stage, files, database=database)
        assert outcome.code != 0
        assert message in outcome.errors
        assert not (volume / "postgresql").exists()

    async def test_a_failing_statement_is_named_by_its_line_and_its_rows_are_not_repeated(self, stage: Stage) -> None:
        statement = b"CREATE TABLE t (n int UNIQUE);\nINSERT INTO t VALUES (1);\nINSERT INTO t VALUES (1);"
        _, outcome = await self._loaded(stage, {"a.sql": statement})
        assert outcome.code != 0
        assert "a.sql does not load: line 3: ERROR" in outcome.errors
        assert "already exists" not in outcome.errors
        assert outcome.reason == "a.sql does not load\n"

    async def test_what_a_dump_gives_to_others_the_app_may_alter(self, stage: Stage) -> None:
        dump = b"""
            CREATE ROLE owner; CREATE ROLE reader LOGIN PASSWORD 'theirs';
            CREATE TABLE by_owner (id serial PRIMARY KEY); ALTER TABLE by_owner OWNER TO owner;
            CREATE TABLE by_postgres (n int); ALTER TABLE by_postgres OWNER TO postgres;
            CREATE SCHEMA deep; CREATE TYPE deep.mood AS ENUM ('sad'); CREATE DOMAIN deep.small AS int;
            CREATE TABLE deep.by_admin (n deep.small, m deep.mood); CREATE SEQUENCE deep.counter;
            CREATE VIEW deep.seen AS SELECT * FROM deep.by_admin; CREATE MATERIALIZED VIEW deep.kept AS TABLE deep.seen;
            CREATE FUNCTION deep.one() RETURNS int LANGUAGE sql AS 'SELECT 1';
            CREATE PROCEDURE deep.two() LANGUAGE sql AS 'SELECT 2';
            CREATE AGGREGATE deep.total(int) (sfunc = int4pl, stype = int);
        """
        volume, outcome = await self._loaded(stage, {"a.sql": dump}, database="shop")
        assert outcome.code == 0, outcome.errors
        async with stage.runner.serving(stage.store(), volume, stage.secret()) as server:
            app = await stage.ensure_app(server)
            for statement in (
                "ALTER TABLE by_owner ADD COLUMN more int",
                "ALTER TABLE by_postgres ADD COLUMN more int",
                "ALTER TABLE deep.by_admin ADD COLUMN more int",
                "ALTER TYPE deep.mood ADD VALUE 'happy'",
                "ALTER DOMAIN deep.small SET NOT NULL",
                "ALTER SEQUENCE deep.counter RESTART",
                "REFRESH MATERIALIZED VIEW deep.kept",
                "CREATE OR REPLACE FUNCTION deep.one() RETURNS int LANGUAGE sql AS 'SELECT 11'",
                "ALTER PROCEDURE deep.two() RENAME TO three",
                "ALTER AGGREGATE deep.total(int) RENAME TO sum",
                "CREATE TABLE mine (n int)",
                "DROP SCHEMA deep CASCADE",
                "CREATE SCHEMA deep",
                "CREATE EXTENSION IF NOT EXISTS pgcrypto",
            ):
                await pg(app, statement, "shop")


class TestPreparation:
    async def test_settings_that_would_break_or_arm_a_copy_do_neither(self, stage: Stage) -> None:
        hostile = (
            "shared_buffers = '64GB'\nmax_connections = 10000\nshared_preload_libraries = 'pg_cron, pg_stat_statements'\n"
            "ssl = on\nssl_cert_file = '/nowhere/server.crt'\narchive_mode = on\narchive_command = 'touch /tmp/armed'\n"
            "hba_file = '/nowhere/pg_hba.conf'\nlog_statement = 'all'\nlogging_collector = on\n"
            "default_text_search_config = 'pg_catalog.german'\nlisten_addresses = '*'\nport = 1\n"
        )
        async with source(stage) as (volume, server):
            copy = stage.runner.copy(volume, server)
        data = copy / "postgresql" / "data"
        (data / "postgresql.auto.conf").write_text(hostile)
        (data / "pg_hba.conf").write_text("host all all all trust\n")
        (data / "server.key").write_text("key")
        (data / "log").mkdir()
        (data / "log" / "today.log").write_text("secret row")
        stage.runner.give(data / "log")
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert outcome.code == 0, outcome.errors
        content = stage.engine.report(outcome.last_line)
        assert [found.message for found in content.findings] == ["not loaded in copies: pg_cron"]
        for gone in ("server.key", "log", "pg_hba.conf", "postgresql.auto.conf", "postmaster.pid"):
            assert not (data / gone).exists()
        async with cloned(stage, copy, content) as clone:
            app = stage.app(clone)
            assert await pg(app, "SHOW default_text_search_config", "shop") == [("pg_catalog.german",)]
            assert await pg(stage.admin(clone), "SHOW archive_mode", "shop") == [("off",)]
            assert await pg(stage.admin(clone), "SHOW shared_preload_libraries", "shop") == [("pg_stat_statements",)]

            [(buffers,)] = await pg(stage.admin(clone), "SHOW shared_buffers", "shop")
            assert buffers.endswith("MB"), "memory is as the Pod has it, not as the source had"

    async def test_settings_of_databases_and_roles_are_in_nobodys_way(self, stage: Stage) -> None:
        settings = (
            "ALTER DATABASE shop SET default_transaction_read_only = on",
            "ALTER DATABASE shop SET statement_timeout = 1",
            "ALTER DATABASE shop SET lock_timeout = 1",
            "ALTER DATABASE shop SET role = nobody",
            "ALTER DATABASE shop SET search_path = nowhere",
            "ALTER DATABASE shop CONNECTION LIMIT 0",
            "ALTER ROLE app VALID UNTIL '2001-01-01' CONNECTION LIMIT 0",
        )
        async with source(stage, "CREATE ROLE nobody") as (volume, server):
            for statement in settings:
                await pg(stage.admin(server), statement, "postgres")
            copy, _ = await stage.prepared(volume, server)
        outcome = await stage.runner.run(stage.preparation(rewrite=True), copy)
        assert outcome.code == 0, outcome.errors
        content = stage.engine.report(outcome.last_line)
        async with cloned(stage, copy, content) as clone:
            await stage.engine.schema(stage.admin(clone), "shop")
            [(limit,)] = await pg(
                stage.admin(clone), "SELECT rolconnlimit FROM pg_roles WHERE rolname = 'app'", "postgres"
            )
            assert limit == -1

    async def test_nothing_that_applications_have_made_runs_as_the_administrator(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            app = await stage.ensure_app(server)
            for statement in PLANTED:
                await pg(app, statement, "shop")
            await pg(stage.admin(server), ARMED, "shop")
            await pg(stage.admin(server), "ALTER EVENT TRIGGER armed DISABLE", "shop")
            await stage.ensure_app(server)
            assert await stage.engine.ledger(stage.admin(server), "shop") is not None
            await stage.engine.inspect(stage.admin(server), database="shop")
            await stage.engine.tables(stage.admin(server), "shop")
            await stage.engine.locks(stage.admin(server), "shop")
            await stage.engine.schema(stage.admin(server), "shop")
            assert list(await pg(stage.admin(server), WHO_MAY_ALL, "postgres")) == BORN
            # Whoever has a clone's Secret of the engine is its administrator, and a clone can be committed.
            await pg(stage.admin(server), "ALTER EVENT TRIGGER armed ENABLE ALWAYS", "shop")
            copy, content = await stage.prepared(volume, server)
        async with cloned(stage, copy, content) as clone:
            assert list(await pg(stage.admin(clone), WHO_MAY_ALL, "postgres")) == BORN
            with pytest.raises(LoginRefusedError):
                await stage.engine.inspect(clone.endpoint("planted", "planted"), database="shop")

    async def test_event_triggers_run_in_the_applications_sessions_and_in_none_of_the_administrator(
        self, stage: Stage
    ) -> None:
        async with source(stage) as (volume, server):
            admin = stage.admin(server)
            await needs_login_triggers(admin)
            await pg(admin, "ALTER DATABASE shop SET event_triggers = on", "postgres")
            await pg(admin, "ALTER ROLE coppice_admin IN DATABASE shop SET event_triggers = on", "postgres")
            await pg(admin, CLOSED, "template1")
            await pg(admin, NOTING, "shop")
            copy, content = await stage.prepared(volume, server)
        outcome = await stage.runner.run(stage.preparation(rewrite=True), copy)
        assert outcome.code == 0, outcome.errors
        content = stage.engine.report(outcome.last_line)
        async with cloned(stage, copy, content) as clone:
            admin = stage.admin(clone)
            await pg(stage.app(clone), "CREATE TABLE mine (n int)", "shop")
            await stage.engine.schema(admin, "shop")
            await pg(admin, "CREATE TABLE ours (n int)", "shop")
            noted = await pg(admin, "SELECT DISTINCT kind, who FROM public.event ORDER BY kind", "shop")
            assert list(noted) == [("ddl_command_end", "app"), ("login", "app")]
            await pg(admin, "SELECT 1", "template1")

    async def test_a_disposable_clone_whose_node_went_down_is_not_committed(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            copy, content = await stage.prepared(volume, server)
        serve, secret = stage.clone(version_of(content)), stage.secret()
        async with stage.runner.serving(serve, copy, secret) as clone:
            crashed = stage.runner.copy(copy, clone)
            await clone.stop()
        for volume in (copy, crashed):
            (volume / "postgresql" / "boot").write_text("another")
            async with stage.runner.serving(serve, volume, secret):
                pass
        assert (await self._committed(stage, copy)).code == 0
        refused = await self._committed(stage, crashed)
        assert refused.code != 0
        assert "ran without fsync when its node went down" in refused.reason

    async def _committed(self, stage: Stage, volume: Path) -> Outcome:
        inputs = Preparation(marker="another", database="shop", origin=MARKER)
        return await stage.runner.run(stage.engine.preparation(inputs), volume)

    async def test_unlogged_tables_are_named_for_they_are_empty(self, stage: Stage) -> None:
        statements = ("CREATE UNLOGGED TABLE cache (n int)", "INSERT INTO cache VALUES (1)", "CHECKPOINT")
        async with source(stage, *statements) as (volume, server):
            copy, content = await stage.prepared(volume, server)
        [found] = content.findings
        assert found.reason == "UnloggedTablesEmpty"
        assert "shop" in found.message
        assert "cache" in found.message
        async with cloned(stage, copy, content) as clone:
            assert await pg(stage.admin(clone), "SELECT count(*) FROM cache", "shop") == [(0,)]

    async def test_collations_of_another_version_are_named_for_indexes_may_miss_rows(self, stage: Stage) -> None:
        statements = (
            "CREATE COLLATION german (provider = icu, locale = 'de')",
            "CREATE TABLE word (text text COLLATE german PRIMARY KEY)",
            "UPDATE pg_collation SET collversion = '1' WHERE collname = 'german'",
        )
        async with source(stage, *statements) as (volume, server):
            _, content = await stage.prepared(volume, server)
        [found] = content.findings
        assert found.reason == "CollationVersions"
        assert "german (1, here" in found.message

    async def test_what_reaches_outside_is_named(self, stage: Stage) -> None:
        statements = (
            "CREATE EXTENSION postgres_fdw",
            "CREATE SERVER warehouse FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host 'warehouse.example.com')",
            "CREATE USER MAPPING FOR PUBLIC SERVER warehouse OPTIONS (user 'reader', password 'hunter2')",
        )
        async with source(stage, *statements) as (volume, server):
            copy, content = await stage.prepared(volume, server)
        assert {found.reason for found in content.findings} == {
            "ForeignServers",
            "UserMappingsRemoved",
            "ConnectsOutside",
        }
        async with cloned(stage, copy, content) as clone:
            assert list(await pg(stage.admin(clone), "SELECT umoptions FROM pg_user_mappings", "shop")) == []

    async def test_what_is_not_in_the_data_directory_is_refused_by_name(self, stage: Stage) -> None:
        place = stage.runner.new("elsewhere")
        async with source(stage, f"CREATE TABLESPACE fast LOCATION '{place}'") as (volume, server):
            with pytest.raises(EngineError, match=f"fast \\({place}\\)"):
                await stage.engine.execute(stage.admin(server), "checkpoint", {})
            copy = stage.runner.copy(volume, server)
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert outcome.code != 0
        assert str(place) in outcome.reason

    async def test_a_write_ahead_log_elsewhere_is_refused_by_name(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            copy = stage.runner.copy(volume, server)
        log = copy / "postgresql" / "data" / "pg_wal"
        elsewhere = stage.runner.new("wal") / "pg_wal"
        log.rename(elsewhere)
        log.symlink_to(elsewhere)
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert outcome.code != 0
        assert str(elsewhere) in outcome.reason

    async def test_prepared_transactions_hold_nothing_in_a_copy(self, stage: Stage) -> None:
        async with source(stage, "ALTER SYSTEM SET max_prepared_transactions = 5") as (volume, server):
            pass
        async with stage.runner.serving(stage.store(load=False), volume, server.secret) as server:
            connection = await psycopg.AsyncConnection.connect(
                host="127.0.0.1", port=server.port, user=stage.engine.admin_user, dbname="shop", autocommit=True,
                password=server.secret["admin-password"],
            )  # fmt: skip
            async with connection:
                for statement in ("BEGIN", "DELETE FROM product", "PREPARE TRANSACTION 'later'"):
                    await connection.execute(statement)  # type: ignore[call-overload]
            copy, content = await stage.prepared(volume, server)
        assert [found.reason for found in content.findings] == ["PreparedTransactionsRolledBack"]
        async with cloned(stage, copy, content) as clone:
            app = stage.app(clone)
            await pg(app, "ALTER TABLE product ADD COLUMN more int", "shop")
            assert await stage.kit.count(app) == stage.kit.rows

    async def test_an_applications_login_that_was_a_superuser_is_none_in_a_copy(self, stage: Stage) -> None:
        statements = (
            "CREATE ROLE app2 SUPERUSER LOGIN PASSWORD 'x'",
            "ALTER ROLE coppice_bootstrap RENAME TO first",
            "ALTER ROLE app RENAME TO other",
            "ALTER ROLE first RENAME TO app",
            "CREATE TABLE of_the_first (n int)",
            "ALTER TABLE of_the_first OWNER TO app",
        )
        async with source(stage, *statements) as (volume, server):
            copy, content = await stage.prepared(volume, server)
        async with cloned(stage, copy, content) as clone:
            app = stage.app(clone)
            [(superuser,)] = await pg(app, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user", "shop")
            assert superuser is False
            await pg(app, "ALTER TABLE of_the_first ADD COLUMN more int", "shop")
            await pg(app, "ALTER TABLE product ADD COLUMN more int", "shop")

    async def test_a_copy_whose_rows_are_others_is_found_out(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            copy, content = await stage.prepared(volume, server)
        async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
            admin = stage.admin(clone)
            assert version_of(await stage.engine.inspect(admin, database="shop")) == version_of(content)
            await pg(admin, "UPDATE product SET name = 'changed'", "shop")
            assert version_of(await stage.engine.inspect(admin, database="shop")) != version_of(content)

    async def test_the_image_must_be_of_the_datas_version(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            copy = stage.runner.copy(volume, server)
        (copy / "postgresql" / "data" / "PG_VERSION").write_text("9\n")
        outcome = await stage.runner.run(stage.preparation(), copy)
        assert outcome.code != 0
        assert "PostgreSQL 9" in outcome.errors


class TestCommit:
    """A clone's volume is prepared like a store's, and what comes of it goes on as one."""

    async def _committed(
        self, stage: Stage, volume: Path, *, marker: str = COMMIT, server: Server | None = None
    ) -> tuple[Path, Content]:
        copy = stage.runner.copy(volume, server)
        outcome = await stage.runner.run(stage.preparation(marker=marker, origin=MARKER), copy)
        assert outcome.code == 0, outcome.errors
        return copy, stage.engine.report(outcome.last_line)

    async def test_what_a_durable_clone_has_acknowledged_is_in_the_commit_and_owned_by_the_next_app(
        self, stage: Stage
    ) -> None:
        async with source(stage) as (volume, server):
            copy, content = await stage.prepared(volume, server)
        workload = stage.clone(version_of(content), durable=True)
        async with stage.runner.serving(workload, copy, stage.secret()) as clone:
            app = await stage.ensure_app(clone)
            assert await pg(app, "SELECT current_setting('fsync'), current_setting('full_page_writes')", "shop") == [
                ("on", "on")
            ]
            await stage.engine.execute(stage.admin(clone), "checkpoint", {})
            await pg(app, "CREATE TABLE note (id serial PRIMARY KEY, text text)", "shop")
            await pg(app, "INSERT INTO note (text) VALUES ('mine')", "shop")
            committed, found = await self._committed(stage, copy, server=clone)
            logins = [stage.admin(clone), app]
        assert version_of(found).head != version_of(content).head
        assert f"commit{COMMIT[:8]}" in version_of(found).head
        next_workload = stage.clone(version_of(found), marker=COMMIT)
        async with stage.runner.serving(next_workload, committed, stage.secret()) as clone:
            content = await stage.engine.inspect(stage.admin(clone), database="shop")
            assert version_of(content) == version_of(found)
            app = await stage.ensure_app(clone)
            assert await pg(app, "SELECT text FROM note", "shop") == [("mine",)]
            for statement in (
                "ALTER TABLE note ADD COLUMN more int",
                "ALTER TABLE product ADD COLUMN more int",
                "INSERT INTO note (text) VALUES ('more')",
            ):
                await pg(app, statement, "shop")
            for at in logins:
                with pytest.raises(LoginRefusedError):
                    await stage.engine.inspect(clone.endpoint(at.username, at.password), database="shop")

    async def test_a_fast_clone_that_was_killed_loses_nothing_while_its_node_lives(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            copy, content = await stage.prepared(volume, server)
        async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
            app = await stage.ensure_app(clone)
            await pg(app, "CREATE TABLE note AS SELECT n FROM generate_series(1, 1000) n", "shop")
            await clone.stop(signal.SIGKILL)
        committed, found = await self._committed(stage, copy)
        workload = stage.clone(version_of(found), marker=COMMIT)
        async with stage.runner.serving(workload, committed, stage.secret()) as clone:
            assert await pg(stage.admin(clone), "SELECT count(*) FROM note", "shop") == [(1000,)]

    async def test_clones_that_have_written_as_much_and_not_the_same_have_other_heads(self, stage: Stage) -> None:
        async with source(stage, "CREATE TABLE note (n int)") as (volume, server):
            first, content = await stage.prepared(volume, server)
        second = stage.runner.copy(first)
        heads = {}
        for number, (copy, marker) in enumerate(((first, COMMIT), (second, "9" * 36))):
            async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
                await pg(stage.admin(clone), f"INSERT INTO note VALUES ({number})", "shop")
                await clone.stop()
            _, found = await self._committed(stage, copy, marker=marker)
            heads[marker] = version_of(found)
        one, other = heads.values()
        assert one.head.partition("commit")[0] == other.head.partition("commit")[0], "the two have not written as much"
        assert one.head != other.head
        assert one.working_root != other.working_root

    async def test_a_commit_that_is_prepared_again_says_the_same(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            copy, _ = await stage.prepared(volume, server)
        committed, found = await self._committed(stage, copy)
        outcome = await stage.runner.run(stage.preparation(marker=COMMIT, origin=MARKER), committed)
        assert outcome.code == 0, outcome.errors
        assert version_of(stage.engine.report(outcome.last_line)) == version_of(found)

    async def test_a_volume_that_is_not_of_the_parent_is_refused(self, stage: Stage) -> None:
        async with source(stage) as (volume, server):
            copy, _ = await stage.prepared(volume, server)
        outcome = await stage.runner.run(stage.preparation(marker=COMMIT, origin="another"), copy)
        assert outcome.code != 0
        assert MARKER in outcome.errors
        assert "another" in outcome.errors


class TestAdopted:
    """A server that somebody else runs: as the official image does it, as Debian does it, or deeper on the volume."""

    @asynccontextmanager
    async def _running(self, stage: Stage, volume: Path, directory: str) -> AsyncIterator[Server]:
        """Run a server of their own, with a superuser ``theirs`` and a login that may do what the documentation says."""
        script = f"""
            data="$COPPICE_DATA"/{directory}
            mkdir -p "$data"
            chmod 0700 "$data"
            printf theirs >"$COPPICE_RUN/password"
            [ -f "$data/PG_VERSION" ] ||
              initdb -D "$data" -U theirs -A scram-sha-256 --pwfile="$COPPICE_RUN/password" >/dev/null
            exec postgres -D "$data" -c listen_addresses=127.0.0.1 -c port="$COPPICE_PORT" \\
              -c unix_socket_directories="$COPPICE_RUN"
        """
        wait = """
            until psql -X -h 127.0.0.1 -p "$COPPICE_PORT" -U theirs -d postgres -c 'SELECT 1' >/dev/null 2>&1; do
              sleep 0.1
            done
        """
        theirs = Workload(script, {"PGPASSWORD": "theirs"}, wait_script=wait, port=5432)
        async with stage.runner.serving(theirs, volume, {}) as server:
            root = server.endpoint("theirs", "theirs")
            await pg(root, "CREATE DATABASE shop", "postgres")
            version = await pg(root, "SELECT current_setting('server_version_num')::int >= 150000", "postgres")
            for statement in (
                "CREATE ROLE shopkeeper LOGIN PASSWORD 'keeps'",
                "CREATE TABLE product (id text PRIMARY KEY, name text)",
                "ALTER TABLE product OWNER TO shopkeeper",
                "INSERT INTO product VALUES ('1', 'one'), ('2', 'two'), ('3', 'three')",
                "CREATE ROLE looker LOGIN PASSWORD 'looks'",
                "GRANT pg_checkpoint TO looker" if version == [(True,)] else "ALTER ROLE looker SUPERUSER",
            ):
                await pg(root, statement, "shop")
            yield server

    def _looker(self, server: Server) -> Endpoint:
        return replace(server.endpoint("looker", "looks"), guarded=True)

    def _adoption(self, stage: Stage, directory: str | None = None) -> Workload:
        return stage.engine.preparation(Preparation(MARKER, "shop", adopted=True, directory=directory))

    @pytest.mark.parametrize("directory", [".", "pgdata", "15/main", "data/deep/pgdata"])
    async def test_a_login_that_may_read_no_rows_is_enough_for_a_copy(self, stage: Stage, directory: str) -> None:
        volume = stage.runner.new("theirs")
        async with self._running(stage, volume, directory) as server:
            looker = self._looker(server)
            assert (await stage.engine.inspect(looker)).databases == ("shop",)
            await stage.engine.execute(looker, "checkpoint", {})
            copy = stage.runner.copy(volume, server)
        outcome = await stage.runner.run(self._adoption(stage), copy)
        assert outcome.code == 0, outcome.errors
        again = await stage.runner.run(self._adoption(stage), copy)
        content = stage.engine.report(again.last_line)
        assert content == stage.engine.report(outcome.last_line)
        assert [entry.name for entry in copy.iterdir()] == ["postgresql"]
        async with cloned(stage, copy, content) as clone:
            app = stage.app(clone)
            assert await stage.kit.count(app) == stage.kit.rows
            await pg(app, "ALTER TABLE product ADD COLUMN mine int", "shop")
            for name, password in (("theirs", "theirs"), ("shopkeeper", "keeps"), ("looker", "looks")):
                with pytest.raises(LoginRefusedError):
                    await stage.engine.inspect(clone.endpoint(name, password))

    async def test_an_adoption_that_was_interrupted_goes_on(self, stage: Stage) -> None:
        volume = stage.runner.new("theirs")
        async with self._running(stage, volume, ".") as server:
            copy = stage.runner.copy(volume, server)
        half = copy / ".coppice"
        half.mkdir()
        (half / "source").write_text(f"{copy}\n")
        (half / "data").mkdir()
        for name in ("base", "global"):
            (copy / name).rename(half / "data" / name)
        for made in (half, half / "source", half / "data"):
            stage.runner.give(made)
        outcome = await stage.runner.run(self._adoption(stage), copy)
        assert outcome.code == 0, outcome.errors
        async with cloned(stage, copy, stage.engine.report(outcome.last_line)) as clone:
            assert await stage.kit.count(stage.app(clone)) == stage.kit.rows

    @pytest.mark.parametrize(
        ("directory", "words"),
        [
            (None, "name one in spec.adopted.directory: a b"),
            ("c", "no data directory c"),
            ("../x", "leads out"),
        ],
    )
    async def test_what_is_in_doubt_is_not_guessed(self, stage: Stage, directory: str | None, words: str) -> None:
        volume = stage.runner.new("theirs")
        for name in ("a", "b"):
            (volume / name / "global").mkdir(parents=True)
            (volume / name / "global" / "pg_control").touch()
        outcome = await stage.runner.run(self._adoption(stage, directory), volume)
        assert outcome.code != 0
        assert words in outcome.errors

    async def test_a_server_that_asks_for_the_password_itself_does_not_get_it(self, stage: Stage) -> None:
        cleartext = b"R\x00\x00\x00\x08\x00\x00\x00\x03"
        async with impostor(cleartext) as (port, heard):
            with pytest.raises(UnguardedError):
                await stage.engine.inspect(
                    Endpoint("127.0.0.1", port, "looker", "looks", guarded=True), database="shop"
                )
        assert heard
        assert b"looks" not in b"".join(heard)

    async def test_with_a_certificate_the_server_has_to_prove_itself(self, stage: Stage) -> None:
        directory = stage.runner.new("tls")
        for name in ("right", "wrong"):
            command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "2"]
            files = ["-keyout", directory / f"{name}.key", "-out", directory / f"{name}.crt"]
            made = await asyncio.create_subprocess_exec(*command, *files, stderr=asyncio.subprocess.DEVNULL)
            assert await made.wait() == 0
            (directory / f"{name}.key").chmod(0o600)
            stage.runner.give(directory / f"{name}.key")
        volume = stage.runner.new("theirs")
        async with self._running(stage, volume, ".") as server:
            root = server.endpoint("theirs", "theirs")
            for statement in (
                f"ALTER SYSTEM SET ssl_cert_file = '{directory}/right.crt'",
                f"ALTER SYSTEM SET ssl_key_file = '{directory}/right.key'",
                "ALTER SYSTEM SET ssl = on",
                "SELECT pg_reload_conf()",
            ):
                await pg(root, statement, "postgres")
            await until_equal(root, "SHOW ssl", [("on",)])
            trusting = replace(self._looker(server), ca=(directory / "right.crt").read_text())
            assert (await stage.engine.inspect(trusting)).databases == ("shop",)
            for ca in ((directory / "wrong.crt").read_text(), "no certificate"):
                with pytest.raises(UnguardedError):
                    await stage.engine.inspect(replace(trusting, ca=ca))


@asynccontextmanager
async def impostor(answer: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Listen as a server that has no TLS and then says this; return its port, and all that it is told."""
    heard: list[bytes] = []
    callers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(writer)
        first = await reader.read(8)
        if first == b"\x00\x00\x00\x08\x04\xd2\x16\x2f":  # SSLRequest
            writer.write(b"N")
        heard.append(first + await reader.read(1000))
        writer.write(answer)
        heard.append(await reader.read(1000))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heard
        # Whoever has refused to go on may not have hung up.
        for writer in callers:
            writer.close()
            await writer.wait_closed()


class TestSchema:
    async def test_each_object_has_its_own_definition_and_its_schema_in_its_name(self, stage: Stage) -> None:
        made = {
            "schema audit": "CREATE SCHEMA audit",
            "table audit.entry": "CREATE TABLE audit.entry (id int PRIMARY KEY, at timestamptz DEFAULT now())",
            "type mood": "CREATE TYPE mood AS ENUM ('glad', 'sad')",
            "domain positive": "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
            "sequence ticket": "CREATE SEQUENCE ticket",
            "function twice(n integer)": "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2'",
            "procedure nothing()": "CREATE PROCEDURE nothing() LANGUAGE sql AS ''",
            "aggregate total(integer)": "CREATE AGGREGATE total(int) (sfunc = int4pl, stype = int)",
            "matview counted": "CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM product",
            "statistics pairs": "CREATE STATISTICS pairs ON id, name FROM product",
            "extension pgcrypto": "CREATE EXTENSION pgcrypto",
        }
        async with source(stage) as (_, server):
            admin, engine = stage.admin(server), stage.engine
            seen = dict(await engine.schema(admin, "shop"))
            for name, statement in made.items():
                await pg(admin, statement, "shop")
                now = await engine.schema(admin, "shop")
                assert {each for each in now if seen.get(each) != now[each]} == {name}
                seen = dict(now)

    async def test_what_hangs_on_a_table_is_in_its_definition(self, stage: Stage) -> None:
        touch = "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
        async with source(stage, touch) as (_, server):
            admin, engine = stage.admin(server), stage.engine
            seen = await engine.schema(admin, "shop")
            for statement in (
                "CREATE TRIGGER touched BEFORE UPDATE ON product FOR EACH ROW EXECUTE FUNCTION touch()",
                "ALTER TABLE product DISABLE TRIGGER touched",
                "ALTER TABLE product ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY mine ON product USING (name = current_user)",
                "CREATE RULE silent AS ON DELETE TO product DO INSTEAD NOTHING",
                "ALTER TABLE product ALTER COLUMN name SET DEFAULT 'none'",
                "ALTER TABLE product ALTER COLUMN name SET NOT NULL",
                "COMMENT ON COLUMN product.name IS 'what it is called'",
                "ALTER TABLE product ADD COLUMN number int GENERATED ALWAYS AS (length(name)) STORED",
                "CREATE INDEX named ON product (lower(name))",
            ):
                await pg(admin, statement, "shop")
                now = await engine.schema(admin, "shop")
                assert {each for each in now if seen.get(each) != now[each]} == {"table product"}, statement
                seen = now

    async def test_what_rows_move_and_who_owns_it_changes_nothing(self, stage: Stage) -> None:
        async with source(stage, "CREATE TABLE note (id serial PRIMARY KEY, text text)") as (_, server):
            admin, app, engine = stage.admin(server), await stage.ensure_app(server), stage.engine
            before = await engine.schema(admin, "shop")
            assert before.keys() == {"table product", "table note", "sequence note_id_seq"}
            for statement in (
                "INSERT INTO note (text) VALUES ('a'), ('b')",
                "ANALYZE note",
                "SELECT nextval('note_id_seq')",
            ):
                await pg(app, statement, "shop")
            await pg(admin, "ALTER TABLE note OWNER TO coppice_admin", "shop")
            await pg(admin, "ALTER DATABASE shop SET search_path = audit, public", "shop")
            await pg(admin, "REINDEX TABLE note; CLUSTER note USING note_pkey", "shop")
            assert await engine.schema(admin, "shop") == before


class TestReplication:
    async def test_a_clone_of_a_subscriber_takes_nothing_from_the_publisher(self, stage: Stage) -> None:
        publishing = ("ALTER SYSTEM SET wal_level = logical", "CREATE PUBLICATION p FOR TABLE product")
        async with source(stage, *publishing) as (volume, server):
            secret = server.secret
        async with stage.runner.serving(stage.store(load=False), volume, secret) as publisher:
            admin = stage.admin(publisher)
            conninfo = f"host=127.0.0.1 port={publisher.port} user=coppice_admin password={admin.password} dbname=shop"
            subscribing = ("TRUNCATE product", f"CREATE SUBSCRIPTION s CONNECTION '{conninfo}' PUBLICATION p")
            async with source(stage, *subscribing) as (copied, subscriber):
                rows = "SELECT count(*) FROM product"
                await until_equal(stage.admin(subscriber), rows, [(stage.kit.rows,)])
                of_subscriber, content = await stage.prepared(copied, subscriber)
                of_publisher, published = await stage.prepared(volume, publisher)
                async with (
                    cloned(stage, of_subscriber, content) as clone,
                    cloned(stage, of_publisher, published) as other,
                ):
                    for server in (clone, other):
                        assert await pg(stage.admin(server), "SELECT 1 FROM pg_subscription", "shop") == []
                        assert await pg(stage.admin(server), "SELECT 1 FROM pg_replication_slots", "shop") == []
                        await pg(stage.app(server), "DROP TABLE product CASCADE", "shop")
                    await stage.kit.insert(admin)
                    await until_equal(stage.admin(subscriber), rows, [(stage.kit.rows + 1,)])
                slots = await pg(admin, "SELECT slot_name, active FROM pg_replication_slots", "shop")
                assert list(slots) == [("s", True)]
        assert [found.reason for found in content.findings] == ["SubscriptionsRemoved"]

    async def test_a_physical_standby_is_as_good_a_source_as_its_primary(self, stage: Stage) -> None:
        async with source(stage) as (volume, primary):
            admin = stage.admin(primary)
            standby = stage.runner.copy(volume, primary)
            data = standby / "postgresql" / "data"
            (data / "standby.signal").touch()
            (data / "postmaster.pid").unlink()
            with (data / "postgresql.auto.conf").open("a") as settings:
                settings.write(f"restore_command = 'cp {volume}/postgresql/data/pg_wal/%f %p'\n")
            # Its administrator's password is the primary's: it was copied.
            async with stage.runner.serving(stage.store(load=False), standby, primary.secret) as follower:
                await stage.kit.insert(admin)
                await pg(admin, "SELECT pg_switch_wal()", "shop")
                rows = "SELECT count(*) FROM product"
                await until_equal(stage.admin(follower), rows, [(stage.kit.rows + 1,)])
                said = version_of(await stage.engine.inspect(stage.admin(follower), database="shop"))
                assert said.branch == "main"
                copy, content = await stage.prepared(standby, follower)
        async with cloned(stage, copy, content) as clone:
            assert await stage.kit.count(stage.app(clone)) == stage.kit.rows + 1
            await stage.kit.insert(stage.app(clone))


async def test_tables_that_others_have_locked_against_everybody_are_told(stage: Stage) -> None:
    async with source(stage, "CREATE SCHEMA audit", "CREATE TABLE audit.entry (n int)") as (_, server):
        admin, app = stage.admin(server), await stage.ensure_app(server)
        token = (await stage.engine.activity(admin)).token

        async def told() -> dict[tuple[str, bool], str]:
            return {(lock.table, lock.waits): lock.holder for lock in await stage.engine.locks(admin, "shop")}

        async def until_told(waited_for: str) -> None:
            async with asyncio.timeout(PATIENCE):
                while (waited_for, True) not in await told():  # noqa: ASYNC110 - nobody is told that somebody waits
                    await asyncio.sleep(0.05)

        assert await told() == {}
        assert (await stage.engine.activity(admin)).token == token
        async with _working(app, "shop") as one, _working(app, "shop") as other, _working(admin, "shop") as ours:
            # Made here, seen by nobody; read, written and indexed: nobody who reads waits for that.
            await one.execute("CREATE TABLE fresh (n int)")
            await one.execute("CREATE INDEX ON product (name)")
            await ours.execute("LOCK TABLE audit.entry IN SHARE MODE")
            assert await told() == {}
            await one.execute("ALTER TABLE product ADD COLUMN more int")
            [(held, mine)] = (await told()).items()
            assert held == ("product", False)
            waiting = asyncio.create_task(other.execute("TRUNCATE product, audit.entry"))
            await until_told("product")
            first, second = [(await stage.engine.locks(admin, "shop"))[0] for _ in range(2)]
            assert first.seen_at < second.seen_at
            await one.rollback()
            await until_told("audit.entry")
            now = await told()
            assert now.keys() == {("product", False), ("audit.entry", True)}
            assert mine not in now.values()
            assert len({*now.values()}) == 1
            await ours.rollback()
            await waiting
        assert await told() == {}


@asynccontextmanager
async def _working(at: Endpoint, database: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection with a transaction under way."""
    connection = await psycopg.AsyncConnection.connect(
        host=at.host, port=at.port, user=at.username, password=at.password, dbname=database
    )
    try:
        yield connection
    finally:
        await connection.close()


async def test_only_the_branch_can_be_named(stage: Stage) -> None:
    async with source(stage) as (_, server):
        admin = stage.admin(server)
        assert (await stage.engine.resolve(admin, "shop", Reference(branch="main"))).branch == "main"
        for reference in (Reference(branch="nope"), Reference(tag="v1"), Reference(time="2026-01-01T00:00:00Z")):
            with pytest.raises(UnknownVersionError):
                await stage.engine.resolve(admin, "shop", reference)
        with pytest.raises(UnknownVersionError, match="elsewhere"):
            await stage.engine.resolve(admin, "elsewhere", Reference(branch="main"))
        assert await stage.engine.contains(admin, "shop", "a", ("b", "a"))
        assert not await stage.engine.contains(admin, "shop", "a", ("b",))


async def test_a_checkpoint_leaves_a_copy_nothing_to_recover_and_the_head_where_it_was(stage: Stage) -> None:
    async with source(stage, "CREATE TABLE more AS SELECT generate_series(1, 10000) AS n") as (volume, server):
        admin = stage.admin(server)
        await stage.engine.inspect(admin)  # writes down that rows have been seen
        await stage.engine.execute(admin, "checkpoint", {})
        said = version_of(await stage.engine.inspect(admin, database="shop"))
        _, content = await stage.prepared(volume, server)
        assert version_of(content) == said
        assert version_of(await stage.engine.inspect(admin, database="shop")) == said


async def test_open_connections_are_no_use(stage: Stage) -> None:
    async with source(stage) as (volume, server):
        copy, content = await stage.prepared(volume, server)
    async with cloned(stage, copy, content) as clone:
        admin, idle = stage.admin(clone), await stage.kit.idle(stage.app(clone))
        assert (await stage.engine.activity(admin)).token == ""
        await idle.ping()
        found = await stage.engine.activity(admin)
        assert (found.token, found.connections) == ("", 1)
        idle.close()


KEPT_ALIVE = (
    "SELECT 1",
    "",
    "SET application_name = 'pool'",
    "SHOW transaction_isolation",
    "BEGIN",
    "SELECT pg_catalog.version()",
    "COMMIT",
    "DISCARD ALL",
    "SELECT t.oid, typarray FROM pg_type t WHERE t.typname = 'hstore'",
)
"""What pools, drivers, frameworks and health checks ask, by themselves."""
USES = {
    "a read": "SELECT count(*) FROM product",
    "a read by an index": "SELECT * FROM product WHERE id = 'x'",
    "a write": "UPDATE product SET name = name",
    "a definition": "CREATE TABLE fresh (n int)",
    "a function": "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "a copy": "COPY product TO STDOUT",
}


async def test_what_keeps_connections_alive_is_no_use(stage: Stage) -> None:
    async with source(stage) as (volume, server):
        copy, content = await stage.prepared(volume, server)
    async with cloned(stage, copy, content) as clone:
        admin, app = stage.admin(clone), stage.app(clone)
        for statement in (*KEPT_ALIVE, *KEPT_ALIVE):
            # A connection of its own each: a server counts no later than when it ends.
            await stage.kit.run(app, statement)
        assert (await stage.engine.activity(admin)).token == ""


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_whoever_asks_for_a_table_uses_it(stage: Stage, use: str) -> None:
    async with source(stage) as (volume, server):
        copy, content = await stage.prepared(volume, server)
    async with cloned(stage, copy, content) as clone:
        admin = stage.admin(clone)
        token = (await stage.engine.activity(admin)).token
        if use.startswith("COPY"):
            async with _working(stage.app(clone), "shop") as session, session.cursor().copy(use) as rows:
                assert [row async for row in rows]
        else:
            await stage.kit.run(stage.app(clone), use)
        async with asyncio.timeout(PATIENCE):
            while (now := (await stage.engine.activity(admin)).token) == token:  # noqa: ASYNC110 - as in until()
                await asyncio.sleep(0.05)
        # And neither is our own look, nor the server's work behind it.
        await stage.engine.schema(admin, "shop")
        assert (await stage.engine.activity(admin)).token == now


async def test_a_statement_that_asks_for_no_table_is_use_while_it_runs_on(stage: Stage) -> None:
    async with source(stage) as (_, server):
        admin, app = stage.admin(server), await stage.ensure_app(server)
        token = (await stage.engine.activity(admin)).token
        async with _working(app, "shop") as session:
            running = asyncio.create_task(session.execute("SELECT pg_sleep(60)"))
            async with asyncio.timeout(PATIENCE):
                while (await stage.engine.activity(admin)).token == token:  # noqa: ASYNC110 - as in until()
                    await asyncio.sleep(0.05)
            assert not running.done()
            await session.cancel_safe()
            await asyncio.gather(running, return_exceptions=True)


async def test_a_server_holds_its_volume_alone(stage: Stage) -> None:
    async with source(stage) as (volume, server):
        outcome = await stage.runner.run(stage.store(load=False), volume, server.secret)
        assert outcome.code != 0
        assert "another server has the volume" in outcome.errors
        assert await stage.kit.count(stage.admin(server)) == stage.kit.rows
