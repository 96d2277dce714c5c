"""Tests here mount and unmount: they do so in a mount namespace of their own, which takes every mount away with it."""

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.csi.driver import MIB, Driver, started, unmount_below
from tests.fakes.required import lacks

from coppice.csi import mounts
from coppice.csi.pool import PoolSettings

_CLONE_NEWNS = 0x20000
_MS_REC = 1 << 14
_MS_PRIVATE = 1 << 18


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.csi)


@pytest.fixture(scope="session", autouse=True)
def _mount_namespace() -> None:
    if os.geteuid() != 0:
        lacks('mounting needs root: run it as root, as in `sudo env "PATH=$PATH" "HOME=$HOME" make csi`')
    if "btrfs" not in Path("/proc/filesystems").read_text():
        lacks("this kernel has no btrfs: `modprobe btrfs`, or run it on a machine whose kernel has it")
    if shutil.which("mkfs.btrfs") is None:
        lacks("mkfs.btrfs is missing: install btrfs-progs")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0:
        lacks(f"no mount namespace can be made here: {os.strerror(ctypes.get_errno())}")
    mounts.mount("none", Path("/"), flags=_MS_REC | _MS_PRIVATE)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[PoolSettings]:
    yield PoolSettings(directory=tmp_path / "pool", size=512 * MIB, reserve=32 * MIB, sparse=True)
    unmount_below(tmp_path)
    shutil.rmtree(tmp_path)


@pytest.fixture
def driver(settings: PoolSettings, tmp_path: Path) -> Iterator[Driver]:
    with started(settings, tmp_path / "targets") as running:
        yield running
