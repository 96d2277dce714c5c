"""The catalogue's files."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.csi.catalog import (
    CatalogError,
    Shelf,
    SnapshotRecord,
    Source,
    SourceKind,
    State,
    VolumeRecord,
    decode_snapshot,
    decode_volume,
    encode,
)

SOURCES = st.none() | st.builds(Source, kind=st.sampled_from(SourceKind), id=st.text())
VOLUMES = st.builds(
    VolumeRecord,
    id=st.text(),
    name=st.text(),
    state=st.sampled_from(State),
    capacity=st.integers(),
    source=SOURCES,
    own_bytes=st.none() | st.integers(),
    own_bytes_headroom=st.integers(),
)
SNAPSHOTS = st.builds(
    SnapshotRecord,
    id=st.text(),
    name=st.text(),
    state=st.sampled_from(State),
    source_volume_id=st.text(),
    size=st.integers(),
    created_at=st.integers(),
)


def volume(identifier: str, state: State = State.READY) -> VolumeRecord:
    return VolumeRecord(id=identifier, name="n", state=state, capacity=1)


@given(VOLUMES)
def test_volumes_come_back_as_they_were(record: VolumeRecord) -> None:
    assert decode_volume(encode(record)) == record


@given(SNAPSHOTS)
def test_snapshots_come_back_as_they_were(record: SnapshotRecord) -> None:
    assert decode_snapshot(encode(record)) == record


def test_records_are_there_after_a_restart_in_the_order_of_their_ids(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, decode_volume)
    for identifier in ("b", "a", "c"):
        shelf.put(volume(identifier))
    shelf.remove("c")
    assert [record.id for record in Shelf(tmp_path, decode_volume).all()] == ["a", "b"]


def test_only_what_is_ready_is_shown_outside(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, decode_volume)
    record = volume("a", State.CREATING)
    shelf.put(record)
    assert shelf.ready("a") is None
    shelf.set_state(record, State.READY)
    assert shelf.ready("a") is not None


def test_a_half_written_record_is_not_one(tmp_path: Path) -> None:
    (tmp_path / "a.draft").write_text('{"id": ')
    assert Shelf(tmp_path, decode_volume).all() == ()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"id": "a"}', encode(volume("another"))], ids=repr)
def test_a_broken_record_stops_the_driver_and_is_named(tmp_path: Path, text: str) -> None:
    """Going on without it would let its name be taken, or its data be made anew."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(CatalogError, match=str(path)):
        Shelf(tmp_path, decode_volume)
