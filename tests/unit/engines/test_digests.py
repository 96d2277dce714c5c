"""What a digest has of the rows of a table."""

from __future__ import annotations

from coppice.engines.digests import hashed, summary


def test_as_many_rows_of_each_kind_and_the_same_sum_are_the_same() -> None:
    counts = {"Added": 1, "Modified": 2, "Deleted": 3}
    assert hashed(summary(counts, 7)) == hashed(summary(dict(reversed(counts.items())), 7))


def test_the_same_sum_of_other_rows_is_not_if_there_are_more_or_others() -> None:
    one = {"Added": 1, "Modified": 2, "Deleted": 3}
    others = [{**one, "Added": 2}, {**one, "Added": 2, "Modified": 1}, {**one, "Added": 3, "Deleted": 1}]
    assert len({hashed(summary(counts, 7)) for counts in (one, *others)}) == 4


def test_sums_that_differ_above_256_bits_differ() -> None:
    counts = {"Added": 1, "Modified": 0, "Deleted": 0}
    assert summary(counts, 7) != summary(counts, 7 + (1 << 256))
