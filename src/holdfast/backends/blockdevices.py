"""Describes a block device from what the kernel says about it in sysfs.

A device's path is no identity: names are given in the order of appearance and
given again after a device is gone. The identity used here is the strongest the
kernel offers: the device-mapper UUID, the WWID, the serial number, the backing
file of a loop device, and only then the device number.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.protocol import Device

SYSFS = Path("/sys/dev/block")
SECTOR = 512

_IDENTITIES = (
    ("dm-uuid", "dm/uuid"),
    ("wwid", "wwid"),
    ("wwid", "device/wwid"),
    ("serial", "serial"),
    ("serial", "device/serial"),
    ("loop", "loop/backing_file"),
)


def describe(path: Path) -> Device:
    """Return the device behind `path`, which may be a symbolic link to it.

    Raises errors.NotFound when there is nothing, errors.Invalid when it is
    something else than a block device.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise errors.NotFound(f"no such device ({error.strerror})", str(path)) from error
    if not stat.S_ISBLK(found.st_mode):
        raise errors.Invalid("is not a block device", str(path))
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    node = SYSFS / number
    size = int(_attribute(node, "size") or "0") * SECTOR
    return Device(path, _identity(node, number), size)


def number_of(path: Path) -> str:
    """Return "major:minor" of the device at `path`, as the mount table writes it."""
    device = path.stat().st_rdev
    return f"{os.major(device)}:{os.minor(device)}"


def is_anonymous(device: Device) -> bool:
    """Return whether nothing but its number tells the device from others."""
    return device.identity.startswith("device:")


def _identity(node: Path, number: str) -> str:
    for kind, attribute in _IDENTITIES:
        value = _attribute(node, attribute)
        if value:
            return f"{kind}:{value}"
    return f"device:{number}"


def _attribute(node: Path, name: str) -> str:
    try:
        return (node / name).read_text(errors="surrogateescape").strip()
    except OSError:
        return ""
