"""Fifty pull requests, opened and closed at random, while events get lost and the forge has bad days: in the end there are data for
those that are open and for no other, and nobody who worked on one has lost any.

The forge is asked as it is in a cluster, by the same book and clients, through its documented API. What a CI system should do is
done late, or never: it makes a clone for each pull request in the end, and deletes few of those that are closed.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from tests.fakes.audit import orphans
from tests.fakes.forge import Forge, PullRequest
from tests.fakes.forge_transport import transport
from tests.fakes.gitlab import GitLabForge
from tests.fakes.kube import Object
from tests.fakes.operator import Mood
from tests.fakes.story import Story
from tests.fakes.world import World, key_of
from tests.simulation.test_properties import ERRORS

from coppice.api.v1alpha1.pullrequest import Provider
from coppice.core.pullrequests import ForgeTerms, PullRequestKey, Unknown
from coppice.core.pullrequests import PullRequest as Told
from coppice.forges import http
from coppice.forges.book import Book
from coppice.forges.settings import ForgeSettings

THOROUGH = bool(os.environ.get("COPPICE_THOROUGH"))
MOST = 50
GRACE = timedelta(minutes=10)
REPOSITORY = "acme/shop"
HOSTS = {Provider.GITHUB: "github.com", Provider.GITLAB: "gitlab.com"}
CHILDREN = ("Pod", "PersistentVolumeClaim", "Secret", "Service", "NetworkPolicy", "VolumeSnapshot", "Job")


class Memory:
    """What one operator after another knows of the forge: each begins with an empty book."""

    def __init__(self, settings: ForgeSettings, forge: Forge, world: World) -> None:
        self._settings, self._forge, self._world = settings, forge, world
        self.changed: Callable[[PullRequestKey], None] = lambda _: None
        self.forget()

    def forget(self) -> None:
        transports = {self._settings.host: transport(self._forge)}
        self.book = Book([self._settings], clock=lambda: self._world.now, transports=transports)
        self.book.report(self._on_news, lambda *_: None)

    def _on_news(self, key: PullRequestKey) -> None:
        self.changed(key)

    def look(self, key: PullRequestKey) -> Told | Unknown:
        return self.book.look(key)

    def terms(self, host: str) -> ForgeTerms | None:
        return self.book.terms(host)

    async def ask(self, most: int = 1000) -> float:
        """Ask what is due, and return for how long nothing is."""
        [desk] = self.book.desks.values()
        for _ in range(most):
            rest = await self.book.step(desk)
            if rest != 0:
                return 3600.0 if rest is None else rest
        return 0.0


@dataclass
class Work:
    """What somebody has in the clone of a pull request."""

    uid: str
    claim: str


class Day:
    """A day of a repository."""

    def __init__(self, provider: Provider, folder: Path, pick: random.Random) -> None:
        self.pick, self.provider = pick, provider
        world = World()
        kind, path = (Forge, "/api/v3") if provider is Provider.GITHUB else (GitLabForge, "/api/v4")
        self.forge = kind(now=lambda: self.story.world.now.timestamp(), tokens={"t0ken"})  # noqa: PLW0108 - turned later
        self.token = folder / "token"
        self.token.write_text("t0ken")
        host = HOSTS[provider]
        settings = ForgeSettings(provider, host, f"https://{host}{path}", self.token, terms=ForgeTerms(grace=GRACE))
        self.memory = Memory(settings, self.forge, world)
        world.forges = self.memory  # type: ignore[assignment]
        self.memory.changed = self.news
        self.story = Story(world, idle=None)
        self.repository = self.forge.repository(REPOSITORY)
        self.closed_since: dict[int, float] = {}
        self.may_end: set[int] = set()
        self.work: dict[int, Work] = {}
        self.ended = 0
        self.returned = 0
        self.story.store(snapshots={"keep": {"last": 2}})
        self.story.grant(
            to={"namespaceSelector": {"matchLabels": {"coppice.dev/previews": "true"}}},
            repositories=[f"{host}/{REPOSITORY}"],
            maxLease="Never",
        )

    # -- people ---------------------------------------------------------------------------------------------------------

    def open(self) -> None:
        if len(self.repository.pulls) < MOST:
            number = len(self.repository.pulls) + 1
            self.repository.open(f"change {number}", f"branch-{number}", f"{number:040d}").updated = self.now
            self.story.world.add_namespace(f"pr-{number}", **self.labels(number))
            if self.pick.random() < 0.8:
                self.make_clone(number)

    @staticmethod
    def labels(number: int) -> dict[str, str]:
        return {"coppice.dev/previews": "true", "coppice.dev/pull-request": str(number)}

    def make_clone(self, number: int) -> None:
        """CI makes a clone, as it is asked to for each that is open."""
        if self.clone(number) is None:
            said = {"provider": str(self.provider), "repository": REPOSITORY, "number": number}
            self.story.clone(namespace=f"pr-{number}", pullRequest=said, revision="a", lease={"max": "Never"})

    def close(self) -> None:
        if pull := self.one("open"):
            pull.state, pull.merged, pull.updated = "closed", self.pick.random() < 0.5, self.now
            self.closed_since[pull.number] = self.now
            if self.pick.random() < 0.2 and self.clone(pull.number) is not None:
                self.story.delete("DataClone", "db", f"pr-{pull.number}")

    def reopen(self) -> None:
        if pull := self.one("closed"):
            self.note_time()
            pull.state, pull.merged, pull.updated = "open", False, self.now
            del self.closed_since[pull.number]

    def push(self) -> None:
        if pull := self.one("open"):
            pull.sha, pull.updated = f"{self.pick.randrange(10**9):040d}", self.now

    def catch_up(self) -> None:
        """CI hears of some that it has not heard of."""
        if pull := self.one("open"):
            self.make_clone(pull.number)

    def one(self, state: str) -> PullRequest | None:
        there = [pull for pull in self.repository.pulls.values() if pull.state == state]
        return self.pick.choice(there) if there else None

    # -- bad days -------------------------------------------------------------------------------------------------------

    def trouble(self) -> None:
        """The forge, or the way to it, has a bad day."""
        match self.pick.randrange(8):
            case 0:
                self.forge.fail(self.pick.randrange(1, 8), status=self.pick.choice([500, 502, 503]))
            case 1:
                self.forge.throttle(seconds=self.pick.choice([5, 60, 600]))
            case 2:
                self.forge.exhaust()
            case 3:
                self.forge.fail(self.pick.randrange(1, 8), status=self.pick.choice([401, 403, 404, 429]))
            case 4 | 5:
                self.forge.forgetful = not self.forge.forgetful
            case 6:
                self.forge.fail(2, status=502)
                self.forge.faults[-1].matches = lambda request: int(request.query.get("page", "1")) > 1
            case 7:
                self.token.write_text(self.pick.choice(["t0ken", "t0ken", "wrong", ""]))

    def kill(self) -> None:
        self.story.kube.crash_after(self.pick.randrange(1, 8))

    def refuse(self) -> None:
        self.story.kube.fail_at(self.pick.randrange(1, 8), self.pick.choice(ERRORS))

    def turn_mood(self) -> None:
        self.story.operator.mood = self.pick.choice([None, *Mood])

    def evict(self) -> None:
        pods = [pod for pod in self.story.kube.all("Pod") if (pod.get("status") or {}).get("nodeName")]
        if pods:
            self.story.world.evict(self.pick.choice(sorted(pods, key=lambda pod: str(key_of(pod)))))

    def news(self, pull_request: PullRequestKey) -> None:
        """Wake the clones of a pull request that has news; some news get lost."""
        if self.pick.random() < 0.7:
            for clone in self.story.kube.all("DataClone"):
                if clone["spec"]["pullRequest"]["number"] == pull_request.number:
                    self.story.operator._wake(key_of(clone))

    # -- time -----------------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self.story.world.now.replace(microsecond=0).timestamp()

    async def go_on(self) -> None:
        """Let operator, world and forge do a few things, in any order."""
        world, operator = self.story.world, self.story.operator
        for _ in range(self.pick.randrange(1, 4)):
            await self.memory.ask(self.pick.randrange(4))
            await operator.run_due()
            world.turn()
            self.check()
            world.tick(self.pick.choice([0.05, 1, 20, 60]))
        self.story.kube._faults.clear()

    async def live(self, minutes: int) -> None:
        """Let time pass with everybody at work."""
        end = self.story.world.now + timedelta(minutes=minutes)
        while self.story.world.now < end:
            rest = await self.memory.ask()
            await self.story.operator._act()
            self.check()
            self.story.world.tick(min(max(rest, 1), 20))

    def note_time(self) -> None:
        """Note which pull requests have been closed for their grace: their clones may end."""
        for number, since in self.closed_since.items():
            if self.now - since >= GRACE.total_seconds():
                self.may_end.add(number)

    def check(self) -> None:
        """Nobody has lost what they work on, and what ends does so by a pull request that has been closed for its grace."""
        assert not self.story.world.violations
        self.note_time()
        for number in self.repository.pulls:
            clone = self.clone(number)
            if clone is None:
                self.work.pop(number, None)
                continue
            self.check_clone(number, clone)

    def check_clone(self, number: int, clone: Object) -> None:
        told, before = (clone.get("status") or {}).get("pullRequest") or {}, self.work.get(number)
        if "endedAt" in told:
            assert number in self.may_end, self.story.operator.trace(f"the clone of {number} has ended")
            if before is not None:
                self.ended += 1
                del self.work[number]
            return
        ready = (
            any(entry["type"] == "Ready" and entry["status"] == "True" for entry in clone["status"]["conditions"])
            if clone.get("status")
            else False
        )
        if before is None and ready and told.get("state") == "Open" and number not in self.closed_since:
            self.returned += number in self.may_end
            self.may_end.discard(number)
            [claim] = self.claims(number)
            self.work[number] = Work(clone["metadata"]["uid"], claim)
        elif before is not None and before.uid == clone["metadata"]["uid"]:
            lost = before.claim not in self.claims(number)
            assert not lost, self.story.operator.trace(f"the data of {number} are gone")

    # -- looking around -------------------------------------------------------------------------------------------------

    def clone(self, number: int) -> Object | None:
        found: Object | None = self.story.kube.peek("DataClone", f"pr-{number}", "db")
        return found if found is None or "deletionTimestamp" not in found["metadata"] else None

    def claims(self, number: int) -> list[str]:
        found = self.story.kube.all("PersistentVolumeClaim", f"pr-{number}")
        return [str(claim["metadata"]["uid"]) for claim in found if "deletionTimestamp" not in claim["metadata"]]

    def open_numbers(self) -> set[int]:
        return {pull.number for pull in self.repository.pulls.values() if pull.state == "open"}

    def with_data(self) -> set[int]:
        return {number for number in self.repository.pulls if self.claims(number)}

    # -- the end --------------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        self.forge.faults.clear()
        self.forge.forgetful = False
        self.token.write_text("t0ken")
        self.story.kube._faults.clear()
        self.story.operator.mood = None
        for number in self.open_numbers():
            self.make_clone(number)
        # Long enough for a rate limit to end, and a grace after that.
        await self.live(minutes=90)
        assert self.with_data() == self.open_numbers()
        for number in self.repository.pulls:
            self.expect_well(number)
        assert orphans(self.story.world) == []
        settled = len(self.story.world.writes)
        self.story.operator.restart()
        await self.live(minutes=5)
        # A status may tell more exactly since when something is closed, and nothing else changes.
        assert not [write for write in self.story.world.writes[settled:] if "DataClone" not in write]

    def expect_well(self, number: int) -> None:
        if number in self.open_numbers():
            self.story.expect_ready("DataClone", "db", f"pr-{number}")
            return
        left = {kind: names for kind in CHILDREN if (names := self.story.names(kind, f"pr-{number}"))}
        assert left == {}
        if self.clone(number) is not None:
            self.story.expect_stalled("DataClone", "db", "PullRequestClosed", f"pr-{number}")


OPERATIONS: tuple[Callable[[Day], None], ...] = (
    *(Day.open, Day.open, Day.open, Day.close, Day.close, Day.reopen, Day.push, Day.catch_up),
    *(Day.trouble, Day.trouble, Day.kill, Day.refuse, Day.turn_mood, Day.evict),
)


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize("seed", range(20 if THOROUGH else 1))
async def test_in_the_end_there_are_data_for_what_is_open_and_for_nothing_else(
    provider: Provider, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "PER_PAGE", 7)
    pick = random.Random(seed)
    day = Day(provider, tmp_path, pick)
    await day.story.settle()
    for _ in range(300):
        pick.choice(OPERATIONS)(day)
        await day.go_on()
    await day.finish()
    assert len(day.repository.pulls) == MOST
    assert day.ended, "no clone has ended: the day tells nothing"
    assert day.returned, "no clone has come back: the day tells nothing"
