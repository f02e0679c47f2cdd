"""Mounts whose disk is gone: a loop device on a file that a dead program served.

Some storage comes as a file of a program of its own (FUSE). When that program is
killed the file answers "Transport endpoint is not connected" and the file system
above it gives errors until it is unmounted. Other programs stumble over it too:
mkfs.btrfs looks at the file of every mounted loop device and refuses all work.

Invariant: nothing is changed here, and only mounts of this process's namespace
are looked at.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import mountinfo
from holdfast.node import devices


@dataclass(frozen=True, slots=True)
class DeadMount:
    """One loop device, its file, and everywhere it is mounted."""

    device: Path
    file: str
    points: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.points)} ({self.device} on {self.file})"

    @property
    def remedy(self) -> str:
        """The commands that take it away."""
        places = " ".join((*reversed(self.points), self.file))
        return f"umount --lazy {places}; losetup --detach {self.device}"


def find() -> list[DeadMount]:
    """Return all of them. Blocks."""
    points: dict[Path, list[str]] = {}
    for mount in mountinfo.read():
        device = Path(mount.source)
        if mount.source.startswith("/dev/loop"):
            points.setdefault(device, []).append(mount.point)
    found = []
    for device, places in points.items():
        file = devices.backing_file(device)
        if file and not _served(file):
            found.append(DeadMount(device, file, tuple(places)))
    return found


def _served(file: str) -> bool:
    try:
        Path(file).stat()
    except OSError as error:
        return error.errno != errno.ENOTCONN
    return True
