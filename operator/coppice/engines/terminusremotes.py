"""From one TerminusDB server to another: who may fetch, what is fetched, and how a branch takes a result.

Facts this rests on, each with a test in ``tests/contract``:

- A server fetches all that another has of a database; whose password lets it is told with the request and kept nowhere.
  What was fetched stands beside the server's own commits, under the name of the remote, until that is removed.
- A branch can be begun at a fetched commit: that commit and all before it become the server's own, by the same names.
- ``pull`` moves a branch to a fetched one if its own head is among that one's ancestors, and refuses otherwise: that is
  the compare-and-set. It goes over a branch that somebody has set back, so that the last look at it comes right before.
- ``push`` is refused as soon as anything at all was committed to the other database since the last fetch, and is not
  used.
- A server keeps no rights by branch: whoever may write to a database may write to each branch of it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from coppice.engines.base import Endpoint, EngineError
from coppice.engines.merging import TargetMovedError
from coppice.engines.terminusapi import AnswerError, Api
from coppice.engines.terminushistory import ancestors, graph, heads, read
from coppice.engines.terminuslogins import ensure_login
from coppice.engines.terminuspaths import REMOTE_PREFIX, SHORT, branch_path, commit_path, commits_path, path, remote_of
from coppice.engines.terminusrefs import is_there
from coppice.engines.terminusresult import put_branch

FETCH_USER: Final = "coppice-fetch"
OFFER_PREFIX: Final = "coppice-offered-"
FETCHED_PREFIX: Final = "coppice-fetched-"
_FETCHING_PREFIX: Final = f"{REMOTE_PREFIX}fetching-"
_FETCH_ROLE: Final = "coppice-fetch"
_FETCHING: Final = (
    "class_frame",
    "clone",
    "fetch",
    "meta_read_access",
    "commit_read_access",
    "instance_read_access",
    "schema_read_access",
)
_UNDER_WAY: Final[set[tuple[str, int, str]]] = set()
"""The remotes of publications of this process, by server: what other ones have left is nobody's any more."""
_PORT: Final = re.compile(r"(\[.+\]|[^:]+):(\d+)")
_DIVERGED: Final = frozenset({"api:HistoryDivergedError", "api:NoCommonHistoryError"})

IsMeant = Callable[[str], Awaitable[bool]]


async def ensure_fetch_user(api: Api, password: str) -> None:
    """Make the login that may fetch everything, and nothing else."""
    await ensure_login(api, FETCH_USER, password, _FETCH_ROLE, _FETCHING)


async def drop_fetch_user(api: Api) -> None:
    """Let nobody fetch any more."""
    if FETCH_USER in {entry["name"] for entry in await api.get("users")}:
        await api.call("DELETE", f"users/{FETCH_USER}")


async def fetch(api: Api, at: Endpoint, arguments: Mapping[str, str]) -> None:
    """Fetch a commit of another server; what is needed of the others comes with it and goes again."""
    database, commit = arguments["database"], arguments["commit"]
    if await is_there(api, database, commit):
        return
    # By another name than a result's: what is not here until it has a branch must not be found.
    async with _remote(api, at, arguments, f"{_FETCHING_PREFIX}{commit[:SHORT]}") as remote:
        await _fetch(api, database, remote, arguments)
        await _expect(api, arguments, remote, commit)
        # A remote's commits go with it: what was fetched needs a branch of our own to stay.
        own = branch_path(database, f"{FETCHED_PREFIX}{commit[:SHORT]}")
        await api.call("POST", f"branch/{own}", body={"origin": commit_path(database, commit, remote)})


async def fetch_result(api: Api, at: Endpoint, arguments: Mapping[str, str]) -> None:
    """Fetch a result from a scratch server, and keep it for its publication.

    Another publication takes it away if it comes in between; then it is fetched again, and that other one is over.
    """
    database, result = arguments["database"], arguments["result"]
    if await is_there(api, database, result):
        return
    remote = remote_of(result)
    with _under_way(at, remote):
        await _add_remote(api, arguments, remote)
        await _fetch(api, database, remote, arguments)
        await _expect(api, arguments, remote, result)


async def offer(api: Api, database: str, commit: str) -> None:
    """Give a commit a branch of its own: by that it is taken."""
    await put_branch(api, database, f"{OFFER_PREFIX}{commit[:SHORT]}", commit)


async def publish(api: Api, at: Endpoint, arguments: Mapping[str, str]) -> None:
    """Move a branch to a result, by fast-forward only: to the merge of exactly two versions."""
    wanted = (arguments["expected"], arguments["source"])

    async def is_meant(remote: str) -> bool:
        place = commit_path(arguments["database"], arguments["result"], remote)
        for number, entry in enumerate(await api.get(f"log/{place}")):
            found = read(entry)
            if number and found.id == wanted[0]:
                return True
            if found.merged != wanted or found.step != (number > 0):
                return False
        return False

    await _move(api, at, arguments, is_meant)


async def fast_forward(api: Api, at: Endpoint, arguments: Mapping[str, str]) -> None:
    """Move a branch to a commit that comes from where it is, and that the scratch server offers."""

    async def is_meant(remote: str) -> bool:
        place = commit_path(arguments["database"], arguments["result"], remote)
        return any(entry["identifier"] == arguments["expected"] for entry in await api.get(f"log/{place}"))

    await _move(api, at, arguments, is_meant)


async def sweep(api: Api, at: Endpoint, database: str) -> None:
    """Take away what publications and fetches have left that somebody ended in the middle."""
    await _sweep(api, at, database)
    await drop_fetch_user(api)


async def _sweep(api: Api, at: Endpoint, database: str, *own: str) -> None:
    kept = {*own, *(remote for host, port, remote in _UNDER_WAY if (host, port) == (at.host, at.port))}
    for remote in (await api.get(f"remote/{path(database)}"))["api:remote_names"]:
        if remote.startswith(REMOTE_PREFIX) and remote not in kept:
            await _forget(api, database, remote)


async def _move(api: Api, at: Endpoint, arguments: Mapping[str, str], is_meant: IsMeant) -> None:
    """Move a branch to a result, if that is what is meant; whoever has moved it first has won."""
    database, branch, result = arguments["database"], arguments["branch"], arguments["result"]
    await _sweep(api, at, database, remote_of(result))
    if not await _is_due(api, arguments):
        await _sweep(api, at, database)
        return
    async with _remote(api, at, arguments, remote_of(result)) as remote:
        await _fetch(api, database, remote, arguments)
        offered = await _expect(api, arguments, remote, result)
        if offered is None:
            raise EngineError(f"the scratch server has no branch that is at {result} of {database}")
        if not await is_meant(remote):
            raise EngineError(f"the commit {result} of {database} is not the merge that is to be published")
        # A pull goes over a branch that was set back: to fetch may have taken long.
        if await _is_due(api, arguments):
            await _pull(api, arguments, remote, offered)
    there = (await heads(api, database)).get(branch)
    if there != result and result not in ancestors(await graph(api, database), there or ""):
        raise EngineError(f"the branch {branch} of {database} is at {there} after {result} was published")


async def _pull(api: Api, arguments: Mapping[str, str], remote: str, offered: str) -> None:
    body = {"remote": remote, "remote_branch": offered}
    place = branch_path(arguments["database"], arguments["branch"])
    try:
        await api.call("POST", f"pull/{place}", body=body, headers=_authorization(arguments))
    except AnswerError as error:
        if error.kind not in _DIVERGED:
            raise
        if await _is_due(api, arguments):
            raise EngineError(f"the server refused to fast-forward {arguments['branch']}") from None


async def _is_due(api: Api, arguments: Mapping[str, str]) -> bool:
    """Return whether the branch is still where it is to be moved from."""
    database, branch, expected = arguments["database"], arguments["branch"], arguments["expected"]
    there = (await heads(api, database)).get(branch)
    if there is None:
        raise TargetMovedError(f"there is no branch {branch} in {database} any more")
    if there == expected:
        return there != arguments["result"]
    if arguments["result"] in ancestors(await graph(api, database), there):
        return False
    raise TargetMovedError(f"the branch {branch} of {database} is at {there}, no longer at {expected}")


async def _expect(api: Api, arguments: Mapping[str, str], remote: str, commit: str) -> str | None:
    """Return the remote's branch that is at a commit, if one is; a commit that is not there is refused."""
    database = arguments["database"]
    found = await api.get(f"document/{commits_path(database, remote)}", type="ValidCommit", as_list="true")
    if not any(entry["identifier"] == commit for entry in found):
        raise EngineError(f"the server at {arguments['host']} has no commit {commit} of {database}")
    return next((name for name, head in (await heads(api, database, remote)).items() if head == commit), None)


@asynccontextmanager
async def _remote(api: Api, at: Endpoint, arguments: Mapping[str, str], name: str) -> AsyncGenerator[str, None]:
    """Have a remote for as long as it is needed."""
    try:
        with _under_way(at, name):
            await _add_remote(api, arguments, name)
            yield name
    finally:
        await _forget(api, arguments["database"], name)


@contextmanager
def _under_way(at: Endpoint, remote: str) -> Generator[None, None, None]:
    """Have everybody else leave a remote."""
    place = (at.host, at.port, remote)
    _UNDER_WAY.add(place)
    try:
        yield
    finally:
        _UNDER_WAY.discard(place)


async def _add_remote(api: Api, arguments: Mapping[str, str], name: str) -> None:
    place = f"remote/{path(arguments['database'])}"
    body = {"remote_name": name, "remote_location": _location(arguments["host"], arguments["database"])}
    there = name in (await api.get(place))["api:remote_names"]
    await api.call("PUT" if there else "POST", place, body=body, repeatable=there)


async def _forget(api: Api, database: str, remote: str) -> None:
    place = f"remote/{path(database)}"
    if remote in (await api.get(place))["api:remote_names"]:
        await api.call("DELETE", place, parameters={"remote_name": remote})


async def _fetch(api: Api, database: str, remote: str, arguments: Mapping[str, str]) -> None:
    try:
        headers = _authorization(arguments)
        await api.call("POST", f"fetch/{commits_path(database, remote)}", headers=headers, repeatable=True)
    except AnswerError as error:
        raise EngineError(f"the server at {arguments['host']} lets nobody fetch {database}: {error}") from None


def _authorization(arguments: Mapping[str, str]) -> Mapping[str, str]:
    login = base64.b64encode(f"{FETCH_USER}:{arguments['password']}".encode()).decode()
    return {"Authorization-Remote": f"Basic {login}"}


def _location(host: str, database: str, port: int = 6363) -> str:
    where = host if _PORT.fullmatch(host) else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"http://{where}/{path(database)}"
