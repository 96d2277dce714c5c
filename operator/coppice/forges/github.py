"""GitHub's REST API, of github.com and of an Enterprise Server: pull requests, issue comments and commit statuses
(https://docs.github.com/rest).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel

from coppice.core.pullrequests import PullRequest, PullRequestKey, State
from coppice.forges.client import Comment, CommitStatus, Listing, checked_repository
from coppice.forges.http import ForgeHttp
from coppice.forges.limit import Limit

HEADERS: Final = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
LONGEST_DESCRIPTION: Final = 140


class _Repository(BaseModel):
    full_name: str


class _Base(BaseModel):
    repo: _Repository


class _Head(BaseModel):
    sha: str
    repo: _Repository | None
    """None where it has been deleted."""


class _Pull(BaseModel):
    number: int
    state: Literal["open", "closed"]
    head: _Head
    base: _Base
    html_url: str
    closed_at: datetime | None


class _User(BaseModel):
    login: str


class _Comment(BaseModel):
    id: int
    body: str | None
    user: _User | None
    """None where the account has been deleted."""


@dataclass(frozen=True, slots=True)
class GitHub:
    """A GitHub, asked over ``http``."""

    http: ForgeHttp

    @property
    def host(self) -> str:
        """The forge's name."""
        return self.http.host

    @property
    def limit(self) -> Limit:
        """How much it may still be asked."""
        return self.http.limit

    async def list_open(self, repository: str) -> Listing:
        """Return the open pull requests: by the time of their creation, so that a comment moves none of them."""
        asked = self.http.clock()
        params = {"state": "open", "sort": "created", "direction": "desc"}
        pages = await self.http.get_all(f"{_path(repository)}/pulls", params, _Pull.model_validate)
        found = tuple(self._told(repository, pull, asked) for page in pages for pull in page)
        return Listing(found, len(pages))

    async def read(self, repository: str, number: int) -> PullRequest:
        """Return one pull request."""
        asked = self.http.clock()
        pull = await self.http.get(f"{_path(repository)}/pulls/{number}", lambda body: _numbered(body, number))
        return self._told(repository, pull, asked)

    async def list_comments(self, repository: str, number: int) -> list[Comment]:
        """Return the comments of the conversation, not those on lines of code."""
        pages = await self.http.get_all(f"{_path(repository)}/issues/{number}/comments", {}, _read_comment)
        return [comment for page in pages for comment in page]

    async def create_comment(self, repository: str, number: int, text: str) -> Comment:
        """Write a comment."""
        path = f"{_path(repository)}/issues/{number}/comments"
        return await self.http.send("POST", path, {"body": text}, _read_comment)

    async def update_comment(self, repository: str, number: int, comment: int, text: str) -> Comment:
        """Replace the text of a comment; GitHub finds it without its pull request."""
        del number
        path = f"{_path(repository)}/issues/comments/{comment}"
        return await self.http.send("PATCH", path, {"body": text}, _read_comment)

    async def set_status(self, repository: str, sha: str, status: CommitStatus) -> None:
        """Show a status beside a commit."""
        body = {
            "state": str(status.state),
            "context": status.context,
            "description": status.description[:LONGEST_DESCRIPTION],
            **({"target_url": status.url} if status.url else {}),
        }
        await self.http.send("POST", f"{_path(repository)}/statuses/{quote(sha, safe='')}", body, lambda _: None)

    async def aclose(self) -> None:
        """Close the connection."""
        await self.http.aclose()

    def _told(self, repository: str, pull: _Pull, asked: datetime) -> PullRequest:
        closed = pull.state == "closed"
        return PullRequest(
            key=PullRequestKey.of(self.host, repository, pull.number),
            state=State.CLOSED if closed else State.OPEN,
            head=pull.head.sha,
            fork=None if pull.head.repo is None else pull.head.repo.full_name != pull.base.repo.full_name,
            closed_at=(pull.closed_at or asked) if closed else None,
            url=pull.html_url,
            read_at=asked,
        )


def _path(repository: str) -> str:
    return f"/repos/{checked_repository(repository)}"


def _numbered(body: Any, number: int) -> _Pull:
    pull = _Pull.model_validate(body)
    if pull.number != number:
        raise ValueError
    return pull


def _read_comment(body: Any) -> Comment:
    comment = _Comment.model_validate(body)
    return Comment(comment.id, comment.user.login if comment.user is not None else "", comment.body or "")
