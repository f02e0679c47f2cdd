"""What operations ask of the nodes.

Every method may be repeated, also after a crash in the middle of it, and then completes what is
missing. All raise `ExecutionFailed`; `Unreachable` when the node itself does not answer. `host` is
the node's manage address, sizes are KiB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Disk:
    """A device of a node as a layout knows it."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """What was found on it."""

    total: int
    free: int
    extent: int = 4096
    uuid: str = ""
    paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BrickSpec:
    """A brick to be made or destroyed."""

    id: str
    disk: Disk
    size: int
    pool_size: int
    pool_metadata: int
    pool: str
    lv: str
    gid: int = 0
    arbiter: bool = False
    path: str = ""


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """A volume to be created; `bricks` are `storage address:path`, set after set."""

    id: str
    name: str
    type: str
    bricks: tuple[str, ...]
    replica: int = 0
    arbiter: bool = False
    data: int = 0
    redundancy: int = 0
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class VolumeFacts:
    """A volume as GlusterFS describes it."""

    name: str
    uuid: str
    started: bool
    type: str
    bricks: tuple[str, ...]
    set_size: int
    replica: int = 0
    redundancy: int = 0
    arbiters: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BrickFacts:
    """A brick as found on a disk, for a database that was lost."""

    id: str
    disk: str
    path: str
    size: int
    pool_size: int
    pool_metadata: int
    pool: str
    lv: str
    # The group that its directory was given, 0 for none.
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Heal:
    """What a brick still has to give to others; None when it is not connected."""

    entries: int | None


class Executor(Protocol):
    """See the module."""

    # Whether what is read back is what really is there.
    real: bool

    async def check(self, host: str) -> None:
        """Fail unless glusterd runs there."""

    async def probe(self, host: str, address: str) -> None:
        """Take a node into the trusted pool of `host`."""

    async def detach(self, host: str, address: str) -> None:
        """Let it go; one that is not in the pool is fine."""

    async def prepare_disk(self, host: str, disk: Disk, destroy: bool) -> DiskFacts:
        """Make a disk usable; one with anything on it is refused unless `destroy`."""

    async def measure_disk(self, host: str, disk: Disk) -> DiskFacts:
        """Look at it again."""

    async def release_disk(self, host: str, disk: Disk) -> None:
        """Take away what `prepare_disk` made."""

    async def make_brick(self, host: str, brick: BrickSpec) -> str:
        """Make and mount a brick's file system; its path."""

    async def destroy_brick(self, host: str, brick: BrickSpec) -> None:
        """Unmount and remove it."""

    async def find_bricks(self, host: str, disk: Disk | None) -> list[BrickFacts]:
        """All bricks on a node, or on one of its disks."""

    async def create_volume(self, host: str, volume: VolumeSpec) -> None:
        """Create, set options, start."""

    async def delete_volume(self, host: str, name: str) -> None:
        """Stop and delete."""

    async def extend_volume(self, host: str, volume: VolumeSpec) -> None:
        """Add the bricks of `volume` that it does not have, and begin to rebalance."""

    async def describe_volume(self, host: str, name: str) -> VolumeFacts | None:
        """A volume, None when there is none of that name."""

    async def list_volumes(self, host: str) -> Sequence[VolumeFacts]:
        """All volumes of the pool."""

    async def heals(self, host: str, name: str) -> Mapping[str, Heal]:
        """What is to be healed, by brick."""

    async def replace_brick(self, host: str, name: str, old: str, new: str) -> None:
        """Put one brick in the place of another."""

    async def clone_volume(self, host: str, source: str, snapshot: str, clone: VolumeSpec) -> None:
        """Snapshot a volume and make a volume of the snapshot; its bricks are described after."""

    async def delete_snapshot(self, host: str, name: str) -> None:
        """Delete a snapshot; one that is not there is fine."""

    async def close(self) -> None:
        """Let go of connections."""


class Transport(Protocol):
    """Carries a command to a node."""

    async def run(
        self, host: str, argv: Sequence[str], *, timeout: float = 600.0, check: bool = True
    ) -> Output:
        """Run a program there. Raises `ExecutionFailed` for a bad exit code if `check`.

        Commands of one host run one after the other, those of an earlier life included.
        """

    async def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True, slots=True)
class Output:
    """What a command said."""

    code: int
    stdout: str
    stderr: str


class Layout(Protocol):
    """What is made of a disk."""

    async def prepare(self, host: str, disk: Disk, destroy: bool) -> DiskFacts:
        """See `Executor.prepare_disk`."""

    async def measure(self, host: str, disk: Disk) -> DiskFacts:
        """See `Executor.measure_disk`."""

    async def release(self, host: str, disk: Disk) -> None:
        """See `Executor.release_disk`."""

    async def make(self, host: str, brick: BrickSpec) -> str:
        """See `Executor.make_brick`."""

    async def destroy(self, host: str, brick: BrickSpec) -> None:
        """See `Executor.destroy_brick`."""

    async def find(self, host: str, disk: Disk | None) -> list[BrickFacts]:
        """See `Executor.find_bricks`."""
