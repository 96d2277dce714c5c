"""Removes what was left behind by owners that are gone, whatever the reason that nobody else did."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from coppice.core.orphans import find_orphans, in_order
from coppice.core.plan import Ref
from coppice.kube.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.core.orphans import Orphan
    from coppice.kube.client import KubeClient
    from coppice.runtime.metrics import Metrics

logger = logging.getLogger(__name__)

GRACE_SECONDS: Final = 60.0
"""How long something is seen as an orphan, at least, until it is removed: the garbage collector comes first."""


class Sweeper:
    """Remembers since when each orphan has been one.

    What is removed was listed as an orphan twice, so that its owner was missing from a list that is younger than one it
    stood in itself; and its owner is missing from a live read by name, made after a live read of the object. A list
    that is stale or wrong costs nothing but those reads.
    """

    def __init__(self, client: KubeClient, metrics: Metrics) -> None:
        self._client = client
        self._metrics = metrics
        self._since: dict[str, float] = {}

    async def sweep(self, orphans: Sequence[Orphan], now: float) -> None:
        """Remove those of all orphans found that have been orphans for long enough; ``now`` is in seconds."""
        self._since = {orphan.uid: self._since.get(orphan.uid, now) for orphan in orphans}
        for orphan in in_order(orphans):
            if now - self._since[orphan.uid] >= GRACE_SECONDS:
                await self._try_to_remove(orphan)

    async def _try_to_remove(self, orphan: Orphan) -> None:
        ref = Ref.of(orphan.manifest)
        what = f"{ref.kind} {f'{ref.namespace}/' if ref.namespace else ''}{ref.name}"
        owner = f"{orphan.owner.kind} {orphan.owner.namespace}/{orphan.owner.name} ({orphan.owner_uid})"
        try:
            if await self._is_removable(orphan):
                await self._client.delete(ref)
                self._metrics.orphans_removed.labels(ref.kind).inc()
                logger.info("removed %s: it was made for %s, which is gone", what, owner)
        except KubeError as error:
            logger.warning("%s was made for %s, which is gone, and cannot be removed: %s", what, owner, error)

    async def _is_removable(self, orphan: Orphan) -> bool:
        """Look again, live: first at the object, then for its owner, which is older than the object."""
        metadata = orphan.manifest["metadata"]
        present = await self._client.get(orphan.manifest["kind"], metadata["name"], metadata.get("namespace"))
        if present is None or present["metadata"]["uid"] != orphan.uid:
            return False
        owner = await self._client.get(orphan.owner.kind, orphan.owner.name, orphan.owner.namespace)
        alive = set() if owner is None else {owner["metadata"]["uid"]}
        return any(found.is_removable for found in find_orphans([present], alive))
