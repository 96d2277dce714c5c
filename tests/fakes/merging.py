"""An engine that merges, as far as those who only ask whether it does have to know."""

from __future__ import annotations

from typing import NoReturn

from tests.fakes.engine import FakeEngine

from coppice.engines.merging import MergingEngine

MEMBERS = ("log", "commits_between", "merge_base", "changes", "rows", "merge", "conflicts", "assertions")


def let_merge(engine: FakeEngine) -> None:
    """Make an engine one that merges."""
    for name in MEMBERS:
        setattr(engine, name, _not_asked_for)
    setattr(engine, "remotes_port", engine.port + 1)  # noqa: B010 - the type does not have it
    assert isinstance(engine, MergingEngine)


def _not_asked_for(*_: object) -> NoReturn:
    raise AssertionError("nobody is to merge here")
