"""Knocking at a closed door: who answers, and what silence means."""

import asyncio
import socket

import pytest

from coppice.kube import reach


@pytest.fixture
def port():
    """A port of this host on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def test_whoever_refuses_has_been_reached(port):
    assert await reach.is_reached("127.0.0.1", port) is True


async def test_whoever_listens_has_been_reached():
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        assert await reach.is_reached("127.0.0.1", server.sockets[0].getsockname()[1]) is True


async def test_silence_means_that_nothing_got_there(monkeypatch):
    async def never(*_):
        await asyncio.Event().wait()

    monkeypatch.setattr(reach, "KNOCK_SECONDS", 0.01)
    monkeypatch.setattr(asyncio, "open_connection", never)
    assert await reach.is_reached("192.0.2.1", 9) is False


async def test_without_a_route_nobody_can_tell(monkeypatch):
    async def lost(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(asyncio, "open_connection", lost)
    assert await reach.is_reached("192.0.2.1", 9) is None
