"""The parts of TerminusDB's merges that ask nobody: numbers, schemas, what commits say."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.engines.merging import MergingEngine
from coppice.engines.terminusdb import TerminusDBEngine
from coppice.engines.terminushistory import Commit, ancestors, base_of, read, said, squashed
from coppice.engines.terminusjson import canonical, decoded, encoded
from coppice.engines.terminusschema import TighterError, loosened, merged, statements

THING = {"@id": "T", "@type": "Class", "id": "xsd:string", "a": "xsd:integer"}


def test_it_is_an_engine_that_merges() -> None:
    assert isinstance(TerminusDBEngine(), MergingEngine)


class TestNumbers:
    @pytest.mark.parametrize(
        "text", ["0.1000000000000000000000000001", "1e400", "-0.0", "12345678901234567890123", "2.50"]
    )
    def test_they_keep_their_digits(self, text: str) -> None:
        told = encoded(decoded(f'{{"n": [{text}, "{text}"]}}'.encode())).decode()
        assert Decimal(json.loads(told, parse_float=Decimal, parse_int=Decimal)["n"][0]) == Decimal(text)
        assert f'"{text}"' in told

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    )
    def test_all_else_is_as_json_has_it(self, value: Any) -> None:
        assert decoded(encoded(value)) == value

    @pytest.mark.parametrize("same", [("2", "2.00"), ("1e3", "1000"), ("0", "-0.0"), ("1e999999999", "10e999999998")])
    def test_equal_ones_are_the_same(self, same: tuple[str, str]) -> None:
        one, other = (canonical(decoded(text.encode())) for text in same)
        assert one == other

    @pytest.mark.parametrize("other", [("2", '"2"'), ("1", "true"), ("0", "null"), ("[]", "{}"), ("100", "1")])
    def test_what_only_looks_like_one_is_another(self, other: tuple[str, str]) -> None:
        one, two = (json.dumps(canonical(decoded(text.encode()))) for text in other)
        assert one != two


class TestSchemas:
    def test_what_one_side_changes_is_taken(self) -> None:
        ours = {"T": {**THING, "b": "xsd:string"}}
        theirs = {"T": {**THING, "c": "xsd:string"}, "U": {"@id": "U", "@type": "Class"}}
        found = merged({"T": THING}, ours, theirs)
        assert found.clashes == []
        assert found.schema == {"T": {**THING, "b": "xsd:string", "c": "xsd:string"}, "U": theirs["U"]}

    @pytest.mark.parametrize(
        ("ours", "theirs", "words"),
        [
            ({"T": {**THING, "a": "xsd:string"}}, {"T": {**THING, "a": "xsd:decimal"}}, "changed a"),
            ({}, {"T": {**THING, "a": "xsd:decimal"}}, "dropped the class"),
            ({"T": THING, "U": {"x": "1"}}, {"T": THING, "U": {"y": "1"}}, "both sides have made"),
        ],
    )
    def test_what_both_do_differently_is_named(self, ours: Any, theirs: Any, words: str) -> None:
        [clash] = merged({"T": THING}, ours, theirs).clashes
        assert words in clash.detail

    def test_it_is_loosened_for_the_documents_of_both(self) -> None:
        new = {"T": {"@id": "T", "@type": "Class", "id": "xsd:string", "b": "xsd:string"}}
        known = loosened({"T": THING}, new)["T"]
        assert known == {
            "@id": "T",
            "@type": "Class",
            "id": "xsd:string",
            "a": {"@type": "Optional", "@class": "xsd:integer"},
            "b": {"@type": "Optional", "@class": "xsd:string"},
        }
        with pytest.raises(TighterError, match=r"T\.a"):
            loosened({"T": THING}, {"T": {**THING, "a": "xsd:string"}})

    def test_changes_are_told_one_by_one(self) -> None:
        new = {"T": {"@id": "T", "@type": "Class", "id": "xsd:token", "b": "xsd:string"}, "U": {"@id": "U"}}
        assert statements({"T": THING, "V": {}, "@context": {}}, {**new, "@context": {"@base": "x"}}) == [
            'ALTER prefixes ADD @base "x"',
            "ALTER class T DROP a",
            'ALTER class T ADD b "xsd:string"',
            'ALTER class T CHANGE id FROM "xsd:string" TO "xsd:token"',
            'ADD class U {"@id": "U"}',
            "DROP class V",
        ]


def _entry(name: str, message: str, parent: str | None = None, user: str = "admin") -> dict[str, Any]:
    return {
        "identifier": name,
        "author": "Ann <ann@example.org>",
        "message": message,
        "timestamp": float(len(name)),
        "user": f"terminusdb://system/data/User/{user}",
        **({"parent": f"ValidCommit/{parent}"} if parent else {}),
    }


class TestCommits:
    def test_a_merge_says_what_it_merges_and_a_step_that_it_is_one(self) -> None:
        last = read(_entry("r", said("Prices\n", "t", "s", last=True), "step"))
        assert (last.parents, last.message, last.author, last.email) == (("t", "s"), "Prices", "Ann", "ann@example.org")
        step = read(_entry("x", said("Prices", "t", "s", last=False), "t"))
        assert (step.parents, step.step, step.message) == (("t",), True, "Prices")

    def test_a_squash_says_of_what_it_is_one_and_comes_from_nothing(self) -> None:
        found = read(_entry("r", squashed("Squash of data/shop at c", "c", "4b1c-8a9e")))
        assert (found.squash, found.parents, found.message) == (("c", "4b1c-8a9e"), (), "Squash of data/shop at c")
        assert (found.merged, found.step) == (None, False)
        assert read(_entry("r", squashed("Mine", "c", "4b1c-8a9e"), user="app")).squash is None
        assert read(_entry("r", said("Prices", "t", "s", last=True), "p")).squash is None
        assert base_of({"r": found, "c": read(_entry("c", "old"))}, "r", "c") is None

    @pytest.mark.parametrize(
        ("message", "user"),
        [
            (said("Prices", "t", "s", last=True), "app"),
            (said("Prices", "t", "s", last=True), "notadmin/admin2"),
            ("Coppice-Merge: t s", "admin"),
            ("x\n\nCoppice-Merge: t s\nand more", "admin"),
            ("x\n\nCoppice-Merge: t", "admin"),
        ],
    )
    def test_in_anybody_elses_words_it_says_nothing(self, message: str, user: str) -> None:
        found = read(_entry("r", message, "p", user))
        assert (found.parents, found.message) == (("p",), message)

    def test_what_was_merged_is_an_ancestor_although_it_is_elsewhere(self) -> None:
        def commit(name: str, parent: str | None, merged: tuple[str, str] | None = None, time: float = 0) -> Commit:
            return Commit(name, parent, merged, step=False, author="", email="", time=time, message="")

        commits = {
            each.id: each
            for each in (
                commit("root", None),
                commit("ours", "root", time=1),
                commit("theirs", "root", time=2),
                commit("merge", "ours", ("ours", "theirs"), time=3),
                commit("more", "theirs", time=4),
            )
        }
        assert base_of(commits, "merge", "more") == "theirs"
        assert base_of(commits, "ours", "more") == "root"
        elsewhere = {name: each for name, each in commits.items() if name != "theirs"}
        assert "theirs" in ancestors(elsewhere, "merge")
        assert base_of({"a": commit("a", None)}, "a", "b") is None
