"""Registration with kubelet, which is otherwise a sidecar's work (node-driver-registrar).

Kubelet watches a directory for sockets. It calls `GetInfo` on each, learns the driver's
name and socket, tries it, and calls `NotifyRegistrationStatus`. After a refusal, or when
the socket file was removed (kubelet's directory was cleaned), the socket is made anew,
which makes kubelet look again.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from holdfast.csi import service
from holdfast.csi.serving import Server
from holdfast.csi.wire import pluginregistration_pb2

log = logging.getLogger("holdfast.csi")

KUBELET = Path("/var/lib/kubelet")
VERSIONS = ("1.0.0",)

_SERVICE = pluginregistration_pb2.DESCRIPTOR.services_by_name["Registration"]
LOOK_SECONDS = 5.0
AGAIN_SECONDS = 10.0


def driver_socket(kubelet: Path, driver: str) -> Path:
    """Return where a driver serves CSI for kubelet."""
    return kubelet / "plugins" / driver / "csi.sock"


def registration_socket(kubelet: Path, driver: str) -> Path:
    """Return where kubelet looks for a driver's registration."""
    return kubelet / "plugins_registry" / f"{driver}-reg.sock"


class Registration:
    """Registers one driver for as long as `run` runs. `refusal` is kubelet's last word."""

    def __init__(self, kubelet: Path, driver: str, endpoint: Path) -> None:
        self._driver = driver
        self._endpoint = endpoint
        self._server = Server(
            registration_socket(kubelet, driver), [service.handler(_SERVICE, self)]
        )
        self.registered = False
        self.refusal = ""
        self._told = asyncio.Event()

    async def get_info(
        self, request: pluginregistration_pb2.InfoRequest
    ) -> pluginregistration_pb2.PluginInfo:
        """Tell kubelet the driver's name and where it serves."""
        return pluginregistration_pb2.PluginInfo(
            type="CSIPlugin",
            name=self._driver,
            endpoint=str(self._endpoint),
            supported_versions=VERSIONS,
        )

    async def notify_registration_status(
        self, request: pluginregistration_pb2.RegistrationStatus
    ) -> pluginregistration_pb2.RegistrationStatusResponse:
        """Learn whether kubelet took the driver."""
        self.registered = request.plugin_registered
        self.refusal = "" if self.registered else request.error or "no reason given"
        if self.registered:
            log.info("registered with kubelet", extra={"driver": self._driver})
        else:
            log.error(
                "kubelet refused the driver, registering again later",
                extra={"driver": self._driver, "error": self.refusal},
            )
        self._told.set()
        return pluginregistration_pb2.RegistrationStatusResponse()

    async def run(self) -> None:
        """Keep the driver registered until cancelled."""
        await self._server.start()
        try:
            while True:
                self._told.clear()
                try:
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._told.wait()
                except TimeoutError:
                    pass
                if self.refusal:
                    await asyncio.sleep(AGAIN_SECONDS)
                if self.refusal or self._server.lost:
                    self.refusal = ""
                    await self._again()
        finally:
            await self._server.stop()

    async def _again(self) -> None:
        log.info("offering the driver to kubelet again", extra={"driver": self._driver})
        await self._server.stop()
        await self._server.start()
