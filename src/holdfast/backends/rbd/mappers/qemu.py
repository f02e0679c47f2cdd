"""Maps an image with qemu-storage-daemon: a file (FUSE) that the node gives a loop device.

Every mapping has a daemon of its own, in its own session: it outlives this process,
and the loss of one is the loss of one volume. It is started with a listening control
socket and nothing else; key, image and export are given to it over that socket, so
no argument and no file ever holds the key. A daemon is found again by its socket.

Invariant: the file of each mapping has a name that was never used before. A loop
device on the file of a dead daemon is therefore never taken for the new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from pathlib import Path
from typing import Any

from holdfast.backends import errors, mountinfo, tools
from holdfast.backends.protocol import ImageFile
from holdfast.backends.rbd import connections, features
from holdfast.backends.rbd.mappers import State, Target, qmp
from holdfast.kit import process

PROGRAM = "qemu-storage-daemon"
_MODULES = ("lib/x86_64-linux-gnu/qemu", "lib/aarch64-linux-gnu/qemu", "lib64/qemu-kvm", "lib/qemu")
NODE, EXPORT, SECRET = "image", "export", "key"
FUSE = Path("/dev/fuse")
END_SECONDS = 10.0
RESIZE_SECONDS = 5.0
_SETTINGS = """[global]
mon host = {monitors}
client mount timeout = 10
{recovery}
admin socket =
log file =
log to stderr = false
"""


class QemuMapper:
    """One daemon per mapping. `name` is what a class's `mounter` calls it."""

    name = "qemu"

    def __init__(self) -> None:
        # Daemons that this process started and has to reap.
        self._children: dict[Path, process.Child] = {}

    async def refusal(self) -> str:
        """Say which program, module or device is missing."""
        if tools.missing(PROGRAM):
            return f"{PROGRAM} is not installed (apt-get install qemu-system-common)"
        if not await asyncio.to_thread(_has_rbd_module):
            return "QEMU has no RBD support (apt-get install qemu-block-extra)"
        if not await asyncio.to_thread(FUSE.exists):
            return "the kernel has no FUSE (modprobe fuse)"
        if os.geteuid() != 0:
            return "needs root, for loop devices"
        return ""

    def supported(self) -> int:
        """Everything: it uses Ceph's own library."""
        return features.ALL

    def plan(self, target: Target, directory: Path) -> State:
        """Choose the file's name."""
        return {"file": str(directory / f"disk-{secrets.token_hex(4)}")}

    async def map(self, target: Target, state: State, directory: Path) -> ImageFile:
        """Start the daemon, give it the image, and return the file."""
        file = Path(state["file"])
        await asyncio.to_thread(file.touch, 0o600)
        recovery = "\n".join(f"{key} = {value}" for key, value in connections.RECOVERY.items())
        settings = _SETTINGS.format(monitors=",".join(target.monitors), recovery=recovery)
        await asyncio.to_thread((directory / "ceph.conf").write_text, settings)
        try:
            child = await asyncio.to_thread(_start, directory)
            self._children[directory] = child
            await _await_ready(child, directory)
            async with qmp.connected(directory / "qmp") as session:
                await _export(session, target, file, directory)
            return ImageFile(file, (await asyncio.to_thread(file.stat)).st_size)
        except qmp.QmpError as error:
            await self.unmap(state, directory)
            raise errors.Unavailable(
                f"{PROGRAM} could not open the image ({error}){_last_words(directory)}",
                target.image.spec,
                "check the user's key and caps, and that the monitors are reachable from here",
            ) from error
        except process.CommandFailed as error:
            await self.unmap(state, directory)
            raise errors.Unavailable(
                str(error), target.image.spec, "apt-get install qemu-system-common qemu-block-extra"
            ) from error

    async def find(self, state: State, directory: Path, size: int) -> ImageFile | None:
        """Return the file while its daemon answers."""
        file = Path(state["file"])
        if not await asyncio.to_thread(mountinfo.at, file):
            return None
        try:
            async with qmp.connected(directory / "qmp") as session:
                exports = await session.execute("query-block-exports")
                if not any(each.get("id") == EXPORT for each in exports):
                    return None
                has = (await asyncio.to_thread(file.stat)).st_size
                if size > has:
                    await session.execute("block_resize", **{"node-name": NODE, "size": size})
                    has = await _grown(file, size)
        except (qmp.QmpError, OSError):
            return None
        return ImageFile(file, has)

    async def loss(self, state: State, directory: Path) -> str:
        """Say that the daemon has ended; one that waits for the cluster has not."""
        pid = await asyncio.to_thread(_pid_of, directory)
        if pid is not None and await asyncio.to_thread(_is_daemon, pid, directory):
            return ""
        named = f"{PROGRAM} (process {pid})" if pid is not None else PROGRAM
        said = await asyncio.to_thread(_last_words, directory)
        return f"the {named} that served the image has ended{said}"

    async def unmap(self, state: State, directory: Path) -> None:
        """End the daemon, which writes back and unmounts the file; then remove what is left."""
        with contextlib.suppress(qmp.QmpError):
            async with qmp.connected(directory / "qmp") as session:
                await session.execute("quit")
        await self._await_end(directory)
        file = Path(state["file"])
        while await asyncio.to_thread(mountinfo.at, file):
            # Only a daemon that died leaves the mount; nobody answers behind it.
            await process.run(["umount", "--lazy", str(file)])
        for path in (file, directory / "qmp", directory / "ceph.conf", directory / "pid"):
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def _await_end(self, directory: Path) -> None:
        child = self._children.pop(directory, None)
        pid = child.pid if child else await asyncio.to_thread(_pid_of, directory)
        if pid is None:
            return
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        killed = False
        while await asyncio.to_thread(_is_daemon, pid, directory):
            late = asyncio.get_running_loop().time() > deadline
            if late and not killed:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed = True
            await asyncio.sleep(0.005)
        if child is not None:
            await child.wait()


async def _await_ready(child: process.Child, directory: Path) -> None:
    """Wait for the pid file, which is written once the control socket is set up.

    Until then one thread hands the socket to another, and a connection that both see is one that
    neither answers.
    """
    deadline = asyncio.get_running_loop().time() + END_SECONDS
    while await asyncio.to_thread(_pid_of, directory) is None and child.running:
        if asyncio.get_running_loop().time() > deadline:
            return
        await asyncio.sleep(0.002)


async def _export(session: qmp.Qmp, target: Target, file: Path, directory: Path) -> None:
    await session.execute(
        "object-add", **{"qom-type": "secret", "id": SECRET, "data": target.key, "format": "base64"}
    )
    image = target.image
    block: dict[str, Any] = {
        "driver": "rbd",
        "node-name": NODE,
        "pool": image.pool,
        "image": image.image,
        "user": target.user,
        "conf": str(directory / "ceph.conf"),
        "key-secret": SECRET,
        "read-only": target.read_only,
        "discard": "unmap",
    }
    if image.namespace:
        block["namespace"] = image.namespace
    if image.snapshot:
        block["snapshot"] = image.snapshot
    await session.execute("blockdev-add", **block)
    export = {
        "type": "fuse",
        "id": EXPORT,
        "node-name": NODE,
        "mountpoint": str(file),
        "writable": not target.read_only,
    }
    await session.execute("block-export-add", **export)


def _start(directory: Path) -> process.Child:
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    log = os.open(directory / "log", flags, 0o600)
    try:
        with qmp.listen(directory / "qmp") as listening:
            argv = [
                *(PROGRAM, "--pidfile", str(directory / "pid")),
                *("--chardev", "socket,id=qmp,fd=3,server=on,wait=off"),
                *("--monitor", "chardev=qmp"),
            ]
            environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
            return process.spawn(
                argv, stdout=log, stderr=log, inherit=[listening.fileno()], env=environment
            )
    finally:
        os.close(log)


async def _grown(file: Path, size: int) -> int:
    """Wait until the kernel has forgotten the old size, which it keeps for a second."""
    deadline = asyncio.get_running_loop().time() + RESIZE_SECONDS
    while True:
        has = (await asyncio.to_thread(file.stat)).st_size
        if has >= size or asyncio.get_running_loop().time() > deadline:
            return has
        await asyncio.sleep(0.05)


def _has_rbd_module() -> bool:
    places = [Path("/usr") / each for each in _MODULES]
    return any((place / "block-rbd.so").exists() for place in places)


def _pid_of(directory: Path) -> int | None:
    try:
        return int((directory / "pid").read_text())
    except (OSError, ValueError):
        return None


def _is_daemon(pid: int, directory: Path) -> bool:
    """Tell whether a process is the daemon of this directory; a zombie has no arguments."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(directory / "pid") in arguments


def _last_words(directory: Path) -> str:
    try:
        lines = (directory / "log").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return f": {lines[-1][:200]}" if lines else ""
