"""``coppice diff``: how two versions of data differ, and what a change request would change.

Rows are written as they come and never collected: a comparison may have more of them than this machine has memory.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import click
from rich.text import Text

from coppice.cli import patches, proposals
from coppice.cli.cells import DIALECTS, change_as_json, conflict_as_json, statement, terminated
from coppice.cli.completion import names_of
from coppice.cli.data import Data, opened, streamed
from coppice.cli.options import all_of
from coppice.cli.problems import Failure
from coppice.cli.read import meant, placed, the
from coppice.cli.session import Session, command
from coppice.cli.sides import conflict_sides, row_sides, summary
from coppice.cli.versions import Subject, read_span, read_subject
from coppice.cli.words import counted, is_current, next_step, state, title
from coppice.core.plan import Manifest
from coppice.engines.merging import ChangeSet, Conflict, RowChange

REQUEST: Final = "DataChangeRequest"
ROWS, SQL, CONFLICTS = "rows", "sql", "conflicts"

T = TypeVar("T")

_forms: Final = all_of(
    click.option("--rows", "form", flag_value=ROWS, help="The rows that differ, side by side."),
    click.option("--sql", "form", flag_value=SQL, help="Statements that make the same changes."),
    click.option(
        "--conflicts", "form", flag_value=CONFLICTS, help="Of a request: what both sides changed, cell by cell."
    ),
    click.option("--table", help="Of this table alone."),
    click.option("--limit", type=click.IntRange(min=1), help="At most so many rows, or conflicts."),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What somebody wants to see of a difference."""

    form: str | None
    table: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Difference:
    """Two versions of the data of one server."""

    data: Data
    before: str
    after: str

    @property
    def dialect(self) -> str:
        """Return whose SQL it is."""
        return self.data.engine.binding_type

    async def changes(self) -> ChangeSet:
        """Return the difference in numbers."""
        return await self.data.engine.changes(self.data.at, self.data.database, self.before, self.after)

    def rows(self, table: str | None) -> AsyncIterator[RowChange]:
        """Hand out the rows that differ."""
        return self.data.engine.rows(self.data.at, self.data.database, self.before, self.after, table)


Compared = Difference | patches.Patched | patches.Unwritten


@command("diff")
@click.argument(
    "what",
    metavar="CLONE|STORE:A..B|request/NAME",
    shell_complete=names_of("DataClone", "DataStore", prefixed={"request/": REQUEST}),
)
@_forms
async def diff(session: Session, what: str, form: str | None, table: str | None, limit: int | None) -> None:
    """Show how versions differ: what changed on a CLONE, from A to B in a STORE, or what a request changes.

    A and B are branches, tags or commits; A...B shows what B has since it left A. Without --rows, --sql or --conflicts
    it is a summary. With --output json, rows and conflicts are one JSON object a line.
    """
    subject, wanted = read_subject(what), Wanted(form, table, limit)
    if form == CONFLICTS:
        if subject.kind != REQUEST:
            raise click.UsageError("--conflicts is of a request: coppice diff request/NAME --conflicts")
        await _show_conflicts(session, await placed(session, REQUEST, subject.place), wanted)
        return
    looked = _of_request if subject.kind == REQUEST else _of_data
    async with looked(session, subject) as difference:
        await _show(session, difference, wanted)


@asynccontextmanager
async def _of_data(session: Session, subject: Subject) -> AsyncIterator[Compared]:
    async with opened(session, await meant(session, subject)) as data:
        before, after = await _versions(session, data, subject.point)
        yield Difference(data, before, after)


async def _versions(session: Session, data: Data, point: str) -> tuple[str, str]:
    """Return what is compared: two versions that are named, or what a clone came from with what is there now."""
    span = read_span(point)
    if span is not None:
        return await data.between(span)
    if data.of["kind"] == "DataStore":
        raise Failure(f"name two versions of {title(data.of)}, for example main..{point or 'feature/autumn'}")
    base = ((data.of.get("status") or {}).get("source") or {}).get("head")
    if base is None:
        raise Failure(f"{title(data.of)} has no copy yet ({state(data.of)}): {next_step(data.of)}")
    if point:
        return base, point
    branch = await data.branch()
    if await data.has_uncommitted(branch):
        name = data.of["metadata"]["name"]
        session.say(
            f"branch {branch} has changes that are not committed, and not shown: coppice commit {name} -m MESSAGE, and "
            "ask again"
        )
    return base, branch


@asynccontextmanager
async def _of_request(session: Session, subject: Subject) -> AsyncIterator[Compared]:
    request = await placed(session, REQUEST, subject.place)
    if proposals.is_for_database(request):
        async with patches.compared(session, request) as found:
            yield found
        return
    look = proposals.look_at(request)
    for note in (look.note, "" if is_current(request) else "the request has been changed since this was computed"):
        if note:
            session.say(note)
    async with opened(session, await the(session, *look.place)) as data:
        yield Difference(data, look.before, look.after)


async def _show(session: Session, difference: Compared, wanted: Wanted) -> None:
    if wanted.form == ROWS:
        await _each(session, difference.rows(wanted.table), wanted, _written(session, change_as_json, row_sides), "row")
    elif wanted.form == SQL:
        await _show_sql(session, difference, wanted)
    else:
        changes = await difference.changes()
        session.show(_as_json(changes), *summary(changes))
        if changes.tables:
            session.say("--rows shows the rows side by side, --sql the statements that make these changes")


async def _show_sql(session: Session, difference: Compared, wanted: Wanted) -> None:
    dialect = DIALECTS[difference.dialect]
    if wanted.table is None:
        for text in terminated((await difference.changes()).statements):
            click.echo(text)

    def write(change: RowChange) -> None:
        text = statement(change, dialect)
        if text is not None:
            click.echo(text)

    await _each(session, difference.rows(wanted.table), wanted, write, "row")


async def _show_conflicts(session: Session, request: Manifest, wanted: Wanted) -> None:
    decisions = proposals.decisions_of(request)

    def drawn(conflict: Conflict, width: int) -> Text:
        return conflict_sides(conflict, proposals.side_taken(conflict, decisions), width)

    def as_json(conflict: Conflict) -> dict[str, Any]:
        return {**conflict_as_json(conflict), "taken": proposals.side_taken(conflict, decisions)}

    conflicts = patches.conflicts if proposals.is_for_database(request) else _merged
    async with conflicts(session, request) as found:
        shown = _of_table(found, wanted.table)
        await _each(session, shown, wanted, _written(session, as_json, drawn), "conflict")
    name = request["metadata"]["name"]
    session.say(f"decide with: coppice resolve {name} --conflict ID --take source|target")


@asynccontextmanager
async def _merged(session: Session, request: Manifest) -> AsyncIterator[AsyncIterator[Conflict]]:
    """Hand out the conflicts of a merge."""
    inputs, where = proposals.merge_of(request), proposals.conflicts_at(request)
    async with opened(session, await the(session, *where.place)) as data:
        yield data.engine.conflicts(data.at, proposals.in_database(inputs, data.database))


async def _of_table(found: AsyncIterator[Conflict], table: str | None) -> AsyncIterator[Conflict]:
    async with streamed(found) as conflicts:
        async for conflict in conflicts:
            if table is None or conflict.table == table:
                yield conflict


def _written(
    session: Session, as_json: Callable[[T], dict[str, Any]], drawn: Callable[[T, int], Text]
) -> Callable[[T], None]:
    """Return how one thing of a stream is written."""

    def write(thing: T) -> None:
        if session.as_json:
            click.echo(json.dumps(as_json(thing)))
            return
        session.out.print(drawn(thing, session.out.width), soft_wrap=True)

    return write


async def _each(
    session: Session, stream: AsyncIterator[T], wanted: Wanted, write: Callable[[T], None], what: str
) -> None:
    found = 0
    async with streamed(stream) as things:
        async for thing in things:
            if found == wanted.limit:
                session.say(f"the first {counted(found, what)}; there are more")
                return
            write(thing)
            found += 1
    session.say(counted(found, what))


def _as_json(changes: ChangeSet) -> dict[str, Any]:
    tables = [
        {
            "table": entry.table,
            "added": entry.added,
            "modified": entry.modified,
            "deleted": entry.deleted,
            "schema": entry.schema,
        }
        for entry in changes.tables
    ]
    return {"tables": tables, "statements": list(changes.statements), "digest": changes.digest}
