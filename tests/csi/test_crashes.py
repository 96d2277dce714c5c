"""The driver killed, or the power cut, before each step of each call: nothing is lost and nothing is left over."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.csi.driver import MIB, Driver, started, unmount_below

from coppice.csi import btrfs
from coppice.csi.catalog import State
from coppice.csi.pool import PoolSettings
from coppice.csi.proto import csi_pb2

# What Python's audit hooks (PEP 578) tell of the calls that change a file system.
_CHANGING = {"fcntl.ioctl", "os.rename", "os.remove", "os.chmod", "os.chown", "os.mkdir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Given:
    """What was there, and acknowledged, before the call that is interrupted."""

    store: str
    snapshot: str
    other: str


@dataclass(frozen=True)
class Case:
    """A call to interrupt, what must be true once it was repeated, and whether it spares the other volume and snapshot."""

    call: Callable[[Driver, Given], object]
    outcome: Callable[[Driver, Given], bool]
    keeps_other: bool = True
    keeps_snapshot: bool = True


def _expand(driver: Driver, given: Given) -> None:
    grown = csi_pb2.CapacityRange(required_bytes=128 * MIB)
    driver.controller.controller_expand_volume(
        csi_pb2.ControllerExpandVolumeRequest(volume_id=given.store, capacity_range=grown)
    )


def _is_empty_and_open(driver: Driver) -> bool:
    path = driver.data(driver.create("new"))
    return not list(path.iterdir()) and path.stat().st_mode & 0o777 == 0o777


def _holds_the_row(path: Path) -> bool:
    return (path / "row").read_text() == "precious"


CASES = {
    "create": Case(lambda driver, _: driver.create("new"), lambda driver, _: _is_empty_and_open(driver)),
    "restore": Case(
        lambda driver, given: driver.create("new", snapshot=given.snapshot),
        lambda driver, given: _holds_the_row(driver.data(driver.create("new", snapshot=given.snapshot))),
    ),
    "clone": Case(
        lambda driver, given: driver.create("new", volume=given.store),
        lambda driver, given: _holds_the_row(driver.data(driver.create("new", volume=given.store))),
    ),
    "snapshot": Case(
        lambda driver, given: driver.snapshot("new", given.store),
        lambda driver, given: _holds_the_row(driver.snapshot_data(driver.snapshot("new", given.store))),
    ),
    "delete": Case(
        lambda driver, given: driver.delete(given.other),
        lambda driver, given: given.other not in driver.subvolumes(),
        keeps_other=False,
    ),
    "delete snapshot": Case(
        lambda driver, given: driver.delete_snapshot(given.snapshot),
        lambda driver, given: given.snapshot not in driver.subvolumes(),
        keeps_snapshot=False,
    ),
    "expand": Case(
        _expand,
        lambda driver, given: driver.volumes.volumes.get(given.store).capacity == 128 * MIB,  # type: ignore[union-attr]
    ),
}


def _killed_before(step: int) -> Callable[[str, tuple[object, ...]], None]:
    """An audit hook that kills this process as it is about to make its n-th change, counted from 1."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        opens_for_writing = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING
        if event in _CHANGING or opens_for_writing:
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def _interrupted(settings: PoolSettings, targets: Path, given: Given, case: Case, step: int) -> bool:
    """Run the case in a process of its own that dies before `step`; False if it had no so many steps."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with started(settings, targets) as driver:
                sys.addaudithook(_killed_before(step))
                case.call(driver, given)
                code = 0
                os._exit(code)
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    assert status in {0, signal.SIGKILL}, f"step {step}: the call failed"
    return status == signal.SIGKILL


def _cut_power(settings: PoolSettings) -> None:
    """Put the pool into the state its device is in at this moment, without what the file system has yet to write."""
    image = settings.directory / "pool.img"
    as_it_is = settings.directory / "copy"
    _copy_sparse(image, as_it_is)
    unmount_below(settings.directory)
    as_it_is.replace(image)


def _copy_sparse(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        size = os.fstat(reader.fileno()).st_size
        writer.truncate(size)
        position = 0
        while position < size:
            try:
                start = os.lseek(reader.fileno(), position, os.SEEK_DATA)
            except OSError:  # ENXIO: only holes follow
                return
            position = os.lseek(reader.fileno(), start, os.SEEK_HOLE)
            reader.seek(start)
            writer.seek(start)
            shutil.copyfileobj(_Part(reader, position - start), writer)


class _Part:
    """The next `size` bytes of a file, to be read."""

    def __init__(self, file: object, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


@pytest.fixture
def small(settings: PoolSettings) -> PoolSettings:
    return replace(settings, size=256 * MIB, reserve=MIB)


@pytest.fixture
def given(small: PoolSettings, tmp_path: Path) -> Iterator[Given]:
    with started(small, tmp_path / "targets") as driver:
        store, other = driver.create("store"), driver.create("other")
        for volume in (store, other):
            _write_durably(driver.data(volume) / "row", "precious")
        btrfs.create_subvolume(driver.data(other) / "nested")
        btrfs.create_subvolume(driver.data(other) / "nested" / "deeper")
        result = Given(store, driver.snapshot("s", store), other)
        btrfs.sync(driver.pool.root)
    return result


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


@pytest.mark.parametrize("power_cut", [False, True], ids=["killed", "power cut"])
@pytest.mark.parametrize("name", CASES)
def test_interrupted_before_each_step(
    name: str, *, power_cut: bool, small: PoolSettings, given: Given, tmp_path: Path
) -> None:
    case = CASES[name]
    targets = tmp_path / "targets"
    unmount_below(tmp_path)
    image = small.directory / "pool.img"
    pristine = tmp_path / "pristine"
    _copy_sparse(image, pristine)
    step, more = 0, True
    while more:
        step += 1
        more = _interrupted(small, targets, given, case, step)
        if power_cut:
            _cut_power(small)
        with started(small, targets) as driver:
            _check_consistent(driver, given, case)
            before = driver.subvolumes()
            case.call(driver, given)
            assert more or driver.subvolumes() == before, "what was acknowledged had to be done again"
            assert case.outcome(driver, given), f"step {step}"
            driver.volumes.drop_deleted_records()
            _check_consistent(driver, given, case)
        unmount_below(tmp_path)
        _copy_sparse(pristine, image)
    assert step > 2, "nothing was interrupted"


def _check_consistent(driver: Driver, given: Given, case: Case) -> None:
    """Catalogue and pool name the same objects, each of them whole, and what was acknowledged is there."""
    records = [*driver.volumes.volumes.all(), *driver.volumes.snapshots.all()]
    assert {record.state for record in records} == {State.READY}
    assert {record.id for record in records} == driver.subvolumes()
    assert _holds_the_row(driver.data(given.store))
    if case.keeps_other:
        assert _holds_the_row(driver.data(given.other))
    if case.keeps_snapshot:
        assert _holds_the_row(driver.snapshot_data(given.snapshot))


@pytest.mark.parametrize("forgetting", ["in the background", "in recovery"])
def test_a_deletion_is_on_disk_before_its_record_is_dropped(
    forgetting: str, small: PoolSettings, given: Given, tmp_path: Path
) -> None:
    """Otherwise a power cut could bring back a subvolume that no record names, and nothing would ever remove it."""
    with started(small, tmp_path / "targets") as driver:
        if forgetting == "in recovery":
            record = driver.volumes.volumes.ready(given.other)
            assert record is not None
            driver.volumes.volumes.set_state(record, State.DELETING)
            driver.volumes.recover()
        else:
            driver.delete(given.other)
            driver.volumes.drop_deleted_records()
        _expand(driver, given)  # puts the catalogue's directory on disk, and nothing else
    _cut_power(small)
    with started(small, tmp_path / "targets") as driver:
        assert driver.subvolumes() == {given.store, given.snapshot}
