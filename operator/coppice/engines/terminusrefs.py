"""Branches and tags of a TerminusDB database.

TerminusDB has no tags. Here one is a branch whose name says which tag it is and when it was made,
``coppice-tag.<name>.<seconds>``, and which is shown as no branch; whatever TerminusDB would not have in a branch's name
is escaped by a tilde and two hexadecimal digits. Nothing keeps somebody who may write from moving or deleting one, as
nothing keeps him from any other branch.

Commits stay when a branch goes: what is deleted is its name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

from coppice.engines.base import BranchState, EngineError, Tag, UnknownVersionError
from coppice.engines.terminusapi import AnswerError, Api
from coppice.engines.terminuspaths import MAIN, branch_path, commit_path, commits_path, path

OWN_PREFIX: Final = "coppice/"
"""What tags of Coppice's own begin with: they mean what Coppice says, whoever has used the name before."""
MISSING: Final = frozenset({400, 403, 404})
"""With these the server answers that there is no such thing; a path that leads nowhere is a bad one to it."""

_MARK: Final = "coppice-tag."
_TAG: Final = re.compile(re.escape(_MARK) + r"(?P<name>(?:[A-Za-z0-9_-]|~[0-9A-F]{2})+)\.(?P<at>[0-9]{1,12})")
_PREFIX: Final = re.compile(r"[0-9a-zA-Z]{7,64}")

Documents = Sequence[Mapping[str, Any]]
"""Of the class Branch, as the server has them."""


async def branches(api: Api, database: str) -> Documents:
    """Return all branches, those that are tags too; raises UnknownVersionError where there is no such database."""
    try:
        found: Documents = await api.get(f"document/{commits_path(database)}", type="Branch", as_list="true")
    except AnswerError as error:
        if error.status not in MISSING:
            raise
        raise UnknownVersionError(f"there is no database {database}") from None
    return found


def states(database: str, documents: Documents) -> list[BranchState]:
    """Return the branches that have a commit, ``main`` first: one is without while its database is being made."""
    found = [
        BranchState(database, str(entry["name"]), head, head)
        for entry in documents
        if (head := _head(entry)) and not _TAG.fullmatch(str(entry["name"]))
    ]
    return sorted(found, key=lambda state: (state.branch != MAIN, state.branch))


def tags(documents: Documents, prefix: str = "") -> list[Tag]:
    """Return the tags whose names begin so."""
    matches = ((_TAG.fullmatch(str(entry["name"])), _head(entry)) for entry in documents)
    found = [
        Tag(unquote(match["name"].replace("~", "%")), head, datetime.fromtimestamp(int(match["at"]), UTC))
        for match, head in matches
        if match is not None and head
    ]
    return sorted((tag for tag in found if tag.name.startswith(prefix)), key=lambda tag: (tag.name, tag.at))


def tag_branch(name: str, at: int) -> str:
    """Return the name of the branch that is a tag."""
    escaped = re.sub(r"[^A-Za-z0-9_-]", lambda odd: "".join(f"~{byte:02X}" for byte in odd.group().encode()), name)
    return f"{_MARK}{escaped}.{at}"


def expect_name(branch: str) -> None:
    """Raise EngineError for what no branch can be called."""
    if "/" in branch:
        raise EngineError(f"TerminusDB has no branches with a slash in their name: {branch}")
    if branch.startswith(_MARK):
        raise EngineError(f"a branch whose name begins with {_MARK} is a tag: {branch}")


async def create_branch(api: Api, database: str, branch: str, commit: str) -> None:
    """Make a branch at a commit; done already when it is there."""
    expect_name(branch)
    found = {state.branch: state.head for state in states(database, await branches(api, database))}
    if branch not in found:
        await _cut(api, database, branch, commit)
    elif found[branch] != commit:
        raise EngineError(f"the branch {branch} is there already, at {found[branch]}")


async def create_tag(api: Api, database: str, tag: str, commit: str) -> None:
    """Make a tag; done already when it is at that commit."""
    found = {each.name: each.commit for each in tags(await branches(api, database))}
    if found.get(tag) == commit:
        return
    if tag in found:
        if not tag.startswith(OWN_PREFIX):
            raise EngineError(f"the tag {tag} of {database} is at {found[tag]}, not at {commit}: choose another name")
        await delete_tag(api, database, tag)
    await _cut(api, database, tag_branch(tag, int(time.time())), commit)


async def delete_tag(api: Api, database: str, tag: str) -> None:
    """Delete a tag, if there is one."""
    for found in tags(await branches(api, database)):
        if found.name == tag:
            await delete_one(api, database, found)


async def delete_one(api: Api, database: str, tag: Tag) -> None:
    """Delete a tag, and no other one of its name."""
    await _delete(api, database, tag_branch(tag.name, int(tag.at.timestamp())))


async def delete_branch(api: Api, database: str, branch: str, head: str, *, keep: str) -> None:
    """Delete a branch if it still is at ``head``, which has a tag before: what was on it can be had again.

    The server deletes a branch wherever it is by then. If somebody has committed to it since it was looked at, it is
    made again, with that.
    """
    before = await _parents(api, database)
    found = {state.branch: state.head for state in states(database, await branches(api, database))}
    if branch not in found:
        return
    if found[branch] != head:
        raise EngineError(f"the branch {branch} of {database} has moved from {head} to {found[branch]}: it is kept")
    # An earlier try may have been refused: how long it is kept counts from now.
    await delete_tag(api, database, keep)
    await create_tag(api, database, keep, head)
    await _delete(api, database, branch)
    late = _newest(
        head, {commit: parent for commit, parent in (await _parents(api, database)).items() if commit not in before}
    )
    others = [state.head for state in states(database, await branches(api, database))]
    if late != head and not await contains(api, database, late, others):
        await _cut(api, database, branch, late)
        raise EngineError(f"the branch {branch} of {database} has moved from {head} to {late} meanwhile: it is kept")


async def commit_of(api: Api, database: str, named: str, documents: Documents) -> str:
    """Return the commit that a whole identifier names, or its first 7 or more characters if they name only one on a
    branch or tag.
    """
    if not _PREFIX.fullmatch(named):
        raise UnknownVersionError(f"{named} is no commit: name its identifier, or 7 or more of its first characters")
    if await is_there(api, database, named):
        return named
    found: set[str] = set()
    for head in {_head(entry) for entry in documents} - {""}:
        log = await api.get(f"log/{commit_path(database, head)}")
        found.update(entry["identifier"] for entry in log if entry["identifier"].startswith(named))
    if len(found) != 1:
        raise UnknownVersionError(
            f"{'several commits begin' if found else 'no commit begins'} with {named} in {database}"
        )
    return found.pop()


async def is_there(api: Api, database: str, commit: str) -> bool:
    """Return whether the server has a commit as its own, by its whole identifier."""
    try:
        [newest] = await api.get(f"log/{commit_path(database, commit)}", count=1)
    except AnswerError as error:
        if error.status not in MISSING:
            raise
        return False
    return bool(newest["identifier"] == commit)


async def commit_by(api: Api, database: str, moment: str) -> str:
    """Return the newest commit of ``main`` by a time."""
    try:
        wanted = datetime.fromisoformat(moment).timestamp()
    except ValueError:
        raise UnknownVersionError(f"{moment} is no time in the form of RFC 3339") from None
    for entry in await api.get(f"log/{path(database)}"):
        if float(entry["timestamp"]) <= wanted:
            return str(entry["identifier"])
    raise UnknownVersionError(f"{database} has no commit that is as old as {moment}")


async def contains(api: Api, database: str, commit: str, heads: Sequence[str]) -> bool:
    """Return whether a commit is one of these heads or an ancestor of one; an unknown commit is neither."""
    if commit in heads:
        return True
    for head in heads:
        try:
            log = await api.get(f"log/{commit_path(database, head)}")
        except AnswerError as error:
            if error.status not in MISSING:
                raise
            continue
        if any(entry["identifier"] == commit for entry in log):
            return True
    return False


def _head(document: Mapping[str, Any]) -> str:
    return str(document.get("head", "")).rpartition("/")[2]


async def _parents(api: Api, database: str) -> Mapping[str, str]:
    """Return the parents of all commits that have one."""
    found = await api.get(f"document/{commits_path(database)}", type="ValidCommit", as_list="true")
    return {str(entry["identifier"]): str(entry.get("parent", "")).rpartition("/")[2] for entry in found}


def _newest(head: str, parents: Mapping[str, str]) -> str:
    """Return the last of the commits that come one after another upon a head, or that."""
    after = {parent: commit for commit, parent in parents.items()}
    while head in after:
        head = after[head]
    return head


async def _cut(api: Api, database: str, branch: str, commit: str) -> None:
    await api.call("POST", f"branch/{branch_path(database, branch)}", body={"origin": commit_path(database, commit)})


async def _delete(api: Api, database: str, branch: str) -> None:
    await api.call("DELETE", f"branch/{branch_path(database, branch)}")
