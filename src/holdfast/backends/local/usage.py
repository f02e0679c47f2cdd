"""Who on this machine uses a volume's files: loop devices and mounts.

Deleting or copying a volume that is in use would corrupt what is written at
that moment. The kernel is asked each time: sysfs for the backing files of loop
devices, the mount table for bind mounts of the directory. A program that only
holds a file open, or a symbolic link to the directory, cannot be seen.
"""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import errors, mountinfo
from holdfast.backends.local import records

SYS_BLOCK = Path("/sys/block")


@dataclass(frozen=True, slots=True)
class Use:
    """One use, and the mount points through which files can be written."""

    where: str
    points: tuple[str, ...]


def find(directory: Path) -> list[Use]:
    """Return every use of the files in `directory`."""
    real = directory.resolve()
    return [*_loops(real), *_mounts(real)]


def refuse(directory: Path, what: str) -> None:
    """Raise errors.Conflict, saying where, when `directory` is in use."""
    uses = find(directory)
    if uses:
        raise errors.Conflict(
            f"cannot {what} a volume that is in use: {', '.join(use.where for use in uses)}",
            str(directory),
            "stop the pods that use it, or unmount it and detach the loop device",
        )


def flush(uses: list[Use]) -> None:
    """Write what the mounted file systems still hold in memory down to the volume."""
    libc = ctypes.CDLL(None, use_errno=True)
    for point in {point for use in uses for point in use.points}:
        descriptor = os.open(point, os.O_RDONLY)
        try:
            if libc.syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise errors.Unavailable(f"cannot flush ({os.strerror(number)})", point)
        finally:
            os.close(descriptor)


def _loops(directory: Path) -> list[Use]:
    if not (directory / records.IMAGE).exists():
        return []
    prefix = f"{directory}/"
    found = []
    for name in _loop_names():
        try:
            file = (SYS_BLOCK / name / "loop/backing_file").read_text(errors="surrogateescape")
            if not file.startswith(prefix):
                continue
            number = (SYS_BLOCK / name / "dev").read_text().strip()
        except OSError:
            continue  # not attached, or detached while we looked
        points = tuple(m.point for m in mountinfo.of_device(number, f"/dev/{name}"))
        at = f" mounted at {', '.join(points)}" if points else ""
        found.append(Use(f"loop device /dev/{name}{at}", points))
    return found


def _loop_names() -> list[str]:
    try:
        with os.scandir(SYS_BLOCK) as entries:
            return [entry.name for entry in entries if entry.name.startswith("loop")]
    except OSError:
        return []


def _mounts(directory: Path) -> list[Use]:
    points = {m.point for m in mountinfo.touching(directory)}
    return [Use(f"mounted at {point}", (point,)) for point in sorted(points)]
