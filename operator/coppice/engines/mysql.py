"""Sessions with a server that speaks the MySQL protocol, and its errors in the words of the engine contract.

One round trip asks several questions: a clone is Ready only after the last of them is answered.

In this protocol the server says how the password is to be sent, as it is if it likes. A guarded login
(``coppice.engines.base.Endpoint``) takes TLS with a verified certificate, or else one form only, an answer to a
challenge (``mysql_native_password``). Who makes believe to be the server learns from that what a weak password can be
guessed by, and no more; nothing proves to us who it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Final

import aiomysql
import pymysql.err
from pymysql.constants import CLIENT

from coppice.engines.base import Endpoint, EngineError, LoginRefusedError, UnguardedError, UnreachableError

CONNECT_SECONDS: Final = 0.5
"""For the TCP handshake of one attempt. A new Pod's first packet may be lost to address resolution; the kernel alone
would repeat it after 1 s."""

CONNECT_ATTEMPTS: Final = 2

ANSWER_SECONDS: Final = 15.0
"""For everything asked in one session. A server that is starting, or stopped in the middle, is asked again later."""

WORK_SECONDS: Final = 240.0
"""For each answer, and each row, in a session that works through whole tables: less than what a reconciliation may take
before the operator is taken to be stuck (``COPPICE_STUCK``)."""

GUARDED_PLUGIN: Final = "mysql_native_password"
"""The one form of a login without TLS in which the password itself is never sent, whatever the server asks for."""

ACCESS_DENIED: Final = 1045
UNKNOWN_DATABASE: Final = 1049
UNKNOWN_TABLE: Final = 1146
_CLIENT_ERRORS: Final = range(2000, 3000)

Row = tuple[Any, ...]
ResultSet = tuple[Row, ...]


class StatementError(EngineError):
    """The server refused a statement; ``code`` is the MySQL error number.

    Its words are in ``text`` alone, to be told apart by, and are shown to nobody: they may quote the statement and
    rows, and are of whoever runs the server.
    """

    def __init__(self, code: int, text: str) -> None:
        """Keep the server's words, and say the number only."""
        super().__init__(f"the server answered with error {code}")
        self.code = code
        self.text = text


class _Cursor(aiomysql.Cursor):  # type: ignore[misc]  # the driver has no types
    """A cursor that does not print a server's warnings: they may quote rows."""

    async def _show_warnings(self, conn: Any) -> None:
        del conn


class _StreamCursor(aiomysql.SSCursor):  # type: ignore[misc]
    """The same, for rows that are read as they come."""

    async def _show_warnings(self, conn: Any) -> None:
        del conn


class Session:
    """One connection, for a few questions."""

    def __init__(self, connection: Any, seconds: float | None = None) -> None:
        """Use an open aiomysql connection; with ``seconds``, no answer and no row is waited for any longer."""
        self._connection = connection
        self._seconds = seconds

    async def ask(self, statements: str, values: Sequence[object] = ()) -> list[ResultSet]:
        """Run statements, separated by semicolons, in one round trip; return the result set of each that has one."""
        sets: list[ResultSet] = []
        with _translated():
            async with asyncio.timeout(self._seconds), self._connection.cursor(_Cursor) as cursor:
                await cursor.execute(statements, values or None)
                more = True
                while more:
                    if cursor.description is not None:
                        sets.append(tuple(await cursor.fetchall()))
                    more = await cursor.nextset()
        return sets

    async def rows(self, statement: str, values: Sequence[object] = ()) -> AsyncGenerator[Row, None]:
        """Run one statement and hand out its rows as they come; who stops early can only close the session then."""
        async with aclosing(self.named_rows(statement, values)) as rows:
            async for _, row in rows:
                yield row

    async def named_rows(
        self, statement: str, values: Sequence[object] = ()
    ) -> AsyncGenerator[tuple[Sequence[str], Row], None]:
        """Do the same, with the names of the columns beside each row."""
        with _translated():
            async with asyncio.timeout(self._seconds):
                cursor = await self._connection.cursor(_StreamCursor)
                await cursor.execute(statement, values or None)
            names = [column[0] for column in cursor.description or ()]
            while (row := await self._next(cursor)) is not None:
                yield names, row

    async def _next(self, cursor: Any) -> Row | None:
        async with asyncio.timeout(self._seconds):
            row: Row | None = await cursor.fetchone()
            return row


@asynccontextmanager
async def session(at: Endpoint) -> AsyncIterator[Session]:
    """Open a session without a current database; raises UnreachableError, LoginRefusedError, StatementError."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await _connect(at)
            try:
                yield Session(connection)
            finally:
                connection.close()
    except TimeoutError:
        raise UnreachableError(f"{at.host}:{at.port} did not answer within {ANSWER_SECONDS:.0f} s") from None


@asynccontextmanager
async def work_session(at: Endpoint) -> AsyncIterator[Session]:
    """Open a session for work that takes as long as the data are big: each answer has its own time."""
    connection = await _connect(at)
    try:
        yield Session(connection, WORK_SECONDS)
    finally:
        connection.close()


def identifier(name: str) -> str:
    """Quote a name for use in a statement."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Quote a string for use in a statement that takes no bound values."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def identified(password: str) -> str:
    """Return how a login of Dolt's is made to have a password without the statement's having it: everybody reads what
    others run, in ``information_schema.processlist``.
    """
    inner = hashlib.sha1(password.encode(), usedforsecurity=False).digest()
    proof = hashlib.sha1(inner, usedforsecurity=False).hexdigest().upper()
    return f"IDENTIFIED WITH {GUARDED_PLUGIN} AS '*{proof}'"


class _Guarded(aiomysql.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that tells the password to nobody but a server that has proved who it is.

    The driver takes every form that a server asks for, and goes on without TLS where a server has none.
    """

    async def _request_authentication(self) -> None:
        if self._ssl_context is not None and not self.server_capabilities & CLIENT.SSL:
            raise UnguardedError("the Secret has a ca.crt and the server no TLS: turn it on there, or leave ca.crt out")
        # Without this the server may ask for a form that is older than all those that have a name.
        if not self.server_capabilities & CLIENT.PLUGIN_AUTH:
            raise UnguardedError(f"the server does not say that it uses {GUARDED_PLUGIN}")
        await super()._request_authentication()

    async def _process_auth(self, plugin_name: bytes, auth_packet: Any) -> Any:
        if self._ssl_context is None and plugin_name != GUARDED_PLUGIN.encode():
            raise UnguardedError(
                f"the server asks for it by {plugin_name.decode('latin1')[:40]!r}: make the login with "
                f"{GUARDED_PLUGIN}, or turn on TLS and put its CA as ca.crt into the Secret"
            )
        return await super()._process_auth(plugin_name, auth_packet)


async def _open(at: Endpoint) -> Any:
    settings: dict[str, Any] = {
        "host": at.host,
        "port": at.port,
        "user": at.username,
        "password": at.password,
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "autocommit": None,  # the server's default, for one round trip less
        "program_name": "coppice",
    }
    if not at.guarded and at.ca is None:
        return await aiomysql.connect(**settings)
    # The first form that is tried is ours to choose; every other comes through _process_auth.
    connection = _Guarded(**settings, ssl=_verifying(at.ca), auth_plugin=GUARDED_PLUGIN)
    try:
        await connection._connect()  # noqa: SLF001 - as aiomysql.connect() does, of which the class cannot be chosen
    except pymysql.err.OperationalError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            words = getattr(error.__cause__, "verify_message", "") or error.__cause__.reason or "no TLS"
            raise UnguardedError(f"its certificate is none that ca.crt in the Secret vouches for ({words})") from None
        raise
    except UnicodeEncodeError:
        raise EngineError("the password has characters that this protocol has no form for: choose another") from None
    return connection


def _verifying(ca: str | None) -> ssl.SSLContext | None:
    if ca is None:
        return None
    try:
        context = ssl.create_default_context(cadata=ca)
    except ssl.SSLError:
        raise UnguardedError("ca.crt in the Secret holds no certificate in PEM") from None
    context.check_hostname = False
    return context


async def _connect(at: Endpoint) -> Any:
    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            with _translated():
                return await _open(at)
        except UnreachableError:
            if attempt == CONNECT_ATTEMPTS:
                raise UnreachableError(f"nothing answers at {at.host}:{at.port}") from None
        except LoginRefusedError:
            raise LoginRefusedError(f"{at.host}:{at.port} refused the login of {at.username}") from None
    raise AssertionError


@contextmanager
def _translated() -> Iterator[None]:
    """Say in the contract's words what the driver raises; not chained, for the driver may quote the statement."""
    try:
        yield
    except (OSError, asyncio.IncompleteReadError, pymysql.err.InterfaceError):
        raise UnreachableError("the connection was lost") from None
    except pymysql.err.MySQLError as error:
        code, text = _code_and_text(error)
        if code == ACCESS_DENIED:
            raise LoginRefusedError("the server refused the login") from None
        if code in _CLIENT_ERRORS:
            raise UnreachableError("the connection was lost") from None
        raise StatementError(code, text) from None


def _code_and_text(error: pymysql.err.MySQLError) -> tuple[int, str]:
    match error.args:
        case (int(code), str(text), *_):
            return code, text
        case _:
            return 0, type(error).__name__
