"""Which ways of using a volume this driver serves."""

from coppice.csi import mounts
from coppice.csi.errors import invalid_argument
from coppice.csi.proto import csi_pb2

_Mode = csi_pb2.VolumeCapability.AccessMode

SINGLE_WRITER = _Mode.SINGLE_NODE_SINGLE_WRITER
_MODES = frozenset(
    {
        _Mode.SINGLE_NODE_WRITER,
        _Mode.SINGLE_NODE_READER_ONLY,
        _Mode.SINGLE_NODE_SINGLE_WRITER,
        _Mode.SINGLE_NODE_MULTI_WRITER,
    }
)
_FILESYSTEMS = frozenset({"", "btrfs"})


def check(capability: csi_pb2.VolumeCapability) -> None:
    """Raise INVALID_ARGUMENT for what the driver cannot do: raw block, several nodes, other file systems or options."""
    if capability.HasField("block"):
        raise invalid_argument("raw block volumes are not served: ask for volumeMode Filesystem")
    if capability.access_mode.mode not in _MODES:
        name = _Mode.Mode.Name(capability.access_mode.mode)
        raise invalid_argument(f"access mode {name} is not served: volumes live on one node, ask for ReadWriteOnce")
    if capability.mount.fs_type not in _FILESYSTEMS:
        raise invalid_argument(f"file system {capability.mount.fs_type} is not served: leave fstype out, it is btrfs")
    bind_flags(capability)


def check_all(capabilities: object) -> None:
    """Check each of a request's capabilities, of which there must be one at least."""
    wanted = list(capabilities)  # type: ignore[call-overload]
    if not wanted:
        raise invalid_argument("volume capabilities are missing")
    for capability in wanted:
        check(capability)


def bind_flags(capability: csi_pb2.VolumeCapability) -> int:
    """The mount flags of the capability's mount options."""
    try:
        return mounts.bind_flags(capability.mount.mount_flags)
    except ValueError as error:
        raise invalid_argument(str(error)) from error
