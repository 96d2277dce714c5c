# ruff: noqa: S608 - every name in a statement is quoted by identifier() or literal(), and so is every value
"""Branches of a Dolt server that nobody but the administrator writes to.

Facts this rests on, each with a test in ``tests/contract``:

- Branch control refuses statements and most procedures. ``dolt_checkout('-B')``, ``dolt_rebase``, ``dolt_stash`` and
  ``DROP DATABASE`` do not ask it: an application's login has no right to them while a branch is protected.
- Nor do Dolt's own tables. Of these ``dolt_nonlocal_tables`` lets who writes to it put another branch's rows in the
  place of a table's, for everybody. So the rights to write and to drop are given for each table that there is, on any
  branch; what is created later gets them when this is repeated.
- ``dolt_branch('-f')`` asks the other table alone, the one that says who may create a branch of a name.
- Nothing asks about tags: an application's login has no right to make or to delete one.
- Nor about what an event writes to another branch, in the name of whoever it says. One runs when it is made or altered,
  to which the login has no right. The scheduler is off besides; an app can turn it on, as it can set all settings.
- Who creates a branch gets to be the administrator of its name *as a pattern*: of ``ma%`` or ``mai_``, of ``main`` as
  well. Such names are refused, and what was made before does not count.
- All of this is read in a transaction begun before any ``USE``, and written by whole names: to say the same again is
  no activity.
- Names are compared without case, and ``database/name`` is a branch, else a tag, and a commit last: a branch or tag
  that is called like a commit, in capitals, is read in its place. A hash itself is refused as a name.
- The longest pattern counts, and equal ones add up: the one of an administrator is longer by its user.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from coppice.engines import mysql
from coppice.engines.base import Endpoint, EngineError
from coppice.engines.doltrefs import LOOK_PREFIX, OWN_PREFIX, transaction, use
from coppice.engines.mysql import Session, identifier, literal

PROCEDURES: Final = (
    "dolt_add",
    "dolt_branch",
    "dolt_cherry_pick",
    "dolt_clean",
    "dolt_commit",
    "dolt_commit_hash_out",
    "dolt_conflicts_resolve",
    "dolt_count_commits",
    "dolt_merge",
    "dolt_reset",
    "dolt_revert",
    "dolt_rm",
    "dolt_verify_constraints",
)
"""What an application may call while a branch is protected: each of them asks branch control."""

_RIGHTS: Final = (
    "SELECT, CREATE, ALTER, INDEX, REFERENCES, CREATE VIEW, SHOW VIEW, TRIGGER,"
    " CREATE ROUTINE, ALTER ROUTINE, CREATE TEMPORARY TABLES, LOCK TABLES"
)
_TABLE_RIGHTS: Final = "INSERT, UPDATE, DELETE, DROP"
_PATTERN_NAMES: Final = ("%\\%%", "%\\_%")
"""Names that hold a character which stands for others in a pattern: what nobody may make while a branch is protected,
and so what tells that one is.
"""
_COMMIT_NAMES: Final = "_" * 32
"""As a pattern: every name that could be taken for a commit's."""
_OWN: Final = f"{OWN_PREFIX}%"
_LOOKED_AT: Final = f"{LOOK_PREFIX}%"

_ACCESS: Final = "dolt_branch_control"
_NAMES: Final = "dolt_branch_namespace_control"
_DUPLICATE: Final = 1062
_MAX_BRANCHES: Final = 500
"""On how many branches tables are looked for."""
_COMMIT_NAME: Final = re.compile(r"[0-9a-v]{32}", re.IGNORECASE)
Rows = frozenset[tuple[str, ...]]


async def protect(at: Endpoint, database: str, branches: Sequence[str], username: str) -> None:
    """Protect the branches that match, and no others. What is missing is put in before what is too much goes."""
    patterns, name = [_pattern(branch) for branch in branches], database.lower()
    access: set[tuple[str, ...]] = {(name, each, "%", "%", "read") for each in patterns}
    access |= {(name, each, at.username, "%", "admin") for each in patterns}
    names: set[tuple[str, ...]] = {
        (name, each, at.username, "%") for each in (*patterns, *(_PATTERN_NAMES if patterns else ()))
    }
    if patterns:
        for rules, more in zip((access, names), _reserved(at, name), strict=True):
            rules.update(more)
    await _bring_to(at, database, _NAMES, frozenset(names))
    await _bring_to(at, database, _ACCESS, frozenset(access))
    async with mysql.session(at) as session:
        await session.ask(f"SET GLOBAL event_scheduler = {'OFF' if patterns else 'ON'}")
    await _bring_rights(at, database, username)


async def keep_names(at: Endpoint, database: str, username: str) -> None:
    """Let an app's login give nothing the name of a commit; it has the rights then that it has beside protected
    branches. What has such a name already is refused.
    """
    wanted = frozenset((database.lower(), each, at.username, "%") for each in (_COMMIT_NAMES, *_PATTERN_NAMES))
    await _put_in(at, database, _NAMES, wanted)
    await _bring_rights(at, database, username)
    async with transaction(at) as session:
        await use(session, database)
        branches, tags = await session.ask("SELECT name FROM dolt_branches; SELECT tag_name FROM dolt_tags")
    taken = [name for (name,) in (*branches, *tags) if _COMMIT_NAME.fullmatch(name)]
    if taken:
        raise EngineError(f"a branch or tag of {database} has the name of a commit: delete {taken[0]}")


async def _bring_rights(at: Endpoint, database: str, username: str) -> None:
    """Give a login the rights that it has now, if it is there."""
    async with mysql.session(at) as session:
        [there] = await session.ask(f"SELECT 1 FROM mysql.user WHERE user = {literal(username)} AND host = '%'")
    if not there:
        return  # A new store has no login yet, and who makes one gives it these rights.
    rights = await grants(at, database, username)
    async with mysql.session(at) as session:
        await session.ask(rights)


def _reserved(at: Endpoint, name: str) -> tuple[Rows, Rows]:
    """Return the rules by which branches of Coppice's own are nobody else's, but for those on which conflicts are read,
    which a login of an app's makes.
    """
    access = {(name, _OWN, "%", "%", "read"), (name, _OWN, at.username, "%", "admin")}
    return frozenset(access), frozenset({(name, _OWN, at.username, "%"), (name, _LOOKED_AT, "%", "%")})


async def reserve(at: Endpoint, database: str) -> None:
    """Let nobody else make branches of Coppice's names, on a server where nothing is protected."""
    rules = zip((_ACCESS, _NAMES), _reserved(at, database.lower()), strict=True)
    for table, wanted in rules:
        await _put_in(at, database, table, wanted)


async def _put_in(at: Endpoint, database: str, table: str, wanted: Rows) -> None:
    missing = wanted - await _rules(at, database, table)
    if missing:
        async with mysql.session(at) as session:
            for row in sorted(missing):
                await _insert(session, f"{identifier(database)}.{table}", row)


def _pattern(branch: str) -> str:
    """Return a branch's name, with ``*`` for anything, as Dolt's pattern: in lower case, as it keeps them."""
    escaped = branch.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%").lower()


async def _bring_to(at: Endpoint, database: str, table: str, wanted: Rows) -> None:
    """Make a table say of this database what is wanted. A pattern may be refused while a wider one is still there that
    says the same: hence twice.
    """
    qualified = f"{identifier(database)}.{table}"
    for _ in range(2):
        there = await _rules(at, database, table)
        if there == wanted:
            return
        async with mysql.session(at) as session:
            for row in wanted - there:
                await _insert(session, qualified, row)
            for row in there - wanted:
                await session.ask(
                    f"DELETE FROM {qualified} WHERE `database` = {literal(row[0])} AND branch = {literal(row[1])}"
                    f" AND user = {literal(row[2])} AND host = {literal(row[3])}"
                )


async def _rules(at: Endpoint, database: str, table: str) -> Rows:
    async with transaction(at) as session:
        await use(session, database)
        [found] = await session.ask(f"SELECT * FROM {table} WHERE `database` = {literal(database.lower())}")
    return frozenset(tuple(map(str, row)) for row in found)


async def _insert(session: Session, qualified: str, row: Iterable[str]) -> None:
    try:
        await session.ask(f"INSERT INTO {qualified} VALUES ({_values(row)})")
    except mysql.StatementError as error:
        if error.code != _DUPLICATE:
            raise


def _values(row: Iterable[str]) -> str:
    return ", ".join(literal(value) for value in row)


async def grants(at: Endpoint, database: str, username: str) -> str:
    """Return the statements that give an application's login its rights on a database: all, or while a branch of it is
    protected, all that does not go round that.
    """
    user, name = f"{literal(username)}@'%'", identifier(database)
    async with transaction(at) as session:
        await use(session, database)
        protected, branches = await session.ask(
            f"SELECT 1 FROM {_NAMES} WHERE `database` = {literal(database.lower())}"
            f" AND branch = {literal(_PATTERN_NAMES[0])} LIMIT 1;"
            f" SELECT name FROM dolt_branches LIMIT {_MAX_BRANCHES}"
        )
        if not protected:
            return f"GRANT ALL ON {name}.* TO {user}"
        tables = {table for (branch,) in branches for table in await _tables(session, database, branch)}
    statements = [f"REVOKE EXECUTE, EVENT, {_TABLE_RIGHTS} ON {name}.* FROM {user}"]
    statements.append(f"GRANT {_RIGHTS} ON {name}.* TO {user}")
    statements += [f"GRANT {_TABLE_RIGHTS} ON {name}.{identifier(table)} TO {user}" for table in sorted(tables)]
    statements += [f"GRANT EXECUTE ON PROCEDURE {name}.{procedure} TO {user}" for procedure in PROCEDURES]
    return "; ".join(statements)


async def _tables(session: Session, database: str, branch: str) -> list[str]:
    """Return the tables of a branch. One that an app has given a table of a branch which is gone cannot list them, and
    its newest commit perhaps can: that keeps no right to go round protection with the app.
    """
    for shown in (identifier(f"{database}/{branch}"), f"{identifier(database)} AS OF {literal(branch)}"):
        try:
            [rows] = await session.ask(f"SHOW TABLES FROM {shown}")
        except mysql.StatementError:
            continue
        return [str(row[0]) for row in rows]
    return []
