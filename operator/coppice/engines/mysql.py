"""Sessions with a server that speaks the MySQL protocol, and its errors in the words of the engine contract.

One round trip asks several questions: a clone is Ready only after the last of them is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import aiomysql
import pymysql.err

from coppice.engines.base import Endpoint, EngineError, LoginRefusedError, UnreachableError

CONNECT_SECONDS: Final = 0.5
"""For the TCP handshake of one attempt. A new Pod's first packet may be lost to address resolution; the kernel alone
would repeat it after 1 s."""

CONNECT_ATTEMPTS: Final = 2

ANSWER_SECONDS: Final = 15.0
"""For everything asked in one session. A server that is starting, or stopped in the middle, is asked again later."""

ACCESS_DENIED: Final = 1045
UNKNOWN_DATABASE: Final = 1049
_CLIENT_ERRORS: Final = range(2000, 3000)

Row = tuple[Any, ...]
ResultSet = tuple[Row, ...]


class StatementError(EngineError):
    """The server refused a statement; ``code`` is the MySQL error number.

    Its words may quote the statement: whoever sends a password reports the number only.
    """

    def __init__(self, code: int, text: str) -> None:
        """Keep the number beside the server's words."""
        super().__init__(f"the server answered with error {code}: {text[:300]}")
        self.code = code
        self.text = text


class Session:
    """One connection, for a few questions."""

    def __init__(self, connection: Any) -> None:
        """Use an open aiomysql connection."""
        self._connection = connection

    async def ask(self, statements: str, values: Sequence[object] = ()) -> list[ResultSet]:
        """Run statements, separated by semicolons, in one round trip; return the result set of each that has one."""
        sets: list[ResultSet] = []
        with _translated():
            async with self._connection.cursor() as cursor:
                await cursor.execute(statements, values or None)
                more = True
                while more:
                    if cursor.description is not None:
                        sets.append(tuple(await cursor.fetchall()))
                    more = await cursor.nextset()
        return sets

    async def rows(self, statement: str, values: Sequence[object] = ()) -> AsyncGenerator[Row, None]:
        """Run one statement and hand out its rows as they come; who stops early can only close the session then."""
        with _translated():
            cursor = await self._connection.cursor(aiomysql.SSCursor)
            await cursor.execute(statement, values or None)
            while (row := await cursor.fetchone()) is not None:
                yield row


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


def identifier(name: str) -> str:
    """Quote a name for use in a statement."""
    return "`" + name.replace("`", "``") + "`"


def literal(text: str) -> str:
    """Quote a string for use in a statement that takes no bound values."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


async def _connect(at: Endpoint) -> Any:
    for attempt in range(1, CONNECT_ATTEMPTS + 1):
        try:
            with _translated():
                return await aiomysql.connect(
                    host=at.host,
                    port=at.port,
                    user=at.username,
                    password=at.password,
                    charset="utf8mb4",
                    connect_timeout=CONNECT_SECONDS,
                    autocommit=None,  # the server's default, for one round trip less
                    program_name="coppice",
                )
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
