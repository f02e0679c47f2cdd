"""An executor that does nothing and says that it worked: for trials of clients and for tests.

Every disk has 500 GiB, or what HEKETI_MOCK_DEVICE_SIZE_GB says. It remembers nothing, so
operations take the order of bricks from the database.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.heketi.entries import GIB
from holdfast.heketi.executors import mounts
from holdfast.heketi.executors.protocol import (
    BrickFacts,
    BrickSpec,
    Disk,
    DiskFacts,
    Heal,
    VolumeFacts,
    VolumeSpec,
)


class MockExecutor:
    """See `protocol.Executor`."""

    real = False

    def __init__(self, size_gib: int = 500) -> None:
        self._size = size_gib * GIB

    async def check(self, host: str) -> None:
        """Fine."""

    async def probe(self, host: str, address: str) -> None:
        """Fine."""

    async def detach(self, host: str, address: str) -> None:
        """Fine."""

    async def prepare_disk(self, host: str, disk: Disk, destroy: bool) -> DiskFacts:
        """An empty disk."""
        return DiskFacts(self._size, self._size, uuid=disk.id, paths=(disk.name,))

    async def measure_disk(self, host: str, disk: Disk) -> DiskFacts:
        """An empty disk; who asks knows better what is on it."""
        return DiskFacts(self._size, -1, uuid=disk.id, paths=(disk.name,))

    async def release_disk(self, host: str, disk: Disk) -> None:
        """Fine."""

    async def make_brick(self, host: str, brick: BrickSpec) -> str:
        """Where it would be."""
        return f"{mounts.point(mounts.MOUNTS, brick)}/brick"

    async def destroy_brick(self, host: str, brick: BrickSpec) -> None:
        """Fine."""

    async def find_bricks(self, host: str, disk: Disk | None) -> list[BrickFacts]:
        """None."""
        return []

    async def create_volume(self, host: str, volume: VolumeSpec) -> None:
        """Fine."""

    async def delete_volume(self, host: str, name: str) -> None:
        """Fine."""

    async def extend_volume(self, host: str, volume: VolumeSpec) -> None:
        """Fine."""

    async def describe_volume(self, host: str, name: str) -> VolumeFacts | None:
        """Not known."""
        return None

    async def list_volumes(self, host: str) -> Sequence[VolumeFacts]:
        """None."""
        return []

    async def heals(self, host: str, name: str) -> Mapping[str, Heal]:
        """Nothing known, so nothing stands against a replacement."""
        return {}

    async def replace_brick(self, host: str, name: str, old: str, new: str) -> None:
        """Fine."""

    async def clone_volume(self, host: str, source: str, snapshot: str, clone: VolumeSpec) -> None:
        """Fine."""

    async def delete_snapshot(self, host: str, name: str) -> None:
        """Fine."""

    async def close(self) -> None:
        """Fine."""
