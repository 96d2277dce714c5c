"""A forge without a socket, for clients that ask it by the thousand under a clock of their own."""

from __future__ import annotations

import httpx
from tests.fakes.forge import Forge, read_request


def transport(forge: Forge) -> httpx.MockTransport:
    """Return what connects a client with a forge."""

    def handle(request: httpx.Request) -> httpx.Response:
        target = request.url.raw_path.decode()
        answer = forge.answer(read_request(request.method, target, dict(request.headers), request.content))
        return httpx.Response(answer.status, headers=dict(answer.headers), content=answer.body)

    return httpx.MockTransport(handle)
