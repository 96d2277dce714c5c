"""What the contract suite must be able to do inside an engine's database, to make the situations its tests are about.

A third party registers a class like this, under the name of its engine, in the entry-point group ``coppice.engine_kits``; see docs/engines/README.md.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

import aiomysql
import psycopg
import pymysql.err
import pytest

from coppice.engines.base import Endpoint

from .runner import search_path
from .terminus_kit import TerminusDBKit


class Idle(Protocol):
    """A connection of a pool that nobody uses now."""

    async def ping(self) -> None:
        """Ask the server whether the connection is alive, by the protocol's own means."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class Kit(Protocol):
    """One engine's test material. The data it loads has ``rows`` rows in one table of ``database``."""

    database: str
    rows: int
    user: str | None
    """Who the servers run as where the tests are root and they do not like that."""
    load: Mapping[str, bytes]
    slow_load: Mapping[str, bytes]
    broken_load: Mapping[str, bytes]
    gaps: frozenset[str]
    """What this engine lets an app do although it should not, and no setting prevents; docs/engines names each."""
    load_names_database: bool
    """Whether the files of a load say which database they make."""
    beyond: Mapping[str, str]
    """Tests of the suite whose demand the engine does not meet, or not yet, by name, and why: they are skipped visibly."""

    def path(self) -> str | None:
        """Return a PATH with the engine's programs, or None to skip."""
        ...

    async def count(self, at: Endpoint, branch: str | None = None) -> int:
        """Count the rows an app sees that connects to the database, or to one of its branches."""
        ...

    async def insert(self, at: Endpoint, branch: str | None = None) -> None:
        """Add one row, and do not make a version of it."""
        ...

    async def run(self, at: Endpoint, statement: str) -> None:
        """Run one statement of plain SQL in the database."""
        ...

    async def version(self, at: Endpoint, branch: str | None = None) -> str:
        """Make a version of what there is, and return its commit."""
        ...

    async def tag(self, at: Endpoint, name: str) -> None:
        """Tag the newest version of the default branch."""
        ...

    async def connect_outside(self, at: Endpoint, directory: Path) -> None:
        """Make a login of somebody's, and set up everything by which a server acts on others: remotes, replication, events."""
        ...

    async def outside(self, at: Endpoint) -> Sequence[str]:
        """Name what of the above a server has."""
        ...

    async def idle(self, at: Endpoint) -> Idle:
        """Open a connection as a pool does."""
        ...

    async def refused(self, at: Endpoint, directory: Path) -> Sequence[str]:
        """Try what an app must not do; name what was not refused."""
        ...


class DoltKit:
    database = "shop"
    rows = 3
    user = None
    load_names_database = True
    beyond: Mapping[str, str] = {}
    load: Mapping[str, bytes] = {
        "1-schema.sql": b"CREATE DATABASE shop; USE shop; CREATE TABLE product (id CHAR(36) PRIMARY KEY, name TEXT);",
        "2-data.sql": b"USE shop; INSERT INTO product VALUES ('1', 'one'), ('2', 'two'), ('3', 'three');",
    }
    slow_load: Mapping[str, bytes] = {
        **load,
        "3-more.sql": b"USE shop;\n" + b"CREATE TABLE more (id INT PRIMARY KEY AUTO_INCREMENT, name TEXT);\n"
        + b"".join(b"INSERT INTO more (name) VALUES ('%d');\n" % number for number in range(500)),
    }  # fmt: skip
    gaps = frozenset(
        {
            "CREATE DATABASE other",
            "SET GLOBAL dolt_replicate_to_remote = 'out'",
            "SET PERSIST dolt_replicate_to_remote = 'out'",
        }
    )
    broken_load: Mapping[str, bytes] = {
        **load,
        "3-broken.sql": b"USE shop;\nINSERT INTO nowhere VALUES ('secret row');",
    }

    def path(self) -> str | None:
        return search_path("DOLT_BIN", "dolt")

    async def count(self, at: Endpoint, branch: str | None = None) -> int:
        [(number,)] = await sql(at, "SELECT COUNT(*) FROM product", database=self._database(branch))
        return int(number)

    async def insert(self, at: Endpoint, branch: str | None = None) -> None:
        # No AUTO_INCREMENT: the first transactions of a server may get the same number, and Dolt merges equal rows into one.
        await sql(at, "INSERT INTO product VALUES (UUID(), 'more')", database=self._database(branch))

    async def run(self, at: Endpoint, statement: str) -> None:
        await sql(at, statement, database=self.database)

    async def version(self, at: Endpoint, branch: str | None = None) -> str:
        [(commit,)] = await sql(at, "CALL dolt_commit('-A', '-m', 'more')", database=self._database(branch))
        return str(commit)

    async def tag(self, at: Endpoint, name: str) -> None:
        await sql(at, f"CALL dolt_tag('{name}')", database=self.database)

    async def connect_outside(self, at: Endpoint, directory: Path) -> None:
        for statement in (
            "CREATE USER boss@'%' IDENTIFIED BY 'boss'",
            "GRANT ALL ON *.* TO boss@'%'",
            f"CALL dolt_remote('add', 'origin', 'file://{directory}/remote')",
            f"CALL dolt_backup('add', 'nightly', 'file://{directory}/backup')",
            "CALL dolt_push('origin', 'main')",
            "SET PERSIST dolt_replicate_to_remote = 'origin'",
            "SET PERSIST dolt_async_replication = 0",
            "INSERT INTO dolt_branch_control VALUES ('shop', 'main', 'boss', '%', 'admin')",
            "CREATE TABLE ticks (at DATETIME(6) PRIMARY KEY)",
            "CREATE EVENT tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO ticks VALUES (NOW(6))",
        ):
            await sql(at, statement, database=self.database)

    async def outside(self, at: Endpoint) -> Sequence[str]:
        asked = {
            "login": "SELECT user FROM mysql.user WHERE user NOT IN ('root', 'app', 'event_scheduler', '__dolt_local_user__')",
            "remote": "SELECT name FROM dolt_remotes",
            "backup": "SELECT name FROM dolt_backups",
            "branch rule": "SELECT user FROM dolt_branch_control WHERE user <> '%'",
            "replication": "SELECT @@dolt_replicate_to_remote WHERE @@dolt_replicate_to_remote <> ''",
            "replica": "SELECT @@dolt_read_replica_remote WHERE @@dolt_read_replica_remote <> ''",
            "scheduler": "SELECT 1 WHERE @@event_scheduler NOT IN ('OFF', 'DISABLED')",
        }
        return [
            f"{what}: {row[0]}"
            for what, statement in asked.items()
            for row in await sql(at, statement, database=self.database)
        ]

    async def refused(self, at: Endpoint, directory: Path) -> Sequence[str]:
        tried = (
            "CREATE USER friend",
            "ALTER USER root@'%' IDENTIFIED BY 'x'",
            "GRANT ALL ON *.* TO app@'%'",
            "SELECT * FROM mysql.user",
            "CREATE DATABASE other",
            "CALL dolt_remote('add', 'out', 'http://192.0.2.1/x')",
            "CALL dolt_push('origin', 'main')",
            "CALL dolt_fetch('origin')",
            "CALL dolt_pull('origin')",
            "CALL dolt_clone('http://192.0.2.1/x')",
            "CALL dolt_backup('sync-url', 'file:///tmp/out')",
            "CALL dolt_gc()",
            "CALL dolt_undrop('other')",
            "CALL dolt_purge_dropped_databases()",
            "SET PERSIST dolt_replicate_to_remote = 'out'",
            "SET GLOBAL dolt_replicate_to_remote = 'out'",
            "SET GLOBAL secure_file_priv = ''",
            "SET SESSION secure_file_priv = ''",
            f"SELECT 1 INTO OUTFILE '{directory}/out'",
            f"SELECT 1 INTO DUMPFILE '{directory}/out'",
            f"LOAD DATA INFILE '{directory}/in' INTO TABLE product",
            "SELECT LOAD_FILE('/proc/self/environ')",
        )
        (directory / "in").write_text("1\tone\n")
        allowed = []
        for statement in tried:
            try:
                rows = await sql(at, statement, database=self.database)
            except pymysql.err.MySQLError as error:
                if not re.search(r"denied|privilege|secure|read.?only|GLOBAL variable|no-such-directory", str(error)):
                    allowed.append(f"{statement}: {error}")
                continue
            if not (statement.startswith("SELECT LOAD_FILE") and rows == ((None,),)):
                allowed.append(statement)
        return allowed

    async def idle(self, at: Endpoint) -> Idle:
        connection: Idle = await aiomysql.connect(
            host=at.host, port=at.port, user=at.username, password=at.password, db=self.database, autocommit=True
        )
        return connection

    def _database(self, branch: str | None) -> str:
        return f"{self.database}/{branch}" if branch else self.database


NOTING = """
CREATE TABLE public.event (kind text, who name);
CREATE FUNCTION public.note() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER AS $body$ BEGIN
  INSERT INTO public.event VALUES (tg_event, session_user);
END $body$;
CREATE EVENT TRIGGER note_login ON login EXECUTE FUNCTION public.note();
CREATE EVENT TRIGGER note_change ON ddl_command_end EXECUTE FUNCTION public.note();
ALTER EVENT TRIGGER note_login ENABLE ALWAYS;
ALTER EVENT TRIGGER note_change ENABLE ALWAYS"""
"""Event triggers that write down in whose sessions they run."""


class PostgreSQLKit:
    database = "shop"
    rows = 3
    user = "postgres"
    load_names_database = True
    beyond: Mapping[str, str] = {}
    load: Mapping[str, bytes] = {
        "1-schema.sql": b"CREATE DATABASE shop;\n\\connect shop\nCREATE TABLE product (id text PRIMARY KEY, name text);",
        "2-data.sql": b"\\connect shop\nINSERT INTO product VALUES ('1', 'one'), ('2', 'two'), ('3', 'three');",
    }
    slow_load: Mapping[str, bytes] = {
        **load,
        "3-more.sql": b"\\connect shop\nCREATE TABLE more (id serial PRIMARY KEY, name text);\n"
        + b"".join(b"INSERT INTO more (name) VALUES ('%d');\n" % number for number in range(500)),
    }
    broken_load: Mapping[str, bytes] = {
        **load,
        "3-broken.sql": b"\\connect shop\nINSERT INTO nowhere VALUES ('secret row');",
    }
    gaps: frozenset[str] = frozenset()

    def path(self) -> str | None:
        return postgresql_path()

    async def count(self, at: Endpoint, branch: str | None = None) -> int:
        [(number,)] = await pg(at, "SELECT count(*) FROM product", self.database)
        return int(number)

    async def insert(self, at: Endpoint, branch: str | None = None) -> None:
        await pg(at, "INSERT INTO product VALUES (md5(random()::text), 'more')", self.database)

    async def run(self, at: Endpoint, statement: str) -> None:
        await pg(at, statement, self.database)

    async def version(self, at: Endpoint, branch: str | None = None) -> str:
        return ""

    async def tag(self, at: Endpoint, name: str) -> None:
        raise NotImplementedError

    async def connect_outside(self, at: Endpoint, directory: Path) -> None:
        for statement in (
            "CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'boss'",
            "CREATE ROLE root LOGIN",
            "GRANT coppice_admin TO root",
            "GRANT pg_execute_server_program TO app",
            "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1 port=1 dbname=x' PUBLICATION p WITH (connect = false)",
            "SELECT pg_create_physical_replication_slot('standby', true)",
            "CREATE EXTENSION postgres_fdw",
            "CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '1')",
            "CREATE USER MAPPING FOR PUBLIC SERVER elsewhere OPTIONS (user 'x', password 'hunter2')",
            "ALTER SYSTEM SET archive_command = 'cp %p /nowhere'",
            "ALTER SYSTEM SET primary_conninfo = 'host=127.0.0.1 port=1 password=hunter2'",
            "ALTER SYSTEM SET session_preload_libraries = 'auto_explain'",
            "ALTER DATABASE shop SET session_preload_libraries = 'auto_explain'",
            "ALTER ROLE ALL SET session_preload_libraries = 'auto_explain'",
        ):
            await pg(at, statement, self.database)

    async def outside(self, at: Endpoint) -> Sequence[str]:
        asked = {
            "login": "SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname NOT IN ('coppice_admin', 'app')",
            "superuser": "SELECT rolname FROM pg_roles WHERE rolsuper AND oid <> 10 AND rolname <> 'coppice_admin'",
            "password": "SELECT rolname FROM pg_authid WHERE rolpassword IS NOT NULL AND rolname NOT IN ('coppice_admin', 'app')",
            "membership": "SELECT roleid::regrole FROM pg_auth_members WHERE roleid::regrole::text IN"
            " ('coppice_admin', 'pg_execute_server_program')",
            "subscription": "SELECT subname FROM pg_subscription",
            "slot": "SELECT slot_name FROM pg_replication_slots",
            "mapping": "SELECT srvname FROM pg_user_mappings",
            "archive": "SELECT setting FROM pg_settings WHERE name = 'archive_command' AND setting NOT IN ('', '(disabled)')",
            "primary": "SELECT setting FROM pg_settings WHERE name = 'primary_conninfo' AND setting <> ''",
            "database setting": "SELECT setconfig FROM pg_db_role_setting WHERE setconfig::text LIKE '%preload%'",
        }
        return [
            f"{what}: {row[0]}" for what, statement in asked.items() for row in await pg(at, statement, self.database)
        ]

    async def refused(self, at: Endpoint, directory: Path) -> Sequence[str]:
        tried = (
            "CREATE ROLE friend LOGIN",
            "ALTER ROLE coppice_admin PASSWORD 'x'",
            "SET ROLE coppice_admin",
            "SET SESSION AUTHORIZATION coppice_admin",
            "GRANT coppice_admin TO app",
            "SELECT rolpassword FROM pg_authid",
            "CREATE DATABASE other",
            "ALTER SYSTEM SET archive_command = 'true'",
            "COPY product TO PROGRAM 'cat'",
            f"COPY product TO '{directory}/out'",
            "COPY product FROM '/etc/passwd'",
            "SELECT pg_read_file('/proc/self/environ')",
            "SELECT pg_ls_dir('.')",
            "SELECT lo_import('/etc/passwd')",
            "LOAD 'auto_explain'; LOAD '/tmp/x.so'",
            "CREATE EXTENSION file_fdw",
            "CREATE EXTENSION postgres_fdw",
            "CREATE EXTENSION dblink",
            "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false)",
            "SELECT pg_create_physical_replication_slot('x')",
            "SET session_preload_libraries = 'auto_explain'",
            "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x'",
            "CREATE TABLESPACE t LOCATION '/tmp'",
            "CHECKPOINT",
            "SELECT pg_reload_conf()",
            "COMMENT ON ROLE coppice_admin IS 'mine'",
        )
        allowed = []
        for statement in tried:
            try:
                await pg(at, statement, self.database)
            except psycopg.Error as error:
                if error.sqlstate != "42501" and "permission denied" not in str(error):
                    allowed.append(f"{statement}: {error}")
                continue
            allowed.append(statement)
        return allowed

    async def idle(self, at: Endpoint) -> Idle:
        return IdlePostgreSQL(await _pg_connect(at, self.database))


class IdlePostgreSQL:
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def ping(self) -> None:
        """Sync, and nothing else: the protocol has no ping."""
        async with self._connection.pipeline():
            pass

    def close(self) -> None:
        self._connection.pgconn.finish()


def postgresql_path() -> str | None:
    """Return a PATH with PostgreSQL's programs: of $COPPICE_POSTGRESQL_BIN, or the newest of Debian's."""
    named = os.environ.get("COPPICE_POSTGRESQL_BIN")
    folders = [named] if named else sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
    path = os.pathsep.join([*folders, os.environ.get("PATH", "")])
    return path if shutil.which("initdb", path=path) else None


async def _pg_connect(at: Endpoint, database: str) -> psycopg.AsyncConnection[Any]:
    return await psycopg.AsyncConnection.connect(
        host=at.host,
        port=at.port,
        user=at.username,
        password=at.password,
        dbname=database,
        autocommit=True,
        client_encoding="utf8",
    )


async def pg(at: Endpoint, statement: str, database: str) -> Sequence[tuple[Any, ...]]:
    """Run one statement as any app would."""
    connection = await _pg_connect(at, database)
    async with connection:
        cursor = await connection.execute(statement)  # type: ignore[call-overload]
        return await cursor.fetchall() if cursor.description else ()


async def needs_login_triggers(at: Endpoint) -> None:
    """Skip the test where the server is older than event triggers on login."""
    if await pg(at, "SELECT current_setting('server_version_num')::int >= 170000", "postgres") != [(True,)]:
        pytest.skip("event triggers on login are of PostgreSQL 17")


async def sql(at: Endpoint, statement: str, *, database: str | None = None) -> Sequence[tuple[Any, ...]]:
    """Run one statement as any app would."""
    connection = await aiomysql.connect(
        host=at.host, port=at.port, user=at.username, password=at.password, db=database, autocommit=True
    )
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(statement)
            return tuple(await cursor.fetchall()) if cursor.description else ()
    finally:
        connection.close()


def kits() -> Mapping[str, Kit]:
    found: dict[str, Kit] = {"dolt": DoltKit(), "postgresql": PostgreSQLKit(), "terminusdb": TerminusDBKit()}
    for plugin in entry_points(group="coppice.engine_kits"):
        found[plugin.name] = plugin.load()()
    return found
