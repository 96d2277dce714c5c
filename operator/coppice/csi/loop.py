"""Loop devices: a block device made of a file.

The interface is that of loop(4) and include/uapi/linux/loop.h. The device node is made where it is missing: inside a
container, /dev does not grow by itself when the kernel adds a loop device.
"""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coppice.csi import ioctls

_CLR_FD = 0x4C01
_GET_STATUS64 = 0x4C05
_SET_CAPACITY = 0x4C07
_CONFIGURE = 0x4C0A
_CTL_GET_FREE = 0x4C82
_AUTOCLEAR = 4
_DIRECT_IO = 16

_MAJOR = 7
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_CONFIG = struct.Struct("=II232s8Q")

_CONTROL = Path("/dev/loop-control")
_SYSFS = Path("/sys/block")
_ATTEMPTS = 16


@contextmanager
def attached(image: Path) -> Iterator[Path]:
    """The block device of `image`, attached now if it is not yet.

    The device detaches by itself after the last user is gone: mount it within this context and it stays until
    unmounted, also over the death of this process.
    """
    device = find(image)
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC) if device else None
    if device is None or descriptor is None:
        device, descriptor = _attach(image)
    try:
        yield device
    finally:
        os.close(descriptor)


def find(image: Path) -> Path | None:
    """The loop device whose backing file is `image`, by device and inode: names differ between mount namespaces."""
    wanted = image.stat()
    for entry in sorted(_SYSFS.glob("loop*/loop/backing_file")):
        device = _node(int(entry.parent.parent.name.removeprefix("loop")))
        with suppress(OSError):  # detached in the meantime
            with ioctls.opened(device) as descriptor:
                answer = ioctls.call(descriptor, _GET_STATUS64, bytearray(_INFO.size))
            backing_device, backing_inode, *_ = _INFO.unpack(answer)
            if (backing_device, backing_inode) == (wanted.st_dev, wanted.st_ino):
                return device
    return None


def grow(device: Path) -> None:
    """Make the kernel read the size of the backing file again."""
    with ioctls.opened(device, os.O_RDWR) as descriptor:
        fcntl.ioctl(descriptor, _SET_CAPACITY)


def detach(device: Path) -> None:
    """Detach the device now, or when its last user is gone."""
    with ioctls.opened(device, os.O_RDWR) as descriptor:
        fcntl.ioctl(descriptor, _CLR_FD)


def _attach(image: Path) -> tuple[Path, int]:
    """Attach `image` to a free device and return it with a descriptor that keeps it attached."""
    with ioctls.opened(image, os.O_RDWR) as backing:
        for _ in range(_ATTEMPTS):
            with ioctls.opened(_CONTROL, os.O_RDWR) as control:
                device = _node(fcntl.ioctl(control, _CTL_GET_FREE))
            descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
            try:
                _configure(descriptor, backing, image)
            except OSError as error:
                os.close(descriptor)
                if error.errno != errno.EBUSY:  # EBUSY: somebody else took the free device first
                    raise
            else:
                return device, descriptor
    raise OSError(errno.EBUSY, "no free loop device: other programs keep taking them", str(image))


def _configure(descriptor: int, backing: int, image: Path) -> None:
    try:
        ioctls.call(descriptor, _CONFIGURE, _config(backing, image, _AUTOCLEAR | _DIRECT_IO))
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: the file system of the image cannot bypass the page cache
            raise
        ioctls.call(descriptor, _CONFIGURE, _config(backing, image, _AUTOCLEAR))


def _config(backing: int, image: Path, flags: int) -> bytearray:
    name = os.fsencode(image)[-63:]
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
    return bytearray(_CONFIG.pack(backing, 0, info, *([0] * 8)))


def _node(number: int) -> Path:
    device = Path(f"/dev/loop{number}")
    with suppress(FileExistsError):
        if not device.exists():
            os.mknod(device, 0o660 | stat.S_IFBLK, os.makedev(_MAJOR, number))
    return device
