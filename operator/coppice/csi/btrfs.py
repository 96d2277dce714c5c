"""btrfs subvolumes by ioctl, without a fork per call.

Structures and numbers are those of the kernel's user interface, include/uapi/linux/btrfs.h and btrfs_tree.h. Errors are
OSError as the kernel gives them. Deleting, resizing
and searching trees need CAP_SYS_ADMIN.
"""

import errno
import os
import struct
import uuid
from pathlib import Path

from coppice.csi import ioctls

_MAGIC = 0x94

_VOL_ARGS = struct.Struct("=q4088s")
_VOL_ARGS_V2 = struct.Struct("=qQQ4Q4040s")
_FS_INFO = struct.Struct("=QQ16s992x")
_INO_LOOKUP = struct.Struct("=QQ4080s")
_SEARCH_KEY = struct.Struct("=7Q4I4Q")
_SEARCH_HEADER = struct.Struct("=QQQII")
_ROOT_REF = struct.Struct("=QQH")
_SEARCH_SIZE = 4096

_SUBVOL_CREATE = ioctls.iow(_MAGIC, 14, _VOL_ARGS.size)
_SNAP_DESTROY = ioctls.iow(_MAGIC, 15, _VOL_ARGS.size)
_RESIZE = ioctls.iow(_MAGIC, 3, _VOL_ARGS.size)
_SYNC = ioctls.io(_MAGIC, 8)
_TREE_SEARCH = ioctls.iowr(_MAGIC, 17, _SEARCH_SIZE)
_INO_LOOKUP_NUMBER = ioctls.iowr(_MAGIC, 18, _INO_LOOKUP.size)
_SNAP_CREATE_V2 = ioctls.iow(_MAGIC, 23, _VOL_ARGS_V2.size)
_FS_INFO_NUMBER = ioctls.ior(_MAGIC, 31, _FS_INFO.size)

_SUBVOL_RDONLY = 1 << 1
_ROOT_TREE = 1
_FIRST_FREE_OBJECTID = 256
_ROOT_REF_KEY = 156
_MAX_U64 = 2**64 - 1


def filesystem_id(path: Path) -> uuid.UUID | None:
    """The identity of the btrfs file system that holds `path`, or None if that is another kind of file system."""
    try:
        with ioctls.opened(path) as descriptor:
            answer = ioctls.call(descriptor, _FS_INFO_NUMBER, bytearray(_FS_INFO.size))
    except OSError as error:
        if error.errno in {errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP}:
            return None
        raise
    return uuid.UUID(bytes=_FS_INFO.unpack(answer)[2])


def is_subvolume(path: Path) -> bool:
    """Whether `path`, on btrfs, is the root directory of a subvolume (their inode number is always 256)."""
    try:
        return path.lstat().st_ino == _FIRST_FREE_OBJECTID
    except FileNotFoundError:
        return False


def create_subvolume(path: Path) -> None:
    """Create an empty subvolume. The kernel commits the transaction: it is on disk when this returns."""
    with ioctls.opened(path.parent) as parent:
        ioctls.call(parent, _SUBVOL_CREATE, bytearray(_VOL_ARGS.pack(0, os.fsencode(path.name))))


def create_snapshot(source: Path, target: Path, *, read_only: bool) -> None:
    """Create `target` as a copy-on-write copy of the subvolume `source`, as of one point in time.

    Dirty pages of the source are part of it; it is on disk when this returns. A subvolume nested in the source becomes
    an empty directory in the copy: see `nested_subvolumes`.
    """
    flags = _SUBVOL_RDONLY if read_only else 0
    with ioctls.opened(source) as origin, ioctls.opened(target.parent) as parent:
        arguments = _VOL_ARGS_V2.pack(origin, 0, flags, 0, 0, 0, 0, os.fsencode(target.name))
        ioctls.call(parent, _SNAP_CREATE_V2, bytearray(arguments))


def destroy_subvolume(path: Path) -> None:
    """Delete a subvolume with all nested ones, innermost first.

    The kernel frees the blocks later. It does not refuse while the subvolume is mounted elsewhere: callers must.
    """
    for nested in nested_subvolumes(path):
        destroy_subvolume(nested)
    with ioctls.opened(path.parent) as parent:
        ioctls.call(parent, _SNAP_DESTROY, bytearray(_VOL_ARGS.pack(0, os.fsencode(path.name))))


def subvolume_id(path: Path) -> int:
    """The number of the subvolume that holds `path`; its quota group is 0/<number>."""
    with ioctls.opened(path) as descriptor:
        return _lookup(descriptor, 0, _FIRST_FREE_OBJECTID)[0]


def nested_subvolumes(path: Path) -> tuple[Path, ...]:
    """The subvolumes that lie directly in the subvolume `path`, at any depth of directories, without walking it."""
    with ioctls.opened(path) as descriptor:
        parent_id = _lookup(descriptor, 0, _FIRST_FREE_OBJECTID)[0]
        return tuple(
            path / _lookup(descriptor, parent_id, directory_id)[1] / name
            for directory_id, name in _root_references(descriptor, parent_id)
        )


def sync(path: Path) -> None:
    """Commit the running transaction of the file system that holds `path`."""
    with ioctls.opened(path) as descriptor:
        ioctls.call(descriptor, _SYNC, bytearray())


def resize_to_device(path: Path) -> None:
    """Let the file system mounted at `path` use all of its one device."""
    with ioctls.opened(path) as descriptor:
        ioctls.call(descriptor, _RESIZE, bytearray(_VOL_ARGS.pack(0, b"max")))


def _lookup(descriptor: int, tree: int, inode: int) -> tuple[int, str]:
    """The subvolume (0 asks for that of the descriptor) and, below its root, the path of directory `inode`."""
    answer = ioctls.call(descriptor, _INO_LOOKUP_NUMBER, bytearray(_INO_LOOKUP.pack(tree, inode, b"")))
    found, _, name = _INO_LOOKUP.unpack(answer)
    return found, os.fsdecode(name.split(b"\0", 1)[0])


def _root_references(descriptor: int, parent_id: int) -> list[tuple[int, str]]:
    """Directory inode and name of each subvolume in subvolume `parent_id`, from the ROOT_REF items of the root tree."""
    references: list[tuple[int, str]] = []
    next_child = 0
    while next_child <= _MAX_U64:
        page, last_child = _search_page(descriptor, parent_id, next_child)
        if last_child is None:
            break
        references.extend(page)
        next_child = last_child + 1
    return references


def _search_page(descriptor: int, parent_id: int, first_child: int) -> tuple[list[tuple[int, str]], int | None]:
    key = _SEARCH_KEY.pack(
        *(_ROOT_TREE, parent_id, parent_id, first_child, _MAX_U64, 0, _MAX_U64),
        *(_ROOT_REF_KEY, _ROOT_REF_KEY, _SEARCH_SIZE, 0),
        *(0, 0, 0, 0),
    )
    answer = ioctls.call(descriptor, _TREE_SEARCH, bytearray(key.ljust(_SEARCH_SIZE, b"\0")))
    return parse_root_references(bytes(answer))


def parse_root_references(answer: bytes) -> tuple[list[tuple[int, str]], int | None]:
    """Read a tree search's ROOT_REF items: (directory inode, name) of each, and the last child's number."""
    count = _SEARCH_KEY.unpack_from(answer)[9]
    references: list[tuple[int, str]] = []
    last_child: int | None = None
    position = _SEARCH_KEY.size
    for _ in range(count):
        _, _, child, _, length = _SEARCH_HEADER.unpack_from(answer, position)
        position += _SEARCH_HEADER.size
        directory, _, name_length = _ROOT_REF.unpack_from(answer, position)
        start = position + _ROOT_REF.size
        references.append((directory, os.fsdecode(answer[start : start + name_length])))
        last_child = child
        position += length
    return references, last_child
