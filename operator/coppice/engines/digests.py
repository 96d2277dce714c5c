"""Hashes of what differs between two versions, that depend on no order in which it is found."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from coppice.engines.merging import ChangeKind

_SUM_BYTES: Final = 256
"""How wide the sum of the rows' hashes is. Other rows of the same sum are not to be found, as they are for a narrow one
by who may choose many (the generalised birthday problem).
"""


def hashed(value: Any) -> bytes:
    """Return a hash of something that JSON can hold, whatever the order of its keys."""
    return hashlib.sha256(_encoded(value)).digest()


def addend(row: Any) -> int:
    """Return what a row adds to the sum of its table."""
    return int.from_bytes(hashlib.shake_256(_encoded(row)).digest(_SUM_BYTES))


def summary(counts: Mapping[ChangeKind, int], total: int) -> Sequence[Any]:
    """Return what a digest has of a table's rows, in whatever order they were found: how many, and their sum."""
    return [counts["Added"], counts["Modified"], counts["Deleted"], f"{total % (1 << 8 * _SUM_BYTES):x}"]


def sealed(digest_of_rows: str, secret: str) -> str:
    """Return a digest of rows as everybody may read it: by the digest alone one could try which value a single changed
    row has got.
    """
    return hmac.new(secret.encode(), f"patch {digest_of_rows}".encode(), hashlib.sha256).hexdigest()


def _encoded(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
