"""How a change of a row is told, and what becomes of a row that both sides have changed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.engines.merging import Side
from coppice.engines.pgrows import Cells, Change, Merged, Tally, conflict, images, merge

OLD: Cells = {"id": "1", "name": "tea", "price": "5"}
RENAMED = {**OLD, "name": "té"}
DEARER = {**OLD, "price": "6"}
CHEAPER = {**OLD, "price": "4"}
UNKNOWN = {**OLD, "price": None}


def _open(place: str | None) -> Side | None:
    return None


def _source(place: str | None) -> Side | None:
    return "Source"


def _target(place: str | None) -> Side | None:
    return "Target"


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "expected"),
    [
        pytest.param(OLD, OLD, RENAMED, Merged(RENAMED), id="the source alone"),
        pytest.param(OLD, RENAMED, OLD, Merged(RENAMED), id="the target alone"),
        pytest.param(OLD, RENAMED, RENAMED, Merged(RENAMED), id="both the same"),
        pytest.param(OLD, RENAMED, DEARER, Merged({**RENAMED, "price": "6"}), id="two columns"),
        pytest.param(OLD, CHEAPER, DEARER, Merged(CHEAPER, ("price",)), id="one cell"),
        pytest.param(OLD, UNKNOWN, DEARER, Merged(UNKNOWN, ("price",)), id="NULL is a value"),
        pytest.param(OLD, {**OLD, "price": "5.0"}, DEARER, Merged({**OLD, "price": "5.0"}, ("price",)), id="digits"),
        pytest.param(OLD, None, DEARER, Merged(None, (None,)), id="deleted and changed"),
        pytest.param(OLD, CHEAPER, None, Merged(CHEAPER, (None,)), id="changed and deleted"),
        pytest.param(OLD, None, OLD, Merged(None), id="deleted by the target alone"),
        pytest.param(OLD, OLD, None, Merged(None), id="deleted by the source alone"),
        pytest.param(OLD, None, None, Merged(None), id="deleted by both"),
        pytest.param(None, None, OLD, Merged(OLD), id="added"),
        pytest.param(None, OLD, OLD, Merged(OLD), id="added by both alike"),
        pytest.param(None, OLD, DEARER, Merged(OLD, ("price",)), id="added by both"),
    ],
)
def test_a_row_is_merged_by_what_each_side_has_made_of_it(
    base: Cells | None, ours: Cells | None, theirs: Cells | None, expected: Merged
) -> None:
    assert merge(base, ours, theirs, _open) == expected


def test_a_decision_takes_one_side() -> None:
    assert merge(OLD, {**CHEAPER, "name": "té"}, DEARER, _source) == Merged({**RENAMED, "price": "6"}, (), ("price",))
    assert merge(OLD, CHEAPER, DEARER, _target) == Merged(CHEAPER, (), ("price",))
    assert merge(OLD, CHEAPER, None, _source) == Merged(None, (), (None,))
    assert merge(OLD, CHEAPER, None, _target) == Merged(CHEAPER, (), (None,))


def test_a_column_that_is_new_on_the_source_has_the_sources_value() -> None:
    assert merge(OLD, RENAMED, {**DEARER, "stock": "9"}, _open) == Merged({**RENAMED, "price": "6", "stock": "9"})


def test_a_conflict_is_named_the_same_everywhere_and_differently_for_each_request() -> None:
    one = conflict("salt", "Cell", "tea", {"id": "1"}, "price")
    assert one == conflict("salt", "Cell", "tea", {"id": "1"}, "price")
    others = [
        conflict("other", "Cell", "tea", {"id": "1"}, "price"),
        conflict("salt", "Row", "tea", {"id": "1"}, "price"),
        conflict("salt", "Cell", "coffee", {"id": "1"}, "price"),
        conflict("salt", "Cell", "tea", {"id": "2"}, "price"),
        conflict("salt", "Cell", "tea", {"id": "1"}, None),
    ]
    assert len({one.id, *(other.id for other in others)}) == 6
    assert one.row == others[4].row != others[3].row
    assert "'1'" not in repr(one)


def test_what_each_side_has_is_a_cell_or_the_row() -> None:
    assert images("price", (OLD, None, UNKNOWN)) == ("5", None, None)
    assert images(None, (OLD, None)) == (OLD, None)


def test_a_change_names_the_columns_that_it_sets_and_shows_no_value_of_its_own_accord() -> None:
    change = Change("tea", {"id": "1"}, OLD, {**UNKNOWN, "stock": "5"})
    assert (change.kind, change.columns) == ("Modified", ("price", "stock"))
    assert repr(change) == "Change(table='tea')"
    assert (change.row.key, change.row.kind, change.row.before) == ({"id": "1"}, "Modified", OLD)


def test_a_sum_of_changes_depends_on_all_of_them_and_not_on_their_order() -> None:
    changes = [
        Change("tea", {"id": "1"}, OLD, DEARER),
        Change("tea", {"id": "1"}, OLD, None),
        Change("tea", {"id": "1"}, None, UNKNOWN),
    ]
    assert _tallied(changes) == _tallied(changes[::-1])
    assert _tallied(changes).counts == {"Added": 1, "Modified": 1, "Deleted": 1}
    assert _tallied(changes).summary != _tallied([*changes[:2], Change("tea", {"id": "1"}, None, OLD)]).summary


def _tallied(changes: list[Change]) -> Tally:
    tally = Tally()
    for change in changes:
        tally.add(change)
    return tally


CELLS = st.sampled_from([None, "", "a", "b"])
ROWS = st.one_of(st.none(), st.fixed_dictionaries({"x": CELLS, "y": CELLS}))
SIDES = st.dictionaries(st.sampled_from([None, "x", "y"]), st.sampled_from(["Source", "Target"]))


@given(ROWS, ROWS, ROWS, SIDES)
def test_a_merge_is_one_of_the_rows_that_the_reference_allows(
    base: Cells | None, ours: Cells | None, theirs: Cells | None, sides: Mapping[str | None, Side]
) -> None:
    found = merge(base, ours, theirs, sides.get)
    row, disputed = _reference(base, ours, theirs, sides)
    assert found.row == row
    assert set(found.conflicts) == {place for place in disputed if place not in sides}
    assert set(found.decided) == {place for place in disputed if place in sides}


def _reference(
    base: Cells | None, ours: Cells | None, theirs: Cells | None, sides: Mapping[str | None, Side]
) -> tuple[Cells | None, set[str | None]]:
    """Merge a row as three sets of facts, (column, value), each of which is there or not."""
    if ours is None or theirs is None:
        changed = [side for side in (ours, theirs) if side != base]
        if len(changed) < 2 or changed[0] == changed[1]:
            return (changed or [base])[0], set()
        return (theirs if sides.get(None) == "Source" else ours), {None}
    facts = [set((row or {}).items()) for row in (base, ours, theirs)]
    kept = (facts[1] & facts[2]) | (facts[1] - facts[0]) | (facts[2] - facts[0])
    disputed = {name for name in ours if len({cell for key, cell in kept if key == name}) > 1}
    row = {name: (theirs if sides.get(name) == "Source" else ours)[name] for name in disputed}
    return {**{name: cell for name, cell in kept if name not in disputed}, **row}, set(disputed)


def _every_row() -> Iterator[Cells | None]:
    yield None
    for x, y in product([None, "a"], repeat=2):
        yield {"x": x, "y": y}


def test_without_conflicts_it_does_not_matter_who_merges_into_whom() -> None:
    for base, ours, theirs in product(_every_row(), repeat=3):
        found = merge(base, ours, theirs, _open)
        if not found.conflicts:
            assert found.row == merge(base, theirs, ours, _open).row


def test_many_short_cells_take_more_memory_than_their_text_is_long() -> None:
    wide: Cells = {f"column {number}": str(number % 10) for number in range(100)}
    assert Change("t", {"id": "1"}, wide, None).size > 100 * 40
    assert Change("t", {"id": "1"}, {"id": "1", "a": "茶" * 5000}, None).size > 2 * 5000
