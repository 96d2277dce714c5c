"""What is said on pull requests is kept up to date, and forges are left in peace."""

from dataclasses import replace

import pytest
from tests.unit.forges.builders import HOST, SHOP, desk

from coppice.core.pullrequests import Mark, MarkState, Posting, PullRequestKey
from coppice.forges.board import LAST_RETRY, PAUSE, Board
from coppice.forges.settings import Provider

SHA = "a" * 40
TEXT = "<!-- coppice: app/db -->\n**Database `app/db`: ready**"
READY = Posting("app/db", PullRequestKey(HOST, SHOP, 1), TEXT, Mark(SHA, MarkState.SUCCESS, "ready"))
ASLEEP = replace(READY, comment=TEXT.replace("ready", "Asleep"))


class Writers:
    def __init__(self, client):
        self._client = client

    def client(self, host):
        return self._client if host == HOST else None


@pytest.fixture(params=list(Provider))
async def at(request, tmp_path):
    async with desk(request.param, tmp_path) as at:
        at.forge.repository(SHOP).open("prices", "prices", SHA)
        at.board = Board(Writers(at.client), clock=at.clock)
        yield at


async def said(at):
    found = [comment.text for comment in await at.client.list_comments(SHOP, 1)]
    at.asked()
    return found


def writes(at):
    return len([words for words in at.asked() if not words.startswith("GET")])


async def test_what_is_wanted_again_and_again_is_written_once(at):
    for _ in range(3):
        at.board.want(READY)
        assert await at.board.step() is None
    assert writes(at) == 2  # a comment and a mark
    assert await said(at) == [TEXT]
    assert at.board.open == 0


async def test_what_changes_every_second_is_told_as_it_is_in_the_end(at):
    at.board.want(READY)
    await at.board.step()
    writes(at)
    for number in range(10):
        at.board.want(replace(READY, comment=f"{TEXT}{number}"))
        assert (await at.board.step() or 0) > 0
        at.clock.pass_by(seconds=1)
    assert writes(at) == 0
    at.clock.pass_by(seconds=PAUSE.total_seconds())
    assert await at.board.step() is None
    assert writes(at) == 1
    assert await said(at) == [f"{TEXT}9"]


async def test_a_new_process_writes_only_what_is_another(at):
    at.board.want(READY)
    await at.board.step()
    writes(at)
    after = Board(Writers(at.client), clock=at.clock)
    after.want(replace(READY, mark=None))
    await after.step()
    assert writes(at) == 0
    assert await said(at) == [TEXT]


async def test_a_forge_that_is_away_is_tried_ever_more_seldom_and_hears_the_last_word(at):
    at.forge.fail(100, status=502)
    at.board.want(READY)
    waits = []
    for _ in range(8):
        waits.append(await at.board.step())
        at.clock.pass_by(seconds=waits[-1])
    assert waits == sorted(waits)
    assert waits[0] == 60
    assert waits[-1] == LAST_RETRY.total_seconds()
    at.board.want(ASLEEP)
    at.forge.faults.clear()
    assert await at.board.step() is None
    assert await said(at) == [ASLEEP.comment]


async def test_a_forge_that_wants_peace_has_it(at):
    at.forge.throttle(seconds=300)
    at.board.want(READY)
    wait = await at.board.step()
    assert wait is not None
    assert wait >= 60
    at.asked()
    assert await at.board.step() == wait
    assert at.asked() == []


async def test_one_forges_trouble_is_no_others(at):
    at.board.want(replace(READY, subject="app/other", key=PullRequestKey("elsewhere", SHOP, 1)))
    at.board.want(READY)
    assert await at.board.step() is None
    assert await said(at) == [TEXT]


async def test_of_what_is_gone_it_is_said_and_then_forgotten(at):
    at.board.want(READY)
    await at.board.step()
    at.board.gone("app/db")
    at.board.gone("app/other")
    at.clock.pass_by(seconds=60)
    assert await at.board.step() is None
    assert await said(at) == ["<!-- coppice: app/db -->\n**Database `app/db`: deleted**"]
    at.board.want(READY)
    assert await at.board.step() is None
    assert await said(at) == [TEXT]


async def test_a_bug_ends_nothing(at, monkeypatch):
    monkeypatch.setattr(type(at.client), "list_comments", None)
    at.board.want(READY)
    wait = await at.board.step()
    assert wait == 60
    monkeypatch.undo()
    at.clock.pass_by(seconds=wait)
    assert await at.board.step() is None
    assert await said(at) == [TEXT]
