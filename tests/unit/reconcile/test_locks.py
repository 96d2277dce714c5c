"""What is gathered of the tables that a migration locks, from one look after the other."""

from __future__ import annotations

import pytest

from coppice.core import labels
from coppice.engines.base import TableLock
from coppice.reconcile.locks import MAX_FOLLOWED, MAX_LOCKS, Locks, locks_of, look_again, read_locks

JOB = {"metadata": {"uid": "job-1"}}
START = 1_700_000_000.0


def lock(second, table="album", holder="3/7", *, waits=False):
    return TableLock(table, holder, START + second, waits=waits)


def gathered(*looks):
    """Return what is known after some looks, and how often that was written down."""
    known, writes = None, 0
    for seen in looks:
        after = look_again(JOB, known, seen)
        if after is not None:
            known, writes = after, writes + 1
    return known, writes


def told(known):
    return [(one.table, int(one.held), int(one.waited)) for one in locks_of({"metadata": {"uid": known.job}}, known)]


def test_who_is_seen_with_a_lock_twice_had_it_all_the_time_between():
    known, _ = gathered(*([lock(second)] for second in range(11)))
    assert told(known) == [("album", 10, 0)]


def test_a_lock_that_is_seen_once_is_told_without_a_length():
    known, writes = gathered([], [lock(1)], [], [])
    assert told(known) == [("album", 0, 0)]
    assert writes == 1


def test_two_transactions_one_after_the_other_are_no_longer_than_the_longer_one():
    looks = [[lock(second, holder="3/7" if second < 4 else "3/8")] for second in range(10)]
    assert told(gathered(*looks)[0]) == [("album", 5, 0)]


def test_to_wait_for_a_lock_is_told_apart_from_having_it():
    looks = [[lock(second, waits=second < 6)] for second in range(9)]
    assert told(gathered(*looks)[0]) == [("album", 2, 5)]


def test_of_several_that_want_a_table_the_one_that_has_it_is_followed():
    looks = [
        [lock(second, holder="4/1", waits=True), lock(second), lock(second, holder="5/1", waits=True)]
        for second in range(4)
    ]
    assert told(gathered(*looks)[0]) == [("album", 3, 0)]


def test_what_is_not_seen_any_more_stays_known_and_the_longest_comes_first():
    known, _ = gathered(*([lock(second, "genre")] for second in range(3)), *([lock(second)] for second in range(3, 9)))
    assert told(known) == [("album", 5, 0), ("genre", 2, 0)]


def test_looks_in_the_same_second_are_not_written_one_by_one():
    known, writes = gathered(*([lock(second / 20, holder=f"3/{second}")] for second in range(40)))
    assert writes == 3
    assert told(known) == [("album", 0, 0)]


def test_what_lasts_for_hours_is_not_written_every_second():
    known, writes = gathered(*([lock(second)] for second in range(3600)))
    assert writes < 100
    assert 3600 / 1.1 - 1 <= known.tables[0].held <= 3600


def test_of_many_only_the_longest_are_told_and_a_late_one_may_be_the_longest():
    looks = [
        [lock(second, f"t{number:03}", holder=str(number)) for number in range(second, 200)] for second in range(6)
    ]
    late = [[lock(second, "late", holder="9/9")] for second in range(6, 30)]
    known, _ = gathered(*looks, *late)
    assert len(known.tables) == MAX_FOLLOWED
    assert len(told(known)) == MAX_LOCKS
    assert [table for table, *_ in told(known)[:2]] == ["late", "t005"]
    assert 23 / 1.1 - 1 <= told(known)[0][1] <= 23


def test_a_servers_clock_that_goes_back_makes_nothing_shorter():
    known, _ = gathered(*([lock(second)] for second in (0, 5)), [lock(-100)], [lock(6)])
    assert told(known) == [("album", 6, 0)]


def test_what_is_written_on_a_claim_is_read_again():
    known, _ = gathered([lock(0), lock(0, "x" * 300, waits=True)], [lock(2)])
    assert read_locks({"metadata": {"annotations": {labels.LOCKS: known.text}}}) == known


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "no"),
        *('{"job": "a", "at": 0, "tables": [["t"]]}', '{"job": "a", "at": "x", "tables": []}'),
        *(
            f'{{"job": "a", "at": 0, "tables": [["t", {held}, 0, "", false, 0]]}}'
            for held in ("NaN", "Infinity", "1e300", "-1")
        ),
    ],
)
def test_what_others_have_written_there_is_nothing(text):
    assert read_locks({"metadata": {"annotations": {labels.LOCKS: text}}}) is None


def test_another_job_begins_anew():
    known, _ = gathered([lock(0)], [lock(3)])
    other = {"metadata": {"uid": "job-2"}}
    assert locks_of(other, known) == ()
    assert look_again(other, known, []) is None
    after = look_again(other, known, [lock(4, "genre")])
    assert after is not None
    assert (after.job, told(after)) == ("job-2", [("genre", 0, 0)])
    assert isinstance(after, Locks)
