"""Requests into a live database, as the person who asks: what a clone has changed is found and merged with the live
rows here, by the logins that they may read, and goes nowhere but to their terminal.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import click

from coppice.cli import proposals
from coppice.cli.cells import visible
from coppice.cli.completion import names_of
from coppice.cli.data import endpoint_of, engine_of, told
from coppice.cli.problems import Failure, explain
from coppice.cli.read import placed, the
from coppice.cli.session import Session, command
from coppice.cli.tunnel import Reached, reached, written_to
from coppice.cli.wishes import read_place
from coppice.cli.words import counted, title
from coppice.core.plan import Manifest
from coppice.engines.base import Endpoint
from coppice.engines.digests import sealed
from coppice.engines.merging import ChangeSet, Conflict, RowChange
from coppice.engines.patching import JudgedPatch, PatchingEngine, RefusedError
from coppice.kube.errors import ForbiddenError

REQUEST = "DataChangeRequest"


@dataclass(frozen=True, slots=True)
class Work:
    """The servers of a request, open. ``live`` is None where live rows are out of the person's reach."""

    request: Manifest
    engine: PatchingEngine
    base: Endpoint
    clone: Endpoint
    database: str
    live: Endpoint | None

    async def judged(self) -> JudgedPatch:
        """Return what is left to write, or all that the clone has changed where nobody can look at live rows."""
        patch = await self.engine.patch(self.base, self.clone, self.database)
        if self.live is None:
            return JudgedPatch(patch)
        return await self.engine.judge(self.live, self.database, patch, proposals.judged_by(self.request))


@dataclass(frozen=True, slots=True)
class Patched:
    """What is left to write to the live database."""

    work: Work
    found: JudgedPatch = field(repr=False)

    @property
    def dialect(self) -> str:
        """Return whose SQL it is."""
        return self.work.engine.binding_type

    async def changes(self) -> ChangeSet:
        """Return it in numbers."""
        return self.found.patch.changes

    async def rows(self, table: str | None) -> AsyncIterator[RowChange]:
        """Hand out the rows, as they are there and will be."""
        for change in self.work.engine.patch_rows(self.found.patch, table):
            yield change


@dataclass(frozen=True, slots=True)
class Unwritten:
    """All that a clone has changed, of which something cannot be written."""

    work: Work

    @property
    def dialect(self) -> str:
        """Return whose SQL it is."""
        return self.work.engine.binding_type

    async def changes(self) -> ChangeSet:
        """Return it in numbers."""
        return await self.work.engine.differences(self.work.base, self.work.clone, self.work.database)

    def rows(self, table: str | None) -> AsyncIterator[RowChange]:
        """Hand out the rows."""
        return self.work.engine.rows(self.work.base, self.work.clone, self.work.database, table)


@asynccontextmanager
async def compared(session: Session, request: Manifest) -> AsyncIterator[Patched | Unwritten]:
    """Find what a request would write; what that is not is said."""
    async with opened(session, request, needs_live=False) as work:
        try:
            found = Patched(work, await work.judged())
        except RefusedError as error:
            session.say(f"this cannot be written: {error}. It is what the clone has changed")
            yield Unwritten(work)
            return
        waiting = counted(len(found.found.conflicts), "conflict")
        if found.found.conflicts:
            name, are = request["metadata"]["name"], "is" if len(found.found.conflicts) == 1 else "are"
            session.say(f"{waiting} {are} left out: see coppice diff request/{name} --conflicts")
        yield found


@asynccontextmanager
async def opened(session: Session, request: Manifest, *, needs_live: bool) -> AsyncIterator[Work]:
    """Open the servers of a request: the copy of the snapshot, the clone, and the live one if it can be looked at."""
    scratch, clone, store = [await the(session, *found.place) for found in proposals.servers_of(request)]
    async with AsyncExitStack() as stack:
        base = await stack.enter_async_context(reached(session, scratch))
        changed = await stack.enter_async_context(reached(session, clone))
        engine = engine_of(session, changed.values["provider"])
        if not isinstance(engine, PatchingEngine):
            raise Failure(f"this command's engine {engine.name} has no way to look at {title(request)}: upgrade it")
        live = await _live(session, stack, store, needs_live=needs_live)
        stack.enter_context(told(f"a server of {title(request)}"))
        yield Work(request, engine, endpoint_of(base), endpoint_of(changed), changed.values["database"], live)


async def _live(session: Session, stack: AsyncExitStack, store: Manifest, *, needs_live: bool) -> Endpoint | None:
    """Return where live rows are looked at; None where that is nobody's, or with a word about it not this person's."""
    adopted: Any = store["spec"].get("adopted")
    if adopted is not None and "writer" not in adopted:
        session.say(f"{title(store)} has no login for a look at live rows: this is what the clone has changed")
        return None
    try:
        if adopted is not None:
            return await stack.enter_async_context(written_to(session, store))
        live: Reached = await stack.enter_async_context(reached(session, store))
    except ForbiddenError as error:
        if needs_live:
            raise
        session.say(f"live rows are not looked at ({explain(error)}): this is what the clone has changed")
        return None
    return endpoint_of(live)


@asynccontextmanager
async def conflicts(session: Session, request: Manifest) -> AsyncIterator[AsyncIterator[Conflict]]:
    """Hand out what both the clone and the live database have changed, decided or not."""
    async with opened(session, request, needs_live=True) as work:
        found = await work.judged()
        yield _each((*found.conflicts, *found.decided))


async def _each(found: Sequence[Conflict]) -> AsyncIterator[Conflict]:
    for conflict in found:
        yield conflict


@command("patch")
@click.argument("request", shell_complete=names_of(REQUEST))
async def patch(session: Session, request: str) -> None:
    """Print what was approved of a REQUEST with publish: Patch, as SQL for psql -X -v ON_ERROR_STOP=1 -f FILE.

    It is one transaction that commits if everything is as it was reviewed, and else does nothing.
    """
    found = await placed(session, REQUEST, read_place(request))
    approved = proposals.patch_to_print(found)
    async with opened(session, found, needs_live=True) as work:
        judged = await work.judged()
    # Whoever has this password could compute it anyway.
    if sealed(judged.patch.changes.digest, work.base.password) != approved:
        raise Failure(
            f"{title(found)} is not what was approved any more: rows of the clone or of the live database have "
            f"changed. Wait until coppice status {found['metadata']['name']} says so, and have it approved again"
        )
    _print(session, found, work.engine.script(judged.patch))


def _print(session: Session, request: Manifest, script: str) -> None:
    if session.as_json:
        session.show({"request": request["metadata"]["name"], "sql": script})
        return
    if sys.stdout.isatty() and visible(script.replace("\n", "")) != script.replace("\n", ""):
        raise Failure("there are characters in it that a terminal would act on: write it into a file, > FILE")
    # As bytes, of which click takes none out: not a character is another one for who runs it.
    click.echo(script.encode(), nl=False)
