"""`python -m e2e.bench forge`: what a forge is asked in an hour for a hundred open pull requests.

No cluster is needed: the book and the clients are the operator's, the clock is turned by hand, and the forge is the
tests' one, which counts as GitHub and GitLab document it. The baseline asks for each pull request by itself, every
interval, by the same client: what a clone would do that knows of no other.
"""

from __future__ import annotations

import heapq
import random
import tempfile
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fakes.forge import Forge
from tests.fakes.forge_transport import transport
from tests.fakes.gitlab import GitLabForge

from coppice.api.v1alpha1.pullrequest import PUBLIC_HOSTS, Provider
from coppice.core.pullrequests import PullRequestKey
from coppice.forges.book import Book
from coppice.forges.settings import ForgeSettings
from coppice.reconcile.clone.pullrequest import LOOK_PERIOD
from e2e.bench.figures import pair, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.fakes.forge import PullRequest

    from coppice.forges.book import Desk

OPEN: Final = 100
HOUR: Final = timedelta(hours=1)
CHANGES: Final = 6
"""How many pull requests are opened in an hour that is busy; as many are closed, and four times as many pushed to."""
UNCHANGED: Final = 304
TOKEN: Final = "t0ken"
APIS: Final = {Provider.GITHUB: "/api/v3", Provider.GITLAB: "/api/v4"}
ALLOWED: Final = {Provider.GITHUB: 5000, Provider.GITLAB: 2000 * 60}
"""Requests an hour that a user has (GitHub's documentation: 5,000 an hour; GitLab.com's: 2,000 a minute)."""
ONE: Final = "in one repository"
EACH: Final = "in as many repositories"


@dataclass(frozen=True, slots=True)
class Hour:
    """What was asked in an hour, and for how long what happened was not known, in seconds."""

    requests: int
    unchanged: int
    delays: tuple[float, ...] = ()

    def counted(self, provider: Provider) -> int:
        """Return what the forge's limit counts: GitHub counts no answer that something has not changed."""
        return self.requests - (self.unchanged if provider is Provider.GITHUB else 0)


@dataclass(slots=True)
class Day:
    """A forge with pull requests, the operator that asks it, and the clock of both."""

    provider: Provider
    token_file: Path
    repositories: int = 1
    count: int = OPEN
    now: datetime = datetime(2030, 1, 1, 12, tzinfo=UTC)
    forge: Forge = field(init=False)
    book: Book = field(init=False)
    answers: Counter[int] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)
    _unknown: dict[PullRequestKey, datetime] = field(default_factory=dict)
    _looks: list[tuple[datetime, PullRequestKey]] = field(default_factory=list)

    def __post_init__(self) -> None:
        kind = Forge if self.provider is Provider.GITHUB else GitLabForge
        self.forge = kind(now=self._seconds, tokens={TOKEN})
        self.token_file.write_text(TOKEN, encoding="ascii")
        url = f"https://{self.host}{APIS[self.provider]}"
        settings = ForgeSettings(self.provider, self.host, url, self.token_file)
        transports = {self.host: transport(self.forge)}
        self.book = Book([settings], clock=lambda: self.now, transports=transports)
        self.book.report(self._learn, self._count)
        for number in range(self.count):
            self._look_at(self._open(number % self.repositories))

    @property
    def host(self) -> str:
        """Return the forge's name."""
        return PUBLIC_HOSTS[self.provider]

    @property
    def desk(self) -> Desk:
        """Return where the operator asks this forge."""
        return self.book.desks[self.host]

    async def hour(self, *, busy: bool = False) -> Hour:
        """Let an hour pass, with pull requests opened, closed and pushed to where it is busy."""
        self.answers.clear()
        self.delays.clear()
        happens = deque(self._happenings() if busy else ())
        end = self.now + HOUR
        while self.now < end:
            self.now = min(end, await self._ask(), self._looks[0][0], *(moment for moment, _ in happens))
            while happens and happens[0][0] <= self.now:
                happens.popleft()[1]()
            self._look()
        return self._told()

    async def hour_by_themselves(self) -> Hour:
        """Let an hour pass in which each pull request is asked for by itself."""
        self.answers.clear()
        client, end = self.desk.client, self.now + HOUR
        while self.now < end:
            for repository in self.forge.repositories.values():
                for number in repository.pulls:
                    await client.read(repository.name, number)
            self.now += self.desk.settings.interval
        return self._told()

    def _seconds(self) -> float:
        return self.now.timestamp()

    def _told(self) -> Hour:
        return Hour(self.answers.total(), self.answers[UNCHANGED], tuple(self.delays))

    async def _ask(self) -> datetime:
        """Ask what is due; return until when nothing is."""
        while (rest := await self.book.step(self.desk)) == 0:
            pass
        return datetime.max.replace(tzinfo=UTC) if rest is None else self.now + timedelta(seconds=rest)

    def _happenings(self) -> list[tuple[datetime, Callable[[], None]]]:
        """Return what happens in an hour, at moments drawn anew for each: the same in every run."""
        pick = random.Random(0)
        live = [pull for repository in self.forge.repositories.values() for pull in repository.pulls.values()]
        chosen = pick.sample(live, 5 * CHANGES)
        acts: list[Callable[[], None]] = [
            *(partial(self._close, pull) for pull in chosen[:CHANGES]),
            *(partial(self._push, pull) for pull in chosen[CHANGES:]),
            *(self._appear for _ in range(CHANGES)),
        ]
        moments = [self.now + HOUR * pick.uniform(0, 0.75) for _ in acts]
        return sorted(zip(moments, acts, strict=True), key=lambda happening: happening[0])

    def _open(self, repository: int) -> PullRequest:
        there = self.forge.repository(f"acme/shop-{repository}")
        number = len(there.pulls) + 1
        pull = there.open(f"change {number}", f"branch-{number}", f"{number:040d}")
        pull.updated = self.now.timestamp()
        return pull

    def _appear(self) -> None:
        """Open another one, which has a clone at once, and is asked for by it."""
        self._look_at(self._open(0))

    def _close(self, pull: PullRequest) -> None:
        pull.state = "closed"
        self._happened(pull)

    def _push(self, pull: PullRequest) -> None:
        pull.sha = f"{int(pull.sha) + 1000:040d}"
        self._happened(pull)

    def _happened(self, pull: PullRequest) -> None:
        pull.updated = self.now.timestamp()
        self._unknown[self._key(pull)] = self.now

    def _key(self, pull: PullRequest) -> PullRequestKey:
        return PullRequestKey.of(self.host, pull.repository, pull.number)

    def _look_at(self, pull: PullRequest) -> None:
        """Have a clone of a pull request, which looks from now on."""
        heapq.heappush(self._looks, (self.now, self._key(pull)))
        self._look()

    def _look(self) -> None:
        """Look as clones do, every few minutes."""
        while self._looks[0][0] <= self.now:
            moment, key = heapq.heappop(self._looks)
            self.book.look(key)
            heapq.heappush(self._looks, (moment + timedelta(seconds=LOOK_PERIOD), key))

    def _learn(self, key: PullRequestKey) -> None:
        since = self._unknown.pop(key, None)
        if since is not None:
            self.delays.append((self.now - since).total_seconds())

    def _count(self, _: str, status: int) -> None:
        self.answers[status] += 1


@dataclass(frozen=True, slots=True)
class Line:
    """An hour at a forge, and what it was like."""

    provider: Provider
    what: str
    hour: Hour


async def run() -> list[Line]:
    """Let hours pass at each forge, and return what was asked in them."""
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for provider in Provider:
            token = Path(folder, provider)
            for repositories, where in ((1, ONE), (OPEN, EACH)):
                day = Day(provider, token, repositories)
                made.append(Line(provider, f"{where}, the first after a start", await day.hour()))
                if repositories == 1:
                    made.append(Line(provider, f"{where}, nothing happens", await day.hour()))
                made.append(Line(provider, f"{where}, busy", await day.hour(busy=True)))
                await day.book.aclose()
            alone = Day(provider, token)
            made.append(Line(provider, "each asked for by itself", await alone.hour_by_themselves()))
            await alone.book.aclose()
    return made


def report(lines: Sequence[Line]) -> str:
    """Return the table of some hours."""
    rows = [
        [
            "an hour",
            "requests",
            "unchanged",
            "counted",
            "of what is allowed",
            "push or close known after s, median / p95",
        ]
    ]
    for line in lines:
        hour, counted = line.hour, line.hour.counted(line.provider)
        share = f"{counted / ALLOWED[line.provider]:.2%}"
        name = f"{line.provider}, {line.what}"
        rows.append([name, str(hour.requests), str(hour.unchanged), str(counted), share, pair(hour.delays)])
    return table(f"What a forge is asked for {OPEN} open pull requests", rows)
