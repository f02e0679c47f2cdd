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
from holdfast.backends.vsphere import faults, holders, identifiers, slots
from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.backends.vsphere.holders import Disk, Holder
from holdfast.backends.vsphere.inventory import Machine
from holdfast.backends.vsphere.sdk import vim
from holdfast.kit.locks import KeyedLocks

# Times a change is tried when somebody else changed the VM in between.
ATTEMPTS = 4


class Refused(errors.Conflict):
    """The VM or another one stands in the way, and looking again changes nothing."""


@dataclass(frozen=True, slots=True)
class Order:
    """A change of a VM that vCenter has been told to make; without a task it was made before."""

    task: Any
    complete: bool = True  # nothing is left to be looked at afterwards


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
            by_disk, conflicts = bool(disk.first_class), 0
            while True:
                try:
                    order = await self._gateway.run(
                        self._order_adding, link, disk, node, moid, by_disk
                    )
                    if await self._done(link, order):
                        return
                    # Some versions note the consumer and leave the device to the caller.
                    by_disk = False
                except errors.Conflict as error:
                    # The VM was changed by somebody else: look again, choose another slot.
                    conflicts += 1
                    if conflicts == ATTEMPTS or isinstance(error, Refused):
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
            by_disk, failures = True, 0
            while True:
                try:
                    order = await self._gateway.run(self._order_removing, link, disk, moid, by_disk)
                    if await self._done(link, order):
                        return
                    by_disk = False
                except (errors.NotFound, errors.Conflict, errors.Unsupported) as error:
                    failures += 1
                    if failures == ATTEMPTS:
                        raise
                    by_disk = by_disk and isinstance(error, errors.Conflict)

    async def holders(self, link: Link, disk: Disk) -> list[Holder]:
        """Return the VMs that have the disk."""
        found = await self._gateway.run(holders.read, link, disk.datastore, "", disk)
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
        """Return the vCenter and the VM of a node; None when there is none.

        Where several vCenters have one, as with a copy for disasters, the one that runs counts.
        """
        self.forget(node)
        try:
            found = await self.find(node)
        except errors.NotFound:
            return "", None
        present: list[tuple[str, Machine]] = []
        for center, moid in found.items():
            link = self._gateway.link(center)
            for each in await self._gateway.run(holders.read, link, "", moid):
                if each.machine.moid == moid:
                    present.append((center, each.machine))
        present.sort(key=lambda each: each[1].power == "poweredOff")
        return present[0] if present else ("", None)

    def _owner(self, found: Sequence[Holder], moid: str, node: str, link: Link) -> Holder:
        holder = next((each for each in found if each.machine.moid == moid), None)
        if holder is None:
            self.forget(node)
            raise errors.NotFound(f'the VM of node "{node}" is gone', link.session.where)
        return holder

    async def _done(self, link: Link, order: Order) -> bool:
        if order.task is not None:
            await self._gateway.wait(link, order.task)
        return order.complete

    # What runs in one thread: look, decide, and order the change.

    def _order_adding(self, link: Link, disk: Disk, node: str, moid: str, by_disk: bool) -> Order:
        found = holders.read(link, disk.datastore, moid, disk)
        if _present(found, moid, disk):
            return Order(None)
        holder = self._owner(found, moid, node, link)
        _check_power(holder, link)
        kind = link.workspace.controller
        slot = slots.choose(
            holder.controllers, kind, holder.machine.hardware, f"VM {holder.machine.name}"
        )
        ref = link.session.ref(vim.VirtualMachine, moid)
        if by_disk and slot.new_bus is None:
            store = link.session.ref(vim.Datastore, disk.datastore)
            id = vim.vslm.ID(id=disk.first_class)
            return Order(ref.AttachDisk_Task(id, store, slot.controller, slot.unit), complete=False)
        changes = [] if slot.new_bus is None else [_controller(kind, slot)]
        spec = vim.vm.ConfigSpec(deviceChange=[*changes, _disk(disk, slot)])
        return Order(ref.ReconfigVM_Task(spec))

    def _order_removing(self, link: Link, disk: Disk, moid: str, by_disk: bool) -> Order:
        holder = next(
            (each for each in holders.read(link, "", moid) if each.machine.moid == moid), None
        )
        device = holder.device(disk) if holder is not None else None
        if device is None or holder is None or holder.owns(device):
            # A VM's own disk was never attached as a volume, and the VM cannot do without it.
            return Order(None)
        ref = link.session.ref(vim.VirtualMachine, moid)
        if by_disk and device.first_class:
            id = vim.vslm.ID(id=device.first_class)
            return Order(ref.DetachDisk_Task(id), complete=False)
        # Without a file operation the file stays.
        change = vim.vm.device.VirtualDeviceSpec(
            operation="remove", device=device.whole(link.session)
        )
        return Order(ref.ReconfigVM_Task(vim.vm.ConfigSpec(deviceChange=[change])))


def room(link: Link, node: str) -> int | None:
    """Return how many volumes the node's VM can have in all; None if it is not in this vCenter.

    The volumes it has now count; its own disks and whatever else has a slot do not. Blocks.
    """
    moid = _search(link, node)
    for each in holders.read(link, "", moid) if moid else ():
        if each.machine.moid == moid:
            free = slots.free(each.controllers, link.workspace.controller, each.machine.hardware)
            return free + len(each.volumes)
    return None


def _present(found: Sequence[Holder], moid: str, disk: Disk) -> bool:
    """Whether the VM has the disk; raises Refused when another VM has it."""
    others = []
    for each in found:
        device = each.device(disk)
        if device is None:
            continue
        if each.machine.moid == moid:
            if each.owns(device):
                raise Refused(
                    f"it is a disk of VM {each.machine.name} itself and no volume",
                    disk.file,
                    "name another file in the volume",
                )
            return True
        others.append(each.machine)
    if others:
        raise Refused(
            f"the disk is attached to VM {others[0].name} ({others[0].power})",
            disk.file,
            "a disk belongs to one VM at a time; it is detached there first",
        )
    return False


def _check_power(holder: Holder, link: Link) -> None:
    if holder.machine.power == "suspended":
        raise Refused(
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
                found = index.FindAllByUuid(None, candidate, True, instance)
                if found:
                    return _only(link, [str(each._moId) for each in found], node)
            return ""
    return _by_name(link, node)


def _only(link: Link, moids: Sequence[str], node: str) -> str:
    """Return the one VM that is the node; raises Conflict when a copy has its UUID.

    A copy that is powered off would else count for the node, whose volumes then are taken.
    """
    if len(moids) == 1:
        return moids[0]
    if link.workspace.folder:
        datacenter = link.reader.datacenter(link.workspace.datacenter)
        folder = link.reader.folder(datacenter, link.workspace.folder)
        nodes = [each.moid for each in link.reader.machines(folder) if each.moid in moids]
        if len(nodes) == 1:
            return nodes[0]
    names = sorted(each.name for each in link.reader.machines(None) if each.moid in moids)
    raise errors.Conflict(
        f'{len(moids)} VMs have the UUID of node "{node}": {", ".join(names)}',
        link.session.where,
        "keep only the node's in the folder of node VMs, or give the copy another UUID: "
        "govc vm.change -vm COPY -uuid UUID",
    )


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
