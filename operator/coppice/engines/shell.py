"""The scripts that run in an engine's Pods, put together from their parts."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def script(*parts: str) -> str:
    """Return one script for ``/bin/sh -eu -c`` from files of ``coppice.engines/scripts``, named without ``.sh``."""
    return "\n".join(_read(f"{part}.sh") for part in parts)


@cache
def statements(name: str) -> str:
    """Return the SQL of a file beside the scripts, without comments and the blank at its end."""
    lines = (line for line in _read(f"{name}.sql").splitlines() if not line.startswith("--"))
    return "\n".join(lines).rstrip()


def _read(name: str) -> str:
    return (files("coppice.engines") / "scripts" / name).read_text(encoding="utf-8")
