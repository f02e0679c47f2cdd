"""Which VM holds which disk: the VMs with their devices, as vCenter has them at this moment.

One read gives a VM, all node VMs and all VMs that use a datastore. Nothing is kept from it: a
VM may be changed by anybody at any time, and a disk that hangs in two of them is destroyed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from holdfast.backends import errors
from holdfast.backends.vsphere import devices, identifiers, sieves, slots
from holdfast.backends.vsphere.devices import Device
from holdfast.backends.vsphere.gateway import Link
from holdfast.backends.vsphere.inventory import Machine
from holdfast.backends.vsphere.sdk import vim, vmodl

_PATHS = (
    "name",
    "config.uuid",
    "config.template",
    "config.version",
    "config.files.vmPathName",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.host",
    "config.hardware.device",
)


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk to be found in a VM: by its file, its UUID, or as a First Class Disk."""

    file: str
    uuid: str  # normalised; empty if it is not known
    datastore: str  # managed object id
    first_class: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """A VM with the devices it has."""

    machine: Machine
    devices: Sequence[Device]
    directory: str = ""  # of the VM's own files, on whatever datastore

    @property
    def volumes(self) -> list[Device]:
        """The disks on SCSI controllers that are volumes: not in a directory of the VM's own."""
        buses = {each.key for each in self.controllers}
        return [
            each
            for each in self.devices
            if each.is_disk
            and each.controller in buses
            and _directory(each.files[-1:]) != self.directory
        ]

    def owns(self, device: Device) -> bool:
        """Return whether a disk is the VM's own, such as the one it boots from.

        It lies beside the VM's other files, and nobody who attaches volumes attached it: that is
        always done with a mode that keeps a disk out of the VM's snapshots.
        """
        inside = bool(self.directory) and _directory(device.files[-1:]) == self.directory
        return inside and not device.first_class and device.mode.startswith("persistent")

    def device(self, disk: Disk) -> Device | None:
        """Return the device that is this disk, or None."""
        return next((each for each in self.devices if is_disk(each, disk)), None)

    @property
    def controllers(self) -> list[slots.Controller]:
        """The VM's SCSI controllers with the units in use."""
        return [
            slots.Controller(
                each.key,
                each.bus or 0,
                each.scsi,
                frozenset(
                    one.unit
                    for one in self.devices
                    if one.controller == each.key and one.unit is not None
                ),
            )
            for each in self.devices
            if each.scsi
        ]


def read_all(link: Link) -> list[Holder]:
    """Return the node VMs with their devices; without a folder, all VMs."""
    if link.workspace.folder:
        return read(link, "", "")
    found = link.reader.under(vim.VirtualMachine, ["name"])
    return _collect(link, [_objects(ref) for ref, _ in found])


def read(link: Link, datastore: str, moid: str, disk: Disk | None = None) -> list[Holder]:
    """Return the VM, the node VMs and those that use a datastore, with their devices.

    The datastore and the VM may be empty. With a disk, VMs that do not have it may be missing,
    but for the VM itself. One call.
    """
    collector = vmodl.query.PropertyCollector
    objects = []
    if moid:
        objects.append(_objects(link.session.ref(vim.VirtualMachine, moid)))
    if datastore:
        walk = collector.TraversalSpec(name="vms", path="vm", skip=False, type=vim.Datastore)
        ref = link.session.ref(vim.Datastore, datastore)
        objects.append(collector.ObjectSpec(obj=ref, skip=True, selectSet=[walk]))
    if not moid or datastore:
        objects += _folder(link)
    wanted = None
    if disk is not None:
        wanted = sieves.for_disk(moid, disk.file, disk.uuid, disk.first_class)
    return _collect(link, objects, wanted)


def _objects(ref: Any) -> Any:
    return vmodl.query.PropertyCollector.ObjectSpec(obj=ref)


def _collect(link: Link, objects: Sequence[Any], sieve: sieves.Sieve | None = None) -> list[Holder]:
    if not objects:
        return []
    collector = vmodl.query.PropertyCollector
    spec = collector.FilterSpec(
        objectSet=list(objects),
        propSet=[collector.PropertySpec(type=vim.VirtualMachine, pathSet=list(_PATHS))],
        reportMissingObjectsInResults=True,
    )
    try:
        found = list(devices.collect(link.session, [spec], sieve))
    except errors.NotFound:
        # The VM or the datastore has gone meanwhile.
        return []
    # A VM may be found by several ways, and be gone already.
    by_moid = {moid: _holder(moid, values) for moid, values in found if values}
    return list(by_moid.values())


def _holder(moid: str, values: Mapping[str, Element]) -> Holder:
    def text(path: str) -> str:
        found = values.get(path)
        return (found.text or "") if found is not None else ""

    machine = Machine(
        moid=moid,
        name=unquote(text("name")),
        uuid=text("config.uuid").lower(),
        power=text("runtime.powerState"),
        host=text("runtime.host"),
        connection=text("runtime.connectionState"),
        hardware=text("config.version"),
        template=text("config.template") in ("true", "1"),
    )
    directory = _directory([text("config.files.vmPathName")])
    return Holder(machine, devices.read(values.get("config.hardware.device")), directory)


def _directory(names: Sequence[str]) -> str:
    """Return the directory of `[datastore] directory/file`, without the datastore."""
    path = names[0].partition("]")[2].strip() if names else ""
    return path.rpartition("/")[0]


def _folder(link: Link) -> list[Any]:
    """Return what walks through the folder of the node VMs and the folders in it."""
    if not link.workspace.folder:
        return []
    try:
        datacenter = link.reader.datacenter(link.workspace.datacenter)
        folder = link.reader.folder(datacenter, link.workspace.folder)
    except errors.NotFound:
        return []
    collector = vmodl.query.PropertyCollector
    walk = collector.TraversalSpec(
        name="folders",
        path="childEntity",
        skip=False,
        type=vim.Folder,
        selectSet=[collector.SelectionSpec(name="folders")],
    )
    return [collector.ObjectSpec(obj=folder, skip=True, selectSet=[walk])]


def attached(holders: Sequence[Holder]) -> list[tuple[Device, str]]:
    """Return the disks in the VMs, each with the UUID of its node."""
    return [
        (device, holder.machine.uuid)
        for holder in holders
        for device in holder.devices
        if device.is_disk and (device.first_class or device.files)
    ]


def is_disk(device: Device, disk: Disk) -> bool:
    """Return whether a VM's device is the disk, also below a snapshot of the VM."""
    if not device.is_disk:
        return False
    if disk.first_class and device.first_class:
        return device.first_class == disk.first_class
    if disk.file in device.files:
        return True
    return bool(disk.uuid and identifiers.normalise_uuid(device.uuid) == disk.uuid)
