"""The driver's services on a real pool, without a server between, for tests."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from coppice.csi import mounts, pool
from coppice.csi.controller import Controller
from coppice.csi.node import Node
from coppice.csi.pool import Pool, PoolSettings
from coppice.csi.proto import csi_pb2
from coppice.csi.volumes import Volumes

MIB = 1024**2
NODE = "node-1"
_Mode = csi_pb2.VolumeCapability.AccessMode


def capability(
    mode: int = _Mode.SINGLE_NODE_MULTI_WRITER, *, mount_group: str = "", flags: tuple[str, ...] = ()
) -> csi_pb2.VolumeCapability:
    mount = csi_pb2.VolumeCapability.MountVolume(volume_mount_group=mount_group, mount_flags=flags)
    return csi_pb2.VolumeCapability(mount=mount, access_mode=_Mode(mode=mode))


@dataclass(frozen=True)
class Driver:
    """A running driver; `targets` is where Pods would see their volumes."""

    pool: Pool
    volumes: Volumes
    controller: Controller
    node: Node
    targets: Path

    def create(
        self,
        name: str,
        *,
        size: int = 64 * MIB,
        snapshot: str = "",
        volume: str = "",
        parameters: Mapping[str, str] | None = None,
    ) -> str:
        content = None
        if snapshot:
            content = csi_pb2.VolumeContentSource(
                snapshot=csi_pb2.VolumeContentSource.SnapshotSource(snapshot_id=snapshot)
            )
        elif volume:
            content = csi_pb2.VolumeContentSource(volume=csi_pb2.VolumeContentSource.VolumeSource(volume_id=volume))
        response = self.controller.create_volume(
            csi_pb2.CreateVolumeRequest(
                name=name,
                capacity_range=csi_pb2.CapacityRange(required_bytes=size),
                volume_capabilities=[capability()],
                volume_content_source=content,
                parameters=parameters or {},
            )
        )
        return response.volume.volume_id

    def delete(self, volume: str) -> None:
        self.controller.delete_volume(csi_pb2.DeleteVolumeRequest(volume_id=volume))

    def snapshot(self, name: str, volume: str) -> str:
        request = csi_pb2.CreateSnapshotRequest(name=name, source_volume_id=volume)
        return self.controller.create_snapshot(request).snapshot.snapshot_id

    def delete_snapshot(self, snapshot: str) -> None:
        self.controller.delete_snapshot(csi_pb2.DeleteSnapshotRequest(snapshot_id=snapshot))

    def publish(
        self,
        volume: str,
        *,
        target: str = "",
        mode: int = _Mode.SINGLE_NODE_MULTI_WRITER,
        mount_group: str = "",
        readonly: bool = False,
    ) -> Path:
        path = self.targets / (target or volume)
        self.node.node_publish_volume(
            csi_pb2.NodePublishVolumeRequest(
                volume_id=volume,
                target_path=str(path),
                volume_capability=capability(mode, mount_group=mount_group),
                readonly=readonly,
            )
        )
        return path

    def unpublish(self, volume: str, path: Path) -> None:
        self.node.node_unpublish_volume(csi_pb2.NodeUnpublishVolumeRequest(volume_id=volume, target_path=str(path)))

    def usage(self, volume: str, path: Path) -> csi_pb2.VolumeUsage:
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=volume, volume_path=str(path))
        return self.node.node_get_volume_stats(request).usage[0]

    def listed(self) -> list[str]:
        return [entry.volume.volume_id for entry in self.controller.list_volumes(csi_pb2.ListVolumesRequest()).entries]

    def listed_snapshots(self) -> list[str]:
        entries = self.controller.list_snapshots(csi_pb2.ListSnapshotsRequest()).entries
        return [entry.snapshot.snapshot_id for entry in entries]

    def data(self, volume: str) -> Path:
        record = self.volumes.volumes.ready(volume)
        assert record is not None
        return self.volumes.data(record)

    def snapshot_data(self, snapshot: str) -> Path:
        record = self.volumes.snapshots.ready(snapshot)
        assert record is not None
        return self.volumes.data(record)

    def subvolumes(self) -> set[str]:
        """What really is in the pool."""
        return {path.name for kind in ("volumes", "snapshots") for path in (self.pool.root / kind).iterdir()}


@contextmanager
def started(settings: PoolSettings, targets: Path) -> Iterator[Driver]:
    """A driver from start to orderly end; the pool stays mounted, as in life."""
    targets.mkdir(exist_ok=True)
    with pool.opened(settings) as opened:
        volumes = Volumes.recovered(opened)
        yield Driver(opened, volumes, Controller(volumes, NODE), Node(volumes, NODE), targets)


def unmount_below(directory: Path) -> None:
    """Take off everything that is mounted below `directory`, innermost first."""
    for mount in reversed(mounts.read()):
        if Path(mount.mount_point).is_relative_to(directory):
            mounts.unmount(Path(mount.mount_point))


def write(path: Path, size: int) -> None:
    """Write `size` incompressible bytes and make the file system count them; raises OSError when there is no room."""
    with path.open("wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())


def as_user(uid: int, directory: Path, action: Callable[[], object]) -> bool:
    """Whether `action` succeeds in a process of user `uid` that works in `directory`, as in a Pod: paths are relative."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.chdir(directory)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0
