"""Finds the disk of a volume on this machine, and makes sure that it is the one.

Nova gives a disk the volume's id as serial number, of which QEMU's older buses
keep 20 letters. udev makes links of it in /dev/disk/by-id, of which all known
forms are looked for. The device name that Nova's API tells (`/dev/vdb`) is a
wish that guests do not follow, and is not used.

Invariant: a device is returned only if what the kernel says of its serial
number, where it says anything, agrees with the volume's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from holdfast.backends import blockdevices, errors

BY_ID = "dev/disk/by-id"
SHORT = 20
_ATTRIBUTES = ("serial", "device/serial", "device/vpd_pg80", "wwid", "device/wwid")


def names(id: str) -> Iterator[str]:
    """Yield the links a disk with this volume's id may have, the most exact first."""
    plain = id.replace("-", "")
    yield f"virtio-{id}"
    yield f"scsi-0QEMU_QEMU_HARDDISK_{id}"
    yield f"virtio-{id[:SHORT]}"
    yield f"scsi-0QEMU_QEMU_HARDDISK_{id[:SHORT]}"
    yield f"scsi-SQEMU_QEMU_HARDDISK_{id}"
    yield f"scsi-SQEMU_QEMU_HARDDISK_{id[:SHORT]}"
    yield f"ata-QEMU_HARDDISK_{id[:SHORT]}"
    yield f"wwn-0x{plain}"
    yield f"nvme-uuid.{id}"


def find(root: Path, id: str) -> Path | None:
    """Return the volume's device, or None when no link leads to one."""
    for name in names(id):
        link = root / BY_ID / name
        if not link.is_symlink():
            continue
        try:
            device = link.resolve(strict=True)
        except OSError:
            # A link that udev has not taken away yet: the disk is gone.
            continue
        check(device, id)
        return device
    return None


def check(device: Path, id: str) -> None:
    """Raise errors.Conflict when the kernel says that `device` is another volume's."""
    node = blockdevices.SYSFS / blockdevices.number_of(device)
    said = [text for text in (_text(node / attribute) for attribute in _ATTRIBUTES) if text]
    # Some hypervisors give the id as the disk's world wide name, and have serials of their own.
    if any(_agrees(each, id) for each in said):
        return
    if said:
        raise errors.Conflict(
            f"its serial number is {said[0]!r}, which is not of volume {id}",
            str(device),
            "udevadm trigger --subsystem-match=block, and look at /dev/disk/by-id",
        )
    backing = _text(node / "loop/backing_file")
    if backing and id not in backing:
        raise errors.Conflict(f"it holds {backing}, not volume {id}", str(device))


def rescan(device: Path) -> None:
    """Let the kernel look at the disk's size again; virtio does so by itself."""
    attribute = blockdevices.SYSFS / blockdevices.number_of(device) / "device/rescan"
    try:
        attribute.write_text("1")
    except OSError:
        # Not a SCSI disk, or no right to: the size that is there counts.
        return


def scan(sysfs: Path = Path("/sys/class/scsi_host")) -> None:
    """Let every SCSI host look for new disks."""
    for host in sysfs.glob("host*"):
        try:
            (host / "scan").write_text("- - -")
        except OSError:
            continue


def _agrees(said: str, id: str) -> bool:
    plain, low = id.replace("-", "").lower(), said.lower()
    # A WWID is longer than the serial number in it; what is shorter says nothing.
    return (
        (len(low) >= SHORT and id.startswith(low))
        or id[:SHORT] in low
        or plain in low.replace("-", "")
    )


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError:
        return ""
    # A vital product data page has a header of four bytes.
    content = raw[4:] if path.name == "vpd_pg80" else raw
    return content.decode(errors="replace").strip().strip("\0")
