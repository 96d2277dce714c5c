"""What a PostgreSQL catalog says of tables, in which order they are written, and how their definitions become others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.engines.patching import RefusedError
from coppice.engines.pgmigrations import Migration, migration, renames
from coppice.engines.pgtables import Column, Constraint, Index, Table, read_tables, writing_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.engines.merging import ChangeKind

ID = Column("id", "integer", not_null=True)
NAME = Column("name", "text")
KEY = Constraint("tea_pkey", "p", "PRIMARY KEY (id)", ("id",))
TEA = Table("public", "tea", (ID, NAME), (KEY,))


def _table(name: str, *parents: str, deferrable: bool = False, on_delete: str = "a") -> Table:
    keys = [
        Constraint(f"to_{parent}", "f", "", ("id",), deferrable, ("public", parent), ("id",), "a", on_delete)
        for parent in parents
    ]
    return Table("public", name, (ID,), (KEY, *keys))


def _ordered(tables: Sequence[Table], *written: tuple[str, ChangeKind]) -> list[tuple[str, str]]:
    known = {table.path: table for table in tables}
    return [
        (path[1], kind) for path, kind in writing_order(known, [(("public", name), kind) for name, kind in written])
    ]


KINDS: tuple[ChangeKind, ...] = ("Added", "Modified", "Deleted")


class TestOrder:
    def test_a_parent_is_added_before_its_child_and_goes_after_it(self) -> None:
        tables = [_table("child", "parent"), _table("parent")]
        assert _ordered(tables, ("child", "Added"), ("parent", "Added")) == [("parent", "Added"), ("child", "Added")]
        assert _ordered(tables, ("parent", "Deleted"), ("child", "Deleted"))[0] == ("child", "Deleted")

    def test_a_child_has_found_another_parent_before_the_old_one_goes(self) -> None:
        tables = [_table("child", "parent"), _table("parent")]
        order = _ordered(tables, ("parent", "Deleted"), ("child", "Modified"), ("parent", "Added"))
        assert order == [("parent", "Added"), ("child", "Modified"), ("parent", "Deleted")]

    def test_where_nothing_refers_to_rows_they_go_first(self) -> None:
        order = _ordered([_table("tea")], ("tea", "Added"), ("tea", "Modified"), ("tea", "Deleted"))
        assert [kind for _, kind in order] == ["Deleted", "Modified", "Added"]

    def test_a_table_may_refer_to_itself(self) -> None:
        assert len(_ordered([_table("tree", "tree")], ("tree", "Added"), ("tree", "Deleted"))) == 2

    def test_a_circle_is_refused_by_name_unless_it_can_be_put_off(self) -> None:
        circle = [_table("egg", "hen"), _table("hen", "egg")]
        with pytest.raises(RefusedError, match="egg, hen refer to each other in a circle"):
            _ordered(circle, ("egg", "Added"), ("hen", "Added"))
        assert (
            len(_ordered([circle[0], _table("hen", "egg", deferrable=True)], ("egg", "Added"), ("hen", "Added"))) == 2
        )

    def test_what_deletes_others_is_never_put_off(self) -> None:
        tables = [_table("child", "parent", deferrable=True, on_delete="c"), _table("parent")]
        assert _ordered(tables, ("parent", "Deleted"), ("child", "Deleted"))[0] == ("child", "Deleted")

    @given(st.data())
    def test_every_step_is_there_once_whatever_refers_to_what(self, data: st.DataObject) -> None:
        names = ["a", "b", "c", "d"]
        tables = [
            _table(name, *data.draw(st.sets(st.sampled_from(names[:place] or [name]))))
            for place, name in enumerate(names)
        ]
        steps = data.draw(st.sets(st.tuples(st.sampled_from(names), st.sampled_from(KINDS))))
        order = _ordered(tables, *steps)
        assert sorted(order) == sorted(steps)
        for table in tables:
            for key in table.foreign_keys:
                assert key.parent is not None
                places = [
                    order.index(step) for step in ((key.parent[1], "Added"), (table.name, "Added")) if step in order
                ]
                assert places == sorted(places)


class TestDefinitions:
    def test_a_table_is_read_as_the_catalog_tells_it(self) -> None:
        row = {
            "schema": "shop", "name": "tea", "partitioned": False, "unlogged": False, "inherits": False, "secured": False,
            "ruled": False, "inner_triggers": False,
            "columns": [
                {"name": "id", "type": "integer", "not_null": True, "default": None, "identity": "a", "generated": False, "collation": None, "sequence": "shop.s"},
                {"name": "twice", "type": "integer", "not_null": False, "default": "(id * 2)", "identity": "", "generated": True, "collation": None, "sequence": None},
            ],
            "constraints": [{"name": "k", "kind": "p", "definition": "PRIMARY KEY (id)", "deferrable": False, "columns": ["id"], "parent": None, "parent_columns": [], "on_update": " ", "on_delete": " "}],
            "indexes": [{"name": "i", "definition": "CREATE INDEX i"}],
            "triggers": [{"name": "t", "always": True}],
        }  # fmt: skip
        [table] = read_tables([row]).values()
        assert (table.path, table.label, table.key, table.stored) == (("shop", "tea"), "shop.tea", ("id",), ("id",))
        assert table.triggers[0].always
        assert table.obstacle is None

    @pytest.mark.parametrize(
        ("table", "reason"),
        [
            (replace(TEA, constraints=()), "no primary key"),
            (replace(TEA, unlogged=True), "UNLOGGED"),
            (replace(TEA, inherits=True), "inherits"),
            (replace(TEA, ruled=True), "rules"),
            (replace(TEA, inner_triggers=True), "partition of it has triggers"),
        ],
    )
    def test_what_is_in_the_way_is_named(self, table: Table, reason: str) -> None:
        assert reason in str(table.obstacle)


def _migrated(*after: Table, before: Sequence[Table] = (TEA,)) -> Migration:
    return migration({table.path: table for table in before}, {table.path: table for table in after})


def _with(*columns: Column) -> Table:
    return replace(TEA, columns=(ID, *columns))


class TestMigrations:
    def test_what_is_the_same_needs_nothing(self) -> None:
        assert _migrated(TEA) == Migration()

    @pytest.mark.parametrize(
        ("after", "first", "last"),
        [
            pytest.param(_with(NAME, Column("n", "integer")), ['ADD COLUMN "n" integer'], [], id="added"),
            pytest.param(
                _with(NAME, Column("n", "integer", not_null=True)),
                ['ADD COLUMN "n" integer'], ['ALTER COLUMN "n" SET NOT NULL'], id="rows come before the rule",
            ),
            pytest.param(
                _with(NAME, Column("n", "integer", not_null=True, default="7")),
                ['ADD COLUMN "n" integer DEFAULT 7 NOT NULL'], [], id="a default is enough for the rule",
            ),
            pytest.param(
                _with(NAME, Column("n", "integer", default="(id * 2)", generated=True)),
                ['ADD COLUMN "n" integer GENERATED ALWAYS AS ((id * 2)) STORED'], [], id="generated",
            ),
            pytest.param(
                _with(NAME, Column("n", "integer", not_null=True, identity="a", sequence="public.n")),
                ['ADD COLUMN "n" integer GENERATED ALWAYS AS IDENTITY NOT NULL'], [], id="identity",
            ),
            pytest.param(_with(), ['DROP COLUMN "name"'], [], id="dropped"),
            pytest.param(
                _with(replace(NAME, type="character varying(9)")),
                ['ALTER COLUMN "name" TYPE character varying(9) USING "name"::character varying(9)'], [], id="type",
            ),
            pytest.param(
                _with(replace(NAME, collation='pg_catalog."C"')),
                ['ALTER COLUMN "name" TYPE text COLLATE pg_catalog."C" USING "name"::text'], [], id="collation",
            ),
            pytest.param(_with(replace(NAME, default="'x'::text")), ["ALTER COLUMN \"name\" SET DEFAULT 'x'::text"], [], id="default"),
            pytest.param(_with(replace(NAME, not_null=True)), [], ['ALTER COLUMN "name" SET NOT NULL'], id="not null"),
        ],
    )  # fmt: skip
    def test_columns(self, after: Table, first: list[str], last: list[str]) -> None:
        found = _migrated(after)
        table = 'ALTER TABLE "public"."tea" '
        assert found.first == tuple(table + statement for statement in first)
        assert found.last == tuple(table + statement for statement in last)

    def test_a_default_steps_aside_while_the_type_changes(self) -> None:
        before = _with(replace(NAME, default="'1'::text", not_null=True))
        after = _with(replace(NAME, type="integer", default="1"))
        words = [statement.partition('"name" ')[2] for statement in _migrated(after, before=[before]).first]
        assert words == ["DROP NOT NULL", "DROP DEFAULT", 'TYPE integer USING "name"::integer', "SET DEFAULT 1"]

    def test_a_column_keeps_its_number_under_another_name(self) -> None:
        old, new = (
            replace(TEA, columns=(replace(ID, number=1), replace(NAME, name=name, number=2)))
            for name in ("name", "title")
        )
        assert renames({old.path: old}, {new.path: new}) == (
            'ALTER TABLE "public"."tea" RENAME COLUMN "name" TO "title"',
        )
        other = replace(TEA, columns=(replace(ID, number=1), replace(NAME, name="title", number=3)))
        assert renames({old.path: old}, {other.path: other}) == ()

    def test_values_that_end_are_named(self) -> None:
        assert _migrated(_with()).lost == ((TEA, ("name",)),)
        assert _migrated().lost == ((TEA, ("id", "name")),)

    def test_foreign_keys_go_before_all_and_come_after_all(self) -> None:
        child = Table(
            "public", "leaf", (ID,), (KEY, Constraint("f", "f", "FOREIGN KEY (id) REFERENCES tea(id)", ("id",)))
        )
        made = _migrated(child, TEA, before=[])
        assert [statement.split(" (")[0] for statement in made.statements] == [
            'CREATE TABLE "public"."leaf"',
            'CREATE TABLE "public"."tea"',
            'ALTER TABLE "public"."leaf" ADD CONSTRAINT "f" FOREIGN KEY',
        ]
        gone = _migrated(before=[TEA, child])
        assert gone.first == (
            'ALTER TABLE "public"."leaf" DROP CONSTRAINT "f"',
            'DROP TABLE "public"."tea"',
            'DROP TABLE "public"."leaf"',
        )

    def test_a_serial_column_brings_its_sequence(self) -> None:
        serial = Column("n", "integer", not_null=True, default="nextval('public.s'::regclass)", sequence="public.s")
        made = _migrated(replace(TEA, columns=(ID, serial)), before=[])
        assert made.first[0] == "CREATE SEQUENCE public.s AS integer"
        assert made.first[-1] == 'ALTER SEQUENCE public.s OWNED BY "public"."tea"."n"'
        added = _migrated(_with(NAME, serial))
        assert [statement.split()[0] for statement in added.first] == ["CREATE", "ALTER", "ALTER"]

    def test_rules_that_changed_are_made_again_and_in_the_right_order(self) -> None:
        before = replace(
            TEA,
            constraints=(KEY, Constraint("c", "c", "CHECK ((id > 0))")),
            indexes=(Index("i", "CREATE INDEX i ON public.tea USING btree (name)"),),
        )
        after = replace(
            TEA,
            constraints=(KEY, Constraint("c", "c", "CHECK ((id > 1))")),
            indexes=(Index("i", "CREATE UNIQUE INDEX i ON public.tea USING btree (name)"),),
        )
        found = _migrated(after, before=[before])
        assert found.first == ('ALTER TABLE "public"."tea" DROP CONSTRAINT "c"', 'DROP INDEX "public"."i"')
        assert found.last == (
            'ALTER TABLE "public"."tea" ADD CONSTRAINT "c" CHECK ((id > 1))',
            "CREATE UNIQUE INDEX i ON public.tea USING btree (name)",
        )

    def test_names_are_quoted(self) -> None:
        odd = replace(TEA, name='te"a', columns=(ID, Column('"; DROP', "text")))
        assert _migrated(odd, before=[]).first == (
            'CREATE TABLE "public"."te""a" ("id" integer NOT NULL, """; DROP" text, CONSTRAINT "tea_pkey" PRIMARY KEY (id))',
        )

    @pytest.mark.parametrize(
        ("after", "reason"),
        [
            (replace(TEA, constraints=(replace(KEY, columns=("id", "name")),)), "tea .* primary key"),
            (
                replace(TEA, indexes=(Index("i", "SET search_path TO evil"),)),
                "tea .* index i is made by something else",
            ),
            (replace(TEA, partitioned=True), "tea .* partitioned on one side"),
            (replace(TEA, name="new", partitioned=True), "new .* is new and partitioned"),
        ],
    )
    def test_what_rows_cannot_follow_is_refused_by_name(self, after: Table, reason: str) -> None:
        with pytest.raises(RefusedError, match=reason):
            _migrated(after)
