"""A fetch from another Dolt server, after which the tags are as they were before it, whoever ends in the middle.

A fetch brings tags along that are of whoever may write to the other server, and moves those of the same names. What the
tags were before stands on a branch of Coppice's own until they are put back: what is left of an earlier fetch is put
back before anything else is done to tags.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from coppice.engines.base import Endpoint
from coppice.engines.digests import sealed
from coppice.engines.doltrefs import OWN_PREFIX, branch_row, transaction, use
from coppice.engines.mysql import Session

FETCH_USER: Final = "coppice-fetch"
_RECORD: Final = f"{OWN_PREFIX}tags-before"
"""The branch whose newest commit has in its message which tags there were."""
_AUTHOR: Final = "coppice <coppice@localhost>"
_LONGEST: Final = timedelta(minutes=10)
"""For a fetch: what was tagged later than that after the record has not come with it."""
Tags = Mapping[str, str]


async def fetch_from(session: Session, at: Endpoint, database: str, remote: str, url: str, references: str) -> None:
    """Fetch branches of another server, which get the name of the remote; nothing else comes with them."""
    await forget(session, remote)
    target = references.replace("refs/heads/", f"refs/remotes/{remote}/")
    before = {name: commit for name, (commit, _) in (await _tags(session)).items()}
    await _write_down(session, at, database, before)
    await session.ask("CALL dolt_remote('add', %s, %s)", [remote, url])
    try:
        await session.ask("CALL dolt_fetch('--user', %s, %s, %s)", [FETCH_USER, remote, f"{references}:{target}"])
    finally:
        await _put_back(session, before)
        await _drop(session)


async def recover(session: Session, at: Endpoint, database: str) -> None:
    """Put back what a fetch has changed that somebody ended in the middle; to look is no activity."""
    async with transaction(at) as looking:
        await use(looking, database)
        left = await branch_row(looking, _RECORD)
    if left is None:
        return
    await use(session, database)
    [((message, written),)] = await session.ask("SELECT message, date FROM dolt_log(%s) LIMIT 1", [left[0]])
    before = _read(at, str(message))
    if before is None:
        return
    await _put_back(session, before, until=written + _LONGEST)
    for tag in before.keys() - await _tags(session):
        await session.ask("CALL dolt_tag(%s, %s)", [tag, before[tag]])
    await _drop(session)


async def forget(session: Session, remote: str) -> None:
    """Remove a remote, if there is one, and its branches with it."""
    [found] = await session.ask("SELECT name FROM dolt_remotes WHERE name = %s", [remote])
    if found:
        await session.ask("CALL dolt_remote('remove', %s)", [remote])


async def _write_down(session: Session, at: Endpoint, database: str, before: Tags) -> None:
    words = json.dumps(before, sort_keys=True)
    message = f"{_seal(at, words)} {words}"
    await session.ask("CALL dolt_branch('-f', %s, 'HEAD')", [_RECORD])
    await use(session, f"{database}/{_RECORD}")
    await session.ask("CALL dolt_commit('--allow-empty', '-m', %s, '--author', %s)", [message, _AUTHOR])
    await use(session, database)


def _read(at: Endpoint, message: str) -> Tags | None:
    """Return what was written down, if it was by us: on a branch of that name an app may have something of its own."""
    seal, _, words = message.partition(" ")
    if seal != _seal(at, words):
        return None
    return {str(name): str(commit) for name, commit in json.loads(words).items()}


def _seal(at: Endpoint, words: str) -> str:
    return sealed(f"tags {words}", at.password)


async def _tags(session: Session) -> dict[str, tuple[str, datetime]]:
    [rows] = await session.ask("SELECT tag_name, tag_hash, date FROM dolt_tags")
    return {str(name): (str(commit), date) for name, commit, date in rows}


async def _put_back(session: Session, before: Tags, *, until: datetime | None = None) -> None:
    """Have the tags that were made until then be as they were."""
    for tag, (commit, made) in (await _tags(session)).items():
        if before.get(tag) == commit or (until is not None and made > until):
            continue
        await session.ask("CALL dolt_tag('-d', %s)", [tag])
        if tag in before:
            await session.ask("CALL dolt_tag(%s, %s)", [tag, before[tag]])


async def _drop(session: Session) -> None:
    if await branch_row(session, _RECORD) is not None:
        await session.ask("CALL dolt_branch('-D', '-f', %s)", [_RECORD])
