"""A PostgreSQL elsewhere becomes a store's volume, run for real: one server on the loopback, read by another's programs."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.fakes.certificates import Authority

from coppice.engines.base import MirrorInputs, StoreServer, Workload

from .conftest import MARKER, Stage, open_stage, version_of
from .kit import NOTING, needs_login_triggers, pg
from .runner import kill, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from coppice.engines.base import Endpoint

    from .runner import Outcome, Server

PASSWORD = "reads-and-nothing-else"
ROW = "alice.at.home"
SHOP = (
    "CREATE SCHEMA deep",
    "CREATE TYPE deep.mood AS ENUM ('sad', 'happy')",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE TABLE product (id serial PRIMARY KEY, name text UNIQUE, price positive, mood deep.mood DEFAULT 'sad')",
    f"INSERT INTO product (name, price) SELECT '{ROW}-' || n, n FROM generate_series(1, 500) n",
    "CREATE TABLE part (n int) PARTITION BY RANGE (n)",
    "CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (10)",
    "INSERT INTO part SELECT generate_series(0, 9)",
    "CREATE TABLE empty (n int)",
    'CREATE TABLE "Odd name" (n int)',
    'INSERT INTO "Odd name" VALUES (1)',
    "CREATE VIEW cheap AS SELECT * FROM product WHERE price < 10",
    "CREATE MATERIALIZED VIEW counted AS SELECT count(*) AS n FROM product",
    "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT n * 2'",
    "CREATE PUBLICATION everything FOR ALL TABLES",
    "SELECT lo_from_bytea(4711, 'large')",
    "ALTER DATABASE shop SET search_path = deep, public",
    "ALTER DATABASE shop SET session_preload_libraries = 'auto_explain'",
    f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'",
    "GRANT pg_read_all_data TO reader",
    "GRANT SELECT ON LARGE OBJECT 4711 TO reader",
)


@dataclass(frozen=True)
class Elsewhere:
    """A server that somebody else runs, with TLS, and the Secret to read it by."""

    stage: Stage
    root: Endpoint
    secret: Path

    def says(self, **values: str | None) -> None:
        """Change the Secret."""
        for key, value in values.items():
            file = self.secret / key.replace("_", ".")
            if value is None:
                file.unlink(missing_ok=True)
            else:
                file.write_text(value)

    async def does(self, *statements: str) -> None:
        for statement in statements:
            await pg(self.root, statement, "shop")

    def workloads(
        self, *, jobs: int = 2, expects_rows: bool = False, marker: str = MARKER
    ) -> tuple[Workload, Workload]:
        found = self.stage.engine.mirror(MirrorInputs(marker=marker, jobs=jobs, expects_rows=expects_rows))
        assert found is not None
        dump = replace(found.dump, environment={**found.dump.environment, "COPPICE_SOURCE": str(self.secret)})
        return dump, found.restore

    async def dump(self, volume: Path, **inputs: Any) -> Outcome:
        return await self.stage.runner.run(self.workloads(**inputs)[0], volume)

    async def restore(self, volume: Path, **inputs: Any) -> Outcome:
        return await self.stage.runner.run(self.workloads(**inputs)[1], volume)

    async def mirrored(self, **inputs: Any) -> tuple[Path, dict[str, Any]]:
        """Return a volume that was filled, and what was told at the end."""
        volume = self.stage.runner.new("mirror")
        for outcome in (await self.dump(volume, **inputs), await self.restore(volume, **inputs)):
            assert outcome.code == 0, outcome.output + outcome.errors
            told = json.loads(outcome.last_line)
            assert told["phase"] == "Done"
        return volume, told


def store(stage: Stage, marker: str = MARKER) -> Workload:
    inputs = StoreServer(
        database=None, fallback_database="none", commit_policy="Explicit", has_load=False, marker=marker
    )
    return stage.engine.store_server(inputs)


@asynccontextmanager
async def served(stage: Stage, volume: Path) -> AsyncIterator[Server]:
    async with stage.runner.serving(store(stage), volume, stage.secret()) as server:
        yield server


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("postgresql") as stage:
        yield stage


@asynccontextmanager
async def running(stage: Stage, authority: Authority, *, tls: bool = True) -> AsyncIterator[Elsewhere]:
    """Run somebody else's server, with a database that has rows, and a login that may read it."""
    issued, place = authority.issue("127.0.0.1"), stage.runner.new("tls")
    for name, content in (("server.crt", issued.certificate), ("server.key", issued.key)):
        (place / name).write_text(content)
        (place / name).chmod(0o600)
        stage.runner.give(place / name)
    script = f"""
        printf theirs >"$COPPICE_RUN/password"
        chmod 0700 "$COPPICE_DATA"
        initdb -D "$COPPICE_DATA" -U theirs -A scram-sha-256 --pwfile="$COPPICE_RUN/password" >/dev/null
        exec postgres -D "$COPPICE_DATA" -c listen_addresses=127.0.0.1 -c port="$COPPICE_PORT" -c fsync=off \\
          -c unix_socket_directories="$COPPICE_RUN" -c ssl={"on" if tls else "off"} -c ssl_cert_file={place}/server.crt \\
          -c ssl_key_file={place}/server.key
    """
    wait = """
        until psql -X -h 127.0.0.1 -p "$COPPICE_PORT" -U theirs -d postgres -c 'SELECT 1' >/dev/null 2>&1; do
          sleep 0.1
        done
    """
    theirs = Workload(script, {"PGPASSWORD": "theirs"}, wait_script=wait, port=5432)
    async with stage.runner.serving(theirs, stage.runner.new("theirs"), {}) as server:
        root, secret = server.endpoint("theirs", "theirs"), stage.runner.new("secret")
        await pg(root, "CREATE DATABASE shop", "postgres")
        elsewhere = Elsewhere(stage, root, secret)
        elsewhere.says(host="127.0.0.1", port=str(server.port), username="reader", password=PASSWORD, database="shop")
        await elsewhere.does(*SHOP)
        yield elsewhere


async def test_a_database_elsewhere_is_copied_whole_by_a_login_that_may_only_read(
    stage: Stage, authority: Authority
) -> None:
    async with running(stage, authority) as elsewhere:
        volume, told = await elsewhere.mirrored()
    assert (told["tables"], told["filled"], told["findings"]) == (4, 3, [])
    assert told["version"].split(".")[0] >= "13"
    assert sorted(entry.name for entry in volume.iterdir()) == ["postgresql"]
    async with served(stage, volume) as server:
        admin = stage.admin(server)
        assert (await stage.engine.inspect(admin)).databases == ("shop",)
        for statement, expected in {
            "SELECT count(*), sum(price) FROM product": (500, 125250),
            "SELECT nextval('product_id_seq')": (501,),
            "SELECT count(*) FROM part_low": (10,),
            "SELECT n FROM counted": (500,),
            "SELECT count(*) FROM cheap": (9,),
            "SELECT twice(21)": (42,),
            'SELECT count(*) FROM "Odd name"': (1,),
            "SELECT convert_from(lo_get(4711), 'utf8')": ("large",),
            "SELECT count(*) FROM pg_publication": (0,),
            "SHOW search_path": ("deep, public",),
            "SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname !~ '^coppice_'": (0,),
            "SELECT pg_get_userbyid(relowner) FROM pg_class WHERE relname = 'product'": ("app",),
            "SELECT relallvisible = relpages AND relpages > 0 FROM pg_class WHERE relname = 'product'": (True,),
        }.items():
            assert await pg(admin, statement, "shop") == [expected], statement


async def test_clones_of_the_copy_are_clones_as_of_any_store(stage: Stage, authority: Authority) -> None:
    async with running(stage, authority) as elsewhere:
        volume, _ = await elsewhere.mirrored()
    async with served(stage, volume) as server:
        # In this order: to read rows for the first time may write down that they have been seen.
        await stage.engine.inspect(stage.admin(server))
        await stage.engine.execute(stage.admin(server), "checkpoint", {})
        said = await stage.engine.inspect(stage.admin(server))
        copy = stage.runner.copy(volume, server)
    outcome = await stage.runner.run(stage.preparation(), copy)
    assert outcome.code == 0, outcome.errors
    content = stage.engine.report(outcome.last_line)
    assert content.branches == said.branches
    async with stage.runner.serving(stage.clone(version_of(content)), copy, stage.secret()) as clone:
        assert await stage.engine.inspect(stage.admin(clone), database="shop") == content
        app = await stage.ensure_app(clone)
        await pg(app, "ALTER TABLE product ADD COLUMN mine int", "shop")


async def test_event_triggers_of_the_source_run_in_none_of_the_administrators_sessions(
    stage: Stage, authority: Authority
) -> None:
    async with running(stage, authority, tls=False) as elsewhere:
        elsewhere.says(sslmode="disable")
        await needs_login_triggers(elsewhere.root)
        # What writes at a login lets nobody in who only reads.
        await elsewhere.does(
            "ALTER ROLE reader SET event_triggers = off", "ALTER DATABASE shop SET event_triggers = on"
        )
        await elsewhere.does(NOTING, "TRUNCATE public.event")
        volume, _ = await elsewhere.mirrored()
    async with served(stage, volume) as server:
        app = await stage.ensure_app(server)
        admin = stage.admin(server)
        await stage.engine.inspect(admin)
        await pg(app, "CREATE TABLE mine (n int)", "shop")
        noted = await pg(admin, "SELECT DISTINCT kind, who FROM public.event ORDER BY kind", "shop")
        assert list(noted) == [("ddl_command_end", "app"), ("login", "app")]


async def test_an_idle_copy_stays_where_it_is(stage: Stage, authority: Authority) -> None:
    """As long as it is not refreshed one snapshot of it serves everybody who asks."""
    async with running(stage, authority) as elsewhere:
        volume, _ = await elsewhere.mirrored()
    async with served(stage, volume) as server:
        before = version_of(await stage.engine.inspect(stage.admin(server)))
        await pg(stage.admin(server), "SELECT count(*) FROM product", "shop")
        assert version_of(await stage.engine.inspect(stage.admin(server))) == before
    other, _ = await _again(stage, authority)
    async with served(stage, other) as server:
        assert version_of(await stage.engine.inspect(stage.admin(server))).working_root != before.working_root


async def _again(stage: Stage, authority: Authority) -> tuple[Path, dict[str, Any]]:
    async with running(stage, authority) as elsewhere:
        return await elsewhere.mirrored()


async def test_a_schema_that_changed_between_two_refreshes_is_the_next_copys(
    stage: Stage, authority: Authority
) -> None:
    async with running(stage, authority) as elsewhere:
        first, _ = await elsewhere.mirrored()
        await elsewhere.does(
            "DROP TABLE part",
            "DROP VIEW cheap",
            "ALTER TABLE product DROP COLUMN mood",
            "DROP TYPE deep.mood",
            "CREATE TABLE deep.review (product int REFERENCES product, text text)",
            "INSERT INTO deep.review VALUES (1, 'good')",
        )
        second, told = await elsewhere.mirrored(expects_rows=True)
    assert (told["tables"], told["filled"]) == (4, 3)
    async with served(stage, first) as old, served(stage, second) as new:
        before = await stage.engine.schema(stage.admin(old), "shop")
        after = await stage.engine.schema(stage.admin(new), "shop")
        assert "table part" in before
        assert "table part" not in after
        assert "table deep.review" in after
        assert before["table product"] != after["table product"]


@pytest.mark.parametrize("jobs", [1, 4])
async def test_it_tells_how_far_it_is(stage: Stage, authority: Authority, jobs: int) -> None:
    async with running(stage, authority) as elsewhere:
        volume = stage.runner.new("mirror")
        lines = []
        for outcome in (await elsewhere.dump(volume, jobs=jobs), await elsewhere.restore(volume, jobs=jobs)):
            assert outcome.code == 0, outcome.errors
            lines += [json.loads(line) for line in outcome.output.splitlines()]
    phases = [line["phase"] for line in lines]
    assert [phase for number, phase in enumerate(phases) if phase not in phases[:number]] == [
        "Connecting", "Dumping", "Done", "Restoring", "Checking",
    ]  # fmt: skip
    assert {line["total"] for line in lines if "total" in line} == {4}


async def test_the_password_is_nowhere_on_the_volume(stage: Stage, authority: Authority) -> None:
    async with running(stage, authority) as elsewhere:
        volume = stage.runner.new("mirror")
        outcome = await elsewhere.dump(volume)
        assert outcome.code == 0, outcome.errors
        assert PASSWORD not in outcome.output + outcome.errors
        assert not [file for file in volume.rglob("*") if file.is_file() and PASSWORD.encode() in file.read_bytes()]


SCENES: dict[str, tuple[dict[str, str | None], tuple[str, ...], dict[str, Any], str, str]] = {
    "nobody there": ({"port": "1"}, (), {}, "SourceUnreachable", ""),
    "no such host": ({"host": "nowhere.invalid"}, (), {}, "SourceUnreachable", ""),
    "wrong password": ({"password": "guess"}, (), {}, "SourceRefusesLogin", ""),
    "no such database": ({"database": "till"}, (), {}, "SourceRefusesLogin", ""),
    "no login": ({}, ("ALTER ROLE reader NOLOGIN",), {}, "SourceRefusesLogin", ""),
    "another authority": ({"ca_crt": "WRONG"}, (), {}, "SourceNotGuarded", ""),
    "one table is closed": (
        {},
        ("REVOKE pg_read_all_data FROM reader", "GRANT SELECT ON product TO reader"),
        {},
        "ReadForbidden",
        "permission denied for",
    ),
    "a row security": (
        {},
        ("ALTER TABLE product ENABLE ROW LEVEL SECURITY",),
        {},
        "ReadForbidden",
        "product",
    ),
    "no rows": (
        {},
        ("TRUNCATE product, part", 'DROP TABLE "Odd name"'),
        {"expects_rows": True},
        "SourceEmpty",
        "shop",
    ),
    "an extension of its own": (
        {},
        ("INSERT INTO pg_extension SELECT 99999, 'postgis', 10, 11, true, '1' FROM pg_am WHERE amname = 'heap'",),
        {},
        "ExtensionsMissing",
        "postgis",
    ),
}


@pytest.mark.parametrize("scene", SCENES)
async def test_a_dump_that_fails_says_why_in_one_word_and_leaves_nothing(
    stage: Stage, authority: Authority, scene: str
) -> None:
    secret, statements, inputs, word, detail = SCENES[scene]
    async with running(stage, authority) as elsewhere:
        await elsewhere.does(*statements)
        other = Authority("other").certificate
        elsewhere.says(**{key: other if value == "WRONG" else value for key, value in secret.items()})
        volume = stage.runner.new("mirror")
        outcome = await elsewhere.dump(volume, **inputs)
    assert outcome.code != 0
    told = json.loads(outcome.last_line)
    assert told["failed"] == word, outcome.errors
    assert detail in told["detail"]
    assert ROW not in outcome.output + outcome.errors
    assert list(volume.iterdir()) == []


async def test_a_table_that_somebody_holds_locked_is_not_waited_for_without_end(
    stage: Stage, authority: Authority
) -> None:
    async with running(stage, authority) as elsewhere:
        idle = await stage.kit.idle(elsewhere.root)
        await idle._connection.execute("BEGIN")  # type: ignore[attr-defined]
        await idle._connection.execute("LOCK TABLE product IN ACCESS EXCLUSIVE MODE")  # type: ignore[attr-defined]
        dump, _ = elsewhere.workloads()
        hurried = replace(dump, script=dump.script.replace("--lock-wait-timeout=30s", "--lock-wait-timeout=100ms"))
        outcome = await stage.runner.run(hurried, stage.runner.new("mirror"))
        idle.close()
    assert json.loads(outcome.last_line)["failed"] == "SourceLocked", outcome.errors


async def test_a_source_that_is_newer_than_the_image_is_refused(stage: Stage, authority: Authority) -> None:
    shims = stage.runner.new("shims")
    (shims / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.1'\n")
    (shims / "pg_dump").chmod(0o755)
    async with running(stage, authority) as elsewhere:
        stage.runner.path = f"{shims}:{stage.runner.path}"
        outcome = await elsewhere.dump(stage.runner.new("mirror"))
    assert json.loads(outcome.last_line)["failed"] == "SourceTooNew"


async def test_by_default_a_server_has_to_prove_itself(stage: Stage, authority: Authority) -> None:
    async with running(stage, authority, tls=False) as elsewhere:
        outcome = await elsewhere.dump(stage.runner.new("mirror"))
        assert json.loads(outcome.last_line)["failed"] == "SourceNotGuarded"
        elsewhere.says(sslmode="disable")
        await elsewhere.mirrored()


async def test_with_a_certificate_the_servers_name_counts_too(stage: Stage, authority: Authority) -> None:
    async with running(stage, authority) as elsewhere:
        elsewhere.says(ca_crt=authority.certificate)
        await elsewhere.mirrored()
        elsewhere.says(host="localhost")
        outcome = await elsewhere.dump(stage.runner.new("mirror"))
        assert json.loads(outcome.last_line)["failed"] == "SourceNotGuarded"
        elsewhere.says(sslmode="verify-ca")
        assert (await elsewhere.dump(stage.runner.new("mirror"))).code == 0


async def test_what_cannot_be_restored_is_said_without_a_row_and_its_bytes_are_given_back(
    stage: Stage, authority: Authority
) -> None:
    async with running(stage, authority) as elsewhere:
        await elsewhere.does(
            "CREATE FUNCTION known(n text) RETURNS bool LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM 1 FROM product WHERE name = n; RETURN true; END'",
            "CREATE TABLE checked (n text CHECK (known(n)))",
            f"INSERT INTO checked VALUES ('{ROW}')",
        )
        volume = stage.runner.new("mirror")
        assert (await elsewhere.dump(volume)).code == 0
        outcome = await elsewhere.restore(volume)
    assert json.loads(outcome.last_line)["failed"] == "RestoreFailed"
    assert "product" in outcome.errors
    assert ROW not in outcome.output + outcome.errors
    assert list(volume.iterdir()) == []


@pytest.mark.parametrize("program", ["dump", "restore"])
async def test_a_program_killed_in_the_middle_can_be_begun_again(
    stage: Stage, authority: Authority, program: str
) -> None:
    async with running(stage, authority) as elsewhere:
        volume = stage.runner.new("mirror")
        dump, restore = elsewhere.workloads()
        if program == "restore":
            assert (await elsewhere.dump(volume)).code == 0
        workload = dump if program == "dump" else restore
        environment = stage.runner.environment(workload, volume, {}, run=stage.runner.new("run"), port=1, load=None)
        seen = ".mirror/dump/toc.dat" if program == "dump" else ".loading/data/PG_VERSION"
        process = await stage.runner.spawn(workload.script, environment, stage.runner.directory / "killed.log")
        await until((volume / seen).parent.exists)
        kill(process)
        await process.wait()
        for outcome in (await elsewhere.dump(volume), await elsewhere.restore(volume)):
            assert outcome.code == 0, outcome.errors
    async with served(stage, volume) as server:
        assert await pg(stage.admin(server), "SELECT count(*) FROM product", "shop") == [(500,)]


async def test_what_is_done_is_told_again_and_nothing_is_done_twice(stage: Stage, authority: Authority) -> None:
    async with running(stage, authority) as elsewhere:
        volume, told = await elsewhere.mirrored()
        elsewhere.says(password="changed")
        assert json.loads((await elsewhere.dump(volume)).last_line) == {"phase": "Done"}
        again = await elsewhere.restore(volume)
    assert json.loads(again.last_line) == told


async def test_a_volume_of_something_else_is_not_touched(stage: Stage, authority: Authority) -> None:
    volume = stage.runner.new("volume")
    (volume / "holiday.jpg").write_bytes(b"jpg")
    async with running(stage, authority) as elsewhere:
        for outcome in (await elsewhere.dump(volume), await elsewhere.restore(volume)):
            assert outcome.code != 0
            assert "holiday.jpg" in outcome.errors
        filled, _ = await elsewhere.mirrored()
        for outcome in (await elsewhere.dump(filled, marker="b"), await elsewhere.restore(filled, marker="b")):
            assert outcome.code != 0
    assert [file.name for file in volume.iterdir()] == ["holiday.jpg"]
    async with served(stage, filled) as server:
        assert await pg(stage.admin(server), "SELECT count(*) FROM product", "shop") == [(500,)]


async def test_a_server_refuses_a_volume_that_its_refresh_has_not_filled(stage: Stage, authority: Authority) -> None:
    empty = stage.runner.new("empty")
    outcome = await stage.runner.run(store(stage), empty, stage.secret())
    assert outcome.code != 0
    assert "empty" in outcome.errors
    assert list(empty.iterdir()) == []
    volume, _ = await _again(stage, authority)
    outcome = await stage.runner.run(store(stage, "another"), volume, stage.secret())
    assert outcome.code != 0
    assert "another refresh" in outcome.errors


async def test_a_database_named_as_the_maintenance_one_is_copied_as_well(stage: Stage, authority: Authority) -> None:
    async with running(stage, authority) as elsewhere:
        await pg(elsewhere.root, "CREATE TABLE here AS SELECT 1 AS n", "postgres")
        elsewhere.says(database="postgres")
        volume, told = await elsewhere.mirrored()
    assert told["findings"] == []
    async with served(stage, volume) as server:
        assert await pg(stage.admin(server), "SELECT n FROM here", "postgres") == [(1,)]
        assert (await stage.engine.inspect(stage.admin(server))).database == "postgres"


async def test_settings_of_the_database_that_the_image_does_not_take_are_named(
    stage: Stage, authority: Authority
) -> None:
    async with running(stage, authority) as elsewhere:
        volume = stage.runner.new("mirror")
        assert (await elsewhere.dump(volume)).code == 0
        dumped = volume / ".mirror" / "dump" / "toc.dat"
        dumped.write_bytes(
            dumped.read_bytes().replace(b"session_preload_libraries", b"session_preload_somethings"[:25])
        )
        outcome = await elsewhere.restore(volume)
    assert outcome.code == 0, outcome.errors
    [found] = json.loads(outcome.last_line)["findings"]
    assert (found["reason"], "session_preload_something" in found["message"]) == ("SettingsLeftOut", True)


async def test_a_locale_that_the_image_has_not_is_named(stage: Stage, authority: Authority) -> None:
    async with running(stage, authority) as elsewhere:
        volume = stage.runner.new("mirror")
        assert (await elsewhere.dump(volume)).code == 0
        [(locale,)] = await pg(elsewhere.root, "SELECT datcollate FROM pg_database WHERE datname = 'shop'", "shop")
        dumped = volume / ".mirror" / "dump" / "toc.dat"
        wanted, other = f"LOCALE = '{locale}'", f"LOCALE = '{'x' * len(locale)}'"
        assert wanted.encode() in dumped.read_bytes()
        dumped.write_bytes(dumped.read_bytes().replace(wanted.encode(), other.encode()))
        outcome = await elsewhere.restore(volume)
    assert outcome.code == 0, outcome.errors
    [found] = json.loads(outcome.last_line)["findings"]
    assert found["reason"] == "LocaleReplaced"
    async with served(stage, volume) as server:
        assert await pg(stage.admin(server), "SHOW search_path", "shop") == [("deep, public",)]
