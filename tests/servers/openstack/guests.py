"""Servers of Nova's fake hypervisor for tests: booted, stopped, moved, deleted, lost."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

from openstack import warnings as os_warnings

from servers.openstack import catalog
from servers.openstack.cloud import Cloud


class Guests:
    """Servers by name, in project kubernetes. `admin` is an administrator's connection."""

    def __init__(self, cloud: Cloud, admin: Any) -> None:
        self._cloud = cloud
        self._admin = admin
        self._ids: dict[str, str] = {}

    def boot(self, name: str) -> str:
        """Boot a server, or return the id of the one with this name."""
        if name in self._ids:
            return self._ids[name]
        compute = self._admin.compute
        flavor = compute.find_flavor("k8s") or compute.create_flavor(
            name="k8s", ram=512, vcpus=1, disk=0
        )
        with catalog.connected(self._cloud.ports, admin=False) as member:
            root = member.block_storage.create_volume(
                name=f"root-{name}", size=1, volume_type="file"
            )
            self._until(lambda: member.block_storage.get_volume(root.id).status == "available")
            member.block_storage.set_volume_bootable_status(root.id, True)
            disk = {
                "uuid": root.id,
                "source_type": "volume",
                "destination_type": "volume",
                "boot_index": 0,
                "delete_on_termination": True,
            }
            server = member.compute.create_server(
                name=name,
                flavor_id=flavor.id,
                networks="none",
                config_drive=True,
                block_device_mapping=[disk],
            )
        self._ids[name] = str(server.id)
        self.await_status(name, "ACTIVE")
        return str(server.id)

    def root(self, name: str) -> Path:
        """The directory that stands for the server's file system."""
        return self._cloud.guests / name

    def stop(self, name: str) -> None:
        """Shut the server down."""
        self._admin.compute.stop_server(self._ids[name])
        self.await_status(name, "SHUTOFF")

    def start(self, name: str) -> None:
        """Start the server again."""
        self._admin.compute.start_server(self._ids[name])
        self.await_status(name, "ACTIVE")

    def reboot(self, name: str) -> None:
        """Reboot the server hard."""
        self._admin.compute.reboot_server(self._ids[name], "HARD")
        self.await_status(name, "ACTIVE")

    def host(self, name: str) -> str:
        """The compute host the server is on."""
        return str(self._admin.compute.get_server(self._ids[name]).compute_host)

    def migrate(self, name: str) -> None:
        """Move the running server to another compute host."""
        before = self.host(name)
        self._admin.compute.live_migrate_server(self._ids[name], block_migration="auto")
        self._until(lambda: self.host(name) != before)
        self.await_status(name, "ACTIVE")

    def migrate_cold(self, name: str) -> None:
        """Shut the server down, move it, and start it on another host, not confirmed yet."""
        self._admin.compute.migrate_server(self._ids[name])
        self.await_status(name, "VERIFY_RESIZE")

    def confirm(self, name: str) -> None:
        """Confirm a cold migration."""
        self._admin.compute.confirm_server_resize(self._ids[name])
        self.await_status(name, "ACTIVE")

    def force_down(self, host: str, down: bool = True) -> None:
        """Declare a compute host dead, or take that back."""
        found = [
            each
            for each in self._admin.compute.services(binary="nova-compute")
            if each.host == host
        ]
        self._admin.compute.update_service_forced_down(found[0], forced=down)

    def evacuate(self, name: str) -> None:
        """Rebuild the server of a dead compute host on another one."""
        before = self.host(name)
        self._admin.compute.evacuate_server(self._ids[name])
        self._until(lambda: self.host(name) != before)
        self._until(lambda: not self._server(name).task_state)

    def delete(self, name: str) -> None:
        """Delete the server and wait until it is gone."""
        id = self._ids.pop(name)
        self._admin.compute.delete_server(id)
        self._until(lambda: self._admin.compute.find_server(id, all_projects=True) is None)

    def delete_all(self) -> None:
        """Delete what is left, at the end of a process: then its last test would be warned."""
        with warnings.catch_warnings():
            # openstacksdk warns of how openstacksdk itself uses its resources.
            warnings.simplefilter("ignore", os_warnings._RemovedInSDKWarning)
            for name in list(self._ids):
                self.delete(name)

    def await_status(self, name: str, status: str) -> None:
        """Wait until Nova has finished what it does with the server."""

        def reached() -> bool:
            found = self._server(name)
            assert found.status != "ERROR" or status == "ERROR", found.fault
            return found.status == status and not found.task_state

        self._until(reached)

    def _server(self, name: str) -> Any:
        return self._admin.compute.get_server(self._ids[name])

    @staticmethod
    def _until(done: Any, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not within {seconds:g} s"
            time.sleep(0.1)
