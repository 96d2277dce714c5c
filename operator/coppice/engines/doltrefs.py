# ruff: noqa: S608 - every name in a statement is quoted by identifier(), every value is bound or quoted by literal()
"""Dolt's branches, tags and commits by their names, for the parts of the engine that ask about them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from coppice.engines import mysql
from coppice.engines.base import Endpoint, EngineError, Tag, UnknownVersionError, Version
from coppice.engines.mysql import Session, identifier, literal

NEW_BRANCH: Final = "coppice"
OWN_PREFIX: Final = "coppice/"
"""What branches and tags of Coppice's own begin with."""
LOOK_PREFIX: Final = f"{OWN_PREFIX}work-"
"""And the branches that conflicts are read on, by whoever wants to know them."""
SYSTEM_DATABASES: Final = frozenset({"information_schema", "mysql", "performance_schema", "sys"})
_HASH: Final = re.compile(r"[0-9a-v]{7,32}")
_HASH_LENGTH: Final = 32


@asynccontextmanager
async def transaction(at: Endpoint) -> AsyncIterator[Session]:
    """Open a session in a transaction that began in no database (see the module's facts)."""
    async with mysql.session(at) as session:
        await session.ask("START TRANSACTION READ ONLY")
        yield session


def user_databases(rows: mysql.ResultSet) -> list[str]:
    """Return the databases that hold data; SHOW DATABASES may also list the branch a session is on (``db/branch``)."""
    return sorted(name for (name,) in rows if name.lower() not in SYSTEM_DATABASES and "/" not in name)


def state_statements(database: str, branches: Iterable[str]) -> Iterable[str]:
    """Return what asks for the state of each branch."""
    for branch in branches:
        yield f"USE {identifier(f'{database}/{branch}')}"
        yield "SELECT database(), active_branch(), dolt_hashof('HEAD'), dolt_hashof_db()"


async def use(session: Session, database: str) -> None:
    """Make a database, or a branch of one (``database/branch``), the current one."""
    try:
        await session.ask(f"USE {identifier(database)}")
    except mysql.StatementError as error:
        if error.code != mysql.UNKNOWN_DATABASE:
            raise
        name, _, branch = database.partition("/")
        what = f"branch {branch} in {name}" if branch else f"database {name}"
        raise UnknownVersionError(f"there is no {what}") from None


async def resolve_branch(session: Session, database: str, branch: str) -> Version:
    """Return the state of a branch."""
    [branches] = await session.ask("SELECT name FROM dolt_branches ORDER BY name")
    if (branch,) not in branches:
        raise UnknownVersionError(f"there is no branch {branch} in {database}; there is {_some(branches)}")
    [((_, _, head, working_root),)] = await session.ask("; ".join(state_statements(database, [branch])))
    return Version(database, branch, head, working_root)


async def commit_of_tag(session: Session, database: str, tag: str) -> str:
    """Return the commit that a tag names."""
    [tags] = await session.ask("SELECT tag_name, tag_hash FROM dolt_tags ORDER BY tag_name")
    commit = next((row[1] for row in tags if row[0] == tag), None)
    if commit is None:
        raise UnknownVersionError(f"there is no tag {tag} in {database}; there is {_some(tags)}")
    return str(commit)


async def tags(session: Session, database: str, prefix: str) -> list[Tag]:
    """Return the tags whose names begin so."""
    await use(session, database)
    [rows] = await session.ask("SELECT tag_name, tag_hash, date FROM dolt_tags ORDER BY tag_name")
    # Not by LIKE: in that the names of branches would have to be escaped.
    return [
        Tag(str(name), str(commit), date.replace(tzinfo=UTC)) for name, commit, date in rows if name.startswith(prefix)
    ]


async def commit_of_prefix(session: Session, database: str, prefix: str) -> str:
    """Return the commit that a hash, or the first characters of one, names."""
    if not _HASH.fullmatch(prefix):
        raise UnknownVersionError(
            f"{prefix} is no commit: 32 characters of 0-9 and a-v, or the first 7 or more of them"
        )
    if len(prefix) == _HASH_LENGTH:
        statement, value = "SELECT commit_hash FROM dolt_commits WHERE commit_hash = %s", prefix
    else:
        statement, value = "SELECT commit_hash FROM dolt_commits WHERE commit_hash LIKE %s LIMIT 2", f"{prefix}%"
    [found] = await session.ask(statement, [value])
    match found:
        case ((commit,),):
            return str(commit)
        case ():
            raise UnknownVersionError(f"there is no commit {prefix} in {database}")
        case _:
            raise UnknownVersionError(f"several commits of {database} begin with {prefix}: give more of the hash")


async def commit_of_time(session: Session, database: str, time: str) -> str:
    """Return the newest commit that was the head of the default branch by then."""
    try:
        wanted = datetime.fromisoformat(time).astimezone(UTC).replace(tzinfo=None)
    except ValueError:
        raise UnknownVersionError(f"{time} is not a time in RFC 3339") from None
    [((branch,),)] = await session.ask("SELECT active_branch()")
    statement = f"SELECT commit_hash, parents, date FROM dolt_log('--parents', {literal(branch)})"
    expected: str | None = None
    async with aclosing(session.rows(statement)) as log:
        async for commit, parents, date in log:
            if expected not in {None, commit}:
                continue
            if date <= wanted:
                return str(commit)
            expected = parents.split(", ")[0]
    raise UnknownVersionError(f"the branch {branch} of {database} has no commit as old as {time}")


async def commit_of(session: Session, database: str, version: str) -> str:
    """Return the commit that a branch, a tag or a whole hash names."""
    found = await session.ask(
        f"SELECT hash FROM dolt_branches WHERE name = {literal(version)};"
        f" SELECT tag_hash FROM dolt_tags WHERE tag_name = {literal(version)}"
    )
    for rows in found:
        for (commit,) in rows:
            return str(commit)
    if await holds(session, version):
        return version
    raise UnknownVersionError(f"there is no branch, tag or commit {version} in {database}")


async def holds(session: Session, commit: str) -> bool:
    """Return whether a commit is there, on a branch or not."""
    if not (_HASH.fullmatch(commit) and len(commit) == _HASH_LENGTH):
        return False
    try:
        await session.ask(f"SELECT commit_hash FROM dolt_log({literal(commit)}) LIMIT 1")
    except mysql.StatementError:
        return False
    return True


async def version_of_commit(session: Session, database: str, commit: str) -> Version:
    """Return a commit as a version that a new branch is cut at."""
    statements = f"USE {identifier(database)}; SELECT name FROM dolt_branches; "
    statements += f"USE {identifier(f'{database}/{commit}')}; SELECT dolt_hashof_db()"
    branches, ((working_root,),) = await session.ask(statements)
    taken = {row[0] for row in branches}
    free = (f"{NEW_BRANCH}-{number}" if number else NEW_BRANCH for number in range(len(taken) + 1))
    branch = next(name for name in free if name not in taken)
    return Version(database, branch, commit, working_root, new_branch=True)


def _some(rows: mysql.ResultSet) -> str:
    """Name a few of the things there are, for a message."""
    names = [row[0] for row in rows]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more if names else "none"


async def branch_row(session: Session, branch: str) -> tuple[str, bool] | None:
    """Return the head of a branch and whether it has uncommitted changes, or None where there is none."""
    [rows] = await session.ask("SELECT hash, dirty FROM dolt_branches WHERE name = %s", [branch])
    return (rows[0][0], bool(rows[0][1])) if rows else None


async def create_branch(session: Session, database: str, branch: str, commit: str) -> None:
    """Make a branch; done already when it exists at that commit."""
    await use(session, database)
    try:
        await session.ask("CALL dolt_branch(%s, %s)", [branch, commit])
    except mysql.StatementError as error:
        there = await branch_row(session, branch)
        if there is None:
            raise
        if there[0] != commit:
            message = f"the branch {branch} of {database} is at {there[0]}, not at {commit}: choose another name"
            raise EngineError(message) from error
