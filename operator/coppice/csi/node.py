"""The Node service of the CSI: volumes made visible to Pods by bind mounts."""

import os
import threading
from collections.abc import Iterable
from pathlib import Path

from coppice.csi import capabilities, mounts
from coppice.csi.catalog import VolumeRecord
from coppice.csi.errors import failed_precondition, invalid_argument, not_found
from coppice.csi.mounts import Mount
from coppice.csi.proto import csi_pb2
from coppice.csi.settings import TOPOLOGY_KEY
from coppice.csi.volumes import Volumes

_Capability = csi_pb2.NodeServiceCapability
_CAPABILITIES = (
    _Capability.RPC.GET_VOLUME_STATS,
    _Capability.RPC.EXPAND_VOLUME,
    _Capability.RPC.SINGLE_NODE_MULTI_WRITER,
)
_TARGET_MODE = 0o750


class Node:
    """The Node service of node `node_id`."""

    def __init__(self, volumes: Volumes, node_id: str) -> None:
        self._volumes = volumes
        self._node_id = node_id
        self._mounting = threading.Lock()

    def node_get_info(self, _: csi_pb2.NodeGetInfoRequest) -> csi_pb2.NodeGetInfoResponse:
        """The node's name, also as the topology of its volumes."""
        return csi_pb2.NodeGetInfoResponse(
            node_id=self._node_id,
            accessible_topology=csi_pb2.Topology(segments={TOPOLOGY_KEY: self._node_id}),
        )

    def node_get_capabilities(self, _: csi_pb2.NodeGetCapabilitiesRequest) -> csi_pb2.NodeGetCapabilitiesResponse:
        """What this service can do."""
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[_Capability(rpc=_Capability.RPC(type=kind)) for kind in _CAPABILITIES]
        )

    def node_publish_volume(self, request: csi_pb2.NodePublishVolumeRequest) -> csi_pb2.NodePublishVolumeResponse:
        """Bind the volume to the target path. Owners and modes inside are never touched, whatever the Pod's fsGroup."""
        if not request.target_path:
            raise invalid_argument(f"volume {request.volume_id}: the target path is missing")
        if not request.HasField("volume_capability"):
            raise invalid_argument(f"volume {request.volume_id}: the volume capability is missing")
        capabilities.check(request.volume_capability)
        flags = capabilities.bind_flags(request.volume_capability) | (mounts.MS_RDONLY if request.readonly else 0)
        with self._volumes.locks.shared(_required_id(request.volume_id)):
            record = self._volume(request.volume_id)
            with self._mounting:
                self._publish(record, Path(request.target_path), flags, request.volume_capability.access_mode.mode)
        return csi_pb2.NodePublishVolumeResponse()

    def node_unpublish_volume(self, request: csi_pb2.NodeUnpublishVolumeRequest) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Take every mount off the target path and remove the path itself, but never anything inside it."""
        _required_id(request.volume_id)
        if not request.target_path:
            raise invalid_argument(f"volume {request.volume_id}: the target path is missing")
        target = Path(request.target_path)
        with self._mounting:
            while mounts.at(mounts.read(), _resolved(target)) is not None:
                mounts.unmount(target)
            if target.is_dir() and not target.is_symlink():
                target.rmdir()
        return csi_pb2.NodeUnpublishVolumeResponse()

    def node_get_volume_stats(self, request: csi_pb2.NodeGetVolumeStatsRequest) -> csi_pb2.NodeGetVolumeStatsResponse:
        """The volume's own figures, not the pool's: what it occupies by itself, and what it may still write."""
        record = self._published(request.volume_id, request.volume_path)
        return csi_pb2.NodeGetVolumeStatsResponse(usage=[self._usage(record)])

    def node_expand_volume(self, request: csi_pb2.NodeExpandVolumeRequest) -> csi_pb2.NodeExpandVolumeResponse:
        """Nothing to do: the controller's part is all there is."""
        record = self._published(request.volume_id, request.volume_path)
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=record.capacity)

    def _publish(self, record: VolumeRecord, target: Path, flags: int, mode: int) -> None:
        source = self._volumes.data(record)
        table = mounts.read()
        shown = _elsewhere(mounts.of_directory(table, source), target)
        if shown and mode == capabilities.SINGLE_WRITER:
            raise failed_precondition(f"{record.id} is for a single Pod and is mounted at {shown[0].mount_point}")
        self._volumes.apply_limit(record)
        present = mounts.at(table, _resolved(target))
        if present is None:
            target.mkdir(mode=_TARGET_MODE, exist_ok=True)
            mounts.bind(source, target, flags)
        elif present not in mounts.of_directory(table, source):
            raise failed_precondition(f"{target} already shows {present.source}{present.root}: unmount it")
        elif present.read_only != bool(flags & mounts.MS_RDONLY):
            mounts.remount_bind(target, flags)

    def _usage(self, record: VolumeRecord) -> csi_pb2.VolumeUsage:
        pool = self._volumes.pool
        free = pool.free_bytes()
        if self._volumes.counts_bytes:
            total = record.capacity if record.own_bytes is None else record.own_bytes
            used = self._volumes.own_bytes(record)
        else:  # without quotas there is no telling whose bytes they are
            total = pool.total_bytes()
            used = total - free
        return csi_pb2.VolumeUsage(
            unit=csi_pb2.VolumeUsage.BYTES, total=total, used=used, available=max(0, min(total - used, free))
        )

    def _volume(self, identifier: str) -> VolumeRecord:
        record = self._volumes.volumes.ready(identifier)
        if record is None:
            raise not_found(f"there is no volume {identifier}")
        return record

    def _published(self, identifier: str, path: str) -> VolumeRecord:
        if not path:
            raise invalid_argument(f"volume {identifier}: the volume path is missing")
        record = self._volume(_required_id(identifier))
        table = mounts.read()
        if mounts.at(mounts.of_directory(table, self._volumes.data(record)), _resolved(Path(path))) is None:
            raise not_found(f"volume {identifier} is not mounted at {path}")
        return record


def _required_id(identifier: str) -> str:
    if not identifier:
        raise invalid_argument("the volume's id is missing")
    return identifier


def _resolved(path: Path) -> Path:
    """The path as the mount table spells it."""
    return Path(os.path.realpath(path))


def _elsewhere(shown: Iterable[Mount], target: Path) -> list[Mount]:
    resolved = str(_resolved(target))
    return [mount for mount in shown if mount.mount_point != resolved]
