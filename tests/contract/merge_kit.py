"""Servers that the merge tests share, and what they do in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import aiomysql

from coppice.engines.base import Endpoint
from coppice.engines.dolt import DoltEngine
from coppice.engines.merging import Conflict, Decision, MergeInputs, Signature

AUTHOR = Signature("Ann Editor", "ann@example.org")
SALT = "1b671a64-40d5-491e-99b0-da01ff1f3341"


@dataclass
class Databases:
    """A server on which each test makes databases of its own."""

    at: Endpoint
    engine: DoltEngine = field(default_factory=DoltEngine)
    numbers: Iterable[int] = field(default_factory=count)

    async def new(self, statements: Sequence[str]) -> Database:
        name = f"d{next(iter(self.numbers))}"
        await run(self.at, None, [f"CREATE DATABASE {name}"])
        database = Database(self, name)
        await database.commit("main", statements)
        return database


@dataclass
class Database:
    server: Databases
    name: str

    async def commit(self, branch: str, statements: Sequence[str], message: str = "work") -> str:
        """Run statements on a branch and make a commit of what they did."""
        call = f"CALL dolt_commit('-A', '--allow-empty', '-m', '{message}')"
        return str((await run(self.server.at, f"{self.name}/{branch}", [*statements, call]))[0][0])

    async def branch(self, name: str, start: str = "main") -> None:
        await run(self.server.at, self.name, [f"CALL dolt_branch('{name}', '{start}')"])

    async def ask(self, statement: str, version: str = "main") -> tuple[tuple[Any, ...], ...]:
        return await run(self.server.at, f"{self.name}/{version}", [statement])

    async def diverged(self, ours: Sequence[str], theirs: Sequence[str]) -> MergeInputs:
        """Let target and source part from here."""
        await self.branch("work")
        target = await self.commit("main", ours, "ours")
        return self.inputs(target, await self.commit("work", theirs, "theirs"))

    def inputs(self, target: str, source: str, decisions: tuple[Decision, ...] = ()) -> MergeInputs:
        return MergeInputs(self.name, target, source, AUTHOR, "Autumn prices: ünïcode", SALT, decisions)

    async def conflicts(self, inputs: MergeInputs) -> list[Conflict]:
        return [conflict async for conflict in self.server.engine.conflicts(self.server.at, inputs)]


async def run(at: Endpoint, database: str | None, statements: Sequence[str]) -> tuple[tuple[Any, ...], ...]:
    """Run statements as any app would, in one session, and return what the last one finds."""
    connection = await aiomysql.connect(
        host=at.host, port=at.port, user=at.username, password=at.password, db=database, autocommit=True
    )
    try:
        async with connection.cursor() as cursor:
            for statement in statements:
                await cursor.execute(statement)
            return tuple(await cursor.fetchall()) if cursor.description else ()
    finally:
        connection.close()
