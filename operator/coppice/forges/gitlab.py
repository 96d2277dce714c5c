"""GitLab's REST API v4, of gitlab.com and of one's own: merge requests, notes and commit statuses
(https://docs.gitlab.com/api).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal
from urllib.parse import quote

from pydantic import BaseModel

from coppice.core.pullrequests import MarkState, PullRequest, PullRequestKey, State
from coppice.forges.client import Comment, CommitStatus, Listing, checked_repository
from coppice.forges.errors import RefusedError
from coppice.forges.http import ForgeHttp
from coppice.forges.limit import Limit

HEADERS: Final = {"Accept": "application/json"}
LONGEST_DESCRIPTION: Final = 255

_STATES: Final[Mapping[MarkState, str]] = {
    MarkState.PENDING: "pending",
    MarkState.SUCCESS: "success",
    MarkState.FAILURE: "failed",
}


class _MergeRequest(BaseModel):
    iid: int
    state: Literal["opened", "closed", "merged", "locked"]
    """``locked`` for the moment in which it is being merged: it is open until it is."""
    sha: str | None
    source_project_id: int | None
    """None where it has been deleted."""
    target_project_id: int
    web_url: str
    closed_at: datetime | None = None
    merged_at: datetime | None = None


class _User(BaseModel):
    username: str


class _Note(BaseModel):
    id: int
    body: str
    author: _User | None
    system: bool
    """Whether GitLab wrote it: who was assigned, what was pushed."""


@dataclass(frozen=True, slots=True)
class GitLab:
    """A GitLab, asked over ``http``."""

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
        """Return the open merge requests: by the time of their creation, so that a comment moves none of them."""
        asked = self.http.clock()
        params = {"state": "opened", "order_by": "created_at", "sort": "desc"}
        path = f"{_project(repository)}/merge_requests"
        pages = await self.http.get_all(path, params, _MergeRequest.model_validate)
        found = tuple(self._told(repository, merge_request, asked) for page in pages for merge_request in page)
        return Listing(found, len(pages))

    async def read(self, repository: str, number: int) -> PullRequest:
        """Return one merge request."""
        asked = self.http.clock()
        path = f"{_project(repository)}/merge_requests/{number}"
        merge_request = await self.http.get(path, lambda body: _numbered(body, number))
        return self._told(repository, merge_request, asked)

    async def list_comments(self, repository: str, number: int) -> list[Comment]:
        """Return the notes that people and programs wrote."""
        path = f"{_project(repository)}/merge_requests/{number}/notes"
        pages = await self.http.get_all(path, {"order_by": "created_at", "sort": "asc"}, _Note.model_validate)
        return [_comment(note) for page in pages for note in page if not note.system]

    async def create_comment(self, repository: str, number: int, text: str) -> Comment:
        """Write a note."""
        path = f"{_project(repository)}/merge_requests/{number}/notes"
        return await self.http.send("POST", path, {"body": text}, _read_comment)

    async def update_comment(self, repository: str, number: int, comment: int, text: str) -> Comment:
        """Replace the text of a note."""
        path = f"{_project(repository)}/merge_requests/{number}/notes/{comment}"
        return await self.http.send("PUT", path, {"body": text}, _read_comment)

    async def set_status(self, repository: str, sha: str, status: CommitStatus) -> None:
        """Show a status beside a commit."""
        body = {
            "state": _STATES[status.state],
            "name": status.context,
            "description": status.description[:LONGEST_DESCRIPTION],
            **({"target_url": status.url} if status.url else {}),
        }
        try:
            await self.http.send("POST", f"{_project(repository)}/statuses/{quote(sha, safe='')}", body, lambda _: None)
        except RefusedError as error:
            # Older versions refuse a status that the commit has already.
            if "Cannot transition status" not in error.answer:
                raise

    async def aclose(self) -> None:
        """Close the connection."""
        await self.http.aclose()

    def _told(self, repository: str, merge_request: _MergeRequest, asked: datetime) -> PullRequest:
        closed, source = merge_request.state in {"closed", "merged"}, merge_request.source_project_id
        ended = merge_request.merged_at if merge_request.state == "merged" else merge_request.closed_at
        return PullRequest(
            key=PullRequestKey.of(self.host, repository, merge_request.iid),
            state=State.CLOSED if closed else State.OPEN,
            head=merge_request.sha or "",
            fork=None if source is None else source != merge_request.target_project_id,
            closed_at=(ended or asked) if closed else None,
            url=merge_request.web_url,
            read_at=asked,
        )


def _project(repository: str) -> str:
    return f"/projects/{quote(checked_repository(repository), safe='')}"


def _numbered(body: Any, number: int) -> _MergeRequest:
    merge_request = _MergeRequest.model_validate(body)
    if merge_request.iid != number:
        raise ValueError
    return merge_request


def _read_comment(body: Any) -> Comment:
    return _comment(_Note.model_validate(body))


def _comment(note: _Note) -> Comment:
    return Comment(note.id, note.author.username if note.author is not None else "", note.body)
