"""The Identity service: which driver this is and what can be expected of it."""

from __future__ import annotations

from google.protobuf import wrappers_pb2

from holdfast.backends.protocol import Backend, Expander
from holdfast.csi.wire import csi_pb2

_Capability = csi_pb2.PluginCapability
_Type = csi_pb2.PluginCapability.Service.Type


class Identity:
    """Answers for one driver name."""

    def __init__(
        self, name: str, version: str, *, controller: Backend | None, topology: bool
    ) -> None:
        self._name = name
        self._version = version
        self._backend = controller
        self._topology = topology

    async def get_plugin_info(
        self, request: csi_pb2.GetPluginInfoRequest
    ) -> csi_pb2.GetPluginInfoResponse:
        """Say the driver's name."""
        return csi_pb2.GetPluginInfoResponse(name=self._name, vendor_version=self._version)

    async def get_plugin_capabilities(
        self, request: csi_pb2.GetPluginCapabilitiesRequest
    ) -> csi_pb2.GetPluginCapabilitiesResponse:
        """Say which services there are."""
        types: list[csi_pb2.PluginCapability.Service.Type] = []
        if self._backend is not None:
            types.append(_Type.CONTROLLER_SERVICE)
        if self._topology:
            types.append(_Type.VOLUME_ACCESSIBILITY_CONSTRAINTS)
        found = [_Capability(service=_Capability.Service(type=each)) for each in types]
        if isinstance(self._backend, Expander):
            online = _Capability.VolumeExpansion(type=_Capability.VolumeExpansion.ONLINE)
            found.append(_Capability(volume_expansion=online))
        return csi_pb2.GetPluginCapabilitiesResponse(capabilities=found)

    async def probe(self, request: csi_pb2.ProbeRequest) -> csi_pb2.ProbeResponse:
        """Say that calls are answered; whether the storage system does is each call's answer."""
        return csi_pb2.ProbeResponse(ready=wrappers_pb2.BoolValue(value=True))
