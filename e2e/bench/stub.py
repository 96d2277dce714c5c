"""The rest of a cluster, as far as the operator can tell: claims are bound, Pods run and snapshots are ready at once.

It stands in for scheduler, kubelet, storage driver and snapshot controller on an API server that has none of them.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

from coppice.kube.errors import KubeError, TransientError
from e2e.bench.api import DELETED
from e2e.bench.figures import say

if TYPE_CHECKING:
    from e2e.bench.api import Api, Manifest, Seen

KINDS: Final = ("PersistentVolumeClaim", "Pod", "VolumeSnapshot")
WORKERS: Final = 8
MANAGER: Final = "stub"
TIME: Final = "2026-01-01T00:00:00Z"


class Stub:
    """Gives every object that has none its final status."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue()
        self._addresses = itertools.count(1)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin, in all namespaces."""
        self._tasks = [asyncio.create_task(self._work()) for _ in range(WORKERS)]
        for kind in KINDS:
            await self._api.listen(kind, self._on_change)

    async def aclose(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_change(self, seen: Seen) -> None:
        if seen.change != DELETED and not _is_done(seen.manifest):
            self._queue.put_nowait(seen.manifest)

    async def _work(self) -> None:
        while True:
            manifest = await self._queue.get()
            body = {
                "apiVersion": manifest["apiVersion"],
                "kind": manifest["kind"],
                "metadata": {key: manifest["metadata"][key] for key in ("name", "namespace", "uid")},
                "status": self._status(manifest),
            }
            try:
                await self._api.client.apply(body, manager=MANAGER, subresource="status")
            except TransientError as error:
                say(f"  the API server is busy: {error}")
                self._queue.put_nowait(manifest)
            except KubeError as error:
                say(f"  {error}")

    def _status(self, manifest: Manifest) -> Manifest:
        spec = manifest["spec"]
        if manifest["kind"] == "PersistentVolumeClaim":
            return {"phase": "Bound", "capacity": spec["resources"]["requests"]}
        if manifest["kind"] == "VolumeSnapshot":
            content = spec["source"].get("volumeSnapshotContentName", "none")
            size = {"restoreSize": "1Gi", "creationTime": TIME}
            return {"boundVolumeSnapshotContentName": content, "readyToUse": True, **size}
        return self._pod_status(spec)

    def _pod_status(self, spec: Any) -> Manifest:
        number = next(self._addresses)
        [container] = spec["containers"]
        true = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        status = {"name": container["name"], "image": container["image"], "imageID": "", "ready": True}
        return {
            "phase": "Running",
            "podIP": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
            "conditions": [{"type": kind, "status": "True"} for kind in true],
            "containerStatuses": [{**status, "restartCount": 0, "state": {"running": {"startedAt": TIME}}}],
        }


def _is_done(manifest: Manifest) -> bool:
    status = manifest.get("status") or {}
    if manifest["kind"] == "VolumeSnapshot":
        return "readyToUse" in status
    return status.get("phase") not in {None, "Pending"}
