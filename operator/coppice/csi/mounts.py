"""The mount table: reading it (pure), and the mount and umount calls.

The table is /proc/self/mountinfo as described in proc(5).
"""

import ctypes
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MOUNTINFO = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")
_DELETED = "//deleted"

MS_RDONLY = 1 << 0
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_REMOUNT = 1 << 5
MS_NOATIME = 1 << 10
MS_NODIRATIME = 1 << 11
MS_BIND = 1 << 12
MS_RELATIME = 1 << 21
_UMOUNT_NOFOLLOW = 8

_BIND_OPTIONS = {
    "ro": MS_RDONLY,
    "rw": 0,
    "nosuid": MS_NOSUID,
    "nodev": MS_NODEV,
    "noexec": MS_NOEXEC,
    "noatime": MS_NOATIME,
    "nodiratime": MS_NODIRATIME,
    "relatime": MS_RELATIME,
}


@dataclass(frozen=True)
class Mount:
    """One line of the mount table: `root`, a path inside the file system `device`, is visible at `mount_point`."""

    device: str
    root: str
    mount_point: str
    options: frozenset[str]
    filesystem: str
    source: str

    @property
    def read_only(self) -> bool:
        """Whether this mount (not the file system) refuses writes."""
        return "ro" in self.options


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Read a mount table; later lines lie over earlier ones at the same mount point."""
    return tuple(_parse_line(line) for line in text.splitlines() if line)


def read() -> tuple[Mount, ...]:
    """The mount table of this process's mount namespace."""
    return parse_mountinfo(_MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape"))


def at(mounts: Iterable[Mount], path: Path) -> Mount | None:
    """The uppermost mount exactly at `path`, which must be absolute and free of symbolic links."""
    found = [mount for mount in mounts if mount.mount_point == str(path)]
    return found[-1] if found else None


def holding(mounts: Iterable[Mount], path: Path) -> Mount:
    """The mount through which `path` is reached.

    Raises LookupError if there is none, which only happens for a path outside of this mount namespace's root.
    """
    found: Mount | None = None
    for mount in mounts:
        if _within(str(path), mount.mount_point) and (
            found is None or len(mount.mount_point) >= len(found.mount_point)
        ):
            found = mount
    if found is None:
        raise LookupError(f"no mount holds {path}")
    return found


def of_directory(mounts: Iterable[Mount], path: Path) -> tuple[Mount, ...]:
    """Every mount that shows `path` or something below it elsewhere: bind mounts of it and its subdirectories."""
    table = tuple(mounts)
    holder = holding(table, path)
    inside = str(PurePosixPath(holder.root) / path.relative_to(holder.mount_point))
    return tuple(m for m in table if m.device == holder.device and _within(m.root, inside))


def bind_flags(options: Iterable[str]) -> int:
    """The mount(2) flags of mount options that apply to a bind mount; raises ValueError naming one that does not."""
    flags = 0
    for option in options:
        if option not in _BIND_OPTIONS:
            raise ValueError(
                f"mount option {option!r} cannot be set on a bind mount; use only {', '.join(_BIND_OPTIONS)}"
            )
        flags |= _BIND_OPTIONS[option]
    return flags


def bind(source: Path, target: Path, flags: int) -> None:
    """Show directory `source` at `target` with the per-mount `flags`."""
    mount(str(source), target, flags=MS_BIND)
    if flags:
        remount_bind(target, flags)


def remount_bind(target: Path, flags: int) -> None:
    """Set the per-mount `flags` of the bind mount at `target`."""
    # mount(2): the kernel ignores other flags together with MS_BIND, so they need a second call.
    mount("none", target, flags=MS_REMOUNT | MS_BIND | flags)


def mount(source: str, target: Path, *, filesystem: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """Make `source` visible at `target`; raises OSError naming the target."""
    arguments = [os.fsencode(text) if text is not None else None for text in (source, str(target), filesystem)]
    options = data.encode() if data is not None else None
    _check(_libc().mount(*arguments, ctypes.c_ulong(flags), options), target)


def unmount(target: Path) -> None:
    """Unmount `target`, not following a symbolic link; raises OSError naming it."""
    _check(_libc().umount2(os.fsencode(target), _UMOUNT_NOFOLLOW), target)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, target: Path) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def _within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _parse_line(line: str) -> Mount:
    before, after = line.split(" - ", 1)
    _, _, device, root, mount_point, options, *_ = before.split(" ")
    filesystem, source, *_ = after.split(" ")
    return Mount(
        device=device,
        root=_unescape(root).removesuffix(_DELETED),
        mount_point=_unescape(mount_point),
        options=frozenset(options.split(",")),
        filesystem=filesystem,
        source=_unescape(source),
    )


def _unescape(field: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), field)
