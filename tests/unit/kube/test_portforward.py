"""A port of a Pod through the API server: the protocol, and what becomes of connections that end in all sorts of ways."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest
from aiohttp import WSMsgType, web
from kubernetes.aio.client import Configuration

from coppice.kube.aio import AioKubeClient
from coppice.kube.errors import ForbiddenError, KubeError, NotFoundError, TransientError
from coppice.kube.portforward import SUBPROTOCOL, Tunnel

PORT = 5432
BEGINNINGS = (bytes((0, *PORT.to_bytes(2, "little"))), bytes((1, *PORT.to_bytes(2, "little"))))
PATH = "/api/v1/namespaces/app/pods/db-1/portforward"


class Kubelet:
    """The far end: repeats what it is told; some words have another effect."""

    def __init__(self) -> None:
        self.status = 101
        self.requests: list[web.Request] = []
        self.open = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.status != 101:
            return web.json_response({"kind": "Status", "message": "no"}, status=self.status)
        socket = web.WebSocketResponse(protocols=[SUBPROTOCOL])
        await socket.prepare(request)
        for beginning in BEGINNINGS:
            await socket.send_bytes(beginning)
        self.open += 1
        try:
            await self._repeat(socket)
        finally:
            self.open -= 1
        return socket

    async def _repeat(self, socket: web.WebSocketResponse) -> None:
        async for message in socket:
            assert (message.type, message.data[:1]) == (WSMsgType.BINARY, b"\0")
            words = message.data[1:]
            if words == b"bye":
                return
            if words == b"fail":
                await socket.send_bytes(b"\1" + b"connection refused\n")
            else:
                await socket.send_bytes(b"\0")
                await socket.send_bytes(b"\0" + words)


@pytest.fixture
async def kubelet():
    kubelet = Kubelet()
    application = web.Application(client_max_size=2**30)
    application.router.add_get(PATH, kubelet.answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    kubelet.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield kubelet
    await runner.cleanup()


@pytest.fixture
async def client(kubelet):
    configuration = Configuration(host=kubelet.url)
    configuration.api_key["BearerToken"] = "Bearer sesame"
    client = AioKubeClient(configuration)
    yield client
    await client.aclose()


@asynccontextmanager
async def tunnel(client):
    told: list[str] = []
    opened = await Tunnel(lambda: client.dial("app", "db-1", PORT), lambda error: told.append(str(error))).open()
    opened.told = told
    try:
        yield opened
    finally:
        await opened.aclose()


async def connect(port):
    return await asyncio.open_connection("127.0.0.1", port)


async def until(happened):
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - what is waited for is at the far end
            await asyncio.sleep(0.01)


async def test_a_stream_is_asked_for_as_kubectl_does(kubelet, client):
    stream = await client.dial("app", "db-1", PORT)
    await stream.send(b"hello")
    assert await stream.receive() == b"hello"
    await stream.aclose()
    [request] = kubelet.requests
    assert (request.path, dict(request.query)) == (PATH, {"ports": str(PORT)})
    assert request.headers["Authorization"] == "Bearer sesame"
    assert request.headers["Sec-WebSocket-Protocol"] == SUBPROTOCOL


async def test_the_end_and_a_failure_are_two_things(client):
    stream = await client.dial("app", "db-1", PORT)
    await stream.send(b"bye")
    assert await stream.receive() is None
    stream = await client.dial("app", "db-1", PORT)
    await stream.send(b"fail")
    with pytest.raises(KubeError, match=r"^connection refused$"):
        await stream.receive()
    await stream.aclose()
    with pytest.raises(KubeError, match="the connection is gone"):
        await stream.send(b"more")


@pytest.mark.parametrize(
    ("status", "error"), [(403, ForbiddenError), (404, NotFoundError), (500, TransientError), (401, TransientError)]
)
async def test_refusals_have_a_class_each(kubelet, client, status, error):
    kubelet.status = status
    with pytest.raises(error) as caught:
        await client.dial("app", "db-1", PORT)
    assert caught.value.status == status


async def test_an_api_server_that_is_away_is_transient():
    client = AioKubeClient(Configuration(host="http://127.0.0.1:1"))
    with pytest.raises(TransientError):
        await client.dial("app", "db-1", PORT)
    await client.aclose()


async def test_bytes_go_through_unchanged_however_many_they_are(client):
    sent = bytes(range(256)) * 4096 * 8
    async with tunnel(client) as opened:
        reader, writer = await connect(opened.port)
        writer.write(sent)
        received = await reader.readexactly(len(sent))
        assert received == sent
        writer.close()


async def test_each_connection_is_its_own(kubelet, client):
    async with tunnel(client) as opened:
        ends = [await connect(opened.port) for _ in range(20)]
        for number, (_, writer) in enumerate(ends):
            writer.write(str(number).encode().zfill(4))
        assert [int(await reader.readexactly(4)) for reader, _ in ends] == list(range(20))
        assert kubelet.open == 20
        for _, writer in ends:
            writer.close()
        await until(lambda: not kubelet.open)


async def test_a_server_that_hangs_up_ends_the_connection(client):
    async with tunnel(client) as opened:
        reader, writer = await connect(opened.port)
        writer.write(b"bye")
        assert await reader.read() == b""
        writer.close()
        assert opened.told == []


async def test_what_the_far_end_says_is_told_and_the_connection_ends(client):
    async with tunnel(client) as opened:
        reader, writer = await connect(opened.port)
        writer.write(b"fail")
        assert await reader.read() == b""
        writer.close()
        assert opened.told == ["connection refused"]


async def test_a_connection_that_cannot_be_made_is_told_and_the_next_one_can(kubelet, client):
    kubelet.status = 404
    async with tunnel(client) as opened:
        reader, writer = await connect(opened.port)
        assert await reader.read() == b""
        writer.close()
        assert len(opened.told) == 1
        kubelet.status = 101
        reader, writer = await connect(opened.port)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.close()


async def test_the_end_of_the_tunnel_ends_what_is_open(kubelet, client):
    async with tunnel(client) as opened:
        reader, writer = await connect(opened.port)
        await until(lambda: kubelet.open)
    assert await reader.read() == b""
    writer.close()
    with pytest.raises(OSError, match=r"refused|failed"):
        await connect(opened.port)


async def test_only_this_machine_is_listened_to(client):
    async with tunnel(client) as opened:
        assert [socket.getsockname()[0] for socket in opened._server.sockets] == ["127.0.0.1"]
