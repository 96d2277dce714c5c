"""Values as text: what a terminal shows, and what an engine reads as the same value."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.cli.cells import DIALECTS, changed_columns, shown, statement, terminated, visible
from coppice.engines.merging import Binary, RowChange

MYSQL, POSTGRESQL = DIALECTS["mysql"], DIALECTS["postgresql"]


def change(before, after, *, table="track", key=None) -> RowChange:
    kind = "Added" if before is None else "Deleted" if after is None else "Modified"
    return RowChange(table, kind, {} if key is None else key, before, after)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "NULL"), (True, "true"), (3, "3"), ("0.10", "0.10"), ("a\tb", r"a\tb"), ("\u202eevil", r"\u202eevil")],
)
def test_a_value_is_shown_as_a_person_reads_it(value, text):
    assert shown(value) == text


@given(st.text())
def test_what_is_shown_only_shows(text):
    assert visible(text).isprintable()


def test_of_a_row_that_was_changed_the_columns_that_differ_are_shown():
    assert changed_columns(change({"a": 1, "b": 2}, {"a": 1, "b": 3})) == ["b"]
    assert changed_columns(change({"a": 1, "b": None}, {"a": 1, "c": None})) == ["b", "c"]
    assert changed_columns(change(None, {"a": 1, "b": None})) == ["a", "b"]


@pytest.mark.parametrize(
    ("value", "mysql", "postgresql"),
    [
        (None, "NULL", "NULL"),
        (True, "TRUE", "TRUE"),
        (-3, "-3", "-3"),
        (0.1, "0.1", "0.1"),
        (float("inf"), "'inf'", "'inf'"),
        ("0xff", "'0xff'", "'0xff'"),
        (Binary("0xff"), "0xff", r"'\xff'"),
        (Binary("0x"), "''", r"'\x'"),
        ("it's", "'it''s'", "'it''s'"),
        ("a\\b", "'a\\\\b'", "'a\\b'"),
        ("a\nb", r"'a\nb'", r"E'a\U0000000ab'"),
        ("a'\\\n", r"'a''\\\n'", r"E'a''\\\U0000000a'"),
        ("\x1b", "CONVERT(0x1b USING utf8mb4)", r"E'\U0000001b'"),
        ("größe", "'größe'", "'größe'"),
    ],
)
def test_a_value_is_the_same_in_sql(value, mysql, postgresql):
    row = change(None, {"v": value})
    assert statement(row, MYSQL) == f"INSERT INTO `track` (`v`) VALUES ({mysql});"
    assert statement(row, POSTGRESQL) == f'INSERT INTO "track" ("v") VALUES ({postgresql});'


@given(st.text(st.characters(blacklist_categories=["Cs"])))
def test_text_in_sql_is_what_mysql_reads(text):
    written = statement(change(None, {"v": text}), MYSQL) or ""
    literal = written.removeprefix("INSERT INTO `track` (`v`) VALUES (").removesuffix(");")
    assert _read(literal) == text


def _read(literal: str) -> str:
    """Read a literal as MySQL does with its escapes."""
    converted = re.fullmatch(r"CONVERT\(0x([0-9a-f]*) USING utf8mb4\)", literal)
    if converted:
        return bytes.fromhex(converted[1]).decode()
    assert re.fullmatch(r"'(?:[^'\\]|''|\\.)*'", literal, re.DOTALL), literal
    names = {"n": "\n", "r": "\r", "t": "\t"}
    return re.sub(r"''|\\(.)", lambda found: names.get(found[1], found[1]) if found[1] else "'", literal[1:-1])


def test_names_are_quoted():
    row = change({"a`b": 1}, None, table="x`y", key={"a`b": 1})
    assert statement(row, MYSQL) == "DELETE FROM `x``y` WHERE `a``b` = 1;"
    assert statement(change({"a": 1}, None, table="x.y", key={"a": 1}), POSTGRESQL) == (
        'DELETE FROM "x"."y" WHERE "a" = 1;'
    )
    assert statement(change({"a": 1}, None, table="x.y", key={"a": 1}), MYSQL) == "DELETE FROM `x.y` WHERE `a` = 1;"


def test_a_changed_row_is_named_by_its_key():
    row = change({"id": 1, "n": 2, "m": 3}, {"id": 1, "n": None, "m": 3}, key={"id": 1})
    assert statement(row, MYSQL) == "UPDATE `track` SET `n` = NULL WHERE `id` = 1;"


def test_one_of_several_equal_rows_goes():
    row = change({"a": 1, "b": None}, None)
    assert statement(row, MYSQL) == "DELETE FROM `track` WHERE `a` = 1 AND `b` <=> NULL LIMIT 1;"
    assert statement(row, POSTGRESQL) == (
        'DELETE FROM "track" WHERE ctid = (SELECT ctid FROM "track" WHERE "a" = 1 AND "b" IS NOT DISTINCT FROM NULL '
        "LIMIT 1);"
    )


def test_a_row_that_only_lost_a_column_needs_no_statement():
    assert statement(change({"id": 1, "old": 2}, {"id": 1}, key={"id": 1}), MYSQL) is None


def test_statements_end_with_one_semicolon():
    assert terminated(["ALTER TABLE a", "ALTER TABLE b; "]) == ["ALTER TABLE a;", "ALTER TABLE b;"]
