"""What the double keeps on the volume, laid out as TerminusDB does: layers that never change, and labels that are rewritten in place.

The content of a layer is the double's own (JSON, what differs from the layer's parent); names, places and the order of writing are the real ones, with
the window in which a label is empty.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STORAGE_VERSION = "2"
Content = dict[str, Any]


class StorageError(Exception):
    """What the real store throws: it becomes status 500, or ends the start."""


class Storage:
    """One directory of labels and layers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._known: dict[str, Content] = {}

    @property
    def exists(self) -> bool:
        return (self.directory / "STORAGE_VERSION").is_file()

    def create(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "STORAGE_VERSION").write_text(STORAGE_VERSION)

    def add(self, parent: str | None, put: Mapping[str, Any], drop: tuple[str, ...] = ()) -> str:
        """Write a layer, file and directory synced, and return its name."""
        name = secrets.token_hex(20)
        content = {**(self.read(parent) if parent else {}), **put}
        for key in drop:
            content.pop(key, None)
        place = self._place(name)
        place.parent.mkdir(exist_ok=True)
        with place.open("w") as file:
            json.dump({"parent": parent, "put": put, "drop": drop}, file)
            file.flush()
            os.fsync(file.fileno())
        self._known[name] = content
        return name

    def read(self, name: str) -> Content:
        """Return all that a layer and its parents hold; not to be changed."""
        chain: list[Content] = []
        at: str | None = name
        while at is not None and at not in self._known:
            try:
                chain.append(json.loads(self._place(at).read_text()))
            except (OSError, ValueError):
                raise StorageError(f"rust_io_error('NotFound',\"layer not found: {at}\")") from None
            at = chain[-1]["parent"]
        content = dict(self._known[at]) if at is not None else {}
        for difference in reversed(chain):
            content.update(difference["put"])
            for key in difference["drop"]:
                content.pop(key, None)
        self._known[name] = content
        return content

    def roll_up(self, name: str) -> None:
        """Write all that a layer and its parents hold beside it, and which file that is."""
        rollup = self._place(name).with_suffix(".rollup.hex")
        if not rollup.exists():
            rollup.write_text(self.add(None, self.read(name)))

    def text(self, name: str) -> str:
        """Return a layer as another server can have it."""
        return self._place(name).read_text()

    def keep(self, name: str, text: str) -> None:
        """Have a layer of another server's; one that is there already is the same."""
        if not (place := self._place(name)).exists():
            place.parent.mkdir(exist_ok=True)
            place.write_text(text)

    def label(self, name: str) -> tuple[int, str] | None:
        """Return a label's version and layer."""
        try:
            lines = self._label(name).read_text().splitlines()
        except FileNotFoundError:
            return None
        if len(lines) != 2:
            words = f"expected label file to have two lines. contents were ({json.dumps(lines)})"
            raise StorageError(f"rust_io_error('InvalidData',{json.dumps(words)})")
        return int(lines[0]), lines[1]

    def set_label(self, name: str, layer: str) -> None:
        """Point a label to a layer: emptied first, then written, in place."""
        version, _ = self.label(name) or (0, "")
        descriptor = os.open(self._label(name), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{version + 1}\n{layer}\n".encode())
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)

    def drop_label(self, name: str) -> None:
        self._label(name).unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes' writers out."""
        with (self.directory / "STORAGE_VERSION").open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _place(self, name: str) -> Path:
        return self.directory / name[:3] / f"{name}.larch"

    def _label(self, name: str) -> Path:
        encoded = re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), quote(name, safe=""))
        return self.directory / f"{encoded}.label"
