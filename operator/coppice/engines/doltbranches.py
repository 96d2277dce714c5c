"""What change requests do to branches and tags of a Dolt server, beside merging them."""

from __future__ import annotations

from coppice.engines.base import EngineError, UnknownVersionError
from coppice.engines.doltrefs import OWN_PREFIX, branch_row, commit_of, create_branch, use
from coppice.engines.merging import Signature
from coppice.engines.mysql import Session

_COPPICE = Signature("coppice", "coppice@localhost")


async def commit_work(session: Session, database: str, branch: str, author: Signature, message: str) -> None:
    """Make a commit of what a branch has that no commit has; nothing, and no activity, where there is no such thing."""
    await session.ask("START TRANSACTION READ ONLY")
    await use(session, f"{database}/{branch}")
    there = await branch_row(session, branch)
    if there is None or not there[1]:
        return
    await session.ask("ROLLBACK")
    await session.ask(
        "CALL dolt_commit('-A', '--skip-empty', '-m', %s, '--author', %s)", [message, signature_of(author)]
    )


def signature_of(author: Signature) -> str:
    """Return an author in Git's way."""
    return f"{author.name} <{author.email}>"


async def create_tag(session: Session, database: str, tag: str, commit: str) -> None:
    """Make a tag; done already when it is at that commit. A name of Coppice's own means what Coppice says, whoever has
    used it before.
    """
    there = await _tagged(session, database, tag)
    if there == commit:
        return
    if there is not None:
        if not tag.startswith(OWN_PREFIX):
            raise EngineError(f"the tag {tag} of {database} is at {there}, not at {commit}: choose another name")
        await session.ask("CALL dolt_tag('-d', %s)", [tag])
    await session.ask("CALL dolt_tag(%s, %s)", [tag, commit])


async def delete_tag(session: Session, database: str, tag: str) -> None:
    """Delete a tag, if there is one."""
    if await _tagged(session, database, tag) is not None:
        await session.ask("CALL dolt_tag('-d', %s)", [tag])


async def _tagged(session: Session, database: str, tag: str) -> str | None:
    """Look for a tag, and leave the session on the database: to look is no activity."""
    await session.ask("START TRANSACTION READ ONLY")
    await use(session, database)
    [rows] = await session.ask("SELECT tag_hash FROM dolt_tags WHERE tag_name = %s", [tag])
    await session.ask("ROLLBACK")
    return str(rows[0][0]) if rows else None


async def delete_branch(session: Session, database: str, branch: str, head: str, *, keep: str) -> None:
    """Delete a branch if it still is at ``head``, which has a tag before: what was on it can be had again."""
    await use(session, database)
    there = await branch_row(session, branch)
    if there is None:
        return
    if there[0] != head:
        raise EngineError(f"the branch {branch} of {database} has moved from {head} to {there[0]}: it is kept")
    if there[1]:
        raise EngineError(f"the branch {branch} of {database} has uncommitted changes: commit or reset them first")
    # An earlier try may have been refused, for somebody was on the branch: how long it is kept counts from now.
    await delete_tag(session, database, keep)
    await create_tag(session, database, keep, head)
    await session.ask("CALL dolt_branch('-D', %s)", [branch])


async def set_branch(session: Session, database: str, branch: str, commit: str) -> None:
    """Make a branch be at a commit, whatever was there, tables that no commit has too."""
    await use(session, database)
    await commit_of(session, database, commit)
    if await branch_row(session, branch) is None:
        await create_branch(session, database, branch, commit)
        return
    await use(session, f"{database}/{branch}")
    await session.ask("CALL dolt_reset('--hard', %s)", [commit])
    await session.ask("CALL dolt_clean()")


async def undo(session: Session, database: str, branch: str, commit: str) -> None:
    """Make a branch whose one commit upon another has what that one's first parent had."""
    await use(session, database)
    await commit_of(session, database, commit)
    [rows] = await session.ask(
        "SELECT parent_hash FROM dolt_commit_ancestors WHERE commit_hash = %s AND parent_index = 0", [commit]
    )
    if not rows or rows[0][0] is None:
        raise UnknownVersionError(f"the commit {commit} of {database} has no parent: there is nothing to go back to")
    there = await branch_row(session, branch)
    if there is not None and await _is_child(session, there[0], commit):
        return
    await set_branch(session, database, branch, commit)
    await use(session, f"{database}/{branch}")
    await session.ask("CALL dolt_reset('--hard', %s)", [rows[0][0]])
    await session.ask("CALL dolt_clean()")
    await session.ask("CALL dolt_reset('--soft', %s)", [commit])
    await session.ask(
        "CALL dolt_commit('-A', '--allow-empty', '-m', %s, '--author', %s)",
        [f"Undo {commit}", signature_of(_COPPICE)],
    )


async def _is_child(session: Session, head: str, commit: str) -> bool:
    [rows] = await session.ask("SELECT parent_hash FROM dolt_commit_ancestors WHERE commit_hash = %s", [head])
    return rows == ((commit,),)
