"""A masked copy of a PostgreSQL, run for real: what the mask has replaced is nowhere in its bytes any more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pytest

from coppice.engines.base import CloneServer, LoginRefusedError

from .conftest import MARKER, Stage, open_stage, version_of
from .kit import pg

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from coppice.engines.base import Content

    from .runner import Outcome

SECRET = "alice.at.home"
"""Part of every row, so long that no index, sample or log holds it by chance."""
PEOPLE = (
    "CREATE TABLE people (id int PRIMARY KEY, email text, notes text, born text)",
    f"INSERT INTO people SELECT n, '{SECRET}-' || n || '@example.org', repeat('{SECRET} ', 20), '{SECRET}' FROM generate_series(1, 2000) n",
    "CREATE INDEX ON people (email)",
    "CREATE STATISTICS pairs ON email, notes FROM people",
    "ANALYZE people",
    f"CREATE TABLE gone AS SELECT repeat('{SECRET} ', 9000) AS text",
    "CREATE TABLE untouched (n int)",
    "ALTER TABLE people ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
    "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$",
    "CREATE TRIGGER guard BEFORE UPDATE ON people FOR EACH ROW EXECUTE FUNCTION refuse()",
)
MASK = (
    "SET session_replication_role = replica; UPDATE people SET email = 'person-' || id || '@example.com', notes = NULL",
    "ALTER TABLE people DROP COLUMN born",
    "DROP TABLE gone",
    "ALTER SYSTEM SET archive_command = 'true'",
    "CREATE ROLE friend SUPERUSER LOGIN PASSWORD 'friend'",
)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with open_stage("postgresql") as stage:
        yield stage


@dataclass(frozen=True)
class Masked:
    """A copy that a mask has run on, with the tables before and after, and what the first preparation said of it."""

    copy: Path
    content: Content
    before: Mapping[str, str]
    with_login: Mapping[str, str]
    after: Mapping[str, str]
    password: str
    """The login's."""


async def prepared(stage: Stage) -> tuple[Path, Content]:
    volume, load = stage.runner.new("volume"), stage.runner.load(stage.kit.load)
    async with stage.runner.serving(stage.store(), volume, stage.secret(), load=load) as server:
        for statement in PEOPLE:
            await pg(stage.admin(server), statement, stage.kit.database)
        return await stage.prepared(volume, server)


async def mask(
    stage: Stage, copy: Path, content: Content, statements: tuple[str, ...] = MASK, *, also: str | None = None
) -> Masked:
    inputs = CloneServer(version=version_of(content), commit_policy="Explicit", marker=MARKER, durable=True)
    async with stage.runner.serving(stage.engine.clone_server(inputs), copy, stage.secret()) as server:
        admin, app = stage.admin(server), stage.app(server)
        before = await stage.engine.tables(admin, stage.kit.database)
        arguments = {"username": app.username, "password": app.password, "database": stage.kit.database}
        await stage.engine.execute(admin, "ensure-mask-user", arguments)
        await stage.engine.execute(admin, "ensure-mask-user", arguments)
        await pg(app, "SELECT count(*) FROM people", stage.kit.database)
        with_login = await stage.engine.tables(admin, stage.kit.database)
        for statement in statements:
            await pg(app, statement, stage.kit.database)
        for statement in statements[:3] if also is not None else ():
            await pg(app, statement, also)
        after = await stage.engine.tables(admin, stage.kit.database)
    return Masked(copy, content, before, with_login, after, app.password)


async def rewritten(stage: Stage, copy: Path) -> tuple[Outcome, Content]:
    outcome = await stage.runner.run(stage.preparation(rewrite=True), copy)
    assert outcome.code == 0, outcome.errors
    return outcome, stage.engine.report(outcome.last_line)


def found_in(copy: Path) -> list[str]:
    """Name the files that hold what the mask has replaced."""
    return [
        str(path.relative_to(copy))
        for path in copy.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


async def test_what_the_mask_has_replaced_is_nowhere_in_the_bytes(stage: Stage) -> None:
    copy, content = await prepared(stage)
    assert found_in(copy), "the rows are compressed, and the search is no proof"
    done = await mask(stage, copy, content)
    assert found_in(copy), "there is nothing for the second preparation to do"
    _, masked = await rewritten(stage, copy)
    assert found_in(copy) == []
    assert version_of(masked).head == f"{version_of(done.content).head}masked"
    async with stage.runner.serving(stage.clone(version_of(masked)), copy, stage.secret()) as clone:
        assert (await stage.engine.inspect(stage.admin(clone), database=masked.database)).state_of(
            "main"
        ) == masked.state_of("main")
        app = await stage.ensure_app(clone)
        assert list(await pg(app, "SELECT count(*) FROM untouched", stage.kit.database)) == [(0,)]
        [(people, like)] = await pg(
            stage.admin(clone),
            "SELECT count(*), count(*) FILTER (WHERE email LIKE 'person-%') FROM people",
            stage.kit.database,
        )
        assert (people, like) == (2000, 2000)


async def test_rows_in_files_that_no_catalog_names_are_nowhere_either(stage: Stage) -> None:
    volume, load = stage.runner.new("volume"), stage.runner.load(stage.kit.load)
    async with stage.runner.serving(stage.store(), volume, stage.secret(), load=load) as server:
        admin = stage.admin(server)
        where = {"host": admin.host, "port": admin.port, "user": admin.username, "password": admin.password}
        async with await psycopg.AsyncConnection.connect(**where, dbname=stage.kit.database) as connection:
            # A server that is cut off here leaves the file for good.
            rows = f"SELECT repeat('{SECRET} ', 20) FROM generate_series(1, 2000)"
            await connection.execute(f"CREATE TABLE half AS {rows}")
            await pg(admin, "CREATE DATABASE other IS_TEMPLATE true", stage.kit.database)
            for statement in PEOPLE:
                await pg(admin, statement, stage.kit.database)
                await pg(admin, statement, "other")
            await pg(admin, "CHECKPOINT", stage.kit.database)
            copy, content = await stage.prepared(volume, server)
            await connection.rollback()
    assert [name for name in found_in(copy) if "/base/" in name], "nothing is left over, and the search is no proof"
    # Another database of the server is the mask's to look after as well, and may have the mark of a template.
    await mask(stage, copy, content, also="other")
    await rewritten(stage, copy)
    assert found_in(copy) == []


async def test_the_tables_that_changed_are_told_and_no_others(stage: Stage) -> None:
    done = await mask(stage, *await prepared(stage))
    assert done.with_login == done.before
    changed = {name for name in done.before if done.after.get(name) != done.before[name]}
    assert changed == {"public.people", "public.gone"}


@pytest.mark.parametrize(
    "statement", ["ALTER TABLE people DROP COLUMN born", "TRUNCATE people", "ALTER TABLE people ADD COLUMN later int"]
)
async def test_a_change_of_shape_is_a_change(stage: Stage, statement: str) -> None:
    done = await mask(stage, *await prepared(stage), (statement,))
    assert done.after["public.people"] != done.before["public.people"]
    assert done.after["public.untouched"] == done.before["public.untouched"]


async def test_the_masks_login_and_what_it_has_left_are_gone(stage: Stage) -> None:
    copy, content = await prepared(stage)
    done = await mask(stage, copy, content)
    _, masked = await rewritten(stage, copy)
    async with stage.runner.serving(stage.clone(version_of(masked)), copy, stage.secret()) as clone:
        for username, password in (("friend", "friend"), (stage.engine.app_user, done.password)):
            with pytest.raises(LoginRefusedError):
                await stage.engine.inspect(clone.endpoint(username, password), database=stage.kit.database)
        admin = stage.admin(clone)
        assert (
            await pg(admin, "SELECT rolname FROM pg_roles WHERE rolname IN ('app', 'friend') AND rolsuper", "postgres")
            == []
        )
        assert list(await pg(admin, "SHOW archive_command", "postgres")) in ([("",)], [("(disabled)",)])


async def test_a_rewrite_that_was_interrupted_is_begun_again(stage: Stage) -> None:
    copy, content = await prepared(stage)
    await mask(stage, copy, content)
    _, first = await rewritten(stage, copy)
    _, second = await rewritten(stage, copy)
    assert first == second
    assert found_in(copy) == []
