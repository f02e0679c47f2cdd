"""The system calls that Python's standard library does not offer: mounts, openat2, inotify.

Called through the C library, so no program has to be installed or started.
Each raises OSError with the kernel's errno; giving that errno a meaning is the
business of the modules above.
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_SYNCHRONOUS = 0x10
MS_REMOUNT = 0x20
MS_MANDLOCK = 0x40
MS_DIRSYNC = 0x80
MS_NOSYMFOLLOW = 0x100
MS_NOATIME = 0x400
MS_NODIRATIME = 0x800
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SILENT = 0x8000
MS_PRIVATE = 0x40000
MS_RELATIME = 0x200000
MS_STRICTATIME = 0x1000000
MS_LAZYTIME = 0x2000000

MNT_DETACH = 0x2
UMOUNT_NOFOLLOW = 0x8

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08

_IN_CHANGES = 0x2 | 0x40 | 0x80 | 0x100  # modified, moved from, moved to, created

_OPENAT2 = 437  # the same number on every architecture, like all calls since 2019
_LIBC = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, fs_type: str, flags: int, data: str = "") -> None:
    """Call mount(2)."""
    _check(
        _LIBC.mount(
            os.fsencode(source),
            os.fsencode(target),
            fs_type.encode() or None,
            ctypes.c_ulong(flags),
            os.fsencode(data) or None,
        ),
        target,
    )


def unmount(target: str, flags: int = 0) -> None:
    """Call umount2(2); a symbolic link at `target` is not followed."""
    _check(_LIBC.umount2(os.fsencode(target), flags | UMOUNT_NOFOLLOW), target)


def open_beneath(directory: int, path: str, flags: int, resolve: int) -> int:
    """Call openat2(2). Returns a descriptor."""
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    found = _LIBC.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(directory),
        os.fsencode(path),
        how,
        ctypes.c_size_t(len(how)),
    )
    _check(found, path)
    return int(found)


def watch_directory(path: str) -> int:
    """Return an inotify descriptor that becomes readable when a file there is written or moved."""
    descriptor = int(_LIBC.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
    _check(descriptor, path)
    try:
        _check(_LIBC.inotify_add_watch(descriptor, os.fsencode(path), _IN_CHANGES), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def has_capability(number: int) -> bool:
    """Return whether this process may use the capability with this number."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def _check(result: int, path: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
