"""Copies volume content: shared blocks where the file system can, holes kept where not.

A reflink (FICLONE) makes a second file that shares the blocks of the first: it
takes no time and no room, and it is a consistent point in time even while the
source is written. Where the file system has none, the data extents are copied
and holes stay holes, so a sparse image does not swell; then the source must
not change meanwhile, which the caller sees to (`reflink_only`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from pathlib import Path

FICLONE = 0x40049409

_NO_REFLINK = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM}
_NO_RANGE_COPY = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF}
_CHUNK = 8 << 20


class ReflinkUnavailable(Exception):
    """The file system cannot share blocks, and copying them was not allowed."""


def copy_image(source: Path, target: Path, *, reflink_only: bool = False) -> None:
    """Copy a disk image to `target`, which must not exist, and flush it to the disk.

    Raises ReflinkUnavailable with `reflink_only`, and OSError; in both cases
    no `target` is left behind.
    """
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            _copy_open(reader.fileno(), writer.fileno(), reflink_only)
            os.fsync(writer.fileno())
        except BaseException:
            target.unlink()
            raise


def copy_tree(source: Path, target: Path) -> None:
    """Copy a directory with owners, modes, times, attributes, links and holes.

    `target` must not exist. Sockets are left out: they mean nothing without
    the process that listens on them.
    """
    _copy_directory(source, target, {})


def _copy_open(reader: int, writer: int, reflink_only: bool) -> None:
    try:
        fcntl.ioctl(writer, FICLONE, reader)
        return
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        if reflink_only:
            raise ReflinkUnavailable from error
    size = os.fstat(reader).st_size
    os.truncate(writer, size)
    position = 0
    while position < size:
        try:
            start = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # nothing but a hole up to the end
            raise
        position = min(os.lseek(reader, start, os.SEEK_HOLE), size)
        _copy_extent(reader, writer, start, position)


def _copy_extent(reader: int, writer: int, start: int, end: int) -> None:
    while start < end:
        count = min(end - start, _CHUNK)
        try:
            done = os.copy_file_range(reader, writer, count, start, start)
        except OSError as error:
            if error.errno not in _NO_RANGE_COPY:
                raise
            done = os.pwrite(writer, os.pread(reader, count, start), start)
        if done == 0:
            return  # the source was cut shorter while we copied
        start += done


def _copy_directory(source: Path, target: Path, seen: dict[tuple[int, int], Path]) -> None:
    target.mkdir(mode=0o700)
    with os.scandir(source) as entries:
        for entry in entries:
            _copy_entry(Path(entry.path), target / entry.name, seen)
    _copy_attributes(source, target)


def _copy_entry(source: Path, target: Path, seen: dict[tuple[int, int], Path]) -> None:
    found = source.lstat()
    if stat.S_ISDIR(found.st_mode):
        _copy_directory(source, target, seen)
        return
    first = seen.get((found.st_dev, found.st_ino))
    if first is not None:
        target.hardlink_to(first)
        return
    if not _copy_special(source, target, found):
        return
    _copy_attributes(source, target)
    if found.st_nlink > 1:
        seen[(found.st_dev, found.st_ino)] = target


def _copy_special(source: Path, target: Path, found: os.stat_result) -> bool:
    """Make the copy of anything but a directory; False when it is not copied."""
    if stat.S_ISSOCK(found.st_mode):
        return False
    if stat.S_ISLNK(found.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISREG(found.st_mode):
        copy_image(source, target)
    else:
        os.mknod(target, found.st_mode, found.st_rdev)
    return True


def _copy_attributes(source: Path, target: Path) -> None:
    found = source.lstat()
    own = target.lstat()
    if (found.st_uid, found.st_gid) != (own.st_uid, own.st_gid):
        os.chown(target, found.st_uid, found.st_gid, follow_symlinks=False)
    shutil.copystat(source, target, follow_symlinks=False)
