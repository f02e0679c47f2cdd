"""Hangs disks into VMs and takes them out, and knows which VM holds which disk.

vCenter refuses some mistakes and the simulator almost none: the same disk twice in one VM, a
disk another VM has, a slot in use, a VM that is gone. They are looked for here first, in one
read of the VM, of all node VMs and of all VMs that use the datastore.

Invariant: all changes of one VM are made one after the other, because a slot is free only
until somebody takes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from holdfast.backends import errors
from holdfast.backends.vsphere import faults, identifiers, inventory, slots
from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.backends.vsphere.inventory import Machine
from holdfast.backends.vsphere.sdk import vim, vmodl
from holdfast.kit.locks import KeyedLocks

_PATHS = (
    "name",
    "config.uuid",
    "config.template",
    "config.version",
    "config.files.vmPathName",
    "runtime.powerState",
    "runtime.host",
    "config.hardware.device",
)
# Times a change is tried when somebody else changed the VM in between.
ATTEMPTS = 4


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
    devices: Sequence[Any]
    directory: str = ""  # of the VM's own files, on whatever datastore

    @property
    def volumes(self) -> list[Any]:
        """The disks on SCSI controllers that are volumes: not in a directory of the VM's own."""
        buses = {each.key for each in self.controllers}
        return [
            each
            for each in self.devices
            if isinstance(each, vim.vm.device.VirtualDisk)
            and each.controllerKey in buses
            and _directory(files(each.backing)[-1:]) != self.directory
        ]

    def device(self, disk: Disk) -> Any:
        """Return the device that is this disk, or None."""
        return next((each for each in self.devices if is_disk(each, disk)), None)

    @property
    def controllers(self) -> list[slots.Controller]:
        """The VM's SCSI controllers with the units in use."""
        return [
            slots.Controller(
                each.key,
                int(each.busNumber),
                controller_kind(each),
                frozenset(
                    int(one.unitNumber)
                    for one in self.devices
                    if one.controllerKey == each.key and one.unitNumber is not None
                ),
            )
            for each in self.devices
            if isinstance(each, vim.vm.device.VirtualSCSIController)
        ]


class Attachments:
    """The disks in the VMs of all vCenters."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._locks = KeyedLocks()
        self._known: dict[str, dict[str, str]] = {}  # node: managed object id by vCenter

    async def attach(self, link: Link, disk: Disk, node: str) -> None:
        """Hang the disk into the node's VM; one that hangs there already is a success."""
        found = await self.find(node)
        center = link.center.name
        moid = found.get(center, "")
        if not moid:
            raise errors.Conflict(
                f"the node's VM is in vCenter {', '.join(found)}",
                disk.file,
                "a disk can be used only in its own vCenter: limit the class to its zones",
            )
        async with self._locks.hold((center, moid)):
            for attempt in range(1, ATTEMPTS + 1):
                holders = await self._gateway.run(read, link, disk.datastore, moid)
                if _present(holders, moid, disk):
                    return
                holder = self._owner(holders, moid, node, link)
                _check_power(holder, link)
                try:
                    await self._add(link, holder, disk)
                    return
                except errors.Conflict:
                    # The VM was changed by somebody else: look again, choose another slot.
                    if attempt == ATTEMPTS:
                        raise

    async def detach(self, link: Link, disk: Disk, node: str) -> None:
        """Take the disk out of the node's VM. A VM or disk that is not there is a success."""
        center = link.center.name
        try:
            moid = (await self.find(node)).get(center, "")
        except errors.NotFound:
            return
        if not moid:
            return
        async with self._locks.hold((center, moid)):
            for attempt in range(1, ATTEMPTS + 1):
                holders = await self._gateway.run(read, link, "", moid)
                holder = next((each for each in holders if each.machine.moid == moid), None)
                device = holder.device(disk) if holder is not None else None
                if device is None:
                    return
                try:
                    await self._remove(link, moid, device)
                    return
                except (errors.NotFound, errors.Conflict):
                    if attempt == ATTEMPTS:
                        raise

    async def holders(self, link: Link, disk: Disk) -> list[Holder]:
        """Return the VMs that have the disk."""
        found = await self._gateway.run(read, link, disk.datastore, "")
        return [each for each in found if each.device(disk) is not None]

    async def find(self, node: str) -> dict[str, str]:
        """Return the managed object id of a node's VM by vCenter. Raises NotFound.

        Copies of a vCenter have VMs of the same UUID: a disk goes to the one beside it.
        """
        if node in self._known:
            return self._known[node]
        failure: errors.BackendError | None = None
        found: dict[str, str] = {}
        for link in self._gateway.links():
            try:
                moid = await self._gateway.run(_search, link, node)
            except errors.Unavailable as error:
                failure = error
                continue
            if moid:
                found[link.center.name] = moid
        if found:
            if failure is None:
                self._known[node] = found
            return found
        # A vCenter that did not answer may know the VM: that is not the same as none.
        raise failure or errors.NotFound(
            f'no VM has the UUID or name "{node}"',
            ", ".join(f"vCenter {link.center.name}" for link in self._gateway.links()),
            "check the node's providerID against the VM's BIOS UUID",
        )

    def forget(self, node: str) -> None:
        """Look the node's VM up again next time."""
        self._known.pop(node, None)

    async def state(self, node: str) -> tuple[str, Machine | None]:
        """Return the vCenter and the VM of a node; None when there is none."""
        self.forget(node)
        try:
            found = await self.find(node)
        except errors.NotFound:
            return "", None
        for center, moid in found.items():
            holders = await self._gateway.run(read, self._gateway.link(center), "", moid)
            for each in holders:
                if each.machine.moid == moid:
                    return center, each.machine
        return "", None

    def _owner(self, holders: Sequence[Holder], moid: str, node: str, link: Link) -> Holder:
        found = next((each for each in holders if each.machine.moid == moid), None)
        if found is None:
            self.forget(node)
            raise errors.NotFound(f'the VM of node "{node}" is gone', link.session.where)
        return found

    async def _add(self, link: Link, holder: Holder, disk: Disk) -> None:
        kind = link.workspace.controller
        slot = slots.choose(
            holder.controllers, kind, holder.machine.hardware, f"VM {holder.machine.name}"
        )
        ref = link.session.ref(vim.VirtualMachine, holder.machine.moid)
        changes = [] if slot.new_bus is None else [_controller(kind, slot)]
        if disk.first_class and slot.new_bus is None:
            store = link.session.ref(vim.Datastore, disk.datastore)
            id = vim.vslm.ID(id=disk.first_class)
            await self._gateway.finish(
                link, lambda: ref.AttachDisk_Task(id, store, slot.controller, slot.unit)
            )
            holders = await self._gateway.run(read, link, "", holder.machine.moid)
            if _present(holders, holder.machine.moid, disk):
                return
            # Some versions note the consumer and leave the device to the caller.
        changes.append(_disk(disk, slot))
        spec = vim.vm.ConfigSpec(deviceChange=changes)
        await self._gateway.finish(link, lambda: ref.ReconfigVM_Task(spec))

    async def _remove(self, link: Link, moid: str, device: Any) -> None:
        ref = link.session.ref(vim.VirtualMachine, moid)
        # Without a file operation the file stays.
        change = vim.vm.device.VirtualDeviceSpec(operation="remove", device=device)
        spec = vim.vm.ConfigSpec(deviceChange=[change])
        first_class = getattr(device, "vDiskId", None)
        if first_class is not None:
            try:
                await self._gateway.finish(link, lambda: ref.DetachDisk_Task(first_class))
            except (errors.NotFound, errors.Unsupported):
                pass
            holders = await self._gateway.run(read, link, "", moid)
            left = [
                each
                for holder in holders
                if holder.machine.moid == moid
                for each in holder.devices
                if each.key == device.key
            ]
            if not left:
                return
        await self._gateway.finish(link, lambda: ref.ReconfigVM_Task(spec))


def room(link: Link, node: str) -> int | None:
    """Return how many volumes the node's VM can have in all; None if it is not in this vCenter.

    The volumes it has now count; its own disks and whatever else has a slot do not. Blocks.
    """
    moid = _search(link, node)
    for each in read(link, "", moid) if moid else ():
        if each.machine.moid == moid:
            free = slots.free(each.controllers, link.workspace.controller, each.machine.hardware)
            return free + len(each.volumes)
    return None


def read_all(link: Link) -> list[Holder]:
    """Return the node VMs with their devices; without a folder, all VMs."""
    if link.workspace.folder:
        return read(link, "", "")
    found = link.reader.under(vim.VirtualMachine, _PATHS)
    return [_holder(ref, values) for ref, values in found]


def read(link: Link, datastore: str, moid: str) -> list[Holder]:
    """Return the VM, the node VMs and those that use a datastore, with their devices.

    The datastore and the VM may be empty. One call.
    """
    collector = vmodl.query.PropertyCollector
    objects = []
    if moid:
        objects.append(collector.ObjectSpec(obj=link.session.ref(vim.VirtualMachine, moid)))
    if datastore:
        walk = collector.TraversalSpec(name="vms", path="vm", skip=False, type=vim.Datastore)
        ref = link.session.ref(vim.Datastore, datastore)
        objects.append(collector.ObjectSpec(obj=ref, skip=True, selectSet=[walk]))
    if not moid or datastore:
        objects += _folder(link)
    if not objects:
        return []
    spec = collector.FilterSpec(
        objectSet=objects,
        propSet=[collector.PropertySpec(type=vim.VirtualMachine, pathSet=list(_PATHS))],
        reportMissingObjectsInResults=True,
    )
    try:
        found = link.reader.collect([spec])
    except errors.NotFound:
        # The VM or the datastore has gone meanwhile.
        return []
    # A VM may be found by several ways, and be gone already.
    by_moid = {ref._moId: _holder(ref, values) for ref, values in found if values}
    return list(by_moid.values())


def _holder(ref: Any, values: Mapping[str, Any]) -> Holder:
    devices = tuple(values.get("config.hardware.device") or ())
    directory = _directory([str(values.get("config.files.vmPathName") or "")])
    return Holder(inventory.machine(ref, values), devices, directory)


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


def attached(holders: Sequence[Holder]) -> dict[str, list[str]]:
    """Return node UUIDs by disk: `file:PATH` and `fcd:UUID@DATASTORE`."""
    found: dict[str, list[str]] = {}
    for holder in holders:
        for device in holder.devices:
            if not isinstance(device, vim.vm.device.VirtualDisk):
                continue
            first_class = getattr(device, "vDiskId", None)
            if first_class is not None:
                store = getattr(device.backing, "datastore", None)
                keys = [f"fcd:{first_class.id.lower()}@{store._moId if store else ''}"]
            else:
                keys = [f"file:{name}" for name in files(device.backing)[-1:]]
            for key in keys:
                found.setdefault(key, []).append(holder.machine.uuid)
    return found


def is_disk(device: Any, disk: Disk) -> bool:
    """Return whether a VM's device is the disk, also below a snapshot of the VM."""
    if not isinstance(device, vim.vm.device.VirtualDisk):
        return False
    first_class = getattr(device, "vDiskId", None)
    if disk.first_class and first_class is not None:
        return bool(first_class.id.lower() == disk.first_class)
    if disk.file in files(device.backing):
        return True
    uuid = getattr(device.backing, "uuid", None)
    return bool(disk.uuid and uuid and identifiers.normalise_uuid(uuid) == disk.uuid)


def files(backing: Any) -> list[str]:
    """Return the file a disk uses and those it is a difference to."""
    found = []
    while backing is not None:
        name = getattr(backing, "fileName", None)
        if name:
            found.append(str(name))
        backing = getattr(backing, "parent", None)
    return found


def controller_kind(controller: Any) -> str:
    """Return the configuration's word for a SCSI controller."""
    if isinstance(controller, vim.vm.device.ParaVirtualSCSIController):
        return "pvscsi"
    if isinstance(controller, vim.vm.device.VirtualLsiLogicSASController):
        return "lsilogic-sas"
    return "another"


def _present(holders: Sequence[Holder], moid: str, disk: Disk) -> bool:
    """Whether the VM has the disk; raises Conflict when another VM has it."""
    others = []
    for each in holders:
        if each.device(disk) is None:
            continue
        if each.machine.moid == moid:
            return True
        others.append(each.machine)
    if others:
        raise errors.Conflict(
            f"the disk is attached to VM {others[0].name} ({others[0].power})",
            disk.file,
            "a disk belongs to one VM at a time; it is detached there first",
        )
    return False


def _check_power(holder: Holder, link: Link) -> None:
    if holder.machine.power == "suspended":
        raise errors.Conflict(
            "the VM is suspended and cannot be changed",
            f"VM {holder.machine.name}",
            "resume it",
        )


def _controller(kind: str, slot: slots.Slot) -> Any:
    types: Mapping[str, Any] = {
        "pvscsi": vim.vm.device.ParaVirtualSCSIController,
        "lsilogic-sas": vim.vm.device.VirtualLsiLogicSASController,
    }
    device = types[kind](
        key=slot.controller,
        busNumber=slot.new_bus,
        sharedBus="noSharing",
        scsiCtlrUnitNumber=slots.OWN_UNIT,
        hotAddRemove=True,
    )
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def _disk(disk: Disk, slot: slots.Slot) -> Any:
    # Independent: a snapshot of the VM does not include the volume, as with the in-tree provider.
    backing = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        fileName=disk.file, diskMode="independent_persistent"
    )
    device = vim.vm.device.VirtualDisk(
        key=-1, backing=backing, controllerKey=slot.controller, unitNumber=slot.unit
    )
    if disk.first_class:
        device.vDiskId = vim.vslm.ID(id=disk.first_class)
    return vim.vm.device.VirtualDeviceSpec(operation="add", device=device)


def _search(link: Link, node: str) -> str:
    """Return the managed object id of a node's VM, or empty."""
    uuid = identifiers.node_uuid(node)
    index = link.session.content.searchIndex
    with faults.translated(link.session.where):
        if uuid:
            for candidate, instance in (
                (uuid, False),
                (identifiers.swapped_uuid(uuid), False),
                (uuid, True),
            ):
                found = index.FindByUuid(None, candidate, True, instance)
                if found is not None:
                    return str(found._moId)
            return ""
    return _by_name(link, node)


def _by_name(link: Link, name: str) -> str:
    machines = link.reader.machines(None)
    datacenter = link.reader.datacenter(link.workspace.datacenter)
    if link.workspace.folder:
        machines = link.reader.machines(link.reader.folder(datacenter, link.workspace.folder))
    found = [each for each in machines if name in (each.name, each.guest)]
    if len(found) > 1:
        raise errors.Conflict(
            f'{len(found)} VMs are called "{name}"',
            link.session.where,
            "name the node's VM by its BIOS UUID",
        )
    return found[0].moid if found else ""
