"""A stage of `make test` that lacks what it is about fails: nobody takes skipped tests for passed ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.fakes.required import REQUIRED, lacks

ROOT = Path(__file__).parents[3]


def test_without_being_asked_for_a_stage_is_skipped(monkeypatch):
    monkeypatch.delenv(REQUIRED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="no helm"):
        lacks("no helm")


def test_a_stage_that_was_asked_for_fails(monkeypatch):
    monkeypatch.setenv(REQUIRED, "1")
    with pytest.raises(pytest.fail.Exception, match="no helm"):
        lacks("no helm")


def test_make_asks_for_every_stage_that_needs_programs():
    makefile = (ROOT / "Makefile").read_text()
    asked = re.search(rf"^(.*): export {REQUIRED} := 1$", makefile, re.MULTILINE)
    assert asked is not None
    using = re.findall(r"^([a-z]+): venv ##.*\n\tassets=", makefile, re.MULTILINE)
    assert sorted(asked.group(1).split()) == sorted(using)
