"""The part on the machine that uses a volume: who the machine is, and where a volume's disk is.

Attaching is Nova's work; here the disk is waited for, and looked at before
anything touches it: serial number and size have to be the volume's. Without
Nova, os-brick makes the connection here.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

from holdfast.backends import blockdevices, errors
from holdfast.backends.cinder import (
    brick,
    connecting,
    identity,
    links,
    node_checks,
    records,
    servers,
    settings,
)
from holdfast.backends.cinder.backend import has_nova
from holdfast.backends.cinder.brick import Brick
from holdfast.backends.cinder.clouds import Cloud, Clouds
from holdfast.backends.cinder.connecting import LOCAL
from holdfast.backends.cinder.identity import Identity, Machine
from holdfast.backends.cinder.parameters import ZONE
from holdfast.backends.cinder.settings import MOST_VOLUMES, Instance
from holdfast.backends.protocol import (
    Connected,
    Device,
    Finding,
    ImageFile,
    NodeInfo,
    VolumeHandle,
)

WAIT_SECONDS = 20.0
# A link with this name in the node's own directory leads to the files of the machine that the
# node plays, where one machine plays several.
PLAYED = "root"
# QEMU's virtio bus gives each disk a PCI slot; the kernel's names end at vdz.
_SLOTS = {"vd": 26, "xvd": 26, "hd": 4}

P = ParamSpec("P")
T = TypeVar("T")


class CinderNodeSide:
    """One machine's view of the volumes of all configured clouds."""

    def __init__(self, instances: Mapping[str, Mapping[str, object]], directory: Path) -> None:
        self._instances = settings.instances(instances)
        self._directory = directory
        self._played = directory / PLAYED
        self._clouds = Clouds(instances)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="cinder-disks")

    async def close(self) -> None:
        """Close connections and end the threads."""
        await self._clouds.close()
        await asyncio.to_thread(self._pool.shutdown)

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Return the volume's disk, waiting for it to appear. Raises NotFound, Conflict."""
        id = context.get("serial") or volume.id.rpartition("/")[2]
        least = int(context.get("size") or 0)
        if kind := context.get("connection"):
            cloud = self._cloud_of(volume)
            if kind != LOCAL or cloud.instance.os_brick is not None:
                return await self._by_brick(cloud, volume, context, id)
            path: Path | None = Path(context["device"])
        else:
            path = await self._await_link(volume, id)
        if path is None:
            raise errors.NotFound(
                f"the disk of volume {id} did not appear within {WAIT_SECONDS:g} s",
                str(self._root(volume) / links.BY_ID),
                "the volume is attached, so look at the guest: udev has to run and make "
                "/dev/disk/by-id, and the disk's serial number has to be the volume's id",
            )
        return await self._run(_described, path, id, least)

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Let os-brick take the disk away where it made it appear; else Nova does."""
        await Brick("", self._directory).disconnect(volume.id.rpartition("/")[2])

    async def describe(self) -> NodeInfo:
        """Return the server's id, zone and the number of volumes it takes. Raises NotFound."""
        if not self._clouds.all():
            raise errors.NotFound("no OpenStack cloud is configured", "", settings.HOW)
        cloud = self._first()
        if await self._by_cinder(cloud):
            return NodeInfo(await self._host(cloud))
        found = await self._identity(cloud)
        zone = found.zone or await self._zone(cloud, found.id)
        topology = {ZONE: zone} if zone else {}
        return NodeInfo(found.id, topology, await self._most(cloud, found.id))

    async def checks(self) -> Sequence[Finding]:
        """Test what this machine needs: its id, the links of its disks, the way to the cloud."""
        if not self._clouds.all():
            return []
        cloud = self._first()
        machine = self._machine(cloud.instance)
        if await self._by_cinder(cloud):
            return [await node_checks.brick_of(self._brick(cloud), cloud)]
        found = await node_checks.ids(cloud, machine)
        return [*found, *await node_checks.links_of(cloud, machine)]

    def _first(self) -> Cloud:
        return self._clouds.choose("", {})

    def _cloud_of(self, volume: VolumeHandle) -> Cloud:
        return self._clouds.choose(volume.id.rpartition("/")[0], volume.secrets)

    def _brick(self, cloud: Cloud) -> Brick:
        return Brick(brick.interpreter(cloud), self._directory)

    async def _host(self, cloud: Cloud) -> str:
        """Return this machine's id without Nova: its name, and what os-brick says of it."""
        if not brick.interpreter(cloud):
            return platform.node()
        address = await cloud.run(lambda endpoint: endpoint.address("block_storage"))
        found = await self._brick(cloud).properties(platform.node(), address)
        return brick.node_id(platform.node(), found)

    async def _by_brick(
        self, cloud: Cloud, volume: VolumeHandle, context: Mapping[str, str], id: str
    ) -> Connected:
        connection = await connecting.connection_of(cloud, context["attachment"])
        connector, least = self._brick(cloud), int(context.get("size") or 0)
        path = await connector.connect(volume.id.rpartition("/")[2], connection)
        found = await self._run(_appeared, path, id)
        if found.size < least:
            await connector.extend(connection)
            found = await self._run(_appeared, path, id)
        if found.size < least:
            raise errors.Conflict(f"it has {found.size} bytes, volume {id} {least}", str(path))
        return found

    def _root(self, volume: VolumeHandle) -> Path:
        name = volume.id.rpartition("/")[0] or self._clouds.default
        instance = self._instances.get(name)
        return self._seen(instance) if instance else Path("/")

    def _seen(self, instance: Instance) -> Path:
        return self._played if self._played.exists() else instance.root

    def _machine(self, instance: Instance) -> Machine:
        return Machine(self._seen(instance), instance.metadata_url)

    async def _by_cinder(self, cloud: Cloud) -> bool:
        if cloud.instance.attach:
            return cloud.instance.attach == "cinder"
        return not await has_nova(cloud)

    async def _identity(self, cloud: Cloud) -> Identity:
        read = await cloud.settings()
        return await identity.find(self._machine(cloud.instance), read.search_order)

    async def _zone(self, cloud: Cloud, server: str) -> str:
        try:
            record = await servers.get(cloud, server)
        except errors.BackendError:
            # A volume can be anywhere then, which is what a node without a zone means.
            return ""
        return str(record.get("OS-EXT-AZ:availability_zone") or "")

    async def _most(self, cloud: Cloud, server: str) -> int:
        """Return how many of our volumes fit: slots of the bus, less the disks of others."""
        read = await cloud.settings()
        try:
            disks = await servers.disks(cloud, server)
            marked = str({records.OWNER: cloud.instance.owner})
            found = await records.listed(cloud, "/volumes", metadata=marked)
            ours = {each["id"] for each in found}
        except errors.BackendError:
            return read.attach_limit or MOST_VOLUMES
        prefix = _prefix([str(each.get("device") or "") for each in disks])
        slots = min(_SLOTS.get(prefix, MOST_VOLUMES), read.attach_limit or MOST_VOLUMES)
        return max(1, slots - sum(each["volumeId"] not in ours for each in disks))

    async def _await_link(self, volume: VolumeHandle, id: str) -> Path | None:
        root, pause = self._root(volume), 0.1
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while True:
            found = await self._run(links.find, root, id)
            if found is not None or asyncio.get_running_loop().time() > deadline:
                return found
            if pause > 1.0:
                await self._run(links.scan)
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 1.4)

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))


def _described(path: Path, id: str, least: int) -> Device:
    links.check(path, id)
    found = blockdevices.describe(path)
    if found.size < least:
        links.rescan(path)
        found = blockdevices.describe(path)
    if found.size < least or not found.size:
        raise errors.Conflict(
            f"it has {found.size} bytes, and volume {id} has {least}",
            str(path),
            "it is another disk, or one whose growth the guest was not told of",
        )
    # The volume's id is a stronger identity than what a loop device or a short serial offers.
    return Device(found.path, f"cinder:{id}", found.size)


def _appeared(path: Path, id: str) -> Device | ImageFile:
    """Return what os-brick made; it has compared the storage's own identifiers itself."""
    if path.is_file():
        return ImageFile(path, path.stat().st_size)
    found = blockdevices.describe(path)
    return Device(found.path, f"cinder:{id}", found.size)


def _prefix(devices: Sequence[str]) -> str:
    roots = sorted(Path(each).name.rstrip("0123456789") for each in devices if each)
    return roots[0][:-1] if roots else ""
