"""Mounts GlusterFS volumes on this machine, each at most once, through mount.glusterfs.

The first server that answers hands out the volume's description; the client then talks to all
bricks, so the servers after the first are only needed when a mount begins. The mount is kept in the
backend's directory and shown to pods from there. A client that died leaves a mount on which every
call fails: it is taken away and made anew, also in the places that showed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.backends import errors, mountinfo, tools
from holdfast.backends.protocol import Connected, Finding, MountSource, VolumeHandle
from holdfast.kit import process
from holdfast.kit.locks import KeyedLocks

PROGRAM = "mount.glusterfs"
FS_TYPE = "fuse.glusterfs"
_MOUNT_SECONDS = 90.0
_LOOK_SECONDS = 10.0
# What mount(8) and the bind mounts of pods understand; the client does not have to be told.
_NOT_FOR_THE_CLIENT = frozenset(
    (
        *("defaults", "auto", "noauto", "nofail", "_netdev", "rw", "ro", "suid", "nosuid"),
        *("dev", "nodev", "exec", "noexec", "atime", "noatime", "diratime", "nodiratime"),
        *("relatime", "norelatime"),
    )
)


class GlusterNodeSide:
    """See `protocol.NodeSide`. Its directory holds mount points and logs."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._locks = KeyedLocks()

    @property
    def mounts_below(self) -> Path:
        """See `protocol.Mounter`."""
        return self._directory

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Mount the volume, or find it mounted and alive."""
        hosts, name = _whereabouts(volume)
        point = self._point(volume)
        async with self._locks.hold(point):
            if not await _alive(point):
                await self._unmount(point, lazy=True)
                await self._mount(hosts, name, point, volume)
        return MountSource(point, enforced=True)

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Unmount; what still shows the volume keeps it alive until it goes."""
        point = self._point(volume)
        async with self._locks.hold(point):
            await self._unmount(point, lazy=False)
            await asyncio.to_thread(_forget, point, _log_of(point))

    async def checks(self) -> Sequence[Finding]:
        """Test what mounting needs here."""
        if _program() is None:
            return [Finding("client", "error", *_missing())]
        if not await asyncio.to_thread(Path("/dev/fuse").exists):
            remedy = "modprobe fuse"
            return [Finding("client", "error", "/dev/fuse is not there", "", remedy)]
        found = [Finding("client", "ok", f"{PROGRAM} and /dev/fuse are there")]
        for each in await asyncio.to_thread(self._mounted):
            if not await _alive(Path(each.point)):
                what = (
                    "its client has died: every access fails (Transport endpoint is not connected)"
                )
                remedy = "restart the pods that use it; it is mounted anew for them"
                found.append(Finding("mount", "error", what, each.source, remedy))
        return found

    def _mounted(self) -> list[mountinfo.Mount]:
        inside = mountinfo.beneath(self._directory)
        return [each for each in inside if each.fs_type == FS_TYPE]

    def _point(self, volume: VolumeHandle) -> Path:
        # Endpoints may change while the volume is mounted, so their addresses do not count.
        parts = (volume.id, *(volume.context.get(key, "") for key in ("volume", "endpoints")))
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
        return self._directory / "mounts" / digest

    async def _mount(
        self, hosts: Sequence[str], name: str, point: Path, volume: VolumeHandle
    ) -> None:
        program = _program()
        if program is None:
            raise errors.Unavailable(*_missing())
        log = _log_of(point)
        await asyncio.to_thread(_prepare, point, log)
        options = _options(hosts, log, volume)
        argv = [program, f"{hosts[0]}:/{name}", str(point), "-o", ",".join(options)]
        try:
            await process.run(argv, timeout=_MOUNT_SECONDS)
        except process.CommandFailed as error:
            why = await asyncio.to_thread(_why, log, error)
            await self._unmount(point, lazy=True)
            raise _mount_failed(name, hosts, why, log) from error
        if not await _alive(point):
            why = await asyncio.to_thread(_why, log, None)
            await self._unmount(point, lazy=True)
            raise _mount_failed(name, hosts, why, log)

    async def _unmount(self, point: Path, *, lazy: bool) -> None:
        for _ in await asyncio.to_thread(mountinfo.at, point):
            argv = ["umount", *(["-l"] if lazy else []), str(point)]
            try:
                await process.run(argv, timeout=_LOOK_SECONDS)
            except process.CommandFailed as error:
                if not await asyncio.to_thread(mountinfo.at, point):
                    return
                raise errors.Conflict(
                    f"cannot be unmounted: {error}", str(point), "end what uses it"
                ) from error


def _whereabouts(volume: VolumeHandle) -> tuple[list[str], str]:
    hosts = [part.strip() for part in volume.context.get("hosts", "").split(",") if part.strip()]
    name = volume.context.get("volume", "")
    where = volume.context.get("endpoints") or volume.id
    if not name or "/" in name.strip("/") or name.startswith("-") or "," in name:
        raise errors.Invalid(f'"{name}" is no name of a GlusterFS volume', where, "see path")
    if not hosts:
        raise errors.NotFound("no server of the volume is known", where, "see its Endpoints")
    for host in hosts:
        if host.startswith("-") or any(sign in host for sign in "/, "):
            raise errors.Invalid(f'"{host}" is no address of a server', where)
    return hosts, name.strip("/")


def _options(hosts: Sequence[str], log: Path, volume: VolumeHandle) -> list[str]:
    """Return the options for the client: those given, then what is missing."""
    given = [part.strip() for entry in volume.options for part in entry.split(",")]
    kept = [part for part in given if part and part not in _NOT_FOR_THE_CLIENT]
    known = {part.partition("=")[0] for part in kept}
    if "log-file" not in known:
        kept.append(f"log-file={log}")
    if "log-level" not in known:
        kept.append("log-level=ERROR")
    others = [host for host in hosts[1:] if host != hosts[0]]
    if others and not known & {"backup-volfile-servers", "backupvolfile-server"}:
        kept.append(f"backup-volfile-servers={':'.join(others)}")
    if volume.read_only or "ro" in given:
        kept.append("ro")
    return kept


def _program() -> str | None:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return shutil.which(PROGRAM, path=path)


def _missing() -> tuple[str, str, str]:
    package = tools.package_of(PROGRAM)
    return f"{PROGRAM} is not on this machine", "", f"install the package {package}"


def _log_of(point: Path) -> Path:
    return point.parent.parent / "logs" / f"{point.name}.log"


def _prepare(point: Path, log: Path) -> None:
    for place in (point, log.parent):
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Only what this attempt says explains its end.
    log.unlink(missing_ok=True)


def _forget(point: Path, log: Path) -> None:
    log.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        point.rmdir()


async def _alive(point: Path) -> bool:
    """Whether a client is mounted there and answers."""
    found = await asyncio.to_thread(mountinfo.at, point)
    if not found or found[-1].fs_type != FS_TYPE:
        return False
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await asyncio.to_thread(os.stat, point)
    except TimeoutError:
        # A server that does not answer stalls the client; that is no reason for a new one.
        return True
    except OSError as error:
        return error.errno not in (errno.ENOTCONN, errno.ECONNABORTED)
    return True


def _why(log: Path, error: process.CommandFailed | None) -> str:
    """Return the last thing the client complained about, or what the program said."""
    with contextlib.suppress(OSError):
        lines = log.read_text(errors="replace").splitlines()
        said = [line.split("] ", 2)[-1] for line in lines if " E [" in line or " C [" in line]
        if said:
            return said[0][:300]
    return str(error) if error is not None else "the client ended at once"


def _mount_failed(name: str, hosts: Sequence[str], why: str, log: Path) -> errors.BackendError:
    return errors.Unavailable(
        f"cannot be mounted: {why}",
        f"{hosts[0]}:/{name}",
        f"check that glusterd runs on {', '.join(hosts)} and the volume is started; {log}",
    )
