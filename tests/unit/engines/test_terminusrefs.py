"""Tags of TerminusDB, which are branches whose names say so."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.engines.terminusrefs import states, tag_branch, tags


def branch(name: str, head: str = "ValidCommit/c1") -> dict[str, str]:
    return {"@id": f"Branch/{name}", "@type": "Branch", "name": name, "head": head}


@given(st.text(min_size=1, max_size=40), st.integers(0, 4_000_000_000))
def test_every_name_of_a_tag_is_a_branchs_and_comes_back(name: str, at: int) -> None:
    written = tag_branch(name, at)
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", written)
    [found] = tags([branch(written)])
    assert (found.name, found.commit, found.at) == (name, "c1", datetime.fromtimestamp(at, UTC))
    assert states("shop", [branch(written)]) == []


@pytest.mark.parametrize(
    "name", ["coppice-tag", "coppice-tag.v1", "coppice-tag.v1.x", "coppice-tag.a/b.1", "xcoppice-tag.v1.1"]
)
def test_what_only_looks_like_a_tag_is_a_branch(name: str) -> None:
    assert tags([branch(name)]) == []
    assert [state.branch for state in states("shop", [branch(name)])] == [name]


def test_tags_are_found_by_what_their_names_begin_with() -> None:
    names = ("coppice/deleted/b_/1", "coppice/deleted/bx/1", "v1")
    documents = [branch("main"), *(branch(tag_branch(name, 7)) for name in names), {"name": "new"}]
    assert [tag.name for tag in tags(documents, "coppice/deleted/b_/")] == ["coppice/deleted/b_/1"]
    assert [tag.name for tag in tags(documents)] == sorted(names)
    assert [state.branch for state in states("shop", documents)] == ["main"]
