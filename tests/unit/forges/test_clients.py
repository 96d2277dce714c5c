"""Both forges tell the same of pull requests, are written to alike, and are not believed more than they say."""

import pytest
from tests.unit.forges.builders import HOST, SHOP, TOKEN, desk

from coppice.api.v1alpha1.pullrequest import Provider
from coppice.core.pullrequests import MarkState, PullRequestKey, State
from coppice.forges.client import CommitStatus
from coppice.forges.errors import (
    BadAnswerError,
    ForbiddenError,
    ForgeError,
    MissingError,
    RateLimitedError,
    RefusedError,
    UnauthorizedError,
    UnreachableError,
)


@pytest.fixture(params=list(Provider))
async def at(request, tmp_path):
    async with desk(request.param, tmp_path) as at:
        at.forge.repository(SHOP)
        yield at


def shop(at):
    return at.forge.repository(SHOP)


async def test_an_open_one_says_who_it_is_from_and_where_it_stands(at):
    shop(at).open("prices", "prices", "a" * 40)
    shop(at).open("gifts", "gifts", "b" * 40, fork="eve/shop")
    shop(at).open("gone", "gone", "c" * 40).head_repository = None
    listing = await at.client.list_open(SHOP)
    found = {pull.key.number: pull for pull in listing.pull_requests}
    assert {number: (pull.state, pull.head, pull.fork) for number, pull in found.items()} == {
        1: (State.OPEN, "a" * 40, False),
        2: (State.OPEN, "b" * 40, True),
        3: (State.OPEN, "c" * 40, None),
    }
    assert found[1].key == PullRequestKey(HOST, SHOP, 1)
    assert found[1].url.endswith("/1")
    assert found[1] == await at.client.read(SHOP, 1)
    assert found[1].read_at == at.clock()


@pytest.mark.parametrize("merged", [False, True])
async def test_a_closed_or_merged_one_says_since_when(at, merged):
    pull = shop(at).open("prices", "prices", "a" * 40)
    pull.state, pull.merged, pull.updated = "closed", merged, at.clock.seconds()
    closed_at = at.clock()
    at.clock.pass_by(minutes=5)
    assert (await at.client.list_open(SHOP)).pull_requests == ()
    found = await at.client.read(SHOP, 1)
    assert (found.state, found.closed_at, found.read_at) == (State.CLOSED, closed_at, at.clock())


async def test_a_long_list_is_all_of_its_pages(at):
    for number in range(1, 251):
        shop(at).open(f"change {number}", f"branch-{number}", f"{number:040d}")
    listing = await at.client.list_open(SHOP)
    assert sorted(pull.key.number for pull in listing.pull_requests) == list(range(1, 251))
    assert listing.pages == len(at.forge.asked) == 3


async def test_a_list_that_breaks_off_is_no_list(at):
    for number in range(1, 151):
        shop(at).open(f"change {number}", f"branch-{number}", f"{number:040d}")
    at.forge.fail(status=502, path="nowhere")
    at.forge.faults[0].matches = lambda request: request.query.get("page") == "2"
    with pytest.raises(UnreachableError):
        await at.client.list_open(SHOP)
    assert len((await at.client.list_open(SHOP)).pull_requests) == 150


async def test_what_has_not_changed_is_asked_for_conditionally_and_known_all_the_same(at):
    for number in range(1, 151):
        shop(at).open(f"change {number}", f"branch-{number}", f"{number:040d}")
    first = await at.client.list_open(SHOP)
    at.clock.pass_by(minutes=1)
    second = await at.client.list_open(SHOP)
    assert at.told == [200, 200, 304, 304]
    assert [pull.key for pull in second.pull_requests] == [pull.key for pull in first.pull_requests]
    assert {pull.read_at for pull in second.pull_requests} == {at.clock()}
    shop(at).pulls[150].sha = "f" * 40
    third = await at.client.list_open(SHOP)
    assert at.told[4:] == [200, 304]
    assert third.pull_requests[0].head == "f" * 40


async def test_another_token_is_shown_everything_anew(at):
    await at.client.list_open(SHOP)
    at.forge.tokens.add("renewed")
    at.token_file.write_text("renewed")
    await at.client.list_open(SHOP)
    assert at.told == [200, 200]
    assert at.forge.asked[-1].headers["authorization"] == "Bearer renewed"


async def test_comments_are_written_found_and_replaced(at):
    shop(at).open("prices", "prices", "a" * 40)
    made = await at.client.create_comment(SHOP, 1, "first")
    await at.client.create_comment(SHOP, 1, "second")
    changed = await at.client.update_comment(SHOP, 1, made.number, "third")
    found = await at.client.list_comments(SHOP, 1)
    assert [(comment.author, comment.text) for comment in found] == [
        ("coppice[bot]", "third"),
        ("coppice[bot]", "second"),
    ]
    assert changed == found[0]
    with pytest.raises(MissingError):
        await at.client.update_comment(SHOP, 1, 999_999, "fourth")


@pytest.mark.parametrize("state", list(MarkState))
async def test_a_commit_shows_a_status_however_long_its_words(at, state):
    status = CommitStatus(state, "coppice", "x" * 1000, "https://app.example")
    await at.client.set_status(SHOP, "a" * 40, status)
    await at.client.set_status(SHOP, "a" * 40, status)
    assert len(shop(at).statuses["a" * 40]) == 2


async def test_a_status_that_is_there_already_may_be_said_again(tmp_path):
    async with desk(Provider.GITLAB, tmp_path) as at:
        at.forge.repository(SHOP)
        at.forge.strict_statuses = True
        for _ in range(2):
            await at.client.set_status(SHOP, "a" * 40, CommitStatus(MarkState.PENDING, "coppice"))
        assert at.told == [201, 400]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, UnauthorizedError),
        (403, ForbiddenError),
        (404, MissingError),
        (410, MissingError),
        (400, RefusedError),
        (422, RefusedError),
        (451, RefusedError),
        (500, UnreachableError),
        (502, UnreachableError),
        (503, UnreachableError),
    ],
)
async def test_each_refusal_has_a_meaning_and_no_secret(at, status, error):
    at.forge.fail(status=status)
    with pytest.raises(error) as raised:
        await at.client.read(SHOP, 1)
    assert type(raised.value) is error
    assert str(status) in str(raised.value)
    assert HOST in str(raised.value)
    assert TOKEN not in repr(raised.value)
    assert at.told == [status]


async def test_who_asks_too_much_waits_until_there_is_more(at):
    at.forge.exhaust()
    with pytest.raises(RateLimitedError) as raised:
        await at.client.list_open(SHOP)
    with pytest.raises(RateLimitedError):
        await at.client.list_open(SHOP)
    assert len(at.forge.asked) == 1, "asked again though told not to"
    at.clock.moment = raised.value.retry_at
    await at.client.list_open(SHOP)


async def test_who_asks_too_fast_waits_as_long_as_told(at):
    at.forge.throttle(seconds=90)
    with pytest.raises(RateLimitedError) as raised:
        await at.client.list_open(SHOP)
    assert (raised.value.retry_at - at.clock()).total_seconds() == 90


async def test_a_limit_without_a_time_is_waited_for_ever_longer(at):
    at.forge.fail(3, status=429)
    waits = []
    for _ in range(3):
        with pytest.raises(RateLimitedError) as raised:
            await at.client.list_open(SHOP)
        waits.append((raised.value.retry_at - at.clock()).total_seconds())
        at.clock.moment = raised.value.retry_at
    assert waits == [60, 120, 240]
    await at.client.list_open(SHOP)
    assert at.client.limit.refusals == 0


@pytest.mark.parametrize("text", ["", "two words", "line\nbreak", "schlüssel"])
async def test_what_is_no_token_is_not_sent(at, text):
    at.token_file.write_text(text)
    with pytest.raises(UnauthorizedError) as raised:
        await at.client.list_open(SHOP)
    assert at.forge.asked == []
    assert text not in str(raised.value) or not text


async def test_a_file_that_is_away_is_no_token_and_may_come_back(at):
    at.token_file.unlink()
    with pytest.raises(UnauthorizedError):
        await at.client.list_open(SHOP)
    at.token_file.write_text(TOKEN)
    await at.client.list_open(SHOP)


@pytest.mark.parametrize("repository", ["", "shop", "acme/..", "../shop", "acme/shop?x=", "acme/shop/../..", "a/b c"])
async def test_what_is_no_repository_is_not_asked_for(at, repository):
    with pytest.raises(MissingError):
        await at.client.read(repository, 1)
    assert at.forge.asked == []


async def test_gitlab_has_groups_in_groups(tmp_path):
    async with desk(Provider.GITLAB, tmp_path) as at:
        at.forge.repository("acme/web/shop").open("prices", "prices", "a" * 40)
        assert (await at.client.read("acme/web/shop", 1)).key == PullRequestKey(HOST, "acme/web/shop", 1)


async def test_one_that_is_being_merged_is_open(tmp_path):
    async with desk(Provider.GITLAB, tmp_path) as at:
        at.forge.repository(SHOP).open("prices", "prices", "a" * 40)
        found = at.forge._merge_request
        at.forge._merge_request = lambda pull: {**found(pull), "state": "locked"}
        assert (await at.client.read(SHOP, 1)).state is State.OPEN


async def test_another_ones_answer_is_not_taken(at):
    shop(at).open("prices", "prices", "a" * 40)
    shop(at).pulls[7] = shop(at).pulls[1]
    with pytest.raises(BadAnswerError):
        await at.client.read(SHOP, 7)


async def test_every_error_is_a_forge_error():
    errors = {BadAnswerError, ForbiddenError, MissingError, RateLimitedError, RefusedError, UnauthorizedError}
    assert all(issubclass(error, ForgeError) for error in {*errors, UnreachableError})
