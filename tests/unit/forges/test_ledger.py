"""What is asked next, and what is believed: a pull request is closed when its forge says so of it, and by nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.core.pullrequests import PullRequest, PullRequestKey, State, Unknown, UnknownReason
from coppice.forges.client import Listing
from coppice.forges.errors import (
    BadAnswerError,
    ForbiddenError,
    MissingError,
    RateLimitedError,
    UnauthorizedError,
    UnreachableError,
)
from coppice.forges.ledger import FOLLOWED_PER_INTERVAL, Ledger, ListOpen, Read, Rest
from coppice.forges.limit import Limit

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SHOP, BLOG = "acme/shop", "acme/blog"
FREE = Limit()


def key(number, repository=SHOP):
    return PullRequestKey("github.com", repository, number)


def pull(number, state=State.OPEN, *, at=NOON, closed=None, head="a", repository=SHOP):
    closed_at = closed if state is State.CLOSED else None
    return PullRequest(key(number, repository), state, head, fork=False, closed_at=closed_at, read_at=at)


@pytest.fixture
def ledger():
    return Ledger("github.com", interval=MINUTE, grace=10 * MINUTE, keep=60 * MINUTE)


def want(ledger, *numbers, at=NOON, repository=SHOP):
    for number in numbers:
        ledger.want(key(number, repository), at)


def list_open(ledger, *numbers, at=NOON, pages=1, repository=SHOP):
    """Answer that these are open."""
    question = ListOpen(repository)
    ledger.asked(question, at)
    return ledger.listed(repository, Listing(tuple(pull(n, at=at, repository=repository) for n in numbers), pages), at)


def read(ledger, found, at=NOON):
    ledger.asked(Read(found.key), at)
    return ledger.was_read(found.key, found, at)


def ask(ledger, at=NOON, limit=FREE):
    return ledger.next(at, limit)


# --- what to ask -------------------------------------------------------------------------------------------------------


def test_nobody_wants_to_know_anything(ledger):
    assert ask(ledger) == Rest(None)


def test_a_single_one_is_asked_for_at_once_and_then_at_intervals(ledger):
    want(ledger, 1)
    assert ask(ledger) == Read(key(1))
    read(ledger, pull(1))
    assert ask(ledger) == Rest(NOON + MINUTE)
    assert ask(ledger, NOON + MINUTE) == Read(key(1))


def test_several_are_asked_for_by_one_list(ledger):
    want(ledger, *range(1, 101))
    assert ask(ledger) == ListOpen(SHOP)
    list_open(ledger, *range(1, 101))
    assert ask(ledger) == Rest(NOON + MINUTE)
    assert ask(ledger, NOON + MINUTE) == ListOpen(SHOP)


def test_a_few_of_a_long_list_are_asked_for_by_themselves(ledger):
    want(ledger, 1, 2, 3)
    list_open(ledger, 1, 2, 3, pages=20)
    assert ask(ledger, NOON + MINUTE) == Read(key(1))


def test_a_new_one_does_not_wait_for_the_next_list(ledger):
    want(ledger, 1, 2)
    list_open(ledger, 1, 2)
    want(ledger, 3, at=NOON + MINUTE / 2)
    assert ask(ledger, NOON + MINUTE / 2) == Read(key(3))
    read(ledger, pull(3), NOON + MINUTE / 2)
    assert ask(ledger, NOON + MINUTE / 2) == Rest(NOON + MINUTE)
    want(ledger, 4, 5, at=NOON + MINUTE / 2)
    assert ask(ledger, NOON + MINUTE / 2) == ListOpen(SHOP)


def test_who_waits_for_a_first_answer_goes_first(ledger):
    want(ledger, 1)
    read(ledger, pull(1))
    want(ledger, 1, at=NOON + 5 * MINUTE, repository=BLOG)
    assert ask(ledger, NOON + 5 * MINUTE) == Read(key(1, BLOG))


def test_what_nobody_looks_at_any_more_is_forgotten(ledger):
    want(ledger, 1, 2)
    want(ledger, 2, at=NOON + 50 * MINUTE)
    ledger.forget(NOON + 61 * MINUTE)
    assert ask(ledger, NOON + 61 * MINUTE) == Read(key(2))
    ledger.forget(NOON + 200 * MINUTE)
    assert ask(ledger, NOON + 200 * MINUTE) == Rest(None)
    assert not ledger.repositories


def test_a_paused_forge_is_left_alone(ledger):
    want(ledger, 1)
    paused = Limit(paused_until=NOON + 5 * MINUTE)
    assert ask(ledger, NOON, paused) == Rest(NOON + 5 * MINUTE)
    assert ask(ledger, NOON + 5 * MINUTE, paused) == Read(key(1))


def test_the_last_quarter_of_an_hours_requests_is_made_to_last(ledger):
    want(ledger, 1)
    read(ledger, pull(1))
    low = Limit(remaining=9, total=5000, resets_at=NOON + 60 * MINUTE)
    assert ask(ledger, NOON + MINUTE, low) == Rest(NOON + (59 * MINUTE) / 10)
    plenty = Limit(remaining=4000, total=5000, resets_at=NOON + 60 * MINUTE)
    assert ask(ledger, NOON + MINUTE, plenty) == Read(key(1))
    over = Limit(remaining=0, total=5000, resets_at=NOON)
    assert ask(ledger, NOON + MINUTE, over) == Read(key(1))


# --- closed ------------------------------------------------------------------------------------------------------------


def test_what_a_list_lacks_is_open_until_it_is_asked_for_itself(ledger):
    want(ledger, 1, 2)
    assert list_open(ledger, 1, 2) == {key(1), key(2)}
    assert list_open(ledger, 1, at=NOON + MINUTE) == set()
    assert ledger.look(key(2)).state is State.OPEN
    assert ask(ledger, NOON + MINUTE) == Read(key(2))
    assert read(ledger, pull(2, State.CLOSED, at=NOON + MINUTE, closed=NOON), NOON + MINUTE) == {key(2)}
    assert ledger.look(key(2)).state is State.CLOSED


def test_an_empty_list_makes_few_questions_and_ends_nothing(ledger):
    want(ledger, *range(1, 101))
    list_open(ledger, *range(1, 101))
    now, questions = NOON + MINUTE, 0
    list_open(ledger, at=now)
    while now < NOON + 2 * MINUTE:
        question = ask(ledger, now)
        if isinstance(question, Rest):
            now = question.until
        elif isinstance(question, Read):
            questions += 1
            read(ledger, pull(question.key.number, at=now), now)
        else:
            break
    assert questions == FOLLOWED_PER_INTERVAL
    assert all(ledger.look(key(number)).state is State.OPEN for number in range(1, 101))


def test_a_closed_one_is_asked_for_again_right_after_its_grace(ledger):
    want(ledger, *range(1, 4))
    list_open(ledger, 1, 2, 3)
    read(ledger, pull(3, State.CLOSED, closed=NOON))
    for minute in range(1, 10):
        assert list_open(ledger, 1, 2, at=NOON + minute * MINUTE) == set()
        assert ask(ledger, NOON + minute * MINUTE) == Rest(NOON + (minute + 1) * MINUTE)
    over = NOON + 10 * MINUTE
    list_open(ledger, 1, 2, at=over - timedelta(seconds=1))
    assert ask(ledger, over) == Read(key(3))
    assert ledger.look(key(3)).read_at < over
    assert read(ledger, pull(3, State.CLOSED, at=over, closed=NOON), over) == {key(3)}
    assert ledger.look(key(3)).read_at == over
    assert list_open(ledger, 1, 2, at=over + MINUTE) == set()
    assert ask(ledger, over + MINUTE) == Rest(over + 2 * MINUTE)


def test_a_reopened_one_is_open_again_by_the_next_list(ledger):
    want(ledger, 1, 2)
    list_open(ledger, 1, 2)
    read(ledger, pull(2, State.CLOSED, closed=NOON))
    assert list_open(ledger, 1, 2, at=NOON + MINUTE) == {key(2)}
    assert ledger.look(key(2)).state is State.OPEN


@pytest.mark.parametrize(
    "error", [MissingError("gone"), ForbiddenError("no"), UnreachableError("away"), BadAnswerError("?")]
)
@pytest.mark.parametrize("question", [ListOpen(SHOP), Read(key(1))])
@pytest.mark.parametrize("state", [State.OPEN, State.CLOSED])
def test_no_error_changes_what_was_told(ledger, error, question, state):
    want(ledger, 1, 2)
    told = pull(1, state, closed=NOON)
    read(ledger, told)
    assert ledger.failed(question, error, NOON + MINUTE) <= {key(2)}
    assert ledger.look(key(1)) == told


def test_a_new_commit_is_news_and_the_same_answer_is_none(ledger):
    want(ledger, 1)
    assert read(ledger, pull(1)) == {key(1)}
    assert read(ledger, pull(1, at=NOON + MINUTE), NOON + MINUTE) == set()
    assert read(ledger, pull(1, at=NOON + 2 * MINUTE, head="b"), NOON + 2 * MINUTE) == {key(1)}


def test_an_answer_about_one_that_is_forgotten_meanwhile_is_let_go(ledger):
    assert read(ledger, pull(1)) == set()
    assert isinstance(ledger.look(key(1)), Unknown)


# --- trouble -----------------------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_so_and_asked_for_at_intervals(ledger):
    want(ledger, 1)
    assert ledger.failed(Read(key(1)), MissingError("github.com answered 404"), NOON) == {key(1)}
    assert ledger.look(key(1)) == Unknown(UnknownReason.NOT_FOUND, "github.com answered 404")
    assert ask(ledger) == Rest(NOON + MINUTE)
    assert read(ledger, pull(1), NOON + MINUTE) == {key(1)}


def test_a_repository_that_is_not_there_is_said_so_of_all(ledger):
    want(ledger, 1, 2)
    assert ledger.failed(ListOpen(SHOP), MissingError("404"), NOON) == {key(1), key(2)}
    assert ledger.look(key(2)).reason is UnknownReason.NOT_FOUND
    assert ask(ledger) == Rest(NOON + MINUTE)


@pytest.mark.parametrize("question", [ListOpen(SHOP), Read(key(1))])
def test_what_is_never_there_is_asked_for_ever_less_often(ledger, question):
    """Anybody may name any repository, and each question is counted."""
    want(ledger, *([1, 2] if isinstance(question, ListOpen) else [1]))
    now, waits = NOON, []
    for _ in range(6):
        assert ask(ledger, now) == question
        ledger.failed(question, MissingError("404"), now)
        until = ask(ledger, now).until
        waits.append((until - now) / MINUTE)
        now = until
    assert waits == [1, 2, 4, 8, 8, 8]


def test_one_that_is_not_there_is_not_asked_for_after_every_list(ledger):
    want(ledger, 1, 2, 3)
    list_open(ledger, 1, 2)
    assert ask(ledger) == Read(key(3))
    ledger.asked(Read(key(3)), NOON)
    ledger.failed(Read(key(3)), MissingError("404"), NOON)
    list_open(ledger, 1, 2, at=NOON + MINUTE)
    assert ask(ledger, NOON + MINUTE) == Rest(NOON + 2 * MINUTE)


def test_a_forge_that_is_away_is_asked_ever_less_often_and_says_why(ledger):
    want(ledger, 1)
    now, waits = NOON, []
    for _ in range(8):
        ledger.failed(Read(key(1)), UnreachableError("github.com does not answer"), now)
        until = ask(ledger, now).until
        waits.append((until - now).total_seconds())
        now = until
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert ledger.look(key(1)) == Unknown(UnknownReason.UNAVAILABLE, "github.com does not answer")
    read(ledger, pull(1), now)
    assert ledger.trouble == ""


def test_a_repository_that_fails_does_not_hold_up_another(ledger):
    want(ledger, 1)
    want(ledger, 1, repository=BLOG)
    ledger.failed(Read(key(1)), UnreachableError("502"), NOON)
    soon = NOON + timedelta(seconds=1)
    ledger.failed(Read(key(1)), UnreachableError("502"), soon)
    assert ask(ledger, soon + timedelta(seconds=2)) == Read(key(1, BLOG))
    read(ledger, pull(1, repository=BLOG), soon)
    assert ledger.look(key(1)) == Unknown(UnknownReason.UNAVAILABLE, "502")


def test_a_refused_token_stops_everything_for_a_while(ledger):
    want(ledger, 1)
    want(ledger, 1, repository=BLOG)
    ledger.failed(Read(key(1)), UnauthorizedError("no token"), NOON)
    assert ask(ledger) == Rest(NOON + timedelta(seconds=1))
    assert ledger.look(key(1, BLOG)) == Unknown(UnknownReason.UNAVAILABLE, "no token")


def test_a_limit_is_no_failure_of_the_repository(ledger):
    want(ledger, 1)
    ledger.failed(Read(key(1)), RateLimitedError("asked too much", NOON + MINUTE), NOON)
    assert ask(ledger, NOON, Limit(paused_until=NOON + MINUTE)) == Rest(NOON + MINUTE)
    assert ask(ledger, NOON + MINUTE, Limit()) == Read(key(1))
    assert ledger.look(key(1)) == Unknown(UnknownReason.UNAVAILABLE, "asked too much")


def test_how_old_the_oldest_answer_is(ledger):
    assert ledger.oldest() is None
    want(ledger, 1)
    want(ledger, 2, at=NOON + MINUTE)
    assert ledger.oldest() == NOON
    read(ledger, pull(1, at=NOON + 2 * MINUTE), NOON + 2 * MINUTE)
    assert ledger.oldest() == NOON + MINUTE


# --- whatever happens --------------------------------------------------------------------------------------------------


@given(st.data())
def test_whatever_the_forge_answers_nobody_is_asked_without_end_and_nothing_closes_by_itself(data):
    ledger = Ledger("github.com", interval=MINUTE, grace=2 * MINUTE, keep=60 * MINUTE)
    numbers = range(1, data.draw(st.integers(2, 12)))
    closed: dict[int, datetime] = {}
    want(ledger, *numbers)
    now, questions = NOON, 0
    while now < NOON + 8 * MINUTE:
        want(ledger, *numbers, at=now)
        question = ask(ledger, now)
        if isinstance(question, Rest):
            assert question.until > now
            now = min(question.until, now + MINUTE)
            continue
        questions += 1
        now += timedelta(milliseconds=1)
        ledger.asked(question, now)
        turn = data.draw(st.sampled_from(["well", "well", "well", "away", "gone", "empty", "close", "open"]))
        if turn == "close":
            closed.setdefault(data.draw(st.sampled_from(numbers)), now)
        elif turn == "open" and closed:
            closed.pop(data.draw(st.sampled_from(sorted(closed))))
        if turn == "away":
            ledger.failed(question, UnreachableError("away"), now)
        elif turn == "gone":
            ledger.failed(question, MissingError("gone"), now)
        elif isinstance(question, Read):
            number = question.key.number
            state = State.CLOSED if number in closed else State.OPEN
            read(ledger, pull(number, state, at=now, closed=closed.get(number)), now)
        else:
            list_open(ledger, *(n for n in numbers if n not in closed and turn != "empty"), at=now)
        for number in numbers:
            told = ledger.look(key(number))
            if isinstance(told, PullRequest) and told.read_at == now:
                assert (told.state is State.CLOSED) == (number in closed)
    assert questions < 8 * (FOLLOWED_PER_INTERVAL + 40)
