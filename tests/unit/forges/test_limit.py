"""How much may be asked is what the forge says, by its own clock."""

from datetime import UTC, datetime, timedelta

import pytest

from coppice.forges.limit import LONGEST_PAUSE, Limit

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
HALF_PAST = str(int((NOON + timedelta(minutes=30)).timestamp()))


@pytest.mark.parametrize("prefix", ["x-ratelimit-", "ratelimit-"])
def test_both_spellings_are_read(prefix):
    headers = {f"{prefix}remaining": "7", f"{prefix}limit": "60", f"{prefix}reset": HALF_PAST}
    assert Limit().after(headers, NOON, refused=False) == Limit(7, 60, NOON + timedelta(minutes=30))


def test_an_answer_without_them_changes_nothing():
    known = Limit(7, 60, NOON)
    assert known.after({}, NOON, refused=False) == known


@pytest.mark.parametrize("value", ["", "-1", "many", "1e9", "9" * 40, "٣"])
def test_what_is_no_number_is_not_read(value):
    headers = {"x-ratelimit-remaining": value, "retry-after": value}
    after = Limit().after(headers, NOON, refused=True)
    assert after.remaining is None
    assert after.paused_until == NOON + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "30"}, 30),
        ({"retry-after": "0"}, 1),
        ({"retry-after": "Tue, 01 Jan 2030 12:00:45 GMT"}, 45),
        ({"retry-after": "Tue, 01 Jan 2030 15:00:45 GMT", "date": "Tue, 01 Jan 2030 15:00:00 GMT"}, 45),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": HALF_PAST}, 1800),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": HALF_PAST, "date": "Tue, 01 Jan 2030 12:20:00 GMT"}, 600),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": HALF_PAST, "retry-after": "5"}, 5),
        ({"x-ratelimit-remaining": "12", "x-ratelimit-reset": HALF_PAST}, 60),
        ({"retry-after": "999999999"}, LONGEST_PAUSE.total_seconds()),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "99999999999"}, LONGEST_PAUSE.total_seconds()),
    ],
)
def test_a_refusal_is_waited_for_as_long_as_the_forge_says(headers, seconds):
    after = Limit().after(headers, NOON, refused=True)
    assert after.paused_until == NOON + timedelta(seconds=seconds)
    assert after.is_paused(NOON)
    assert not after.is_paused(after.paused_until)
