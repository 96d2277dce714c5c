"""Quoting, and the driver's errors in the contract's words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pymysql.err
import pytest
from pymysql.constants import CLIENT
from tests.fakes.certificates import Authority

from coppice.engines import mysql
from coppice.engines.base import Endpoint, EngineError, LoginRefusedError, UnguardedError, UnreachableError

PASSWORD = "hunter2-hunter2"
CAPABILITIES = CLIENT.PROTOCOL_41 | CLIENT.SECURE_CONNECTION | CLIENT.PLUGIN_AUTH


def test_names_and_strings_cannot_end_their_own_quotes() -> None:
    assert mysql.identifier("a`; DROP") == "`a``; DROP`"
    assert mysql.literal("it's \\' -- ") == "'it''s \\\\'' -- '"


def test_the_servers_words_are_known_and_not_said() -> None:
    raised = pymysql.err.IntegrityError(1062, "duplicate unique key given: [somebody@example.org]")
    with pytest.raises(mysql.StatementError) as caught, mysql._translated():
        raise raised
    assert str(caught.value) == "the server answered with error 1062"
    assert "duplicate unique key" in caught.value.text


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (pymysql.err.OperationalError(1045, "Access denied for 'root' using 'hunter2'"), LoginRefusedError),
        (pymysql.err.OperationalError(2003, "Can't connect"), UnreachableError),
        (pymysql.err.OperationalError(2013, "Lost connection"), UnreachableError),
        (pymysql.err.InterfaceError(0, ""), UnreachableError),
        (ConnectionResetError(), UnreachableError),
        (asyncio.IncompleteReadError(b"", 4), UnreachableError),
        (pymysql.err.ProgrammingError(1064, "syntax error"), mysql.StatementError),
        (pymysql.err.InternalError("Packet sequence number wrong"), mysql.StatementError),
    ],
)
def test_the_drivers_errors_become_the_contracts(raised: Exception, expected: type[EngineError]) -> None:
    with pytest.raises(expected) as caught, mysql._translated():
        raise raised
    assert type(caught.value) is expected
    assert caught.value.__suppress_context__
    assert "hunter2" not in str(caught.value)


class Impostor:
    """A server that asks for the password as it likes, and keeps what it is sent."""

    def __init__(self, greeting: str, asked: str | None, capabilities: int = CAPABILITIES) -> None:
        self.greeting, self.asked, self.capabilities = greeting, asked, capabilities
        self.got = b""
        self.ended = asyncio.Semaphore(0)
        self.begun = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.begun += 1
        try:
            await self._talk(reader, writer)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            self.ended.release()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        salt = b"12345678901234567890"
        low, high = self.capabilities & 0xFFFF, self.capabilities >> 16
        greeting = b"\x0a8.0.0\0" + (1).to_bytes(4, "little") + salt[:8] + b"\0" + low.to_bytes(2, "little")
        greeting += b"\x21\x02\x00" + high.to_bytes(2, "little") + bytes([21]) + bytes(10) + salt[8:] + b"\0"
        self._send(writer, 0, greeting + self.greeting.encode() + b"\0")
        await self._take(reader)
        if self.asked is not None:
            self._send(writer, 2, b"\xfe" + (self.asked.encode() + b"\0" + salt + b"\0" if self.asked else b""))
            await self._take(reader)

    @staticmethod
    def _send(writer: asyncio.StreamWriter, number: int, payload: bytes) -> None:
        writer.write(len(payload).to_bytes(3, "little") + bytes([number]) + payload)

    async def _take(self, reader: asyncio.StreamReader) -> None:
        self.got += await reader.read(65536)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            for _ in range(self.begun):
                await self.ended.acquire()


async def _log_in(port: int, *, guarded: bool = True, ca: str | None = None, password: str = PASSWORD) -> None:
    at = Endpoint("127.0.0.1", port, "coppice", password, guarded=guarded, ca=ca)
    async with mysql.session(at):
        pass


@pytest.mark.parametrize(
    "asked", ["mysql_clear_password", "sha256_password", "caching_sha2_password", "mysql_old_password"]
)
async def test_a_guarded_login_sends_no_password_in_a_form_that_the_server_asks_for(asked: str) -> None:
    impostor = Impostor("mysql_native_password", asked)
    async with impostor.listening() as port:
        with pytest.raises(UnguardedError, match=asked):
            await _log_in(port)
    assert PASSWORD.encode() not in impostor.got


@pytest.mark.parametrize("greeting", ["mysql_clear_password", "sha256_password"])
async def test_nor_in_the_form_that_it_greets_with(greeting: str) -> None:
    impostor = Impostor(greeting, None)
    async with impostor.listening() as port:
        with pytest.raises(EngineError):
            await _log_in(port)
    assert b"mysql_native_password" in impostor.got
    assert PASSWORD.encode() not in impostor.got


async def test_nor_in_one_without_a_name() -> None:
    impostor = Impostor("", "", CAPABILITIES & ~CLIENT.PLUGIN_AUTH)
    async with impostor.listening() as port:
        with pytest.raises(UnguardedError, match="mysql_native_password"):
            await _log_in(port)
    assert impostor.got == b""


async def test_an_impostor_would_get_what_it_asks_for_without_the_guard() -> None:
    impostor = Impostor("mysql_native_password", "mysql_clear_password")
    async with impostor.listening() as port:
        with pytest.raises(EngineError):
            await _log_in(port, guarded=False)
    assert PASSWORD.encode() in impostor.got


async def test_a_certificate_to_verify_with_demands_tls() -> None:
    impostor = Impostor("mysql_native_password", "mysql_clear_password")
    async with impostor.listening() as port:
        for ca, words in ((Authority().certificate, "the server no TLS"), ("nonsense", "no certificate")):
            with pytest.raises(UnguardedError, match=words):
                await _log_in(port, ca=ca)
    assert impostor.got == b""


async def test_a_password_that_cannot_be_sent_is_said() -> None:
    impostor = Impostor("mysql_native_password", None)
    async with impostor.listening() as port:
        with pytest.raises(EngineError, match="characters"):
            await _log_in(port, password="пароль")
