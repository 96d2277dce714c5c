"""Fifty pull requests are opened, closed and reopened at random, by people who do not wait, on a forge that has a bad day, with an
operator that is killed now and then and does not hear of everything. What is open in the end has its data, what is closed has
none, and at no time is anything lost of one that is open.

All of the operator takes part: its reconcilers, and the book that asks the forge over HTTP; of the forge everything but the socket.
"""

from __future__ import annotations

import os
import random
from datetime import timedelta

import pytest
from tests.fakes.audit import live_data, orphans
from tests.fakes.forge import Forge, PullRequest
from tests.fakes.forge_transport import transport
from tests.fakes.story import Story, begun

from coppice.api.v1alpha1.pullrequest import Provider
from coppice.core.key import Key
from coppice.core.pullrequests import ForgeTerms, PullRequestKey, Unknown
from coppice.core.pullrequests import PullRequest as Told
from coppice.forges.book import Book
from coppice.forges.settings import ForgeSettings, connect

SEEDS = range(20 if os.environ.get("COPPICE_THOROUGH") else 1)
COUNT = 50
GRACE = timedelta(minutes=10)
HOST, SHOP, TOKEN = "github.com", "acme/shop", "t0p-s3cret"
PACE = 20
"""Seconds between two looks at what the book has to ask."""


class Memory:
    """What one operator has been told; the next one begins with nothing (``forget``)."""

    def __init__(self, world, folder):
        self._world = world
        self.forge = Forge(now=self._seconds, tokens={TOKEN})
        (folder / "token").write_text(TOKEN)
        url = f"https://{HOST}/api/v3"
        self._settings = ForgeSettings(Provider.GITHUB, HOST, url, folder / "token", terms=ForgeTerms(grace=GRACE))
        self.heard = lambda key: None
        self.forget()

    def forget(self):
        client = connect(self._settings, clock=self._now, transport=transport(self.forge))
        self.book = Book([(self._settings, client)], clock=self._now)
        self.book.on_change(self._tell)

    def _now(self):
        return self._world.now

    def _seconds(self):
        return self._world.now.timestamp()

    def _tell(self, key):
        self.heard(key)

    def look(self, key: PullRequestKey) -> Told | Unknown:
        return self.book.look(key)

    def terms(self, host: str) -> ForgeTerms | None:
        return self.book.terms(host)

    async def ask(self):
        [desk] = self.book.desks.values()
        while await self.book.step(desk) == 0:
            pass


class Day:
    """People, their CI system and the forge's weather, by chance."""

    def __init__(self, story, folder, chance):
        self.story, self.world, self.chance = story, story.world, chance
        self.memory = self.world.forges = Memory(self.world, folder)
        self.memory.heard = self.hear
        self.forge, self.shop = self.memory.forge, self.memory.forge.repository(SHOP)
        self.at_work: set[int] = set()
        """The pull requests in whose data somebody has written something that is not to be lost."""
        self.ended = 0
        story.operator.restart()

    # -- what happens --

    def open(self):
        fork = "mallory/shop" if self.chance.random() < 0.15 else ""
        pull = self.shop.open("prices", "prices", f"{self.chance.getrandbits(160):040x}", fork=fork)
        pull.updated = self.forge.now()
        number = {"coppice.dev/previews": "true", "coppice.dev/pull-request": str(pull.number)}
        self.world.add_namespace(place(pull), **number)
        self.deploy(pull)

    def deploy(self, pull):
        if self.story.kube.peek("DataClone", place(pull), "db") is None:
            said = {"provider": "github", "repository": SHOP, "number": pull.number}
            self.story.clone(namespace=place(pull), pullRequest=said, revision=pull.sha, lease={"max": "Never"})

    def close(self):
        pull = self.pick("open")
        if pull is None:
            return
        pull.state, pull.merged, pull.updated = "closed", self.chance.random() < 0.5, self.forge.now()
        if self.chance.random() < 0.2:
            # The CI system hears of it and cleans up; else its event is lost, as events are.
            self.story.delete("DataClone", "db", place(pull))
            self.at_work.discard(pull.number)

    def reopen(self):
        pull = self.pick("closed")
        if pull is not None and self.chance.random() < 0.7:
            # Most often somebody has closed it by mistake.
            closed = [one for one in self.shop.pulls.values() if one.state == "closed"]
            pull = max(closed, key=lambda one: one.updated)
        if pull is not None:
            pull.state, pull.merged, pull.updated = "open", False, self.forge.now()
            self.deploy(pull)

    def push(self):
        pull = self.pick("open")
        if pull is not None:
            pull.sha, pull.branch = f"{self.chance.getrandbits(160):040x}", self.chance.choice(["prices", "renamed"])
            self.deploy(pull)
            self.story.edit("DataClone", "db", place(pull), revision=pull.sha)

    def worsen(self):
        self.chance.choice(
            [
                lambda: self.forge.fail(self.chance.randint(1, 40)),
                lambda: self.forge.fail(3, status=502, path="/pulls/"),
                lambda: self.forge.fail(5, status=404),
                lambda: self.forge.throttle(seconds=self.chance.randint(10, 600)),
                self.forge.exhaust,
                self.forge.tokens.clear,
                lambda: self.forge.tokens.add("another"),
                lambda: setattr(self.forge, "forgetful", True),
            ]
        )()

    def mend(self):
        self.forge.faults.clear()
        self.forge.tokens |= {TOKEN}
        self.forge.forgetful = False

    def kill(self):
        if self.chance.random() < 0.5:
            self.story.operator.restart()
        else:
            self.story.kube.crash_after(self.chance.randint(1, 6))

    def hear(self, key):
        """Be told by the book; every third time nobody listens."""
        if self.chance.random() < 0.67:
            self.story.operator._wake(Key("DataClone", f"pr-{key.number}", "db"))

    def pick(self, state):
        found = [pull for pull in self.shop.pulls.values() if pull.state == state]
        return self.chance.choice(found) if found else None

    # -- time, and what is seen --

    async def live(self, seconds, pace=PACE):
        for _ in range(seconds // pace):
            await self.story.operator.live(seconds=pace)
            await self.memory.ask()
            await self.story.operator.run_due()
            self.witness()

    def witness(self):
        for pull in self.shop.pulls.values():
            namespace = place(pull)
            data = [rows for volume in live_data(self.world, namespace).values() for rows in volume.values()]
            if pull.head_repository != SHOP:
                assert data == [], "a fork has data"
                continue
            until = pull.updated + GRACE.total_seconds()
            if pull.state == "closed" and self.forge.now() >= until:
                self.at_work.discard(pull.number)
            if pull.number in self.at_work:
                assert any("mine" in rows for rows in data), f"{namespace} lost its data while it was live"
            elif pull.state == "open" and self.story.kube.peek("DataClone", namespace, "db"):
                self.work(pull)

    def work(self, pull):
        if self.story.is_ready("DataClone", "db", place(pull)):
            self.world.login(place(pull), "db-binding").volume.write("main", "mine")
            self.at_work.add(pull.number)

    async def end(self):
        """Let the weather clear up, and everything come to rest."""
        self.mend()
        # Whatever the forge has asked to be left alone for is over.
        self.world.tick(3600)
        await self.live(1200, pace=60)
        for pull in self.shop.pulls.values():
            namespace = place(pull)
            clone = self.story.kube.peek("DataClone", namespace, "db")
            if pull.state == "closed" or pull.head_repository != SHOP:
                assert live_data(self.world, namespace) == {}
                kinds = ("Pod", "Secret", "Service", "NetworkPolicy", "VolumeSnapshot")
                assert [name for kind in kinds for name in self.story.names(kind, namespace)] == []
                wanted = "ForkNotGranted" if pull.state == "open" else "PullRequestClosed"
                assert clone is None or self.story.reason("DataClone", "db", namespace) == wanted
                self.ended += pull.state == "closed" and clone is not None
            else:
                self.story.expect_ready("DataClone", "db", namespace)
                assert clone["status"]["pullRequest"]["state"] == "Open"
        assert orphans(self.world) == []


def place(pull: PullRequest) -> str:
    return f"pr-{pull.number}"


async def _open(story: Story) -> None:
    story.store()
    selector = {"namespaceSelector": {"matchLabels": {"coppice.dev/previews": "true"}}}
    story.grant(to=selector, repositories=[f"{HOST}/{SHOP}"])
    await story.settle()
    story.commit("alice")


@pytest.fixture
def shop() -> Story:
    return begun(_open)


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_end_is_the_list_of_open_pull_requests_and_nothing_live_is_lost(shop, tmp_path, seed):
    chance = random.Random(seed)
    day = Day(shop, tmp_path, chance)
    happenings = [day.open] * 6 + [day.close] * 6 + [day.reopen] * 3 + [day.push] * 2
    happenings += [day.worsen] * 2 + [day.mend, day.kill]
    while len(day.shop.pulls) < COUNT:
        for _ in range(chance.randint(1, 4)):
            happening = chance.choice(happenings)
            if happening != day.open or len(day.shop.pulls) < COUNT:
                happening()
        await day.live(chance.choice([20, 40, 120]))
    await day.end()
    states = [pull.state for pull in day.shop.pulls.values()]
    assert (len(states), "open" in states) == (COUNT, True)
    assert day.ended, "ends were missed by everybody but the operator"
