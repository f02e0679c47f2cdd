"""Bricks as thin volumes, laid out as Heketi does: a volume group per device, a pool per brick.

`vg_DEVICE` holds for each brick the pool `tp_BRICK` and in it `brick_BRICK`; a clone's bricks lie
in the pool of the bricks they were cloned from. A device with a signature is refused unless the
caller says that its data may go.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from holdfast.heketi import errors
from holdfast.heketi.executors import mounts
from holdfast.heketi.executors.mounts import Mounting
from holdfast.heketi.executors.protocol import (
    BrickFacts,
    BrickSpec,
    Disk,
    DiskFacts,
    Output,
    Transport,
)

_BRICK = re.compile(r"brick_([0-9a-f]{32})")
_GONE = ("not found", "Failed to find")


@dataclass(frozen=True, slots=True)
class Tuning:
    """The settings of Heketi's sshexec and kubeexec that concern LVM."""

    alignment: str = "256K"
    extent: str = "4M"
    chunk: str = "256K"
    stripe: tuple[int, int] | None = None
    wrapper: tuple[str, ...] = ()


class LvmLayout:
    """See `protocol.Layout`."""

    def __init__(
        self, transport: Transport, mounting: Mounting, tuning: Tuning | None = None
    ) -> None:
        self._transport = transport
        self._mounting = mounting
        self._tuning = tuning or Tuning()

    async def prepare(self, host: str, disk: Disk, destroy: bool) -> DiskFacts:
        """See the protocol."""
        if not await self._is_ours(host, disk):
            await self._blank(host, disk, destroy)
            await self._lvm(
                host,
                "pvcreate",
                "-qq",
                "--metadatasize=128M",
                f"--dataalignment={self._tuning.alignment}",
                disk.name,
            )
            await self._lvm(
                host,
                "vgcreate",
                "-qq",
                f"--physicalextentsize={self._tuning.extent}",
                "--autobackup=n",
                _group(disk),
                disk.name,
            )
        return await self.measure(host, disk)

    async def _is_ours(self, host: str, disk: Disk) -> bool:
        said = await self._lvm(host, "pvs", "--noheadings", "-o", "vg_name", disk.name, check=False)
        return said.code == 0 and said.stdout.strip() == _group(disk)

    async def _blank(self, host: str, disk: Disk, destroy: bool) -> None:
        if destroy:
            await self._transport.run(host, ["wipefs", "--all", "--quiet", disk.name])
            return
        argv = ["wipefs", "--noheadings", "--output", "TYPE", disk.name]
        found = (await self._transport.run(host, argv)).stdout.split()
        if found == ["LVM2_member"] and await self._is_empty_volume(host, disk):
            # What is left of an earlier try that ended between the two commands.
            await self._lvm(host, "pvremove", "-qq", disk.name)
        elif found:
            raise errors.ExecutionFailed(
                host,
                f"device {disk.name}",
                f"it holds {', '.join(found)}; pass destroydata to give that up",
            )

    async def _is_empty_volume(self, host: str, disk: Disk) -> bool:
        """A physical volume in no group, as `pvcreate` leaves it."""
        said = await self._lvm(
            host,
            "pvs",
            "--noheadings",
            "-o",
            "vg_name,pv_used",
            "--units",
            "b",
            disk.name,
            check=False,
        )
        return said.code == 0 and said.stdout.split() == ["0B"]

    async def measure(self, host: str, disk: Disk) -> DiskFacts:
        """See the protocol."""
        said = await self._lvm(host, "vgdisplay", "-c", _group(disk))
        fields = said.stdout.strip().split(":")
        extent, total, free = int(fields[12]), int(fields[13]), int(fields[15])
        uuid = await self._lvm(host, "pvs", "--noheadings", "-o", "pv_uuid", disk.name)
        links = await self._transport.run(
            host, ["udevadm", "info", "--query=symlink", f"--name={disk.name}"], check=False
        )
        paths = [disk.name, *(f"/dev/{name}" for name in links.stdout.split())]
        return DiskFacts(
            total * extent, free * extent, extent, uuid.stdout.strip(), tuple(dict.fromkeys(paths))
        )

    async def release(self, host: str, disk: Disk) -> None:
        """See the protocol."""
        if await self._is_ours(host, disk):
            await self._lvm(host, "vgremove", "-qq", _group(disk))
            await self._lvm(host, "pvremove", "-qq", disk.name)
        where = f"{self._mounting.root}/{_group(disk)}"
        await self._transport.run(host, ["sh", "-c", '[ ! -d "$1" ] || rmdir "$1"', "sh", where])

    async def make(self, host: str, brick: BrickSpec) -> str:
        """See the protocol."""
        where = mounts.point(self._mounting.root, brick)
        await self._transport.run(host, ["mkdir", "-p", where])
        group, source = _group(brick.disk), _source(brick)
        there = await self._lvm(host, "lvs", f"{group}/{brick.lv}", check=False)
        if there.code != 0:
            await self._lvm(
                host,
                "lvcreate",
                "-qq",
                "--autobackup=n",
                "--poolmetadatasize",
                f"{brick.pool_metadata}K",
                "--chunksize",
                self._tuning.chunk,
                "--size",
                f"{brick.pool_size}K",
                "--thin",
                f"{group}/{brick.pool}",
                "--virtualsize",
                f"{brick.size}K",
                "--name",
                brick.lv,
            )
        if not await self._formatted(host, source):
            await self._transport.run(host, mounts.mkfs(brick, source, self._tuning.stripe))
        return await mounts.mount(self._transport, host, self._mounting, brick, source, extra="")

    async def _formatted(self, host: str, source: str) -> bool:
        """Whether an earlier try got so far: a fresh thin volume reads as zeros."""
        argv = ["blkid", "-p", "-s", "TYPE", "-o", "value", source]
        said = await self._transport.run(host, argv, check=False)
        return said.stdout.strip() == "xfs"

    async def destroy(self, host: str, brick: BrickSpec) -> None:
        """See the protocol."""
        await mounts.unmount(self._transport, host, self._mounting, brick)
        group = _group(brick.disk)
        await self._lvm(host, "lvremove", "--autobackup=n", "-f", f"{group}/{brick.lv}", fine=_GONE)
        said = await self._lvm(
            host,
            "lvs",
            "--noheadings",
            "--options=thin_count",
            f"{group}/{brick.pool}",
            check=False,
        )
        # Clones may still lie in the pool; the last one takes it along.
        if said.code == 0 and said.stdout.strip() in ("", "0"):
            await self._lvm(
                host, "lvremove", "--autobackup=n", "-f", f"{group}/{brick.pool}", fine=_GONE
            )
        await mounts.remove_point(self._transport, host, self._mounting, brick)

    async def find(self, host: str, disk: Disk | None) -> list[BrickFacts]:
        """See the protocol."""
        said = await self._lvm(
            host,
            "lvs",
            "--noheadings",
            "--units",
            "k",
            "--nosuffix",
            "--separator",
            "|",
            "-o",
            "vg_name,lv_name,lv_size,pool_lv,lv_metadata_size,devices",
            *([_group(disk)] if disk else []),
        )
        rows = [[cell.strip() for cell in line.split("|")] for line in said.stdout.splitlines()]
        pools = {(row[0], row[1]): row for row in rows if len(row) == 6 and not row[3]}
        names = await self._disk_names(host)
        found = []
        for group, name, size, pool, _, _ in (row for row in rows if len(row) == 6 and row[3]):
            known = _BRICK.fullmatch(name)
            if known is None or (group, pool) not in pools:
                continue
            key, device = known[1], group.removeprefix("vg_")
            path = f"{self._mounting.root}/{group}/{name}/brick"
            room = pools[group, pool]
            found.append(
                BrickFacts(
                    key,
                    f"{device} {names.get(group, '')}",
                    path,
                    _number(size),
                    _number(room[2]),
                    _number(room[4]),
                    pool,
                    name,
                )
            )
        return found

    async def _disk_names(self, host: str) -> dict[str, str]:
        said = await self._lvm(
            host, "pvs", "--noheadings", "--separator", "|", "-o", "vg_name,pv_name"
        )
        pairs = (line.strip().partition("|") for line in said.stdout.splitlines())
        return {group.strip(): name.strip() for group, _, name in pairs}

    async def _lvm(
        self, host: str, *argv: str, check: bool = True, fine: tuple[str, ...] = ()
    ) -> Output:
        whole = [*self._tuning.wrapper, *argv]
        done = await self._transport.run(host, whole, check=check and not fine)
        if fine and done.code != 0 and not any(each in done.stderr for each in fine):
            raise errors.ExecutionFailed(host, argv[0], done.stderr, done.code)
        return done


def _number(text: str) -> int:
    return int(float(text or 0))


def _group(disk: Disk) -> str:
    return f"vg_{disk.id}"


def _source(brick: BrickSpec) -> str:
    return f"/dev/mapper/{_group(brick.disk)}-{brick.lv}"
