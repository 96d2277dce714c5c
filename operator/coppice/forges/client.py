"""What every forge can be asked, whatever its API is like."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Protocol

from coppice.core.pullrequests import MarkState, PullRequest
from coppice.forges.errors import MissingError
from coppice.forges.limit import Limit

_REPOSITORY: Final = re.compile(r"(?!\.{1,2}/)[\w.-]+(/(?!\.{1,2}(/|$))[\w.-]+)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class CommitStatus:
    """What is shown beside a commit, under a name (``context``) that the next one of the same name replaces."""

    state: MarkState
    context: str
    description: str = ""
    url: str = ""


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment on a pull request; ``author`` is who wrote it, by the forge's word."""

    number: int
    author: str
    text: str


@dataclass(frozen=True, slots=True)
class Listing:
    """All open pull requests of a repository, and how many requests it took to read them."""

    pull_requests: tuple[PullRequest, ...]
    pages: int


class ForgeClient(Protocol):
    """One forge. Every method raises ``coppice.forges.errors.ForgeError``, of the class that says what it means."""

    @property
    def host(self) -> str:
        """The forge's name, as in ``PullRequestKey.host``."""
        ...

    @property
    def limit(self) -> Limit:
        """How much it may still be asked."""
        ...

    async def list_open(self, repository: str) -> Listing:
        """Return the open pull requests of a repository: all of them, or an error."""
        ...

    async def read(self, repository: str, number: int) -> PullRequest:
        """Return one pull request."""
        ...

    async def list_comments(self, repository: str, number: int) -> list[Comment]:
        """Return what people and programs wrote on a pull request, oldest first."""
        ...

    async def create_comment(self, repository: str, number: int, text: str) -> Comment:
        """Write a comment."""
        ...

    async def update_comment(self, repository: str, number: int, comment: int, text: str) -> Comment:
        """Replace the text of a comment; MissingError if it is gone."""
        ...

    async def set_status(self, repository: str, sha: str, status: CommitStatus) -> None:
        """Show a status beside a commit."""
        ...

    async def aclose(self) -> None:
        """Close what is open."""
        ...


def checked_repository(repository: str) -> str:
    """Return a repository if it can be one: people write it into their objects, and it becomes part of an address."""
    if not _REPOSITORY.fullmatch(repository):
        raise MissingError("what is named as the repository of a pull request cannot be one")
    return repository
