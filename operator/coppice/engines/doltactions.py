"""The actions of Dolt's ``execute`` that are about branches, tags and other servers, each by its name."""

from __future__ import annotations

import json
from asyncio import Lock
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from coppice.engines import doltbranches, doltremotes
from coppice.engines.base import Endpoint
from coppice.engines.doltassertions import ensure_program_user
from coppice.engines.doltfetching import recover
from coppice.engines.doltprotection import protect
from coppice.engines.doltrefs import create_branch
from coppice.engines.merging import Signature
from coppice.engines.mysql import Session

LONG_ACTIONS: Final = frozenset(
    {"commit-work", "fetch", "undo", "set-branch", "fetch-result", "publish", "fast-forward"}
)
"""Those that take as long as the data are big."""
_OF_TAGS: Final = frozenset(
    {"create-tag", "delete-tag", "delete-branch", "fetch", "fetch-result", "publish", "fast-forward"}
)
"""Those that write to tags, or put them back as they were before: one at a time on each server, and each after what an
earlier one has left is put back.
"""
_TURNS: Final[dict[tuple[str, int], Lock]] = defaultdict(Lock)


async def perform(session: Session, at: Endpoint, action: str, arguments: Mapping[str, str], remotes_port: int) -> bool:
    """Do an action; return False where there is none of this name."""
    turn = _TURNS[at.host, at.port]
    # While somebody has the turn a sweep finds nothing of tags that was left: it waits for nobody.
    if action not in _OF_TAGS and (action != "sweep" or turn.locked()):
        return await _perform(session, at, action, arguments, remotes_port)
    async with turn:
        await recover(session, at, arguments["database"])
        return await _perform(session, at, action, arguments, remotes_port)


async def _perform(  # noqa: C901, PLR0912 - one case for each action
    session: Session, at: Endpoint, action: str, arguments: Mapping[str, str], remotes_port: int
) -> bool:
    given = dict(arguments)
    match action:
        case "create-branch":
            await create_branch(session, given["database"], given["branch"], given["commit"])
        case "delete-branch":
            await doltbranches.delete_branch(
                session, given["database"], given["branch"], given["head"], keep=given["keep"]
            )
        case "commit-work":
            author = Signature(given["author"], given["email"])
            await doltbranches.commit_work(session, given["database"], given["branch"], author, given["message"])
        case "create-tag":
            await doltbranches.create_tag(session, given["database"], given["tag"], given["commit"])
        case "delete-tag":
            await doltbranches.delete_tag(session, given["database"], given["tag"])
        case "ensure-fetch-user":
            await doltremotes.ensure_fetch_user(session, given["password"])
        case "drop-fetch-user":
            await doltremotes.drop_fetch_user(session)
        case "fetch":
            await doltremotes.fetch(session, at, given["database"], given["host"], given["commit"], remotes_port)
        case "undo":
            await doltbranches.undo(session, given["database"], given["branch"], given["commit"])
        case "set-branch":
            await doltbranches.set_branch(session, given["database"], given["branch"], given["commit"])
        case "fetch-result":
            await doltremotes.fetch_result(session, at, given["database"], given["host"], given["result"], remotes_port)
        case "offer":
            await doltremotes.offer(session, given["database"], given["commit"])
        case "publish":
            await doltremotes.publish(session, at, given, remotes_port)
        case "fast-forward":
            await doltremotes.fast_forward(session, at, given, remotes_port)
        case "sweep":
            await doltremotes.sweep(session, at, given["database"])
        case "ensure-check-user":
            await ensure_program_user(session, at, given)
        case "protect":
            await protect(at, given["database"], json.loads(given["branches"]), given["username"])
        case _:
            return False
    return True
