"""TerminusDB's HTTP API, one answer at a time.

What holds for every call stands here once: no answer is waited for, or read, without end; a call is repeated only where
that changes nothing; the password goes to the server alone, by no proxy; and an error says what the server says, unless
its words may quote a document.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from coppice.engines.base import Endpoint, EngineError, LoginRefusedError, UnguardedError, UnreachableError
from coppice.engines.terminusjson import decoded, encoded

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 30.0
"""Between two pieces of an answer; the server sends nothing before it has validated what was written."""
ANSWER_SECONDS: Final = 300.0
"""For a whole answer: a piece now and then is no answer."""
MOST_BYTES: Final = 64 * 1024 * 1024
"""Of one answer: a log, a list of branches, a schema. Documents are read piece by piece."""
_EXPIRED: Final = 10
_NOT_YET_VALID: Final = 9
"""OpenSSL's words for why a certificate is refused: X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID."""
MOST_WORDS: Final = 300
"""Characters of the server's own words in an error."""
TORN: Final = "expected label file to have two lines"
"""What TerminusDB says of a label that was captured between being emptied and being written."""

_PLAIN_KINDS: Final = frozenset(
    {
        "api:BranchDoesNotExistError",
        "api:BranchExistsError",
        "api:BranchMainDeletionError",
        "api:DatabaseAlreadyExists",
        "api:DataVersionMismatch",
        "api:InvalidAbsolutePath",
        "api:NotBranchableError",
        "api:OriginBranchDoesNotExist",
        "api:OriginCommitDoesNotExist",
        "api:UnknownDatabase",
        "api:UnknownOrganizationName",
        "api:UnresolvableAbsoluteDescriptor",
        "api:UnresolvableCommitId",
    }
)
"""Errors whose words name databases, branches and commits, and nothing that somebody has written. Of any other, the
kind alone is told: a failed schema check quotes the value that failed."""


class AnswerError(EngineError):
    """The server refused a call: with which status, and which kind of error, if it says. ``witnesses`` say which
    documents are in its way, and may hold values: they are no part of the words.
    """

    def __init__(self, status: int, kind: str, words: str = "", witnesses: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(f"the server answered {kind or f'with status {status}'}{f': {words}' if words else ''}")
        self.status = status
        self.kind = kind
        self.witnesses = witnesses


class LateAnswerError(UnreachableError):
    """The server has taken a call and not answered it in time: it may still be at it."""


class TornLabelError(EngineError):
    """A database does not open: its label file is empty. Its layers are there, but nothing says which is the newest."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered, and the version of the data it was taken from, where it says."""

    content: Any
    data_version: str | None


class Api:
    """One server, as one login."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **parameters: str | int) -> Any:
        """Return what is there; asked once more where the connection broke."""
        return (await self.call("GET", path, parameters=parameters, repeatable=True)).content

    async def call(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str | int] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = False,
        patience: float | None = None,
    ) -> Answer:
        """Return the answer to one call.

        ``repeatable``: to do it twice is to do it once. A kept connection may have been closed by the server just when
        it was used again; then, and only for such a call, a second one is made. ``patience``: how many seconds the
        server may say nothing, where it works longer before it answers than on anything else.
        """
        content = None if body is None else encoded(body)
        kind = {} if body is None else {"Content-Type": "application/json"}
        seconds = patience or ANSWER_SECONDS
        request = self._client.build_request(
            method,
            f"/api/{path}",
            params=parameters,
            headers={**kind, **(headers or {})},
            content=content,
            timeout=httpx.Timeout(patience or READ_SECONDS, connect=CONNECT_SECONDS),
        )
        try:
            async with asyncio.timeout(seconds):
                try:
                    return await self._send(request)
                except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
                    if not repeatable:
                        raise
                    return await self._send(request)
        except httpx.TransportError as error:
            raise _unreachable(error) from None
        except TimeoutError:
            raise LateAnswerError(f"the server has not finished its answer in {seconds:.0f} s") from None

    async def _send(self, request: httpx.Request) -> Answer:
        response = await self._client.send(request, stream=True)
        try:
            read = bytearray()
            async for piece in response.aiter_bytes():
                read += piece
                if len(read) > MOST_BYTES:
                    raise EngineError(f"the server's answer is longer than {MOST_BYTES >> 20} MiB")
        finally:
            await response.aclose()
        if not response.is_success:
            raise _refusal(response.status_code, bytes(read))
        return Answer(_content(bytes(read)), response.headers.get("TerminusDB-Data-Version"))


@asynccontextmanager
async def session(at: Endpoint, *, transport: httpx.AsyncBaseTransport | None = None) -> AsyncGenerator[Api, None]:
    """Speak to a server; raises UnguardedError before anything is sent where the password would be given away.

    TerminusDB has no TLS: an endpoint that is ``guarded`` or has a ``ca`` is a proxy in front of it.
    """
    if at.guarded and at.ca is None:
        raise UnguardedError(
            "TerminusDB takes passwords as they are, and this server has no TLS: put a proxy with TLS in front of it, "
            "and its CA into the login's Secret"
        )
    async with httpx.AsyncClient(
        base_url=f"{'http' if at.ca is None else 'https'}://{_bracketed(at.host)}:{at.port}",
        auth=httpx.BasicAuth(at.username, at.password),
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        verify=_trusting(at.ca),
        trust_env=False,
        transport=transport,
    ) as client:
        yield Api(client)


def segment(name: str) -> str:
    """Return a name as one part of a path."""
    return quote(name, safe="")


def _trusting(ca: str | None) -> ssl.SSLContext:
    """Return what trusts an authority and no other; without one nobody, and quickly: plain HTTP asks nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if ca is not None:
        try:
            context.load_verify_locations(cadata=ca)
        except ssl.SSLError:
            raise UnguardedError("the CA by which the server is to be known is no certificate in PEM") from None
    return context


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _unreachable(error: httpx.TransportError) -> EngineError:
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ssl.SSLCertVerificationError):
            return _unproven(found)
        found = found.__cause__ or found.__context__
    kind = LateAnswerError if isinstance(error, httpx.ReadTimeout) else UnreachableError
    return kind(f"the server does not answer ({type(error).__name__})")


def _unproven(error: ssl.SSLCertVerificationError) -> UnguardedError:
    """Return why a certificate proves nothing; where the CA was given differs from server to server."""
    if error.verify_code == _EXPIRED:
        return UnguardedError("the server's certificate, or that of its CA, has expired: have it renewed")
    if error.verify_code == _NOT_YET_VALID:
        return UnguardedError("the server's certificate, or that of its CA, is not valid yet: compare the clocks")
    return UnguardedError("the server's certificate is not of the CA by which it is to be known")


def _content(read: bytes) -> Any:
    if not read.strip():
        return None
    try:
        return decoded(read)
    except ValueError:
        raise EngineError("the server answered something else than JSON") from None


def _refusal(status: int, read: bytes) -> EngineError:
    """Return what a refused call says, without anything that somebody may have written into the database."""
    text = read.decode(errors="replace")
    if status == httpx.codes.UNAUTHORIZED:
        return LoginRefusedError("the server refused the login")
    if TORN in text:
        return TornLabelError("a label file of the database is empty: the copy was taken while it was written")
    try:
        told = json.loads(text)
        found = told.get("api:error") if isinstance(told.get("api:error"), dict) else {}
        kind = str(found.get("@type") or told.get("@type") or told.get("api:status") or "")
        words = str(told.get("api:message") or "")
        witnesses = found.get("api:witnesses") or told.get("api:witnesses") or ()
    except (ValueError, AttributeError):
        return AnswerError(status, "")
    return AnswerError(status, kind[:MOST_WORDS], words[:MOST_WORDS] if kind in _PLAIN_KINDS else "", witnesses)
