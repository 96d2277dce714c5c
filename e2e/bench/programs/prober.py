"""Waits for servers, from inside the cluster: reads what to wait for as JSON lines, and tells when it came.

A new attempt begins every few milliseconds while older ones go on: a connection to a Service without endpoints is
refused at first and met with silence afterwards, and the kernel alone would try again after a second.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiomysql
import psycopg

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

ATTEMPT_SECONDS = 2.0
POSTGRESQL = 5432
SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
"""What a PostgreSQL server answers with one byte; others speak first."""


async def greeting(asked: dict[str, Any]) -> None:
    """Connect and read the server's first packet."""
    reader, writer = await asyncio.open_connection(asked["host"], asked["port"])
    try:
        if asked["port"] == POSTGRESQL:
            writer.write(SSL_REQUEST)
        if not await reader.read(1):
            raise ConnectionResetError
    finally:
        writer.close()


async def query(asked: dict[str, Any]) -> list[float]:
    """Log in and run statements, in the protocol that the port stands for; return when each was answered."""
    return await (query_postgresql if asked["port"] == POSTGRESQL else query_mysql)(asked)


async def query_postgresql(asked: dict[str, Any]) -> list[float]:
    moments = []
    where = {"host": asked["host"], "port": asked["port"], "user": asked["user"], "password": asked["password"]}
    async with await psycopg.AsyncConnection.connect(
        **where, dbname=asked.get("database"), sslmode="disable", autocommit=True
    ) as connection:
        for statement in asked["statements"]:
            cursor = await connection.execute(statement)
            if cursor.description:
                await cursor.fetchall()
            moments.append(time.time())
    return moments


async def query_mysql(asked: dict[str, Any]) -> list[float]:
    moments = []
    connection = await aiomysql.connect(
        host=asked["host"],
        port=asked["port"],
        user=asked["user"],
        password=asked["password"],
        db=asked.get("database"),
        autocommit=True,
    )
    try:
        async with connection.cursor() as cursor:
            for statement in asked["statements"]:
                await cursor.execute(statement)
                await cursor.fetchall()
                moments.append(time.time())
    finally:
        connection.close()
    return moments


async def soonest(attempt: Callable[[], Awaitable[object]], every: float) -> float:
    """Return when the first of ever new attempts came through."""
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    moment = 0.0

    async def run() -> None:
        nonlocal moment
        with suppress(OSError, EOFError, TimeoutError, aiomysql.MySQLError, psycopg.Error):
            await asyncio.wait_for(attempt(), ATTEMPT_SECONDS)
            moment = moment or time.time()
            came.set()

    attempts: set[asyncio.Task[None]] = set()
    while not came.is_set():
        task = loop.create_task(run())
        attempts.add(task)
        task.add_done_callback(attempts.discard)
        with suppress(TimeoutError):
            await asyncio.wait_for(came.wait(), every)
    for task in tuple(attempts):
        task.cancel()
    return moment


async def answer(asked: dict[str, Any]) -> None:
    """Do one thing that is asked for and tell the moment it was done."""
    attempt = {"greeting": greeting, "query": query}[asked["what"]]
    told: dict[str, Any] = {"id": asked["id"]}
    try:
        if asked["every"] is None:
            told["each"] = await attempt(asked)
            told["at"] = time.time()
        else:
            told["at"] = await soonest(lambda: attempt(asked), asked["every"])
    except Exception as error:  # noqa: BLE001 - whatever it is, who asks has to know
        told["error"] = repr(error)
    print(json.dumps(told), flush=True)


async def main() -> None:
    """Read lines until there are no more."""
    reader = asyncio.StreamReader(limit=2**24)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks = set()
    while line := await reader.readline():
        asked = json.loads(line)
        if asked["what"] == "clock":
            print(json.dumps({"id": asked["id"], "at": time.time()}), flush=True)
            continue
        task = asyncio.create_task(answer(asked))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


asyncio.run(main())
