"""The tables of migration tools, row by row as the tools write them."""

from __future__ import annotations

import pytest

from coppice.engines.base import Ledger
from coppice.engines.ledgers import find_ledger


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
