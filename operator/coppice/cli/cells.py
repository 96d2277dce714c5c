"""Values of rows as text: for a terminal, for programs, and as SQL. Pure.

What stands in a database may be meant for the terminal of whoever looks at it: nothing that a terminal takes for an
order is written to one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from coppice.engines.merging import Binary, Conflict, RowChange, Value

NULL: Final = "NULL"


def shown(value: object) -> str:
    """Return a value as a person reads it, in characters that only show."""
    if value is None:
        return NULL
    if isinstance(value, bool):
        return "true" if value else "false"
    return visible(str(value))


def visible(text: str) -> str:
    """Return a text with what does not show written as an escape."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def named(key: Mapping[str, Value]) -> str:
    """Return a row's key: ``AlbumId=1, TrackId=12``."""
    return ", ".join(f"{visible(name)}={shown(value)}" for name, value in key.items())


def changed_columns(change: RowChange) -> list[str]:
    """Return the columns that are worth a look: of a row that was modified those that differ."""
    before, after = change.before or {}, change.after or {}
    columns = list(dict.fromkeys((*before, *after)))
    if change.before is None or change.after is None:
        return columns
    return [name for name in columns if before.get(name) != after.get(name) or (name in before) != (name in after)]


def change_as_json(change: RowChange) -> dict[str, Any]:
    """Return a changed row for a program."""
    return {
        "table": change.table,
        "kind": change.kind,
        "key": dict(change.key),
        "before": None if change.before is None else dict(change.before),
        "after": None if change.after is None else dict(change.after),
    }


def conflict_as_json(conflict: Conflict) -> dict[str, Any]:
    """Return a conflict for a program."""
    sides = {"base": conflict.base, "ours": conflict.ours, "theirs": conflict.theirs}
    return {
        "id": conflict.id,
        "row": conflict.row or None,
        "kind": conflict.kind,
        "table": conflict.table,
        "column": conflict.column,
        "key": dict(conflict.key),
        "detail": conflict.detail or None,
        **{side: dict(value) if isinstance(value, Mapping) else value for side, value in sides.items()},
    }


@dataclass(frozen=True, slots=True)
class Dialect:
    """How an engine's SQL writes things."""

    identifier: Callable[[str], str]
    has_schemas: bool
    text: Callable[[str], str]
    binary: Callable[[str], str]
    same: str
    """The comparison that holds for two NULLs."""
    delete_one: str
    """How one of several equal rows is deleted, of ``{table}`` and ``{where}``."""


def statement(change: RowChange, dialect: Dialect) -> str | None:
    """Return the statement that makes the same change to a row; None where a definition's change makes it already."""
    parts = change.table.split(".", 1) if dialect.has_schemas else [change.table]
    table = ".".join(dialect.identifier(part) for part in parts)
    if change.before is None:
        cells = change.after or {}
        columns, values = _columns(dialect, cells), ", ".join(_literal(dialect, value) for value in cells.values())
        return f"INSERT INTO {table} ({columns}) VALUES ({values});"  # noqa: S608 - it is written, not run
    where = _where(dialect, change.key or change.before)
    if change.after is not None:
        cells = {name: change.after[name] for name in changed_columns(change) if name in change.after}
        settings = [f"{dialect.identifier(name)} = {_literal(dialect, value)}" for name, value in cells.items()]
        return f"UPDATE {table} SET {', '.join(settings)} WHERE {where};" if settings else None  # noqa: S608 - as above
    if change.key:
        return f"DELETE FROM {table} WHERE {where};"  # noqa: S608 - as above
    return dialect.delete_one.format(table=table, where=where)


def _columns(dialect: Dialect, cells: Mapping[str, Value]) -> str:
    return ", ".join(dialect.identifier(name) for name in cells)


def _where(dialect: Dialect, values: Mapping[str, Value]) -> str:
    return " AND ".join(
        f"{dialect.identifier(name)} {'=' if value is not None else dialect.same} {_literal(dialect, value)}"
        for name, value in values.items()
    )


def _literal(dialect: Dialect, value: Value) -> str:
    match value:
        case None:
            return NULL
        case bool():
            return "TRUE" if value else "FALSE"
        case Binary():
            return dialect.binary(value.removeprefix("0x"))
        case float() if not math.isfinite(value):
            return dialect.text(str(value))
        case int() | float():
            return repr(value)
        case _:
            return dialect.text(value)


def _mysql_text(text: str) -> str:
    if any(not (one.isprintable() or one in "\n\r\t") for one in text):
        return f"CONVERT(0x{text.encode().hex()} USING utf8mb4)"
    escaped = text.replace("\\", "\\\\").replace("'", "''")
    for one, written in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        escaped = escaped.replace(one, written)
    return f"'{escaped}'"


def _postgresql_text(text: str) -> str:
    quoted = text.replace("'", "''")
    if text.isprintable():
        return f"'{quoted}'"
    escaped = "".join(one if one.isprintable() else f"\\U{ord(one):08x}" for one in quoted.replace("\\", "\\\\"))
    return f"E'{escaped}'"


def _quoting(mark: str) -> Callable[[str], str]:
    return lambda name: f"{mark}{name.replace(mark, mark * 2)}{mark}"


DIALECTS: Final[Mapping[str, Dialect]] = {
    "mysql": Dialect(
        _quoting("`"),
        False,
        _mysql_text,
        lambda digits: f"0x{digits}" if digits else "''",
        "<=>",
        "DELETE FROM {table} WHERE {where} LIMIT 1;",
    ),
    "postgresql": Dialect(
        _quoting('"'),
        True,
        _postgresql_text,
        lambda digits: f"'\\x{digits}'",
        "IS NOT DISTINCT FROM",
        "DELETE FROM {table} WHERE ctid = (SELECT ctid FROM {table} WHERE {where} LIMIT 1);",
    ),
}
"""By the ``type`` of a binding."""


def terminated(statements: Sequence[str]) -> list[str]:
    """Return statements with the semicolon that each of them ends with."""
    return [f"{text.rstrip().rstrip(';')};" for text in statements]
