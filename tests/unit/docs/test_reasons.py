"""Whoever meets a reason finds it in docs/operations.md, and finds none there that nothing gives."""

from __future__ import annotations

import re

import pytest
from tests.unit.docs.reasons import ROOT, all_reasons, reasons_in

OPERATIONS = ROOT / "docs/operations.md"


def documented() -> set[str]:
    """Return the reasons in the first column of the tables under the heading "Reasons"."""
    section = OPERATIONS.read_text().split("\n## Reasons\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_every_reason_is_explained():
    assert all_reasons() - documented() == set()


def test_every_explained_reason_exists():
    assert documented() - all_reasons() == set()


@pytest.mark.parametrize(
    "source",
    [
        'stalls(KIND, "TooBad", "message")',
        'Wait("TooBad", "message", stalled=True)',
        'NoStorage(reason="TooBad", message="message")',
        '_condition(KIND, None, "TooBad", "message")',
        '{"type": "Ready", "reason": "TooBad"}',
        'waits(KIND, "TooBad" if worse else "TooBad", message)',
    ],
)
def test_a_reason_is_found_however_it_is_given(source):
    assert reasons_in(source) == {"TooBad"}


def test_a_reason_put_together_at_run_time_is_refused():
    with pytest.raises(AssertionError, match="put together"):
        reasons_in('stalls(KIND, f"No{thing}", "message")')
