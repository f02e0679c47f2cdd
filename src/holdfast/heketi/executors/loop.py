"""Bricks as XFS images on a directory, for nodes without a device mapper.

A "device" is a directory of the node. It is empty when it is taken, or was ours: a file
`holdfast-device` in it says whose it is. A brick is a sparse image in it, mounted through a loop
device. An image appears under its name with its file system or not at all.
"""

from __future__ import annotations

from holdfast.heketi import errors
from holdfast.heketi.executors import mounts
from holdfast.heketi.executors.mounts import Mounting
from holdfast.heketi.executors.protocol import BrickFacts, BrickSpec, Disk, DiskFacts, Transport

MARK = "holdfast-device"
_LIST = 'for f in "$1"/* "$1"/.[!.]*; do [ ! -e "$f" ] || basename "$f"; done'
# mkfs works on another name; only a finished image gets its own.
_IMAGE = (
    '[ -e "$1" ] || { rm -f "$1.new" && truncate -s "$2" "$1.new" && shift 2 && "$@" && '
    'mv "${0}.new" "$0"; }'
)


class LoopLayout:
    """See `protocol.Layout`."""

    def __init__(self, transport: Transport, mounting: Mounting, size: int | None = None) -> None:
        self._transport = transport
        self._mounting = mounting
        self._size = size

    async def prepare(self, host: str, disk: Disk, destroy: bool) -> DiskFacts:
        """See the protocol."""
        run = self._transport.run
        names = (await run(host, ["sh", "-c", _LIST, "sh", disk.name])).stdout.split()
        owner = ""
        if MARK in names:
            owner = (await run(host, ["cat", f"{disk.name}/{MARK}"])).stdout.strip()
        if owner != disk.id:
            await self._take_over(host, disk, names, destroy)
        await run(host, ["mkdir", "-p", disk.name])
        script = 'printf "%s\\n" "$2" > "$1.new" && mv "$1.new" "$1"'
        await run(host, ["sh", "-c", script, "sh", f"{disk.name}/{MARK}", disk.id])
        return await self.measure(host, disk)

    async def _take_over(self, host: str, disk: Disk, names: list[str], destroy: bool) -> None:
        ours = [name for name in names if name == MARK or _is_brick(name)]
        if names and (not destroy or len(ours) < len(names)):
            shown = ", ".join(names[:3])
            what = "it is somebody's data" if len(ours) < len(names) else "pass destroydata"
            raise errors.ExecutionFailed(
                host, f"device {disk.name}", f"the directory is not empty ({shown}): {what}"
            )
        mounted = await self._transport.run(host, ["cat", "/proc/self/mounts"])
        used = [name for name in ours if f"/{_key(name)}" in mounted.stdout]
        if used:
            raise errors.ExecutionFailed(
                host,
                f"device {disk.name}",
                f"its bricks are mounted ({', '.join(used[:3])}): it is in use as another device, "
                "perhaps under another path",
            )
        for name in names:
            await self._transport.run(host, ["rm", "-f", f"{disk.name}/{name}"])

    async def measure(self, host: str, disk: Disk) -> DiskFacts:
        """See the protocol."""
        said = await self._transport.run(host, ["stat", "-f", "-c", "%S %a", disk.name])
        block, available = (int(word) for word in said.stdout.split())
        free = block * available // 1024
        bricks = await self.find(host, disk)
        taken = sum(brick.pool_size for brick in bricks)
        total = self._size if self._size is not None else free + taken
        return DiskFacts(total, max(0, total - taken), uuid=disk.id, paths=(disk.name,))

    async def release(self, host: str, disk: Disk) -> None:
        """See the protocol."""
        script = '[ "$(cat "$1" 2>/dev/null)" != "$2" ] || rm -f "$1"'
        mark = f"{disk.name}/{MARK}"
        await self._transport.run(host, ["sh", "-c", script, "sh", mark, disk.id])

    async def make(self, host: str, brick: BrickSpec) -> str:
        """See the protocol."""
        image = _image(brick)
        argv = mounts.mkfs(brick, f"{image}.new")
        await self._transport.run(host, ["sh", "-c", _IMAGE, image, image, f"{brick.size}K", *argv])
        return await mounts.mount(
            self._transport, host, self._mounting, brick, image, extra="loop,"
        )

    async def destroy(self, host: str, brick: BrickSpec) -> None:
        """See the protocol."""
        await mounts.unmount(self._transport, host, self._mounting, brick)
        image = _image(brick)
        await self._transport.run(host, ["rm", "-f", image, f"{image}.new"])
        await mounts.remove_point(self._transport, host, self._mounting, brick)

    async def find(self, host: str, disk: Disk | None) -> list[BrickFacts]:
        """See the protocol."""
        if disk is None:
            return await self._from_fstab(host)
        script = _LIST.replace("basename", "stat -c %n/%s")
        said = await self._transport.run(host, ["sh", "-c", script, "sh", disk.name])
        found = []
        for line in said.stdout.splitlines():
            path, _, size = line.rpartition("/")
            name = path.rpartition("/")[2]
            if _is_brick(name) and name.endswith(".img"):
                found.append(self._facts(disk, name, int(size) // 1024))
        return found

    async def _from_fstab(self, host: str) -> list[BrickFacts]:
        """Bricks of disks that are not known: their fstab lines name them."""
        script = '[ ! -e "$1" ] || cat "$1"'
        said = await self._transport.run(host, ["sh", "-c", script, "sh", self._mounting.fstab])
        found = []
        for line in said.stdout.splitlines():
            words = line.split()
            if len(words) < 2 or not words[1].startswith(f"{self._mounting.root}/vg_"):
                continue
            directory, _, name = words[0].rpartition("/")
            disk = Disk(words[1].rsplit("/", 2)[1].removeprefix("vg_"), directory)
            size = await self._transport.run(host, ["stat", "-c", "%s", words[0]])
            found.append(self._facts(disk, name, int(size.stdout) // 1024))
        return found

    def _facts(self, disk: Disk, name: str, size: int) -> BrickFacts:
        key = name.removesuffix(".img").removeprefix("brick_")
        path = f"{self._mounting.root}/vg_{disk.id}/brick_{key}/brick"
        return BrickFacts(
            key, f"{disk.id} {disk.name}", path, size, size, 0, f"tp_{key}", f"brick_{key}"
        )


def _is_brick(name: str) -> bool:
    return name.startswith("brick_") and name.endswith((".img", ".img.new"))


def _key(name: str) -> str:
    """What an image is mounted as."""
    return name.removesuffix(".new").removesuffix(".img")


def _image(brick: BrickSpec) -> str:
    return f"{brick.disk.name}/brick_{brick.id}.img"
