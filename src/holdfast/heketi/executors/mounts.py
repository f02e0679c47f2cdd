"""Where bricks are mounted, and how a node's fstab keeps them over a reboot.

The place is Heketi's: `/var/lib/heketi/mounts/vg_DEVICE/brick_BRICK/brick`, so a cluster changes
hands without anything being moved. GlusterFS gets the directory below the mount: while the disk is
away there is no such directory and no data goes to the root disk.
"""

from __future__ import annotations

import stat
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.heketi.executors.protocol import BrickSpec, Transport

MOUNTS = "/var/lib/heketi/mounts"
_AT_ONCE = 500
_ADD = 'grep -qsF " $2 " "$1" || printf "%s\\n" "$3" >> "$1"'


@dataclass(frozen=True, slots=True)
class Mounting:
    """How bricks are mounted."""

    fstab: str = "/etc/fstab"
    options: str = "rw,inode64,noatime,nouuid"
    root: str = MOUNTS


def point(root: str, brick: BrickSpec) -> str:
    """Where a brick is mounted; a brick that has a path already keeps it."""
    if brick.path:
        return brick.path.removesuffix("/brick")
    return f"{root}/vg_{brick.disk.id}/brick_{brick.id}"


def mkfs(brick: BrickSpec, target: str, stripe: tuple[int, int] | None = None) -> list[str]:
    """The command that makes a brick's file system; an arbiter brick is all inodes."""
    inodes = "size=512,maxpct=100" if brick.arbiter else "size=512"
    argv = ["mkfs.xfs", "-q", "-i", inodes, "-n", "size=8192"]
    if stripe is not None:
        argv += ["-d", f"su={stripe[0]}k,sw={stripe[1]}"]
    return [*argv, target]


async def mount(
    transport: Transport, host: str, settings: Mounting, brick: BrickSpec, source: str, extra: str
) -> str:
    """Mount a brick, now and at every start of the node; its path."""
    where = point(settings.root, brick)
    options = f"{extra}{settings.options}"
    await transport.run(host, ["mkdir", "-p", where])
    line = f"{source} {where} xfs {options} 1 2"
    await transport.run(host, ["sh", "-c", _ADD, "sh", settings.fstab, where, line])
    if not await mounted(transport, host, where):
        await transport.run(host, ["mount", "-t", "xfs", "-o", options, source, where])
    await transport.run(host, ["mkdir", "-p", f"{where}/brick"])
    if brick.gid:
        await transport.run(host, ["chown", f":{brick.gid}", f"{where}/brick"])
        await transport.run(host, ["chmod", "2775", f"{where}/brick"])
    return f"{where}/brick"


async def groups(transport: Transport, host: str, paths: Sequence[str]) -> dict[str, int]:
    """The group of each brick's directory that was given one, as `mount` does."""
    found = {}
    for start in range(0, len(paths), _AT_ONCE):
        argv = ["stat", "-c", "%g %a %n", *paths[start : start + _AT_ONCE]]
        # A brick that is not mounted is not there: that is no failure.
        for line in (await transport.run(host, argv, check=False)).stdout.splitlines():
            gid, mode, path = line.split(" ", 2)
            if int(mode, 8) & stat.S_ISGID:
                found[path] = int(gid)
    return found


async def unmount(transport: Transport, host: str, settings: Mounting, brick: BrickSpec) -> None:
    """Unmount it and forget it in fstab."""
    where = point(settings.root, brick)
    if await mounted(transport, host, where):
        await transport.run(host, ["umount", where])
    await transport.run(
        host,
        ["sh", "-c", '[ ! -e "$1" ] || sed -i "\\|$2|d" "$1"', "sh", settings.fstab, f" {where} "],
    )


async def remove_point(
    transport: Transport, host: str, settings: Mounting, brick: BrickSpec
) -> None:
    """Remove the empty directory it was mounted on."""
    where = point(settings.root, brick)
    await transport.run(host, ["sh", "-c", '[ ! -d "$1" ] || rmdir "$1"', "sh", where])


async def mounted(transport: Transport, host: str, where: str) -> bool:
    """Whether something is mounted there."""
    return (await transport.run(host, ["mountpoint", "-q", where], check=False)).code == 0
