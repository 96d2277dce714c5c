"""What is read of a program's output."""

from __future__ import annotations

import pytest

from coppice.reconcile.reads import read_last_line

POD = {"metadata": {"namespace": "data", "name": "prepare"}}


class Log:
    """A reader that has only a log."""

    def __init__(self, text):
        self.text = text

    async def log_tail(self, namespace, name, container, lines):
        del namespace, name, container, lines
        return self.text


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("", ""),
        ("one\ntwo\n", "two"),
        ("one\ntwo", "two"),
        ('one\n{"d": ["a\u2028b\u0085c"]}\n', '{"d": ["a\u2028b\u0085c"]}'),
    ],
)
async def test_a_report_is_the_last_line_whatever_a_name_in_it_is_made_of(text, last):
    assert await read_last_line(Log(text), POD) == last
