"""Kubernetes Events: helpful, and never in the way of the work they report.

Posted in the background; what cannot be posted is dropped. The same event of the same object within ten minutes becomes
a series on the one that is there, and an object that has too much to say is cut short, as in client-go (tools/events,
tools/record EventSourceObjectSpamFilter).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from coppice.kube.errors import KubeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.core.plan import Event, Manifest
    from coppice.kube.client import KubeClient

logger = logging.getLogger(__name__)

SERIES: Final = timedelta(minutes=10)
BURST: Final = 25
REFILL_SECONDS: Final = 300.0
"""An object may post BURST events at once, and one more every REFILL_SECONDS."""

_REMEMBERED: Final = 4096
_BACKLOG: Final = 1000
_NOTE_LIMIT: Final = 1024
CONTROLLER: Final = "coppice.dev/operator"


@dataclass(frozen=True, slots=True)
class _Series:
    """An event that was posted, and how often it happened since."""

    name: str
    first: datetime
    last: datetime
    count: int = 1


@dataclass(frozen=True, slots=True)
class _Allowance:
    """How many events an object may still post."""

    left: float
    at: datetime


class EventRecorder:
    """Takes events at any time, and posts them while ``run`` runs."""

    def __init__(
        self,
        client: KubeClient,
        *,
        identity: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._identity = identity
        self._clock = clock
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_BACKLOG)
        self._series: OrderedDict[tuple[str, str, str, str], _Series] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()

    def record(self, manifest: Manifest, event: Event) -> None:
        """Take an event of an object; never fails and never waits."""
        metadata = manifest["metadata"]
        fields = {"kind": manifest["kind"], "namespace": metadata.get("namespace"), "object": metadata["name"]}
        logger.info(event.message, extra={**fields, "reason": event.reason})
        now = self._clock()
        if not self._allowed(metadata["uid"], now):
            return
        try:
            self._queue.put_nowait(self._body(manifest, event, now))
        except asyncio.QueueFull:
            logger.warning("an Event is dropped: too many wait to be posted", extra=fields)

    async def run(self) -> None:
        """Post events until cancelled."""
        while True:
            await self._post(await self._queue.get())

    async def flush(self) -> None:
        """Post what is left, at shutdown."""
        while not self._queue.empty():
            await self._post(self._queue.get_nowait())

    async def _post(self, body: dict[str, Any]) -> None:
        try:
            await self._client.apply(body)
        except KubeError as error:
            # A namespace that is being deleted takes no Events any more; neither is it the place to insist.
            logger.debug("an Event could not be posted: %s", error)

    def _allowed(self, uid: str, now: datetime) -> bool:
        allowance = self._allowances.pop(uid, _Allowance(BURST, now))
        left = min(BURST, allowance.left + (now - allowance.at).total_seconds() / REFILL_SECONDS)
        allowed = left >= 1
        self._allowances[uid] = _Allowance(left - 1 if allowed else left, now)
        if len(self._allowances) > _REMEMBERED:
            self._allowances.popitem(last=False)
        return allowed

    def _body(self, manifest: Manifest, event: Event, now: datetime) -> dict[str, Any]:
        """Return the Event; a repeated one has the name of the first and says how often it happened."""
        metadata = manifest["metadata"]
        note = _shortened(event.message)
        series = self._next(metadata, event, now)
        body: dict[str, Any] = {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": series.name, "namespace": metadata.get("namespace") or "default"},
            "eventTime": _micro_time(series.first),
            "reportingController": CONTROLLER,
            "reportingInstance": self._identity[:128],
            "action": "Reconcile",
            "reason": event.reason[:128],
            "regarding": {
                "apiVersion": manifest["apiVersion"],
                "kind": manifest["kind"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "note": note,
            "type": event.type,
        }
        if namespace := metadata.get("namespace"):
            body["regarding"]["namespace"] = namespace
        if series.count > 1:
            body["series"] = {"count": series.count, "lastObservedTime": _micro_time(series.last)}
        return body

    def _next(self, metadata: Manifest, event: Event, now: datetime) -> _Series:
        key = (metadata["uid"], event.type, event.reason, event.message)
        series = self._series.pop(key, None)
        if series is None or now - series.last > SERIES:
            digest = hashlib.sha256("\0".join((*key, now.isoformat())).encode()).hexdigest()[:16]
            series = _Series(f"{metadata['name'][:200]}.{digest}", now, now)
        else:
            series = replace(series, last=now, count=series.count + 1)
        self._series[key] = series
        if len(self._series) > _REMEMBERED:
            self._series.popitem(last=False)
        return series


def _shortened(text: str) -> str:
    """Return a note that is short enough: the limit is in bytes."""
    encoded = text.encode()
    if len(encoded) <= _NOTE_LIMIT:
        return text
    return encoded[: _NOTE_LIMIT - 3].decode(errors="ignore") + "..."


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
