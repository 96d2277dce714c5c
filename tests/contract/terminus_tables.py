"""Tables as documents: the merge cases are written in SQL, which TerminusDB does not speak.

A side of a case is run in SQLite. What is there then becomes a schema and documents: a table a class, a row a document that is named by its primary key,
a column that may be NULL an optional property, a foreign key a reference. A question about a result goes the other way.
"""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from urllib.parse import quote

Document = dict[str, Any]

_TYPES: Final = {
    "INT": "xsd:integer", "BIGINT": "xsd:long", "DECIMAL": "xsd:decimal", "VARCHAR": "xsd:string", "DATE": "xsd:date",
    "DATETIME": "xsd:dateTime", "BLOB": "xsd:base64Binary",
}  # fmt: skip
_ALTER: Final = re.compile(r"ALTER TABLE (\w+) (RETYPE|REQUIRE|DROP KEY|ADD PRIMARY KEY|ADD CONSTRAINT)\b ?(.*)")


@dataclass(frozen=True)
class Column:
    name: str
    declared: str
    required: bool = False
    parent: str | None = None

    @property
    def kind(self) -> str:
        return self.parent or _TYPES[self.declared.partition("(")[0]]

    @property
    def scale(self) -> Decimal:
        digits = re.search(r", (\d+)\)", self.declared)
        return Decimal(1).scaleb(-int(digits.group(1)) if digits else 0)


@dataclass(frozen=True)
class Table:
    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]

    def document(self) -> Document:
        key = {"@type": "Lexical", "@fields": list(self.key)} if self.key else {"@type": "Random"}
        properties = {
            column.name: column.kind if column.required or column.name in self.key else {"@type": "Optional", "@class": column.kind}
            for column in self.columns
        }  # fmt: skip
        return {"@id": self.name, "@type": "Class", "@key": key, **properties}


@dataclass
class Tables:
    """The tables of one side; ``rows`` are those that the base had in tables without a key, by their row numbers."""

    side: str
    database: sqlite3.Connection = field(default_factory=lambda: sqlite3.connect(":memory:", isolation_level=None))
    rows: frozenset[tuple[str, int]] = frozenset()

    def run(self, statements: Sequence[str]) -> None:
        for statement in statements:
            if change := _ALTER.fullmatch(statement):
                self._alter(*change.groups())
            else:
                self.database.execute(statement)

    def parted(self, side: str) -> Tables:
        """Return a copy that goes its own way."""
        other = Tables(
            side, rows=frozenset((table.name, number) for table in self.tables() for number in self._numbers(table))
        )
        self.database.backup(other.database)
        return other

    def tables(self) -> Sequence[Table]:
        found = self.database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
        return [self._table(name) for (name,) in found.fetchall()]

    def schema(self) -> Mapping[str, Document]:
        return {table.name: table.document() for table in self.tables()}

    def documents(self) -> Mapping[str, Document]:
        return {name: document for table in self.tables() for name, document in self._documents(table)}

    def keys(self) -> Mapping[str, Mapping[str, Any]]:
        """Return how the cases name the rows, by the names of the documents."""
        found = {}
        for table in self.tables():
            for name, row in self._rows(table):
                found[name] = {column: row[column] for column in table.key or row}
        return found

    def _documents(self, table: Table) -> Sequence[tuple[str, Document]]:
        found = []
        for name, row in self._rows(table):
            values = {
                column.name: _value(column, row[column.name])
                for column in table.columns
                if row[column.name] is not None
            }
            found.append((name, {"@id": name, "@type": table.name, **values}))
        return found

    def _rows(self, table: Table) -> Sequence[tuple[str, dict[str, Any]]]:
        names = ", ".join(column.name for column in table.columns)
        found = []
        for number, *cells in self.database.execute(f"SELECT rowid, {names} FROM {table.name}"):
            row = dict(zip((column.name for column in table.columns), cells, strict=True))
            known = "" if (table.name, number) in self.rows else self.side
            by = [_key(row[name]) for name in table.key] or [f"{known}{number}"]
            found.append((f"{table.name}/{'+'.join(by)}", row))
        return found

    def _numbers(self, table: Table) -> Sequence[int]:
        return [number for (number,) in self.database.execute(f"SELECT rowid FROM {table.name}")]

    def _table(self, name: str) -> Table:
        columns, key = [], {}
        parents = {row[3]: row[2] for row in self.database.execute(f"PRAGMA foreign_key_list({name})")}
        for _, column, declared, required, _, place in self.database.execute(f"PRAGMA table_info({name})"):
            columns.append(Column(column, declared, bool(required), parents.get(column)))
            if place:
                key[place] = column
        return Table(name, tuple(columns), tuple(key[place] for place in sorted(key)))

    def _alter(self, name: str, what: str, rest: str) -> None:
        table = self._table(name)
        match what:
            case "RETYPE" | "REQUIRE":
                column, _, declared = rest.partition(" ")
                changed = {"declared": declared} if what == "RETYPE" else {"required": True}
                columns = tuple(replace(each, **changed) if each.name == column else each for each in table.columns)
                table = replace(table, columns=columns)
            case "DROP KEY":
                table = replace(table, key=())
            case "ADD PRIMARY KEY":
                table = replace(table, key=tuple(rest.strip("()").split(", ")))
            case _:
                column, parent = re.findall(r"KEY \((\w+)\) REFERENCES (\w+)", rest)[0]
                columns = tuple(replace(each, parent=parent) if each.name == column else each for each in table.columns)
                table = replace(table, columns=columns)
        self._rebuild(table)

    def _rebuild(self, table: Table) -> None:
        lines = [f"{column.name} {column.declared}{' NOT NULL' if column.required else ''}" for column in table.columns]
        lines += [
            f"FOREIGN KEY ({column.name}) REFERENCES {column.parent} (id)" for column in table.columns if column.parent
        ]
        lines += [f"PRIMARY KEY ({', '.join(table.key)})"] if table.key else []
        names = ", ".join(["rowid", *(column.name for column in table.columns)])
        self.database.execute(f"ALTER TABLE {table.name} RENAME TO old")
        self.database.execute(f"CREATE TABLE {table.name} ({', '.join(lines)})")
        self.database.execute(f"INSERT INTO {table.name} ({names}) SELECT {names} FROM old")
        self.database.execute("DROP TABLE old")


def ask(
    schema: Sequence[Document], documents: Sequence[Document], scales: Mapping[tuple[str, str], Decimal], select: str
) -> Sequence[tuple[Any, ...]]:
    """Ask documents a question in SQL."""
    database = sqlite3.connect(":memory:")
    for known in schema:
        if known["@type"] != "Class":
            continue
        names = [word for word in known if not word.startswith("@")]
        database.execute(f"CREATE TABLE {known['@id']} ({', '.join(names)})")
        rows = [
            [_cell(known[word], document.get(word), scales.get((known["@id"], word))) for word in names]
            for document in documents
            if document["@type"] == known["@id"]
        ]
        database.executemany(f"INSERT INTO {known['@id']} VALUES ({', '.join('?' * len(names))})", rows)
    return database.execute(select).fetchall()


def scales(tables: Tables) -> Mapping[tuple[str, str], Decimal]:
    """Return how many digits decimals have."""
    return {
        (table.name, column.name): column.scale
        for table in tables.tables()
        for column in table.columns
        if column.kind == "xsd:decimal"
    }


def _key(cell: Any) -> str:
    return quote(base64.b64encode(cell).decode() if isinstance(cell, bytes) else str(cell), safe="")


def _value(column: Column, cell: Any) -> Any:
    if column.parent:
        return f"{column.parent}/{_key(cell)}"
    match column.kind:
        case "xsd:decimal":
            return float(cell)
        case "xsd:dateTime":
            return f"{datetime.fromisoformat(cell).isoformat()}Z"
        case "xsd:base64Binary":
            return base64.b64encode(cell).decode()
        case "xsd:string":
            return str(cell)
        case _:
            return cell


def _cell(kind: Any, value: Any, scale: Decimal | None) -> Any:
    inner = kind["@class"] if isinstance(kind, dict) else kind
    if value is None:
        return None
    if scale is not None:
        return str(Decimal(str(value)).quantize(scale))
    if inner == "xsd:base64Binary":
        return base64.b64decode(value)
    return int(value.rpartition("/")[2]) if not inner.startswith("xsd:") else value
