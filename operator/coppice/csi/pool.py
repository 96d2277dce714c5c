"""The pool: the btrfs file system in which all volumes and snapshots of this node live.

Where the pool directory itself lies on btrfs, the pool is a directory in it. Elsewhere it is an image file in the pool
directory, attached to a loop device and mounted. The mount outlives the driver (it is made under a directory that the
driver's Pod shares with the host), and is made again after a restart of the node.
"""

import errno
import fcntl
import logging
import os
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coppice.csi import btrfs, loop, mounts
from coppice.csi.quota import Quota, QuotaMode, enable_quota

_log = logging.getLogger(__name__)

_IMAGE = "pool.img"
_ROOT = "pool"
_LOCK = "lock"
_MKFS = "mkfs.btrfs"
_SECTOR = 4096  # btrfs uses whole sectors of its device


class PoolError(Exception):
    """The pool cannot be used; the message names it and the next step."""


@dataclass(frozen=True, kw_only=True)
class PoolSettings:
    """Where the pool is and how large.

    `size` (bytes) and `sparse` matter for an image only: a sparse image takes blocks from the host's file system as
    data come, and the pool breaks if they run out; otherwise they are reserved at once. `reserve` bytes are kept free:
    below that, nothing new is made. `quota` None means SIMPLE in an image of our own, elsewhere what is on already.
    """

    directory: Path
    size: int
    reserve: int
    sparse: bool = False
    quota: QuotaMode | None = None


@dataclass(frozen=True, kw_only=True)
class Pool:
    """An open pool; `root` is the directory of the mounted btrfs file system that is ours."""

    root: Path
    filesystem_id: uuid.UUID
    quota: Quota
    reserve: int
    image: Path | None

    def check(self) -> None:
        """Raise PoolError unless the pool is mounted, the file system we opened, and takes writes."""
        try:
            found = btrfs.filesystem_id(self.root)
        except OSError as error:
            raise PoolError(
                f"pool {self.root} cannot be read ({error}): restart the driver to mount it again"
            ) from error
        if found != self.filesystem_id:
            raise PoolError(f"pool {self.root} is not mounted any more: restart the driver to mount it again")
        self._check_writable()

    def total_bytes(self) -> int:
        """The size of the pool."""
        return _total(self.root)

    def free_bytes(self) -> int:
        """Bytes that can still be written, also counting what the host has left for a sparse image.

        The space of deleted volumes comes back when the kernel's cleaner has run, up to a minute later.
        """
        free = _available(self.root)
        if self.image is None:
            return free
        status = self.image.stat()
        not_yet_taken = max(0, status.st_size - status.st_blocks * 512)
        host = _available(self.image)
        return free if not_yet_taken <= host else min(free, host)

    def available_bytes(self) -> int:
        """Bytes for new volumes: what is free beyond the reserve."""
        return max(0, self.free_bytes() - self.reserve)

    def _check_writable(self) -> None:
        try:
            with_nothing_left_behind = os.open(self.root, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:  # a full pool must still serve deletions
                return
            raise PoolError(
                f"pool {self.root} takes no writes ({error}): look at the kernel's log for btrfs errors"
            ) from error
        os.close(with_nothing_left_behind)


@contextmanager
def opened(settings: PoolSettings) -> Iterator[Pool]:
    """The pool, made or mounted as needed, for one driver at a time; it stays mounted afterwards.

    Raises PoolError, or OSError naming the path.
    """
    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(settings.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, settings.directory)
        yield _open(settings)
    finally:
        os.close(descriptor)


def close(pool: Pool) -> None:
    """Unmount an image's pool; its loop device goes with the last mount. For tests and removal, not for a restart."""
    if pool.image is not None:
        mounts.unmount(pool.root)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.warning("waiting for another driver to let go of pool %s", directory)
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _open(settings: PoolSettings) -> Pool:
    image = settings.directory / _IMAGE
    root = settings.directory / _ROOT
    root.mkdir(mode=0o700, exist_ok=True)
    in_place = not image.exists() and btrfs.filesystem_id(settings.directory) is not None
    if not in_place:
        _make_image(image, settings)
        _mount_image(image, root, settings)
    found = btrfs.filesystem_id(root)
    if found is None:
        raise PoolError(f"{root} is not btrfs although {image} is mounted there: unmount what lies over it")
    wanted = settings.quota
    if wanted is None:
        wanted = QuotaMode.OFF if in_place else QuotaMode.SIMPLE
    mode = enable_quota(root, found, wanted=wanted)
    _log.info("pool %s: btrfs %s, quotas %s, %s", root, found, mode, "in place" if in_place else image)
    return Pool(
        root=root,
        filesystem_id=found,
        quota=Quota(root=root, filesystem_id=found, mode=mode),
        reserve=settings.reserve,
        image=None if in_place else image,
    )


def _make_image(image: Path, settings: PoolSettings) -> None:
    """Make the image, or let it grow; an image under its final name always holds a file system."""
    if not image.exists():
        draft = image.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        _allocate(draft, settings)
        _make_filesystem(draft)
        draft.rename(image)
    elif image.stat().st_size < settings.size:
        _allocate(image, settings)


def _allocate(image: Path, settings: PoolSettings) -> None:
    descriptor = os.open(image, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if settings.sparse:
            os.ftruncate(descriptor, settings.size)
        else:
            os.posix_fallocate(descriptor, 0, settings.size)
        os.fsync(descriptor)
    except OSError as error:
        raise PoolError(
            f"cannot make {image} {settings.size} bytes large ({error.strerror}): "
            f"free some space below {image.parent}, or choose a smaller pool or a sparse one"
        ) from error
    finally:
        os.close(descriptor)


def _make_filesystem(image: Path) -> None:
    # --nodiscard keeps the blocks that were reserved.
    command = [_MKFS, "--quiet", "--nodiscard", "--label", "coppice-local", str(image)]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - fixed program, our own path
    except FileNotFoundError as error:
        raise PoolError(f"{_MKFS} is missing: install btrfs-progs") from error
    except subprocess.CalledProcessError as error:
        raise PoolError(f"{_MKFS} refused {image}: {error.stderr.strip()}") from error


def _mount_image(image: Path, root: Path, settings: PoolSettings) -> None:
    with loop.attached(image) as device:
        mounted = mounts.at(mounts.read(), root)
        if mounted is None:
            options = "discard=async" if settings.sparse else "nodiscard"
            mounts.mount(str(device), root, filesystem="btrfs", flags=mounts.MS_NOATIME, data=options)
        elif mounted.source != str(device):
            raise PoolError(f"{mounted.source} is mounted at {root} where {device} ({image}) belongs: unmount it")
        _use_whole_image(image, device, root)


def _use_whole_image(image: Path, device: Path, root: Path) -> None:
    if _device_size(device) < image.stat().st_size:
        loop.grow(device)
    if _total(root) + _SECTOR <= _device_size(device):
        btrfs.resize_to_device(root)


def _device_size(device: Path) -> int:
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def _total(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def _available(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
