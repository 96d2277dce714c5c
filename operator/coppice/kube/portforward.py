"""A port of a Pod, reached through the API server, as ``kubectl port-forward`` does.

One WebSocket is one connection. Each frame begins with the number of its channel: 0 has the bytes of both directions, 1
what kubelet says when it cannot go on; the first frame of either has the port's number alone. The protocol knows no
half-closed connection: whoever has no more to say ends it.
See https://kubernetes.io/docs/reference/kubernetes-api/core/pod-v1/ ("connect GET requests to portforward of Pod") and
kubernetes/kubernetes, pkg/kubelet/server/portforward (websocket.go).
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol, Self

import aiohttp

from coppice.kube.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

SUBPROTOCOL: Final = "v4.channel.k8s.io"
LOOPBACK: Final = "127.0.0.1"
HEARTBEAT_SECONDS: Final = 30.0
"""So that no proxy on the way takes a quiet session for a dead one."""
_DATA: Final = 0
_ERROR: Final = 1
_PIECE: Final = 64 * 1024


class PortStream(Protocol):
    """One connection to a port of a Pod."""

    async def send(self, data: bytes) -> None:
        """Send bytes; KubeError when the connection is gone."""
        ...

    async def receive(self) -> bytes | None:
        """Return the next bytes, or None at the end; KubeError with what kubelet says if that cannot go on."""
        ...

    async def aclose(self) -> None:
        """End the connection."""
        ...


class WebSocketStream:
    """A PortStream over a WebSocket that speaks ``SUBPROTOCOL``."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._begun: set[int] = set()

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        try:
            await self._socket.send_bytes(bytes((_DATA,)) + data)
        except (aiohttp.ClientError, OSError) as error:
            raise KubeError(f"the connection is gone: {error}") from error

    async def receive(self) -> bytes | None:
        """Return the next bytes, or None at the end."""
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, data = message.data[0], message.data[1:]
            if channel not in self._begun:
                self._begun.add(channel)
            elif channel == _ERROR:
                raise KubeError(data.decode(errors="replace").strip())
            elif data:
                return bytes(data)
        return None

    async def aclose(self) -> None:
        """End the connection."""
        await self._socket.close()


class Tunnel:
    """A port on the loopback of this machine whose connections end at a server in the cluster.

    ``dial`` makes each of them, so that one made later may lead to another Pod. What keeps one from being made is told
    to ``report``: the program that connects sees no more than that its connection is closed.
    """

    def __init__(self, dial: Callable[[], Awaitable[PortStream]], report: Callable[[KubeError], None]) -> None:
        self._dial, self._report = dial, report
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self, port: int = 0) -> Self:
        """Listen, on a free port if none is named; OSError when it is taken."""
        self._server = await asyncio.start_server(self._accept, LOOPBACK, port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def aclose(self) -> None:
        """Listen no more, and end what is open."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
            task.add_done_callback(self._open.discard)
        try:
            await self._serve(reader, writer)
        except KubeError as error:
            self._report(error)
        except asyncio.CancelledError:  # the tunnel ends: asyncio would log what nobody waits for
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What is typed into a shell goes in small pieces, each of which is waited for.
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = await self._dial()
        directions = {asyncio.ensure_future(_upward(reader, stream)), asyncio.ensure_future(_downward(stream, writer))}
        try:
            done, _ = await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            for direction in done:
                direction.result()
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            await stream.aclose()


async def _upward(reader: asyncio.StreamReader, stream: PortStream) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(_PIECE):
            await stream.send(data)


async def _downward(stream: PortStream, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while (data := await stream.receive()) is not None:
            writer.write(data)
            await writer.drain()
