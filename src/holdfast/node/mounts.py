"""Mounts and unmounts, each of which may be repeated.

mount(2) and umount2(2) are called directly; no mount program is needed. Before
a mount is made the mount table is asked whether it is there already, and from
what: a repeat is a success, something else at the same place is an error.
Every mount is private, so it does not spread into other mount namespaces, and
theirs do not spread into it.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

from holdfast.backends import errors, mountinfo
from holdfast.node import holders, syscalls

BUSY_ATTEMPTS = 5
BUSY_SECONDS = 0.05

_CAP_SYS_ADMIN = 21

_SET = {
    "ro": syscalls.MS_RDONLY,
    "nosuid": syscalls.MS_NOSUID,
    "nodev": syscalls.MS_NODEV,
    "noexec": syscalls.MS_NOEXEC,
    "sync": syscalls.MS_SYNCHRONOUS,
    "dirsync": syscalls.MS_DIRSYNC,
    "mand": syscalls.MS_MANDLOCK,
    "noatime": syscalls.MS_NOATIME,
    "nodiratime": syscalls.MS_NODIRATIME,
    "relatime": syscalls.MS_RELATIME,
    "strictatime": syscalls.MS_STRICTATIME,
    "lazytime": syscalls.MS_LAZYTIME,
    "nosymfollow": syscalls.MS_NOSYMFOLLOW,
    "silent": syscalls.MS_SILENT,
}
_CLEARED = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "async": "sync",
    "nomand": "mand",
    "atime": "noatime",
    "diratime": "nodiratime",
    "norelatime": "relatime",
    "nostrictatime": "strictatime",
    "nolazytime": "lazytime",
    "symfollow": "nosymfollow",
    "loud": "silent",
}
# Words for mount(8) and fstab, which the kernel does not know.
_IGNORED = {
    *("defaults", "auto", "noauto", "nofail", "_netdev"),
    *("user", "nouser", "users", "owner", "group"),
}
_REFUSED = {"bind", "rbind", "remount", "move", "loop"}
# What a bind mount keeps of its source unless it is said again.
_KEPT = ("nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime")


def may_mount() -> bool:
    """Return whether this process is allowed to mount (CAP_SYS_ADMIN)."""
    return syscalls.has_capability(_CAP_SYS_ADMIN)


def parse_options(options: Sequence[str]) -> tuple[int, str]:
    """Split options into the flags and the data of mount(2).

    An entry may hold several options joined by commas. Raises errors.Invalid
    for those that would change what is mounted.
    """
    flags = 0
    data: list[str] = []
    for option in (part.strip() for entry in options for part in entry.split(",")):
        if option in _REFUSED:
            raise errors.Invalid(f'mount option "{option}" is not allowed', "mountOptions")
        if not option or option in _IGNORED or option.startswith(("x-", "comment=")):
            continue
        if option in _SET:
            flags |= _SET[option]
        elif option in _CLEARED:
            flags &= ~_SET[_CLEARED[option]]
        else:
            data.append(option)
    return flags, ",".join(data)


def is_read_only(options: Sequence[str]) -> bool:
    """Return whether these options make a read-only mount."""
    return bool(parse_options(options)[0] & syscalls.MS_RDONLY)


def is_enforced(path: Path, found: Sequence[mountinfo.Mount]) -> bool:
    """Return whether what is mounted at `path` ends where its volume ends.

    The whole of a file system does (and a whole device); a directory out of a
    larger one does not. `found` is what is mounted there.
    """
    return bool(found) and (found[-1].root == "/" or not path.is_dir())


def is_mounted(path: Path) -> bool:
    """Return whether something is mounted at exactly `path`."""
    return bool(mountinfo.at(path))


def is_dead(path: Path, found: Sequence[mountinfo.Mount]) -> bool:
    """Return whether a mount is there whose client in user space has ended (FUSE). May block.

    `found` is what is mounted there.
    """
    if not found or not found[-1].fs_type.startswith("fuse"):
        return False
    try:
        path.stat()
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def mount(source: Path, target: Path, fs_type: str, options: Sequence[str] = ()) -> None:
    """Mount the device `source`; `target` is an existing directory with nothing mounted."""
    flags, data = parse_options(options)
    try:
        syscalls.mount(str(source), str(target), fs_type, flags, data)
        syscalls.mount("none", str(target), "", syscalls.MS_PRIVATE)
    except OSError as error:
        raise _translated(error, f"mount {source} as {fs_type}", target, options) from error


def flags_among(options: Sequence[str]) -> list[str]:
    """Return the options that any mount can have, without those of one file system."""
    return [
        option
        for option in (part.strip() for entry in options for part in entry.split(","))
        if option in _SET or option in _CLEARED
    ]


def bind(
    source: Path,
    target: Path,
    found: Sequence[mountinfo.Mount],
    *,
    read_only: bool = False,
    options: Sequence[str] = (),
) -> None:
    """Show `source` at `target`, which exists and is of the same kind (directory or file).

    `found` is what is mounted there. Repeating finishes what an interrupted call left,
    such as a mount not yet made read-only. Raises errors.Conflict when something else is
    mounted there.
    """
    flags, data = parse_options(options)
    if data:
        raise errors.Invalid(
            f'mount options "{data}" need a file system of their own', "mountOptions"
        )
    try:
        if not found:
            syscalls.mount(str(source), str(target), "", syscalls.MS_BIND)
            syscalls.mount("none", str(target), "", syscalls.MS_PRIVATE)
            if read_only or flags:
                found = mountinfo.at(target)  # what it has of its source is kept
        elif not _same(source, target):
            raise errors.Conflict(
                f"{found[-1].source} is mounted there already", str(target), "unmount it first"
            )
        if read_only:
            flags |= syscalls.MS_RDONLY
        if flags:
            _remount(target, found[-1], flags)
    except OSError as error:
        raise _translated(error, f"bind {source}", target, options) from error


def unmount(
    target: Path, found: Sequence[mountinfo.Mount] | None = None, *, lazy: bool = False
) -> None:
    """Unmount everything stacked at `target`; nothing mounted is a success.

    Raises errors.Conflict when it is busy, saying by whom. `lazy` detaches it
    at once and lets the kernel finish when the last user is gone. `found` is what
    is mounted there, if the caller has just looked.
    """
    flags = syscalls.MNT_DETACH if lazy else 0
    busy = 0
    found = mountinfo.at(target) if found is None else found
    while found:
        try:
            for _ in found:
                syscalls.unmount(str(target), flags)
            return
        except OSError as error:
            if error.errno == errno.EINVAL:
                return  # somebody else was faster
            busy += 1
            if error.errno != errno.EBUSY or busy >= BUSY_ATTEMPTS:
                raise _translated(error, "unmount", target, ()) from error
            time.sleep(BUSY_SECONDS)
            found = mountinfo.at(target)


def _remount(target: Path, found: mountinfo.Mount, flags: int) -> None:
    kept = 0
    for option in _KEPT:
        if option in found.options:
            kept |= _SET[option]
    remount = syscalls.MS_REMOUNT | syscalls.MS_BIND
    syscalls.mount("none", str(target), "", remount | kept | flags)


def _same(source: Path, target: Path) -> bool:
    return os.path.samestat(source.stat(), target.stat())


def _translated(
    error: OSError, what: str, target: Path, options: Sequence[str]
) -> errors.BackendError:
    where = str(target)
    text = f"cannot {what} ({error.strerror})"
    if error.errno == errno.EBUSY:
        users = holders.describe(target)
        by = f", used by {users}" if users else ""
        return errors.Conflict(f"{text}{by}", where, "end what uses it, then it is tried again")
    if error.errno == errno.ENODEV:
        return errors.Unsupported(
            text, where, "the kernel of this node does not have this file system"
        )
    if error.errno == errno.EINVAL:
        given = f' with options "{",".join(options)}"' if options else ""
        return errors.Invalid(
            f"{text}{given}",
            where,
            "the kernel refuses an option or the superblock; its log (dmesg) says which",
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return errors.Unavailable(text, where, "mounting needs root (CAP_SYS_ADMIN)")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return errors.NotFound(text, where)
    if error.errno in (errno.EUCLEAN, errno.EIO):
        return errors.Unavailable(text, where, "the file system is damaged: check it by hand")
    return errors.Unavailable(text, where)
