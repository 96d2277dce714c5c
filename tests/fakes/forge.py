"""GitHub, as far as Coppice and Argo CD ask it: pull requests, comments and commit statuses, as its REST documentation has them
(https://docs.github.com/rest, an Enterprise Server's paths). A test plays the people, and the forge's bad days.

``Forge.answer`` is a function of what is asked and needs no socket; ``Forge.serving`` puts it behind one.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

API = "/api/v3"
WINDOW_SECONDS = 3600
PER_PAGE = 30
MOST_PER_PAGE = 100
LONGEST_COMMENT = 65536
LONGEST_DESCRIPTION = 140
MOST_STATUSES = 1000

Json = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What somebody asked."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    """By lower-case name."""
    body: Any = None


@dataclass(frozen=True)
class Answer:
    """What they get."""

    status: int
    content: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        return b"" if self.content is None else json.dumps(self.content).encode()


@dataclass
class PullRequest:
    """One pull request; tests change it, and what is asked next tells so."""

    number: int
    title: str
    branch: str
    sha: str
    repository: str
    """The one it is for."""
    head_repository: str | None
    """The one it is from: another one is a fork, None a fork that has been deleted."""
    author: str = "ann"
    base: str = "main"
    labels: list[str] = field(default_factory=list)
    draft: bool = False
    state: Literal["open", "closed"] = "open"
    merged: bool = False
    updated: float = 0


@dataclass
class Repository:
    """One repository: what is asked for and was said in it."""

    name: str
    pulls: dict[int, PullRequest] = field(default_factory=dict)
    comments: list[Json] = field(default_factory=list)
    statuses: defaultdict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))

    def open(self, title: str, branch: str, sha: str, *, fork: str = "", labels: tuple[str, ...] = ()) -> PullRequest:
        """Open the next pull request, from another repository if a fork is named."""
        number = max(self.pulls, default=0) + 1
        head = fork or self.name
        self.pulls[number] = PullRequest(number, title, branch, sha, self.name, head, labels=list(labels))
        return self.pulls[number]

    def comments_of(self, number: int) -> list[str]:
        """Return the texts of the comments on one pull request, oldest first."""
        return [comment["body"] for comment in self.comments if comment["issue_url"].endswith(f"/issues/{number}")]

    def status_of(self, sha: str, context: str) -> str | None:
        """Return the state that a commit shows for a context: the newest one counts."""
        return next((s["state"] for s in reversed(self.statuses[sha]) if s["context"] == context), None)


@dataclass
class Fault:
    """An answer to give instead of the right one, for the next ``times`` requests that match."""

    times: int
    matches: Callable[[Request], bool]
    answer: Answer


@dataclass
class Forge:
    """The whole server; the fields are its moods."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    """The tokens to insist on; without any, everybody may ask."""
    limit: int = 5000
    """Requests an hour."""
    now: Callable[[], float] = time.time
    url: str = "https://github.example"
    login: str = "coppice[bot]"
    """Who writes the comments."""
    asked: list[Request] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    forgetful: bool = False
    """Lists of pull requests are empty, with status 200: the mistake that no error tells of."""
    _used: int = 0
    _window: float = 0
    _ids: int = 1000
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # --- people and bad days -----------------------------------------------------------------------------------------------

    def repository(self, name: str) -> Repository:
        """Return a repository, which is made if there is none."""
        return self.repositories.setdefault(name, Repository(name))

    def fail(
        self, times: int = 1, *, status: int = 500, method: str | None = None, path: str = "", **headers: str
    ) -> None:
        """Answer the next requests with this method and this part of the path with an error."""

        def matches(request: Request) -> bool:
            return method in {None, request.method} and path in request.path

        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(times, matches, Answer(status, {"message": "Server Error"}, named)))

    def throttle(self, times: int = 1, *, seconds: int = 60) -> None:
        """Answer the next requests as where somebody asks too much at once: the secondary rate limit."""
        text = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
        answer = Answer(403, {"message": text}, {"retry-after": str(seconds)})
        self.faults.append(Fault(times, lambda _: True, answer))

    def exhaust(self) -> None:
        """Let the requests of this hour be used up."""
        self._roll()
        self._used = self.limit

    # --- answers -----------------------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        """Return what GitHub would say."""
        with self._lock:
            self.asked.append(request)
            return self._limited(request)

    def _limited(self, request: Request) -> Answer:
        for fault in self.faults:
            if fault.times > 0 and fault.matches(request):
                fault.times -= 1
                return self._counted(fault.answer)
        if self.tokens and _token(request) not in self.tokens:
            return Answer(401, {"message": "Bad credentials"})
        self._roll()
        if self._used >= self.limit:
            return self._counted(Answer(403, {"message": "API rate limit exceeded"}))
        answer = self._conditional(request, self._routed(request))
        self._used += answer.status != 304  # what has not changed is not counted
        return self._counted(answer)

    def _conditional(self, request: Request, answer: Answer) -> Answer:
        if request.method != "GET" or answer.status != 200:
            return answer
        etag = f'W/"{hashlib.sha256(answer.body).hexdigest()}"'
        headers = {**answer.headers, "etag": etag}
        if etag in [tag.strip() for tag in request.headers.get("if-none-match", "").split(",")]:
            return Answer(304, None, headers)
        return replace(answer, headers=headers)

    def _counted(self, answer: Answer) -> Answer:
        self._roll()
        counts = {
            "x-ratelimit-limit": str(self.limit),
            "x-ratelimit-remaining": str(max(0, self.limit - self._used)),
            "x-ratelimit-used": str(self._used),
            "x-ratelimit-reset": str(int(self._window + WINDOW_SECONDS)),
            "x-ratelimit-resource": "core",
        }
        return replace(answer, headers={**counts, **answer.headers})

    def _roll(self) -> None:
        if self.now() >= self._window + WINDOW_SECONDS:
            self._window, self._used = self.now(), 0

    def _routed(self, request: Request) -> Answer:
        found = re.fullmatch(rf"{API}/repos/([^/]+/[^/]+)/(.+)", request.path)
        repository = self.repositories.get(found.group(1)) if found else None
        if found is None or repository is None:
            return _missing()
        routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", r"pulls", self._list_pulls),
            ("GET", r"pulls/(\d+)", self._get_pull),
            ("GET", r"issues/(\d+)/comments", self._list_comments),
            ("POST", r"issues/(\d+)/comments", self._create_comment),
            ("GET", r"issues/comments/(\d+)", self._get_comment),
            ("PATCH", r"issues/comments/(\d+)", self._update_comment),
            ("DELETE", r"issues/comments/(\d+)", self._delete_comment),
            ("GET", r"commits/([^/]+)/statuses", self._list_statuses),
            ("POST", r"statuses/([^/]+)", self._create_status),
        ]
        for method, path, handler in routes:
            if method == request.method and (match := re.fullmatch(path, found.group(2))):
                return handler(request, repository, *match.groups())
        return _missing()

    def _list_pulls(self, request: Request, repository: Repository) -> Answer:
        wanted = request.query.get("state", "open")
        pulls = [] if self.forgetful else [p for p in repository.pulls.values() if wanted in {"all", p.state}]
        if base := request.query.get("base"):
            pulls = [pull for pull in pulls if pull.base == base]
        newest_first = sorted(pulls, key=lambda pull: -pull.number)
        return self._paged(request, [self._pull(pull) for pull in newest_first])

    def _get_pull(self, _: Request, repository: Repository, number: str) -> Answer:
        pull = repository.pulls.get(int(number))
        return Answer(200, self._pull(pull)) if pull else _missing()

    def _list_comments(self, request: Request, repository: Repository, number: str) -> Answer:
        if int(number) not in repository.pulls:
            return _missing()
        of_it = [comment for comment in repository.comments if comment["issue_url"].endswith(f"/issues/{number}")]
        return self._paged(request, of_it)

    def _create_comment(self, request: Request, repository: Repository, number: str) -> Answer:
        if int(number) not in repository.pulls:
            return _missing()
        if problem := _no_comment(request.body):
            return problem
        identity = self._next_id()
        url = f"{self.url}{API}/repos/{repository.name}/issues"
        comment = {
            "id": identity,
            "url": f"{url}/comments/{identity}",
            "html_url": f"{self.url}/{repository.name}/pull/{number}#issuecomment-{identity}",
            "issue_url": f"{url}/{number}",
            "body": request.body["body"],
            "user": self._user(self.login),
            "created_at": self._time(self.now()),
            "updated_at": self._time(self.now()),
        }
        repository.comments.append(comment)
        return Answer(201, dict(comment), {"location": comment["url"]})

    def _get_comment(self, _: Request, repository: Repository, identity: str) -> Answer:
        comment = _comment(repository, identity)
        return Answer(200, dict(comment)) if comment else _missing()

    def _update_comment(self, request: Request, repository: Repository, identity: str) -> Answer:
        comment = _comment(repository, identity)
        if comment is None:
            return _missing()
        if problem := _no_comment(request.body):
            return problem
        comment.update(body=request.body["body"], updated_at=self._time(self.now()))
        return Answer(200, dict(comment))

    def _delete_comment(self, _: Request, repository: Repository, identity: str) -> Answer:
        comment = _comment(repository, identity)
        if comment is None:
            return _missing()
        repository.comments.remove(comment)
        return Answer(204)

    def _list_statuses(self, request: Request, repository: Repository, sha: str) -> Answer:
        return self._paged(request, repository.statuses[sha][::-1])

    def _create_status(self, request: Request, repository: Repository, sha: str) -> Answer:
        body = request.body if isinstance(request.body, dict) else {}
        context = body.get("context", "default")
        if body.get("state") not in {"error", "failure", "pending", "success"}:
            return _invalid("state is not included in the list")
        if len(body.get("description") or "") > LONGEST_DESCRIPTION:
            return _invalid("description is too long (maximum is 140 characters)")
        if sum(status["context"] == context for status in repository.statuses[sha]) >= MOST_STATUSES:
            return _invalid("This SHA and context has reached the maximum number of statuses.")
        status = {
            "id": self._next_id(),
            "state": body["state"],
            "description": body.get("description"),
            "target_url": body.get("target_url"),
            "context": context,
            "creator": self._user(self.login),
            "created_at": self._time(self.now()),
            "updated_at": self._time(self.now()),
        }
        repository.statuses[sha].append(status)
        return Answer(201, dict(status))

    def _paged(self, request: Request, items: list[Json]) -> Answer:
        size = min(MOST_PER_PAGE, max(1, int(request.query.get("per_page", PER_PAGE))))
        page = max(1, int(request.query.get("page", 1)))
        last = max(1, -(-len(items) // size))
        pages = {"prev": page - 1, "next": page + 1, "last": last, "first": 1}
        shown = {
            name: number
            for name, number in pages.items()
            if 1 <= number <= last and not (name == "last" and page >= last) and not (name == "first" and page == 1)
        }
        links = [f"<{self._page(request, number)}>; " + f'rel="{name}"' for name, number in shown.items()]
        return Answer(200, items[(page - 1) * size : page * size], {"link": ", ".join(links)} if links else {})

    def _page(self, request: Request, number: int) -> str:
        return f"{self.url}{request.path}?{urlencode({**request.query, 'page': number})}"

    def _pull(self, pull: PullRequest) -> Json:
        url = f"{self.url}{API}/repos/{pull.repository}"
        return {
            "id": 10_000 + pull.number,
            "url": f"{url}/pulls/{pull.number}",
            "html_url": f"{self.url}/{pull.repository}/pull/{pull.number}",
            "number": pull.number,
            "state": pull.state,
            "draft": pull.draft,
            "title": pull.title,
            "user": self._user(pull.author),
            "labels": [{"id": 1, "name": name} for name in pull.labels],
            "head": self._end(pull.head_repository, pull.branch, pull.sha, base=pull.repository),
            "base": self._end(pull.repository, pull.base, "0" * 40, base=pull.repository),
            "merged_at": self._time(pull.updated) if pull.merged else None,
            "closed_at": self._time(pull.updated) if pull.state == "closed" else None,
            "updated_at": self._time(pull.updated),
        }

    def _end(self, repository: str | None, ref: str, sha: str, *, base: str) -> Json:
        owner = (repository or "unknown/").partition("/")[0]
        repo = repository and {
            "full_name": repository,
            "name": repository.partition("/")[2],
            "owner": self._user(owner),
            "fork": repository != base,
            "html_url": f"{self.url}/{repository}",
        }
        return {"label": f"{owner}:{ref}", "ref": ref, "sha": sha, "user": self._user(owner), "repo": repo}

    @staticmethod
    def _user(login: str) -> Json:
        return {"login": login, "type": "Bot" if login.endswith("[bot]") else "User"}

    @staticmethod
    def _time(moment: float) -> str:
        return datetime.fromtimestamp(moment, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _next_id(self) -> int:
        self._ids += 1
        return self._ids

    # --- serving -----------------------------------------------------------------------------------------------------------

    @contextmanager
    def serving(self, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
        """Answer on a port (0: any) while the block runs; yields the URL, to which clients append ``/api/v3``."""
        server = ThreadingHTTPServer((host, port), _handler(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="forge", daemon=True)
        thread.start()
        self.url = f"http://{host}:{server.server_port}"
        try:
            yield self.url
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def _handler(forge: Forge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = forge.answer(read_request(self.command, self.path, dict(self.headers.items()), body))
            self.send_response(answer.status)
            for name, value in {**answer.headers, "content-type": "application/json; charset=utf-8"}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815 - the names are the base class's

        def date_time_string(self, timestamp: float | None = None) -> str:
            """Return the date of the forge's clock."""
            return super().date_time_string(timestamp or forge.now())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            """Say nothing: ``Forge.asked`` has it."""

    return Handler


def read_request(method: str, target: str, headers: Mapping[str, str], body: bytes = b"") -> Request:
    """Return what a client's request line, headers and body ask."""
    parts = urlsplit(target)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    lower = {name.lower(): value for name, value in headers.items()}
    return Request(method, parts.path, query, lower, json.loads(body) if body else None)


def _token(request: Request) -> str:
    return request.headers.get("authorization", "").rpartition(" ")[2]


def _comment(repository: Repository, identity: str) -> Json | None:
    return next((comment for comment in repository.comments if comment["id"] == int(identity)), None)


def _no_comment(body: Any) -> Answer | None:
    text = body.get("body") if isinstance(body, dict) else None
    if not text:
        return _invalid("body can't be blank")
    return _invalid("body is too long (maximum is 65536 characters)") if len(text) > LONGEST_COMMENT else None


def _missing() -> Answer:
    return Answer(404, {"message": "Not Found"})


def _invalid(text: str) -> Answer:
    return Answer(422, {"message": "Validation Failed", "errors": [{"message": text}]})
