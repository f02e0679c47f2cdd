"""Volumes that are plain VMDK files, laid out as the in-tree provider did.

A volume is `[datastore] kubevols/kubernetes-dynamic-NAME.vmdk`. Its name decides its path,
so whoever asks twice finds the first: vCenter refuses a second file of that name. Where the
class leaves the datastore open, the others are looked at before a file is made on one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from holdfast.backends import errors
from holdfast.backends.protocol import Volume, VolumeRequest
from holdfast.backends.vsphere import (
    files,
    identifiers,
    inventory,
    legacy,
    placement,
    policies,
)
from holdfast.backends.vsphere.attaching import Attachments
from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.backends.vsphere.holders import Disk, Holder
from holdfast.backends.vsphere.identifiers import VmdkId
from holdfast.backends.vsphere.intents import Intent, Intents
from holdfast.backends.vsphere.inventory import Datacenter, Datastore
from holdfast.backends.vsphere.parameters import Wish
from holdfast.backends.vsphere.sdk import vim

KIB = 1 << 10
# The kind of backing that can grow in its VM.
FLAT = "VirtualDiskFlatVer2BackingInfo"
# How many datastores are tried when one is full after all.
TRIES = 3


class Vmdks:
    """The VMDK volumes of all vCenters."""

    def __init__(self, gateway: Gateway, attachments: Attachments, intents: Intents) -> None:
        self._gateway = gateway
        self._attachments = attachments
        self._intents = intents

    async def create(self, link: Link, request: VolumeRequest, wish: Wish) -> Volume:
        """Make the disk, or return the one an equal request made."""
        size = -(-request.size // KIB) * KIB
        name = identifiers.disk_name(request.name, link.workspace.cluster_id)
        path = identifiers.volume_path(request.name, link.workspace.cluster_id)
        run = self._gateway.run
        _check_copy(request, wish)
        stores, policy = await run(placement.candidates, link, wish, size, request.topology)
        stores = _nameable(stores, link)
        intent = await self._intents.resumed(self._gateway, link, name)
        place = await self._where(link, path, stores, intent)
        for left, store in reversed(list(enumerate(reversed(place[:TRIES])))):
            try:
                made = await self._make(link, store, path, size, name, request, wish, policy)
                break
            except errors.Exhausted:
                await run(self._intents.remove, name)
                if not left:
                    raise
        volume = await self._fitting(link, store, path, size, request, wish, made)
        await run(self._intents.remove, name)
        if policy is None:
            return volume
        return replace(volume, context={**volume.context, legacy.POLICY_ID: policy.id})

    async def find(self, link: Link, request: VolumeRequest, wish: Wish) -> Volume | None:
        """Return what create made or began to make."""
        path = identifiers.volume_path(request.name, link.workspace.cluster_id)
        name = identifiers.disk_name(request.name, link.workspace.cluster_id)
        await self._intents.resumed(self._gateway, link, name)
        stores = await self._gateway.run(placement.everywhere, link)
        found = await self._existing(link, path, stores)
        await self._gateway.run(self._intents.remove, name)
        if not found:
            return None
        size = await self._size(link, found[0].datacenter, found[0], path)
        return self._volume(link, found[0], path, size, wish.fs_type)

    async def delete(self, link: Link, id: VmdkId) -> None:
        """Remove the file; raises Conflict naming the VM that has it.

        Raises Unavailable while its datastore is out of sight: the file may be there.
        """
        await self._gateway.run(files.datastore_in_sight, link, id)
        try:
            datacenter, _, disk = await self.disk(link, id)
        except errors.NotFound:
            return
        await self._refuse_held(link, disk)
        try:
            await self._gateway.finish(link, lambda: files.delete_task(link, datacenter, id.file))
        except errors.NotFound:
            return

    async def get(self, link: Link, id: VmdkId) -> Volume:
        """Return the volume with its size as it is. Raises NotFound."""
        datacenter, store = await self._gateway.run(files.datastore_at, link, id)
        size = await self._size(link, datacenter, store, id.path)
        return Volume(str(id), size, _context(str(id)), node_expansion=True)

    async def disk(
        self, link: Link, id: VmdkId, known: str = ""
    ) -> tuple[Datacenter, Datastore, Disk]:
        """Return where a volume is and how to tell it in a VM. Raises NotFound.

        `known` is its UUID; without it vCenter is asked, which also shows that the file is there.
        """

        def look() -> tuple[Datacenter, Datastore, Disk]:
            datacenter, store = files.datastore_at(link, id)
            uuid = known or files.disk_uuid(link, datacenter, id.file)
            return datacenter, store, Disk(id.file, uuid, store.moid)

        return await self._gateway.run(look)

    async def expand(self, link: Link, id: VmdkId, size: int) -> Volume:
        """Grow the disk, in its VM if one has it. A larger one is left as it is."""
        wanted = -(-size // KIB) * KIB
        datacenter, store, disk = await self.disk(link, id)
        present = await self._size(link, datacenter, store, id.path)
        if present < wanted:
            held = await self._attachments.holders(link, disk)
            if held:
                await self._grow_held(link, held[0], disk, wanted)
            else:
                await self._gateway.finish(
                    link, lambda: files.extend_task(link, datacenter, id.file, wanted)
                )
        return Volume(str(id), max(wanted, present), _context(str(id)), node_expansion=True)

    async def everything(self, link: Link) -> list[Volume]:
        """Return the volumes on all datastores."""
        stores = await self._gateway.run(placement.everywhere, link)
        pages = await asyncio.gather(
            *(self._list(link, each.datacenter, each) for each in stores if each.usable)
        )
        return [volume for page in pages for volume in page]

    # Steps of create.

    async def _where(
        self, link: Link, path: str, stores: Sequence[Datastore], intent: Intent | None
    ) -> list[Datastore]:
        """Return where to make the disk: where it was begun, where it is, or the best place."""
        if intent is not None:
            datacenters = await self._gateway.run(link.reader.datacenters)
            for datacenter in datacenters:
                for each in await self._gateway.run(link.reader.datastores, datacenter):
                    if each.moid == intent.datastore:
                        return [each]
        if len(stores) == 1:
            # A file of that name is refused there by vCenter itself.
            return list(stores)
        return await self._existing(link, path, stores) or list(stores)

    async def _existing(
        self, link: Link, path: str, stores: Sequence[Datastore]
    ) -> list[Datastore]:
        def look(store: Datastore) -> bool:
            try:
                files.disk_uuid(link, store.datacenter, f"[{store.name}] {path}")
                return True
            except errors.NotFound:
                return False

        usable = [each for each in stores if each.usable]
        found = await asyncio.gather(*(self._gateway.run(look, each) for each in usable))
        return [store for store, there in zip(usable, found, strict=True) if there]

    async def _make(
        self,
        link: Link,
        store: Datastore,
        path: str,
        size: int,
        name: str,
        request: VolumeRequest,
        wish: Wish,
        policy: policies.Policy | None,
    ) -> bool:
        """Make the file; returns False when there is one of that name."""
        file = f"[{store.name}] {path}"
        source = await self._source(link, request)
        profile = policies.profile(policy, wish.raw_policy)

        def start() -> object:
            if source is not None:
                return files.copy_task(link, source, (store.datacenter, file))
            return files.create_task(link, store.datacenter, file, size, wish.format, profile)

        for attempt in (1, 2):
            intent = Intent(name, link.center.name, store.datacenter.moid, store.moid, "vmdk")
            await self._gateway.run(self._intents.put, intent)
            try:
                task = await self._gateway.begin(link, start)
                await self._gateway.run(self._intents.begun, intent, task._moId)
                await self._gateway.wait(link, task)
                return True
            except errors.AlreadyExists:
                return False
            except errors.NotFound:
                if attempt == 2:
                    raise
                await self._gateway.run(
                    files.make_directory, link, store.datacenter, store.name, identifiers.FOLDER
                )
        raise AssertionError("unreachable")

    async def _source(self, link: Link, request: VolumeRequest) -> tuple[Datacenter, str] | None:
        if request.source is None:
            return None
        if request.source.kind == "snapshot":
            raise errors.Invalid(
                "a snapshot cannot become a plain VMDK",
                "StorageClass parameters",
                "restore it with a class of csi.vsphere.vmware.com, or with disk: fcd",
            )
        id = identifiers.read(request.source.id)
        if not isinstance(id, VmdkId):
            raise errors.Invalid(
                "a First Class Disk cannot be copied to a plain VMDK",
                "StorageClass parameters",
                "clone it with a class of the same kind",
            )
        if self._gateway.link(id.center).center.name != link.center.name:
            raise errors.Invalid(
                "a disk cannot be copied to another vCenter",
                f"{link.session.where}: {id}",
                "clone it with a class of its own vCenter",
            )
        datacenter, _, disk = await self.disk(link, id)
        held = await self._attachments.holders(link, disk)
        if any(each.machine.power == "poweredOn" for each in held):
            raise errors.Conflict(
                f"the source is attached to VM {held[0].machine.name}, which runs",
                str(id),
                "stop the pod that uses it, or clone First Class Disks",
            )
        return datacenter, id.file

    async def _fitting(
        self,
        link: Link,
        store: Datastore,
        path: str,
        size: int,
        request: VolumeRequest,
        wish: Wish,
        made: bool,
    ) -> Volume:
        """Return the volume if it is what was asked for; a copy is grown first."""
        present = size
        if not made or request.source is not None:
            if not made:
                # The file found may be one that vCenter has not finished.
                await self._gateway.run(files.refuse_unfinished, link)
            present = await self._size(link, store.datacenter, store, path)
        if request.source is not None and present < size:
            id = vmdk_id(self._gateway, link, store, path)
            present = (await self.expand(link, id, size)).size
        if present != size and request.source is None:
            raise errors.AlreadyExists(
                f"a volume of that name has {present} bytes, not {size}",
                f"[{store.name}] {path}",
                "delete it, or ask for the same size",
            )
        return self._volume(link, store, path, present, wish.fs_type)

    async def _refuse_held(self, link: Link, disk: Disk) -> None:
        held = await self._attachments.holders(link, disk)
        if held:
            raise errors.Conflict(
                f"the disk is attached to VM {held[0].machine.name}",
                disk.file,
                "it is deleted after it has been detached",
            )

    async def _grow_held(self, link: Link, holder: Holder, disk: Disk, size: int) -> None:
        held = holder.device(disk)
        if held is None or held.backing != FLAT or len(held.files) > 1:
            raise errors.Conflict(
                "a disk cannot grow while its VM has a snapshot",
                f"VM {holder.machine.name}",
                "delete the VM's snapshots first",
            )
        device = held.whole(link.session)
        device.capacityInKB = size >> 10
        device.capacityInBytes = size
        change = vim.vm.device.VirtualDeviceSpec(operation="edit", device=device)
        ref = link.session.ref(vim.VirtualMachine, holder.machine.moid)
        spec = vim.vm.ConfigSpec(deviceChange=[change])
        await self._gateway.finish(link, lambda: ref.ReconfigVM_Task(spec))

    async def _size(self, link: Link, datacenter: Datacenter, store: Datastore, path: str) -> int:
        directory, _, file = path.rpartition("/")
        browser = await self._gateway.run(files.browser, link, store.moid)
        found = await self._gateway.finish(
            link,
            lambda: files.search_task(link, browser, f"[{store.name}] {directory}", [file]),
        )
        infos = [each for each in found.file if each.path == file]
        if not infos:
            raise errors.NotFound(f"no file [{store.name}] {path}", link.session.where)
        return files.size_of(infos[0]) or await self._gateway.run(
            files.descriptor_size, link, datacenter, store.name, path
        )

    async def _list(
        self, link: Link, datacenter: Datacenter, store: inventory.Datastore
    ) -> list[Volume]:
        directory = f"[{store.name}] {identifiers.FOLDER}"
        pattern = [f"{identifiers.own_prefix(link.workspace.cluster_id)}*.vmdk"]
        browser = await self._gateway.run(files.browser, link, store.moid)
        try:
            found = await self._gateway.finish(
                link, lambda: files.search_task(link, browser, directory, pattern)
            )
        except errors.NotFound:
            return []
        volumes = []
        for each in found.file:
            path = f"{identifiers.FOLDER}/{each.path}"
            size = files.size_of(each)
            if not size:
                try:
                    size = await self._gateway.run(
                        files.descriptor_size, link, datacenter, store.name, path
                    )
                except errors.NotFound:
                    continue
            volumes.append(self._volume(link, store, path, size, ""))
        return volumes

    def _volume(self, link: Link, store: Datastore, path: str, size: int, fs_type: str) -> Volume:
        id = str(vmdk_id(self._gateway, link, store, path))
        context = _context(id)
        if fs_type:
            context["fsType"] = fs_type
        return Volume(id, size, context, node_expansion=True)


def _nameable(stores: Sequence[Datastore], link: Link) -> list[Datastore]:
    found = [each for each in stores if files.nameable(each)]
    if not found:
        raise errors.Invalid(
            f'the path of a file on datastore "{stores[0].name}" could not be read back',
            link.session.where,
            "rename it without [ ] / \\ and %, or make First Class Disks: disk: fcd",
        )
    return found


def _check_copy(request: VolumeRequest, wish: Wish) -> None:
    """Refuse a copy that would silently lack what its class promises."""
    if request.source is not None and (wish.policy or wish.capabilities):
        raise errors.Invalid(
            "vCenter copies a plain VMDK without a storage policy",
            "StorageClass parameters",
            "clone with a class without storagePolicyName and vSAN capabilities, "
            "or use First Class Disks: disk: fcd",
        )


def vmdk_id(gateway: Gateway, link: Link, store: Datastore, path: str) -> VmdkId:
    """Return the id of a file: as short as the in-tree provider's when it is at home."""
    at_home = link.center.name == gateway.home.home.name and link.workspace.datacenter in (
        "",
        store.datacenter.name,
        store.datacenter.path,
        store.datacenter.path.lstrip("/"),
    )
    if at_home:
        return VmdkId(store.name, path, store.pod)
    return VmdkId(store.name, path, store.pod, link.center.name, store.datacenter.path.strip("/"))


def _context(id: str) -> dict[str, str]:
    return {"type": "vSphere VMDK Volume", "volumePath": id}
