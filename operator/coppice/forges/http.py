"""Questions to one forge over HTTP, one at a time: conditional, page by page, within its limits and ours.

What holds for every forge stands here once: a question that is asked again carries the ETag of the answer, so that an
unchanged one is not sent (nor counted, by GitHub); a list is all of its pages or an error; no answer is waited for, or
read, without end; and the token goes to the configured address only, wherever an answer points.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx

from coppice.forges.errors import (
    BadAnswerError,
    ForbiddenError,
    ForgeError,
    MissingError,
    RateLimitedError,
    RefusedError,
    UnauthorizedError,
    UnreachableError,
)
from coppice.forges.limit import Limit

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 10.0
"""Between two pieces of an answer."""
ANSWER_SECONDS: Final = 30.0
"""For a whole answer: a piece now and then is no answer."""
MOST_BYTES: Final = 32 * 1024 * 1024
"""Of one answer: a page of a hundred pull requests of GitHub has about two megabytes."""
SHOWN_BYTES: Final = 4096
"""Of an error, to tell apart what the forge has no code for."""
MOST_PAGES: Final = 100
PER_PAGE: Final = 100
"""The most that both GitHub and GitLab give."""
MOST_REDIRECTS: Final = 3
REMEMBERED: Final = 2000
"""How many answers are kept to be asked for conditionally; each as small as what it was read for."""

_MEANINGS: Final[Mapping[int, type[ForgeError]]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: MissingError,
    408: UnreachableError,
    410: MissingError,
}

ResultT = TypeVar("ResultT")
Params = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Page:
    """What an answer was read as, and the parameters of the page after it, if it has one."""

    content: Any
    next: Params | None


@dataclass(frozen=True, slots=True)
class _Kept:
    etag: str
    token: str
    page: Page


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    next: Params | None
    body: bytes
    location: httpx.URL | None

    @property
    def is_something(self) -> bool:
        """Return whether it is what was asked for, or that it has not changed."""
        return httpx.codes.is_success(self.status) or self.status == httpx.codes.NOT_MODIFIED


class ForgeHttp:
    """One forge: where it is, who we are there, and what it has told.

    ``told`` is called with each answer's status code, and 0 where none came.
    """

    def __init__(
        self,
        host: str,
        url: str,
        token_file: Path,
        *,
        clock: Callable[[], datetime],
        headers: Mapping[str, str],
        told: Callable[[int], None] = lambda _: None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.host = host
        self.limit = Limit()
        self._url = url.rstrip("/")
        self._token_file = token_file
        self.clock = clock
        self._told = told
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._turn = asyncio.Lock()
        self._client = httpx.AsyncClient(
            headers={"User-Agent": "coppice", **headers},
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=1),
            transport=transport,
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    async def get(self, path: str, read: Callable[[Any], ResultT]) -> ResultT:
        """Return what an answer is read as."""
        page = await self._page(path, {}, read)
        content: ResultT = page.content
        return content

    async def get_all(self, path: str, params: Params, read: Callable[[Any], ResultT]) -> list[list[ResultT]]:
        """Return the pages of a list, each entry read: every page, or an error."""
        found: list[list[ResultT]] = []
        following: Params | None = {**params, "per_page": PER_PAGE}
        while following is not None:
            if len(found) == MOST_PAGES:
                raise BadAnswerError(f"{self.host}: the list {path} does not end within {MOST_PAGES} pages")
            page = await self._page(path, following, lambda body: _entries(body, read))
            found.append(page.content)
            following = page.next
        return found

    async def send(self, method: str, path: str, body: Mapping[str, Any], read: Callable[[Any], ResultT]) -> ResultT:
        """Write, and return what the answer is read as."""
        async with self._turn:
            answer = await self._ask(method, f"{self._url}{path}", {"Authorization": f"Bearer {self._token()}"}, body)
        return self._read(answer.body, f"{method} {path}", read)

    async def _page(self, path: str, params: Params, read: Callable[[Any], Any]) -> Page:
        address = str(httpx.URL(f"{self._url}{path}", params=params or None))
        async with self._turn:
            token = self._token()
            kept = self._kept.get(address)
            # Another token may see other things: nothing that this one has not been shown is believed to be unchanged.
            etag = kept.etag if kept is not None and kept.token == token else None
            headers = {"Authorization": f"Bearer {token}"} | ({"If-None-Match": etag} if etag is not None else {})
            answer = await self._followed(address, headers)
            if answer.status == httpx.codes.NOT_MODIFIED:
                if kept is None or etag is None:
                    raise BadAnswerError(f"{self.host} answered to GET {path} that nothing has changed since nothing")
                self._kept.move_to_end(address)
                return Page(kept.page.content, answer.next or kept.page.next)
            page = Page(self._read(answer.body, f"GET {path}", read), answer.next)
            self._keep(address, answer.headers.get("etag"), token, page)
            return page

    def _keep(self, address: str, etag: str | None, token: str, page: Page) -> None:
        self._kept.pop(address, None)
        if etag:
            self._kept[address] = _Kept(etag, token, page)
        while len(self._kept) > REMEMBERED:
            self._kept.popitem(last=False)

    async def _followed(self, address: str, headers: Mapping[str, str]) -> _Answer:
        """Ask, and go on where the forge points to: a renamed repository answers where it is now."""
        at = httpx.URL(address)
        for _ in range(MOST_REDIRECTS + 1):
            answer = await self._ask("GET", str(at), headers, None)
            if answer.location is None:
                return answer
            if _origin(answer.location) != _origin(httpx.URL(self._url)):
                raise BadAnswerError(f"{self.host} points to another server, which is not asked")
            at = answer.location
        raise BadAnswerError(f"{self.host} points from one address to the next without end")

    async def _ask(
        self, method: str, address: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> _Answer:
        what = f"{method} {httpx.URL(address).raw_path.decode().partition('?')[0]}"
        if self.limit.is_paused(self.clock()):
            raise self._limited()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._exchange(method, address, headers, body)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            self._told(0)
            # Not the error's own text, and not the error itself: it may quote a header.
            raise UnreachableError(f"{self.host} does not answer to {what} ({type(error).__name__})") from None
        self._told(answer.status)
        self._judge(answer, what)
        return answer

    async def _exchange(
        self, method: str, address: str, headers: Mapping[str, str], body: Mapping[str, Any] | None
    ) -> _Answer:
        async with self._client.stream(method, address, headers=headers, json=body) as response:
            content = bytearray()
            async for piece in response.aiter_bytes():
                content += piece
                if len(content) > MOST_BYTES:
                    raise BadAnswerError(f"{self.host} answered with more than {MOST_BYTES} bytes, which are not read")
            location = response.next_request.url if response.next_request is not None else None
            return _Answer(response.status_code, response.headers, _next(response), bytes(content), location)

    def _judge(self, answer: _Answer, what: str) -> None:
        """Remember what the answer tells of limits, and raise what it means if it is none."""
        refused = _is_limited(answer)
        self.limit = self.limit.after(answer.headers, self.clock(), refused=refused)
        if refused:
            raise self._limited()
        message = f"{self.host} answered {answer.status} to {what}"
        if answer.status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise UnreachableError(message)
        followed = answer.location is not None and what.startswith("GET ")
        if answer.is_something or followed:
            return
        if answer.status in _MEANINGS:
            raise _MEANINGS[answer.status](message)
        raise RefusedError(message, answer.body[:SHOWN_BYTES].decode(errors="replace"))

    def _limited(self) -> RateLimitedError:
        until = self.limit.paused_until or self.clock()
        return RateLimitedError(
            f"{self.host} has been asked as much as it allows, and is asked again at {until:%Y-%m-%dT%H:%M:%SZ}", until
        )

    def _token(self) -> str:
        """Return the token as it is in its file now: it may be renewed while we run."""
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise UnauthorizedError(f"the token for {self.host} cannot be read from its file") from None
        if not token or not token.isprintable() or " " in token:
            raise UnauthorizedError(f"the file with the token for {self.host} does not hold a token")
        return token

    def _read(self, body: bytes, what: str, read: Callable[[Any], ResultT]) -> ResultT:
        try:
            return read(json.loads(body))
        except (ValueError, TypeError):
            # Not the error itself: it quotes what was answered.
            raise BadAnswerError(f"{self.host} answered to {what} in a form that is not known") from None


def _entries(body: Any, read: Callable[[Any], ResultT]) -> list[ResultT]:
    if not isinstance(body, list):
        raise TypeError
    return [read(entry) for entry in body]


def _next(response: httpx.Response) -> Params | None:
    """Return the parameters of the next page. Only those: the address is ours, whatever a proxy calls it."""
    link = response.links.get("next", {}).get("url")
    return None if link is None else dict(httpx.URL(link).params)


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _is_limited(answer: _Answer) -> bool:
    """Return whether an answer says that too much was asked: GitHub says so with 403, too."""
    if answer.status != httpx.codes.FORBIDDEN:
        return answer.status == httpx.codes.TOO_MANY_REQUESTS
    told = "retry-after" in answer.headers or answer.headers.get("x-ratelimit-remaining") == "0"
    return told or b"rate limit" in answer.body[:SHOWN_BYTES].lower()
