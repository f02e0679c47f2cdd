"""The executor of real clusters: a transport, a layout of the disks, and `gluster`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from holdfast.heketi.executors import mounts
from holdfast.heketi.executors.gluster import Gluster
from holdfast.heketi.executors.protocol import (
    BrickFacts,
    BrickSpec,
    Disk,
    DiskFacts,
    Heal,
    Layout,
    Transport,
    VolumeFacts,
    VolumeSpec,
)


class NodeExecutor:
    """See `protocol.Executor`."""

    real = True

    def __init__(self, transport: Transport, layout: Layout, timeout: int = 600) -> None:
        self._transport = transport
        self._layout = layout
        self._gluster = Gluster(transport, timeout)

    async def check(self, host: str) -> None:
        """See the protocol."""
        await self._gluster.check(host)

    async def probe(self, host: str, address: str) -> None:
        """See the protocol."""
        await self._gluster.probe(host, address)

    async def detach(self, host: str, address: str) -> None:
        """See the protocol."""
        await self._gluster.detach(host, address)

    async def prepare_disk(self, host: str, disk: Disk, destroy: bool) -> DiskFacts:
        """See the protocol."""
        return await self._layout.prepare(host, disk, destroy)

    async def measure_disk(self, host: str, disk: Disk) -> DiskFacts:
        """See the protocol."""
        return await self._layout.measure(host, disk)

    async def release_disk(self, host: str, disk: Disk) -> None:
        """See the protocol."""
        await self._layout.release(host, disk)

    async def make_brick(self, host: str, brick: BrickSpec) -> str:
        """See the protocol."""
        return await self._layout.make(host, brick)

    async def destroy_brick(self, host: str, brick: BrickSpec) -> None:
        """See the protocol."""
        await self._layout.destroy(host, brick)

    async def find_bricks(self, host: str, disk: Disk | None) -> list[BrickFacts]:
        """See the protocol."""
        found = await self._layout.find(host, disk)
        gids = await mounts.groups(self._transport, host, [brick.path for brick in found])
        return [replace(brick, gid=gids.get(brick.path, 0)) for brick in found]

    async def create_volume(self, host: str, volume: VolumeSpec) -> None:
        """See the protocol."""
        await self._gluster.create(host, volume)

    async def delete_volume(self, host: str, name: str) -> None:
        """See the protocol."""
        await self._gluster.delete(host, name)

    async def extend_volume(self, host: str, volume: VolumeSpec) -> None:
        """See the protocol."""
        await self._gluster.extend(host, volume)

    async def describe_volume(self, host: str, name: str) -> VolumeFacts | None:
        """See the protocol."""
        return await self._gluster.describe(host, name)

    async def list_volumes(self, host: str) -> Sequence[VolumeFacts]:
        """See the protocol."""
        return await self._gluster.volumes(host)

    async def heals(self, host: str, name: str) -> Mapping[str, Heal]:
        """See the protocol."""
        return await self._gluster.heals(host, name)

    async def replace_brick(self, host: str, name: str, old: str, new: str) -> None:
        """See the protocol."""
        await self._gluster.replace(host, name, old, new)

    async def clone_volume(self, host: str, source: str, snapshot: str, clone: VolumeSpec) -> None:
        """See the protocol."""
        await self._gluster.clone(host, source, snapshot, clone)

    async def delete_snapshot(self, host: str, name: str) -> None:
        """See the protocol."""
        await self._gluster.delete_snapshot(host, name)

    async def close(self) -> None:
        """See the protocol."""
        await self._transport.close()
