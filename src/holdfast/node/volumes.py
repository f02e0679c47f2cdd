"""Brings volumes to pods: stage once per machine, publish once per pod, and back.

    stage      connect, find the device, format if blank, check, mount
    publish    bind the staged volume into the pod's directory
    unpublish  take it out of the pod's directory
    unstage    unmount, detach, disconnect

Without the right to mount there is only one kind of volume, the plain
directory, and it is linked instead of bound; `enforced` is False then, because
neither its size nor readOnly is a limit that a program meets.

Invariant: each step may be repeated at any time, and first looks at what is
really mounted. The two paths of a volume are the caller's: stage and unstage
with the same staging path, publish and unpublish with the same target.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import blockdevices, errors, mountinfo
from holdfast.backends.protocol import Device, ImageFile, MountSource, NodeSide, VolumeHandle
from holdfast.kit.locks import KeyedLocks
from holdfast.node import devices, filesystems, journal, mounts, places, signatures, subpaths

# Storage systems and machines count in units of their own, none above a MiB.
_ROUNDING = 1 << 20


@dataclass(frozen=True, slots=True)
class Staged:
    """A volume on this machine. `enforced`: its size (and readOnly) is a real limit."""

    path: Path
    enforced: bool
    device: Device | None = None


@dataclass(frozen=True, slots=True)
class Published:
    """A volume in a pod's directory."""

    path: Path
    enforced: bool


class Volumes:
    """The volumes of one machine. `mounting` is found out unless it is given."""

    def __init__(self, *, mounting: bool | None = None) -> None:
        self.mounting = mounts.may_mount() if mounting is None else mounting
        self._loops = devices.LoopDevices()
        self._locks = KeyedLocks()

    async def stage(
        self,
        handle: VolumeHandle,
        node_side: NodeSide,
        staging: Path,
        *,
        fs_type: str = "",
        mount_options: Sequence[str] = (),
        read_only: bool = False,
        context: Mapping[str, str] | None = None,
    ) -> Staged:
        """Make the volume usable at `staging`, which is made as needed.

        Raises backends.errors: Conflict when the device holds foreign data or
        something else is mounted there, Unsupported without the right to mount.
        """
        async with self._locks.hold(str(staging)):
            connected = await node_side.connect(handle, context or {})
            if isinstance(connected, MountSource):
                # A backend that mounts a file system itself has used the options that are its.
                kept = mounts.flags_among(mount_options) if handle.options else mount_options
                await asyncio.to_thread(self._stage_directory, connected, staging, kept, read_only)
                return Staged(staging, connected.enforced and self.mounting)
            if not self.mounting:
                raise errors.Unsupported(
                    "a volume that is a disk cannot be used without root (CAP_SYS_ADMIN)",
                    str(connected.path),
                    "run Holdfast as root, or use a class with layout: directory",
                )
            device = await self._device(connected, staging, read_only)
            await asyncio.to_thread(self._drop_lost, device, staging)
            if handle.mode == "Block":
                await asyncio.to_thread(places.bind_onto, device.path, staging)
            else:
                options = [*mount_options, *(["ro"] if read_only else [])]
                await self._stage_device(device, staging, fs_type or handle.fs_type, options)
            return Staged(staging, True, device)

    async def publish(
        self,
        staging: Path,
        target: Path,
        *,
        read_only: bool = False,
        sub_path: str = "",
        mount_options: Sequence[str] = (),
    ) -> Published:
        """Show the staged volume, or a subPath of it, at `target`.

        Raises errors.NotFound when it is not staged.
        """
        async with self._locks.hold(str(target)):
            return await asyncio.to_thread(
                self._publish, staging, target, read_only, sub_path, mount_options
            )

    async def unpublish(self, target: Path, *, lazy: bool = False) -> None:
        """Undo publish; `target` itself goes too. Raises errors.Conflict when it is busy."""
        async with self._locks.hold(str(target)):
            await asyncio.to_thread(places.clear, target, lazy)

    async def unstage(
        self, handle: VolumeHandle, node_side: NodeSide, staging: Path, *, lazy: bool = False
    ) -> None:
        """Undo stage, from what is really mounted and noted. Raises errors.Conflict when busy."""
        async with self._locks.hold(str(staging)):
            await asyncio.to_thread(self._unstage, staging, lazy)
            await node_side.disconnect(handle)
            if journal.exists(staging):
                await asyncio.to_thread(journal.remove, staging)

    async def abandon(self, handle: VolumeHandle, node_side: NodeSide, staging: Path) -> None:
        """Let go of what a staging that failed has connected.

        A format that was interrupted stays noted, so that the next staging resumes it.
        """
        async with self._locks.hold(str(staging)):
            note = await asyncio.to_thread(self._unstage, staging, False)
            await node_side.disconnect(handle)
            if note.formatting:
                kept = journal.Note(formatting=note.formatting)
                await asyncio.to_thread(journal.write, staging, kept)
            else:
                await asyncio.to_thread(journal.remove, staging)

    async def grow(
        self,
        handle: VolumeHandle,
        node_side: NodeSide,
        staging: Path,
        *,
        size: int = 0,
        context: Mapping[str, str] | None = None,
    ) -> int:
        """Let the staged volume use all of its device; returns the device's size in bytes.

        For a plain directory the result is 0: there is nothing to grow. Raises
        errors.Conflict when the file system only grows at the next staging, and
        errors.Unavailable when the device does not have `size` bytes yet.
        """
        async with self._locks.hold(str(staging)):
            connected = await node_side.connect(handle, context or {})
            if isinstance(connected, MountSource):
                return 0
            device = await self._device(connected, staging, handle.read_only)
            _check_grown(device, size)
            mounted = await asyncio.to_thread(mountinfo.at, staging)
            if handle.mode == "Filesystem" and mounted and not handle.read_only:
                content = await filesystems.read(device)
                if filesystems.is_short(device, content):
                    await filesystems.grow_mounted(device, mounted[-1].fs_type, staging)
            return device.size

    def is_staged(self, staging: Path) -> bool:
        """Return whether a volume is there now: mounted, or linked without root."""
        return places.occupied(staging)

    def is_published(self, target: Path) -> bool:
        """Return whether a volume is there now: mounted, or linked without root."""
        return places.occupied(target)

    async def _device(self, connected: Device | ImageFile, staging: Path, ro: bool) -> Device:
        if isinstance(connected, Device):
            return connected
        note = await asyncio.to_thread(journal.read, staging)
        note = journal.Note(image=str(connected.path), formatting=note.formatting)
        await asyncio.to_thread(journal.write, staging, note)
        return await asyncio.to_thread(self._loops.attach, connected.path, read_only=ro)

    async def _stage_device(
        self, device: Device, staging: Path, wanted: str, options: Sequence[str]
    ) -> None:
        if await asyncio.to_thread(_already_staged, device, staging):
            return
        await asyncio.to_thread(places.make_directory, staging)
        content = await filesystems.read(device)
        fs_type = filesystems.choose(wanted, content)
        read_only = mounts.is_read_only(options)
        await self._prepare(device, staging, fs_type, content, read_only)
        if fs_type == "xfs" and "nouuid" not in options:
            # A restored snapshot has the UUID of its origin, which xfs refuses.
            options = [*options, "nouuid"]
        await asyncio.to_thread(mounts.mount, device.path, staging, fs_type, options)
        if fs_type in ("xfs", "btrfs") and not read_only and filesystems.is_short(device, content):
            await filesystems.grow_mounted(device, fs_type, staging)

    async def _prepare(
        self,
        device: Device,
        staging: Path,
        fs_type: str,
        content: signatures.Content,
        read_only: bool,
    ) -> None:
        note = await asyncio.to_thread(journal.read, staging)
        interrupted = note.formatting == device.identity and not content.signatures
        if not interrupted:
            filesystems.refuse_foreign(device, fs_type, content)
        if content.blank or interrupted:
            if read_only:
                raise errors.Conflict(
                    "the volume is blank and read-only, so it cannot be formatted",
                    str(device.path),
                    "let a pod that may write use it first",
                )
            await self._format(device, staging, fs_type, note, interrupted)
        elif not read_only:
            if not content.clean:
                await filesystems.check(device, fs_type)
            if fs_type.startswith("ext") and filesystems.is_short(device, content):
                await filesystems.grow_unmounted(device, fs_type)

    async def _format(
        self, device: Device, staging: Path, fs_type: str, note: journal.Note, interrupted: bool
    ) -> None:
        if not interrupted:
            await filesystems.ask_blkid(device)
        # A bare device number may be another disk's by the time it is read
        # again, so such a format is not resumed after a crash but refused.
        if not blockdevices.is_anonymous(device):
            begun = journal.Note(image=note.image, formatting=device.identity)
            await asyncio.to_thread(journal.write, staging, begun)
        await filesystems.make(device, fs_type)
        await asyncio.to_thread(journal.write, staging, journal.Note(image=note.image))

    def _stage_directory(
        self, source: MountSource, staging: Path, options: Sequence[str], read_only: bool
    ) -> None:
        if self.mounting:
            places.bind_onto(source.path, staging, read_only=read_only, options=options)
        else:
            places.link(source.path, staging)

    def _publish(
        self,
        staging: Path,
        target: Path,
        read_only: bool,
        sub_path: str,
        options: Sequence[str],
    ) -> Published:
        staged, shown = mountinfo.at_each(staging, target) if self.mounting else ([], [])
        if not staged and not places.occupied(staging):
            raise errors.NotFound("the volume is not staged", str(staging), "stage it first")
        if not self.mounting:
            source = staging.resolve()
            if sub_path:
                with subpaths.opened(source, sub_path) as opened:
                    source = opened.resolve()
            places.link(source, target)
            return Published(target, False)
        enforced = mounts.is_enforced(staging, staged)
        if sub_path:
            with subpaths.opened(staging, sub_path) as opened:
                places.bind_onto(opened, target, shown, read_only=read_only, options=options)
        else:
            places.bind_onto(staging, target, shown, read_only=read_only, options=options)
        return Published(target, enforced)

    def _unstage(self, staging: Path, lazy: bool) -> journal.Note:
        """Unmount and detach; returns the note, which goes when the rest is done too."""
        mounted = mountinfo.at(staging)
        note = journal.read(staging)
        places.clear(staging, lazy, mounted)
        if note.image:
            self._loops.detach(Path(note.image))
        for mount in mounted:
            # The note may be lost; the mount table knows the device as well.
            device = _device_of(mount)
            if devices.is_loop(device):
                self._loops.detach_device(device)
        return note

    def _drop_lost(self, device: Device, staging: Path) -> None:
        """Make room where a device is mounted that has died and that `device` replaces.

        Pods that have the old mount keep it, with its errors, until they are gone.
        """
        for mount in mountinfo.at(staging):
            old = _device_of(mount)
            if old != device.path and devices.is_loop(old) and devices.is_lost(old):
                mounts.unmount(staging, lazy=True)
                self._loops.abandon_device(old)


def _device_of(mount: mountinfo.Mount) -> Path:
    name = mount.root if mount.fs_type == "devtmpfs" else mount.source
    return Path("/dev") / Path(name).name


def _already_staged(device: Device, staging: Path) -> bool:
    found = mountinfo.at(staging)
    if not found:
        return False
    # btrfs shows a device number of its own in the table, so names count there.
    same_number = found[-1].device == blockdevices.number_of(device.path)
    if same_number or found[-1].source == str(device.path):
        return True
    raise errors.Conflict(
        f"{found[-1].source} is mounted there, not {device.path}", str(staging), "unmount it first"
    )


def _check_grown(device: Device, size: int) -> None:
    # A machine may see the growth some time after the storage system has made it. To say now
    # that all is done would leave the file system small for ever.
    if device.size + _ROUNDING < size:
        raise errors.Unavailable(
            f"the device still has {device.size} bytes of the volume's {size}",
            str(device.path),
            "it is tried again; if it stays so, restart the pod: its volume is attached anew",
        )
