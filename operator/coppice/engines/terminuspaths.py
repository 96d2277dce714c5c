"""How databases, branches and commits of TerminusDB are named in paths."""

from __future__ import annotations

from typing import Final

from coppice.engines.terminusapi import segment

MAIN: Final = "main"
"""What a path without a branch means."""
REMOTE_PREFIX: Final = "coppice-"
SHORT: Final = 16
"""So much of a commit's name stands in names that are made for it."""


def path(database: str) -> str:
    """Return a database's path; a name without an organisation is one of the administrator's."""
    return "/".join(segment(part) for part in (database if "/" in database else f"admin/{database}").split("/"))


def commit_path(database: str, commit: str, repository: str = "local") -> str:
    """Return the path of a commit: of the server's own, or of those that were fetched from another."""
    return f"{path(database)}/{segment(repository)}/commit/{segment(commit)}"


def branch_path(database: str, branch: str) -> str:
    """Return the path of a branch of the server's own."""
    return f"{path(database)}/local/branch/{segment(branch)}"


def commits_path(database: str, repository: str = "local") -> str:
    """Return the path of the graph that holds commits and branches."""
    return f"{path(database)}/{segment(repository)}/_commits"


def remote_of(commit: str) -> str:
    """Return the remote by which a commit is fetched, and beside whose name it stands until a branch has taken it."""
    return f"{REMOTE_PREFIX}{commit[:SHORT]}"
