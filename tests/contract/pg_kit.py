"""Databases that differ, on a PostgreSQL server that the tests of change sets share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import psycopg

from coppice.engines.base import Endpoint
from coppice.engines.pgcompare import Place

from .conftest import open_stage
from .kit import pg


@dataclass
class Cluster:
    """A server on which each test makes databases of its own, as the applications' login."""

    admin: Endpoint
    app: Endpoint
    numbers: Iterable[int] = field(default_factory=count)

    async def new(self, statements: str) -> Trio:
        """Make a database with this in it, and two copies."""
        name = f"d{next(iter(self.numbers))}"
        places = [Place(self.app, f"{name}_{kind}") for kind in ("base", "clone", "target")]
        await pg(self.admin, f"CREATE DATABASE {places[0].database} OWNER app", "postgres")
        await run(places[0], statements)
        return await self._copied(places[0], places)

    async def copy(self, trio: Trio) -> Trio:
        """Make three more of the same base."""
        name = f"d{next(iter(self.numbers))}"
        return await self._copied(
            trio.base, [Place(self.app, f"{name}_{kind}") for kind in ("base", "clone", "target")]
        )

    async def _copied(self, base: Place, places: Sequence[Place]) -> Trio:
        for place in places:
            if place != base:
                await pg(self.admin, f"CREATE DATABASE {place.database} TEMPLATE {base.database} OWNER app", "postgres")
        return Trio(*places)


@dataclass
class Trio:
    """What a clone came from, the clone, and the live database."""

    base: Place
    clone: Place
    target: Place


@asynccontextmanager
async def serving_cluster() -> AsyncIterator[Cluster]:
    """Run a server for a module's tests."""
    with open_stage("postgresql") as stage:
        workload = stage.store(load=False, database="empty")
        async with stage.runner.serving(workload, stage.runner.new("volume"), stage.secret()) as server:
            for statement in ("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()"):
                await pg(stage.admin(server), statement, "empty")
            yield Cluster(stage.admin(server), await stage.ensure_app(server, "empty"))


async def run(place: Place, statements: str) -> None:
    """Run statements as an application does."""
    async with await connect(place) as connection:
        await connection.execute(statements)


async def ask(place: Place, statement: str) -> Sequence[tuple[Any, ...]]:
    return await pg(place.at, statement, place.database)


async def contents(place: Place) -> dict[str, list[str]]:
    """Return every row of every table as text, computed columns too."""
    tables = await ask(
        place,
        "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) ORDER BY 1",
    )
    found = {}
    for (table,) in tables:
        rows = await ask(place, f"SELECT format('%s', t.*) COLLATE \"C\" FROM {table} t ORDER BY 1")
        found[table] = [row for (row,) in rows]
    return found


async def connect(place: Place) -> psycopg.AsyncConnection[tuple[Any, ...]]:
    at = place.at
    return await psycopg.AsyncConnection.connect(
        host=at.host, port=at.port, user=at.username, password=at.password, dbname=place.database, autocommit=True
    )
