"""Maps an image with the kernel's own client, by its interface in sysfs.

No program is run: what `rbd map` does besides is look up a configuration, and
here everything is known. The key goes into the kernel by a write to sysfs. A
device is found by what it is - cluster, pool, namespace, image, snapshot - and
never by its number.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from pathlib import Path

from holdfast.backends import blockdevices, errors, tools
from holdfast.backends.protocol import Device
from holdfast.backends.rbd import features
from holdfast.backends.rbd.mappers import (
    NO_SNAPSHOT,
    UNMAP,
    State,
    Target,
    described,
    identity,
    options_for,
    planned,
)
from holdfast.kit import process

BUS = Path("/sys/bus/rbd")
APPEAR_SECONDS = 10.0
_SECURE_PORT = ":3300"
# The kernel is told of an image in one line of words, and of its options with commas between.
_SEPARATORS = frozenset(" \t\n,")


class KernelMapper:
    """The kernel's client. `bus` is its directory in sysfs."""

    name = "krbd"

    def __init__(self, bus: Path = BUS) -> None:
        self._bus = bus

    async def refusal(self) -> str:
        """Say that the kernel has no client, after having tried to load it."""
        if self._bus.is_dir():
            return ""
        if not tools.missing("modprobe"):
            try:
                await process.run(["modprobe", "rbd"], timeout=20)
            except process.CommandFailed:
                pass
        return "" if self._bus.is_dir() else "the kernel has no RBD client (module rbd)"

    def supported(self) -> int:
        """Read what this kernel says it supports; kernels before 4.11 say nothing."""
        try:
            return int((self._bus / "supported_features").read_text().strip(), 0)
        except (OSError, ValueError):
            return features.BITS["layering"]

    def plan(self, target: Target, directory: Path) -> State:
        """The device is known by the image."""
        return planned(self.name, target)

    async def map(self, target: Target, state: State, directory: Path) -> Device:
        """Write the image to the bus and wait for its device."""
        wanted = described(target)
        if any(set(each) & _SEPARATORS for each in wanted.values()):
            raise errors.Unsupported(
                "the kernel cannot be told a name with blanks or commas",
                target.image.spec,
                "rename it (rbd mv), or use the mounter qemu",
            )
        await asyncio.to_thread(self._add, target)
        deadline = asyncio.get_running_loop().time() + APPEAR_SECONDS
        while True:
            found = await asyncio.to_thread(self._device, wanted)
            if found is not None:
                return found
            if asyncio.get_running_loop().time() > deadline:
                raise errors.Unavailable(
                    "the kernel mapped the image, but no device appeared",
                    target.image.spec,
                    "see whether udev or devtmpfs runs; /sys/bus/rbd/devices lists mappings",
                )
            await asyncio.sleep(0.02)

    async def find(self, state: State, directory: Path, size: int) -> Device | None:
        """Return the device of the mapping. The kernel follows a new size by itself."""
        return await asyncio.to_thread(self._device, identity(state))

    async def loss(self, state: State, directory: Path) -> str:
        """Say that the device is gone."""
        gone = await asyncio.to_thread(self._device, identity(state)) is None
        return "the kernel no longer has the image mapped" if gone else ""

    async def unmap(self, state: State, directory: Path) -> None:
        """Take the device away."""
        for entry in await asyncio.to_thread(self._entries, identity(state)):
            await asyncio.to_thread(self._remove, entry, state.get(UNMAP, ""))

    def _add(self, target: Target) -> None:
        options = [f"name={target.user}", f"secret={target.key}"]
        options += options_for("krbd", target.map_options)
        if any(each.endswith(_SECURE_PORT) for each in target.monitors):
            options.append("ms_mode=prefer-crc")
        if target.image.namespace:
            options.append(f"_pool_ns={target.image.namespace}")
        if target.read_only:
            options.append("ro")
        image = target.image
        line = " ".join(
            (
                ",".join(target.monitors),
                ",".join(options),
                image.pool,
                image.image,
                image.snapshot or NO_SNAPSHOT,
            )
        )
        try:
            self._file("add").write_text(line)
        except OSError as error:
            raise _refused(error, target) from error

    def _remove(self, entry: Path, options: str) -> None:
        try:
            self._file("remove").write_text(f"{entry.name} {options}".strip())
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENODEV):
                return
            kind = errors.Conflict if error.errno == errno.EBUSY else errors.Unavailable
            raise kind(
                f"the kernel cannot unmap it ({error.strerror})",
                f"/dev/rbd{entry.name}",
                "end what holds it open",
            ) from error

    def _file(self, action: str) -> Path:
        newer = self._bus / f"{action}_single_major"
        return newer if newer.exists() else self._bus / action

    def _entries(self, wanted: dict[str, str]) -> list[Path]:
        return [entry for entry in self._all() if _attributes(entry, wanted) == wanted]

    def _all(self) -> Iterator[Path]:
        directory = self._bus / "devices"
        if directory.is_dir():
            yield from sorted(directory.iterdir())

    def _device(self, wanted: dict[str, str]) -> Device | None:
        for entry in self._entries(wanted):
            path = Path(f"/dev/rbd{entry.name}")
            if path.exists():
                found = blockdevices.describe(path)
                spec = "/".join(wanted[key] for key in sorted(wanted))
                return Device(path, f"rbd:{spec}", found.size)
        return None


def _attributes(entry: Path, wanted: dict[str, str]) -> dict[str, str]:
    found = {}
    for name in wanted:
        try:
            found[name] = (entry / name).read_text().strip()
        except OSError:
            continue
    return found


def _refused(error: OSError, target: Target) -> errors.BackendError:
    spec = target.image.spec
    if error.errno == errno.ENXIO:
        return errors.Unsupported(
            "the kernel does not know a feature of the image",
            spec,
            f"see `dmesg`; take it off with `rbd feature disable {spec} FEATURE`",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.EKEYREJECTED):
        return errors.Unauthorized(
            f"the kernel cannot log in as client.{target.user} ({error.strerror})",
            spec,
            "compare the Secret with `ceph auth get-key`",
        )
    if error.errno == errno.ENOENT:
        return errors.NotFound("there is no such image", spec)
    return errors.Unavailable(f"the kernel cannot map it ({error.strerror})", spec, "see `dmesg`")
