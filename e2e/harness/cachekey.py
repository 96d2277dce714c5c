"""Content hashes: what names a cached result is everything that went into it, and nothing else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

LENGTH: Final = 16
IGNORED: Final = frozenset({"__pycache__", ".git"})


def digest(parts: Iterable[str | bytes]) -> str:
    """Hash a sequence; each part is framed by its length, so ("ab", "c") and ("a", "bc") differ."""
    result = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        result.update(f"{len(data)}:".encode())
        result.update(data)
    return result.hexdigest()[:LENGTH]


def digest_tree(*roots: Path) -> str:
    """Hash files and directories by relative name, executable bit, link target and content, in a fixed order."""
    return digest(part for root in roots for part in _parts(root))


def keep(made: Path, target: Path) -> None:
    """Move a result that is complete to its name in the cache, unless another run was first: theirs is as good."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _parts(root: Path) -> Iterable[str | bytes]:
    if not root.is_dir() or root.is_symlink():
        yield from _file(root, root.name)
        return
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in IGNORED and not name.endswith(".egg-info"))
        for name in sorted(files):
            path = Path(folder, name)
            yield from _file(path, str(path.relative_to(root)))


def _file(path: Path, name: str) -> Iterable[str | bytes]:
    yield name
    if path.is_symlink():
        yield f"-> {path.readlink()}"
        return
    yield "x" if path.stat().st_mode & 0o100 else "-"
    yield path.read_bytes()
