"""TerminusDB's HTTP API: what is repeated, what an error says, and to whom a password goes."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.certificates import Authority

from coppice.engines import terminusapi
from coppice.engines.base import Endpoint, EngineError, LoginRefusedError, UnguardedError, UnreachableError
from coppice.engines.terminusapi import AnswerError, LateAnswerError, TornLabelError, segment, session

AT = Endpoint("10.0.0.1", 6363, "admin", "hunter2")
Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers as told, one answer after the other, the last one for ever."""

    def __init__(self, *answers: Handler | httpx.Response | Exception) -> None:
        self.asked: list[httpx.Request] = []
        self._answers = list(answers)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)


def told(status: int, content: Any, **headers: str) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(content), headers=headers)


def refusal(kind: str, words: str) -> dict[str, Any]:
    return {"@type": "api:X", "api:status": "api:failure", "api:error": {"@type": kind}, "api:message": words}


async def ask(server: Server, *, method: str = "GET", repeatable: bool = False) -> Any:
    async with session(AT, transport=httpx.MockTransport(server)) as api:
        return await api.call(method, "document/admin/shop", body={"a": 1}, repeatable=repeatable)


async def test_an_answer_comes_with_the_version_it_was_taken_from() -> None:
    server = Server(told(200, [{"@id": "Product/1"}], **{"TerminusDB-Data-Version": "branch:abc"}))
    async with session(AT, transport=httpx.MockTransport(server)) as api:
        answer = await api.call("GET", f"document/admin/{segment('a b')}", parameters={"count": 1})
    assert answer == terminusapi.Answer([{"@id": "Product/1"}], "branch:abc")
    assert str(server.asked[0].url) == "http://10.0.0.1:6363/api/document/admin/a%20b?count=1"
    assert server.asked[0].headers["authorization"].startswith("Basic ")


async def test_an_empty_answer_is_one() -> None:
    assert (await ask(Server(httpx.Response(200)))).content is None


@pytest.mark.parametrize("error", [httpx.RemoteProtocolError("gone"), httpx.ReadError("reset")])
async def test_what_can_be_repeated_is_once_where_the_connection_broke(error: Exception) -> None:
    server = Server(error, told(200, 1))
    assert (await ask(server, repeatable=True)).content == 1
    assert len(server.asked) == 2
    broken = Server(error)
    with pytest.raises(UnreachableError):
        await ask(broken, repeatable=True)
    assert len(broken.asked) == 2


@pytest.mark.parametrize("error", [httpx.RemoteProtocolError("gone"), httpx.ReadError("reset")])
async def test_what_may_have_been_done_is_not_done_again(error: Exception) -> None:
    server = Server(error, told(200, 1))
    with pytest.raises(UnreachableError):
        await ask(server, method="POST")
    assert len(server.asked) == 1


@pytest.mark.parametrize("error", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow"), httpx.ConnectTimeout("x")])
async def test_a_server_that_is_not_there_is_asked_once(error: Exception) -> None:
    server = Server(error)
    with pytest.raises(UnreachableError, match=type(error).__name__) as raised:
        await ask(server, repeatable=True)
    assert isinstance(raised.value, LateAnswerError) == isinstance(error, httpx.ReadTimeout)
    assert len(server.asked) == 1


async def test_an_answer_without_end_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminusapi, "MOST_BYTES", 10)
    with pytest.raises(EngineError, match="longer"):
        await ask(Server(told(200, "x" * 10)))

    async def slow(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(terminusapi, "ANSWER_SECONDS", 0.001)
    async with session(AT, transport=httpx.MockTransport(slow)) as api:
        with pytest.raises(LateAnswerError, match="not finished"):
            await api.get("info")


async def test_something_else_than_json_is_an_error_that_does_not_quote_it() -> None:
    with pytest.raises(EngineError) as caught:
        await ask(Server(httpx.Response(200, content=b"<p>secret row")))
    assert "secret" not in str(caught.value)


async def test_words_that_name_things_are_told() -> None:
    words = "Branch 'main' should not be deleted as it is special"
    with pytest.raises(AnswerError, match=words) as caught:
        await ask(Server(told(400, refusal("api:BranchMainDeletionError", words))))
    assert (caught.value.status, caught.value.kind) == (400, "api:BranchMainDeletionError")


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (400, refusal("api:SchemaCheckFailure", "secret row"), "api:SchemaCheckFailure"),
        (403, {"api:status": "api:forbidden", "api:message": "secret row"}, "api:forbidden"),
        (500, ["secret row"], "status 500"),
        (500, {"api:error": "secret row"}, "status 500"),
    ],
)
async def test_words_that_may_quote_a_document_are_not(status: int, content: Any, kind: str) -> None:
    with pytest.raises(AnswerError, match=kind) as caught:
        await ask(Server(told(status, content)))
    assert "secret row" not in str(caught.value)
    assert caught.value.status == status


async def test_a_refused_login_and_a_torn_label_are_known() -> None:
    with pytest.raises(LoginRefusedError) as caught:
        await ask(Server(told(401, refusal("api:IncorrectAuthenticationError", "Incorrect hunter2"))))
    assert "hunter2" not in str(caught.value)
    words = "rust_io_error('InvalidData',\"expected label file to have two lines. contents were ([])\")"
    with pytest.raises(TornLabelError):
        await ask(Server(httpx.Response(500, content=words)))


async def test_a_guarded_password_goes_nowhere_without_tls() -> None:
    server = Server(told(200, 1))
    with pytest.raises(UnguardedError, match="TLS"):
        async with session(Endpoint("h", 1, "u", "hunter2", guarded=True), transport=httpx.MockTransport(server)):
            raise AssertionError
    with pytest.raises(UnguardedError, match="PEM"):
        async with session(Endpoint("h", 1, "u", "hunter2", ca="no PEM")):
            raise AssertionError


@pytest.mark.parametrize(
    ("signer", "days", "words"),
    [
        ("authority", 0, None),
        ("other", 0, "not of the CA by which it is to be known$"),
        ("authority", -3, "has expired"),
        ("authority", 3, "not valid yet"),
    ],
)
async def test_a_password_goes_to_a_server_of_the_named_authority_only(
    signer: str, days: int, words: str | None, tmp_path: Path
) -> None:
    authority, other = Authority(), Authority("other")
    issued = (authority if signer == "authority" else other).issue(days=days)
    (tmp_path / "pem").write_text(issued.certificate + issued.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        at = Endpoint("127.0.0.1", port, "u", "hunter2", guarded=True, ca=authority.certificate)
        async with session(at) as api:
            if words is None:
                assert await api.get("info") == {}
            else:
                with pytest.raises(UnguardedError, match=words):
                    await api.get("info")
    assert len(heard) == (words is None)


async def test_no_proxy_of_the_environment_is_given_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with session(AT) as api:
        assert not api._client._mounts


async def test_an_address_of_the_sixth_version_is_one() -> None:
    server = Server(told(200, {}))
    async with session(Endpoint("fd00::1", 6363, "u", "p"), transport=httpx.MockTransport(server)) as api:
        await api.get("ok")
    assert server.asked[0].url.host == "fd00::1"
