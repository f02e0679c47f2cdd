"""Maps an image with `rbd-nbd`, which uses Ceph's library and the kernel's network block devices.

The program wants the key from a file: a file in memory (/dev/shm) that only we can
read and that is removed as soon as the program has come back. What is mapped is
asked of the program, which knows it from the processes that serve the devices.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.backends import blockdevices, errors, tools
from holdfast.backends.protocol import Device
from holdfast.backends.rbd import features
from holdfast.backends.rbd.mappers import UNMAP, State, Target, options_for, planned
from holdfast.kit import process

PROGRAM = "rbd-nbd"
MODULE = Path("/sys/module/nbd")
MEMORY = Path("/dev/shm")
_MONITORS = "monitors"
_NO_CONFIGURATION = ("--conf", "/dev/null")


class NbdMapper:
    """rbd-nbd."""

    name = "nbd"

    async def refusal(self) -> str:
        """Say that the program or the kernel's module is missing."""
        if tools.missing(PROGRAM):
            return f"{PROGRAM} is not installed (apt-get install rbd-nbd)"
        if not await asyncio.to_thread(MODULE.is_dir) and not tools.missing("modprobe"):
            with contextlib.suppress(process.CommandFailed):
                await process.run(["modprobe", "nbd"], timeout=20)
        loaded = await asyncio.to_thread(MODULE.is_dir)
        return "" if loaded else "the kernel has no network block devices (module nbd)"

    def supported(self) -> int:
        """Everything: it uses Ceph's own library."""
        return features.ALL

    def plan(self, target: Target, directory: Path) -> State:
        """The device is known by the image and by the cluster its process was told."""
        return {**planned(self.name, target), _MONITORS: ",".join(target.monitors)}

    async def map(self, target: Target, state: State, directory: Path) -> Device:
        """Run the program, which returns when the device is there."""
        argv = [PROGRAM, "map", *_NO_CONFIGURATION, "--id", target.user]
        argv += ["-m", ",".join(target.monitors)]
        argv += [f"--{option}" for option in options_for("nbd", target.map_options)]
        if target.read_only:
            argv.append("--read-only")
        try:
            with _key_file(target.key) as path:
                done = await process.run([*argv, "--keyfile", path, target.image.spec])
        except process.CommandFailed as error:
            raise errors.Unavailable(
                f"rbd-nbd could not map the image ({_last_line(error)})",
                target.image.spec,
                "check the user's key and caps, and that the monitors are reachable from here",
            ) from error
        return _device(Path(done.stdout.decode().strip()), target.image.spec)

    async def find(self, state: State, directory: Path, size: int) -> Device | None:
        """Return the device while a process serves it."""
        for entry in await _mapped():
            if await asyncio.to_thread(_is, entry, state):
                return await asyncio.to_thread(_device, Path(entry["device"]), _spec(entry))
        return None

    async def loss(self, state: State, directory: Path) -> str:
        """Say that no process serves the device."""
        for entry in await _mapped():
            if await asyncio.to_thread(_is, entry, state):
                return ""
        return f"the {PROGRAM} process that served the image has ended"

    async def unmap(self, state: State, directory: Path) -> None:
        """Have the program take the device away."""
        for entry in await _mapped():
            if not await asyncio.to_thread(_is, entry, state):
                continue
            given = filter(None, state.get(UNMAP, "").split(","))
            options = [f"--{option}" for option in given]
            try:
                argv = [PROGRAM, "unmap", *_NO_CONFIGURATION, *options, str(entry["device"])]
                await process.run(argv)
            except process.CommandFailed as error:
                raise errors.Conflict(
                    f"rbd-nbd could not unmap it ({_last_line(error)})",
                    str(entry["device"]),
                    "end what holds it open",
                ) from error


async def _mapped() -> list[dict[str, Any]]:
    if tools.missing(PROGRAM):
        return []
    try:
        done = await process.run([PROGRAM, "list-mapped", *_NO_CONFIGURATION, "--format", "json"])
        found: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    except (process.CommandFailed, ValueError) as error:
        raise errors.Unavailable("rbd-nbd does not tell what is mapped", "", str(error)) from error
    return found


def _is(entry: dict[str, Any], state: State) -> bool:
    """Tell whether this is our mapping; two clusters may have a pool and an image of one name."""
    if _spec(entry) != _wanted(state):
        return False
    return _MONITORS not in state or _monitors(entry) == state[_MONITORS]


def _monitors(entry: dict[str, Any]) -> str:
    """Return what the process that serves a device was given with `-m`."""
    try:
        raw = Path(f"/proc/{int(entry['id'])}/cmdline").read_bytes()
    except (OSError, KeyError, ValueError):
        return ""
    arguments = raw.decode(errors="replace").split("\0")
    return next((after for each, after in itertools.pairwise(arguments) if each == "-m"), "")


def _spec(entry: dict[str, Any]) -> str:
    parts = [str(entry.get(key) or "") for key in ("pool", "namespace", "image")]
    snapshot = str(entry.get("snap") or "-").strip("-")
    return "/".join(filter(None, parts)) + (f"@{snapshot}" if snapshot else "")


def _wanted(state: State) -> str:
    parts = [state.get(key, "") for key in ("pool", "pool_ns", "name")]
    snapshot = state.get("current_snap", "-").strip("-")
    return "/".join(filter(None, parts)) + (f"@{snapshot}" if snapshot else "")


def _device(path: Path, spec: str) -> Device:
    return Device(path, f"rbd-nbd:{spec}", blockdevices.describe(path).size)


@contextlib.contextmanager
def _key_file(key: str) -> Iterator[str]:
    directory = MEMORY if MEMORY.is_dir() else Path(tempfile.gettempdir())
    descriptor, path = tempfile.mkstemp(prefix="holdfast-", dir=directory)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(key)
        yield path
    finally:
        Path(path).unlink(missing_ok=True)


def _last_line(error: process.CommandFailed) -> str:
    lines = error.stderr.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"exit {error.code}"
