"""Volumes that are First Class Disks: with snapshots, clones and policies of their own.

vCenter knows such a disk by a UUID and does not mind two of one name. What makes a name
unique here is the note taken before a disk is made, and a look at the names there are.
The names of disks do not change, so they are read once for each disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from holdfast.backends import errors
from holdfast.backends.protocol import Snapshot, Volume, VolumeRequest
from holdfast.backends.vsphere import (
    faults,
    files,
    identifiers,
    placement,
    policies,
)
from holdfast.backends.vsphere.attaching import Attachments
from holdfast.backends.vsphere.gateway import Gateway, Link
from holdfast.backends.vsphere.holders import Disk
from holdfast.backends.vsphere.identifiers import DiskId, SnapshotId
from holdfast.backends.vsphere.intents import Intent, Intents
from holdfast.backends.vsphere.inventory import Datastore
from holdfast.backends.vsphere.parameters import Wish
from holdfast.backends.vsphere.sdk import vim

MIB = 1 << 20
TRIES = 3


@dataclass(frozen=True, slots=True)
class Found:
    """A First Class Disk as vCenter describes it."""

    uuid: str
    name: str
    size: int
    file: str
    datastore: Datastore


class FirstClassDisks:
    """The First Class Disks of all vCenters."""

    def __init__(self, gateway: Gateway, attachments: Attachments, intents: Intents) -> None:
        self._gateway = gateway
        self._attachments = attachments
        self._intents = intents
        self._names: dict[tuple[str, str], str] = {}  # vCenter, disk: name
        self._lock = threading.Lock()

    async def create(self, link: Link, request: VolumeRequest, wish: Wish) -> Volume:
        """Make the disk, or return the one an equal request made."""
        size = -(-request.size // MIB) * MIB
        name = identifiers.object_name(request.name, link.workspace.cluster_id)
        run = self._gateway.run
        stores, policy = await run(placement.candidates, link, wish, size, request.topology)
        intent = await self._intents.resumed(self._gateway, link, name)
        found = await run(self._named, link, name)
        if found is None and intent is not None and not intent.task:
            # Ordered, and killed before the answer: the disk may be on its way without a name.
            await run(files.refuse_unfinished, link)
            found = await run(self._named, link, name)
        if found is None:
            found = await self._make(link, request, wish, stores, policy, name, size)
        if found.size < size and request.source is not None:
            await self._extend(link, found, size)
            found = await run(self._get, link, DiskId(found.uuid, found.datastore.moid))
        if found.size != size and request.source is None:
            raise errors.AlreadyExists(
                f"a disk of that name has {found.size} bytes, not {size}",
                f"{link.session.where}: {found.file}",
                "delete it, or ask for the same size",
            )
        await run(self._intents.remove, name)
        return self._volume(link, found, wish.fs_type)

    async def find(self, link: Link, request: VolumeRequest, wish: Wish) -> Volume | None:
        """Return what create made or began to make."""
        name = identifiers.object_name(request.name, link.workspace.cluster_id)
        await self._intents.resumed(self._gateway, link, name)
        found = await self._gateway.run(self._named, link, name)
        await self._gateway.run(self._intents.remove, name)
        if found is None:
            return None
        return self._volume(link, found, wish.fs_type)

    async def delete(self, link: Link, id: DiskId) -> None:
        """Remove the disk; raises Conflict when it has snapshots or a VM has it.

        Raises Unavailable while its datastore is out of sight: the disk may be there.
        """
        try:
            found = await self._gateway.run(self._get, link, id)
        except errors.NotFound as error:
            if hidden := await self._gateway.run(_hidden, link, id):
                raise files.out_of_sight(str(id), hidden, link.session.where) from error
            return
        if await self._gateway.run(self._snapshots, link, found):
            raise errors.Conflict(
                "the disk has snapshots", str(id), "delete its VolumeSnapshots first"
            )
        try:
            disk = await self._gateway.run(self._disk, link, found)
        except errors.NotFound:
            # Somebody removed the file, and vCenter still lists the disk.
            disk = Disk(found.file, "", found.datastore.moid, found.uuid)
        held = await self._attachments.holders(link, disk)
        if held:
            raise errors.Conflict(
                f"the disk is attached to VM {held[0].machine.name}",
                found.file,
                "it is deleted after it has been detached",
            )
        try:
            await self._task(
                link, lambda disks, one, store: disks.DeleteVStorageObject_Task(one, store), found
            )
        except errors.NotFound:
            return

    async def get(self, link: Link, id: DiskId) -> Volume:
        """Return the volume. Raises NotFound."""
        return self._volume(link, await self._gateway.run(self._get, link, id), "")

    async def disk(self, link: Link, id: DiskId, known: str = "") -> tuple[Found, Disk]:
        """Return a disk and how to tell it in a VM; `known` is its UUID. Raises NotFound."""

        def look() -> tuple[Found, Disk]:
            found = self._get(link, id)
            return found, self._disk(link, found, known)

        return await self._gateway.run(look)

    async def expand(self, link: Link, id: DiskId, size: int) -> Volume:
        """Grow the disk; one that is large enough is left as it is."""
        wanted = -(-size // MIB) * MIB
        found = await self._gateway.run(self._get, link, id)
        if found.size < wanted:
            await self._extend(link, found, wanted)
            found = await self._gateway.run(self._get, link, id)
        return self._volume(link, found, "")

    async def everything(self, link: Link) -> list[Volume]:
        """Return the disks we made, in this vCenter."""
        stores = await self._gateway.run(placement.everywhere, link)
        pages = await asyncio.gather(
            *(self._gateway.run(self._list, link, each) for each in stores if each.usable)
        )
        return [self._listed(link, found) for page in pages for found in page]

    # Snapshots.

    async def create_snapshot(self, link: Link, name: str, id: DiskId) -> Snapshot:
        """Take a snapshot, or return the one of that name, which is its description."""
        found = await self._gateway.run(self._get, link, id)
        note = _note(name)
        taken = await self._gateway.run(self._intents.get, note)
        if taken is not None and taken.task != found.uuid:
            raise errors.AlreadyExists(
                f'the snapshot "{name}" is one of disk {taken.task}', str(id), "use another name"
            )
        # Nothing in vCenter says which disk a snapshot's name belongs to.
        kept = Intent(note, link.center.name, "", found.datastore.moid, "snapshot", found.uuid)
        await self._gateway.run(self._intents.put, kept)
        for each in await self._gateway.run(self._snapshots, link, found):
            if each.description == name:
                return self._snapshot(link, found, each)
        await self._task(
            link,
            lambda disks, one, store: disks.VStorageObjectCreateSnapshot_Task(one, store, name),
            found,
        )
        for each in await self._gateway.run(self._snapshots, link, found):
            if each.description == name:
                return self._snapshot(link, found, each)
        raise errors.Unavailable("the snapshot was made but is not listed", str(id))

    async def delete_snapshot(self, link: Link, id: SnapshotId) -> None:
        """Remove a snapshot; one that is gone already is a success."""
        try:
            found = await self._gateway.run(self._get, link, id.disk)
            known = await self._gateway.run(self._snapshots, link, found)
            present = [each for each in known if each.id.id.lower() == id.uuid]
            if not present:
                return
            await self._gateway.run(self._intents.remove, _note(str(present[0].description)))
            snapshot = vim.vslm.ID(id=id.uuid)
            await self._task(
                link,
                lambda disks, one, store: disks.DeleteSnapshot_Task(one, store, snapshot),
                found,
            )
        except errors.NotFound:
            return

    async def get_snapshot(self, link: Link, id: SnapshotId) -> Snapshot:
        """Return the snapshot. Raises NotFound."""
        found = await self._gateway.run(self._get, link, id.disk)
        for each in await self._gateway.run(self._snapshots, link, found):
            if each.id.id.lower() == id.uuid:
                return self._snapshot(link, found, each)
        raise errors.NotFound(f'no snapshot "{id}"', link.session.where)

    async def list_snapshots(self, link: Link) -> list[Snapshot]:
        """Return the snapshots of the disks we made."""

        def look(store: Datastore) -> list[Snapshot]:
            return [
                self._snapshot(link, disk, each)
                for disk in self._list(link, store)
                for each in self._snapshots(link, disk)
            ]

        stores = await self._gateway.run(placement.everywhere, link)
        usable = [each for each in stores if each.usable]
        pages = await asyncio.gather(*(self._gateway.run(look, each) for each in usable))
        return [each for page in pages for each in page]

    # Steps.

    async def _make(
        self,
        link: Link,
        request: VolumeRequest,
        wish: Wish,
        stores: Sequence[Datastore],
        policy: policies.Policy | None,
        name: str,
        size: int,
    ) -> Found:
        stores = await self._reached(link, request, stores)
        for left, store in reversed(list(enumerate(reversed(stores[:TRIES])))):
            intent = Intent(name, link.center.name, store.datacenter.moid, store.moid, "fcd")
            start = await self._starter(link, request, wish, store, policy, name, size)
            await self._gateway.run(self._intents.put, intent)
            try:
                task = await self._gateway.begin(link, start)
                await self._gateway.run(self._intents.begun, intent, task._moId)
                made = await self._gateway.wait(link, task)
                return await self._gateway.run(
                    self._get, link, DiskId(made.config.id.id.lower(), store.moid)
                )
            except errors.Exhausted:
                await self._gateway.run(self._intents.remove, name)
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _reached(
        self, link: Link, request: VolumeRequest, stores: Sequence[Datastore]
    ) -> Sequence[Datastore]:
        """Return where the disk may be made: one from a snapshot lies where its origin does."""
        if request.source is None:
            return stores
        if request.source.kind == "snapshot":
            source: object = identifiers.read_snapshot(request.source.id).disk
        else:
            source = identifiers.read(request.source.id)
        if not isinstance(source, DiskId):
            return stores
        if self._gateway.link(source.center).center.name != link.center.name:
            raise errors.Invalid(
                "a disk cannot be copied to another vCenter",
                f"{link.session.where}: {source}",
                "use a class of its own vCenter",
            )
        if request.source.kind != "snapshot":
            return stores
        origin = await self._gateway.run(self._get, link, source)
        found = [each for each in stores if each.moid == origin.datastore.moid]
        if not found:
            raise errors.Exhausted(
                f"a snapshot is restored on the datastore of its disk, {origin.datastore.name}, "
                f"and the volume may only lie on {', '.join(each.name for each in stores[:4])}",
                link.session.where,
                "restore it with a class, and for a node, of that datastore",
            )
        return found

    async def _starter(
        self,
        link: Link,
        request: VolumeRequest,
        wish: Wish,
        store: Datastore,
        policy: policies.Policy | None,
        name: str,
        size: int,
    ) -> Callable[[], Any]:
        """Return what starts the task that makes the disk, empty or from its source."""
        disks = link.session.content.vStorageObjectManager
        ref = link.session.ref(vim.Datastore, store.moid)
        backing = vim.vslm.CreateSpec.DiskFileBackingSpec(
            datastore=ref, provisioningType=files.FIRST_CLASS[wish.format]
        )
        profile = policies.profile(policy)
        source = request.source
        if source is None:
            spec = vim.vslm.CreateSpec(
                name=name,
                keepAfterDeleteVm=True,
                capacityInMB=size // MIB,
                backingSpec=backing,
                profile=profile,
            )
            return lambda: disks.CreateDisk_Task(spec)
        if source.kind == "snapshot":
            id = identifiers.read_snapshot(source.id)
            origin = await self._gateway.run(self._get, link, id.disk)
            snapshot = vim.vslm.ID(id=id.uuid)
            return lambda: disks.CreateDiskFromSnapshot_Task(
                vim.vslm.ID(id=origin.uuid), _store(link, origin), snapshot, name, profile
            )
        found = identifiers.read(source.id)
        if not isinstance(found, DiskId):
            raise errors.Invalid(
                "a plain VMDK cannot be cloned to a First Class Disk",
                "StorageClass parameters",
                "clone it with a class of the same kind",
            )
        origin = await self._gateway.run(self._get, link, found)
        clone = vim.vslm.CloneSpec(
            name=name, keepAfterDeleteVm=True, backingSpec=backing, profile=profile
        )
        return lambda: disks.CloneVStorageObject_Task(
            vim.vslm.ID(id=origin.uuid), _store(link, origin), clone
        )

    async def _extend(self, link: Link, found: Found, size: int) -> None:
        await self._task(
            link,
            lambda disks, one, store: disks.ExtendDisk_Task(one, store, size // MIB),
            found,
        )

    async def _task(self, link: Link, start: Callable[[Any, Any, Any], Any], found: Found) -> Any:
        def begin() -> Any:
            # Here and not outside: this may log in, which waits.
            disks = link.session.content.vStorageObjectManager
            return start(disks, vim.vslm.ID(id=found.uuid), _store(link, found))

        return await self._gateway.finish(link, begin)

    def _get(self, link: Link, id: DiskId) -> Found:
        """Return a disk from where it was last seen, or from wherever it is now."""
        known = {
            each.moid: each
            for datacenter in link.reader.datacenters()
            for each in link.reader.datastores(datacenter)
        }
        hint = known.get(id.datastore)
        others = [each for each in known.values() if each is not hint and each.usable]
        for store in [hint, *others] if hint is not None else others:
            try:
                return self._retrieve(link, id.uuid, store)
            except errors.NotFound:
                continue
        raise errors.NotFound(f'no disk "{id}"', link.session.where)

    def _retrieve(self, link: Link, uuid: str, store: Datastore) -> Found:
        disks = link.session.content.vStorageObjectManager
        with faults.translated(link.session.where):
            try:
                found = disks.RetrieveVStorageObject(
                    vim.vslm.ID(id=uuid), link.session.ref(vim.Datastore, store.moid)
                )
            except vim.fault.InvalidDatastore as error:
                raise errors.NotFound(f'no disk "{uuid}"', store.name) from error
        config = found.config
        with self._lock:
            self._names[link.center.name, uuid] = str(config.name)
        return Found(
            uuid, str(config.name), int(config.capacityInMB) * MIB, config.backing.filePath, store
        )

    def _list(self, link: Link, store: Datastore) -> list[Found]:
        """Return the disks we made on a datastore."""
        own = identifiers.own_prefix(link.workspace.cluster_id)
        return [
            self._retrieve(link, uuid, store)
            for uuid in self._ids(link, store)
            if self._name(link, uuid, store).startswith(own)
        ]

    def _ids(self, link: Link, store: Datastore) -> list[str]:
        disks = link.session.content.vStorageObjectManager
        with faults.translated(link.session.where):
            found = disks.ListVStorageObject(link.session.ref(vim.Datastore, store.moid))
        return sorted(each.id.lower() for each in found or ())

    def _name(self, link: Link, uuid: str, store: Datastore) -> str:
        with self._lock:
            name = self._names.get((link.center.name, uuid))
        if name is None:
            try:
                name = self._retrieve(link, uuid, store).name
            except errors.NotFound:
                return ""
        return name

    def _named(self, link: Link, name: str) -> Found | None:
        """Return the disk of that name in this vCenter."""
        for store in placement.everywhere(link):
            if not store.usable:
                continue
            for uuid in self._ids(link, store):
                if self._name(link, uuid, store) == name:
                    try:
                        return self._retrieve(link, uuid, store)
                    except errors.NotFound:
                        continue
        return None

    def _disk(self, link: Link, found: Found, known: str = "") -> Disk:
        uuid = known or files.disk_uuid(link, found.datastore.datacenter, found.file)
        return Disk(found.file, uuid, found.datastore.moid, found.uuid)

    def _snapshots(self, link: Link, found: Found) -> list[Any]:
        disks = link.session.content.vStorageObjectManager
        with faults.translated(link.session.where):
            try:
                info = disks.RetrieveSnapshotInfo(vim.vslm.ID(id=found.uuid), _store(link, found))
            except vim.fault.NotFound:
                return []
        return list(info.snapshots or ())

    def _snapshot(self, link: Link, found: Found, each: Any) -> Snapshot:
        disk = self._id(link, found)
        created = each.createTime.strftime("%Y-%m-%dT%H:%M:%SZ")
        return Snapshot(str(SnapshotId(disk, each.id.id.lower())), str(disk), found.size, created)

    def _id(self, link: Link, found: Found) -> DiskId:
        at_home = link.center.name == self._gateway.home.home.name
        return DiskId(found.uuid, found.datastore.moid, "" if at_home else link.center.name)

    def _listed(self, link: Link, found: Found) -> Volume:
        # The id does not say whose it is, and without that nobody can tell an orphan.
        volume = self._volume(link, found, "")
        return replace(volume, context={**volume.context, "name": found.name})

    def _volume(self, link: Link, found: Found, fs_type: str) -> Volume:
        context = {"type": "vSphere CNS Block Volume"}
        if fs_type:
            context["fsType"] = fs_type
        return Volume(str(self._id(link, found)), found.size, context, node_expansion=True)


def _hidden(link: Link, id: DiskId) -> str:
    """Return what hides a disk that was not found; empty when it is gone for sure."""
    known = {each.moid: each for each in placement.everywhere(link)}
    if id.datastore:
        hint = known.get(id.datastore)
        if hint is None:
            return f"no datastore {id.datastore}"
        return "" if hint.usable else f"datastore {hint.name} is out of service"
    out = [each.name for each in known.values() if not each.usable]
    return f"datastore {out[0]} is out of service" if out else ""


def _note(snapshot: str) -> str:
    return f"snapshot/{snapshot}"


def _store(link: Link, found: Found) -> Any:
    return link.session.ref(vim.Datastore, found.datastore.moid)
