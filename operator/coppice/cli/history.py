"""``coppice log``, ``commit`` and ``tag``: the versions of a store or clone, and names for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from coppice.api.v1alpha1 import LIVE_BRANCH
from coppice.cli import options
from coppice.cli.cells import visible
from coppice.cli.completion import names_of
from coppice.cli.data import Data, engine_of, opened
from coppice.cli.make import make
from coppice.cli.problems import Failure
from coppice.cli.read import meant
from coppice.cli.session import Session, command
from coppice.cli.tunnel import binding_of
from coppice.cli.versions import read_subject
from coppice.cli.wishes import commit_wish
from coppice.cli.words import counted, short, state, title
from coppice.core.plan import Manifest
from coppice.engines.base import Reference
from coppice.engines.merging import CommitInfo, Signature


@command("log")
@click.argument("what", metavar="STORE[:BRANCH]|CLONE[:BRANCH]", shell_complete=names_of("DataClone", "DataStore"))
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many commits.")
async def log(session: Session, what: str, limit: int) -> None:
    """Show the commits of a branch, newest first: the store's or clone's own, another branch, a tag or a commit."""
    subject = read_subject(what)
    found = await meant(session, subject)
    if found["kind"] == "DataStore" and not engine_of(session, found["spec"]["engine"]).versioned:
        await _log_of_snapshots(session, found, subject.point, limit)
        return
    async with opened(session, found) as data:
        start = subject.point or await data.branch()
        commits = await data.engine.log(data.at, data.database, start, limit=limit)
    session.show({"commits": [_as_json(commit) for commit in commits]}, _listed(commits))
    if len(commits) == limit:
        session.say(f"the newest {counted(limit, 'commit')}; --limit shows more")


def _listed(commits: Sequence[CommitInfo]) -> RenderableType:
    table = Table("COMMIT", "TIME", "AUTHOR", "MESSAGE", box=None, pad_edge=False, header_style="bold")
    for commit in commits:
        message = commit.message.strip().partition("\n")[0]
        table.add_row(
            Text(short(commit.hash), style="yellow"),
            f"{commit.time:%Y-%m-%d %H:%M}",
            Text(visible(commit.author)),
            Text(visible(message), overflow="fold"),
        )
    return table


def _as_json(commit: CommitInfo) -> dict[str, Any]:
    return {
        "hash": commit.hash,
        "parents": list(commit.parents),
        "author": commit.author,
        "email": commit.email,
        "time": commit.time.isoformat(),
        "message": commit.message,
    }


async def _log_of_snapshots(session: Session, store: Manifest, branch: str, limit: int) -> None:
    """Show the DataSnapshots that are a branch where the engine keeps none."""
    if not branch or branch == LIVE_BRANCH:
        raise Failure(
            f"{title(store)} has no commits on {LIVE_BRANCH}, which is the live server: coppice tree shows its "
            "snapshots"
        )
    found = await session.cluster.list("DataSnapshot", store["metadata"]["namespace"])
    line = [entry for entry in found if _is_commit(entry, store["metadata"]["name"], branch)]
    if not line:
        raise Failure(f"{title(store)} has no branch {branch}: coppice tree shows those that there are")
    newest = sorted(line, key=_sequence, reverse=True)[:limit]
    table = Table("COMMIT", "STATE", "CLONE", "AFTER", box=None, pad_edge=False, header_style="bold")
    for entry in newest:
        clone = ((entry.get("status") or {}).get("commit") or {}).get("clone", "")
        table.add_row(entry["metadata"]["name"], state(entry), clone, entry["spec"]["commit"]["parent"])
    commits = [
        {"name": entry["metadata"]["name"], "state": state(entry), "parent": entry["spec"]["commit"]["parent"]}
        for entry in newest
    ]
    session.show({"commits": commits}, table)


def _is_commit(snapshot: Manifest, store: str, branch: str) -> bool:
    spec = snapshot["spec"]
    return bool(spec["store"]["name"] == store and (spec.get("commit") or {}).get("branch") == branch)


def _sequence(snapshot: Manifest) -> tuple[int, str]:
    name = snapshot["metadata"]["name"]
    number = name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0, name


@command("commit")
@click.argument("what", metavar="CLONE|STORE:BRANCH", shell_complete=names_of("DataClone"))
@click.option("--message", "-m", help="What was changed, in one line. Needed where the engine has commits of its own.")
@click.option("--branch", help="Where the engine keeps no branches: the one that the commit is the newest state of.")
@click.option("--parent", help="The same: the snapshot that it goes on from; the one the clone was made of.")
@options.waiting
async def commit(
    session: Session,
    what: str,
    message: str | None,
    branch: str | None,
    parent: str | None,
    wait: bool,  # noqa: FBT001
    patience: timedelta,
) -> None:
    """Make a commit, in your name, of what was written to a clone or branch and not committed."""
    subject = read_subject(what)
    found = await meant(session, subject)
    if await _is_versioned(session, found):
        if branch is not None or parent is not None:
            raise click.UsageError("the engine has branches: name the one that is meant behind a colon, db:autumn")
        if not message:
            raise click.UsageError("a commit says what was changed: --message")
        async with opened(session, found) as data:
            await _commit_work(session, data, subject.point or await data.branch(), message)
        return
    if found["kind"] != "DataClone":
        raise Failure(f"{title(found)} keeps no branches: commit a clone of it, with --branch")
    if message:
        session.say("a commit of this engine is a DataSnapshot, which has no message: it is left out")
    wish = commit_wish(found, branch or _branch_of(found), parent=parent)
    await make(session, wish, patience if wait else None)


async def _is_versioned(session: Session, found: Manifest) -> bool:
    if found["kind"] == "DataStore":
        return engine_of(session, found["spec"]["engine"]).versioned
    return engine_of(session, (await binding_of(session, found))["provider"]).versioned


def _branch_of(clone: Manifest) -> str:
    branch: str | None = ((clone.get("status") or {}).get("source") or {}).get("branch")
    if branch is None or branch == LIVE_BRANCH:
        raise Failure(f"{title(clone)} is of {branch or 'no branch'}: say with --branch which one the commit begins")
    return branch


async def _commit_work(session: Session, data: Data, branch: str, message: str) -> None:
    author = Signature.of((await session.cluster.whoami()).name)
    before = await data.head(branch)
    arguments = {
        "database": data.database,
        "branch": branch,
        "author": author.name,
        "email": author.email,
        "message": message,
    }
    await data.engine.execute(data.at, "commit-work", arguments)
    after = await data.head(branch)
    made = after.head != before.head
    said = f"commit {short(after.head)} on {branch} of {title(data.of)}" if made else f"nothing to commit on {branch}"
    session.show({"branch": branch, "commit": after.head, "committed": made}, said)


@command("tag")
@click.argument("what", metavar="STORE:BRANCH", shell_complete=names_of("DataStore"))
@click.argument("tag")
async def tag(session: Session, what: str, tag: str) -> None:
    """Give the newest commit of a branch a name, TAG, that stays with it."""
    subject = read_subject(what)
    found = await meant(session, subject)
    if not await _is_versioned(session, found):
        raise Failure(f"{title(found)} keeps no tags: a DataSnapshot of it has a name, coppice snapshot NAME")
    async with opened(session, found) as data:
        version = await data.engine.resolve(
            data.at, data.database, Reference(branch=subject.point or await data.branch())
        )
        named = {"database": data.database, "tag": tag, "commit": version.head}
        await data.engine.execute(data.at, "create-tag", named)
    session.show({"tag": tag, "commit": version.head}, f"tag {tag} is at {short(version.head)} of {title(found)}")
