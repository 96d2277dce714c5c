"""The tables in which migration tools write down what they have applied: the part that every SQL engine shares.

An engine lists the names of its tables, has ``find_ledger`` choose one, runs the statement for it, with the table's
name quoted in its own way, and has the rows read. A preparation, which is a script, does the same by ``LOOKUPS``, for
the newest rows alone. The columns are the tools' own:

- Flyway: https://documentation.red-gate.com/fd/flyway-schema-history-table-273973417.html
- Liquibase: https://docs.liquibase.com/concepts/tracking-tables/databasechangelog-table.html
- Alembic: ``alembic.runtime.migration.MigrationContext``, which knows the present heads only
- Django: ``django.db.migrations.recorder.MigrationRecorder``
- Rails: ``ActiveRecord::SchemaMigration``; golang-migrate's table has the same name, hence the second table
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from coppice.engines.base import Ledger, LedgerTool

MAX_REPORTED: Final = 100
"""How many rows of a ledger a preparation reports: the newest ones, as the tool counts."""

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
    """``query`` reads all rows, the oldest first; ``newest`` the same columns of the last ones, or those that count."""

    table: str
    columns: tuple[str, ...]
    query: str
    newest: str
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
            ("version", "type", "success"),
            "SELECT version, type, success FROM {table} WHERE version IS NOT NULL ORDER BY installed_rank",
            "SELECT version, type, success FROM (SELECT version, type, success, installed_rank FROM {table}"
            " WHERE version IS NOT NULL ORDER BY installed_rank DESC LIMIT {limit}) n ORDER BY installed_rank",
            _flyway,
        ),
        "liquibase": _Tool(
            "databasechangelog",
            ("id", "exectype"),
            "SELECT id, exectype FROM {table} ORDER BY orderexecuted",
            "SELECT id, exectype FROM (SELECT id, exectype, orderexecuted FROM {table}"
            " ORDER BY orderexecuted DESC LIMIT {limit}) n ORDER BY orderexecuted",
            _liquibase,
        ),
        "alembic": _Tool(
            "alembic_version",
            ("version_num",),
            "SELECT version_num FROM {table} ORDER BY version_num",
            "SELECT version_num FROM {table} ORDER BY version_num LIMIT {limit}",
            _names("alembic"),
        ),
        "django": _Tool(
            "django_migrations",
            ("app", "name"),
            "SELECT app, name FROM {table} ORDER BY id",
            # The newest of each app: one that was not changed for long says as much as the others.
            "SELECT app, name FROM (SELECT app, MAX(name) AS name, MAX(id) AS latest FROM {table}"
            " GROUP BY app ORDER BY latest DESC LIMIT {limit}) n ORDER BY latest",
            _names("django"),
        ),
        "rails": _Tool(
            "schema_migrations",
            ("version",),
            "SELECT version FROM {table} ORDER BY version",
            "SELECT version FROM (SELECT version FROM {table}"
            " ORDER BY LENGTH(version) DESC, version DESC LIMIT {limit}) n ORDER BY LENGTH(version), version",
            _names("rails"),
            beside="ar_internal_metadata",
        ),
    }
)
"""In the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """How a script finds a tool's table and reads the newest rows: names in lower case, and the table's place left."""

    tool: LedgerTool
    table: str
    beside: str | None
    query: str


LOOKUPS: Final = tuple(
    Lookup(name, tool.table, tool.beside, tool.newest.format(table="{table}", limit=MAX_REPORTED))
    for name, tool in _TOOLS.items()
)
"""In the order in which they are to be tried."""


def read_report(tool: str, rows: Iterable[Mapping[str, Any]]) -> Ledger:
    """Return the ledger that a preparation has reported; raises KeyError for what is none."""
    known = next((known for name, known in _TOOLS.items() if name == tool), None)
    if known is None:
        raise KeyError(tool)
    return known.read([row[column] for column in known.columns] for row in rows)


def is_within(ledger: Ledger, version: str, others: Iterable[Ledger] = ()) -> bool | None:
    """Return whether there is nothing beyond a version in a ledger; None where the tool does not let that be told.

    The order is the tool's own. Flyway and Rails count, whatever was applied first. Django counts in each app.
    Liquibase has the order in which changesets were applied: what it says of a version that this ledger has not, it
    says in one of ``others`` that has it. Alembic writes down where the database is and no order: only that can be
    named.
    """
    match ledger.tool:
        case "flyway":
            return _all_up_to((*ledger.applied, *ledger.failed), version, _flyway_order)
        case "rails":
            return _all_up_to(ledger.applied, version, _rails_order)
        case "django":
            return _is_within_app(ledger.applied, version)
        case "liquibase":
            return _is_within_order(ledger.applied, version, others)
        case "alembic":
            return True if not ledger.applied or version in ledger.applied else None


def lacking(ledger: Ledger, versions: Iterable[str]) -> list[str]:
    """Return what was applied and is none of some versions, in the order of the ledger."""
    spelling = _flyway_spelling if ledger.tool == "flyway" else str
    known = {spelling(version) for version in versions}
    return [version for version in ledger.applied if spelling(version) not in known]


def _all_up_to(applied: Iterable[str], version: str, order: Callable[[str], tuple[int, ...] | None]) -> bool | None:
    """Return whether all that was applied comes before or with a version; what is no version comes after all."""
    wanted = order(version)
    if wanted is None:
        return None
    found = [order(entry) for entry in applied]
    return all(entry is not None and entry <= wanted for entry in found)


def _flyway_order(version: str) -> tuple[int, ...] | None:
    """Return what Flyway compares: numbers between dots or underscores; 1.0 is 1."""
    if not re.fullmatch(r"[0-9]+([._][0-9]+)*", version):
        return None
    numbers = [int(part) for part in re.split(r"[._]", version)]
    while len(numbers) > 1 and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _flyway_spelling(version: str) -> str:
    order = _flyway_order(version)
    return version if order is None else ".".join(str(number) for number in order)


def _rails_order(version: str) -> tuple[int, ...] | None:
    return (int(version),) if re.fullmatch(r"[0-9]+", version) else None


def _is_within_app(applied: Iterable[str], version: str) -> bool | None:
    """Return whether an app of Django's has no other migration of the same number as this one or a higher one."""
    app, _, name = version.partition(".")
    wanted = _django_number(name)
    names = [entry.partition(".")[2] for entry in applied if entry.partition(".")[0] == app]
    if wanted is None or not names:
        return None
    numbers = [(_django_number(entry), entry) for entry in names]
    return all(entry == name or (number is not None and number < wanted) for number, entry in numbers)


def _django_number(name: str) -> int | None:
    found = re.match(r"[0-9]+", name)
    return None if found is None else int(found[0])


def _is_within_order(applied: Sequence[str], version: str, others: Iterable[Ledger]) -> bool | None:
    if not applied or applied[-1] == version:
        return True
    if version in applied:
        return False
    for other in others:
        if other.tool == "liquibase" and version in other.applied and applied[-1] in other.applied:
            return other.applied.index(applied[-1]) < other.applied.index(version)
    return None
