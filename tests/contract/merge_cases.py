"""What a merge of two versions comes to, for every engine that merges: one list of cases, in SQL that all of them know.

Each case is a base, what the target has done since and what the source has, and either the rows that the merge has or
the conflicts that it names. Where a type or a literal is an engine's own, the statement has a word for it in braces;
see ``Dialect``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Rows = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Dialect:
    """How an engine writes what SQL has no common form for."""

    binary: str
    """The type of a short binary string."""
    bytes: str
    """The literal of the two bytes 0x00 0xFF."""
    other_bytes: str
    """The literal of the two bytes 0x01 0x80."""
    timestamp: str
    """The type of a time of day with a date, in microseconds."""


MYSQL: Final = Dialect("VARBINARY(9)", "x'00ff'", "x'0180'", "DATETIME(6)")


@dataclass(frozen=True)
class Named:
    """A conflict as a case expects it."""

    kind: str
    table: str = "t"
    column: str | None = None
    key: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    name: str
    base: tuple[str, ...]
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    select: str = "SELECT * FROM t ORDER BY id"
    rows: Rows | None = None
    """What ``select`` finds after the merge, or None where there are conflicts."""
    conflicts: tuple[Named, ...] = ()
    take_source: Rows | None = None
    """What it finds after all conflicts were decided for the source; None: they cannot be."""
    take_target: Rows | None = None

    def statements(self, side: tuple[str, ...], dialect: Dialect) -> list[str]:
        words = {name: getattr(dialect, name) for name in ("binary", "bytes", "other_bytes", "timestamp")}
        return [statement.format(**words) for statement in side]


TABLE = "CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(20))"
ROWS = "INSERT INTO t VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, 'three')"
PLAIN = (TABLE, ROWS)
LIST = ("CREATE TABLE t (a INT, b VARCHAR(20))", "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, 'y')")
FAMILY = (
    "CREATE TABLE parent (id INT PRIMARY KEY, name VARCHAR(9))",
    "CREATE TABLE t (id INT PRIMARY KEY, parent INT, CONSTRAINT child_of FOREIGN KEY (parent) REFERENCES parent (id))",
    "INSERT INTO parent VALUES (1, 'a'), (2, 'b')",
    "INSERT INTO t VALUES (1, 1)",
)
CELLS = (
    "CREATE TABLE t (id INT PRIMARY KEY, n DECIMAL(12, 4), d DATE, w {timestamp}, x {binary}, s VARCHAR(40))",
    "INSERT INTO t VALUES (1, 1.5000, '2020-02-29', '2020-02-29 23:59:59.000001', {bytes}, 'grün')",
)

CASES: Final = (
    Case(
        "disjoint rows",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1", "INSERT INTO t VALUES (4, 4, 'four')"),
        ("UPDATE t SET a = 20 WHERE id = 2", "DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (5, 5, 'five')"),
        rows=((1, 10, "one"), (2, 20, "two"), (4, 4, "four"), (5, 5, "five")),
    ),
    Case(
        "only the source has changed",
        PLAIN,
        (),
        ("UPDATE t SET a = 20 WHERE id = 2",),
        rows=((1, 1, "one"), (2, 20, "two"), (3, 3, "three")),
    ),
    Case(
        "both tables of a pair",
        (*PLAIN, "CREATE TABLE u (id INT PRIMARY KEY)"),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("INSERT INTO u VALUES (1)",),
        select="SELECT t.a, u.id FROM t, u WHERE t.id = 1",
        rows=((10, 1),),
    ),
    Case(
        "same row, other columns",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("UPDATE t SET b = 'ONE' WHERE id = 1",),
        rows=((1, 10, "ONE"), (2, 2, "two"), (3, 3, "three")),
    ),
    Case(
        "same cell, same value",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        rows=((1, 10, "one"), (2, 2, "two"), (3, 3, "three")),
    ),
    Case(
        "same cell",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("UPDATE t SET a = 11, b = 'ONE' WHERE id = 1",),
        conflicts=(Named("Cell", column="a", key={"id": 1}),),
        take_source=((1, 11, "ONE"), (2, 2, "two"), (3, 3, "three")),
        take_target=((1, 10, "ONE"), (2, 2, "two"), (3, 3, "three")),
    ),
    Case(
        "two cells of a row and one of another",
        PLAIN,
        ("UPDATE t SET a = 10, b = 'mine' WHERE id = 1", "UPDATE t SET b = 'mine' WHERE id = 3"),
        ("UPDATE t SET a = 11, b = 'yours' WHERE id = 1", "UPDATE t SET b = 'yours' WHERE id = 3"),
        conflicts=(
            Named("Cell", column="a", key={"id": 1}),
            Named("Cell", column="b", key={"id": 1}),
            Named("Cell", column="b", key={"id": 3}),
        ),
        take_source=((1, 11, "yours"), (2, 2, "two"), (3, 3, "yours")),
        take_target=((1, 10, "mine"), (2, 2, "two"), (3, 3, "mine")),
    ),
    Case(
        "deleted there, changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("DELETE FROM t WHERE id = 1",),
        conflicts=(Named("Row", key={"id": 1}),),
        take_source=((2, 2, "two"), (3, 3, "three")),
        take_target=((1, 10, "one"), (2, 2, "two"), (3, 3, "three")),
    ),
    Case(
        "changed there, deleted here",
        PLAIN,
        ("DELETE FROM t WHERE id = 1",),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        conflicts=(Named("Row", key={"id": 1}),),
        take_source=((1, 10, "one"), (2, 2, "two"), (3, 3, "three")),
        take_target=((2, 2, "two"), (3, 3, "three")),
    ),
    Case(
        "deleted on both sides",
        PLAIN,
        ("DELETE FROM t WHERE id = 1",),
        ("DELETE FROM t WHERE id = 1",),
        rows=((2, 2, "two"), (3, 3, "three")),
    ),
    Case(
        "the same key added",
        PLAIN,
        ("INSERT INTO t VALUES (4, 4, 'four')",),
        ("INSERT INTO t VALUES (4, 5, 'four')",),
        conflicts=(Named("Cell", column="a", key={"id": 4}),),
        take_source=((1, 1, "one"), (2, 2, "two"), (3, 3, "three"), (4, 5, "four")),
        take_target=((1, 1, "one"), (2, 2, "two"), (3, 3, "three"), (4, 4, "four")),
    ),
    Case(
        "the same row added",
        PLAIN,
        ("INSERT INTO t VALUES (4, 4, 'four')",),
        ("INSERT INTO t VALUES (4, 4, 'four')",),
        rows=((1, 1, "one"), (2, 2, "two"), (3, 3, "three"), (4, 4, "four")),
    ),
    Case(
        "a key of several columns",
        (
            "CREATE TABLE t (k VARCHAR(9), id INT, v INT, PRIMARY KEY (k, id))",
            "INSERT INTO t VALUES ('a', 1, 1), ('a', 2, 1), ('b', 1, 1)",
        ),
        ("UPDATE t SET v = 2 WHERE k = 'a' AND id = 2", "DELETE FROM t WHERE k = 'b'"),
        ("UPDATE t SET v = 3 WHERE k = 'a' AND id = 2", "UPDATE t SET v = 3 WHERE k = 'b'"),
        select="SELECT * FROM t ORDER BY k, id",
        conflicts=(
            Named("Cell", column="v", key={"k": "a", "id": 2}),
            Named("Row", key={"k": "b", "id": 1}),
        ),
        take_source=(("a", 1, 1), ("a", 2, 3), ("b", 1, 3)),
        take_target=(("a", 1, 1), ("a", 2, 2)),
    ),
    Case(
        "a value against no value",
        PLAIN,
        ("UPDATE t SET a = NULL WHERE id = 1", "UPDATE t SET b = NULL WHERE id = 2"),
        ("UPDATE t SET a = 11 WHERE id = 1", "UPDATE t SET a = NULL WHERE id = 2"),
        conflicts=(Named("Cell", column="a", key={"id": 1}),),
        take_source=((1, 11, "one"), (2, None, None), (3, 3, "three")),
        take_target=((1, None, "one"), (2, None, None), (3, 3, "three")),
    ),
    Case(
        "cells of all kinds, disjoint",
        CELLS,
        ("UPDATE t SET n = 2.0001, x = {other_bytes}",),
        ("UPDATE t SET d = '1999-12-31', w = '1999-12-31 00:00:00', s = '紅 🌱'",),
        select="SELECT CAST(n AS CHAR(9)), CAST(d AS CHAR(10)), s FROM t",
        rows=(("2.0001", "1999-12-31", "紅 🌱"),),
    ),
    Case(
        "cells of all kinds, each in conflict",
        CELLS,
        ("UPDATE t SET n = 2, d = '2021-01-01', w = '2021-01-01 00:00:00', x = {other_bytes}, s = 'rot'",),
        ("UPDATE t SET n = 1.5001, d = '2022-01-01', w = '2022-01-01 00:00:00', x = NULL, s = '紅 🌱'",),
        select="SELECT CAST(n AS CHAR(9)), CAST(d AS CHAR(10)), s FROM t",
        conflicts=tuple(Named("Cell", column=column, key={"id": 1}) for column in "dnswx"),
        take_source=(("1.5001", "2022-01-01", "紅 🌱"),),
        take_target=(("2.0000", "2021-01-01", "rot"),),
    ),
    Case(
        "no key, disjoint",
        LIST,
        ("INSERT INTO t VALUES (3, 'z')",),
        ("DELETE FROM t WHERE a = 2", "INSERT INTO t VALUES (4, 'w'), (4, 'w')"),
        select="SELECT * FROM t ORDER BY a",
        rows=((1, "x"), (1, "x"), (3, "z"), (4, "w"), (4, "w")),
    ),
    Case(
        "no key, the same row more often on one side and gone on the other",
        LIST,
        ("INSERT INTO t VALUES (1, 'x')",),
        ("DELETE FROM t WHERE a = 1",),
        select="SELECT * FROM t ORDER BY a",
        conflicts=(Named("Row", key={"a": 1, "b": "x"}),),
        take_source=((2, "y"),),
        take_target=((1, "x"), (1, "x"), (1, "x"), (2, "y")),
    ),
    Case(
        "no key, the same row more often on both sides",
        LIST,
        ("INSERT INTO t VALUES (2, 'y')",),
        ("INSERT INTO t VALUES (2, 'y'), (2, 'y')",),
        select="SELECT * FROM t ORDER BY a",
        conflicts=(Named("Row", key={"a": 2, "b": "y"}),),
        take_source=((1, "x"), (1, "x"), (2, "y"), (2, "y"), (2, "y")),
        take_target=((1, "x"), (1, "x"), (2, "y"), (2, "y")),
    ),
    Case(
        "a column added there, rows changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1", "DELETE FROM t WHERE id = 3"),
        ("ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET c = 5 WHERE id = 2"),
        rows=((1, 10, "one", None), (2, 2, "two", 5)),
    ),
    Case(
        "a column added there, and a cell in conflict",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET a = 11, c = 5 WHERE id = 1"),
        conflicts=(Named("Cell", column="a", key={"id": 1}),),
        take_source=((1, 11, "one", 5), (2, 2, "two", None), (3, 3, "three", None)),
        take_target=((1, 10, "one", 5), (2, 2, "two", None), (3, 3, "three", None)),
    ),
    Case(
        "a column renamed there, rows changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t RENAME COLUMN a TO number",),
        select="SELECT id, number FROM t ORDER BY id",
        rows=((1, 10), (2, 2), (3, 3)),
    ),
    Case(
        "a column renamed there, and another cell in conflict",
        PLAIN,
        ("UPDATE t SET a = 10, b = 'mine' WHERE id = 1",),
        ("ALTER TABLE t RENAME COLUMN a TO number", "UPDATE t SET b = 'yours' WHERE id = 1"),
        conflicts=(Named("Cell", column="b", key={"id": 1}),),
        take_source=((1, 10, "yours"), (2, 2, "two"), (3, 3, "three")),
        take_target=((1, 10, "mine"), (2, 2, "two"), (3, 3, "three")),
    ),
    Case(
        "a column renamed to two names",
        PLAIN,
        ("ALTER TABLE t RENAME COLUMN a TO mine",),
        ("ALTER TABLE t RENAME COLUMN a TO yours",),
        conflicts=(Named("Schema"),),
    ),
    Case(
        "a column of two types",
        PLAIN,
        ("ALTER TABLE t MODIFY COLUMN a BIGINT",),
        ("ALTER TABLE t MODIFY COLUMN a DECIMAL(9, 2)",),
        conflicts=(Named("Schema"),),
    ),
    Case(
        "a column of another type there, rows changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t MODIFY COLUMN a VARCHAR(9)",),
        conflicts=(Named("Schema"),),
    ),
    Case(
        "a column added with two types",
        PLAIN,
        ("ALTER TABLE t ADD COLUMN c INT",),
        ("ALTER TABLE t ADD COLUMN c VARCHAR(9)",),
        conflicts=(Named("Schema"),),
    ),
    Case(
        "a column dropped there, changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t DROP COLUMN a",),
        conflicts=(Named("Schema"), Named("Row", key={"id": 1})),
    ),
    Case(
        "a table dropped there, changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("DROP TABLE t",),
        conflicts=(Named("Schema"),),
    ),
    Case(
        "a table added twice",
        PLAIN,
        ("CREATE TABLE u (id INT PRIMARY KEY)",),
        ("CREATE TABLE u (id INT PRIMARY KEY, a INT)",),
        conflicts=(Named("Schema", table="u"),),
    ),
    Case(
        "another primary key there",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t DROP PRIMARY KEY", "ALTER TABLE t ADD PRIMARY KEY (id, b)"),
        conflicts=(Named("Schema"),),
    ),
    Case(
        "a child here of a parent that is gone there",
        FAMILY,
        ("INSERT INTO t VALUES (2, 2)",),
        ("DELETE FROM parent WHERE id = 2",),
        conflicts=(Named("ForeignKey", key={"id": 2}),),
    ),
    Case(
        "a decision that brings the parent back",
        FAMILY,
        ("DELETE FROM parent WHERE id = 2",),
        ("UPDATE parent SET name = 'c' WHERE id = 2", "INSERT INTO t VALUES (2, 2)"),
        conflicts=(Named("Row", table="parent", key={"id": 2}), Named("ForeignKey", key={"id": 2})),
        take_source=((1, 1), (2, 2)),
    ),
    Case(
        "a decision that takes the parent away",
        FAMILY,
        ("UPDATE parent SET name = 'c' WHERE id = 2", "INSERT INTO t VALUES (2, 2)"),
        ("DELETE FROM parent WHERE id = 2",),
        conflicts=(Named("Row", table="parent", key={"id": 2}),),
        take_target=((1, 1), (2, 2)),
    ),
    Case(
        "a value that must be the only one",
        ("CREATE TABLE t (id INT PRIMARY KEY, e VARCHAR(9), CONSTRAINT only_one UNIQUE (e))",),
        ("INSERT INTO t VALUES (1, 'x')",),
        ("INSERT INTO t VALUES (2, 'x')",),
        conflicts=(Named("Unique", key={"id": 1}), Named("Unique", key={"id": 2})),
    ),
    Case(
        "a sum that is too much",
        (
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT, CONSTRAINT little CHECK (a + b < 10))",
            "INSERT INTO t VALUES (1, 1, 1)",
        ),
        ("UPDATE t SET a = 8",),
        ("UPDATE t SET b = 8",),
        conflicts=(Named("Check", key={"id": 1}),),
    ),
    Case(
        "nothing where there must be something",
        PLAIN,
        ("INSERT INTO t VALUES (4, NULL, 'four')",),
        ("ALTER TABLE t MODIFY COLUMN a INT NOT NULL",),
        conflicts=(Named("NotNull", key={"id": 4}),),
    ),
)
