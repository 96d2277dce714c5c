"""Names that others know this driver by, and what an administrator decides about it."""

from dataclasses import dataclass
from pathlib import Path

from coppice.csi.pool import PoolSettings

DRIVER_NAME = "local.csi.coppice.dev"
TOPOLOGY_KEY = f"{DRIVER_NAME}/node"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The driver's settings.

    `endpoint` is the socket of the driver, at the same path for the driver and the kubelet; `registration_directory`
    the kubelet's plug-in directory (None: do not register); `health_port` serves /healthz (None: do not).
    """

    node_id: str
    endpoint: Path
    pool: PoolSettings
    registration_directory: Path | None
    health_port: int | None
