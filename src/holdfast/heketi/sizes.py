"""How large bricks are, and what they take of a device. All sizes in KiB.

A volume of S sets has S times as many bricks and each is that much smaller. Sets are tried in
Heketi's order - 1, 2, 4, 8 ... - so that volumes look as they always did; the other counts come
only after those, because an assignment that exists has to be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.heketi.entries import GIB, Durability

EXTENT = 4096
_METADATA_CAP = 16 * GIB
# What XFS could be small as once; newer mkfs.xfs wants 300 MiB, see the settings.
ARBITER_LEAST = 16 * 1024
# A file's names take so much of an arbiter brick.
AVERAGE_FILE = 64


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings allow."""

    brick_most: int = 4096 * GIB
    brick_least: int = GIB
    bricks: int = 32
    volumes: int = 1000


@dataclass(frozen=True, slots=True)
class Footprint:
    """A brick's file system, its thin pool and the pool's metadata."""

    size: int
    pool: int
    metadata: int

    @property
    def space(self) -> int:
        """What it takes of a device."""
        return self.pool + self.metadata


def _up(amount: int, step: int) -> int:
    return -(-amount // step) * step


def footprint(size: int, factor: float, extent: int = EXTENT) -> Footprint:
    """What a brick of a size takes where extents are that large."""
    pool = _up(int(size * factor), extent)
    metadata = _up(min(_METADATA_CAP, pool * 5 // 1000), extent)
    return Footprint(size, pool, metadata)


def rounded(taken: Footprint, extent: int) -> Footprint:
    """The same brick where extents are that large."""
    return Footprint(taken.size, _up(taken.pool, extent), _up(taken.metadata, extent))


def arbiter_size(size: int, average_file: int, least: int = ARBITER_LEAST) -> int:
    """The brick that holds only the names of another brick's files."""
    return min(size, max(least, size // max(1, average_file)))


def layouts(
    size: int, durability: Durability, limits: Limits, present: int
) -> Iterator[tuple[int, int]]:
    """Give (sets, brick size) in the order they are to be tried.

    `size` is the volume's in KiB, `present` how many bricks it has already.
    """
    most = max(0, limits.bricks - present) // durability.bricks
    doubling = [1 << power for power in range(most.bit_length()) if 1 << power <= most]
    others = [count for count in range(1, most + 1) if count not in doubling]
    for sets in doubling + others:
        brick = -(-size // (sets * durability.parts))
        if limits.brick_least <= brick <= limits.brick_most:
            yield sets, brick
