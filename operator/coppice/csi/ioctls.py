"""Numbers and calls of ioctl(2), shared by the modules that speak to btrfs and to loop devices.

The encoding of a request number (direction, size, type, number) is that of <asm-generic/ioctl.h>, which is the same on
every architecture that Kubernetes nodes run on except MIPS, PowerPC and SPARC.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITE = 1
_READ = 2


def _request(direction: int, kind: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | kind << 8 | number


def io(kind: int, number: int) -> int:
    """Request number of an ioctl without an argument (_IO)."""
    return _request(0, kind, number, 0)


def iow(kind: int, number: int, size: int) -> int:
    """Request number of an ioctl that reads `size` bytes of argument (_IOW)."""
    return _request(_WRITE, kind, number, size)


def ior(kind: int, number: int, size: int) -> int:
    """Request number of an ioctl that fills `size` bytes of argument (_IOR)."""
    return _request(_READ, kind, number, size)


def iowr(kind: int, number: int, size: int) -> int:
    """Request number of an ioctl that reads and fills `size` bytes of argument (_IOWR)."""
    return _request(_READ | _WRITE, kind, number, size)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A file descriptor of `path`, closed at the end."""
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def call(descriptor: int, request: int, argument: bytearray) -> bytearray:
    """Call ioctl(2) with `argument`, which the kernel may fill, and return it.

    A bytearray, never bytes: `fcntl.ioctl` copies an immutable argument into a buffer of 1024 bytes and refuses more,
    while the structures of btrfs have 4096.
    """
    fcntl.ioctl(descriptor, request, argument)
    return argument
