"""Disk images: sparse files that loop devices turn into disks.

Making one costs no room: blocks are allocated when they are written. That is
why `capacity` keeps count of what has been promised. Whether this process may
use loop devices at all is a separate question, asked before the first image is
made rather than found out when a pod waits for its volume.
"""

from __future__ import annotations

import os
from pathlib import Path

LOOP_CONTROL = Path("/dev/loop-control")
STATUS = Path("/proc/self/status")

_CAP_SYS_ADMIN = 21


def loop_refusal() -> str:
    """Return why this process cannot use loop devices, or "" when it can."""
    if not _has_capability(_CAP_SYS_ADMIN):
        return "Holdfast runs without root (CAP_SYS_ADMIN), which loop devices and mounts need"
    try:
        os.close(os.open(LOOP_CONTROL, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"{LOOP_CONTROL} cannot be opened ({error.strerror})"
    return ""


def make(path: Path, size: int) -> None:
    """Make an empty image of `size` bytes; `path` must not exist."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def grow(path: Path, size: int) -> None:
    """Make the image at least `size` bytes long; it is never made shorter."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size < size:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def written(path: Path) -> int:
    """Return the bytes that the image occupies; 0 when it is gone."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _has_capability(number: int) -> bool:
    for line in STATUS.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False
