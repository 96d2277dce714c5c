"""Commits of TerminusDB: their history, and what a merge of Coppice's says of itself.

A commit of TerminusDB has one parent. The last commit of a merge says at the end of its message what it merges, into
what: for Coppice that makes two parents of it, without which a second merge of the same source would count what the
first one brought as a change of the target's. In the same way the commit of a squash says what it is of, and for whom;
it comes from nothing all the same. Who writes may say anything in a message, but not in the name of the
administrator, which the server itself writes down: in any other commit such a line is only words.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from coppice.engines import terminusrefs as refs
from coppice.engines.base import EngineError, UnknownVersionError
from coppice.engines.merging import Authors, CommitInfo, Signature
from coppice.engines.terminusapi import AnswerError, Api
from coppice.engines.terminuspaths import commit_path, commits_path, path, remote_of

MAX_AUTHORS: Final = 1000
MAX_COMMITS: Final = 100_000
"""Of a database whose history is looked through at once."""
COPPICE: Final = Signature("coppice", "coppice@localhost")
ADMIN: Final = "User/admin"
"""What the server writes down as the user of a commit ends so where the administrator has made it."""
_MERGE: Final = "Coppice-Merge:"
_STEP: Final = "Coppice-Step-To:"
_SQUASH: Final = "Coppice-Squash:"
_SAID: Final = re.compile(rf"\n\n({_MERGE}|{_STEP}|{_SQUASH}) ([0-9a-zA-Z]+) ([0-9a-zA-Z-]+)\s*\Z")
_AUTHOR: Final = re.compile(r"(.*?)\s*<([^<>]*)>\s*\Z", re.DOTALL)
_KINDS: Final = ("InitialCommit", "ValidCommit")


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit. ``parent`` is the server's, and what a merge has merged, into what, is in ``merged``; ``step``: it is
    one of those before the last one of a merge; ``squash``: of which commit it is one, and for whom.
    """

    id: str
    parent: str | None
    merged: tuple[str, str] | None
    step: bool
    author: str
    email: str
    time: float
    message: str
    squash: tuple[str, str] | None = None

    @property
    def parents(self) -> tuple[str, ...]:
        """Return what it comes from, the first one first."""
        if self.merged is not None and not self.step:
            return self.merged
        return () if self.parent is None else (self.parent,)

    @property
    def info(self) -> CommitInfo:
        """Return it as every engine tells it."""
        time = datetime.fromtimestamp(self.time, UTC)
        return CommitInfo(self.id, self.parents, self.author, self.email, time, self.message)


def said(message: str, target: str, source: str, *, last: bool) -> str:
    """Return the message of a merge's last commit, or of one before it."""
    return f"{message.strip()}\n\n{_MERGE if last else _STEP} {target} {source}"


def squashed(message: str, commit: str, maker: str) -> str:
    """Return the message of a squash's commit."""
    return f"{message.strip()}\n\n{_SQUASH} {commit} {maker}"


def author_of(signature: Signature) -> str:
    """Return how somebody signs."""
    return f"{signature.name} <{signature.email}>"


def read(entry: Mapping[str, Any]) -> Commit:
    """Read a document of the class of commits."""
    message, author = str(entry.get("message", "")), str(entry.get("author", ""))
    own = str(entry.get("user", "")).endswith(ADMIN)
    found = _SAID.search(message) if own else None
    pair = (found.group(2), found.group(3)) if found else None
    word = found.group(1) if found else None
    signed = _AUTHOR.fullmatch(author)
    return Commit(
        id=str(entry["identifier"]),
        parent=str(entry["parent"]).rpartition("/")[2] if entry.get("parent") else None,
        merged=pair if word in {_MERGE, _STEP} else None,
        step=word == _STEP,
        author=signed.group(1) if signed else author,
        email=signed.group(2) if signed else "",
        time=float(entry["timestamp"]),
        message=message[: found.start()] if found else message,
        squash=pair if word == _SQUASH else None,
    )


async def heads(api: Api, database: str, repository: str = "local") -> Mapping[str, str]:
    """Return the commits that branches are at, by their names."""
    try:
        found = await api.get(f"document/{commits_path(database, repository)}", type="Branch", as_list="true")
    except AnswerError as error:
        raise _unknown(error, f"there is no database {database}") from None
    return {str(each["name"]): str(each["head"]).rpartition("/")[2] for each in found if "head" in each}


async def commit_of(api: Api, database: str, version: str) -> str:
    """Return the commit that a branch or a tag is at, or the commit itself if there is one."""
    documents = await refs.branches(api, database)
    named = {tag.name: tag.commit for tag in refs.tags(documents)}
    named |= {state.branch: state.head for state in refs.states(database, documents)}
    return named[version] if version in named else (await commit_at(api, database, version)).id


async def commit_at(api: Api, database: str, commit: str, repository: str = "local") -> Commit:
    """Return a commit; an unknown one is refused by its name."""
    try:
        [entry] = await api.get(f"log/{commit_path(database, commit, repository)}", count=1)
    except AnswerError as error:
        raise _unknown(error, f"there is no commit {commit} in {database}") from None
    return read(entry)


async def layers_of(api: Api, database: str, commit: str) -> Mapping[str, str]:
    """Return the layers of a commit's two graphs. Which class one without a parent is of is not to be seen: the first
    one of a database is of its own, and a squash is of the one that all others are.
    """
    for kind in _KINDS:
        try:
            found = await api.get(
                f"document/{commits_path(database)}", type=kind, id=f"{kind}/{commit}", as_list="true"
            )
        except AnswerError as error:
            if error.status not in refs.MISSING:
                raise
            continue
        for entry in found:
            return {graph: str(entry.get(graph) or "") for graph in ("instance", "schema")}
    raise UnknownVersionError(f"there is no commit {commit} in {database}")


async def log(api: Api, database: str, start: str, limit: int) -> Sequence[CommitInfo]:
    """Return commits from a branch or commit backwards, newest first. The commit may be one that was fetched to be
    published, and that no branch has taken yet.
    """
    try:
        place = commit_path(database, await commit_of(api, database, start))
    except UnknownVersionError:
        fetched = remote_of(start)
        if fetched not in (await api.get(f"remote/{path(database)}"))["api:remote_names"]:
            raise
        place = commit_path(database, (await commit_at(api, database, start, fetched)).id, fetched)
    return [read(entry).info for entry in await api.get(f"log/{place}", count=limit)]


async def graph(api: Api, database: str) -> Mapping[str, Commit]:
    """Return all commits of a database."""
    found: dict[str, Commit] = {}
    for kind in _KINDS:
        place = f"document/{commits_path(database)}"
        entries = await api.get(place, type=kind, as_list="true", count=MAX_COMMITS + 1)
        found.update((str(entry["identifier"]), read(entry)) for entry in entries)
    if len(found) > MAX_COMMITS:
        raise EngineError(
            f"{path(database)} has more than {MAX_COMMITS} commits on all branches together, more than are looked "
            "through: load what a branch holds into a new DataStore, and work there"
        )
    return found


def ancestors(commits: Mapping[str, Commit], head: str) -> frozenset[str]:
    """Return a commit and all that it comes from, those that are elsewhere by their names alone."""
    found: set[str] = set()
    waiting = [head]
    while waiting:
        commit = waiting.pop()
        if commit not in found:
            found.add(commit)
            waiting.extend(_origins(commits, commit))
    return frozenset(found)


def base_of(commits: Mapping[str, Commit], one: str, other: str) -> str | None:
    """Return the newest commit that two come from, of those that are here, or None."""
    common = {commit for commit in ancestors(commits, one) & ancestors(commits, other) if commit in commits}
    older = {parent for commit in common for parent in _origins(commits, commit)}
    return max(common - older, key=lambda commit: (commits[commit].time, commit), default=None)


def authors_of(commits: Mapping[str, Commit], names: Iterable[str]) -> Authors:
    """Return who made commits."""
    found = {commits[name] for name in names if name in commits}
    people = sorted({word for commit in found for word in (commit.author, commit.email) if word})
    return Authors(frozenset(people[:MAX_AUTHORS]), cut=len(people) > MAX_AUTHORS)


def _origins(commits: Mapping[str, Commit], commit: str) -> Iterable[str]:
    known = commits.get(commit)
    if known is None:
        return ()
    return (*known.parents, known.parent) if known.parent is not None else known.parents


def _unknown(error: AnswerError, words: str) -> EngineError:
    return UnknownVersionError(words) if error.status in refs.MISSING else error
