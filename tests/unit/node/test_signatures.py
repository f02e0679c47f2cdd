"""Recognising what lies on a disk, against what the real tools write."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from holdfast.node import signatures

MIB = 1 << 20


def disk(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def poke(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset, os.SEEK_SET if offset >= 0 else os.SEEK_END)
        file.write(data)


@pytest.mark.parametrize(
    ("name", "command", "size"),
    [
        ("ext2", ["mkfs.ext4", "-q", "-F", "-t", "ext2"], 32 * MIB),
        ("ext3", ["mkfs.ext4", "-q", "-F", "-t", "ext3"], 32 * MIB),
        ("ext4", ["mkfs.ext4", "-q", "-F"], 32 * MIB + 4096),
        ("xfs", ["mkfs.xfs", "-q"], 320 * MIB),
        ("btrfs", ["mkfs.btrfs", "-q"], 128 * MIB),
        ("swap", ["mkswap"], 32 * MIB),
        ("LUKS", ["cryptsetup", "luksFormat", "-q", "--key-file", "/etc/hostname"], 32 * MIB),
        ("vfat", ["mkfs.vfat"], 32 * MIB),
    ],
)
def test_what_a_real_tool_wrote_is_recognised(
    tmp_path: Path, name: str, command: list[str], size: int
) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    image = disk(tmp_path / "disk", size)
    subprocess.run([*command, str(image)], check=True, capture_output=True)
    content = signatures.read(image)
    assert content.signatures == (name,)
    assert not content.blank
    if name in ("ext2", "ext3", "ext4", "xfs", "btrfs"):
        assert content.file_system == name
        assert content.clean
        assert size - content.slack <= content.size <= size


@pytest.mark.root
def test_what_pvcreate_wrote_is_recognised(tmp_path: Path) -> None:
    if shutil.which("pvcreate") is None:
        pytest.skip("pvcreate is not installed")
    image = disk(tmp_path / "disk", 32 * MIB)
    # It takes devices only.
    loop = subprocess.run(
        ["losetup", "--find", "--show", str(image)], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        subprocess.run(["pvcreate", "-qq", loop], check=True, capture_output=True)
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)
    assert signatures.read(image).signatures == ("LVM2 physical volume",)


@pytest.mark.parametrize(
    ("name", "offset", "data"),
    [
        ("GPT", 512, b"EFI PART"),
        ("GPT", -512, b"EFI PART"),
        ("zfs", (128 << 10) + 3072, b"\x0c\xb1\xba\x00\x00\x00\x00\x00"),
        ("zfs", 128 << 10, b"\x00\x00\x00\x00\x00\xba\xb1\x0c"),
        ("MBR partition table or boot sector", 510, b"\x55\xaa"),
        ("Linux RAID", 4096, b"\xfc\x4e\x2b\xa9"),
        ("Linux RAID", -8192, b"\xfc\x4e\x2b\xa9"),
        ("Linux RAID", -65536, b"\xfc\x4e\x2b\xa9"),
        ("Ceph BlueStore", 0, b"bluestore block device"),
        ("VMFS", MIB, b"\x0d\xd0\x01\xc0"),
    ],
)
def test_signatures_stand_at_their_places(
    tmp_path: Path, name: str, offset: int, data: bytes
) -> None:
    image = disk(tmp_path / "disk", 8 * MIB)
    poke(image, offset, data)
    assert signatures.read(image).signatures == (name,)


@pytest.mark.parametrize("offset", [0, 5000, MIB - 1, -1, -MIB])
def test_one_byte_at_either_end_makes_a_disk_not_blank(tmp_path: Path, offset: int) -> None:
    image = disk(tmp_path / "disk", 8 * MIB)
    assert signatures.read(image) == signatures.Content((), blank=True)
    poke(image, offset, b"x")
    assert signatures.read(image) == signatures.Content((), blank=False)


def test_a_disk_smaller_than_the_areas_read_is_judged_whole(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk", 8192)
    assert signatures.read(image).blank
    poke(image, 6000, b"x")
    assert not signatures.read(image).blank


def test_an_unclean_ext4_asks_for_a_check(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk", 32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    poke(image, 0x43A, b"\x03\x00")  # valid, with errors
    assert not signatures.read(image).clean


def test_two_signatures_are_no_file_system_to_mount(tmp_path: Path) -> None:
    image = disk(tmp_path / "disk", 32 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    poke(image, -512, b"EFI PART")
    content = signatures.read(image)
    assert content.signatures == ("ext4", "GPT")
    assert content.file_system == ""
