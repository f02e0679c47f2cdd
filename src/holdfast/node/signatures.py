"""What lies on a disk: file systems, partition tables and other claims to the data.

Before anything is formatted the device is read here. Two questions are asked:
does a known signature stand at its place, and are the first and last MiB zero?
Only a device with no signature and nothing but zeros at both ends counts as
blank. That is stricter than looking for file systems alone, and it is meant to
be: an unknown format is somebody's data too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MIB = 1 << 20
HEAD = MIB + 4096


@dataclass(frozen=True, slots=True)
class Content:
    """What was found. `size` is the file system's own idea of its size in bytes, or 0.

    `clean` is False when a check should run before mounting.
    """

    signatures: tuple[str, ...]
    blank: bool
    size: int = 0
    slack: int = 0
    clean: bool = True

    @property
    def file_system(self) -> str:
        """The mountable file system, or "" when there is none or more than one."""
        found = [name for name in self.signatures if name in _FILE_SYSTEMS]
        return found[0] if len(self.signatures) == 1 and found else ""


_FILE_SYSTEMS = {"ext2", "ext3", "ext4", "xfs", "btrfs"}

_EXT_MAGIC = (0x438, b"\x53\xef")

# (name, offset, bytes). The ext family, zfs and boot sectors need more than a
# comparison and have functions of their own.
_MAGICS: tuple[tuple[str, int, bytes], ...] = (
    ("xfs", 0, b"XFSB"),
    ("btrfs", 0x10040, b"_BHRfS_M"),
    ("LUKS", 0, b"LUKS\xba\xbe"),
    ("LUKS", 0x4000, b"SKUL\xba\xbe"),
    ("GPT", 512, b"EFI PART"),
    ("GPT", 4096, b"EFI PART"),
    ("squashfs", 0, b"hsqs"),
    ("f2fs", 0x400, b"\x10\x20\xf5\xf2"),
    ("erofs", 0x400, b"\xe2\xe1\xf5\xe0"),
    ("ntfs", 3, b"NTFS    "),
    ("exfat", 3, b"EXFAT   "),
    ("vfat", 54, b"FAT12   "),
    ("vfat", 54, b"FAT16   "),
    ("vfat", 82, b"FAT32   "),
    ("iso9660", 0x8001, b"CD001"),
    ("reiserfs", 0x10034, b"ReIsEr"),
    ("jfs", 0x8000, b"JFS1"),
    ("gfs2", 0x10000, b"\x01\x16\x19\x70"),
    ("ocfs2", 0x2000, b"OCFSV2"),
    ("Linux RAID", 0, b"\xfc\x4e\x2b\xa9"),
    ("Linux RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    ("bcache", 4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"),
    ("Ceph BlueStore", 0, b"bluestore block device"),
    ("VMFS", 0x100000, b"\x0d\xd0\x01\xc0"),
)

_LVM_SECTORS = range(0, 4 * 512, 512)
_SWAP_ENDS = (4096, 8192, 16384, 65536)
_SWAP_MAGICS = (b"SWAPSPACE2", b"SWAP-SPACE", b"S1SUSPEND\x00")
_ZFS_MAGICS = (b"\x0c\xb1\xba\x00\x00\x00\x00\x00", b"\x00\x00\x00\x00\x00\xba\xb1\x0c")
_ZFS_UBERBLOCKS = range(128 << 10, 256 << 10, 1024)


def read(device: Path) -> Content:
    """Read the device and say what is on it. Raises OSError."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.lseek(descriptor, 0, os.SEEK_END)
        head = os.pread(descriptor, HEAD, 0)
        tail = os.pread(descriptor, MIB, max(0, size - MIB))
    finally:
        os.close(descriptor)
    names = tuple(dict.fromkeys(_names(head, tail)))
    if names:
        return _described(names, head)
    return Content((), blank=_zero(head) and _zero(tail))


def _names(head: bytes, tail: bytes) -> list[str]:
    found = [_ext_version(head)] if _at(head, *_EXT_MAGIC) else []
    found += [name for name, offset, magic in _MAGICS if _at(head, offset, magic)]
    if any(_at(head, start, b"LABELONE") for start in _LVM_SECTORS):
        found.append("LVM2 physical volume")
    if any(_at(head, end - 10, magic) for end in _SWAP_ENDS for magic in _SWAP_MAGICS):
        found.append("swap")
    if any(_at(head, start, magic) for start in _ZFS_UBERBLOCKS for magic in _ZFS_MAGICS):
        found.append("zfs")
    if tail[-512:].startswith(b"EFI PART"):
        found.append("GPT")
    found += _raid_at_end(tail)
    # FAT and NTFS end their boot sector like a partition table does.
    if not found and _at(head, 510, b"\x55\xaa"):
        found.append("MBR partition table or boot sector")
    return found


def _raid_at_end(tail: bytes) -> list[str]:
    """Old metadata stands 64 to 128 KiB, version 1.0 8 to 12 KiB before the end."""
    offsets = [*range(64 << 10, (128 << 10) + 1, 4096), *range(8 << 10, (12 << 10) + 1, 512)]
    magics = (b"\xfc\x4e\x2b\xa9", b"\xa9\x2b\x4e\xfc")
    for offset in offsets:
        if len(tail) >= offset and tail[-offset:].startswith(magics):
            return ["Linux RAID"]
    return []


def _described(names: tuple[str, ...], head: bytes) -> Content:
    if len(names) > 1:
        return Content(names, blank=False)
    name = names[0]
    if name.startswith("ext"):
        return _ext(names, head)
    if name == "xfs":
        block = int.from_bytes(head[4:8], "big")
        return Content(names, False, block * int.from_bytes(head[8:16], "big"), MIB)
    if name == "btrfs":
        total = int.from_bytes(head[0x10070:0x10078], "little")
        return Content(names, False, total, 4 * MIB)
    return Content(names, blank=False)


def _ext(names: tuple[str, ...], head: bytes) -> Content:
    """Read the superblock of the ext family, which starts at 1024."""
    block = 1024 << _u32(head, 0x418)
    blocks = _u32(head, 0x404)
    if _u32(head, 0x460) & 0x80:
        blocks |= _u32(head, 0x550) << 32
    state = int.from_bytes(head[0x43A:0x43C], "little")
    needs_recovery = bool(_u32(head, 0x460) & 0x4)
    # A last block group too small for its own tables is left out by mkfs: that
    # much may be missing at the end without the device having grown.
    tables = _u32(head, 0x428) * int.from_bytes(head[0x458:0x45A], "little") // block
    reserved = int.from_bytes(head[0x4CE:0x4D0], "little")
    slack = (tables + reserved + 128) * block
    clean = bool(state & 1) and not state & 2 and not needs_recovery
    return Content(names, False, blocks * block, slack, clean)


def _ext_version(head: bytes) -> str:
    if _u32(head, 0x460) & ~0x16:  # anything beyond filetype, recovery and meta_bg
        return "ext4"
    return "ext3" if _u32(head, 0x45C) & 0x4 else "ext2"


def _u32(head: bytes, offset: int) -> int:
    return int.from_bytes(head[offset : offset + 4], "little")


def _at(data: bytes, offset: int, magic: bytes) -> bool:
    return data[offset : offset + len(magic)] == magic


def _zero(data: bytes) -> bool:
    return data.count(0) == len(data)
