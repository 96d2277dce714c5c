"""The owners' own checks of a commit on a scratch server: queries that are asked, and a login for programs.

Whatever a query says, it changes nothing: it is one SELECT (the only statement that may stand in another's FROM, and
the only one that PREPARE takes), it is asked of a commit, which nobody can write to, and by a login that may read and
nothing else. A program has such a login as well, and a binding whose database is the commit. Dolt lets every login
change the server's settings; what a commit holds is not among them. But a branch or tag that has a commit's name is
read in its place: before a program comes, apps lose the right to make one, and a query is asked only while there is
none.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

from coppice.engines import mysql
from coppice.engines.base import Endpoint, EngineError, UnreachableError
from coppice.engines.doltprotection import keep_names
from coppice.engines.doltrefs import commit_of, use
from coppice.engines.merging import Assertion, AssertionResult
from coppice.engines.mysql import Session, identified, identifier, literal

MAX_FOUND: Final = 1000
_USER: Final = "coppice-check"
PROGRAM_USER: Final = "coppice-program"
"""As whom the owners' programs read: a login of its own, for the other comes and goes with each query."""


async def assertions(
    at: Endpoint, database: str, commit: str, checks: Sequence[Assertion]
) -> Sequence[AssertionResult]:
    """Ask each check by itself, as somebody who may read this database and nothing else."""
    reader = Endpoint(at.host, at.port, _USER, secrets.token_urlsafe(24))
    user = f"{literal(_USER)}@'%'"
    async with mysql.session(at) as session:
        await use(session, database)
        exact = await commit_of(session, database, commit)
        await session.ask(
            f"DROP USER IF EXISTS {user}; CREATE USER {user} {identified(reader.password)};"
            f" GRANT SELECT ON {identifier(database)}.* TO {user}"
        )
    try:
        return [await _asked(reader, database, exact, check) for check in checks]
    finally:
        async with mysql.session(at) as session:
            await session.ask(f"DROP USER IF EXISTS {user}")


async def ensure_program_user(session: Session, at: Endpoint, given: Mapping[str, str]) -> None:
    """Make the login of the owners' programs, which may read a database and nothing else, where no app can put
    something else in the place of what they read.
    """
    database, password = given["database"], given["password"]
    await keep_names(at, database, given["username"])
    user, secret = f"{literal(PROGRAM_USER)}@'%'", identified(password)
    try:
        await session.ask(
            f"CREATE USER IF NOT EXISTS {user} {secret}; ALTER USER {user} {secret};"
            f" GRANT SELECT ON {identifier(database)}.* TO {user}"
        )
    except mysql.StatementError as error:  # the server's words may quote the statement, hash and all
        raise EngineError(f"the server refused to make the login {PROGRAM_USER}: error {error.code}") from None


async def _asked(reader: Endpoint, database: str, commit: str, check: Assertion) -> AssertionResult:
    try:
        async with mysql.work_session(reader) as session:
            await use(session, f"{database}/{commit}")
            before, found, after = await _at(session), await _found(session, check.query), await _at(session)
    except UnreachableError:
        raise
    except mysql.StatementError as error:
        return AssertionResult(check.name, error=f"the server refused the query: error {error.code}")
    except EngineError:
        return AssertionResult(check.name, error="the query cannot be asked")
    if not before == after == (None, commit):
        return AssertionResult(check.name, error="a branch or tag of the scratch server has the name of a commit")
    return AssertionResult(check.name, found)


async def _at(session: Session) -> tuple[str | None, str]:
    """Return on which branch a session is, and at which commit."""
    [((branch, head),)] = await session.ask("SELECT active_branch(), dolt_hashof('HEAD')")
    return branch, str(head)


async def _found(session: Session, query: str) -> int:
    inner = query.strip().rstrip(";")
    # A line of its own for what follows: the query may end with a comment.
    wrapped = f"SELECT COUNT(*) FROM (SELECT 1 FROM (\n{inner}\n) AS q LIMIT {MAX_FOUND}) AS n"  # noqa: S608
    [((number,),)] = await session.ask(f"PREPARE q FROM {literal(wrapped)}; EXECUTE q")
    return int(number)
