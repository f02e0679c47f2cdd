"""Loop devices: disk images as block devices, by the kernel's own interface.

A device is found by the inode of its backing file, never by its name or by
being the newest. An image that has a device already keeps it, so attaching may
be repeated, also after a crash. Devices made here carry a mark in the kernel's
`lo_file_name`, and only marked ones are ever detached: an administrator's own
loop devices are used where they fit, but not taken away.

Invariant: at most one loop device per image is made. `attach` looks and acts
under one lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import stat
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.backends import blockdevices, errors, mountinfo
from holdfast.backends.protocol import Device

CONTROL = Path("/dev/loop-control")
SYS_BLOCK = Path("/sys/block")
MARK = b"holdfast"
LOOP_MAJOR = 7

_CLR_FD = 0x4C01
_SET_STATUS64 = 0x4C04
_GET_STATUS64 = 0x4C05
_SET_CAPACITY = 0x4C07
_CONFIGURE = 0x4C0A
_CTL_GET_FREE = 0x4C82

_READ_ONLY = 1
_AUTOCLEAR = 4
_DIRECT_IO = 16

# struct loop_info64: device, inode, rdevice, offset, sizelimit; number,
# encryption type and key size, flags; file name, crypt name, key; two words.
_INFO = struct.Struct("=5Q4I64s64s32s2Q")
_INODE, _FLAGS, _NAME = 1, 8, 9
_RESERVED = bytes(64)

ATTEMPTS = 64
DETACH_SECONDS = 2.0
# What is read to see whether a device works; a page, for direct access.
PROBE = 4096


@dataclass(frozen=True, slots=True)
class Loop:
    """An attached loop device. `ours` says that it carries our mark."""

    path: Path
    image: str
    ours: bool
    flags: int


class LoopDevices:
    """Attaches images. One instance per process: its lock keeps devices single."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def attach(self, image: Path, *, read_only: bool = False) -> Device:
        """Return the loop device of `image`, made now if there is none.

        A device whose image has grown since is told its new size. Raises
        errors.NotFound, errors.Unavailable.
        """
        mode = os.O_RDONLY if read_only else os.O_RDWR
        with self._lock, _translated("attach a loop device", image):
            found = find(image)
            if found is None:
                with _opened(image, mode) as descriptor:
                    path = _configure(descriptor, read_only)
            else:
                path = found.path
                _keep(found)
            return self._described(path, image)

    def grow(self, image: Path) -> Device | None:
        """Tell the image's device its new size; None when no device is attached."""
        with self._lock, _translated("grow the loop device", image):
            found = find(image)
            return self._described(found.path, image) if found else None

    def detach(self, image: Path) -> None:
        """Take away the device of `image`; without one this is a success."""
        with self._lock, _translated("detach the loop device", image):
            found = find(image)
            if found is not None:
                _clear(found)

    def detach_device(self, path: Path) -> None:
        """Take away a loop device by its path; one that is not ours is left alone."""
        with self._lock, _translated("detach the loop device", path):
            found = _inspect(path.name)
            if found is not None:
                _clear(found)

    def abandon_device(self, path: Path) -> None:
        """Let a device of ours go as soon as the last that uses it does."""
        with self._lock, _translated("give up the loop device", path):
            found = _inspect(path.name)
            if found is None or not found.ours:
                return
            with _opened(path, os.O_RDONLY) as device, contextlib.suppress(OSError):
                fcntl.ioctl(device, _CLR_FD)

    def _described(self, path: Path, image: Path) -> Device:
        with _opened(path, os.O_RDONLY) as descriptor:
            if _sysfs_size(path.name) != image.stat().st_size:
                fcntl.ioctl(descriptor, _SET_CAPACITY)
            status = image.stat()
            size = blockdevices.describe(path).size
        return Device(path, f"loop:{status.st_dev}:{status.st_ino}:{image}", size)


def find(image: Path) -> Loop | None:
    """Return the loop device whose backing file is `image`, by path and inode."""
    try:
        inode: int | None = image.stat().st_ino
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno not in (errno.ENOTCONN, errno.EIO):
            raise
        # The program that served the file is dead; its name is all there is to go by.
        inode = None
    real = str(image.resolve())
    for name in _names():
        if _backing_file(name) != real:
            continue
        found = _inspect(name, inode)
        if found is not None:
            return found
    return None


def is_lost(path: Path) -> bool:
    """Return whether a loop device gives nothing but errors.

    Reads from it, past every cache: ask only about a device whose image was replaced, since
    one whose server is alive and waits makes the reader wait too.
    """
    try:
        with _opened(path, os.O_RDONLY | os.O_DIRECT) as device, mmap.mmap(-1, PROBE) as place:
            os.preadv(device, [place], 0)
    except OSError as error:
        return error.errno in (errno.EIO, errno.ENXIO)
    return False


def backing_file(path: Path) -> str:
    """Return the file behind a loop device; empty when there is none."""
    return _backing_file(path.name)


def is_loop(path: Path) -> bool:
    """Return whether `path` is a loop device, attached or not."""
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISBLK(status.st_mode) and os.major(status.st_rdev) == LOOP_MAJOR


def _configure(image: int, read_only: bool) -> Path:
    """Bind the image to a free device; another process may be faster, so try again."""
    flags = (_READ_ONLY if read_only else 0) | _DIRECT_IO
    for _ in range(ATTEMPTS):
        with _opened(CONTROL, os.O_RDWR) as control:
            number = fcntl.ioctl(control, _CTL_GET_FREE)
        path = Path(f"/dev/loop{number}")
        _ensure_node(path, number)
        with _opened(path, os.O_RDONLY if read_only else os.O_RDWR) as device:
            try:
                fcntl.ioctl(device, _CONFIGURE, _config(image, flags))
                return path
            except OSError as error:
                if error.errno == errno.EINVAL and flags & _DIRECT_IO:
                    flags &= ~_DIRECT_IO  # a file system beneath without direct I/O
                elif error.errno != errno.EBUSY:
                    raise
    raise OSError(errno.EBUSY, "no free loop device could be had")


def _config(image: int, flags: int) -> bytes:
    info = _INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, MARK, b"", b"", 0, 0)
    return struct.pack("=II", image, 0) + info + _RESERVED


def _ensure_node(path: Path, number: int) -> None:
    """Make the device node where /dev is not kept by the kernel (containers)."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            os.mknod(path, 0o600 | stat.S_IFBLK, os.makedev(LOOP_MAJOR, number))


def _keep(loop: Loop) -> None:
    """Stop a device from vanishing that was already told to go when its last user leaves."""
    if not (loop.ours and loop.flags & _AUTOCLEAR):
        return
    with _opened(loop.path, os.O_RDONLY) as device:
        info = list(_INFO.unpack(_status(device)))
        info[_FLAGS] &= ~_AUTOCLEAR
        fcntl.ioctl(device, _SET_STATUS64, _INFO.pack(*info))


def _clear(loop: Loop) -> None:
    if not loop.ours:
        return
    number = blockdevices.number_of(loop.path)
    users = [m.point for m in mountinfo.of_device(number, loop.path)]
    users += [
        m.point
        for m in mountinfo.read()
        if m.root == f"/{loop.path.name}" and m.fs_type in ("devtmpfs", "tmpfs")
    ]
    if users:
        raise errors.Conflict(
            f"{loop.path} is still in use at {', '.join(users)}",
            loop.image,
            "unmount it there first",
        )
    with _opened(loop.path, os.O_RDONLY) as device:
        try:
            fcntl.ioctl(device, _CLR_FD)
        except OSError as error:
            if error.errno != errno.ENXIO:  # detached meanwhile
                raise
    _await_detached(loop)


def _await_detached(loop: Loop) -> None:
    """The kernel detaches when the last program closes the device; that may take a moment."""
    deadline = time.monotonic() + DETACH_SECONDS
    while _backing_file(loop.path.name) == loop.image:
        if time.monotonic() > deadline:
            raise errors.Conflict(
                f"{loop.path} is held open by another program",
                loop.image,
                f"end it; `fuser -v {loop.path}` shows which",
            )
        time.sleep(0.005)


def _inspect(name: str, inode: int | None = None) -> Loop | None:
    path = Path("/dev") / name
    try:
        with _opened(path, os.O_RDONLY) as device:
            info = _INFO.unpack(_status(device))
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            # Whoever served its file is dead, and the mark cannot be read any more. It is of no
            # use to anybody, so it may be taken away like one of ours.
            return Loop(path, _backing_file(name), True, 0)
        return None  # detached between two looks
    if inode is not None and info[_INODE] != inode:
        return None
    ours = info[_NAME].rstrip(b"\0") == MARK
    return Loop(path, _backing_file(name), ours, info[_FLAGS])


def _status(device: int) -> bytes:
    return fcntl.ioctl(device, _GET_STATUS64, bytes(_INFO.size))


def _names() -> list[str]:
    with os.scandir(SYS_BLOCK) as entries:
        return [entry.name for entry in entries if entry.name.startswith("loop")]


def _backing_file(name: str) -> str:
    try:
        descriptor = os.open(f"{SYS_BLOCK}/{name}/loop/backing_file", os.O_RDONLY)
    except OSError:
        return ""
    try:
        return os.fsdecode(os.read(descriptor, 8192)).rstrip("\n")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _sysfs_size(name: str) -> int:
    return int((SYS_BLOCK / name / "size").read_text()) * blockdevices.SECTOR


@contextlib.contextmanager
def _translated(what: str, where: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise errors.NotFound(f"cannot {what}: no such disk image or device", str(where)) from error
    except OSError as error:
        raise errors.Unavailable(
            f"cannot {what} ({error.strerror})",
            str(where),
            "Holdfast needs root and the kernel's loop module",
        ) from error


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
