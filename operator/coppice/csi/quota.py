"""How much each subvolume occupies, and how much it may: btrfs quota groups.

Simple quotas (kernel 6.7 and later) charge an extent to the subvolume that wrote it, at next to no cost: the usage of a
copy is what it wrote itself. Full quota groups, the fallback, know shared and exclusive bytes. Both are read from sysfs
(/sys/fs/btrfs/<id>/qgroups) and set by ioctl. Figures follow the file system's commits and
may lag by its commit interval.
"""

import errno
import struct
import uuid
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from coppice.csi import btrfs, ioctls

_MAGIC = 0x94
_QUOTA_CTL_ARGS = struct.Struct("=QQ")
_LIMIT_ARGS = struct.Struct("=Q5Q")

_QUOTA_CTL = ioctls.iowr(_MAGIC, 40, _QUOTA_CTL_ARGS.size)
_QGROUP_LIMIT = ioctls.ior(_MAGIC, 43, _LIMIT_ARGS.size)
_QUOTA_RESCAN_WAIT = ioctls.io(_MAGIC, 46)

_ENABLE = 1
_ENABLE_SIMPLE = 4  # btrfs-progs know it from 6.7 on
_MAX_REFERENCED = 1 << 0
_MAX_EXCLUSIVE = 1 << 1
_NO_LIMIT = 2**64 - 1

_SYSFS = Path("/sys/fs/btrfs")


class QuotaMode(StrEnum):
    """How the file system counts; OFF means that no limit can be set and no usage be told."""

    OFF = "off"
    SIMPLE = "simple"
    FULL = "full"


_MODES = {"disabled": QuotaMode.OFF, "squota": QuotaMode.SIMPLE, "qgroup": QuotaMode.FULL}


@dataclass(frozen=True)
class Quota:
    """The quota groups of one file system, mounted at `root`."""

    root: Path
    filesystem_id: uuid.UUID
    mode: QuotaMode

    def own_bytes(self, subvolume: Path) -> int | None:
        """Bytes that `subvolume` occupies by itself, not shared with others; None where quotas are off."""
        if self.mode is QuotaMode.OFF:
            return None
        figure = "referenced" if self.mode is QuotaMode.SIMPLE else "exclusive"
        group = _sysfs(self.filesystem_id) / f"0_{btrfs.subvolume_id(subvolume)}"
        return int((group / figure).read_text())

    def limit_own_bytes(self, subvolume: Path, limit: int | None) -> None:
        """Bound what `subvolume` may occupy by itself to `limit` bytes; None lifts the bound."""
        value = _NO_LIMIT if limit is None else limit
        if self.mode is QuotaMode.SIMPLE:
            arguments = (_MAX_REFERENCED, value, 0, 0, 0)
        else:
            arguments = (_MAX_EXCLUSIVE, 0, value, 0, 0)
        packed = bytearray(_LIMIT_ARGS.pack(btrfs.subvolume_id(subvolume), *arguments))
        with ioctls.opened(self.root) as descriptor:
            ioctls.call(descriptor, _QGROUP_LIMIT, packed)


def read_mode(filesystem_id: uuid.UUID) -> QuotaMode:
    """How the file system counts now."""
    groups = _sysfs(filesystem_id)
    if not groups.exists():
        return QuotaMode.OFF
    try:
        return _MODES[(groups / "mode").read_text().strip()]
    except FileNotFoundError:  # before Linux 6.7 there was one mode only
        return QuotaMode.FULL


def enable_quota(root: Path, filesystem_id: uuid.UUID, *, wanted: QuotaMode) -> QuotaMode:
    """Turn quotas on unless they are; `wanted` SIMPLE falls back to FULL on older kernels. Returns what counts now."""
    current = read_mode(filesystem_id)
    if current is not QuotaMode.OFF or wanted is QuotaMode.OFF:
        return current
    if wanted is QuotaMode.SIMPLE and _enable(root, _ENABLE_SIMPLE):
        return QuotaMode.SIMPLE
    _enable(root, _ENABLE)
    with ioctls.opened(root) as descriptor:
        ioctls.call(descriptor, _QUOTA_RESCAN_WAIT, bytearray())
    return QuotaMode.FULL


def limit_at_start(own_bytes: int, headroom: int, used: int) -> int:
    """The bound for a volume that is about to be published: `own_bytes`, or enough above `used` for a server to start.

    A server whose volume is full to its bound cannot even write its lock file and would crash for ever. Each
    publication therefore finds `headroom` bytes free; the bound returns to `own_bytes` once the volume holds less.
    """
    return max(own_bytes, used + headroom)


def _enable(root: Path, command: int) -> bool:
    """Whether the kernel knows this kind of quota."""
    try:
        with ioctls.opened(root) as descriptor:
            ioctls.call(descriptor, _QUOTA_CTL, bytearray(_QUOTA_CTL_ARGS.pack(command, 0)))
    except OSError as error:
        if command == _ENABLE_SIMPLE and error.errno in {errno.EINVAL, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def _sysfs(filesystem_id: uuid.UUID) -> Path:
    return _SYSFS / str(filesystem_id) / "qgroups"
