"""The ways to get a block device out of an image, behind one Protocol.

`krbd` asks the kernel's own client, `nbd` the program `rbd-nbd` with the kernel's
network block devices, `qemu` the program `qemu-storage-daemon`, which shows the
image as a file (FUSE) for a loop device and so needs neither.

Invariant: a mapping can be found again after this process was killed at any
moment, from `State` alone, which is written before the mapping begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from holdfast.backends.protocol import Connected
from holdfast.backends.rbd.ids import ImageId

# What a mapper has to remember; texts only, never a key.
State = Mapping[str, str]
NO_SNAPSHOT = "-"
# A state's options for unmapping; all else in it says which image it is.
UNMAP = "unmap options"


@dataclass(frozen=True, slots=True)
class Target:
    """The image to map, and as whom. `fsid` tells clusters apart."""

    image: ImageId
    monitors: tuple[str, ...]
    user: str
    key: str = field(repr=False)
    fsid: str = ""
    read_only: bool = False
    map_options: str = ""
    unmap_options: str = ""


class Mapper(Protocol):
    """One way to map images on this machine."""

    name: str

    async def refusal(self) -> str:
        """Return why this machine cannot map this way, and what to install; else ""."""
        ...

    def supported(self) -> int:
        """Return the bits of the image features it can map."""
        ...

    def plan(self, target: Target, directory: Path) -> State:
        """Choose what the mapping will be known by. `directory` is the volume's own."""
        ...

    async def map(self, target: Target, state: State, directory: Path) -> Connected:
        """Make the device appear. Raises backends.errors and leaves nothing behind then."""
        ...

    async def find(self, state: State, directory: Path, size: int) -> Connected | None:
        """Return the device with at least `size` bytes where it is known; None when it is gone."""
        ...

    async def loss(self, state: State, directory: Path) -> str:
        """Return what has ended of a mapping that was made; empty while it works. Cheap."""
        ...

    async def unmap(self, state: State, directory: Path) -> None:
        """Take the device away. One that is not there is a success. Raises Conflict when busy."""
        ...


def options_for(kind: str, text: str) -> list[str]:
    """Read the options of one mapper from `krbd:a,b;nbd:c`; without a name they are krbd's."""
    chosen: list[str] = []
    for part in filter(None, (each.strip() for each in text.split(";"))):
        name, colon, rest = part.partition(":")
        if not colon or name not in ("krbd", "nbd", "qemu"):
            name, rest = "krbd", part
        if name == kind:
            chosen += [option.strip() for option in rest.split(",") if option.strip()]
    return chosen


def planned(kind: str, target: Target) -> dict[str, str]:
    """Return by what a mapping is known, and what to say when it is taken away."""
    found = described(target)
    if options := options_for(kind, target.unmap_options):
        found[UNMAP] = ",".join(options)
    return found


def identity(state: State) -> dict[str, str]:
    """Return the part of a state that tells the mapping from others."""
    return {key: value for key, value in state.items() if key != UNMAP}


def described(target: Target) -> dict[str, str]:
    """Return the attributes by which sysfs tells this image's device from others."""
    found = {
        "pool": target.image.pool,
        "name": target.image.image,
        "current_snap": target.image.snapshot or NO_SNAPSHOT,
    }
    if target.fsid:
        found["cluster_fsid"] = target.fsid
    if target.image.namespace:
        found["pool_ns"] = target.image.namespace
    return found
