"""Quantities: exact, and in the suffixes Kubernetes knows."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.core.quantities import format_bytes, parse_quantity, quantity_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("512Mi", Decimal(512 * 2**20)),
        ("20Gi", Decimal(20 * 2**30)),
        ("1.5G", Decimal(1_500_000_000)),
        ("500m", Decimal("0.5")),
        ("4", Decimal(4)),
        (1073741824, Decimal(2**30)),
        ("1e3", Decimal(1000)),
        ("2E", Decimal(2 * 10**18)),
        (".5", Decimal("0.5")),
        ("100n", Decimal("1e-7")),
        ("8Ei", Decimal(2**63)),
    ],
)
def test_parse(text, value):
    assert parse_quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "1GiB", "1KB", "1e", "1Mi\n", "0x1"])
def test_refused(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


def test_bytes_round_up_because_a_volume_must_not_be_too_small():
    assert quantity_bytes("0.1Ki") == 103


def test_format_uses_the_largest_exact_suffix():
    assert format_bytes(20 * 2**30) == "20Gi"
    assert format_bytes(2**30 + 2**20) == "1025Mi"
    assert format_bytes(1000) == "1000"
    assert format_bytes(0) == "0"


@given(st.integers(min_value=0, max_value=2**63))
def test_round_trip(count):
    assert quantity_bytes(format_bytes(count)) == count
