"""The login that the guide gives for writing to an adopted PostgreSQL database, with a real server: it is enough, and may
do no more.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
import pytest_asyncio

from coppice.engines.base import Endpoint, EngineError
from coppice.engines.patching import PatchInputs
from coppice.engines.pgcompare import change_set
from coppice.engines.postgresql import PostgreSQLEngine

from .kit import pg
from .pg_kit import Cluster, Trio, connect, contents, run, serving_cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

GUIDE = Path(__file__).parents[2] / "docs/adopting.md"
PASSWORD = "writes"
SHOP = """
CREATE TABLE item (id serial PRIMARY KEY, name text);
CREATE TABLE price (item int REFERENCES item ON DELETE CASCADE, day date, amount numeric, PRIMARY KEY (item, day));
CREATE TABLE customer (id int PRIMARY KEY, name text);
INSERT INTO item (name) VALUES ('tea'), ('cup'), ('pot');
INSERT INTO price VALUES (1, '2026-01-01', 5), (2, '2026-01-01', 9);
INSERT INTO customer VALUES (1, 'ann')"""
ENGINE = PostgreSQLEngine()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with serving_cluster() as cluster:
        yield cluster


def documented(database: str) -> list[str]:
    """Return the statements of the guide, for this database."""
    [block] = re.findall(r"```sql\n([^`]*coppice_writer[^`]*)```", GUIDE.read_text())
    lines = [line.partition("--")[0].strip() for line in block.splitlines()]
    text = " ".join(lines).replace("ON DATABASE shop", f"ON DATABASE {database}").replace("'...'", f"'{PASSWORD}'")
    return [statement.strip() for statement in text.split(";") if statement.strip()]


@pytest_asyncio.fixture(loop_scope="module")
async def shop(cluster: Cluster) -> AsyncIterator[tuple[Trio, Endpoint]]:
    trio = await cluster.new(SHOP)
    for statement in documented(trio.target.database):
        await pg(cluster.admin, statement, trio.target.database)
    yield trio, replace(cluster.app, username="coppice_writer", password=PASSWORD, guarded=True)
    for statement in ("DROP OWNED BY coppice_writer", "REVOKE CONNECT ON DATABASE postgres FROM coppice_writer"):
        await pg(cluster.admin, statement, trio.target.database)
    await pg(cluster.admin, "DROP ROLE coppice_writer", "postgres")


async def written(trio: Trio, writer: Endpoint) -> str:
    """Write what the clone has changed with the writer's login, as the operator does; return the transaction."""
    found = await change_set(trio.base, trio.clone)
    judged = await ENGINE.judge(writer, trio.target.database, found, PatchInputs("salt"))
    assert judged.conflicts == ()
    begun: list[str] = []

    async def note(name: str) -> None:
        begun.append(name)

    await ENGINE.write(writer, trio.target.database, judged.patch, "salt", note)
    [transaction] = begun
    return transaction


async def test_what_the_guide_gives_is_enough_to_look_judge_and_write(shop: tuple[Trio, Endpoint]) -> None:
    trio, writer = shop
    assert (await ENGINE.inspect(writer, database=trio.target.database)).database == trio.target.database
    await run(
        trio.clone,
        "INSERT INTO item (name) VALUES ('kettle'); UPDATE price SET amount = 6 WHERE item = 1;"
        " DELETE FROM item WHERE id = 3; INSERT INTO price VALUES (4, '2026-02-01', 30)",
    )
    transaction = await written(trio, writer)
    assert await contents(trio.target) == await contents(trio.clone)
    assert await ENGINE.fate(writer, trio.target.database, transaction) == "Committed"
    await run(trio.target, "INSERT INTO item (name) VALUES ('the next number')")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE customer SET name = 'bob'",
        "ALTER TABLE item ADD COLUMN weight int",
        "CREATE TABLE more (id int PRIMARY KEY)",
    ],
)
async def test_what_it_does_not_give_is_not_written_and_nothing_beside_it(
    shop: tuple[Trio, Endpoint], change: str
) -> None:
    trio, writer = shop
    before = await contents(trio.target)
    await run(trio.clone, f"{change}; INSERT INTO item (id, name) VALUES (9, 'kettle')")
    with pytest.raises(EngineError, match="42501"):
        await written(trio, writer)
    assert await contents(trio.target) == before


async def test_tables_with_triggers_take_their_owner(shop: tuple[Trio, Endpoint], cluster: Cluster) -> None:
    trio, writer = shop
    trigger = (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';"
        " CREATE TRIGGER t BEFORE UPDATE ON item FOR EACH ROW EXECUTE FUNCTION nothing()"
    )
    for place in (trio.base, trio.clone, trio.target):
        await run(place, trigger)
    await run(trio.clone, "UPDATE item SET name = 'green tea' WHERE id = 1")
    with pytest.raises(EngineError, match="42501"):
        await written(trio, writer)
    await pg(cluster.admin, f"GRANT {trio.target.at.username} TO coppice_writer", trio.target.database)
    await written(trio, writer)
    assert await contents(trio.target) == await contents(trio.clone)


async def test_it_may_do_nothing_on_the_server(shop: tuple[Trio, Endpoint]) -> None:
    trio, writer = shop
    for statement in ("CREATE ROLE other", "CREATE DATABASE other", "SELECT pg_read_file('postgresql.conf')"):
        async with await connect(replace(trio.target, at=writer)) as connection:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                await connection.execute(statement)  # type: ignore[arg-type]
