"""The tables in which migration tools write down what they have applied: the part that every SQL engine shares.

An engine lists the names of its tables, has ``find_ledger`` choose one, runs the statement for it, with the table's
name quoted in its own way, and has the rows read. The columns are the tools' own:

- Flyway: https://documentation.red-gate.com/fd/flyway-schema-history-table-273973417.html
- Liquibase: https://docs.liquibase.com/concepts/tracking-tables/databasechangelog-table.html
- Alembic: ``alembic.runtime.migration.MigrationContext``, which knows the present heads only
- Django: ``django.db.migrations.recorder.MigrationRecorder``
- Rails: ``ActiveRecord::SchemaMigration``; golang-migrate's table has the same name, hence the second table
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from coppice.engines.base import Ledger, LedgerTool

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class LedgerTable:
    """A tool's table in a database: its name there, as it is written, and how to read it."""

    tool: LedgerTool
    table: str

    def statement(self, quoted: str) -> str:
        """Return the query, given the table's name as the engine quotes it."""
        return _TOOLS[self.tool].query.format(table=quoted)

    def read(self, rows: Iterable[Row]) -> Ledger:
        """Return the ledger that the query's rows mean."""
        return _TOOLS[self.tool].read(rows)


def find_ledger(tables: Iterable[str]) -> LedgerTable | None:
    """Return the tool's table among the tables of a database, or None; with several tools, one and the same always.

    Letter case is the server's affair: Liquibase's table is in capitals on one and not on another.
    """
    names = {name.lower(): name for name in tables}
    for tool, known in _TOOLS.items():
        if known.needs <= names.keys():
            return LedgerTable(tool, names[known.table])
    return None


def _flyway(rows: Iterable[Row]) -> Ledger:
    """Read (version, type, success): a version may be undone or its row be crossed out by a later one."""
    applied: dict[str, None] = {}
    failed: dict[str, None] = {}
    for version, kind, success in rows:
        name = str(version)
        applied.pop(name, None)
        failed.pop(name, None)
        if not success:
            failed[name] = None
        elif kind != "DELETE" and not str(kind).startswith("UNDO"):
            applied[name] = None
    return Ledger("flyway", tuple(applied), tuple(failed))


def _liquibase(rows: Iterable[Row]) -> Ledger:
    """Read (id, exectype); a changeset that was skipped has not been applied."""
    entries = [(str(name), str(how)) for name, how in rows]
    applied = tuple(name for name, how in entries if how not in {"FAILED", "SKIPPED"})
    return Ledger("liquibase", applied, tuple(name for name, how in entries if how == "FAILED"))


def _names(tool: LedgerTool) -> Callable[[Iterable[Row]], Ledger]:
    """Return what reads rows of which each is one applied version, in one or several columns."""
    return lambda rows: Ledger(tool, tuple(".".join(str(part) for part in row) for row in rows))


@dataclass(frozen=True, slots=True)
class _Tool:
    table: str
    query: str
    read: Callable[[Iterable[Row]], Ledger]
    beside: str | None = None

    @property
    def needs(self) -> frozenset[str]:
        """Return the tables without which the tool has not been at work."""
        return frozenset({self.table} if self.beside is None else {self.table, self.beside})


_TOOLS: Final[Mapping[LedgerTool, _Tool]] = MappingProxyType(
    {
        "flyway": _Tool(
            "flyway_schema_history",
            "SELECT version, type, success FROM {table} WHERE version IS NOT NULL ORDER BY installed_rank",
            _flyway,
        ),
        "liquibase": _Tool("databasechangelog", "SELECT id, exectype FROM {table} ORDER BY orderexecuted", _liquibase),
        "alembic": _Tool("alembic_version", "SELECT version_num FROM {table} ORDER BY version_num", _names("alembic")),
        "django": _Tool("django_migrations", "SELECT app, name FROM {table} ORDER BY id", _names("django")),
        "rails": _Tool(
            "schema_migrations",
            "SELECT version FROM {table} ORDER BY version",
            _names("rails"),
            beside="ar_internal_metadata",
        ),
    }
)
"""In the order in which they are looked for."""
