"""Makes, checks and grows file systems with the programs made for it.

Nothing is formatted that is not blank: `prepare` refuses a device with any
signature or non-zero data and names what it found. The one exception is our
own interrupted mkfs, which the caller remembers (`resuming`); even then a
device that shows a complete file system is checked, not formatted again.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from holdfast.backends import errors, tools
from holdfast.backends.protocol import Device
from holdfast.kit import process
from holdfast.node import deadmounts, signatures

MAKE_SECONDS = 300.0
CHECK_SECONDS = 3600.0
DEFAULT = "ext4"

_MAKE: dict[str, tuple[str, ...]] = {
    # No blocks are kept for root (-m 0): the volume belongs to its pod. Tables
    # are filled in by the kernel after mounting, so that formatting is quick.
    "ext4": (
        "mkfs.ext4",
        *("-q", "-F", "-m", "0"),
        *("-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1"),
    ),
    "ext3": ("mkfs.ext4", "-t", "ext3", "-q", "-F", "-m", "0", "-E", "nodiscard"),
    "ext2": ("mkfs.ext4", "-t", "ext2", "-q", "-F", "-m", "0", "-E", "nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-K", "-f"),
    "btrfs": ("mkfs.btrfs", "-q", "-K", "-f"),
}

# What the kernel says about a file whose FUSE server is dead, in the C locale.
_NOT_CONNECTED = b"Transport endpoint is not connected"
_EXT = ("ext2", "ext3", "ext4")


async def read(device: Device) -> signatures.Content:
    """Say what is on the device. Raises errors.Unavailable when it cannot be read."""
    try:
        return await asyncio.to_thread(signatures.read, device.path)
    except OSError as error:
        raise errors.Unavailable(
            f"cannot be read ({error.strerror})", str(device.path), "check the disk"
        ) from error


def choose(wanted: str, content: signatures.Content) -> str:
    """Return the file system to use: the one asked for, else the one there, else ext4."""
    return wanted or content.file_system or DEFAULT


def refuse_foreign(device: Device, fs_type: str, content: signatures.Content) -> None:
    """Raise errors.Conflict when the device holds anything but `fs_type`.

    A blank device passes too.
    """
    if content.blank or content.file_system == fs_type:
        return
    if content.file_system:
        raise errors.Conflict(
            f"the device holds {content.file_system}, but the volume asks for {fs_type}",
            str(device.path),
            f"write fsType: {content.file_system} in the volume, or erase the device if "
            "its data is not needed",
        )
    found = " and ".join(content.signatures) or "data of an unknown kind"
    raise errors.Conflict(
        f"not formatted: the device holds {found}",
        str(device.path),
        "use another device, or erase this one by hand if its data is not needed",
    )


async def ask_blkid(device: Device) -> None:
    """Get a second opinion that the device is blank. Raises errors.Conflict.

    Without blkid our own look has to do.
    """
    if tools.missing("blkid"):
        return
    try:
        found = await process.run(["blkid", "-p", "-o", "export", str(device.path)])
    except process.CommandFailed as error:
        if error.code == 2:
            return  # nothing found
        raise errors.Conflict(
            "not formatted: blkid cannot tell what is on the device", str(device.path)
        ) from error
    kinds = [
        line.partition("=")[2]
        for line in found.stdout.decode(errors="replace").splitlines()
        if line.startswith(("TYPE=", "PTTYPE="))
    ]
    if kinds:
        raise errors.Conflict(
            f"not formatted: blkid finds {' and '.join(kinds)}",
            str(device.path),
            "use another device, or erase this one by hand if its data is not needed",
        )


async def make(device: Device, fs_type: str) -> None:
    """Format the device, whatever is on it: ask before."""
    command = _MAKE.get(fs_type)
    if command is None:
        raise errors.Invalid(
            f'cannot make a file system "{fs_type}"', "fsType", f"use one of {', '.join(_MAKE)}"
        )
    try:
        await process.run([*command, str(device.path)], timeout=MAKE_SECONDS)
    except process.CommandFailed as error:
        raise await asyncio.to_thread(_not_made, error, str(device.path)) from error


async def check(device: Device, fs_type: str, *, force: bool = False) -> None:
    """Repair what can be repaired without asking. Raises errors.Unavailable otherwise.

    Only the ext family needs this before a mount; xfs and btrfs replay their
    logs in the kernel.
    """
    if fs_type not in _EXT:
        return
    try:
        await process.run(
            ["e2fsck", "-p", *(["-f"] if force else []), str(device.path)], timeout=CHECK_SECONDS
        )
    except process.CommandFailed as error:
        # 1: errors were corrected; 2: corrected, and the machine should be
        # restarted if the file system is mounted, which this one is not.
        if error.code in (1, 2):
            return
        raise _translated(error, str(device.path)) from error


def is_short(device: Device, content: signatures.Content) -> bool:
    """Return whether the device is larger than the file system on it."""
    return 0 < content.size < device.size - content.slack


async def grow_unmounted(device: Device, fs_type: str) -> None:
    """Fill the device with the file system where that works without mounting (ext)."""
    if fs_type in _EXT:
        await check(device, fs_type, force=True)
        await run(["resize2fs", str(device.path)], str(device.path), CHECK_SECONDS)


async def grow_mounted(device: Device, fs_type: str, point: Path) -> None:
    """Fill the device with the mounted file system.

    Raises errors.Conflict when the kernel only allows that unmounted: growing
    ext4 online needs CAP_SYS_RESOURCE.
    """
    where = str(device.path)
    if fs_type == "xfs":
        await run(["xfs_growfs", "-d", str(point)], where, CHECK_SECONDS)
    elif fs_type == "btrfs":
        await run(["btrfs", "filesystem", "resize", "max", str(point)], where, CHECK_SECONDS)
    elif fs_type in _EXT:
        await _grow_ext_mounted(device)


async def _grow_ext_mounted(device: Device) -> None:
    try:
        await process.run(["resize2fs", str(device.path)], timeout=CHECK_SECONDS)
    except process.CommandFailed as error:
        if b"ermission denied" in error.stderr or b"not permitted" in error.stderr:
            raise errors.Conflict(
                "the file system cannot be grown while it is mounted: the kernel asks for "
                "CAP_SYS_RESOURCE",
                str(device.path),
                "restart the pod: the file system grows before it is mounted again",
            ) from error
        raise _translated(error, str(device.path)) from error


async def run(argv: list[str], where: str, timeout: float) -> None:
    """Run a file system tool with its failure translated to errors.Unavailable."""
    try:
        await process.run(argv, timeout=timeout)
    except process.CommandFailed as error:
        raise _translated(error, where) from error


def _not_made(error: process.CommandFailed, where: str) -> errors.Unavailable:
    """Name the mount over which mkfs.btrfs stumbled, which may be any of this machine's."""
    dead = deadmounts.find() if _NOT_CONNECTED in error.stderr else []
    if not dead:
        return _translated(error, where)
    return errors.Unavailable(
        f"{error.argv[0]} looks at every mount of this machine, and the disk of one is gone "
        f"because the program that served it has ended: {'; '.join(map(str, dead))}",
        where,
        f"delete the pod that uses that volume, or run: {'; '.join(e.remedy for e in dead)}",
    )


def _translated(error: process.CommandFailed, where: str) -> errors.Unavailable:
    if isinstance(error, process.CommandMissing):
        program = error.argv[0]
        package = tools.package_of(program)
        return errors.Unavailable(
            f"{program} is not installed",
            where,
            f"install the package {package} on this node: apt-get install {package}",
        )
    if error.argv[0] == "e2fsck" and error.code & 4:
        return errors.Unavailable(
            f"the file system is damaged beyond automatic repair: {error}",
            where,
            f"run `e2fsck {where}` by hand while no pod uses the volume",
        )
    return errors.Unavailable(str(error), where)
