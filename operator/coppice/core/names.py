"""Names of the objects Coppice makes: deterministic, so that doing a thing twice makes it once."""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 63


def digest(*parts: str, length: int = 8) -> str:
    """Return a short, stable, DNS-safe digest of the parts; it starts with a letter only by chance, so use it as a
    suffix.
    """
    return hashlib.sha256("\x00".join(parts).encode()).hexdigest()[:length]


def child(name: str, suffix: str) -> str:
    """Return ``<name>-<suffix>``, cut and made unique by a digest where it would be longer than a DNS label."""
    whole = f"{name}-{suffix}"
    if len(whole) <= MAX_NAME:
        return whole
    mark = digest(whole)
    return f"{name[: MAX_NAME - len(suffix) - len(mark) - 2]}-{mark}-{suffix}"


def handover_name(uid: str, namespace: str) -> str:
    """Return the name of what is made for the object of this UID in another namespace, for a while; a copy that
    somebody makes of it elsewhere has the wrong one.
    """
    return f"coppice-{digest(uid, namespace, length=24)}"


def sequence_name(prefix: str, number: int) -> str:
    """Return the name of the n-th object of a line. Creating it is a compare-and-set: of two creators one gets
    AlreadyExists.
    """
    return f"{prefix}-{number:05d}"


def sequence_of(name: str, prefix: str) -> int | None:
    """Return the number in a name made by ``sequence_name``, or None for any other name."""
    match = re.fullmatch(re.escape(prefix) + r"-(\d{5,})", name)
    return int(match.group(1)) if match else None
