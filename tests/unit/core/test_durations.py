"""Durations: days exist, order is fixed, zero and nonsense are refused."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.core.durations import format_duration, parse_duration, parse_duration_or_never


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("1h30m", timedelta(minutes=90)),
        ("3d", timedelta(days=3)),
        ("1d1h1m1s", timedelta(days=1, hours=1, minutes=1, seconds=1)),
    ],
)
def test_parse(text, length):
    assert parse_duration(text) == length


@pytest.mark.parametrize(
    "text", ["", "0s", "1", "h", "-1h", "1.5h", "1m1h", "1h ", " 1h", "1h\n", "1w", "Never", "10000d"]
)
def test_refused(text):
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_never():
    assert parse_duration_or_never("Never") is None
    assert parse_duration_or_never("2h") == timedelta(hours=2)


@pytest.mark.parametrize("length", [timedelta(), timedelta(seconds=-1), timedelta(milliseconds=400)])
def test_no_text_for_nothing(length):
    with pytest.raises(ValueError, match="at least one second"):
        format_duration(length)


@given(st.integers(min_value=1, max_value=9999 * 86400))
def test_round_trip(seconds):
    length = timedelta(seconds=seconds)
    assert parse_duration(format_duration(length)) == length
