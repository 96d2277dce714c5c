"""GitLab, as far as Coppice asks it: merge requests, notes and commit statuses, as its REST documentation has them
(https://docs.gitlab.com/api). People and bad days are those of ``tests.fakes.forge``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from tests.fakes.forge import Answer, Forge, Json, PullRequest, Repository, Request

API = "/api/v4"
WINDOW_SECONDS = 60
LONGEST_DESCRIPTION = 255
STATES = {"pending", "running", "success", "failed", "canceled", "skipped"}


@dataclass
class GitLabForge(Forge):
    """The whole server. Requests are counted by the minute, unchanged ones too."""

    limit: int = 2000
    strict_statuses: bool = False
    """Refuse a status that the commit has already, as versions before 18.3 do."""
    _projects: list[str] = field(default_factory=list)

    def project(self, name: str) -> int:
        """Return the number of a project."""
        if name not in self._projects:
            self._projects.append(name)
        return 1 + self._projects.index(name)

    def _limited(self, request: Request) -> Answer:
        self._roll()
        before = self._used
        answer = super()._limited(request)
        if answer.status == 304:
            self._used = before + 1
            return replace(answer, headers={**answer.headers, **self._counted(Answer(304)).headers})
        if answer.status == 403 and self._used >= self.limit:
            reset = int(self._window + WINDOW_SECONDS - self.now())
            return self._counted(Answer(429, {"message": "Retry later"}, {"retry-after": str(reset)}))
        return answer

    def _counted(self, answer: Answer) -> Answer:
        self._roll()
        counts = {
            "ratelimit-limit": str(self.limit),
            "ratelimit-observed": str(self._used),
            "ratelimit-remaining": str(max(0, self.limit - self._used)),
            "ratelimit-reset": str(int(self._window + WINDOW_SECONDS)),
        }
        return replace(answer, headers={**counts, **answer.headers})

    def _roll(self) -> None:
        if self.now() >= self._window + WINDOW_SECONDS:
            self._window, self._used = self.now(), 0

    def _routed(self, request: Request) -> Answer:
        found = re.fullmatch(rf"{API}/projects/([^/]+)/(.+)", request.path)
        repository = self.repositories.get(unquote(found.group(1))) if found else None
        if found is None or repository is None:
            return Answer(404, {"message": "404 Project Not Found"})
        routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", r"merge_requests", self._list_merge_requests),
            ("GET", r"merge_requests/(\d+)", self._get_merge_request),
            ("GET", r"merge_requests/(\d+)/notes", self._list_notes),
            ("POST", r"merge_requests/(\d+)/notes", self._create_note),
            ("PUT", r"merge_requests/(\d+)/notes/(\d+)", self._update_note),
            ("POST", r"statuses/([^/]+)", self._set_status),
        ]
        for method, path, handler in routes:
            if method == request.method and (match := re.fullmatch(path, found.group(2))):
                return handler(request, repository, *match.groups())
        return Answer(404, {"error": "404 Not Found"})

    def _list_merge_requests(self, request: Request, repository: Repository) -> Answer:
        wanted = request.query.get("state", "all")
        shown = [] if self.forgetful else sorted(repository.pulls.values(), key=lambda pull: -pull.number)
        merge_requests = [self._merge_request(pull) for pull in shown]
        return self._paged(request, [found for found in merge_requests if wanted in {"all", found["state"]}])

    def _get_merge_request(self, _: Request, repository: Repository, number: str) -> Answer:
        pull = repository.pulls.get(int(number))
        return Answer(200, self._merge_request(pull)) if pull else Answer(404, {"message": "404 Not found"})

    def _list_notes(self, request: Request, repository: Repository, number: str) -> Answer:
        notes = [note for note in repository.comments if note["noteable_iid"] == int(number)]
        return self._paged(request, notes if request.query.get("sort") == "asc" else notes[::-1])

    def _create_note(self, request: Request, repository: Repository, number: str) -> Answer:
        if int(number) not in repository.pulls:
            return Answer(404, {"message": "404 Not found"})
        if not request.body.get("body"):
            return Answer(400, {"error": "body is missing"})
        note = {
            "id": self._next_id(),
            "body": request.body["body"],
            "author": {"id": 1, "username": self.login},
            "system": False,
            "noteable_iid": int(number),
            "created_at": self._time(self.now()),
        }
        repository.comments.append(note)
        return Answer(201, dict(note))

    def _update_note(self, request: Request, repository: Repository, number: str, identity: str) -> Answer:
        for note in repository.comments:
            if (note["id"], note["noteable_iid"]) == (int(identity), int(number)):
                note["body"] = request.body["body"]
                return Answer(200, dict(note))
        return Answer(404, {"message": "404 Not found"})

    def _set_status(self, request: Request, repository: Repository, sha: str) -> Answer:
        body = request.body
        if body.get("state") not in STATES:
            return Answer(400, {"error": "state does not have a valid value"})
        if len(body.get("description") or "") > LONGEST_DESCRIPTION:
            return Answer(400, {"message": {"description": ["is too long (maximum is 255 characters)"]}})
        if self.strict_statuses and self.status_of(repository, sha, body["name"]) == body["state"]:
            text = f"Cannot transition status via :{body['state']} from :{body['state']}"
            return Answer(400, {"message": text})
        repository.statuses[sha].append({**body, "id": self._next_id(), "status": body["state"]})
        return Answer(201, {"id": self._ids, "sha": sha, "status": body["state"], "name": body["name"]})

    @staticmethod
    def status_of(repository: Repository, sha: str, name: str) -> str | None:
        """Return the state that a commit shows for a name."""
        return next((s["state"] for s in reversed(repository.statuses[sha]) if s["name"] == name), None)

    def _merge_request(self, pull: PullRequest) -> Json:
        head, ended = pull.head_repository, self._time(pull.updated)
        state = "merged" if pull.merged else "opened" if pull.state == "open" else "closed"
        return {
            "id": 10_000 + pull.number,
            "iid": pull.number,
            "project_id": self.project(pull.repository),
            "title": pull.title,
            "state": state,
            "created_at": self._time(0),
            "updated_at": ended,
            "merged_at": ended if state == "merged" else None,
            "closed_at": ended if state == "closed" else None,
            "target_branch": pull.base,
            "source_branch": pull.branch,
            "author": {"id": 2, "username": pull.author},
            "source_project_id": None if head is None else self.project(head),
            "target_project_id": self.project(pull.repository),
            "labels": pull.labels,
            "draft": pull.draft,
            "sha": pull.sha,
            "web_url": f"{self.url}/{pull.repository}/-/merge_requests/{pull.number}",
        }
