"""Sessions with a PostgreSQL server, and its errors in the words of the engine contract."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from coppice.engines.base import Endpoint, EngineError, LoginRefusedError, UnguardedError, UnreachableError

CONNECT_ATTEMPT_SECONDS: Final = 1.0
"""For one attempt to connect. A new Pod's first packet may be lost to address resolution; the kernel alone would repeat
it after 1 s, and libpq counts in whole seconds from 2."""

CONNECT_ATTEMPTS: Final = 2

WORK_SECONDS: Final = 240.0
"""For each answer in a session that works through whole tables: less than what a reconciliation may take before the
operator is taken to be stuck (``COPPICE_STUCK``)."""

_BATCH: Final = 200
_BATCH_BYTES: Final = 1 << 20
"""How many rows of a big answer are in memory at once, and about how many bytes, unless one row has more."""

ANSWER_SECONDS: Final = 15.0
"""For everything asked in one session. A server that is starting, or stopped in the middle, is asked again later."""

_REFUSED: Final = re.compile(
    r"password authentication failed|no password supplied|is not permitted to log in|no pg_hba\.conf entry"
    r"|role .* does not exist"
)
_UNGUARDED: Final = re.compile(
    r"authentication method requirement .*|SSL error: .*|server does not support SSL.*|root certificate file .*"
)
_STARTING: Final = re.compile(r"the database system is |too many clients|remaining connection slots")
_WORDS: Final = re.compile(r"(?:FATAL|ERROR): +(.*)")

Row = tuple[Any, ...]


class StatementError(EngineError):
    """The server refused a statement, or to begin in a database; ``state`` is the SQLSTATE, empty where there is none.

    Its words may quote values: only their first line is kept, for what follows are rows. ``table`` and ``rule`` name
    the constraint that a statement would have broken.
    """

    def __init__(self, state: str, text: str, table: str = "", rule: str = "") -> None:
        """Keep the state beside the server's words."""
        first = text.strip().partition("\n")[0][:300]
        super().__init__(f"the server answered with an error: {first}")
        self.state = state
        self.text = first
        self.table = table
        self.rule = rule


class Session:
    """One connection."""

    def __init__(self, connection: psycopg.AsyncConnection[Row]) -> None:
        """Use an open connection in autocommit mode."""
        self._connection = connection
        self._cursors = 0

    async def ask(self, statement: str, values: Sequence[object] | None = None) -> list[Row]:
        """Run one statement and return its rows; ``%s`` stand for values where there are any."""
        with _translated():
            cursor = await self._connection.execute(statement, values)
            return await cursor.fetchall() if cursor.description is not None else []

    async def ask_long(self, statement: str) -> list[Row]:
        """Do the same with a statement that may take its time."""
        with _translated():
            async with asyncio.timeout(WORK_SECONDS):
                return await self.ask(statement)

    async def run(self, statement: str) -> None:
        """Run one statement that may take its time; the server refuses a text that is more than one."""
        with _translated():
            async with asyncio.timeout(WORK_SECONDS):
                # What is asked for in binary goes by the extended protocol, which has no other statements behind one.
                await self._connection.execute(statement, binary=True)

    async def number(self, query: str) -> int:
        """Return the one number that a query finds which may take its time, and which is no more than one statement."""
        with _translated():
            async with asyncio.timeout(WORK_SECONDS):
                cursor = await self._connection.execute(query, binary=True)
                [(found,)] = await cursor.fetchall()
        return int(found)

    async def texts(self, query: str, *, widest: int = 1) -> AsyncGenerator[tuple[str | None, ...], None]:
        """Hand out the rows of a query as the server writes them, in a transaction, a few in memory at a time: fewer
        where one is known to have that many bytes, however narrow those before it are.
        """
        self._cursors += 1
        name = f"coppice_{self._cursors}"
        await self.run(f"DECLARE {name} NO SCROLL CURSOR FOR {query}")
        many, most = 1, max(1, min(_BATCH, _BATCH_BYTES // widest))
        while rows := await self._fetched(name, many):
            for row in rows:
                yield row
            size = sum(len(cell) for row in rows for cell in row if cell is not None)
            many = min(many * 2, most) if size < _BATCH_BYTES else max(many // 2, 1)
        await self.run(f"CLOSE {name}")

    async def _fetched(self, cursor: str, many: int) -> list[tuple[str | None, ...]]:
        with _translated():
            async with asyncio.timeout(WORK_SECONDS):
                result = (await self._connection.execute(f"FETCH {many} FROM {cursor}")).pgresult
        if result is None:
            return []
        cells = ((result.get_value(row, column) for column in range(result.nfields)) for row in range(result.ntuples))
        return [tuple(None if cell is None else cell.decode() for cell in row) for row in cells]

    def verifier(self, username: str, password: str) -> str:
        """Return what the server keeps of a password: with it, no password stands in a statement or a log."""
        encoded = self._connection.pgconn.encrypt_password(password.encode(), username.encode(), b"scram-sha-256")
        return encoded.decode()


@asynccontextmanager
async def session(at: Endpoint, database: str, *, options: str = "") -> AsyncIterator[Session]:
    """Open a session in a database; raises UnreachableError, LoginRefusedError, StatementError.

    ``options`` are settings of the session, ``-c name=value``.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await _connect(at, database, options)
            try:
                yield Session(connection)
            finally:
                await connection.close()
    except TimeoutError:
        raise UnreachableError(f"{at.host}:{at.port} did not answer within {ANSWER_SECONDS:.0f} s") from None


@asynccontextmanager
async def work_session(at: Endpoint, database: str, *, options: str = "") -> AsyncIterator[Session]:
    """Open a session for work that takes as long as the data are big; who opens it bounds the time of each step."""
    connection = await _connect(at, database, options)
    try:
        yield Session(connection)
    finally:
        await connection.close()


def identifier(name: str) -> str:
    """Quote a name for use in a statement."""
    return sql.Identifier(name).as_string(None)


def literal(text: str) -> str:
    """Quote a string for use in a statement that takes no bound values."""
    return "'" + text.replace("'", "''") + "'"


async def _connect(at: Endpoint, database: str, options: str) -> psycopg.AsyncConnection[Row]:
    for _ in range(CONNECT_ATTEMPTS):
        try:
            async with asyncio.timeout(CONNECT_ATTEMPT_SECONDS):
                return await _open(at, database, options)
        except TimeoutError:
            continue
        except psycopg.OperationalError as error:
            raise not_connected(at, str(error)) from None
    raise UnreachableError(f"nothing answers at {at.host}:{at.port}")


async def _open(at: Endpoint, database: str, options: str) -> psycopg.AsyncConnection[Row]:
    with _guard(at) as guard:
        return await psycopg.AsyncConnection.connect(
            host=at.host,
            port=at.port,
            user=at.username,
            password=at.password,
            dbname=database,
            options=options,
            application_name="coppice",
            # Without it, text of a database in SQL_ASCII would be bytes.
            client_encoding="utf8",
            gssencmode="disable",
            **guard,
            autocommit=True,
            prepare_threshold=None,
        )


@contextmanager
def _guard(at: Endpoint) -> Iterator[dict[str, Any]]:
    """Have libpq see to it that the password is shown to nobody else.

    A server that has not proved who it is by TLS gets it by SCRAM only, from which it cannot be had, not in a form that
    it asks for (``require_auth``, libpq 16).
    """
    if at.ca is None:
        yield {"sslmode": "prefer" if at.guarded else "disable", "require_auth": "scram-sha-256"}
        return
    # libpq reads certificates from files only.
    file = os.memfd_create("ca.crt")
    try:
        os.write(file, at.ca.encode())
        yield {"sslmode": "verify-ca", "sslrootcert": f"/proc/self/fd/{file}"}
    finally:
        os.close(file)


def not_connected(at: Endpoint, text: str) -> EngineError:
    """Return, in the contract's words, why a connection was not made: libpq tells it by words alone."""
    if _REFUSED.search(text):
        return LoginRefusedError(f"{at.host}:{at.port} refused the login of {at.username}")
    unguarded = _UNGUARDED.search(text)
    if unguarded is not None:
        return UnguardedError(f"{unguarded[0][:200]}: see docs/adopting.md for what a login needs")
    found = _WORDS.search(text)
    if found is None or _STARTING.search(text):
        return UnreachableError(f"nothing answers at {at.host}:{at.port}")
    return StatementError("", found[1])


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError:
        raise UnreachableError(f"the server did not answer within {WORK_SECONDS:.0f} s") from None
    except psycopg.OperationalError as error:
        if error.sqlstate is None or error.sqlstate.startswith(("08", "57P")):
            raise UnreachableError("the connection was lost") from None
        raise StatementError(error.sqlstate, str(error)) from None
    except psycopg.Error as error:
        broken = error.diag.table_name or "", error.diag.constraint_name or error.diag.column_name or ""
        raise StatementError(error.sqlstate or "", str(error), *broken) from None
