"""A forge behind a socket, and a client that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.fakes.forge import Forge
from tests.fakes.gitlab import GitLabForge

from coppice.api.v1alpha1.pullrequest import Provider
from coppice.forges.client import ForgeClient
from coppice.forges.settings import ForgeSettings, connect

HOST = "forge.example"
TOKEN = "t0p-s3cret"
SHOP = "acme/shop"


@dataclass
class Clock:
    """A clock that tests turn."""

    moment: datetime = datetime(2030, 1, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def seconds(self) -> float:
        return self.moment.timestamp()

    def pass_by(self, **time: float) -> None:
        self.moment += timedelta(**time)


@dataclass
class Desk:
    """A forge, a client of it, and the codes of its answers."""

    forge: Forge
    clock: Clock
    client: ForgeClient
    token_file: Path
    told: list[int] = field(default_factory=list)

    def asked(self) -> list[str]:
        """What was asked since the last time."""
        found = [f"{request.method} {request.path.partition('/api/')[2][2:]}" for request in self.forge.asked]
        self.forge.asked.clear()
        return found


@asynccontextmanager
async def desk(provider: Provider, folder: Path) -> AsyncIterator[Desk]:
    """Serve a forge of a provider, and give a client of it."""
    clock, told = Clock(), []
    kind, path = (Forge, "/api/v3") if provider is Provider.GITHUB else (GitLabForge, "/api/v4")
    forge = kind(now=clock.seconds, tokens={TOKEN})
    token_file = folder / "token"
    token_file.write_text(f"{TOKEN}\n")
    with forge.serving() as url:
        settings = ForgeSettings(provider, HOST, f"{url}{path}", token_file)
        client = connect(settings, clock=clock, told=told.append)
        yield Desk(forge, clock, client, token_file, told)
        await client.aclose()
