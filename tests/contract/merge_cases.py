"""What a merge of two versions comes to, for every engine: one list of cases, each written once.

Each case is a base, what the target has done since and what the source has, and what comes of it: the rows that are
there then, or the conflicts that are named. Where a type, a literal or a clause is an engine's own, the statement has a
word for it in braces; see ``Dialect``. Where an engine comes to something else by rights, the case says to what, and why.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

Rows = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Dialect:
    """How an engine writes what SQL has no common form for."""

    engine: str
    binary: str
    """The type of a short binary string."""
    bytes: str
    """The literal of the two bytes 0x00 0xFF."""
    other_bytes: str
    """The literal of the two bytes 0x01 0x80."""
    timestamp: str
    """The type of a time of day with a date, in microseconds."""
    text: str
    """What a number or day is cast to for its text."""
    by_bytes: str
    """How text is put in the order of its bytes."""
    decoded: str
    """The text of UTF-8 in hexadecimal digits, which stand for ``{}``."""
    retype_a: str
    """What comes before the type that the column ``a`` of a table is to have."""
    require_a: str
    """What lets the column ``a``, an INT, have no NULL."""
    drop_key: str
    """What takes the primary key from the table ``t``."""
    keys_are_text: bool = False
    """Whether the key of a conflict is told in the server's text for each value."""

    def statements(self, side: tuple[str, ...]) -> list[str]:
        """Return the statements of a case's side as the engine knows them."""
        words = {each.name: getattr(self, each.name) for each in fields(self)}
        return [statement.format(**words) for statement in side]

    def literal(self, cell: str | None) -> str:
        """Return a text as it is written in a statement, whatever is in it."""
        return "NULL" if cell is None else self.decoded.format(cell.encode().hex())

    def key(self, key: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a key as the engine tells it."""
        return {name: str(value) for name, value in key.items()} if self.keys_are_text else key


MYSQL: Final = Dialect(
    engine="dolt",
    binary="VARBINARY(9)",
    bytes="x'00ff'",
    other_bytes="x'0180'",
    timestamp="DATETIME(6)",
    text="CHAR(10)",
    by_bytes="",
    decoded="CONVERT(x'{}' USING utf8mb4)",
    retype_a="MODIFY COLUMN a",
    require_a="MODIFY COLUMN a INT NOT NULL",
    drop_key="DROP PRIMARY KEY",
)
POSTGRESQL: Final = Dialect(
    engine="postgresql",
    binary="bytea",
    bytes=r"'\x00ff'",
    other_bytes=r"'\x0180'",
    timestamp="timestamp(6)",
    text="text",
    by_bytes='COLLATE "C"',
    decoded=r"convert_from('\x{}', 'UTF8')",
    retype_a="ALTER COLUMN a TYPE",
    require_a="ALTER COLUMN a SET NOT NULL",
    drop_key="DROP CONSTRAINT t_pkey",
    keys_are_text=True,
)
TERMINUSDB: Final = Dialect(
    engine="terminusdb",
    binary="BLOB",
    bytes="x'00ff'",
    other_bytes="x'0180'",
    timestamp="DATETIME",
    text="TEXT",
    by_bytes="",
    decoded="CAST(x'{}' AS TEXT)",
    retype_a="RETYPE a",
    require_a="REQUIRE a INT",
    drop_key="DROP KEY",
)
"""SQLite's words, and some that it lacks: see ``terminus_tables``."""
NO_DOCUMENTS: Final[Mapping[str, str]] = {
    "a column with a default added there, a row added here": "a property has no default",
    "a value that must be the only one": "a class has no rule that a value is the only one, but for its key",
    "a value that must be the only one, in another row": "a class has no rule that a value is the only one, but for its key",
    "a value that must be the only one there, twice here": "a class has no rule that a value is the only one, but for its key",
    "a sum that is too much": "a class has no rule about several properties",
}
"""The cases that documents cannot express, and why."""


@dataclass(frozen=True)
class Named:
    """A conflict as a case expects it."""

    kind: str
    table: str = "t"
    column: str | None = None
    key: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What comes of a case. One of ``rows``, ``conflicts``, ``refused`` and ``moved`` is there."""

    rows: Rows | None = None
    """What ``Case.select`` finds after the merge."""
    conflicts: tuple[Named, ...] = ()
    take_source: Rows | None = None
    """What it finds after all conflicts were decided for the source; None: they cannot be."""
    take_target: Rows | None = None
    refused: str = ""
    """The words by which a source is refused, whatever the target holds."""
    moved: str = ""
    """What is named as not being as it was when the result is written, so that nothing is."""
    why: str = ""
    """Why it is not what comes of it elsewhere."""


@dataclass(frozen=True)
class Case:
    name: str
    base: tuple[str, ...]
    ours: tuple[str, ...]
    theirs: tuple[str, ...]
    outcome: Outcome
    select: str = "SELECT * FROM t ORDER BY id"
    otherwise: Mapping[str, Outcome] = field(default_factory=dict)
    """What comes of it on the engines of these names."""

    def beyond(self, dialect: Dialect) -> str | None:
        """Return why an engine cannot express it, if so."""
        return NO_DOCUMENTS.get(self.name) if dialect == TERMINUSDB else None

    def outcome_on(self, dialect: Dialect) -> Outcome:
        """Return what comes of it on an engine."""
        return self.otherwise.get(dialect.engine, self.outcome)


TABLE = "CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(20))"
ROWS = "INSERT INTO t VALUES (1, 1, 'one'), (2, 2, 'two'), (3, 3, 'three')"
PLAIN = (TABLE, ROWS)
LIST = ("CREATE TABLE t (a INT, b VARCHAR(20))", "INSERT INTO t VALUES (1, 'x'), (1, 'x'), (2, 'y')")
WORDS = (
    "CREATE TABLE t (id VARCHAR(20) PRIMARY KEY, a INT)",
    "INSERT INTO t VALUES ('', 1), ('Grün', 1), ('grün', 1), ('紅 🌱', 1), ('it''s', 1)",
)
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
UNIQUE = ("CREATE TABLE t (id INT PRIMARY KEY, e VARCHAR(9), CONSTRAINT only_one UNIQUE (e))",)

NO_KEY = {
    "postgresql": Outcome(
        refused="rows of t differ, but it has no primary key",
        why="A change set tells rows apart by their primary keys.",
    )
}
AS_THE_SERVER_DOES = "The clone's definition comes as a statement, which does to the live rows what it did there."
GUARDED = "The live rows of a table whose columns get other names or types are guarded, and not merged."
LOST = {
    "postgresql": Outcome(
        moved="Lost t", why="What is lost with a column or table is guarded as a whole, by the sum of its values."
    )
}
REDEFINED = {
    "postgresql": Outcome(
        conflicts=(Named("Schema"),),
        why="A change set rests on the definitions of its snapshot: the change is to be made on a new clone.",
    )
}
ITSELF = "A document is itself, and not another one with the same content."
RENAMED = "A property with another name is one that is gone and one that is new."
BY_THE_SERVER = "The server says which row broke its rule as it was written, and of a new rule none."

CASES: Final = (
    Case(
        "disjoint rows",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1", "INSERT INTO t VALUES (4, 4, 'four')"),
        ("UPDATE t SET a = 20 WHERE id = 2", "DELETE FROM t WHERE id = 3", "INSERT INTO t VALUES (5, 5, 'five')"),
        Outcome(rows=((1, 10, "one"), (2, 20, "two"), (4, 4, "four"), (5, 5, "five"))),
    ),
    Case(
        "only the source has changed",
        PLAIN,
        (),
        ("UPDATE t SET a = 20 WHERE id = 2",),
        Outcome(rows=((1, 1, "one"), (2, 20, "two"), (3, 3, "three"))),
    ),
    Case(
        "both tables of a pair",
        (*PLAIN, "CREATE TABLE u (id INT PRIMARY KEY)"),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("INSERT INTO u VALUES (1)",),
        Outcome(rows=((10, 1),)),
        select="SELECT t.a, u.id FROM t, u WHERE t.id = 1",
    ),
    Case(
        "same row, other columns",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("UPDATE t SET b = 'ONE' WHERE id = 1",),
        Outcome(rows=((1, 10, "ONE"), (2, 2, "two"), (3, 3, "three"))),
    ),
    Case(
        "same cell, same value",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        Outcome(rows=((1, 10, "one"), (2, 2, "two"), (3, 3, "three"))),
    ),
    Case(
        "same cell",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("UPDATE t SET a = 11, b = 'ONE' WHERE id = 1",),
        Outcome(
            conflicts=(Named("Cell", column="a", key={"id": 1}),),
            take_source=((1, 11, "ONE"), (2, 2, "two"), (3, 3, "three")),
            take_target=((1, 10, "ONE"), (2, 2, "two"), (3, 3, "three")),
        ),
    ),
    Case(
        "two cells of a row and one of another",
        PLAIN,
        ("UPDATE t SET a = 10, b = 'mine' WHERE id = 1", "UPDATE t SET b = 'mine' WHERE id = 3"),
        ("UPDATE t SET a = 11, b = 'yours' WHERE id = 1", "UPDATE t SET b = 'yours' WHERE id = 3"),
        Outcome(
            conflicts=(
                Named("Cell", column="a", key={"id": 1}),
                Named("Cell", column="b", key={"id": 1}),
                Named("Cell", column="b", key={"id": 3}),
            ),
            take_source=((1, 11, "yours"), (2, 2, "two"), (3, 3, "yours")),
            take_target=((1, 10, "mine"), (2, 2, "two"), (3, 3, "mine")),
        ),
    ),
    Case(
        "deleted there, changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("DELETE FROM t WHERE id = 1",),
        Outcome(
            conflicts=(Named("Row", key={"id": 1}),),
            take_source=((2, 2, "two"), (3, 3, "three")),
            take_target=((1, 10, "one"), (2, 2, "two"), (3, 3, "three")),
        ),
    ),
    Case(
        "changed there, deleted here",
        PLAIN,
        ("DELETE FROM t WHERE id = 1",),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        Outcome(
            conflicts=(Named("Row", key={"id": 1}),),
            take_source=((1, 10, "one"), (2, 2, "two"), (3, 3, "three")),
            take_target=((2, 2, "two"), (3, 3, "three")),
        ),
    ),
    Case(
        "deleted on both sides",
        PLAIN,
        ("DELETE FROM t WHERE id = 1",),
        ("DELETE FROM t WHERE id = 1",),
        Outcome(rows=((2, 2, "two"), (3, 3, "three"))),
    ),
    Case(
        "deleted and made anew here, changed there",
        PLAIN,
        ("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (1, 1, 'ONE')"),
        ("UPDATE t SET a = 11 WHERE id = 1",),
        Outcome(rows=((1, 11, "ONE"), (2, 2, "two"), (3, 3, "three"))),
    ),
    Case(
        "another key there, changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("UPDATE t SET id = 9 WHERE id = 1",),
        Outcome(
            conflicts=(Named("Row", key={"id": 1}),),
            take_source=((2, 2, "two"), (3, 3, "three"), (9, 1, "one")),
            take_target=((1, 10, "one"), (2, 2, "two"), (3, 3, "three"), (9, 1, "one")),
        ),
    ),
    Case(
        "the same key added",
        PLAIN,
        ("INSERT INTO t VALUES (4, 4, 'four')",),
        ("INSERT INTO t VALUES (4, 5, 'four')",),
        Outcome(
            conflicts=(Named("Cell", column="a", key={"id": 4}),),
            take_source=((1, 1, "one"), (2, 2, "two"), (3, 3, "three"), (4, 5, "four")),
            take_target=((1, 1, "one"), (2, 2, "two"), (3, 3, "three"), (4, 4, "four")),
        ),
    ),
    Case(
        "the same row added",
        PLAIN,
        ("INSERT INTO t VALUES (4, 4, 'four')",),
        ("INSERT INTO t VALUES (4, 4, 'four')",),
        Outcome(rows=((1, 1, "one"), (2, 2, "two"), (3, 3, "three"), (4, 4, "four"))),
    ),
    Case(
        "a key of several columns",
        (
            "CREATE TABLE t (k VARCHAR(9), id INT, v INT, PRIMARY KEY (k, id))",
            "INSERT INTO t VALUES ('a', 1, 1), ('a', 2, 1), ('b', 1, 1)",
        ),
        ("UPDATE t SET v = 2 WHERE k = 'a' AND id = 2", "DELETE FROM t WHERE k = 'b'"),
        ("UPDATE t SET v = 3 WHERE k = 'a' AND id = 2", "UPDATE t SET v = 3 WHERE k = 'b'"),
        Outcome(
            conflicts=(
                Named("Cell", column="v", key={"k": "a", "id": 2}),
                Named("Row", key={"k": "b", "id": 1}),
            ),
            take_source=(("a", 1, 1), ("a", 2, 3), ("b", 1, 3)),
            take_target=(("a", 1, 1), ("a", 2, 2)),
        ),
        select="SELECT * FROM t ORDER BY k, id",
    ),
    Case(
        "keys of any letters, disjoint",
        WORDS,
        ("UPDATE t SET a = 2 WHERE id IN ('', 'grün')", "INSERT INTO t VALUES ('z', 2)"),
        ("UPDATE t SET a = 3 WHERE id = '紅 🌱'", "DELETE FROM t WHERE id = 'Grün'", "INSERT INTO t VALUES ('É', 3)"),
        Outcome(rows=(("", 2), ("grün", 2), ("it's", 1), ("z", 2), ("É", 3), ("紅 🌱", 3))),
        select="SELECT * FROM t ORDER BY id {by_bytes}",
    ),
    Case(
        "keys of any letters, each in conflict",
        WORDS,
        ("UPDATE t SET a = 2",),
        ("UPDATE t SET a = 3",),
        Outcome(
            conflicts=tuple(
                Named("Cell", column="a", key={"id": key}) for key in ("", "Grün", "grün", "紅 🌱", "it's")
            ),
            take_source=((3, 5),),
            take_target=((2, 5),),
        ),
        select="SELECT a, COUNT(*) FROM t GROUP BY a",
    ),
    Case(
        "a value against no value",
        PLAIN,
        ("UPDATE t SET a = NULL WHERE id = 1", "UPDATE t SET b = NULL WHERE id = 2"),
        ("UPDATE t SET a = 11 WHERE id = 1", "UPDATE t SET a = NULL WHERE id = 2"),
        Outcome(
            conflicts=(Named("Cell", column="a", key={"id": 1}),),
            take_source=((1, 11, "one"), (2, None, None), (3, 3, "three")),
            take_target=((1, None, "one"), (2, None, None), (3, 3, "three")),
        ),
    ),
    Case(
        "no value against an empty one",
        PLAIN,
        ("UPDATE t SET b = '' WHERE id = 1",),
        ("UPDATE t SET b = NULL WHERE id = 1",),
        Outcome(
            conflicts=(Named("Cell", column="b", key={"id": 1}),),
            take_source=((1, 1, None), (2, 2, "two"), (3, 3, "three")),
            take_target=((1, 1, ""), (2, 2, "two"), (3, 3, "three")),
        ),
    ),
    Case(
        "cells of all kinds, disjoint",
        CELLS,
        ("UPDATE t SET n = 2.0001, x = {other_bytes}",),
        ("UPDATE t SET d = '1999-12-31', w = '1999-12-31 00:00:00', s = '紅 🌱'",),
        Outcome(rows=(("2.0001", "1999-12-31", "紅 🌱"),)),
        select="SELECT CAST(n AS {text}), CAST(d AS {text}), s FROM t",
    ),
    Case(
        "cells of all kinds, each in conflict",
        CELLS,
        ("UPDATE t SET n = 2, d = '2021-01-01', w = '2021-01-01 00:00:00', x = {other_bytes}, s = 'rot'",),
        ("UPDATE t SET n = 1.5001, d = '2022-01-01', w = '2022-01-01 00:00:00', x = NULL, s = '紅 🌱'",),
        Outcome(
            conflicts=tuple(Named("Cell", column=column, key={"id": 1}) for column in "dnswx"),
            take_source=(("1.5001", "2022-01-01", "紅 🌱"),),
            take_target=(("2.0000", "2021-01-01", "rot"),),
        ),
        select="SELECT CAST(n AS {text}), CAST(d AS {text}), s FROM t",
    ),
    Case(
        "the same values in other letters",
        CELLS,
        ("UPDATE t SET n = 2, w = '2021-01-01 00:00:00', s = 'rot'",),
        ("UPDATE t SET n = 2.00, w = '2021-01-01 00:00:00.000', d = '1999-12-31'",),
        Outcome(rows=(("2.0000", "1999-12-31", "rot"),)),
        select="SELECT CAST(n AS {text}), CAST(d AS {text}), s FROM t",
    ),
    Case(
        "bytes that are no text, as a key too",
        ("CREATE TABLE t (id {binary} PRIMARY KEY, a INT)", "INSERT INTO t VALUES ({bytes}, 1), ({other_bytes}, 1)"),
        ("UPDATE t SET a = 2 WHERE id = {bytes}",),
        ("DELETE FROM t WHERE id = {other_bytes}",),
        Outcome(rows=((2,),)),
        select="SELECT a FROM t",
    ),
    Case(
        "no key, disjoint",
        LIST,
        ("INSERT INTO t VALUES (3, 'z')",),
        ("DELETE FROM t WHERE a = 2", "INSERT INTO t VALUES (4, 'w'), (4, 'w')"),
        Outcome(rows=((1, "x"), (1, "x"), (3, "z"), (4, "w"), (4, "w"))),
        select="SELECT * FROM t ORDER BY a",
        otherwise=NO_KEY,
    ),
    Case(
        "no key, the same row more often on one side and gone on the other",
        LIST,
        ("INSERT INTO t VALUES (1, 'x')",),
        ("DELETE FROM t WHERE a = 1",),
        Outcome(
            conflicts=(Named("Row", key={"a": 1, "b": "x"}),),
            take_source=((2, "y"),),
            take_target=((1, "x"), (1, "x"), (1, "x"), (2, "y")),
        ),
        select="SELECT * FROM t ORDER BY a",
        otherwise={**NO_KEY, "terminusdb": Outcome(rows=((1, "x"), (2, "y")), why=ITSELF)},
    ),
    Case(
        "no key, the same row more often on both sides",
        LIST,
        ("INSERT INTO t VALUES (2, 'y')",),
        ("INSERT INTO t VALUES (2, 'y'), (2, 'y')",),
        Outcome(
            conflicts=(Named("Row", key={"a": 2, "b": "y"}),),
            take_source=((1, "x"), (1, "x"), (2, "y"), (2, "y"), (2, "y")),
            take_target=((1, "x"), (1, "x"), (2, "y"), (2, "y")),
        ),
        select="SELECT * FROM t ORDER BY a",
        otherwise={
            **NO_KEY,
            "terminusdb": Outcome(rows=((1, "x"), (1, "x"), (2, "y"), (2, "y"), (2, "y"), (2, "y")), why=ITSELF),
        },
    ),
    Case(
        "no key, changed here alone",
        (*LIST, "CREATE TABLE u (id INT PRIMARY KEY)"),
        ("DELETE FROM t WHERE a = 1",),
        ("INSERT INTO u VALUES (1)",),
        Outcome(rows=((2, "y", 1),)),
        select="SELECT t.a, t.b, u.id FROM t, u",
    ),
    Case(
        "a column added there, rows changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1", "DELETE FROM t WHERE id = 3"),
        ("ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET c = 5 WHERE id = 2"),
        Outcome(rows=((1, 10, "one", None), (2, 2, "two", 5))),
    ),
    Case(
        "a column added there, and a cell in conflict",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET a = 11, c = 5 WHERE id = 1"),
        Outcome(
            conflicts=(Named("Cell", column="a", key={"id": 1}),),
            take_source=((1, 11, "one", 5), (2, 2, "two", None), (3, 3, "three", None)),
            take_target=((1, 10, "one", 5), (2, 2, "two", None), (3, 3, "three", None)),
        ),
    ),
    Case(
        "a column with a default added there, a row added here",
        PLAIN,
        ("INSERT INTO t VALUES (4, 4, 'four')",),
        ("ALTER TABLE t ADD COLUMN c INT DEFAULT 7", "DELETE FROM t WHERE id < 3"),
        Outcome(rows=((3, 3, "three", 7), (4, 4, "four", 7))),
    ),
    Case(
        "a column added here, rows changed there",
        PLAIN,
        ("ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET c = 5 WHERE id = 2"),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        Outcome(rows=((1, 10, "one", None), (2, 2, "two", 5), (3, 3, "three", None))),
        otherwise=REDEFINED,
    ),
    Case(
        "the same column added on both sides",
        PLAIN,
        ("ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET c = 5 WHERE id = 2"),
        ("ALTER TABLE t ADD COLUMN c INT", "UPDATE t SET c = 6 WHERE id = 3"),
        Outcome(
            conflicts=(Named("Cell", column="c", key={"id": 2}), Named("Cell", column="c", key={"id": 3})),
            take_source=((1, 1, "one", None), (2, 2, "two", None), (3, 3, "three", 6)),
            take_target=((1, 1, "one", None), (2, 2, "two", 5), (3, 3, "three", None)),
        ),
        otherwise={
            **REDEFINED,
            "terminusdb": Outcome(
                rows=((1, 1, "one", None), (2, 2, "two", 5), (3, 3, "three", 6)),
                why="A document that is without a property has no value for it that could be in conflict.",
            ),
        },
    ),
    Case(
        "a column renamed there, rows changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t RENAME COLUMN a TO number",),
        Outcome(rows=((1, 10), (2, 2), (3, 3))),
        select="SELECT id, number FROM t ORDER BY id",
        otherwise={"terminusdb": Outcome(conflicts=(Named("Schema"),), why=RENAMED)},
    ),
    Case(
        "a column renamed there, and another cell in conflict",
        PLAIN,
        ("UPDATE t SET a = 10, b = 'mine' WHERE id = 1",),
        ("ALTER TABLE t RENAME COLUMN a TO number", "UPDATE t SET b = 'yours' WHERE id = 1"),
        Outcome(
            conflicts=(Named("Cell", column="b", key={"id": 1}),),
            take_source=((1, 10, "yours"), (2, 2, "two"), (3, 3, "three")),
            take_target=((1, 10, "mine"), (2, 2, "two"), (3, 3, "three")),
        ),
        otherwise={
            "terminusdb": Outcome(conflicts=(Named("Schema"),), why=RENAMED),
            "postgresql": Outcome(moved="Row t", why=GUARDED),
        },
    ),
    Case(
        "a column renamed to two names",
        PLAIN,
        ("ALTER TABLE t RENAME COLUMN a TO mine",),
        ("ALTER TABLE t RENAME COLUMN a TO yours",),
        Outcome(conflicts=(Named("Schema"),)),
        otherwise={"terminusdb": Outcome(rows=((1, 1, "one", 1), (2, 2, "two", 2), (3, 3, "three", 3)), why=RENAMED)},
    ),
    Case(
        "a column of two types",
        PLAIN,
        ("ALTER TABLE t {retype_a} BIGINT",),
        ("ALTER TABLE t {retype_a} DECIMAL(9, 2)",),
        Outcome(conflicts=(Named("Schema"),)),
    ),
    Case(
        "a column of another type there, rows changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t {retype_a} VARCHAR(9)",),
        Outcome(conflicts=(Named("Schema"),)),
        otherwise={
            "postgresql": Outcome(rows=((1, "10", "one"), (2, "2", "two"), (3, "3", "three")), why=AS_THE_SERVER_DOES)
        },
    ),
    Case(
        "a column of another type there, and the same row changed on both sides",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t {retype_a} VARCHAR(9)", "UPDATE t SET b = 'yours' WHERE id = 1"),
        Outcome(conflicts=(Named("Schema"),)),
        otherwise={"postgresql": Outcome(moved="Row t", why=GUARDED)},
    ),
    Case(
        "a column added with two types",
        PLAIN,
        ("ALTER TABLE t ADD COLUMN c INT",),
        ("ALTER TABLE t ADD COLUMN c VARCHAR(9)",),
        Outcome(conflicts=(Named("Schema"),)),
    ),
    Case(
        "a column dropped there, others changed here",
        PLAIN,
        ("UPDATE t SET b = 'mine' WHERE id = 1",),
        ("ALTER TABLE t DROP COLUMN a", "UPDATE t SET b = 'yours' WHERE id = 2"),
        Outcome(rows=((1, "mine"), (2, "yours"), (3, "three"))),
    ),
    Case(
        "a column dropped there, changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t DROP COLUMN a",),
        Outcome(conflicts=(Named("Schema"), Named("Row", key={"id": 1}))),
        otherwise={
            **LOST,
            "terminusdb": Outcome(
                conflicts=(Named("Schema"),), why="No document can be decided for before the class is mended."
            ),
        },
    ),
    Case(
        "a table dropped there, changed here",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("DROP TABLE t",),
        Outcome(conflicts=(Named("Schema"),)),
        otherwise=LOST,
    ),
    Case(
        "a table dropped there, another changed here",
        (*PLAIN, "CREATE TABLE u (id INT PRIMARY KEY)", "INSERT INTO u VALUES (1)"),
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("DROP TABLE u",),
        Outcome(rows=((1, 10, "one"), (2, 2, "two"), (3, 3, "three"))),
    ),
    Case(
        "a table added there",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        (
            "CREATE TABLE u (id INT PRIMARY KEY, t INT NOT NULL, CONSTRAINT u_of FOREIGN KEY (t) REFERENCES t (id))",
            "INSERT INTO u VALUES (1, 1)",
        ),
        Outcome(rows=((1, 10, 1),)),
        select="SELECT t.id, t.a, u.id FROM t, u WHERE u.t = t.id",
    ),
    Case(
        "a table added twice",
        PLAIN,
        ("CREATE TABLE u (id INT PRIMARY KEY)",),
        ("CREATE TABLE u (id INT PRIMARY KEY, a INT)",),
        Outcome(conflicts=(Named("Schema", table="u"),)),
    ),
    Case(
        "another primary key there",
        PLAIN,
        ("UPDATE t SET a = 10 WHERE id = 1",),
        ("ALTER TABLE t {drop_key}", "ALTER TABLE t ADD PRIMARY KEY (id, b)"),
        Outcome(conflicts=(Named("Schema"),)),
        otherwise={
            "postgresql": Outcome(
                refused="the table t cannot be in a change set: its primary key is of other columns",
                why="A change set tells rows apart by their primary keys, whatever happens on the target.",
            )
        },
    ),
    Case(
        "a child here of a parent that is gone there",
        FAMILY,
        ("INSERT INTO t VALUES (2, 2)",),
        ("DELETE FROM parent WHERE id = 2",),
        Outcome(conflicts=(Named("ForeignKey", key={"id": 2}),)),
        otherwise={
            "postgresql": Outcome(conflicts=(Named("ForeignKey", table="parent", key={"id": 2}),), why=BY_THE_SERVER)
        },
    ),
    Case(
        "a child there of a parent that is gone here",
        FAMILY,
        ("DELETE FROM parent WHERE id = 2",),
        ("INSERT INTO t VALUES (2, 2)",),
        Outcome(conflicts=(Named("ForeignKey", key={"id": 2}),)),
        otherwise={
            "terminusdb": Outcome(
                conflicts=(Named("ForeignKey", table="parent", key={"id": 2}),),
                why="The server says what is not there, and not who refers to it.",
            )
        },
    ),
    Case(
        "a decision that brings the parent back",
        FAMILY,
        ("DELETE FROM parent WHERE id = 2",),
        ("UPDATE parent SET name = 'c' WHERE id = 2", "INSERT INTO t VALUES (2, 2)"),
        Outcome(
            conflicts=(Named("Row", table="parent", key={"id": 2}), Named("ForeignKey", key={"id": 2})),
            take_source=((1, 1), (2, 2)),
        ),
        otherwise=dict.fromkeys(
            ("postgresql", "terminusdb"),
            Outcome(
                conflicts=(Named("Row", table="parent", key={"id": 2}),),
                take_source=((1, 1), (2, 2)),
                why="Whether a rule is kept is found out by writing, and nothing is written while a conflict is open.",
            ),
        ),
    ),
    Case(
        "a decision that takes the parent away",
        FAMILY,
        ("UPDATE parent SET name = 'c' WHERE id = 2", "INSERT INTO t VALUES (2, 2)"),
        ("DELETE FROM parent WHERE id = 2",),
        Outcome(conflicts=(Named("Row", table="parent", key={"id": 2}),), take_target=((1, 1), (2, 2))),
    ),
    Case(
        "a foreign key there, a child without a parent here",
        ("CREATE TABLE parent (id INT PRIMARY KEY)", "CREATE TABLE t (id INT PRIMARY KEY, parent INT)"),
        ("INSERT INTO t VALUES (1, 1)",),
        ("ALTER TABLE t ADD CONSTRAINT child_of FOREIGN KEY (parent) REFERENCES parent (id)",),
        Outcome(conflicts=(Named("ForeignKey", key={"id": 1}),)),
        otherwise={
            "terminusdb": Outcome(conflicts=(Named("Schema"),), why="A reference is a property of another type."),
            "postgresql": Outcome(conflicts=(Named("ForeignKey"),), why=BY_THE_SERVER),
        },
    ),
    Case(
        "a value that must be the only one",
        UNIQUE,
        ("INSERT INTO t VALUES (1, 'x')",),
        ("INSERT INTO t VALUES (2, 'x')",),
        Outcome(conflicts=(Named("Unique", key={"id": 1}), Named("Unique", key={"id": 2}))),
        otherwise={"postgresql": Outcome(conflicts=(Named("Unique", key={"id": 2}),), why=BY_THE_SERVER)},
    ),
    Case(
        "a value that must be the only one, in another row",
        (*UNIQUE, "INSERT INTO t VALUES (1, 'x')"),
        ("INSERT INTO t VALUES (3, 'y')",),
        ("DELETE FROM t WHERE id = 1", "INSERT INTO t VALUES (2, 'x')"),
        Outcome(rows=((2, "x"), (3, "y"))),
    ),
    Case(
        "a value that must be the only one there, twice here",
        PLAIN,
        ("INSERT INTO t VALUES (4, 1, 'four')",),
        ("CREATE UNIQUE INDEX only_a ON t (a)",),
        Outcome(conflicts=(Named("Unique", key={"id": 1}), Named("Unique", key={"id": 4}))),
        otherwise={"postgresql": Outcome(conflicts=(Named("Unique"),), why=BY_THE_SERVER)},
    ),
    Case(
        "a sum that is too much",
        (
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b INT, CONSTRAINT little CHECK (a + b < 10))",
            "INSERT INTO t VALUES (1, 1, 1)",
        ),
        ("UPDATE t SET a = 8",),
        ("UPDATE t SET b = 8",),
        Outcome(conflicts=(Named("Check", key={"id": 1}),)),
    ),
    Case(
        "nothing where there must be something",
        PLAIN,
        ("INSERT INTO t VALUES (4, NULL, 'four')",),
        ("ALTER TABLE t {require_a}",),
        Outcome(conflicts=(Named("NotNull", key={"id": 4}),)),
        otherwise={"postgresql": Outcome(conflicts=(Named("NotNull"),), why=BY_THE_SERVER)},
    ),
)


def large(rows: int) -> Case:
    """Return the case of a thousand rows among a power of ten, each of which both sides have changed."""
    digits = len(str(rows)) - 1
    numbers = " UNION ".join(["SELECT 0 AS n", *(f"SELECT {digit}" for digit in range(1, 10))])
    value = " + ".join(f"d{place}.n * {10**place}" for place in range(digits))
    tables = ", ".join(f"({numbers}) d{place}" for place in range(digits))
    return Case(
        f"a thousand rows of {rows:,}",
        (
            "CREATE TABLE t (id INT PRIMARY KEY, a INT, b VARCHAR(40))",
            f"INSERT INTO t SELECT {value}, 1, 'a row like all the others' FROM {tables}",
        ),
        (f"UPDATE t SET b = 'mine' WHERE id % {rows // 1000} = 0",),
        (f"UPDATE t SET a = 2 WHERE id % {rows // 1000} = 0",),
        Outcome(rows=((rows, rows + 1000, 1000),)),
        select="SELECT COUNT(*), SUM(a), SUM(CASE WHEN b = 'mine' THEN 1 ELSE 0 END) FROM t",
    )
