"""The tables of migration tools, row by row as the tools write them."""

from __future__ import annotations

import pytest

from coppice.engines.base import Ledger
from coppice.engines.ledgers import LOOKUPS, MAX_REPORTED, find_ledger, is_within, lacking, read_report


def read(*tables, rows):
    found = find_ledger(tables)
    assert found is not None
    return found.read(rows)


def test_flyway_tells_versions_in_the_order_of_their_installation_and_what_failed():
    rows = [("1", "SQL", 1), ("1.1", "SQL", True), ("2", "SQL", 0)]
    found = read("album", "flyway_schema_history", rows=rows)
    assert found == Ledger("flyway", ("1", "1.1"), ("2",))
    assert found.newest == "1.1"


def test_flyway_forgets_what_was_undone_deleted_or_tried_again():
    rows = [
        ("1", "BASELINE", 1),
        ("2", "SQL", 1),
        ("3", "SQL", 1),
        ("3", "UNDO_SQL", 1),
        ("4", "SQL", 0),
        ("4", "SQL", 1),
        ("2", "DELETE", 1),
    ]
    assert read("flyway_schema_history", rows=rows) == Ledger("flyway", ("1", "4"))


def test_liquibase_tells_changesets():
    rows = [("init", "EXECUTED"), ("seed", "MARK_RAN"), ("later", "SKIPPED"), ("view", "RERAN"), ("bad", "FAILED")]
    assert read("DATABASECHANGELOG", rows=rows) == Ledger("liquibase", ("init", "seed", "view"), ("bad",))


def test_alembic_tells_its_heads():
    assert read("alembic_version", rows=[("1975ea83b712",)]) == Ledger("alembic", ("1975ea83b712",))
    assert read("alembic_version", rows=[]).newest is None


def test_django_tells_migrations_with_their_app():
    rows = [("auth", "0001_initial"), ("shop", "0002_price")]
    assert read("django_migrations", rows=rows) == Ledger("django", ("auth.0001_initial", "shop.0002_price"))


def test_rails_is_told_from_others_whose_table_has_the_same_name():
    assert find_ledger(["schema_migrations"]) is None
    rows = [("20260301120000",), ("20260401120000",)]
    found = read("schema_migrations", "ar_internal_metadata", rows=rows)
    assert found == Ledger("rails", ("20260301120000", "20260401120000"))


def test_a_table_is_asked_for_by_the_name_it_has():
    found = find_ledger(["DATABASECHANGELOG"])
    assert found is not None
    assert found.table == "DATABASECHANGELOG"
    assert found.statement("`DATABASECHANGELOG`") == (
        "SELECT id, exectype FROM `DATABASECHANGELOG` ORDER BY orderexecuted"
    )


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_tools_it_is_one_and_the_same(order):
    found = find_ledger(["alembic_version", "django_migrations"][::order])
    assert found is not None
    assert found.tool == "alembic"


def test_a_database_without_a_tool_has_no_ledger():
    assert find_ledger(["album", "artist"]) is None


# -- what a preparation reports --


def test_a_report_has_the_columns_by_name_in_whatever_order():
    rows = [{"success": 1, "version": "1", "type": "SQL"}, {"success": 0, "type": "SQL", "version": "2"}]
    assert read_report("flyway", rows) == Ledger("flyway", ("1",), ("2",))
    assert read_report("django", [{"name": "0001_initial", "app": "auth"}]).applied == ("auth.0001_initial",)
    assert read_report("alembic", []) == Ledger("alembic", ())


@pytest.mark.parametrize(("tool", "rows"), [("unknown", []), ("rails", [{"name": "1"}])])
def test_what_is_no_report_is_an_error(tool, rows):
    with pytest.raises(KeyError):
        read_report(tool, rows)


def test_a_script_looks_for_the_same_tables_and_has_bounded_answers():
    for lookup in LOOKUPS:
        found = find_ledger([lookup.table, *([] if lookup.beside is None else [lookup.beside])])
        assert found is not None
        assert (found.tool, found.table) == (lookup.tool, lookup.table)
        assert f"LIMIT {MAX_REPORTED}" in lookup.query
        assert lookup.query.count("{table}") == 1


# -- at or before a version --

LATER = Ledger("liquibase", ("init", "seed", "view", "index"))


@pytest.mark.parametrize(
    ("ledger", "version", "within"),
    [
        (Ledger("flyway", ("1", "2")), "2", True),
        (Ledger("flyway", ("1", "2")), "1", False),
        (Ledger("flyway", ("1", "2")), "3", True),
        (Ledger("flyway", ("9", "10")), "9.1", False),
        (Ledger("flyway", ("1.0", "2_1")), "2.1.0", True),
        (Ledger("flyway", ("3", "2")), "2", False),  # applied out of order
        (Ledger("flyway", ("1",), failed=("2",)), "1", False),  # nobody knows how much of it there is
        (Ledger("flyway", ("1", "last...")), "2", False),
        (Ledger("flyway", ()), "1", True),
        (Ledger("flyway", ("1",)), "V1", None),
        (Ledger("rails", ("20260301120000",)), "20260301120000", True),
        (Ledger("rails", ("20260301120000", "20260401120000")), "20260301120000", False),
        (Ledger("rails", ("9", "10")), "9", False),
        (Ledger("rails", ("1",)), "add_price", None),
        (Ledger("django", ("shop.0001_initial", "auth.0009_name", "shop.0002_price")), "shop.0002_price", True),
        (Ledger("django", ("shop.0001_initial", "auth.0009_name", "shop.0002_price")), "shop.0001_initial", False),
        (Ledger("django", ("shop.0002_price", "auth.0009_name")), "shop.0003_tax", True),
        (Ledger("django", ("shop.0002_price",)), "shop.0002_tax", False),  # another leaf
        (Ledger("django", ("shop.initial",)), "shop.0002_tax", False),
        (Ledger("django", ("shop.0002_price",)), "shpo.0003_tax", None),
        (Ledger("django", ("shop.0002_price",)), "0003_tax", None),
        (Ledger("django", ("shop.0002_price",)), "shop.tax", None),
        (Ledger("liquibase", ("init", "seed")), "seed", True),
        (Ledger("liquibase", ("init", "seed")), "init", False),
        (Ledger("liquibase", ("init", "seed")), "view", True),
        (Ledger("liquibase", ("init", "seed")), "unheard of", None),
        (Ledger("liquibase", ("init", "own")), "view", None),
        (Ledger("liquibase", ()), "view", True),
        (Ledger("alembic", ("1975ea83b712",)), "1975ea83b712", True),
        (Ledger("alembic", ("1975ea83b712", "27c6a30d7c24")), "27c6a30d7c24", True),
        (Ledger("alembic", ("1975ea83b712",)), "27c6a30d7c24", None),
        (Ledger("alembic", ()), "27c6a30d7c24", True),
    ],
)
def test_a_ledger_is_within_a_version_in_the_order_of_its_tool(ledger, version, within):
    assert is_within(ledger, version, [LATER]) is within


def test_the_order_of_another_ledger_says_what_is_beyond_too():
    assert is_within(Ledger("liquibase", ("init", "index")), "view", [LATER]) is False
    assert is_within(Ledger("liquibase", ("init", "index")), "view", [Ledger("flyway", ("view", "index"))]) is None


# -- what a release lacks --


@pytest.mark.parametrize(
    ("ledger", "versions", "lacks"),
    [
        (Ledger("flyway", ("1", "2.0", "3")), ["1.0", "2"], ["3"]),
        (Ledger("flyway", ("1",), failed=("2",)), ["1"], []),
        (Ledger("rails", ("20260401120000", "20260301120000")), [], ["20260401120000", "20260301120000"]),
        (Ledger("alembic", ("1975ea83b712",)), ["27c6a30d7c24", "1975ea83b712"], []),
    ],
)
def test_what_a_release_has_not_is_told_in_the_order_of_the_ledger(ledger, versions, lacks):
    assert lacking(ledger, versions) == lacks
