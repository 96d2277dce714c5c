"""A server that is slow, confused or hostile costs a while, and tells nothing that is believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from tests.unit.forges.builders import HOST, SHOP, TOKEN, Clock

from coppice.api.v1alpha1.pullrequest import Provider
from coppice.forges import http as module
from coppice.forges.errors import BadAnswerError, RefusedError, UnauthorizedError, UnreachableError
from coppice.forges.settings import ForgeSettings, connect

PULL = {
    "number": 1,
    "state": "open",
    "head": {"sha": "a" * 40, "repo": {"full_name": SHOP}},
    "base": {"repo": {"full_name": SHOP}},
    "html_url": "https://forge.example/acme/shop/pull/1",
    "closed_at": None,
}


@pytest.fixture
def token(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    return tmp_path / "token"


@pytest.fixture
def asked():
    return []


@pytest.fixture
def client(token, asked):
    """Return a maker of clients whose forge answers as a function says."""

    def make(answer):
        def handle(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return answer(request)

        settings = ForgeSettings(Provider.GITHUB, HOST, "https://api.forge.example", token)
        return connect(settings, clock=Clock(), transport=httpx.MockTransport(handle))

    return make


@asynccontextmanager
async def server(token, talk) -> AsyncIterator:
    """Serve what is said on a connection, byte by byte."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    client = connect(ForgeSettings(Provider.GITHUB, HOST, f"http://127.0.0.1:{port}", token), clock=Clock())
    try:
        yield client
    finally:
        await client.aclose()
        listening.close()


async def test_who_says_nothing_is_not_waited_for(token, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.1)
    async with server(token, lambda _: asyncio.sleep(30)) as client:
        with pytest.raises(UnreachableError, match="does not answer"):
            await client.read(SHOP, 1)


async def test_who_speaks_for_ever_is_not_listened_to_for_ever(token, monkeypatch):
    monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)

    async def drip(writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with server(token, drip) as client:
        with pytest.raises(UnreachableError):
            await client.read(SHOP, 1)


async def test_who_hangs_up_in_the_middle_has_not_answered(token):
    async def half(writer):
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{"number": 1')
        await writer.drain()

    async with server(token, half) as client:
        with pytest.raises(UnreachableError):
            await client.list_open(SHOP)


async def test_who_is_not_there_is_named(token):
    settings = ForgeSettings(Provider.GITHUB, HOST, "http://127.0.0.1:1", token)
    client = connect(settings, clock=Clock())
    with pytest.raises(UnreachableError, match=f"{HOST} does not answer to GET /repos/acme/shop/pulls/1"):
        await client.read(SHOP, 1)
    await client.aclose()


async def test_what_is_too_much_is_not_read(client, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)
    with pytest.raises(BadAnswerError, match="more than 1000 bytes"):
        await client(lambda _: httpx.Response(200, json=[PULL] * 10)).list_open(SHOP)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>secret", b"null", b"{}", b"[1]", b'[{"number": 1}]', json.dumps([{**PULL, "state": "odd"}]).encode()],
)
async def test_what_is_not_understood_is_no_answer_and_is_not_quoted(client, content):
    with pytest.raises(BadAnswerError) as raised:
        await client(lambda _: httpx.Response(200, content=content)).list_open(SHOP)
    assert str(raised.value) == f"{HOST} answered to GET /repos/acme/shop/pulls in a form that is not known"
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


async def test_a_list_without_end_is_no_list(client, monkeypatch, asked):
    monkeypatch.setattr(module, "MOST_PAGES", 5)
    link = {"link": '<https://api.forge.example/repos/acme/shop/pulls?page=2>; rel="next"'}
    with pytest.raises(BadAnswerError, match="does not end"):
        await client(lambda _: httpx.Response(200, json=[PULL], headers=link)).list_open(SHOP)
    assert len(asked) == 5


async def test_the_next_page_is_asked_of_the_same_server_wherever_it_points(client, asked):
    def answer(request):
        link = {"link": '<https://evil.example/else?page=2&per_page=100>; rel="next"'}
        return httpx.Response(200, json=[PULL], headers={} if request.url.params.get("page") else link)

    await client(answer).list_open(SHOP)
    assert [(request.url.host, request.url.path) for request in asked] == [
        ("api.forge.example", "/repos/acme/shop/pulls")
    ] * 2
    assert dict(asked[1].url.params) == {"page": "2", "per_page": "100"}


async def test_a_renamed_repository_is_found_where_it_is_now(client):
    def answer(request):
        if request.url.path.startswith("/repos/"):
            return httpx.Response(301, headers={"location": "https://api.forge.example/repositories/7/pulls/1"})
        return httpx.Response(200, json=PULL)

    assert (await client(answer).read(SHOP, 1)).head == "a" * 40


@pytest.mark.parametrize(
    "where", ["https://evil.example/", "http://api.forge.example/", "https://api.forge.example:1/"]
)
async def test_no_other_server_is_shown_the_token(client, asked, where):
    with pytest.raises(BadAnswerError, match="another server"):
        await client(lambda _: httpx.Response(302, headers={"location": where})).read(SHOP, 1)
    assert len(asked) == 1


async def test_who_is_sent_in_a_circle_gives_up(client):
    with pytest.raises(BadAnswerError, match="without end"):
        await client(lambda request: httpx.Response(302, headers={"location": str(request.url)})).read(SHOP, 1)


async def test_nothing_is_written_where_a_forge_points_to(client, asked):
    with pytest.raises(RefusedError):
        await client(lambda _: httpx.Response(307, headers={"location": "/elsewhere"})).create_comment(SHOP, 1, "x")
    assert len(asked) == 1


async def test_unchanged_since_nothing_is_no_answer(client):
    with pytest.raises(BadAnswerError):
        await client(lambda _: httpx.Response(304)).read(SHOP, 1)


async def test_a_302_without_a_place_is_refused(client):
    with pytest.raises(RefusedError):
        await client(lambda _: httpx.Response(300)).read(SHOP, 1)


async def test_questions_are_asked_one_after_the_other(token):
    busy, most = 0, 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        await asyncio.sleep(0)
        busy -= 1
        return httpx.Response(200, json=PULL)

    settings = ForgeSettings(Provider.GITHUB, HOST, "https://api.forge.example", token)
    client = connect(settings, clock=Clock(), transport=httpx.MockTransport(answer))
    await asyncio.gather(*(client.read(SHOP, 1) for _ in range(10)))
    assert most == 1


async def test_only_so_many_answers_are_remembered(client, monkeypatch, asked):
    monkeypatch.setattr(module, "REMEMBERED", 2)

    def answer(request):
        number = int(request.url.path.rpartition("/")[2])
        return httpx.Response(200, json={**PULL, "number": number}, headers={"etag": f'"{number}"'})

    asking = client(answer)
    for number in (1, 2, 3, 1, 3):
        await asking.read(SHOP, number)
    assert [request.headers.get("if-none-match") for request in asked] == [None, None, None, None, '"3"']


async def test_a_token_is_in_no_error(token):
    token.write_text("tok\x01en")
    client = connect(ForgeSettings(Provider.GITHUB, HOST, "http://127.0.0.1:1", token), clock=Clock())
    with pytest.raises(UnauthorizedError) as raised:
        await client.read(SHOP, 1)
    assert "tok" not in str(raised.value).replace("token", "")
    await client.aclose()
