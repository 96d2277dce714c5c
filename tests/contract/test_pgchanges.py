"""Change sets of PostgreSQL databases on a real server: found, tried, applied to a third database, and compared."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from coppice.engines import libpq
from coppice.engines.base import EngineError
from coppice.engines.merging import Conflict, Side, TargetBusyError, TargetMovedError
from coppice.engines.patching import RefusedError
from coppice.engines.pgcompare import Place, change_set, changes, definitions_query, rows
from coppice.engines.pgpublish import judge, outcome, publish
from coppice.engines.pgscripts import Part, Plan, Script, script_of

from .pg_kit import Cluster, Trio, ask, connect, contents, run, serving_cluster
from .runner import PATIENCE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    async with serving_cluster() as cluster:
        yield cluster


async def applied(trio: Trio) -> Plan:
    """Find the change set, run it as somebody would to whom it was handed over, and see that nothing is different."""
    found = await change_set(trio.base, trio.clone)
    await run(trio.target, script_of(found, definitions_query()).text)
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
    for row, place in (("full", 3), ("empty", 2)):
        cells = ", ".join(f"{column[0]} = {column[place]}" for column in COLUMNS)
        await run(trio.clone, f"UPDATE plain SET {cells} WHERE id = '{row}'")
    nothing = ", ".join(f"{name} = NULL" for name, *_ in COLUMNS)
    await run(trio.clone, f"UPDATE plain SET {nothing} WHERE id = 'second'; DELETE FROM plain WHERE id = 'gone'")
    found = await applied(trio)
    assert [(table.added, table.modified, table.deleted) for table in found.changes.tables] == [(0, 3, 1)]


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
    + "); INSERT INTO plain (id) VALUES ('empty'), ('gone'), ('same'); INSERT INTO plain VALUES ('full', "
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
    ],
)  # fmt: skip
async def test_keys_and_rules_behave(cluster: Cluster, before: str, change: str) -> None:
    trio = await cluster.new(before)
    await run(trio.clone, change)
    await applied(trio)


@pytest.mark.parametrize(
    ("before", "change"),
    [
        pytest.param(TEA, "CREATE TABLE cup (id serial PRIMARY KEY, tea int NOT NULL REFERENCES tea, size int DEFAULT 3 CHECK (size > 0), UNIQUE (tea, size));"
                     " CREATE INDEX ON cup (size) WHERE size > 1; INSERT INTO cup (tea) VALUES (1), (2)", id="a new table"),
        pytest.param(TEA + "; CREATE TABLE cup (tea int REFERENCES tea)", "DROP TABLE cup", id="a table less"),
        pytest.param(TEA, "ALTER TABLE tea ADD stock int NOT NULL DEFAULT 7; UPDATE tea SET stock = 1 WHERE id = 1", id="a column with a default"),
        pytest.param(TEA, "ALTER TABLE tea ADD stock int; UPDATE tea SET stock = id; ALTER TABLE tea ALTER stock SET NOT NULL", id="a column that was filled"),
        pytest.param(TEA, "ALTER TABLE tea ADD since timestamptz DEFAULT now(), ADD token uuid DEFAULT gen_random_uuid()", id="defaults that differ each time"),
        pytest.param(TEA, "ALTER TABLE tea ADD n serial, ADD i int GENERATED BY DEFAULT AS IDENTITY", id="counting columns"),
        pytest.param(TEA, "ALTER TABLE tea RENAME name TO title; ALTER TABLE tea RENAME id TO number; ALTER TABLE tea DROP price; UPDATE tea SET title = 'x' WHERE number = 1", id="a column of another name"),
        pytest.param(TEA, "ALTER TABLE tea ALTER price TYPE int, ALTER id TYPE bigint, ALTER name SET DEFAULT 'a''b', ALTER name TYPE varchar(20);"
                     " UPDATE tea SET price = 77 WHERE id = 1", id="types and defaults"),
        pytest.param(TEA, "UPDATE tea SET name = 'oolong' WHERE name IS NULL; ALTER TABLE tea ALTER name SET NOT NULL, ADD UNIQUE (name), ADD CHECK (price > 0)", id="rules that the rows keep now"),
        pytest.param(TEA + "; CREATE INDEX i ON tea (name); ALTER TABLE tea ADD CONSTRAINT c CHECK (price < 10)",
                     "DROP INDEX i; CREATE UNIQUE INDEX i ON tea (lower(name)); ALTER TABLE tea DROP CONSTRAINT c, ADD CONSTRAINT c CHECK (price < 100);"
                     " UPDATE tea SET price = 50 WHERE id = 1", id="rules that were changed"),
    ],
)  # fmt: skip
async def test_definitions_become_what_they_are_in_the_clone(cluster: Cluster, before: str, change: str) -> None:
    trio = await cluster.new(before)
    await run(trio.clone, change)
    found = await applied(trio)
    assert found.changes.statements
    assert any(table.schema for table in found.changes.tables)


@pytest.mark.parametrize(
    ("before", "change", "reason"),
    [
        ("CREATE UNLOGGED TABLE cache (id int PRIMARY KEY)", "INSERT INTO cache VALUES (1)", "rows of cache differ, but it is UNLOGGED"),
        ("CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b () INHERITS (a)", "INSERT INTO a VALUES (1)", "rows of a differ, but it inherits"),
        ("CREATE TABLE a (id int PRIMARY KEY); CREATE RULE r AS ON DELETE TO a DO INSTEAD NOTHING", "INSERT INTO a VALUES (1)", "rows of a differ, but it has rules"),
        (TEA, "CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)", "p cannot be in a change set: it is new and partitioned"),
        (TEA, "CREATE VIEW v AS SELECT * FROM tea", "no change set: view v"),
        (TEA, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", r"no change set: function f\(\)"),
        (TEA, "CREATE TYPE mood AS ENUM ('a'); ALTER TABLE tea ADD m mood", "SQLSTATE 42704"),
        (TEA, "CREATE TRIGGER t BEFORE UPDATE ON tea FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()", "no change set: table tea"),
        (TEA, "ALTER TABLE tea ENABLE ROW LEVEL SECURITY", "no change set: table tea"),
        (TEA, "SELECT lo_create(0)", "large objects differ"),
        ("CREATE TABLE k (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY); INSERT INTO k VALUES (1)", "UPDATE k SET n = DEFAULT", "differ in n, which is GENERATED ALWAYS"),
        ("CREATE TABLE a (id int PRIMARY KEY, n int UNIQUE); INSERT INTO a VALUES (1, 1); CREATE TABLE b (id int PRIMARY KEY, n int REFERENCES a (n) ON UPDATE CASCADE)", "UPDATE a SET n = 2", "differ in what b refers to, and b_n_fkey"),
        ("CREATE TABLE k (id int PRIMARY KEY, n int UNIQUE); INSERT INTO k VALUES (1, 1), (2, 2)", "UPDATE k SET n = 3 WHERE id = 1; UPDATE k SET n = 1 WHERE id = 2; UPDATE k SET n = 2 WHERE id = 1", "Row k cannot be written .*23505"),
        ('CREATE TABLE "a.b" (id int PRIMARY KEY); CREATE SCHEMA a; CREATE TABLE a.b (id int PRIMARY KEY)', "INSERT INTO a.b VALUES (1)", "two tables that are called a.b"),
    ],
)  # fmt: skip
async def test_what_cannot_be_in_a_change_set_is_refused_by_name(
    cluster: Cluster, before: str, change: str, reason: str
) -> None:
    trio = await cluster.new(before)
    await run(trio.clone, change)
    with pytest.raises(RefusedError, match=reason):
        await change_set(trio.base, trio.clone)


async def test_what_triggers_did_in_the_clone_is_published_once(cluster: Cluster) -> None:
    trio = await cluster.new(
        TEA + "; CREATE TABLE audit (id int PRIMARY KEY, what text);"
        " CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN INSERT INTO public.audit SELECT count(*) + 1, current_user FROM public.audit; NEW.price := NEW.price + 1; RETURN NEW; END$$;"
        " CREATE TRIGGER note BEFORE UPDATE ON tea FOR EACH ROW EXECUTE FUNCTION note();"
        " CREATE TRIGGER other BEFORE UPDATE ON tea FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE tea ENABLE ALWAYS TRIGGER other"
    )
    await run(trio.clone, "UPDATE tea SET price = 10 WHERE id = 1")
    await applied(trio)
    assert await ask(trio.target, "SELECT price::int FROM tea WHERE id = 1") == [(12,)]
    assert await ask(trio.target, "SELECT count(*) FROM audit") == [(2,)]


def _open(found: Conflict) -> Side | None:
    return None


async def _begun(number: str) -> None:
    """Take no note."""


async def _found(trio: Trio) -> Script:
    return script_of(await change_set(trio.base, trio.clone), definitions_query())


async def test_what_both_sides_changed_is_merged_or_a_conflict_with_its_place_and_values(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    await run(
        trio.clone,
        "UPDATE tea SET price = 6 WHERE id IN (1, 2); UPDATE tea SET name = 'x' WHERE id = 3; INSERT INTO tea VALUES (4, 'mine', 4)",
    )
    await run(
        trio.target,
        "UPDATE tea SET name = 'matcha' WHERE id = 1; UPDATE tea SET price = 7 WHERE id = 2; DELETE FROM tea WHERE id = 3; INSERT INTO tea VALUES (4, 'live', 4)",
    )
    found = await change_set(trio.base, trio.clone)
    judged = await judge(trio.target, found, "salt", _open)
    told = {
        (one.kind, one.table, one.key["id"], one.column, str(one.base), str(one.ours), str(one.theirs))
        for one in judged.conflicts
        if one.kind == "Cell"
    }
    assert told == {
        ("Cell", "tea", "2", "price", "4.50", "7.00", "6.00"),
        ("Cell", "tea", "4", "name", "None", "live", "mine"),
    }
    [row] = [one for one in judged.conflicts if one.kind == "Row"]
    assert (row.key, row.ours, row.theirs) == ({"id": "3"}, None, {"id": "3", "name": "x", "price": None})
    settled = await judge(trio.target, found, "salt", lambda one: "Source" if one.key["id"] == "3" else "Target")
    assert not settled.conflicts
    assert [(table.added, table.modified, table.deleted) for table in settled.plan.changes.tables] == [(1, 1, 0)]
    assert {one.id for one in settled.decided} == {one.id for one in judged.conflicts}
    assert await publish(trio.target, script_of(settled.plan, definitions_query()), "salt", _begun) == ()
    assert await ask(trio.target, "SELECT id, name, price::text FROM tea ORDER BY id") == [
        (1, "matcha", "6.00"), (2, "black", "7.00"), (3, "x", None), (4, "live", "4.00"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("live", "guard"),
    [
        ("UPDATE tea SET name = 'new' WHERE id = 1", "Row tea"),
        ("UPDATE tea SET price = 5.0001::numeric, name = NULL WHERE id = 1", "Row tea"),
        ("DELETE FROM tea WHERE id = 1", "Row tea"),
        ("INSERT INTO tea VALUES (4, 'live', 1)", "Row tea"),
        ("UPDATE tea SET price = 1 WHERE id = 2", "Row tea"),
        ("INSERT INTO cup VALUES (1, 2)", "Row tea"),
        ("ALTER TABLE tea ADD more int", "Definition table tea"),
        ("ALTER TABLE tea DISABLE TRIGGER t", "Definition table tea"),
        ("CREATE TABLE lid (tea int REFERENCES tea ON DELETE CASCADE); INSERT INTO lid VALUES (2)", "Reach tea"),
        ("INSERT INTO old VALUES (2, 'live')", "Lost old"),
        ("UPDATE narrow SET b = 'live'", "Lost narrow"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tool", ["publish", "psql"])
async def test_whatever_is_not_as_it_was_leaves_everything_as_it_is(
    cluster: Cluster, live: str, guard: str, tool: str
) -> None:
    trio = await cluster.new(
        TEA + "; CREATE TABLE cup (id int PRIMARY KEY, tea int REFERENCES tea ON DELETE CASCADE);"
        " CREATE TABLE old (id int PRIMARY KEY, a text); INSERT INTO old VALUES (1, 'x');"
        " CREATE TABLE narrow (id int PRIMARY KEY, b text); INSERT INTO narrow VALUES (1, 'x');"
        " CREATE TABLE counted (id serial PRIMARY KEY);"
        " CREATE TRIGGER t BEFORE UPDATE ON tea FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    await run(
        trio.clone,
        "UPDATE tea SET price = 6 WHERE id = 1; DELETE FROM tea WHERE id = 2; INSERT INTO tea VALUES (4, 'mine', 1), (5, 'fine', 1);"
        " DROP TABLE old; ALTER TABLE narrow DROP b; INSERT INTO counted DEFAULT VALUES; ALTER SEQUENCE counted_id_seq RESTART 9",
    )
    script = await _found(trio)
    await run(trio.target, live)
    before = await contents(trio.target), await ask(trio.target, definitions_query())
    if tool == "publish":
        with pytest.raises(TargetMovedError, match=guard):
            await publish(trio.target, script, "salt", _begun)
    else:
        await _by_psql(trio.target, script.text)
    assert (await contents(trio.target), await ask(trio.target, definitions_query())) == before


async def test_what_came_to_refer_to_a_value_meanwhile_is_not_changed_with_it(cluster: Cluster) -> None:
    trio = await cluster.new("CREATE TABLE tea (id int PRIMARY KEY, code text UNIQUE); INSERT INTO tea VALUES (1, 'g')")
    await run(trio.clone, "UPDATE tea SET code = 'green' WHERE id = 1")
    script = await _found(trio)
    lids = "CREATE TABLE lid (id int REFERENCES tea ON UPDATE CASCADE, code text REFERENCES tea (code) ON UPDATE {})"
    await run(trio.target, f"{lids.format('CASCADE')}; INSERT INTO lid VALUES (1, 'g')")
    with pytest.raises(TargetMovedError, match="Reach tea"):
        await publish(trio.target, script, "salt", _begun)
    assert await ask(trio.target, "SELECT code FROM lid") == [("g",)]
    await run(trio.target, f"DROP TABLE lid; {lids.format('NO ACTION')}")
    assert await publish(trio.target, script, "salt", _begun) == ()
    assert await ask(trio.target, "SELECT code FROM tea") == [("green",)]


CASELESS = (
    "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);"
    " CREATE TABLE k (id text COLLATE ci PRIMARY KEY, v text); INSERT INTO k VALUES ('Ann', 'x'), ('bob', 'y')"
)


@pytest.mark.parametrize(
    ("change", "live", "side", "key"),
    [
        ("INSERT INTO k VALUES ('eve', 'mine')", "INSERT INTO k VALUES ('EVE', 'live')", None, "eve"),
        ("UPDATE k SET v = 'mine' WHERE id = 'Ann'", "UPDATE k SET id = 'ANN' WHERE id = 'Ann'", "Source", "Ann"),
        ("UPDATE k SET id = 'BOB' WHERE id = 'bob'", "UPDATE k SET v = 'live' WHERE id = 'bob'", "Target", "BOB"),
    ],
)
async def test_a_live_row_whose_key_is_equal_in_other_letters_is_named_before_anything_is_written(
    cluster: Cluster, change: str, live: str, side: Side | None, key: str
) -> None:
    trio = await cluster.new(CASELESS)
    await run(trio.clone, change)
    await run(trio.target, live)
    judged = await judge(trio.target, await change_set(trio.base, trio.clone), "salt", lambda _: side)
    [found] = judged.conflicts
    assert (found.kind, found.table, found.key, found.detail) == ("Unique", "k", {"id": key}, "k_pkey")


async def test_a_row_goes_where_one_of_an_equal_key_has_gone(cluster: Cluster) -> None:
    trio = await cluster.new(CASELESS)
    await run(trio.clone, "UPDATE k SET id = 'BOB' WHERE id = 'bob'")
    await run(trio.target, "UPDATE k SET v = 'live' WHERE id = 'bob'")
    judged = await judge(trio.target, await change_set(trio.base, trio.clone), "salt", lambda _: "Source")
    assert await publish(trio.target, script_of(judged.plan, definitions_query()), "salt", _begun) == ()
    assert await ask(trio.target, "SELECT id, v FROM k ORDER BY 1") == [("Ann", "x"), ("BOB", "y")]


async def _by_psql(place: Place, script: str) -> str:
    """Run a script in the worst way: psql goes on after each error, as if the statement had not been there."""
    at = place.at
    process = await asyncio.create_subprocess_exec(
        "psql", "-X", "-v", "ON_ERROR_ROLLBACK=on", "-h", at.host, "-p", str(at.port), "-U", at.username, place.database,
        env={**os.environ, "PGPASSWORD": at.password},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate(script.encode())
    return output.decode()


async def test_a_script_that_is_handed_over_says_which_guard_did_not_hold(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    await run(trio.clone, "UPDATE tea SET price = 6 WHERE id = 1; UPDATE tea SET price = 6 WHERE id = 2")
    script = await _found(trio)
    await run(trio.target, "UPDATE tea SET name = 'live' WHERE id = 2")
    output = await _by_psql(trio.target, script.text)
    [line] = [line for line in output.splitlines() if line.strip().endswith("| tea")]
    number = int(line.split("|")[0])
    assert f"-- {number}: Row tea, {{'id': '2'}}" in script.text
    assert 'violates foreign key constraint "is_as_it_was"' in output


async def test_a_script_that_is_handed_over_is_run_by_psql(cluster: Cluster) -> None:
    trio = await cluster.new(TYPES)
    await run(
        trio.clone,
        "UPDATE plain SET t = E'a\\\\b''\n\\\\q\n; :x ' || t WHERE t IS NOT NULL; DELETE FROM plain WHERE id = 'gone'",
    )
    output = await _by_psql(trio.target, (await _found(trio)).text)
    assert "ERROR" not in output
    assert await contents(trio.target) == await contents(trio.clone)


async def test_a_rule_that_the_live_rows_break_is_a_conflict_and_nothing_is_written(cluster: Cluster) -> None:
    trio = await cluster.new(
        "CREATE TABLE a (id int PRIMARY KEY, n int UNIQUE); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a DEFERRABLE);"
        " INSERT INTO a VALUES (1, 1)"
    )
    for live, change, expected in (
        ("INSERT INTO a VALUES (8, 8)", "INSERT INTO a VALUES (9, 8)", ("Unique", "a", {"id": "9"}, "a_n_key")),
        ("DELETE FROM a WHERE id = 1", "INSERT INTO b (id, a) VALUES (1, 1)", ("ForeignKey", "b", {}, "b_a_fkey")),
        ("INSERT INTO a VALUES (7, -7)", "ALTER TABLE a ADD CONSTRAINT pos CHECK (n > 0)", ("Check", "a", {}, "pos")),
    ):
        again = await cluster.copy(trio)
        await run(again.clone, change)
        await run(again.target, live)
        before = await contents(again.target)
        [found] = await publish(again.target, await _found(again), "salt", _begun)
        assert (found.kind, found.table, found.key, found.detail) == expected
        assert await contents(again.target) == before


async def test_what_is_written_meanwhile_is_never_lost(cluster: Cluster) -> None:
    trio = await cluster.new(TEA + "; CREATE TABLE cup (id int PRIMARY KEY, tea int REFERENCES tea ON DELETE CASCADE)")
    await run(trio.clone, "UPDATE tea SET price = 6 WHERE id = 1; DELETE FROM tea WHERE id = 2")
    script = await _found(trio)
    for meanwhile in ("UPDATE tea SET price = 1 WHERE id = 1", "INSERT INTO cup VALUES (1, 2)"):
        async with await connect(trio.target) as other:
            await other.execute("BEGIN")
            await other.execute(meanwhile)
            publication = asyncio.create_task(publish(trio.target, script, "salt", _begun))
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            async with asyncio.timeout(PATIENCE):
                while await ask(Place(cluster.admin, trio.target.database), waiting) == [(0,)]:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.05)
            await other.execute("COMMIT")
        with pytest.raises(TargetMovedError):
            await publication
        assert await ask(trio.target, "SELECT count(*) FROM tea WHERE price = 6") == [(0,)]
    assert await ask(trio.target, "SELECT tea FROM cup") == [(2,)]


async def test_a_table_that_is_locked_is_said_to_be(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    await run(trio.clone, "DELETE FROM tea WHERE id = 1")
    text = await _found(trio)
    quick = replace(
        text, opening=tuple(Part(part.statement.replace("'10s'", "'100ms'"), part.guard) for part in text.opening)
    )
    async with await connect(trio.target) as other:
        await other.execute("BEGIN")
        await other.execute("LOCK TABLE tea")
        with pytest.raises(TargetBusyError):
            await publish(trio.target, quick, "salt", _begun)


async def test_who_was_cut_off_finds_out_whether_it_was_committed(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    await run(trio.clone, "DELETE FROM tea WHERE id = 1")
    script = await _found(trio)
    numbers: list[str] = []

    async def noting(number: str) -> None:
        numbers.append(number)

    async def dying(number: str) -> None:
        numbers.append(number)
        assert await outcome(trio.target, number) == "Open"
        raise EngineError("killed")

    with pytest.raises(EngineError, match="killed"):
        await publish(trio.target, script, "salt", dying)
    async with asyncio.timeout(PATIENCE):
        while await outcome(trio.target, numbers[0]) == "Open":  # noqa: ASYNC110 - the server notices when it does
            await asyncio.sleep(0.05)
    assert await outcome(trio.target, numbers[0]) == "Aborted"
    assert await publish(trio.target, script, "salt", noting) == ()
    assert await outcome(trio.target, numbers[1]) == "Committed"
    with pytest.raises(TargetMovedError, match="Row tea"):
        await publish(trio.target, script, "salt", noting)


async def test_a_sequence_goes_on_behind_the_rows_that_came(cluster: Cluster) -> None:
    trio = await cluster.new(
        "CREATE TABLE k (id serial PRIMARY KEY); CREATE TABLE far (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY)"
    )
    await run(trio.clone, "INSERT INTO k SELECT FROM generate_series(1, 5)")
    await applied(trio)
    await run(trio.target, "INSERT INTO k DEFAULT VALUES")
    assert await ask(trio.target, "SELECT max(id) FROM k") == [(6,)]
    await run(trio.clone, "INSERT INTO far VALUES (2000000000)")
    with pytest.raises(RefusedError, match=r"Sequence public\.far_id_seq"):
        await change_set(trio.base, trio.clone)


async def test_words_of_a_catalog_are_one_statement_and_no_more(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    async with libpq.work_session(trio.base.at, trio.base.database) as session:
        with pytest.raises(libpq.StatementError, match="multiple commands"):
            await session.run("ALTER TABLE tea ADD a int; DROP TABLE tea")
    assert await ask(trio.base, "SELECT count(*) FROM tea") == [(3,)]


async def test_a_default_that_sets_what_names_mean_changes_nothing_of_what_is_read(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    await run(trio.clone, "ALTER TABLE tea ADD a text DEFAULT set_config('search_path', 'public', false)")
    await applied(trio)


async def test_the_digest_is_that_of_what_changes_and_of_nothing_else(cluster: Cluster) -> None:
    trio = await cluster.new(TEA)
    other = await cluster.copy(trio)
    for one in (trio, other):
        await run(
            one.clone,
            "UPDATE tea SET price = 6 WHERE id = 1; DELETE FROM tea WHERE id = 3; ALTER TABLE tea ADD a int DEFAULT 1",
        )
    for place in (other.base, other.clone):
        await run(place, "INSERT INTO tea VALUES (77, 'on both sides', 1)")
    first, second = [await changes(one.base, one.clone) for one in (trio, other)]
    assert first == second == (await change_set(trio.base, trio.clone)).changes
    await run(other.clone, "UPDATE tea SET price = 6.5 WHERE id = 1")
    assert (await changes(other.base, other.clone)).digest != first.digest


async def test_a_few_rows_among_many_are_found_without_reading_all(cluster: Cluster) -> None:
    trio = await cluster.new(
        "CREATE TABLE big (id int PRIMARY KEY, v text); INSERT INTO big SELECT n, md5(n::text) FROM generate_series(1, 30000) n"
    )
    await run(
        trio.clone,
        "UPDATE big SET v = 'x' WHERE id % 5000 = 0; DELETE FROM big WHERE id = 17; INSERT INTO big VALUES (-1, 'y')",
    )
    found = [change async for change in rows(trio.base, trio.clone, "big")]
    assert [change.key["id"] for change in found] == sorted(
        [*(str(n) for n in range(5000, 30001, 5000)), "17", "-1"], key=lambda text: f"({text})"
    )
    assert [change async for change in rows(trio.base, trio.clone, "other")] == []
    await applied(trio)
