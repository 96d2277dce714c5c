# ruff: noqa: S608 - the only names in a statement are constants
"""What goes from one Dolt server to another: commits, always fetched by who needs them.

Facts this rests on, each with a test in ``tests/contract``:

- Who dials sends the password in the environment of its own process (``DOLT_REMOTE_PASSWORD``), whatever the server.
- ``CLONE_ADMIN`` lets a login fetch, and read nothing by SQL. A push takes ``SUPER``.
- A fetch of one branch brings what that comes from, and no commit beside it.
- A fetch brings all tags of the other server that are at commits which are here then, and moves those of the same
  names. So they are put back (``doltfetching``), and nobody else of this process writes to tags meanwhile
  (``doltactions``).
- Who dials cannot be told another password for one push: the pusher's is the store's own, and its login is let in from
  the server itself alone. No statement has it, for an app reads what others run (``information_schema.processlist``).
- ``dolt_merge('--ff-only')`` loses updates when somebody else commits at the same time. A push without force does not:
  it moves the branch by compare-and-set, and refuses one that has uncommitted changes. So a store or clone, having
  fetched the result, pushes it to itself, by a login that exists for that long only.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from coppice.engines import mysql
from coppice.engines.base import Endpoint, EngineError
from coppice.engines.doltchanges import commit_info
from coppice.engines.doltfetching import FETCH_USER, fetch_from, forget
from coppice.engines.doltrefs import OWN_PREFIX, branch_row, holds, use
from coppice.engines.merging import TargetBusyError, TargetMovedError
from coppice.engines.mysql import Session, identified, literal

_ITSELF: Final = "127.0.0.1"
"""From where a store pushes to itself."""
_PUSHER_PREFIX: Final = "coppice-push-"
_STEP_PREFIX: Final = f"{OWN_PREFIX}publish-"
_OFFER_PREFIX: Final = f"{OWN_PREFIX}offered-"
_UNDER_WAY: Final[set[tuple[str, int, str]]] = set()
"""Which publications are in the middle now, by server and result: what other ones have left is nobody's any more."""
_SHORT: Final = 16
_PORT: Final = re.compile(r"(\[.+\]|[^:]+):(\d+)")


async def ensure_fetch_user(session: Session, password: str) -> None:
    """Make the login that may fetch everything, and nothing else."""
    await _make_user(session, FETCH_USER, "%", password, "CLONE_ADMIN")


async def drop_fetch_user(session: Session) -> None:
    """Let nobody fetch any more."""
    await session.ask(f"DROP USER IF EXISTS {literal(FETCH_USER)}@'%'")


async def _make_user(session: Session, name: str, host: str, password: str, right: str) -> None:
    user, secret = f"{literal(name)}@{literal(host)}", identified(password)
    try:
        await session.ask(
            f"CREATE USER IF NOT EXISTS {user} {secret}; ALTER USER {user} {secret}; GRANT {right} ON *.* TO {user}"
        )
    except mysql.StatementError as error:  # the server's words may quote the statement, hash and all
        raise EngineError(f"the server refused to make the login {name}: error {error.code}") from None


async def fetch(session: Session, at: Endpoint, database: str, host: str, commit: str, port: int) -> None:
    """Fetch all branches of another server; a name is needed for that, which is gone afterwards."""
    await use(session, database)
    if await holds(session, commit):
        return
    remote = f"coppice-{commit[:_SHORT]}"
    try:
        await fetch_from(session, at, database, remote, _url(host, port, database), "refs/heads/*")
        if not await holds(session, commit):
            raise EngineError(f"the server at {host} has no commit {commit} of {database} on any branch")
        # A remote's branches go with it: what was fetched needs one of our own to stay.
        await session.ask("CALL dolt_branch('-f', %s, %s)", [f"{OWN_PREFIX}fetched-{commit[:_SHORT]}", commit])
    finally:
        await forget(session, remote)


async def fetch_result(session: Session, at: Endpoint, database: str, host: str, result: str, port: int) -> None:
    """Fetch a result from a scratch server, and keep it for its publication."""
    await use(session, database)
    if await holds(session, result):
        return
    names = _Names(result[:_SHORT])
    try:
        await fetch_from(session, at, database, names.source, _url(host, port, database), f"refs/heads/{OWN_PREFIX}*")
        if not await holds(session, result):
            raise EngineError(f"the scratch server has no commit {result} of {database}")
        await session.ask("CALL dolt_branch('-f', %s, %s)", [names.step, result])
    finally:
        await forget(session, names.source)


async def offer(session: Session, database: str, commit: str) -> None:
    """Give a commit a name of its own: by that it is fetched, and nothing but what it comes from."""
    await use(session, database)
    await session.ask("CALL dolt_branch('-f', %s, %s)", [f"{_OFFER_PREFIX}{commit[:_SHORT]}", commit])


async def publish(session: Session, at: Endpoint, arguments: Mapping[str, str], port: int) -> None:
    """Move a branch to a result, by fast-forward only: to the merge of exactly two versions."""

    async def is_meant(session: Session) -> bool:
        merged = (await commit_info(session, arguments["result"])).parents
        return merged == (arguments["expected"], arguments["source"])

    await _move(session, at, arguments, port, f"refs/heads/{OWN_PREFIX}*", is_meant)


async def fast_forward(session: Session, at: Endpoint, arguments: Mapping[str, str], port: int) -> None:
    """Move a branch to a commit that comes from where it is, and that the scratch server offers: a merge, or what the
    parent is at where the branch had nothing of its own.
    """

    async def is_meant(session: Session) -> bool:
        return await _is_ancestor(session, arguments["expected"], arguments["result"])

    offered = f"refs/heads/{_OFFER_PREFIX}{arguments['result'][:_SHORT]}"
    await _move(session, at, arguments, port, offered, is_meant)


async def _move(
    session: Session,
    at: Endpoint,
    arguments: Mapping[str, str],
    port: int,
    references: str,
    is_meant: Callable[[Session], Awaitable[bool]],
) -> None:
    """Move a branch to a result that was fetched, if that is what is meant; whoever has moved it first has won."""
    database, result = arguments["database"], arguments["result"]
    due = (database, arguments["branch"], arguments["expected"], result)
    await use(session, database)
    names = _Names(result[:_SHORT])
    await _sweep(session, at)
    if not await _is_due(session, *due):
        return
    with names.under_way(at):
        try:
            if not await holds(session, result):
                scratch = _url(arguments["host"], port, database)
                await fetch_from(session, at, database, names.source, scratch, references)
            if not await holds(session, result):
                raise EngineError(f"the scratch server has no commit {result} of {database}")
            if not await is_meant(session):
                raise EngineError(f"the commit {result} of {database} is not the merge that is to be published")
            await session.ask("CALL dolt_branch(%s, %s)", [names.step, result])
            await _make_user(session, names.pusher, _ITSELF, arguments["password"], "SUPER")
            await session.ask(
                "CALL dolt_remote('add', %s, %s)", [names.itself, _url(f"{_ITSELF}:{at.port + 1}", 0, database)]
            )
            await _push(session, names, due)
        finally:
            await _take_away(at, database, names)


class _Names:
    """What a publication makes in its store and takes away again: the same when it is repeated."""

    def __init__(self, short: str) -> None:
        self.short = short
        self.source = f"coppice-{short}"
        self.itself = f"coppice-self-{short}"
        self.step = f"{_STEP_PREFIX}{short}"
        self.pusher = f"{_PUSHER_PREFIX}{short}"

    @contextmanager
    def under_way(self, at: Endpoint) -> Iterator[None]:
        """Keep these from being swept away, by this process: no other one publishes at the same time."""
        place = (at.host, at.port, self.short)
        _UNDER_WAY.add(place)
        try:
            yield
        finally:
            _UNDER_WAY.discard(place)


async def _take_away(at: Endpoint, database: str, names: _Names) -> None:
    """Take away what a publication has made, in a session of its own: the publication's may be lost."""
    async with mysql.session(at) as session:
        await use(session, database)
        await _drop_users(session, [(names.pusher, _ITSELF)])
        for remote in (names.itself, names.source):
            await forget(session, remote)
        if await branch_row(session, names.step):
            await _drop_branch(session, names.step)


async def sweep(session: Session, at: Endpoint, database: str) -> None:
    """Take away what publications and fetches have left that somebody ended in the middle."""
    await use(session, database)
    await _sweep(session, at)
    await drop_fetch_user(session)


async def _sweep(session: Session, at: Endpoint) -> None:
    users, remotes, branches = await session.ask(
        f"SELECT user, host FROM mysql.user WHERE user LIKE '{_PUSHER_PREFIX}%';"
        " SELECT name FROM dolt_remotes WHERE name LIKE 'coppice-%';"
        f" SELECT name FROM dolt_branches WHERE name LIKE '{_STEP_PREFIX}%'"
    )
    kept = {short for host, port, short in _UNDER_WAY if (host, port) == (at.host, at.port)}
    await _drop_users(session, [user for user in users if _short(user[0]) not in kept])
    for (remote,) in remotes:
        if _short(remote) not in kept:
            await forget(session, remote)
    for (branch,) in branches:
        if _short(branch) not in kept:
            await _drop_branch(session, branch)


def _short(name: str) -> str:
    return name.rpartition("-")[2]


async def _drop_users(session: Session, users: Iterable[tuple[str, ...]]) -> None:
    for name, host in users:
        await session.ask(f"DROP USER IF EXISTS {literal(name)}@{literal(host)}")


async def _drop_branch(session: Session, branch: str) -> None:
    """Delete a branch, also one that somebody is on."""
    await session.ask("CALL dolt_branch('-D', '-f', %s)", [branch])


async def _is_due(session: Session, database: str, branch: str, expected: str, result: str) -> bool:
    """Return whether the branch is still where it is to be moved from."""
    there = await branch_row(session, branch)
    if there is None:
        raise TargetMovedError(f"there is no branch {branch} in {database} any more")
    if there[0] == result:
        return False
    if there[0] != expected:
        held = await holds(session, result)
        if held and await _is_ancestor(session, result, there[0]):
            return False
        raise TargetMovedError(f"the branch {branch} of {database} is at {there[0]}, no longer at {expected}")
    if there[1]:
        raise TargetBusyError(f"the branch {branch} of {database} has uncommitted changes: commit or reset them first")
    return True


async def _push(session: Session, names: _Names, due: tuple[str, str, str, str]) -> None:
    """Push; where that is refused, say what has come between."""
    try:
        await session.ask(
            "CALL dolt_push('--user', %s, %s, %s)", [names.pusher, names.itself, f"{names.step}:{due[1]}"]
        )
    except mysql.StatementError as error:
        if "uncommitted changes" in error.text:
            raise TargetBusyError(
                f"the branch {due[1]} of {due[0]} has uncommitted changes: commit or reset them first"
            ) from None
        if await _is_due(session, *due):
            raise EngineError(f"the server refused its own push to {due[1]}: error {error.code}") from None


async def _is_ancestor(session: Session, older: str, newer: str) -> bool:
    [((base,),)] = await session.ask(f"SELECT dolt_merge_base({literal(older)}, {literal(newer)})")
    return bool(base == older)


def _url(host: str, port: int, database: str) -> str:
    where = host if _PORT.fullmatch(host) else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"http://{where}/{database}"
