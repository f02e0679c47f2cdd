"""The vSphere backend: the asynchronous face of all vCenters.

The class's parameters decide whether a volume is a plain VMDK or a First Class Disk; from
then on its id says so. Calls for one volume are done one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from holdfast.backends import access as uses
from holdfast.backends import errors
from holdfast.backends.protocol import (
    NO_PARAMETERS,
    NO_SECRETS,
    Capacity,
    Finding,
    NodeState,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumePage,
    VolumeRequest,
    WantedClass,
)
from holdfast.backends.secretrefs import SecretSource
from holdfast.backends.vsphere import (
    checks,
    configuration,
    discovery,
    files,
    holders,
    identifiers,
    parameters,
    placement,
    topology,
)
from holdfast.backends.vsphere.attaching import Attachments
from holdfast.backends.vsphere.devices import Device
from holdfast.backends.vsphere.firstclass import FirstClassDisks
from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.backends.vsphere.holders import Disk
from holdfast.backends.vsphere.identifiers import DiskId, VmdkId, VolumeId
from holdfast.backends.vsphere.intents import Intents
from holdfast.backends.vsphere.inventory import Datastore
from holdfast.backends.vsphere.sdk import vim
from holdfast.backends.vsphere.vmdks import Vmdks, vmdk_id
from holdfast.kit.locks import KeyedLocks

# So many UUIDs are remembered; asking again costs one call.
KNOWN_UUIDS = 10_000


class VsphereBackend:
    """Volumes in the vCenters of all `[vsphere.NAME]` instances; the first is home."""

    clones: Literal[True] = True

    def __init__(self, instances: Mapping[str, Mapping[str, object]], directory: Path) -> None:
        self.gateway = Gateway(configuration.read(instances))
        self._attachments = Attachments(self.gateway)
        intents = Intents(directory)
        self._vmdks = Vmdks(self.gateway, self._attachments, intents)
        self._disks = FirstClassDisks(self.gateway, self._attachments, intents)
        self._locks = KeyedLocks()
        # UUIDs of disks by volume id, where an id never comes to mean another disk.
        self._uuids: dict[str, str] = {}
        # Volume ids by vCenter and UUID, to call an attached disk what its volume is called.
        self._known: dict[tuple[str, str], str] = {}

    async def close(self) -> None:
        """Wait for running calls, log out, end the threads."""
        await self.gateway.close()

    def use_secrets(self, read: SecretSource) -> None:
        """Read the Secrets that a `vsphere.conf` names by this."""
        self.gateway.logins.use(read)

    # Volumes.

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Make the volume, or return the one an equal request made."""
        wish = parameters.read(request.parameters)
        _check(request)
        link = self.gateway.link(wish.center, request.secrets)
        async with self._locks.hold(request.name):
            if wish.disk == "fcd":
                made = await self._disks.create(link, request, wish)
            else:
                made = await self._vmdks.create(link, request, wish)
        return await self.gateway.run(_placed, link, made, request)

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """Return what was made, or begun, for the request."""
        try:
            wish = parameters.read(request.parameters)
        except errors.Invalid:
            return None
        link = self.gateway.link(wish.center, request.secrets)
        async with self._locks.hold(request.name):
            if wish.disk == "fcd":
                return await self._disks.find(link, request, wish)
            return await self._vmdks.find(link, request, wish)

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the volume. Raises Conflict naming the VM that has it."""
        try:
            found = identifiers.read(id)
        except errors.NotFound:
            return
        link = self._link(found, secrets)
        async with self._locks.hold(str(found)):
            self._uuids.pop(str(found), None)
            if isinstance(found, DiskId):
                await self._disks.delete(link, found)
            else:
                await self._vmdks.delete(link, found)

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """Return the volume. Raises NotFound."""
        found = identifiers.read(id)
        link = self._link(found, secrets)
        if isinstance(found, DiskId):
            return await self._disks.get(link, found)
        return await self._vmdks.get(link, found)

    async def check_use(self, volume: Volume, wanted: VolumeRequest) -> None:
        """Raise Invalid where several VMs would have the disk."""
        _check_access(wanted.access)

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List the volumes we made in the home datacenters of all instances, by id."""
        pages = await asyncio.gather(
            *(self._vmdks.everything(link) for link in self._homes()),
            *(self._disks.everything(link) for link in self._homes()),
        )
        volumes = sorted((each for page in pages for each in page), key=lambda each: each.id)
        rest = [each for each in volumes if each.id > token] if token else volumes
        if limit <= 0 or len(rest) <= limit:
            return VolumePage(rest)
        return VolumePage(rest[:limit], rest[limit - 1].id)

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """Grow the volume, attached or not; one that is large enough is left as it is."""
        found = identifiers.read(id)
        if size > placement.LARGEST:
            raise errors.Invalid("larger than a virtual disk can be", id, "at most 62Ti")
        link = self._link(found, secrets)
        async with self._locks.hold(str(found)):
            if isinstance(found, DiskId):
                return await self._disks.expand(link, found, size)
            return await self._vmdks.expand(link, found, size)

    async def capacity(self, parameters_: Mapping[str, str]) -> Capacity:
        """Return the room on the datastores a class may use."""
        wish = parameters.read(parameters_)
        link = self.gateway.link(wish.center)
        try:
            found, _ = await self.gateway.run(placement.candidates, link, wish, 0)
        except errors.Exhausted:
            return Capacity(0, 0)
        return Capacity(sum(each.capacity for each in found), sum(each.free for each in found))

    # Snapshots.

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """Take a snapshot of a First Class Disk; a plain VMDK has none."""
        found = identifiers.read(volume_id)
        if not isinstance(found, DiskId):
            raise errors.Unsupported(
                "a plain VMDK has no snapshots of its own",
                volume_id,
                "use a class of csi.vsphere.vmware.com, whose disks are First Class Disks",
            )
        async with self._locks.hold(("snapshot", name)):
            return await self._disks.create_snapshot(self._link(found, secrets), name, found)

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the snapshot. One that is gone already is a success."""
        try:
            found = identifiers.read_snapshot(id)
        except errors.NotFound:
            return
        await self._disks.delete_snapshot(self._link(found.disk, secrets), found)

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """Return the snapshot. Raises NotFound."""
        found = identifiers.read_snapshot(id)
        return await self._disks.get_snapshot(self._link(found.disk, secrets), found)

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """List the snapshots of our First Class Disks, by id."""
        pages = await asyncio.gather(*(self._disks.list_snapshots(one) for one in self._homes()))
        found = sorted((each for page in pages for each in page), key=lambda each: each.id)
        rest = [each for each in found if each.id > token] if token else found
        if limit <= 0 or len(rest) <= limit:
            return SnapshotPage(rest)
        return SnapshotPage(rest[:limit], rest[limit - 1].id)

    # Nodes.

    async def attach(
        self, id: str, node: str, read_only: bool, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Mapping[str, str]:
        """Hang the disk into the node's VM; returns the UUID under which the guest sees it."""
        found = identifiers.read(id)
        link, disk = await self._disk(found, secrets)
        async with self._locks.hold(str(found)):
            await self._attachments.attach(link, disk, node)
        kind = "vSphere CNS Block Volume" if disk.first_class else "vSphere VMDK Volume"
        return {"diskUUID": disk.uuid, "type": kind}

    async def detach(self, id: str, node: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Take the disk out of the node's VM. Disk or VM gone is a success."""
        try:
            found = identifiers.read(id)
        except errors.NotFound:
            return
        async with self._locks.hold(str(found)):
            try:
                link, disk = await self._disk(found, secrets)
            except errors.NotFound:
                # The file is gone; a VM may still have the device.
                link = self._link(found, secrets)
                file = found.file if isinstance(found, VmdkId) else ""
                uuid = found.uuid if isinstance(found, DiskId) else ""
                disk = Disk(file, self._uuids.get(str(found), ""), "", uuid)
            await self._attachments.detach(link, disk, node)

    async def attachments(self) -> Mapping[str, Sequence[str]]:
        """Return the node VMs' UUIDs by volume id."""
        found: dict[str, list[str]] = {}
        for link in self._homes():
            machines = await self.gateway.run(holders.read_all, link)
            stores = await self.gateway.run(_stores, link)
            for device, node in holders.attached(machines):
                id = self._id_of(link, device, stores)
                if node not in found.setdefault(id, []):
                    found[id].append(node)
        return found

    def _id_of(self, link: Link, device: Device, stores: Mapping[str, Datastore]) -> str:
        """Return the volume id of a disk that hangs in a VM."""
        if device.first_class:
            at_home = link.center.name == self.gateway.home.home.name
            center = "" if at_home else link.center.name
            return str(DiskId(device.first_class, device.datastore, center))
        known = self._known.get((link.center.name, identifiers.normalise_uuid(device.uuid)))
        if device.uuid and known is not None:
            # vSAN writes another directory into a VM than the one it was given.
            return known
        name = device.files[-1]
        store = stores.get(device.datastore)
        try:
            id = identifiers.read(name)
        except errors.NotFound:
            return name
        if store is None or not isinstance(id, VmdkId):
            return name
        return str(vmdk_id(self.gateway, link, store, id.path))

    async def node_state(self, node: str) -> NodeState:
        """Return what vCenter says of the node's VM."""
        try:
            center, machine = await self._attachments.state(node)
        except errors.BackendError as error:
            return NodeState("unknown", str(error))
        if machine is None:
            return NodeState("gone", f"no vCenter has a VM {node}")
        link = self.gateway.link(center)
        where = f"VM {machine.name} in vCenter {center}"
        host = (await self.gateway.run(link.reader.hosts)).get(machine.host)
        # What vCenter says of a VM whose host it does not hear is how things were once.
        if host is not None and not host.connected:
            return NodeState("unknown", f"{where}: its host {host.name} is not connected")
        if machine.connection not in ("", "connected"):
            return NodeState("unknown", f"{where} is {machine.connection}")
        if machine.power == "poweredOff":
            return NodeState("stopped", f"{where} is powered off")
        if machine.power == "poweredOn":
            return NodeState("running", f"{where} is powered on")
        return NodeState("running", f"{where} is {machine.power} and may go on")

    async def machine_names(self, node: str) -> Sequence[str]:
        """Return what the node's VM is called, and its guest where VMware Tools say so."""
        center, machine = await self._attachments.state(node)
        if machine is None:
            return ()
        link = self.gateway.link(center)
        ref = link.session.ref(vim.VirtualMachine, machine.moid)
        found = await self.gateway.run(link.reader.properties, [ref], ["guest.hostName"])
        guest = str(found[0].get("guest.hostName") or "")
        return tuple(dict.fromkeys(each for each in (machine.name, guest) if each))

    # Checks and classes.

    async def checks(self) -> Sequence[Finding]:
        """Test login, privileges, VMs, datastores, policies and tags of all instances."""
        return await checks.run(self.gateway)

    async def check_class(
        self, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Sequence[Finding]:
        """Test whether a volume of the class could be placed now."""
        return await checks.run_class(self.gateway, parameters, secrets)

    async def node_labels(self, node: str) -> Mapping[str, str]:
        """Return region and zone of the node's VM as labels of the node."""
        center, machine = await self._attachments.state(node)
        if machine is None:
            return {}
        link = self.gateway.link(center)
        return await self.gateway.run(discovery.labels, link, machine)

    async def wanted_classes(self) -> Sequence[WantedClass]:
        """Return the classes that the tags of datastores ask for."""
        return await discovery.wanted(self.gateway)

    def _homes(self) -> list[Link]:
        return [
            self.gateway.link(workspace.home.name) for workspace in self.gateway.workspaces.values()
        ]

    def _link(self, id: VolumeId, secrets: Mapping[str, str]) -> Link:
        return self.gateway.link(id.center, secrets)

    async def _disk(self, id: VolumeId, secrets: Mapping[str, str]) -> tuple[Link, Disk]:
        link = self._link(id, secrets)
        known = self._uuids.get(str(id), "")
        if isinstance(id, DiskId):
            _, disk = await self._disks.disk(link, id, known)
        else:
            _, _, disk = await self._vmdks.disk(link, id, known)
        if len(self._known) >= KNOWN_UUIDS:
            self._known.clear()
        self._known[link.center.name, disk.uuid] = str(id)
        # A file made by hand can be replaced by another of its name; ours are named once.
        if isinstance(id, DiskId) or identifiers.PREFIX in id.path:
            if len(self._uuids) >= KNOWN_UUIDS:
                self._uuids.clear()
            self._uuids[str(id)] = disk.uuid
        return link, disk


def _stores(link: Link) -> dict[str, Datastore]:
    return {
        each.moid: each
        for datacenter in link.reader.datacenters()
        for each in link.reader.datastores(datacenter)
    }


def _placed(link: Link, volume: Volume, request: VolumeRequest) -> Volume:
    """Return the volume with the zone it is bound to: its request's, or its datastore's."""
    known = topology.read(link)
    if not known.zones:
        where = topology.of_volume(request.topology, ())
        return replace(volume, topology=where) if topology.zoned(request.topology) else volume
    found = identifiers.read(volume.id)
    if isinstance(found, VmdkId):
        store: Datastore | None = files.datastore_at(link, found)[1]
    else:
        store = _stores(link).get(found.datastore)
    zones = known.zones.get(store.moid, ()) if store is not None else ()
    if topology.zoned(request.topology):
        return replace(volume, topology=topology.of_volume(request.topology, zones))
    if store is None or not zones:
        return volume
    # Only the nodes of its zones need to reach the datastore, and so no other may get the volume.
    regions = known.regions.get(store.datacenter.moid, ())
    return replace(volume, topology=topology.of_datastore(regions, zones))


def _check(request: VolumeRequest) -> None:
    _check_access(request.access)
    if request.size <= 0:
        raise errors.Invalid(f"{request.size} bytes are no size", "vSphere", "")


def _check_access(access: Sequence[str]) -> None:
    shared = sorted({*uses.SHARED} & {*access})
    if shared:
        raise errors.Invalid(
            f"a virtual disk belongs to one VM at a time and cannot be {', '.join(shared)}",
            "vSphere",
            "ask for ReadWriteOnce, or use a network file system",
        )
