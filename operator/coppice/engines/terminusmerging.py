"""What TerminusDB can do with two versions: see ``coppice.engines.merging.MergingEngine`` for every method."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence

from coppice.engines import terminuschanges, terminushistory, terminusresult
from coppice.engines.base import Endpoint
from coppice.engines.credentials import binding_values
from coppice.engines.merging import (
    Assertion,
    AssertionResult,
    Authors,
    ChangeSet,
    CommitInfo,
    Conflict,
    MergeInputs,
    MergeOutcome,
    RowChange,
)
from coppice.engines.terminusactions import CHECK_USER
from coppice.engines.terminusapi import session
from coppice.engines.terminuspaths import commit_path


class TerminusDBMerging:
    """A table is a class of documents, a row a document, its key the document's identifier, a column a property."""

    name: str
    port: int
    binding_type: str
    remotes_port = 6363
    """The server has one port for everybody."""
    protects = False
    """Who may write to a database may write to each of its branches."""

    async def log(self, at: Endpoint, database: str, start: str, *, limit: int) -> Sequence[CommitInfo]:
        """Return commits from a version backwards."""
        async with session(at) as api:
            return await terminushistory.log(api, database, start, limit)

    async def authors_between(self, at: Endpoint, database: str, base: str, head: str) -> Authors:
        """Return who made the commits that ``head`` has and ``base`` has not."""
        async with session(at) as api:
            old, new = [await terminushistory.commit_of(api, database, version) for version in (base, head)]
            commits = await terminushistory.graph(api, database)
        names = terminushistory.ancestors(commits, new) - terminushistory.ancestors(commits, old)
        return terminushistory.authors_of(commits, names)

    async def merge_base(self, at: Endpoint, database: str, one: str, other: str) -> str | None:
        """Return the newest commit that two versions come from, by what merges say of themselves too."""
        async with session(at) as api:
            commits = [await terminushistory.commit_of(api, database, version) for version in (one, other)]
            return terminushistory.base_of(await terminushistory.graph(api, database), *commits)

    async def changes(self, at: Endpoint, database: str, before: str, after: str) -> ChangeSet:
        """Return how two versions differ."""
        return await terminuschanges.changes(at, database, before, after)

    def rows(
        self, at: Endpoint, database: str, before: str, after: str, table: str | None = None
    ) -> AsyncGenerator[RowChange, None]:
        """Hand out the documents that differ."""
        return terminuschanges.rows(at, database, before, after, table)

    async def merge(self, at: Endpoint, inputs: MergeInputs) -> MergeOutcome:
        """Merge two commits; the result stays on a branch that is named by a hash of the inputs."""
        return await terminusresult.merge(at, inputs)

    def conflicts(self, at: Endpoint, inputs: MergeInputs) -> AsyncGenerator[Conflict, None]:
        """Hand out the conflicts of a merge, made for that alone on a branch that goes again."""
        return terminusresult.conflicts(at, inputs)

    def check_binding(self, *, host: str, database: str, commit: str, password: str) -> Mapping[str, str]:
        """Return what reads a commit: its path is the database, and nobody can write to that."""
        reader = Endpoint(host, self.port, CHECK_USER, password)
        return {**binding_values(self.binding_type, self.name, reader, database), "path": commit_path(database, commit)}

    async def assertions(
        self, at: Endpoint, database: str, commit: str, checks: Sequence[Assertion]
    ) -> Sequence[AssertionResult]:
        """Say that none can be asked: they are SQL. A check that is a program has its own way to ask."""
        del at, database, commit
        return [
            AssertionResult(check.name, error="TerminusDB answers no SQL: let the check be a Job") for check in checks
        ]
