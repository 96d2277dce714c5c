"""Registration with the kubelet, without the node-driver-registrar sidecar.

The kubelet watches a directory for sockets and asks each for its plug-in. The protocol is
k8s.io/kubelet/pkg/apis/pluginregistration/v1.
"""

import logging
from collections.abc import Callable
from pathlib import Path

from coppice.csi.proto import pluginregistration_pb2 as registration
from coppice.csi.settings import DRIVER_NAME

_log = logging.getLogger(__name__)
SERVICE = registration.DESCRIPTOR.services_by_name["Registration"]


def socket_path(directory: Path) -> Path:
    """The socket the kubelet finds this driver by."""
    return directory / f"{DRIVER_NAME}-reg.sock"


class Registration:
    """The Registration service; `refused` is called when the kubelet does not take the driver."""

    def __init__(self, endpoint: Path, refused: Callable[[], None]) -> None:
        self._endpoint = endpoint
        self._refused = refused

    def get_info(self, _: registration.InfoRequest) -> registration.PluginInfo:
        """What this plug-in is and where its own socket is."""
        return registration.PluginInfo(
            type="CSIPlugin", name=DRIVER_NAME, endpoint=str(self._endpoint), supported_versions=["1.0.0"]
        )

    def notify_registration_status(
        self, request: registration.RegistrationStatus
    ) -> registration.RegistrationStatusResponse:
        """The kubelet's verdict."""
        if request.plugin_registered:
            _log.info("registered with the kubelet")
        else:
            _log.error("the kubelet refused the driver: %s", request.error)
            self._refused()
        return registration.RegistrationStatusResponse()
