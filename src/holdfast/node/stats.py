"""How full a mounted volume is: the numbers behind kubelet_volume_stats.

They come from the file system, so for a plain directory they describe the disk
it lies on, not the volume; `Connected.enforced` tells the two apart.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import errors


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and inodes. `available` is what an ordinary user can still take."""

    capacity: int
    used: int
    available: int
    inodes: int
    inodes_used: int
    inodes_free: int


def of(path: Path) -> Usage:
    """Return the usage of the file system at `path`. Raises errors.NotFound."""
    try:
        found = os.statvfs(path)
    except FileNotFoundError as error:
        raise errors.NotFound("nothing is mounted", str(path)) from error
    except OSError as error:
        raise errors.Unavailable(f"cannot be measured ({error.strerror})", str(path)) from error
    unit = found.f_frsize
    return Usage(
        capacity=found.f_blocks * unit,
        used=(found.f_blocks - found.f_bfree) * unit,
        available=found.f_bavail * unit,
        inodes=found.f_files,
        inodes_used=found.f_files - found.f_ffree,
        inodes_free=found.f_ffree,
    )
