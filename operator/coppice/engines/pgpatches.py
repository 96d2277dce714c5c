"""PostgreSQL's patches in the words of ``coppice.engines.patching``: change sets, judged and written."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Final

from coppice.engines import libpq, pgcompare, pgpublish
from coppice.engines.base import Endpoint, EngineError
from coppice.engines.decisions import Decisions
from coppice.engines.libpq import Session
from coppice.engines.merging import Assertion, AssertionResult, ChangeSet, RowChange
from coppice.engines.patching import Begun, BrokenRulesError, Fate, JudgedPatch, Patch, PatchInputs
from coppice.engines.pgcompare import Place, definitions_query, session_options
from coppice.engines.pgscripts import Plan, Script, script_of

MAX_FOUND: Final = 1000
"""How many rows are counted that a check of the owners' finds."""
MARK: Final = """\
SELECT system_identifier::text || '-' || pg_walfile_name(pg_current_wal_insert_lsn()) || '-'
    || pg_current_wal_insert_lsn()::text FROM pg_control_system()"""
"""Where the write-ahead log ends, on which server and in which of its histories."""
_AS_APPS_ASK: Final = """SET LOCAL search_path = "$user", public, pg_temp"""
"""Named last, tables of the moment stand in for none: what a patch runs may have made some."""
_NAMES_ALONE: Final = frozenset({"", "42501"})
"""Of what the server says of a database that cannot be entered, or a table that may not be read, no value is part."""


@contextmanager
def _without_values() -> Iterator[None]:
    """Have no words of a server handed on that may quote rows: they would stand in a status."""
    try:
        yield
    except libpq.StatementError as error:
        if error.state in _NAMES_ALONE:
            raise
        raise EngineError(f"the server refused what was asked (SQLSTATE {error.state})") from None


def plan_of(patch: Patch) -> Plan:
    """Return a patch that this engine has made."""
    if not isinstance(patch, Plan):
        raise TypeError("a patch of another engine")
    return patch


async def patch(base: Endpoint, clone: Endpoint, database: str) -> Plan:
    """Return what a clone has changed, tried on the base."""
    with _without_values():
        return await pgcompare.change_set(Place(base, database), Place(clone, database))


async def differences(base: Endpoint, clone: Endpoint, database: str) -> ChangeSet:
    """Count and hash what a clone has changed."""
    return await pgcompare.changes(Place(base, database), Place(clone, database))


async def rows(
    base: Endpoint, clone: Endpoint, database: str, table: str | None = None
) -> AsyncGenerator[RowChange, None]:
    """Hand out the rows that a clone has changed."""
    async with aclosing(pgcompare.rows(Place(base, database), Place(clone, database), table)) as found:
        async for change in found:
            yield change.row


def patch_rows(patch: Patch, table: str | None = None) -> Iterator[RowChange]:
    """Hand out the rows of a patch."""
    return (change.row for change in plan_of(patch).rows if table in (None, change.table))


async def judge(target: Endpoint, database: str, patch: Patch, inputs: PatchInputs) -> JudgedPatch:
    """Merge a patch with the live rows."""
    decisions = Decisions(inputs.decisions)
    with _without_values():
        judged = await pgpublish.judge(Place(target, database), plan_of(patch), inputs.salt, decisions.side_of)
    return JudgedPatch(judged.plan, judged.conflicts, judged.decided, decisions.unused, judged.complete)


def script(patch: Patch) -> Script:
    """Return a patch as guarded statements."""
    return script_of(plan_of(patch), definitions_query())


async def write(target: Endpoint, database: str, patch: Patch, salt: str, begun: Begun) -> None:
    """Write a judged patch in one transaction."""
    broken = await pgpublish.publish(Place(target, database), script(patch), salt, begun)
    if broken:
        raise BrokenRulesError([conflict.name for conflict in broken])


async def fate(target: Endpoint, database: str, transaction: str) -> Fate:
    """Return what became of a transaction."""
    return await pgpublish.outcome(Place(target, database), transaction)


async def try_patch(
    base: Endpoint, database: str, patch: Patch, checks: Sequence[Assertion]
) -> Sequence[AssertionResult]:
    """Ask checks in a transaction that is rolled back, and that writes nothing once the patch is in."""
    with _without_values():
        return await _tried(Place(base, database), patch, checks)


async def _tried(base: Place, patch: Patch, checks: Sequence[Assertion]) -> Sequence[AssertionResult]:
    async with libpq.work_session(base.at, base.database, options=session_options()) as session:
        await pgcompare.rehearse(session, script(patch))
        await session.run("SET TRANSACTION READ ONLY")
        await session.run(_AS_APPS_ASK)
        return [await _asked(session, check) for check in checks]


async def _asked(session: Session, check: Assertion) -> AssertionResult:
    inner = check.query.strip().rstrip(";")
    # A line of its own for what follows: the query may end with a comment.
    wrapped = f"SELECT count(*) FROM (SELECT 1 FROM (\n{inner}\n) AS q LIMIT {MAX_FOUND}) AS n"  # noqa: S608
    await session.run("SAVEPOINT asked")
    try:
        found = await session.number(wrapped)
    except libpq.StatementError as error:
        await session.run("ROLLBACK TO SAVEPOINT asked")
        return AssertionResult(check.name, error=f"the server refused the query: SQLSTATE {error.state}")
    return AssertionResult(check.name, found)
