"""The pool: made once, found again after a restart of the driver or of the node, never mistaken for something else."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.csi.driver import MIB, Driver, started, unmount_below

from coppice.csi import btrfs, loop, mounts
from coppice.csi.identity import Identity
from coppice.csi.pool import PoolError, PoolSettings
from coppice.csi.proto import csi_pb2
from coppice.csi.quota import QuotaMode


def test_survives_a_restart_of_the_driver_while_pods_use_it(settings: PoolSettings, tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    with started(settings, targets) as first:
        volume = first.create("a")
        path = first.publish(volume)
        (path / "row").write_text("kept")
        device = loop.find(settings.directory / "pool.img")
    with (path / "row").open("a") as still_open, started(settings, targets) as second:
        still_open.write(" and written on")
        still_open.flush()
        assert second.listed() == [volume]
        assert (second.data(volume) / "row").read_text() == "kept and written on"
        assert loop.find(settings.directory / "pool.img") == device


def test_is_attached_and_mounted_again_after_a_restart_of_the_node(settings: PoolSettings, tmp_path: Path) -> None:
    with started(settings, tmp_path / "targets") as first:
        volume = first.create("a")
        (first.data(volume) / "row").write_text("kept")
    unmount_below(tmp_path)
    assert loop.find(settings.directory / "pool.img") is None
    with started(settings, tmp_path / "targets") as second:
        assert (second.publish(volume) / "row").read_text() == "kept"


def test_mounts_the_same_device_again_when_only_pods_still_hold_it(settings: PoolSettings, tmp_path: Path) -> None:
    with started(settings, tmp_path / "targets") as first:
        volume = first.create("a")
        path = first.publish(volume)
        device = loop.find(settings.directory / "pool.img")
    mounts.unmount(settings.directory / "pool")
    with started(settings, tmp_path / "targets") as second:
        (path / "row").write_text("one file system")
        assert (second.data(volume) / "row").read_text() == "one file system"
        assert loop.find(settings.directory / "pool.img") == device


def test_grows_with_its_size_and_never_shrinks(settings: PoolSettings, tmp_path: Path) -> None:
    with started(settings, tmp_path / "targets") as small:
        assert small.pool.total_bytes() == 512 * MIB
    with started(replace(settings, size=768 * MIB), tmp_path / "targets") as grown:
        assert grown.pool.total_bytes() == 768 * MIB
    with started(settings, tmp_path / "targets") as asked_smaller:
        assert asked_smaller.pool.total_bytes() == 768 * MIB


def test_a_dense_image_keeps_its_blocks(settings: PoolSettings, tmp_path: Path) -> None:
    dense = replace(settings, size=160 * MIB, sparse=False)
    with started(dense, tmp_path / "targets") as driver:
        btrfs.sync(driver.pool.root)
        assert (dense.directory / "pool.img").stat().st_blocks * 512 >= 160 * MIB


def test_an_image_that_was_never_finished_is_made_anew(settings: PoolSettings, tmp_path: Path) -> None:
    settings.directory.mkdir()
    (settings.directory / "pool.draft").write_bytes(b"half of a file system")
    with started(settings, tmp_path / "targets") as driver:
        assert driver.create("a") in driver.listed()


def test_an_image_too_large_for_the_host_is_refused(settings: PoolSettings, tmp_path: Path) -> None:
    huge = replace(settings, size=2**50, sparse=False)
    with pytest.raises(PoolError, match="choose a smaller pool"), started(huge, tmp_path / "targets"):
        pass
    assert not (settings.directory / "pool.img").exists()


def test_lies_in_place_where_the_directory_is_on_btrfs(driver: Driver, tmp_path: Path) -> None:
    inner = PoolSettings(directory=driver.pool.root / "inner", size=512 * MIB, reserve=MIB)
    with started(inner, tmp_path / "inner-targets") as in_place:
        assert in_place.pool.image is None
        assert in_place.pool.quota.mode is QuotaMode.SIMPLE  # as it was on
        volume = in_place.create("a")
        path = in_place.publish(volume)
        with pytest.raises(Exception, match="is mounted at"):
            in_place.delete(volume)
        in_place.unpublish(volume, path)
        in_place.delete(volume)
        assert in_place.subvolumes() == set()


def test_finds_a_device_whose_node_is_missing(settings: PoolSettings) -> None:
    """As in a container, whose /dev does not grow when the kernel adds a loop device."""
    script = """
import os, stat, sys
from pathlib import Path
from coppice.csi import mounts, pool
from coppice.csi.pool import PoolSettings
control = os.stat("/dev/loop-control").st_rdev
mounts.mount("none", Path("/dev"), filesystem="tmpfs")
os.mknod("/dev/loop-control", 0o600 | stat.S_IFCHR, control)
with pool.opened(PoolSettings(directory=Path(sys.argv[1]), size=160 * 2**20, reserve=0, sparse=True)) as opened:
    opened.check()
    print(opened.total_bytes())
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["unshare", "--mount", sys.executable, "-c", script, str(settings.directory)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout.strip()) == (0, str(160 * MIB)), result.stderr


def test_probe_notices_that_the_pool_is_not_mounted_any_more(driver: Driver) -> None:
    identity = Identity(driver.pool)
    assert identity.probe(csi_pb2.ProbeRequest()).ready.value
    mounts.unmount(driver.pool.root)
    with pytest.raises(Exception, match="is not mounted any more: restart the driver"):
        identity.probe(csi_pb2.ProbeRequest())


def test_probe_notices_a_pool_that_takes_no_writes(driver: Driver) -> None:
    mounts.mount("none", driver.pool.root, flags=mounts.MS_REMOUNT | mounts.MS_RDONLY)
    with pytest.raises(Exception, match="takes no writes"):
        Identity(driver.pool).probe(csi_pb2.ProbeRequest())


def test_another_file_system_in_the_pools_place_is_refused(settings: PoolSettings, tmp_path: Path) -> None:
    with started(settings, tmp_path / "targets"):
        pass
    unmount_below(tmp_path)
    mounts.mount("none", settings.directory / "pool", filesystem="tmpfs")
    with pytest.raises(PoolError, match="unmount it"), started(settings, tmp_path / "targets"):
        pass


def test_arguments_of_the_kernels_size_go_through(driver: Driver) -> None:
    """fcntl.ioctl takes at most 1024 bytes of an immutable argument; a name of 255 bytes lies in a structure of 4096."""
    path = driver.pool.root / ("n" * 255)
    btrfs.create_subvolume(path)
    assert btrfs.is_subvolume(path)
    btrfs.destroy_subvolume(path)
    with pytest.raises(OSError) as refused:
        btrfs.create_subvolume(driver.pool.root / ("n" * 256))
    assert refused.value.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_pool_without_a_free_byte_is_still_healthy(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A restart would not help, and deletions must go on."""
    really_open = os.open

    def refuse_temporary_files(path: object, flags: int, *arguments: object, **named: object) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(number, os.strerror(number))
        return really_open(path, flags, *arguments, **named)  # type: ignore[arg-type, misc]

    monkeypatch.setattr(os, "open", refuse_temporary_files)
    driver.pool.check()
