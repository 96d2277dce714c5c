"""The actions of TerminusDB's ``execute`` that are about branches and other servers, each by its name."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

from coppice.engines import terminusrefs, terminusremotes, terminussquash, terminusupkeep
from coppice.engines.base import Endpoint, UnknownVersionError
from coppice.engines.merging import MergeInputs
from coppice.engines.terminusapi import Api
from coppice.engines.terminuschanges import differences
from coppice.engines.terminushistory import COPPICE, commit_at, heads
from coppice.engines.terminuslogins import APP_ROLE, ensure_login
from coppice.engines.terminusmerge import Found
from coppice.engines.terminuspaths import path
from coppice.engines.terminusresult import Making, make, put_branch, sides_of

CHECK_USER: Final = "coppice-check"
_CHECK_ROLE: Final = "coppice-check"
_READING: Final = (
    "class_frame",
    "commit_read_access",
    "instance_read_access",
    "meta_read_access",
    "schema_read_access",
)


async def perform(api: Api, at: Endpoint, action: str, arguments: Mapping[str, str]) -> bool:  # noqa: C901, PLR0912 - one case for each action
    """Do an action; return False where there is none of this name."""
    given = dict(arguments)
    match action:
        case "commit-work":
            pass  # every write is a commit
        case "create-tag":
            await commit_at(api, given["database"], given["commit"])
            await terminusrefs.create_tag(api, given["database"], given["tag"], given["commit"])
        case "ensure-fetch-user":
            await terminusremotes.ensure_fetch_user(api, given["password"])
        case "drop-fetch-user":
            await terminusremotes.drop_fetch_user(api)
        case "fetch":
            await terminusremotes.fetch(api, at, given)
        case "fetch-result":
            await terminusremotes.fetch_result(api, at, given)
        case "offer":
            await terminusremotes.offer(api, given["database"], given["commit"])
        case "publish":
            await terminusremotes.publish(api, at, given)
        case "fast-forward":
            await terminusremotes.fast_forward(api, at, given)
        case "sweep":
            await terminusremotes.sweep(api, at, given["database"])
        case "set-branch":
            await commit_at(api, given["database"], given["commit"])
            await put_branch(api, given["database"], given["branch"], given["commit"])
        case "undo":
            await undo(api, given["database"], given["branch"], given["commit"])
        case "optimize":
            await terminusupkeep.optimize(at, given)
        case "create-squashed-branch":
            await terminussquash.create_squashed_branch(api, at, given)
        case "forget-squash":
            await terminussquash.forget_squash(api, at, given)
        case "ensure-check-user":
            await ensure_check_user(api, given)
        case _:
            return False
    return True


async def undo(api: Api, database: str, branch: str, commit: str) -> None:
    """Make a branch whose last commit upon another has what that one's first parent had."""
    undone = await commit_at(api, database, commit)
    if not undone.parents:
        raise UnknownVersionError(f"the commit {commit} of {database} has no parent: there is nothing to go back to")
    inputs = MergeInputs(database, commit, undone.parents[0], COPPICE, f"Undo {commit}", "")
    there = (await heads(api, database)).get(branch)
    if there is not None:
        found = await commit_at(api, database, there)
        if (found.message, found.author, found.step) == (inputs.message, COPPICE.name, False):
            return
    making = Making(inputs, commit, await sides_of(api, inputs, commit), Found(), branch, plain=True)
    async with aclosing(differences(api, database, commit, inputs.source)) as pages:
        async for page in pages:
            making.found.changed += len(page)
    await make(api, making)


async def ensure_check_user(api: Api, arguments: Mapping[str, str]) -> None:
    """Have a login that reads and writes nothing, and let the application's do no more: by no other way is a commit
    kept from being replaced by another one, for rights are of whole databases.
    """
    await ensure_login(api, CHECK_USER, arguments["password"], _CHECK_ROLE, _READING)
    user = next((entry for entry in await api.get("users") if entry["name"] == arguments["username"]), None)
    if user is None:
        return
    for entry in await api.get("db"):
        scope = {"scope": path(entry["path"]), "scope_type": "database", "user": arguments["username"]}
        await api.call("POST", "capabilities", body={**scope, "operation": "revoke", "roles": [APP_ROLE]})
        await api.call("POST", "capabilities", body={**scope, "operation": "grant", "roles": [_CHECK_ROLE]})
