"""Change sets of PostgreSQL databases on a real server: found, tried, applied to a third database, and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from coppice.engines.pgcompare import Found, change_set, definitions_query
from coppice.engines.pgscripts import script_of

from .conftest import open_stage
from .pg_kit import Cluster, Trio, ask, contents, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    with open_stage("postgresql") as stage:
        workload = stage.store(load=False, database="empty")
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            yield Cluster(stage.admin(server), await stage.ensure_app(server, "empty"))


async def applied(trio: Trio) -> Found:
    """Find the change set, run it as somebody would to whom it was handed over, and see that nothing is different."""
    found = await change_set(trio.base, trio.clone)
    await run(trio.target, script_of(found.plan, definitions_query()).text)
    assert await contents(trio.target) == await contents(trio.clone)
    assert await ask(trio.target, definitions_query()) == await ask(trio.clone, definitions_query())
    return found


TEA = """
CREATE TABLE tea (id int PRIMARY KEY, name text, price numeric(8,2));
INSERT INTO tea VALUES (1, 'green', 5), (2, 'black', 4.50), (3, NULL, NULL)"""


async def test_rows_that_were_added_changed_and_deleted_are_what_is_published(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    await run(
        trio.clone,
        "INSERT INTO tea VALUES (4, 'white', 9); UPDATE tea SET price = 6 WHERE id = 1; DELETE FROM tea WHERE id = 3",
    )
    found = await applied(trio)
    [table] = found.changes.tables
    assert (table.table, table.added, table.modified, table.deleted, table.schema) == ("tea", 1, 1, 1, False)
    assert found.changes.statements == ()


async def test_every_type_arrives_as_it_was(cluster: Cluster) -> None:
    trio = await cluster.new(TYPES)
    await run(
        trio.clone,
        "DELETE FROM plain WHERE id = 'keep me not'; UPDATE plain SET "
        + ", ".join(f"{name} = {other}" for name, _, _, other in COLUMNS)
        + " WHERE id = 'full'; UPDATE plain SET "
        + ", ".join(f"{name} = {value}" for name, _, value, _ in COLUMNS)
        + " WHERE id = 'empty'; UPDATE plain SET "
        + ", ".join(f"{name} = NULL" for name, *_ in COLUMNS)
        + " WHERE id = 'second'",
    )
    found = await applied(trio)
    assert [(t.added, t.modified, t.deleted) for t in found.changes.tables] == [(0, 3, 1)]


COLUMNS = (
    ("t", "text", "''", "E'ünï\\'\\\\ \" \\n\\t $$ %s :x 茶'"),
    ("b", "bytea", r"'\x'", r"'\x00ff27225c'"),
    ("n", "numeric", "1.0", "1.00"),
    ("n2", "numeric(30,10)", "123456789012345678.0123456789", "'NaN'"),
    ("f", "float8", "0.1", "'-Infinity'"),
    ("f4", "float4", "0.1::float4", "1e-38::float4"),
    ("i", "int8", "9223372036854775807", "-1"),
    ("o", "bool", "true", "false"),
    ("d", "date", "'0044-03-15 BC'", "'infinity'"),
    ("ts", "timestamp", "'2024-02-29 23:59:59.999999'", "'epoch'"),
    ("tz", "timestamptz", "'2024-07-01 12:00:00+05:45'", "'1899-12-31 00:00:00.000001+00'"),
    ("ti", "timetz", "'24:00:00-03'", "'01:02:03.4+00'"),
    ("iv", "interval", "'1 year -3 days 04:05:06.789'", "'-1 mons'"),
    ("j", "json", """'{"b":1,  "a":[1, null]}'""", """'{"b":1, "a":[1,null]}'"""),
    ("jb", "jsonb", """'{"b":1,  "a":"\\u00fc"}'""", "'null'"),
    ("x", "xml", "'<a>&lt;</a>'", "'text'"),
    ("a", "int[]", "'{}'", "'[0:1][1:2]={{1,NULL},{3,4}}'"),
    ("ta", "text[]", """'{"a,b",NULL,"NULL",""}'""", "ARRAY[E'\\\\\"']"),
    ("u", "uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "gen_random_uuid()"),
    ("ip", "inet", "'10.0.0.1/8'", "'::1'"),
    ("p", "point", "'(1,2)'", "'(0.1,-2)'"),
    ("r", "int4range", "'[1,5)'", "'empty'"),
    ("ba", "bit(3)", "B'101'", "B'000'"),
    ("m", "money", "'1234.56'", "'-0.01'"),
    ("c", "char(5)", "'a'", "'ab'"),
    ("tv", "tsvector", "to_tsvector('simple', 'a fat cat')", "''"),
    ("e", "mood", "'sad'", "'so ''so'''"),
    ("dm", "positive", "1", "2"),
    ("co", "pair", "ROW(NULL, NULL)", "ROW(1, 'a,\"b')"),
    ("ca", "pair[]", "ARRAY[ROW(1, NULL)]::pair[]", "'{}'"),
    ("rc", "regclass", "'pg_class'", "'plain'"),
)
TYPES = (
    "CREATE TYPE mood AS ENUM ('sad', 'so ''so'''); CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
    "CREATE TYPE pair AS (a int, b text); CREATE TABLE plain (id text PRIMARY KEY, "
    + ", ".join(f"{name} {kind}" for name, kind, *_ in COLUMNS)
    + "); INSERT INTO plain (id) VALUES ('empty'), ('keep me not'), ('same'); INSERT INTO plain VALUES ('full', "
    + ", ".join(value for _, _, value, _ in COLUMNS)
    + "), ('second', "
    + ", ".join(other for *_, other in COLUMNS)
    + ")"
)


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param("CREATE TABLE k (a int, b text, v int, PRIMARY KEY (b, a)); INSERT INTO k VALUES (1, 'x', 1), (2, 'x', 1)",
                     "UPDATE k SET v = 2 WHERE a = 2; INSERT INTO k VALUES (1, E'\\n'), (1, ''), (1, 'É'), (1, 'z'), (1, 'Z')", id="a key of two"),
        pytest.param("CREATE TABLE k (id date PRIMARY KEY); INSERT INTO k VALUES ('2024-01-31'), ('2024-02-01')",
                     "UPDATE k SET id = '1999-12-31' WHERE id = '2024-02-01'", id="another key is another row"),
        pytest.param("CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
                     " CREATE TABLE k (id text COLLATE ci PRIMARY KEY, v text COLLATE ci); INSERT INTO k VALUES ('Ann', 'x'), ('bob', 'y')",
                     "UPDATE k SET v = 'X' WHERE id = 'Ann'; UPDATE k SET id = 'BOB' WHERE id = 'bob'", id="letters that count as the same"),
        pytest.param("CREATE SCHEMA \"Odd \"\"Näme\"; CREATE TABLE \"Odd \"\"Näme\".\"sel.ect\" (\"Id;--\" int PRIMARY KEY, \"a'b\" text)",
                     "INSERT INTO \"Odd \"\"Näme\".\"sel.ect\" VALUES (1, 'x')", id="odd names"),
        pytest.param("CREATE TABLE k (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int, w int GENERATED ALWAYS AS (v * 2) STORED); INSERT INTO k (v) VALUES (1), (2)",
                     "INSERT INTO k (v) VALUES (3); UPDATE k SET v = 9 WHERE id = 1; DELETE FROM k WHERE id = 2", id="identity and generated columns"),
        pytest.param("CREATE TABLE k (id serial PRIMARY KEY, v int); INSERT INTO k (v) VALUES (1)",
                     "INSERT INTO k (v) VALUES (3), (4)", id="serial"),
        pytest.param("CREATE TABLE k (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);"
                     " CREATE TABLE k_eu PARTITION OF k FOR VALUES IN ('eu'); CREATE TABLE k_rest PARTITION OF k DEFAULT;"
                     " INSERT INTO k VALUES (1, 'eu', 1), (2, 'us', 1)",
                     "INSERT INTO k VALUES (3, 'eu', 3); UPDATE k SET v = 7 WHERE id = 2; UPDATE k SET region = 'us' WHERE id = 1", id="partitions"),
        pytest.param("CREATE TABLE z (id int PRIMARY KEY, name text UNIQUE); CREATE TABLE a (id int PRIMARY KEY, z int REFERENCES z ON DELETE CASCADE);"
                     " INSERT INTO z VALUES (1, 'one'), (2, 'two'), (3, 'three'); INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)",
                     "INSERT INTO z VALUES (4, 'four'); INSERT INTO a VALUES (4, 4); UPDATE a SET z = 4 WHERE id = 2; DELETE FROM z WHERE id < 3", id="foreign keys"),
        pytest.param("CREATE TABLE k (id int PRIMARY KEY, up int REFERENCES k ON DELETE CASCADE); INSERT INTO k VALUES (1, NULL), (2, 1), (3, 2), (9, 9)",
                     "DELETE FROM k WHERE id = 1; INSERT INTO k VALUES (6, NULL), (5, 6), (4, 5); DELETE FROM k WHERE id = 9", id="a table that refers to itself"),
        pytest.param("CREATE TABLE a (id int PRIMARY KEY, b int); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);"
                     " ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES b DEFERRABLE; CREATE TRIGGER t BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
                     "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO a VALUES (1, 1); INSERT INTO b VALUES (1, 1); COMMIT", id="a circle that is put off, and triggers"),
        pytest.param("CREATE TABLE k (id int PRIMARY KEY, name text UNIQUE); INSERT INTO k VALUES (1, 'a')",
                     "DELETE FROM k; INSERT INTO k VALUES (2, 'a')", id="what is unique is free again"),
    ],
)  # fmt: skip
async def test_keys_and_rules_behave(cluster: Cluster, before: str, change: str) -> None:
    trio = await cluster.new(before)
    await run(trio.clone, change)
    await applied(trio)
