"""vSphere volumes on the machine that uses them: a VM sees its disks as SCSI devices.

vCenter tells the disk's UUID; with `disk.enableUUID` the guest sees the same UUID as the
device's WWN, so the device is `/dev/disk/by-id/wwn-0x<uuid>` and nothing has to be guessed.
A disk that was hung in while the machine runs may need the SCSI hosts to be scanned, a
grown one a rescan of its device.

What finds devices and scans is behind `Guest`, because only a VM has such disks.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from holdfast.backends import blockdevices, errors
from holdfast.backends.protocol import (
    Connected,
    Device,
    Finding,
    NodeInfo,
    VolumeHandle,
)
from holdfast.backends.secretrefs import SecretSource
from holdfast.backends.vsphere import identifiers
from holdfast.backends.vsphere.secretlogins import SecretLogins

BY_ID = Path("/dev/disk/by-id")
DMI = Path("/sys/class/dmi/id")
SCSI_HOSTS = Path("/sys/class/scsi_host")
BLOCK = Path("/sys/class/block")
# vCenter has hung the disk in by then; the guest and udev need a moment.
APPEAR_SECONDS = 10.0
POLL = 0.1
# What fits beside the system's disk when nobody can be asked: four controllers of 15.
MAX_VOLUMES = 59
# A node does not wait longer than this to be told how many slots its VM has.
ROOM_SECONDS = 10.0
# Names the VM of a node whose firmware does not: one machine may play several nodes.
NOTE = "vm-uuid"


log = logging.getLogger("holdfast.backends")

# Asks how many volumes a node's VM can have; blocks.
Room = Callable[[str], int]


class Guest(Protocol):
    """How the disks of this machine are found."""

    def find(self, uuid: str) -> Path | None:
        """Return the device of a disk, or None while it is not there."""
        ...

    def scan(self) -> None:
        """Have the machine look for new disks."""
        ...

    def refresh(self, device: Path) -> None:
        """Have the machine read a disk's size again."""
        ...

    def machine_id(self) -> str:
        """Return the UUID of this VM as its firmware says it; empty when there is none."""
        ...


class LinuxGuest:
    """A Linux guest of vSphere. The directories are parameters for machines that differ."""

    def __init__(
        self,
        by_id: Path = BY_ID,
        dmi: Path = DMI,
        scsi_hosts: Path = SCSI_HOSTS,
        block: Path = BLOCK,
    ) -> None:
        self._by_id = by_id
        self._dmi = dmi
        self._scsi_hosts = scsi_hosts
        self._block = block

    def find(self, uuid: str) -> Path | None:
        """Return what the link that udev makes for the disk's WWN points to."""
        link = self._by_id / f"wwn-0x{uuid}"
        device = link.resolve() if link.exists() else None
        return device if device is not None and self._is(device, uuid) else None

    def _is(self, device: Path, uuid: str) -> bool:
        """Whether the kernel calls the disk so: a link may be older than the disk behind it."""
        try:
            said = (self._block / device.name / "device" / "wwid").read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return True
        kind, _, name = said.strip().lower().partition(".")
        return kind != "naa" or name == uuid

    def scan(self) -> None:
        """Scan all SCSI hosts; one that cannot be scanned is not where disks come from."""
        for host in sorted(self._scsi_hosts.glob("host*")):
            with contextlib.suppress(OSError):
                (host / "scan").write_text("- - -\n")

    def refresh(self, device: Path) -> None:
        """Rescan the device where the kernel has something to rescan."""
        with contextlib.suppress(OSError):
            (self._block / device.name / "device" / "rescan").write_text("1\n")

    def machine_id(self) -> str:
        """Return the serial number's UUID, whose byte order is vCenter's, or the product's."""
        for name in ("product_serial", "product_uuid"):
            try:
                text = (self._dmi / name).read_text(encoding="ascii", errors="replace").strip()
            except OSError:
                continue
            if name == "product_serial" and not text.startswith("VMware-"):
                continue
            found = identifiers.node_uuid(text)
            if found:
                return found
        return ""


class VsphereNodeSide:
    """Connects vSphere disks on one machine.

    `node_id` stands in for what the firmware says, on a machine that plays several nodes.
    """

    def __init__(
        self,
        guest: Guest | None = None,
        *,
        node_id: str = "",
        room: Room | None = None,
        logins: SecretLogins | None = None,
        patience: float = APPEAR_SECONDS,
    ) -> None:
        self._guest = guest or LinuxGuest()
        self._node_id = node_id
        self._room = room
        self._logins = logins or SecretLogins()
        self._patience = patience

    def use_secrets(self, read: SecretSource) -> None:
        """Read the Secrets that a `vsphere.conf` names by this."""
        self._logins.use(read)

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Return the disk's device once it is there, with its size as it is now."""
        uuid = context.get("diskUUID") or volume.context.get("diskUUID") or ""
        if not uuid:
            raise errors.NotFound(
                "the disk is not attached to this machine: its UUID is not known",
                volume.id,
                "it appears when the volume's VolumeAttachment is attached",
            )
        return await asyncio.to_thread(self._connect, volume, identifiers.normalise_uuid(uuid))

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Do nothing: the disk goes when vCenter takes it out of the VM."""

    async def describe(self) -> NodeInfo:
        """Return the VM's UUID. Raises NotFound on a machine that is no VM of vSphere."""
        found = self._node_id or await asyncio.to_thread(self._guest.machine_id)
        if not found:
            raise errors.NotFound(
                "this machine is no VM of vSphere: its firmware names no UUID",
                str(DMI / "product_serial"),
                f"run as root, or write the VM's UUID to the file {NOTE} of the node",
            )
        return NodeInfo(found, max_volumes=await self._most(found))

    async def _most(self, node: str) -> int:
        """Return how many volumes fit, as vCenter says; a guess where it cannot be asked."""
        if self._room is None:
            return MAX_VOLUMES
        self._logins.enter(asyncio.get_running_loop())
        try:
            async with asyncio.timeout(ROOM_SECONDS):
                return await asyncio.to_thread(self._room, node)
        except (errors.BackendError, TimeoutError) as error:
            why = str(error) or "no answer in time"
            log.info("slots not counted", extra={"node": node, "guess": MAX_VOLUMES, "why": why})
            return MAX_VOLUMES

    async def checks(self) -> list[Finding]:
        """Test what a guest needs: its own UUID, and disks that carry theirs."""
        found = self._node_id or await asyncio.to_thread(self._guest.machine_id)
        if not found:
            return [
                Finding(
                    "vSphere VM",
                    "warning",
                    "this machine names no VM UUID, so disks cannot be attached to it",
                    str(DMI),
                    "run Holdfast as root in a VM of vSphere",
                )
            ]
        return [Finding("vSphere VM", "ok", f"BIOS UUID {found}", str(DMI))]

    def _connect(self, volume: VolumeHandle, uuid: str) -> Device:
        path = self._guest.find(uuid)
        deadline = time.monotonic() + self._patience
        while path is None:
            self._guest.scan()
            path = self._guest.find(uuid)
            if path is None and time.monotonic() > deadline:
                raise errors.NotFound(
                    f"no device for the attached disk within {self._patience:g} s",
                    f"{BY_ID}/wwn-0x{uuid}",
                    "set disk.enableUUID=TRUE on the VM and restart it: "
                    "holdfast prepare vsphere nodes",
                )
            if path is None:
                time.sleep(POLL)
        self._guest.refresh(path)
        found = blockdevices.describe(path)
        # The kernel's name is given again to another disk; the UUID is not.
        return Device(found.path, f"vsphere:{uuid}", found.size)


def node_side(instances: Mapping[str, Mapping[str, object]], directory: Path) -> VsphereNodeSide:
    """Return the node side of this machine.

    An instance's `device_dir` says where udev's links are if not in /dev/disk/by-id; the file
    `vm-uuid` in the node's own directory which VM it is, where the firmware does not say it.
    """
    given = [str(each["device_dir"]) for each in instances.values() if each.get("device_dir")]
    by_id = Path(given[0]).expanduser() if given else BY_ID
    noted = directory / NOTE
    node_id = noted.read_text(encoding="utf-8").strip() if noted.is_file() else ""
    logins = SecretLogins()
    return VsphereNodeSide(
        LinuxGuest(by_id),
        node_id=identifiers.node_uuid(node_id) or node_id,
        logins=logins,
        room=functools.partial(_room, instances, logins) if _connected(instances) else None,
    )


def _connected(instances: Mapping[str, Mapping[str, object]]) -> bool:
    """Whether a vCenter is configured on this machine; a plain CSI node knows none."""
    return any(each.get("server") or each.get("config") for each in instances.values())


def _room(instances: Mapping[str, Mapping[str, object]], logins: SecretLogins, node: str) -> int:
    # Only here: a node that asks no vCenter does without its library.
    from holdfast.backends.vsphere import attaching, configuration, faults
    from holdfast.backends.vsphere.gateway import Gateway

    gateway = Gateway(configuration.read(instances), logins)
    try:
        for link in gateway.links():
            with faults.translated(link.session.where):
                found = attaching.room(link, node)
            if found is not None:
                return found
    finally:
        gateway.shut()
    raise errors.NotFound(f'no VM has the UUID or name "{node}"', "vSphere")
