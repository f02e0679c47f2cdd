"""The part of Ceph volumes on the machine that uses them: image to block device and back.

    connect      known and alive -> the device, with its new size
                 else: look at features and holders, write the record, map, note our client
    disconnect   unmap, remove note and record

Invariant: an image is open for writing on one machine only, unless its volume was
made for many. What was mapped before this process was killed is found by its
record, and a mapping whose daemon died is buried before a new one is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from holdfast.backends import errors
from holdfast.backends.protocol import Connected, Finding, MountSource, NodeInfo, VolumeHandle
from holdfast.backends.rbd import (
    checks,
    choosing,
    credentials,
    exclusive,
    fencing,
    ids,
    nodechecks,
    nodeids,
    usage,
)
from holdfast.backends.rbd.clusters import Clusters
from holdfast.backends.rbd.connections import Access
from holdfast.backends.rbd.ids import ImageId
from holdfast.backends.rbd.mappers import Mapper, Target
from holdfast.backends.rbd.mappers.krbd import KernelMapper
from holdfast.backends.rbd.mappers.nbd import NbdMapper
from holdfast.backends.rbd.mappers.qemu import QemuMapper
from holdfast.backends.rbd.maprecords import MappedImage, MapRecords
from holdfast.backends.rbd.shelf import Shelf
from holdfast.backends.rbd.usage import User
from holdfast.kit.locks import KeyedLocks

THREADS = 8
_LOST_REMEDY = (
    "delete the pod: the image is mapped anew for the next one, with all that was written out; "
    "see in the machine's log what ended the process (often it ran out of memory)"
)

T = TypeVar("T")


class RbdNodeSide:
    """Images mapped on this machine. `directory` is its own and survives restarts."""

    def __init__(
        self,
        instances: Mapping[str, Mapping[str, object]],
        directory: Path,
        *,
        name: str = "",
        mappers: Sequence[Mapper] | None = None,
    ) -> None:
        self._clusters = Clusters(instances, directory)
        self._records = MapRecords(directory / "maps")
        self._name = name or default_name(directory)
        self._mappers = mappers or (KernelMapper(), NbdMapper(), QemuMapper())
        self._locks = KeyedLocks()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="rbd-node")
        # Growing and unmapping are told no Secret; what mapping was told is kept, in memory.
        self._accesses: dict[str, Access] = {}

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Return the image's device, mapped now if it is not."""
        async with self._locks.hold(volume.id):
            record = await asyncio.to_thread(self._records.read, volume.id)
            if record is None:
                return await self._map(volume)
            found = await self._known(volume, record)
            if found is None:
                await self._unmap(record)
                found = await self._map(volume)
                await self._forgive(volume, record)
            return found

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Unmap the image. One that is not mapped is a success."""
        async with self._locks.hold(volume.id):
            record = await asyncio.to_thread(self._records.read, volume.id)
            if record is None:
                return
            mapper, directory = self._mapper(record.mapper), self._records.directory(volume.id)
            dead = await mapper.find(record.state, directory, 0) is None
            await self._unmap(record)
            if record.address:
                await self._forget(volume, record, dead)
            await asyncio.to_thread(self._records.remove, volume.id)
            self._accesses.pop(volume.id, None)

    async def check_volume(self, volume: VolumeHandle) -> Sequence[Finding]:
        """Test key, image and features of a volume that somebody made by hand."""
        if not choosing.made_by_hand(volume.context):
            return ()
        try:
            image, access = await self._run(lambda: self._reached(volume))
            found, _ = await self._run(lambda: self._look(image, access))
            choice = await choosing.choose(self._mappers, found, image.spec, volume.context)
        except errors.BackendError as error:
            return [checks.of_error("ceph image", error)]
        return [Finding("ceph image", "ok", f"can be mapped by {choice.mapper.name}", image.spec)]

    async def lost(self) -> Mapping[str, Finding]:
        """Return the volumes whose mapping has ended by itself."""
        found: dict[str, Finding] = {}
        for each in await asyncio.to_thread(lambda: list(self._records.all())):
            if self._locks.is_held(each.volume):
                continue  # being mapped or unmapped right now
            async with self._locks.hold(each.volume):
                record = await asyncio.to_thread(self._records.read, each.volume)
                if record is None:
                    continue
                directory = self._records.directory(record.volume)
                reason = await self._mapper(record.mapper).loss(record.state, directory)
            if reason:
                found[record.volume] = Finding(
                    "ceph mapping", "error", reason, record.image, _LOST_REMEDY
                )
        return found

    async def describe(self) -> NodeInfo:
        """Return the name under which this machine's use of images is noted."""
        return NodeInfo(nodeids.of(self._name))

    async def checks(self) -> Sequence[Finding]:
        """Test bindings, mappers, features and monitors as this machine sees them."""
        found = await nodechecks.run(self._clusters, self._mappers)
        return [*found, *(await self.lost()).values()]

    async def close(self) -> None:
        """Give up connections and threads; what is mapped stays mapped."""
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self._clusters.close)

    async def _known(self, volume: VolumeHandle, record: MappedImage) -> Connected | None:
        """Return the device of a mapping that is alive, grown to the image's size."""
        mapper = self._mapper(record.mapper)
        directory = self._records.directory(volume.id)
        found = await mapper.find(record.state, directory, 0)
        if found is None or record.read_only or isinstance(found, MountSource):
            return found
        try:
            if not record.address:
                # Killed after it was mapped and before it was noted whose the client is.
                record = await self._noted(volume, record)
            size = await self._run(lambda: self._size(volume, record.address))
        except (errors.Unauthorized, errors.Unavailable):
            # Without a key or a cluster the size stays; the mapping itself goes on.
            return found
        if size is None:
            return None
        return found if size <= found.size else await mapper.find(record.state, directory, size)

    async def _map(self, volume: VolumeHandle) -> Connected:
        image, access = await self._run(lambda: self._reached(volume))
        _refuse_use(volume, image)
        found_features, fsid = await self._run(lambda: self._look(image, access))
        context = self._preferred(volume, image)
        choice = await choosing.choose(self._mappers, found_features, image.spec, context)
        async with self._claimed(volume, image, access) as before:
            if choice.take_off:
                _refuse_change(image, before, choice.take_off)
                await self._run(lambda: self._take_off(image, access, choice.take_off))
            target = _target(volume, image, access, fsid)
            directory = await asyncio.to_thread(self._records.prepare, volume.id)
            state = choice.mapper.plan(target, directory)
            record = MappedImage(volume.id, image.spec, choice.mapper.name, volume.read_only, state)
            await asyncio.to_thread(self._records.write, record)
            connected = await choice.mapper.map(target, state, directory)
            self._accesses[volume.id] = access
            if volume.read_only:
                address = await self._run(lambda: self._register_reader(image, access, before))
            else:
                try:
                    address = await self._run(lambda: self._register(image, access, before))
                except errors.Conflict:
                    await self._unmap(record)
                    await asyncio.to_thread(self._records.remove, volume.id)
                    raise
            record = replace(record, address=address)
            await asyncio.to_thread(self._records.write, record)
        return connected

    async def _noted(self, volume: VolumeHandle, record: MappedImage) -> MappedImage:
        """Note the client of a mapping that has none; a fence would not know it otherwise."""

        def work() -> str:
            image, access = self._reached(volume)
            with (
                self._shelf(image, access) as shelf,
                exclusive.claimed(shelf, image.image, self._name),
            ):
                return exclusive.register(shelf, image.image, self._name, (), 1.0)

        record = replace(record, address=await self._run(work))
        await asyncio.to_thread(self._records.write, record)
        return record

    @contextlib.asynccontextmanager
    async def _claimed(
        self, volume: VolumeHandle, image: ImageId, access: Access
    ) -> AsyncIterator[set[str]]:
        """Hold the claim of an image; gives the addresses that have it open already."""
        stack = contextlib.ExitStack()

        def enter() -> tuple[Shelf, Sequence[User]]:
            shelf = stack.enter_context(self._shelf(image, access))
            fencing.refuse_fenced(shelf, self._name)
            if not volume.read_only:
                stack.enter_context(exclusive.claimed(shelf, image.image, self._name))
            return shelf, usage.users(shelf, image.image)

        try:
            shelf, found = await self._run(enter)
            several = volume.mode == "Block" and volume.context.get("shared") == "true"
            if not (volume.read_only or several):
                for user in found:
                    if user.node == self._name:
                        await self._refuse_living(volume, image, user.address)
                name = self._name
                await self._run(lambda: exclusive.refuse_held(shelf, image.image, name, found))
                found = ()
            yield {user.address for user in found}
        finally:
            await self._run(stack.close)

    async def _refuse_living(self, volume: VolumeHandle, image: ImageId, address: str) -> None:
        """Raise Conflict where another volume's mapping on this machine is that client.

        To take it for a dead client of ours would cut its pods off from their data.
        """
        for record in await asyncio.to_thread(lambda: list(self._records.all())):
            if record.address != address or record.volume == volume.id:
                continue
            directory = self._records.directory(record.volume)
            if await self._mapper(record.mapper).find(record.state, directory, 0) is not None:
                raise errors.Conflict(
                    f"this machine has the image mapped for another volume ({record.volume})",
                    image.spec,
                    "two PersistentVolumes name one image: keep one of them, and use its claim",
                )

    def _preferred(self, volume: VolumeHandle, image: ImageId) -> Mapping[str, str]:
        """Return the context with the mapper that this machine's settings prefer.

        What ceph-csi made stays as it is: a feature may be there for mirroring.
        """
        context = volume.context
        if isinstance(ids.parse(volume.id), ids.CsiId):
            context = {**context, "downgradeFeatures": "false"}
        instance = self._clusters.find(image.cluster)
        if instance is None or not instance.mounter or context.get("mounter", "auto") != "auto":
            return context
        return {**context, "mounter": instance.mounter}

    def _look(self, image: ImageId, access: Access) -> tuple[int, str]:
        with self._shelf(image, access) as shelf, shelf.opened(image.image) as handle:
            return int(handle.features()), str(shelf.connection.rados.get_fsid())

    def _take_off(self, image: ImageId, access: Access, names: Sequence[str]) -> None:
        with self._shelf(image, access) as shelf:
            choosing.take_off(shelf, image.image, names)

    def _register(self, image: ImageId, access: Access, before: set[str]) -> str:
        with self._shelf(image, access) as shelf:
            return exclusive.register(shelf, image.image, self._name, before)

    def _register_reader(self, image: ImageId, access: Access, before: set[str]) -> str:
        """Note a reader's client where it shows, and where its user may write notes."""
        with (
            contextlib.suppress(errors.BackendError),
            self._shelf(image, access) as shelf,
        ):
            name = self._name
            return exclusive.register(shelf, image.image, name, before, 1.0, shows=False)
        return ""

    def _size(self, volume: VolumeHandle, address: str) -> int | None:
        """Return the image's size, or None when our client was fenced and can do nothing."""
        image, access = self._reached(volume)
        with self._shelf(image, access) as shelf:
            watching = {user.address for user in usage.users(shelf, image.image)}
            lost = bool(address) and address not in watching
            if lost and fencing.is_blocklisted(shelf.connection, address):
                return None
            with shelf.opened(image.image) as handle:
                return int(handle.size())

    async def _unmap(self, record: MappedImage) -> None:
        directory = self._records.directory(record.volume)
        await self._mapper(record.mapper).unmap(record.state, directory)

    async def _forget(self, volume: VolumeHandle, record: MappedImage, dead: bool) -> None:
        def work() -> None:
            image, access = self._reached(volume)
            with self._shelf(image, access) as shelf:
                if dead:
                    exclusive.bury(shelf, image.image, record.address)
                else:
                    usage.forget(shelf, image.image, record.address)
                fencing.forgive(shelf.connection, record.address)

        # A note that stays names an address: nobody's, or one that the next mapping buries.
        with contextlib.suppress(errors.BackendError):
            await self._run(work)

    async def _forgive(self, volume: VolumeHandle, record: MappedImage) -> None:
        """Tidy up behind a client of ours that has ended."""

        def work() -> None:
            image, access = self._reached(volume)
            with self._shelf(image, access) as shelf:
                fencing.forgive(shelf.connection, record.address)

        if record.address:
            with contextlib.suppress(errors.BackendError):
                await self._run(work)

    def _reached(self, volume: VolumeHandle) -> tuple[ImageId, Access]:
        """Return which image a volume is and the access to it. Raises NotFound, Unauthorized."""
        parsed = ids.parse_handle(volume.id, volume.context)
        if parsed is None:
            raise errors.NotFound(f'"{volume.id}" is no Ceph volume')
        image = self._clusters.resolve(parsed, volume.secrets)
        instance = self._clusters.find(image.cluster)
        # What the settings say is newer than what a PersistentVolume was given when it was made.
        given = () if instance else ids.split_monitors(volume.context.get("monitors", ""))
        monitors = given or self._clusters.monitors_of(image.cluster)
        user = volume.context.get("user", "")
        found = credentials.of(volume.secrets, user, f"the Secret of {image.spec}")
        if found is None and volume.id in self._accesses:
            return image, self._accesses[volume.id]
        if found is None and instance is not None:
            found = instance.credentials()
        if found is None:
            found = _keyring(volume, user)
        return image, Access(monitors, found.user or user or "admin", found.key)

    @contextlib.contextmanager
    def _shelf(self, image: ImageId, access: Access) -> Iterator[Shelf]:
        with self._clusters.connections.using(access) as connection:
            yield Shelf(connection, image.cluster, image.pool, image.namespace)

    def _mapper(self, name: str) -> Mapper:
        return next(each for each in self._mappers if each.name == name)

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def default_name(directory: Path) -> str:
    """Return a name for this machine, from the host's and from the node it plays.

    A node's directory is NODE/backends/rbd; several nodes on one machine differ in it.
    """
    host = socket.gethostname()
    node = directory.absolute().parents[1].name
    return node if node in (host, "") else f"{node}.{host}"


def _refuse_use(volume: VolumeHandle, image: ImageId) -> None:
    if image.snapshot and not volume.read_only:
        raise errors.Invalid(
            "a snapshot can only be read",
            image.spec,
            "write readOnly: true into the PersistentVolume's source, or restore the snapshot",
        )
    if volume.context.get("encrypted", "").casefold() == "true":
        raise errors.Unsupported(
            "ceph-csi has encrypted the volume, and Holdfast cannot decrypt it",
            image.spec,
            "use it with ceph-csi, or copy its data to a volume that is not encrypted",
        )


def _refuse_change(image: ImageId, users: set[str], names: Sequence[str]) -> None:
    if users:
        raise errors.Conflict(
            f"this machine can map it only without {', '.join(names)}, and others have it open "
            f"({', '.join(sorted(users))})",
            image.spec,
            "stop the pods that use it first, or use another mounter",
        )


def _target(volume: VolumeHandle, image: ImageId, access: Access, fsid: str) -> Target:
    return Target(
        image=image,
        monitors=access.monitors,
        user=access.user,
        key=access.key,
        fsid=fsid,
        read_only=volume.read_only,
        map_options=volume.context.get("mapOptions", ""),
        unmap_options=volume.context.get("unmapOptions", ""),
    )


def _keyring(volume: VolumeHandle, user: str) -> credentials.Credentials:
    """Read the keyring that a static volume names, which has to be on this machine."""
    path = volume.context.get("keyring", "")
    if not path:
        raise errors.Unauthorized(
            "no key for Ceph: the volume names no Secret for the node",
            volume.id,
            "name it in the class (csi.storage.k8s.io/node-stage-secret-name), or set key_file",
        )
    if not Path(path).exists():
        raise errors.Unauthorized(
            f"no key for Ceph: the volume names no Secret, and there is no keyring {path} here",
            volume.id,
            "add secretRef to the PersistentVolume's rbd source, "
            f"or put the keyring of client.{user or 'admin'} there, mode 600",
        )
    return credentials.of_file(Path(path), user)
