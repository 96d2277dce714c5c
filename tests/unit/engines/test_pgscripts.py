"""A change set as guarded statements: what each of them says, and in which order rows of one table are written."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.engines.patching import RefusedError
from coppice.engines.pgmigrations import Migration
from coppice.engines.pgrows import Cells, Change
from coppice.engines.pgscripts import Plan, Script, Sums, script_of
from coppice.engines.pgtables import Column, Constraint, Table, Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence

ID = Column("id", "integer", not_null=True)
KEY = Constraint("tea_pkey", "p", "PRIMARY KEY (id)", ("id",))
TEA = Table("public", "tea", (ID, Column("up", "integer"), Column("name", "text")), (KEY,))
UP = Constraint("up", "f", "", ("up",), parent=("public", "tea"), parent_columns=("id",), on_update="a", on_delete="a")


def _row(number: int, up: int | None = None, name: str | None = "x") -> Cells:
    return {"id": str(number), "up": None if up is None else str(up), "name": name}


def _change(before: Cells | None, after: Cells | None) -> Change:
    row = after or before or {}
    return Change("tea", {"id": row["id"]}, before, after)


def _plan(table: Table, *rows: Change) -> Plan:
    tables = {table.path: table}
    return Plan(tables, tables, Migration(), {"table tea": ("0", "0")}, rows)


def _script(table: Table, *rows: Change) -> Script:
    return script_of(_plan(table, *rows), "SELECT 'table tea', '0'")


def _written(script: Script) -> list[str]:
    """Return the statements that write rows, without what is around them."""
    return [part.statement.removeprefix("WITH done AS (").split(" RETURNING 1)")[0] for part in script.rows]


def test_a_row_is_written_if_it_is_as_it_was() -> None:
    changed = _change(_row(1), _row(1, name="it's"))
    gone = _change(_row(2, up=1, name=None), None)
    assert _written(_script(TEA, changed, gone, _change(None, _row(3)))) == [
        (
            'DELETE FROM ONLY "public"."tea" AS t WHERE t."id" = \'2\' AND format(\'%s\', t."id") COLLATE "C" = \'2\''
            ' AND format(\'%s\', t."up") COLLATE "C" = \'1\' AND t."name" IS NOT DISTINCT FROM NULL'
        ),
        (
            'UPDATE ONLY "public"."tea" AS t SET "name" = \'it\'\'s\' WHERE t."id" = \'1\''
            ' AND format(\'%s\', t."id") COLLATE "C" = \'1\' AND t."up" IS NOT DISTINCT FROM NULL'
            " AND format('%s', t.\"name\") COLLATE \"C\" = 'x'"
        ),
        (
            'INSERT INTO "public"."tea" ("id", "up", "name") SELECT \'3\', NULL, \'x\''
            ' WHERE NOT EXISTS (SELECT FROM "public"."tea" AS t WHERE t."id" = \'3\')'
        ),
    ]


def test_every_guard_is_noted_once_and_expected() -> None:
    script = _script(TEA, _change(None, _row(1)), _change(_row(2), None))
    noted = [part.guard for part in (*script.opening, *script.rows, *script.closing) if part.guard is not None]
    assert sorted(noted) == list(range(1, len(script.guards) + 1))
    assert f"generate_series(1, {len(script.guards)})" in script.text
    assert [guard.kind for guard in script.guards] == ["Definition", "Reach", "Row", "Row", "Outcome"]
    assert script.text.endswith("COMMIT;\n")
    assert script.text.count("COMMIT;") == 1


def test_what_is_said_of_a_guard_ends_with_its_line() -> None:
    table = replace(TEA, columns=(Column("id", "text"),))
    text = _script(
        table, Change("tea", {"id": "a\nDROP TABLE tea;\r\u2028--"}, None, {"id": "a\nDROP TABLE tea;\r\u2028--"})
    ).text
    [comment] = [line for line in text.splitlines() if line.startswith("-- 2: ")]
    assert comment == r"-- 2: Row tea, {'id': 'a\nDROP TABLE tea;\r\u2028--'}"


def test_triggers_rest_meanwhile_and_are_as_before_afterwards() -> None:
    script = _script(replace(TEA, triggers=(Trigger("t"), Trigger("u", always=True))), _change(None, _row(1)))
    said = [part.statement for part in (*script.opening, *script.closing) if "TRIGGER" in part.statement]
    assert said == [
        'ALTER TABLE "public"."tea" DISABLE TRIGGER "t"',
        'ALTER TABLE "public"."tea" DISABLE TRIGGER "u"',
        'ALTER TABLE "public"."tea" ENABLE TRIGGER "t"',
        'ALTER TABLE "public"."tea" ENABLE ALWAYS TRIGGER "u"',
    ]


def test_a_table_is_locked_before_anything_is_looked_at() -> None:
    plan = replace(
        _plan(TEA), new={}, definitions={"table tea": ("0", None)}, lost=[Sums(TEA, ("name",), ("1", "2", "3"))]
    )
    statements = [part.statement for part in script_of(plan, "SELECT").opening]
    lock = statements.index('LOCK TABLE "public"."tea" IN ACCESS EXCLUSIVE MODE')
    assert all(statement.startswith(("BEGIN", "SET LOCAL")) for statement in statements[:lock])


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        (replace(TEA, unlogged=True), _change(None, _row(1)), "rows of tea differ, but it is UNLOGGED"),
        (
            replace(TEA, columns=(ID, Column("up", "integer", identity="a"), Column("name", "text"))),
            _change(_row(1), _row(1, up=2)),
            "differ in up, which is GENERATED ALWAYS",
        ),
        (
            replace(TEA, constraints=(KEY, replace(UP, parent_columns=("name",), on_update="c"))),
            _change(_row(1), _row(1, name="y")),
            "differ in what tea refers to, and up would",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_by_name(table: Table, change: Change, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        _script(table, change)


def test_numbers_that_the_clone_gave_are_kept_and_not_given_again() -> None:
    table = replace(TEA, columns=(replace(ID, identity="a", sequence="public.s"), *TEA.columns[1:]))
    script = _script(table, _change(None, _row(7)), _change(None, _row(9)))
    assert all(" OVERRIDING SYSTEM VALUE SELECT " in statement for statement in _written(script))
    assert "9::numeric" in script.closing[-1].statement
    assert [guard.place for guard in script.guards if guard.kind == "Sequence"] == ["public.s"]


def test_a_row_goes_only_if_nobody_goes_with_it() -> None:
    table = replace(TEA, constraints=(KEY, replace(UP, on_delete="c")))
    [statement] = _written(_script(table, _change(_row(1), None)))
    assert statement.endswith(
        ' AND NOT EXISTS (SELECT FROM "public"."tea" AS c WHERE c."up" = t."id"'
        ' AND ROW(c."id") IS DISTINCT FROM ROW(t."id"))'
    )


TREE = replace(TEA, constraints=(KEY, UP))


@given(st.permutations(range(1, 8)), st.data())
def test_of_a_table_that_refers_to_itself_parents_come_first_and_go_last(
    order: Sequence[int], data: st.DataObject
) -> None:
    rows = [_row(number, up=data.draw(st.one_of(st.none(), st.integers(1, number)))) for number in order]
    for added in (True, False):
        script = _script(TREE, *(_change(None, row) if added else _change(row, None) for row in rows))
        written = [script.guards[part.guard - 1].change for part in script.rows if part.guard is not None]
        seen = [change.key["id"] for change in written if change is not None]
        assert {*seen} == {str(number) for number in order}
        for row in rows:
            if row["up"] is not None and row["up"] != row["id"]:
                assert (seen.index(row["up"]) < seen.index(row["id"] or "")) == added


def test_rows_in_a_circle_are_refused_unless_it_can_be_put_off() -> None:
    rows = [_change(None, _row(1, up=2)), _change(None, _row(2, up=1))]
    with pytest.raises(RefusedError, match="rows of tea refer to each other in a circle"):
        _script(TREE, *rows)
    later = replace(TEA, constraints=(KEY, replace(UP, deferrable=True)))
    script = _script(later, *rows)
    assert len(list(script.rows)) == 2
    assert 'SET CONSTRAINTS "public"."up" DEFERRED' in script.text


def test_what_is_left_is_counted() -> None:
    changes = _plan(TEA, _change(None, _row(1)), _change(_row(2), None)).changes
    [table] = changes.tables
    assert (table.table, table.added, table.modified, table.deleted, table.schema) == ("tea", 1, 0, 1, False)
    assert changes.digest != _plan(TEA, _change(None, _row(1)), _change(_row(3), None)).changes.digest


def test_the_statements_of_rows_are_not_in_memory_beside_the_rows() -> None:
    plan = _plan(TEA, *(_change(_row(number, name="x" * 20_000), None) for number in range(100)))
    tracemalloc.start()
    script = script_of(plan, "SELECT 'table tea', '0'")
    written = sum(len(part.statement) for part in script.rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < written / 4
