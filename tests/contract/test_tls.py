"""TLS before a server that has none, by the program that takes it: stunnel, as a container would run it."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.fakes.certificates import Authority
from tests.fakes.required import lacks

from coppice.engines.base import Endpoint, UnguardedError, UnreachableError
from coppice.engines.tls import proxy

from .conftest import Stage, open_stage
from .runner import PATIENCE, Server, free_port, kill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture
def stage() -> Iterator[Stage]:
    if shutil.which("stunnel") is None:
        lacks("stunnel is not installed")
    with open_stage("terminusdb") as stage:
        yield stage


def certify(directory: Path, authority: Authority) -> None:
    issued = authority.issue()
    (directory / "tls.crt").write_text(issued.certificate)
    (directory / "tls.key").write_text(issued.key)


@asynccontextmanager
async def proxied(stage: Stage, server: Server, certificates: Path) -> AsyncIterator[Endpoint]:
    """Run the proxy before a server; yield the administrator's way through it, as yet without an authority."""
    port, run = free_port(), stage.runner.new("tls-run")
    environment = {
        **proxy(port=port, server_port=server.port).environment,
        **{name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ},
        "COPPICE_CERTIFICATE": str(certificates),
        "COPPICE_RUN": str(run),
        "COPPICE_HOST": "127.0.0.1",
        "COPPICE_RENEWAL_SECONDS": "0.1",
    }
    process = await stage.runner.spawn(proxy(port=port, server_port=server.port).script, environment, run / "log")
    try:
        await _listens(port)
        yield replace(stage.admin(server), port=port)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    finally:
        kill(process)


async def _listens(port: int) -> None:
    for _ in range(PATIENCE * 20):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise AssertionError("nobody listens")


async def test_the_engine_speaks_with_its_server_through_tls_and_with_no_other(stage: Stage, loaded: Path) -> None:
    authority, certificates = Authority(), stage.runner.new("certificates")
    certify(certificates, authority)
    async with (
        stage.runner.serving(stage.store(), loaded, stage.secret()) as server,
        proxied(stage, server, certificates) as plain,
    ):
        through = replace(plain, ca=authority.certificate)
        assert await stage.engine.inspect(through) == await stage.engine.inspect(stage.admin(server))
        app = {"username": "app", "password": server.secret["app-password"], "database": stage.kit.database}
        await stage.engine.execute(through, "ensure-app-user", app)
        with pytest.raises(UnguardedError):
            await stage.engine.inspect(replace(plain, ca=Authority("other").certificate))
        with pytest.raises(UnreachableError):
            await stage.engine.inspect(plain)


async def test_a_renewed_certificate_is_taken_over_one_that_is_none_is_not_and_no_connection_is_cut(
    stage: Stage, loaded: Path
) -> None:
    first, second, certificates = Authority("first"), Authority("second"), stage.runner.new("certificates")
    certify(certificates, first)
    async with (
        stage.runner.serving(stage.store(), loaded, stage.secret()) as server,
        proxied(stage, server, certificates) as plain,
    ):
        before = ssl.create_default_context(cadata=first.certificate)
        before.check_hostname = False
        reader, writer = await asyncio.open_connection("127.0.0.1", plain.port, ssl=before)
        certify(certificates, second)
        for _ in range(PATIENCE * 20):
            try:
                await stage.engine.inspect(replace(plain, ca=second.certificate))
                break
            except UnguardedError:
                await asyncio.sleep(0.05)
        else:
            raise AssertionError("the renewed certificate is not taken over")
        (certificates / "tls.crt").write_text("nonsense")
        await asyncio.sleep(0.5)
        await stage.engine.inspect(replace(plain, ca=second.certificate))
        writer.write(b"GET /api/ok HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await asyncio.wait_for(reader.readline(), PATIENCE)).startswith(b"HTTP/1.1 200")
        writer.close()
