"""The book answers from memory, asks by itself, and one forge's bad day is no other's."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import pytest
from tests.fakes.forge import Forge
from tests.fakes.forge_transport import transport
from tests.unit.forges.builders import SHOP, TOKEN, Clock

from coppice.api.v1alpha1.pullrequest import Provider
from coppice.core.pullrequests import ForgeTerms, PullRequest, PullRequestKey, State, Unknown, UnknownReason
from coppice.forges.book import Book
from coppice.forges.settings import ForgeSettings

GITHUB, OTHER = "github.com", "git.example.com"
TERMS = ForgeTerms(grace=timedelta(minutes=5), dry_run=True)


def key(number, host=GITHUB):
    return PullRequestKey(host, SHOP, number)


class World:
    """Two forges and what they tell."""

    def __init__(self, folder):
        self.clock = Clock()
        self.changed = []
        self.news = asyncio.Event()
        (folder / "token").write_text(TOKEN)
        self.forges = {host: Forge(now=self.clock.seconds, tokens={TOKEN}) for host in (GITHUB, OTHER)}
        self.told = []
        self.book = Book(
            (
                ForgeSettings(Provider.GITHUB, host, f"https://{host}/api/v3", folder / "token", terms=TERMS)
                for host in self.forges
            ),
            clock=self.clock,
            transports={host: transport(forge) for host, forge in self.forges.items()},
        )
        self.book.report(self.note, lambda host, status: self.told.append((host, status)))

    def open(self, number=1, host=GITHUB):
        for _ in range(number):
            pull = self.forges[host].repository(SHOP).open("prices", "prices", "a" * 40)
        return pull

    def note(self, key):
        self.changed.append(key)
        self.news.set()

    async def told_of(self, key):
        """Wait until news of a pull request come by themselves."""
        async with asyncio.timeout(5):
            while key not in self.changed:
                self.news.clear()
                await self.news.wait()

    async def settle(self):
        """Ask what is due, of all forges."""
        for desk in self.book.desks.values():
            while await self.book.step(desk) == 0:
                pass


@pytest.fixture
async def world(tmp_path):
    world = World(tmp_path)
    yield world
    await world.book.aclose()


async def test_a_forge_that_is_not_configured_is_not_asked(world):
    found = world.book.look(key(1, "gitlab.com"))
    assert isinstance(found, Unknown)
    assert found.reason is UnknownReason.NOT_CONFIGURED
    assert world.book.terms("gitlab.com") is None
    assert world.book.client("gitlab.com") is None


async def test_what_is_wanted_is_asked_for_and_news_is_told_once(world):
    pull = world.open()
    assert world.book.look(key(1)).reason is UnknownReason.UNAVAILABLE
    await world.settle()
    assert world.book.look(key(1)).state is State.OPEN
    assert world.changed == [key(1)]
    world.clock.pass_by(minutes=1)
    await world.settle()
    assert world.changed == [key(1)]
    pull.state, pull.updated = "closed", world.clock.seconds()
    world.clock.pass_by(minutes=1)
    await world.settle()
    assert world.changed == [key(1), key(1)]
    found = world.book.look(key(1))
    assert (found.state, found.closed_at) == (State.CLOSED, world.clock() - timedelta(minutes=1))
    assert world.book.terms(GITHUB) == TERMS
    assert world.book.client(GITHUB).host == GITHUB


async def test_a_forge_that_is_away_says_why_and_no_other_is_held_up(world, caplog):
    world.open()
    world.open(host=OTHER)
    world.forges[GITHUB].fail(100, status=503)
    world.book.look(key(1))
    world.book.look(key(1, OTHER))
    with caplog.at_level(logging.INFO):
        await world.settle()
        world.clock.pass_by(minutes=1)
        await world.settle()
        found = world.book.look(key(1))
        assert (found.reason, found.message) == (
            UnknownReason.UNAVAILABLE,
            f"{GITHUB} answered 503 to GET /api/v3/repos/acme/shop/pulls/1",
        )
        assert isinstance(world.book.look(key(1, OTHER)), PullRequest)
        world.forges[GITHUB].faults.clear()
        world.clock.pass_by(minutes=1)
        await world.settle()
    assert isinstance(world.book.look(key(1)), PullRequest)
    assert [record.getMessage() for record in caplog.records if record.name.startswith("coppice")] == [
        f"pull requests are not asked for: {GITHUB} answered 503 to GET /api/v3/repos/acme/shop/pulls/1",
        f"{GITHUB} answers again",
    ]


async def test_it_asks_by_itself_as_soon_as_somebody_looks_and_ends_when_told(world):
    world.open()
    running = asyncio.create_task(world.book.run())
    await asyncio.sleep(0)
    world.book.look(key(1))
    await world.told_of(key(1))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert running.cancelled()


async def test_a_book_without_forges_runs_until_it_is_told_to_end(world):
    book = Book(clock=world.clock)
    running = asyncio.create_task(book.run())
    await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_bug_is_logged_without_its_words_and_the_loop_goes_on(world, caplog, monkeypatch):
    monkeypatch.setattr("coppice.forges.book.BUG_SECONDS", 0.01)
    world.open()

    secret, stumbled = "in no log", asyncio.Event()

    def stumble(_key):
        stumbled.set()
        raise RuntimeError(secret)

    world.book.report(stumble, lambda *_: None)
    running = asyncio.create_task(world.book.run())
    await asyncio.sleep(0)
    world.book.look(key(1))
    await asyncio.wait_for(stumbled.wait(), 5)
    world.book.report(world.note, lambda *_: None)
    world.open()
    world.book.look(key(2))
    await world.told_of(key(2))
    running.cancel()
    assert "bug: RuntimeError" in caplog.text
    assert secret not in caplog.text


async def an_hour(world, happens=lambda second: None):
    """Let an hour pass in which a hundred open pull requests, and whatever comes, are looked at; return what it costs."""
    world.open(100)
    shop = world.forges[GITHUB].repository(SHOP)
    world.told.clear()
    for second in range(3600):
        happens(second)
        for number in shop.pulls:
            world.book.look(key(number))
        await world.settle()
        world.clock.pass_by(seconds=1)
        if second == 0:
            world.told.clear()
    return len(world.told), len([code for _, code in world.told if code != 304])


async def test_a_hundred_open_ones_cost_a_request_a_minute_that_is_not_counted(world, capsys):
    """The figure: what a forge is asked in an hour for a hundred open pull requests of one repository."""
    requests, counted = await an_hour(world)
    with capsys.disabled():
        print(f"\n100 open pull requests, quiet: {requests} requests an hour, {counted} counted by GitHub")  # noqa: T201
    assert (requests, counted) == (59, 0)


async def test_what_happens_costs_a_few_requests_more(world, capsys):
    """Every six minutes one is opened, one is pushed to and one is closed."""
    shop = world.forges[GITHUB].repository(SHOP)

    def happens(second):
        number = second // 360
        if second % 360 == 30:
            shop.pulls[10 + number].sha = "b" * 40
        elif second % 360 == 150:
            world.open()
        elif second % 360 == 270:
            shop.pulls[50 + number].state, shop.pulls[50 + number].updated = "closed", world.clock.seconds()

    requests, counted = await an_hour(world, happens)
    with capsys.disabled():
        print(f"\n... with 10 opened, 10 pushed to, 10 closed: {requests} an hour, {counted} counted")  # noqa: T201
    assert requests < 110
    assert counted < 80
