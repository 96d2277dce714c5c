"""The data themselves, as the person who asks: by the binding Secret that they may read, and a tunnel of their own.

Nothing of what is read here goes anywhere but to their terminal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

from coppice.cli.problems import Failure
from coppice.cli.session import Session
from coppice.cli.tunnel import Reached, reached
from coppice.cli.versions import Span
from coppice.cli.words import title
from coppice.core.plan import Manifest
from coppice.engines.base import (
    Endpoint,
    Engine,
    EngineError,
    LoginRefusedError,
    Reference,
    UnreachableError,
    Version,
)
from coppice.engines.merging import MergingEngine

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Data:
    """The database of a clone or store, open."""

    engine: MergingEngine
    at: Endpoint
    database: str
    of: Manifest

    async def branch(self) -> str:
        """Return the branch that applications work on there."""
        source = (self.of.get("status") or {}).get("source") or {}
        if source.get("branch"):
            return str(source["branch"])
        return (await self.engine.inspect(self.at, database=self.database)).default_branch

    async def head(self, branch: str) -> Version:
        """Return where a branch is; raises UnknownVersionError."""
        return await self.engine.resolve(self.at, self.database, Reference(branch=branch))

    async def has_uncommitted(self, branch: str) -> bool:
        """Return whether somebody has written to a branch and not committed."""
        present = await self.head(branch)
        committed = await self.engine.resolve(self.at, self.database, Reference(commit=present.head))
        return present.working_root != committed.working_root

    async def between(self, span: Span) -> tuple[str, str]:
        """Return the two versions to compare."""
        if not span.since_base:
            return span.before, span.after
        base = await self.engine.merge_base(self.at, self.database, span.before, span.after)
        if base is None:
            raise Failure(f"{span.before} and {span.after} have nothing in common: compare them with two dots")
        return base, span.after


@asynccontextmanager
async def opened(session: Session, found: Manifest) -> AsyncIterator[Data]:
    """Open the data of a clone or store; what its server refuses meanwhile is told with the next step."""
    async with reached(session, found) as way:
        engine = _merging(session, way.values["provider"], found)
        with told(title(found)):
            yield Data(engine, endpoint_of(way), way.values["database"], found)


def endpoint_of(way: Reached) -> Endpoint:
    """Return where to log in, and as whom."""
    values = way.values
    return Endpoint(values["host"], int(values["port"]), values["username"], values["password"], ca=way.ca)


@contextmanager
def told(server: str) -> Iterator[None]:
    """Turn what a server refuses into words for the person."""
    try:
        yield
    except LoginRefusedError as error:
        raise Failure(
            f"{server} refuses the login in its Secret: wait until the operator has made that anew, and ask again"
        ) from error
    except UnreachableError as error:
        raise Failure(f"{server} does not answer: {error}. Look at it with coppice status, and ask again") from error
    except EngineError as error:
        raise Failure(f"{server}: {error}") from error


def engine_of(session: Session, name: str) -> Engine:
    """Return an engine by its name."""
    engine = session.around.engines().get(name)
    if engine is None:
        raise Failure(f"this command has no engine {name}: install its package beside coppice")
    return engine


def _merging(session: Session, name: str, found: Manifest) -> MergingEngine:
    engine = engine_of(session, name)
    if not isinstance(engine, MergingEngine):
        raise Failure(
            f"{title(found)} has the engine {name}, whose versions cannot be compared here: open two clones with "
            "coppice connect, and compare them by its own means"
        )
    return engine


@asynccontextmanager
async def streamed(rows: AsyncIterator[T]) -> AsyncIterator[AsyncIterator[T]]:
    """Hand on a stream, and end it where the reader ends."""
    try:
        yield rows
    finally:
        close = getattr(rows, "aclose", None)
        if close is not None:
            await close()
