"""The mount table, as the kernel writes it."""

from pathlib import Path

import pytest

from coppice.csi import mounts

# Shortened from a node: the pool on a loop device, one volume published, a directory of another one, a deleted one.
TABLE = r"""
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
22 21 0:5 / /dev rw,nosuid shared:2 - devtmpfs devtmpfs rw,size=4096k
30 21 0:45 / /var/lib/coppice-local/pool rw,noatime shared:9 - btrfs /dev/loop0 rw,discard=async,subvolid=5,subvol=/
31 21 0:45 /volumes/vol-1 /var/lib/kubelet/pods/a/mount rw,noatime shared:9 - btrfs /dev/loop0 rw,subvol=/
32 21 0:45 /volumes/vol-2/sub\040path /var/lib/kubelet/pods/b/volume-subpaths/0 ro,noatime - btrfs /dev/loop0 rw
33 21 0:45 /volumes/vol-3//deleted /var/lib/kubelet/pods/c/mount rw shared:9 master:1 - btrfs /dev/loop0 rw
34 21 254:0 /volumes/vol-4 /elsewhere rw - ext4 /dev/vda rw
35 21 0:45 /volumes/vol-10 /var/lib/kubelet/pods/d/mount rw - btrfs /dev/loop0 rw
"""
POOL = Path("/var/lib/coppice-local/pool/volumes")


@pytest.fixture
def table() -> tuple[mounts.Mount, ...]:
    return mounts.parse_mountinfo(TABLE)


def test_reads_every_field(table: tuple[mounts.Mount, ...]) -> None:
    assert table[4] == mounts.Mount(
        device="0:45",
        root="/volumes/vol-2/sub path",
        mount_point="/var/lib/kubelet/pods/b/volume-subpaths/0",
        options=frozenset({"ro", "noatime"}),
        filesystem="btrfs",
        source="/dev/loop0",
    )
    assert table[4].read_only
    assert not table[3].read_only


@pytest.mark.parametrize(
    ("volume", "shown_at"),
    [
        ("vol-1", ["/var/lib/kubelet/pods/a/mount"]),
        ("vol-2", ["/var/lib/kubelet/pods/b/volume-subpaths/0"]),
        ("vol-3", ["/var/lib/kubelet/pods/c/mount"]),
        ("vol-4", []),
        ("vol-5", []),
    ],
)
def test_finds_where_a_volume_is_shown(table: tuple[mounts.Mount, ...], volume: str, shown_at: list[str]) -> None:
    assert [mount.mount_point for mount in mounts.of_directory(table, POOL / volume)] == shown_at


def test_finds_it_where_the_pool_is_a_directory_of_a_larger_file_system() -> None:
    table = mounts.parse_mountinfo(
        "21 1 0:30 /@ / rw - btrfs /dev/sda2 rw\n22 21 0:30 /@/data/pool/volumes/vol-1 /pods/a rw - btrfs /dev/sda2 rw\n"
    )
    assert [m.mount_point for m in mounts.of_directory(table, Path("/data/pool/volumes/vol-1"))] == ["/pods/a"]


def test_the_uppermost_of_several_mounts_counts() -> None:
    table = mounts.parse_mountinfo("21 1 8:1 / /a rw - ext4 /dev/x rw\n22 21 0:9 / /a rw - tmpfs none rw\n")
    found = mounts.at(table, Path("/a"))
    assert found is not None
    assert found.filesystem == "tmpfs"
    assert mounts.holding(table, Path("/a/b")).filesystem == "tmpfs"
    assert mounts.at(table, Path("/a/b")) is None


def test_a_name_that_only_begins_alike_is_another() -> None:
    table = mounts.parse_mountinfo("21 1 8:1 / / rw - ext4 /dev/x rw\n22 21 0:9 / /pool rw - btrfs /dev/y rw\n")
    assert mounts.holding(table, Path("/pool-2/a")).filesystem == "ext4"


def test_options_of_a_bind_mount() -> None:
    assert mounts.bind_flags(["ro", "nosuid"]) == mounts.MS_RDONLY | mounts.MS_NOSUID
    with pytest.raises(ValueError, match="'compress=zstd' cannot be set"):
        mounts.bind_flags(["noatime", "compress=zstd"])
