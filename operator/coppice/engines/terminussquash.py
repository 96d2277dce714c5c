"""Branches of TerminusDB that begin without the history of what is on them.

Facts this rests on (source of 12.0.6, ``src/core/api/api_squash.pl``): the server squashes the head of a branch, and of
nothing else, into a commit without a parent, to which no branch leads then; the branch itself stays. It answers when it
is done, and is given no time for it.

What is squashed is held by a tag of its own meanwhile, so that it is exactly what was asked for, wherever branches
move. The same tag then holds the outcome until the branch is there: a try that is repeated goes on from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from coppice.engines import terminusrefs as refs
from coppice.engines.base import Endpoint, EngineError, UnderWayError, UnreachableError
from coppice.engines.squashing import MAX_SINCE, SQUASH_TAGS, Squash
from coppice.engines.terminusapi import Api, session
from coppice.engines.terminushistory import COPPICE, author_of, commit_at, read, squashed
from coppice.engines.terminuspaths import branch_path, commit_path

PATIENCE: Final = 3.0
"""Seconds for which a squash is waited for: one of many objects does not hold up the others."""
SECONDS: Final = 6 * 3600.0
"""For a squash."""
_UNDER_WAY: Final[dict[tuple[str, ...], asyncio.Task[str]]] = {}
"""By server, database, tag and commit: until a call has found it done."""


async def create_squashed_branch(api: Api, at: Endpoint, arguments: Mapping[str, str]) -> None:
    """Make a branch that begins with a squash of a commit."""
    database, branch = arguments["database"], arguments["branch"]
    refs.expect_name(branch)
    there = {state.branch: state.head for state in refs.states(database, await refs.branches(api, database))}
    if branch in there:
        if await squash_of(api, database, there[branch]) != _wanted(arguments):
            raise EngineError(f"the branch {branch} is there already, at {there[branch]}")
    else:
        await refs.create_branch(api, database, branch, await _squashed(api, at, arguments))
    await refs.delete_tag(api, database, _tag(arguments))


async def forget_squash(api: Api, at: Endpoint, arguments: Mapping[str, str]) -> None:
    """End what is under way for somebody, and take away what holds it."""
    database, tag = arguments["database"], _tag(arguments)
    for key in [key for key in _UNDER_WAY if key[:-1] == (at.host, str(at.port), database, tag)]:
        task = _UNDER_WAY.pop(key)
        task.cancel()
        await asyncio.wait({task})
    await refs.delete_tag(api, database, tag)


async def squash_of(api: Api, database: str, commit: str) -> Squash | None:
    """Return what a history begins with, by its first commit, which only the administrator can have made."""
    entries = await api.get(f"log/{commit_path(database, commit)}", count=MAX_SINCE)
    first = read(entries[-1])
    return Squash(*first.squash) if first.squash is not None and first.parent is None else None


async def _squashed(api: Api, at: Endpoint, arguments: Mapping[str, str]) -> str:
    """Return the commit that the branch begins with, made now or by an earlier try."""
    database, tag = arguments["database"], _tag(arguments)
    held = {found.name: found.commit for found in refs.tags(await refs.branches(api, database), SQUASH_TAGS)}
    key = (at.host, str(at.port), database, tag, arguments["commit"])
    if key not in _UNDER_WAY:
        if tag in held and await squash_of(api, database, held[tag]) == _wanted(arguments):
            return held[tag]
        _UNDER_WAY[key] = asyncio.ensure_future(_squash(at, arguments))
        _UNDER_WAY[key].add_done_callback(_taken_up)
    task = _UNDER_WAY[key]
    await asyncio.wait({task}, timeout=PATIENCE)
    if not task.done():
        raise UnderWayError(f"the server squashes {arguments['commit']} of {database}")
    del _UNDER_WAY[key]
    return task.result()


async def _squash(at: Endpoint, arguments: Mapping[str, str]) -> str:
    database, commit, tag = arguments["database"], arguments["commit"], _tag(arguments)
    async with session(at) as api:
        await commit_at(api, database, commit)
        place = branch_path(database, await _hold(api, database, tag, commit))
        info = {
            "author": author_of(COPPICE),
            "message": squashed(arguments["message"], commit, arguments["maker"]),
        }
        try:
            answer = await api.call("POST", f"squash/{place}", body={"commit_info": info}, patience=SECONDS)
        except UnreachableError as error:
            # Another error than that: it counts, for what was written by then stays.
            raise EngineError(f"the squash of {commit} of {database} came to no end: {error}") from None
        told = answer.content
        made, was = (str(told.get(name, "")).rpartition("/")[2] for name in ("api:commit", "api:old_commit"))
        if not made or was != commit:
            raise EngineError(f"the server has not squashed {commit} of {database}, but {was or 'nothing'}")
        await refs.create_tag(api, database, tag, made)
    return made


async def _hold(api: Api, database: str, tag: str, commit: str) -> str:
    """Hold a commit by a tag; return the branch that is it. Of several of the name, as where a call has come late, the
    newest one counts, and the others go.
    """
    await refs.create_tag(api, database, tag, commit)
    *others, held = [found for found in refs.tags(await refs.branches(api, database), tag) if found.name == tag]
    for other in others:
        await refs.delete_one(api, database, other)
    if held.commit != commit:
        raise EngineError(f"the tag {tag} of {database} was moved to {held.commit}")
    return refs.tag_branch(tag, int(held.at.timestamp()))


def _taken_up(task: asyncio.Task[str]) -> None:
    """Take up how a squash has ended, for nobody may ask for it any more."""
    if not task.cancelled():
        task.exception()


def _wanted(arguments: Mapping[str, str]) -> Squash:
    return Squash(arguments["commit"], arguments["maker"])


def _tag(arguments: Mapping[str, str]) -> str:
    return f"{SQUASH_TAGS}{arguments['maker']}"
