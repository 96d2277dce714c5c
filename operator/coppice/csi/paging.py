"""Lists in pages.

The token for the next page is the id of the last entry of this one, so that entries deleted or made between two pages
neither shift nor repeat others.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

from coppice.csi.catalog import SnapshotRecord, VolumeRecord
from coppice.csi.errors import aborted, invalid_argument

_TOKEN = re.compile(r"(vol|snap)-[0-9a-f]{32}")

Record = TypeVar("Record", VolumeRecord, SnapshotRecord)


def page(records: Sequence[Record], token: str, max_entries: int) -> tuple[Sequence[Record], str]:
    """The entries after `token` (empty: from the start), at most `max_entries` (0: all), and the next page's token.

    `records` are in the order of their ids. Raises ABORTED for a token that no page gave out.
    """
    if max_entries < 0:
        raise invalid_argument(f"max_entries is {max_entries}: it cannot be negative")
    if token and not _TOKEN.fullmatch(token):
        raise aborted(f"{token!r} is not a token of a page: list again from the start")
    rest = [record for record in records if record.id > token]
    if not max_entries or len(rest) <= max_entries:
        return rest, ""
    return rest[:max_entries], rest[max_entries - 1].id
