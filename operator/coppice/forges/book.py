"""What all forges have told so far, and the loops that ask them. Decisions are ``coppice.forges.ledger``'s."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import httpx

from coppice.core.pullrequests import ForgeTerms, NoForges, PullRequest, PullRequestKey, Unknown
from coppice.forges.client import ForgeClient
from coppice.forges.errors import ForgeError
from coppice.forges.ledger import Ledger, ListOpen, Question, Rest
from coppice.forges.settings import ForgeSettings, connect

logger = logging.getLogger(__name__)

KEEP: Final = timedelta(hours=1)
"""For how long a forge is asked for what nobody has looked at; objects are looked at every few minutes."""
BUG_SECONDS: Final = 60.0


@dataclass(slots=True)
class Desk:
    """One forge: what it has told, and the client that asks it."""

    settings: ForgeSettings
    client: ForgeClient
    ledger: Ledger = field(init=False)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        settings = self.settings
        self.ledger = Ledger(settings.host, interval=settings.interval, grace=settings.terms.grace, keep=KEEP)


class Book:
    """Answers from memory, and asks every forge by itself: one that does not answer holds up no other."""

    def __init__(
        self,
        forges: Iterable[ForgeSettings] = (),
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        transports: Mapping[str, httpx.AsyncBaseTransport] | None = None,
    ) -> None:
        self._clock = clock
        self._changed: Callable[[PullRequestKey], None] = lambda _: None
        self._told: Callable[[str, int], None] = lambda *_: None
        self.desks: Mapping[str, Desk] = {
            settings.host: Desk(settings, self._connected(settings, transports or {})) for settings in forges
        }

    def report(self, changed: Callable[[PullRequestKey], None], told: Callable[[str, int], None]) -> None:
        """Call ``changed`` with every pull request of which something new is known, and ``told`` with every answer: the
        forge's host, and its status code, 0 where none came.
        """
        self._changed, self._told = changed, told

    def look(self, key: PullRequestKey) -> PullRequest | Unknown:
        """Return what is known of a pull request, and have it asked for from now on."""
        desk = self.desks.get(key.host)
        if desk is None:
            return NoForges().look(key)
        if desk.ledger.want(key, self._clock()):
            desk.wanted.set()
        return desk.ledger.look(key)

    def terms(self, host: str) -> ForgeTerms | None:
        """Return what a forge's word may do."""
        desk = self.desks.get(host)
        return None if desk is None else desk.settings.terms

    def client(self, host: str) -> ForgeClient | None:
        """Return who writes to a forge."""
        desk = self.desks.get(host)
        return None if desk is None else desk.client

    async def run(self) -> None:
        """Ask until cancelled."""
        async with asyncio.TaskGroup() as group:
            for desk in self.desks.values():
                group.create_task(self._attend(desk), name=f"forge {desk.settings.host}")
            # Without any forge there is nothing to do, and no reason to end.
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        """Close all connections."""
        for desk in self.desks.values():
            await desk.client.aclose()

    async def step(self, desk: Desk) -> float | None:
        """Ask one forge what is due, and return how many seconds there is nothing to ask; None: until it is wanted."""
        now = self._clock()
        desk.ledger.forget(now)
        question = desk.ledger.next(now, desk.client.limit)
        if isinstance(question, Rest):
            return None if question.until is None else (question.until - now).total_seconds()
        desk.ledger.asked(question, now)
        for key in await self._ask(desk, question):
            self._changed(key)
        return 0.0

    def _connected(self, settings: ForgeSettings, transports: Mapping[str, httpx.AsyncBaseTransport]) -> ForgeClient:
        return connect(
            settings,
            clock=self._clock,
            told=lambda status: self._told(settings.host, status),
            transport=transports.get(settings.host),
        )

    async def _attend(self, desk: Desk) -> None:
        while True:
            try:
                seconds = await self.step(desk)
            except Exception as error:  # noqa: BLE001 - the one place that survives a bug
                # Not the exception's own text: it may quote what it stumbled over.
                trace = "".join(traceback.format_tb(error.__traceback__))
                logger.error("bug: %s while asking %s\n%s", type(error).__name__, desk.settings.host, trace)  # noqa: TRY400
                seconds = BUG_SECONDS
            if seconds == 0:
                continue
            desk.wanted.clear()
            try:
                async with asyncio.timeout(seconds):
                    await desk.wanted.wait()
            except TimeoutError:
                continue

    async def _ask(self, desk: Desk, question: Question) -> set[PullRequestKey]:
        ledger, before = desk.ledger, desk.ledger.trouble
        try:
            if isinstance(question, ListOpen):
                listing = await desk.client.list_open(question.repository)
                changed = ledger.listed(question.repository, listing, self._clock())
            else:
                found = await desk.client.read(question.repository, question.key.number)
                changed = ledger.was_read(question.key, found, self._clock())
        except ForgeError as error:
            changed = ledger.failed(question, error, self._clock())
            if ledger.trouble and not before:
                logger.warning("pull requests are not asked for: %s", error)
        if before and not ledger.trouble:
            logger.info("%s answers again", desk.settings.host)
        return changed
