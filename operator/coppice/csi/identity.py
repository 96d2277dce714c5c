"""The Identity service of the CSI: who this driver is and whether its pool can be used."""

from google.protobuf import wrappers_pb2

from coppice import __version__
from coppice.csi.errors import failed_precondition
from coppice.csi.pool import Pool, PoolError
from coppice.csi.proto import csi_pb2
from coppice.csi.settings import DRIVER_NAME

_Service = csi_pb2.PluginCapability.Service
_Expansion = csi_pb2.PluginCapability.VolumeExpansion


class Identity:
    """The Identity service."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def get_plugin_info(self, _: csi_pb2.GetPluginInfoRequest) -> csi_pb2.GetPluginInfoResponse:
        """Name and version of the driver."""
        return csi_pb2.GetPluginInfoResponse(name=DRIVER_NAME, vendor_version=__version__)

    def get_plugin_capabilities(self, _: csi_pb2.GetPluginCapabilitiesRequest) -> csi_pb2.GetPluginCapabilitiesResponse:
        """The optional services: a controller, volumes tied to a node, growing while in use."""
        return csi_pb2.GetPluginCapabilitiesResponse(
            capabilities=[
                csi_pb2.PluginCapability(service=_Service(type=_Service.CONTROLLER_SERVICE)),
                csi_pb2.PluginCapability(service=_Service(type=_Service.VOLUME_ACCESSIBILITY_CONSTRAINTS)),
                csi_pb2.PluginCapability(volume_expansion=_Expansion(type=_Expansion.ONLINE)),
            ]
        )

    def probe(self, _: csi_pb2.ProbeRequest) -> csi_pb2.ProbeResponse:
        """Look at the pool itself: mounted, ours, writable."""
        try:
            self._pool.check()
        except PoolError as error:
            raise failed_precondition(str(error)) from error
        return csi_pb2.ProbeResponse(ready=wrappers_pb2.BoolValue(value=True))
