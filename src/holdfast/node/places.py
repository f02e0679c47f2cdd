"""The paths at which volumes appear: made as needed, occupied, and cleared again.

A place is a mount point (a directory, or an empty file for raw blocks and
single files) or, without the right to mount, a symbolic link. Clearing never
removes anything that could be data: a directory only when it is empty, a file
only when it has no content.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from holdfast.backends import errors, mountinfo
from holdfast.node import mounts

Mounted = Sequence[mountinfo.Mount]

DIRECTORY_MODE = 0o750
FILE_MODE = 0o600


def occupied(place: Path) -> bool:
    """Return whether a volume is there: a mount that is alive, or a link that leads somewhere."""
    if mounted := mountinfo.at(place):
        return not mounts.is_dead(place, mounted)
    return place.is_symlink() and place.exists()


def make_directory(place: Path) -> None:
    """Make the place a directory to mount on. Raises errors.Conflict."""
    _make(place, directory=True)


def bind_onto(
    source: Path,
    place: Path,
    mounted: Mounted | None = None,
    *,
    read_only: bool = False,
    options: Sequence[str] = (),
) -> None:
    """Make the place of the same kind as `source` and bind `source` there.

    `mounted` is what is mounted there, here and below, if the caller has just looked.
    """
    try:
        found = source.stat()
    except OSError as error:
        raise errors.NotFound(f"cannot be found ({error.strerror})", str(source)) from error
    mounted = mountinfo.at(place) if mounted is None else mounted
    if mounts.is_dead(place, mounted):
        # Its source was mounted anew after its client had died; this still shows the old one.
        mounts.unmount(place, lazy=True)
        mounted = mountinfo.at(place)
    if not mounted:
        _make(place, directory=stat.S_ISDIR(found.st_mode))
    mounts.bind(source, place, mounted, read_only=read_only, options=options)


def link(source: Path, place: Path) -> None:
    """Make the place a symbolic link to `source`; the stand-in for a bind mount."""
    if place.is_symlink() and place.readlink() == source:
        return
    try:
        place.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if place.is_symlink():
            place.unlink()
        elif place.is_dir():
            place.rmdir()
        place.symlink_to(source)
    except OSError as error:
        raise errors.Conflict(
            f"cannot be made a link to {source} ({error.strerror})",
            str(place),
            "move what is there away",
        ) from error


def clear(place: Path, lazy: bool = False, mounted: Mounted | None = None) -> None:
    """Unmount or unlink what is there and remove the place itself if it is empty.

    Raises errors.Conflict when a mount is busy, or when files lie underneath.
    """
    mounted = mountinfo.at(place) if mounted is None else mounted
    if mounts.is_dead(place, mounted):
        # Nothing can be asked of it, not even what it is; nobody can use it either.
        mounts.unmount(place, mounted, lazy=True)
        mounted = mountinfo.at(place)
    if place.is_symlink():
        place.unlink(missing_ok=True)
        return
    mounts.unmount(place, mounted, lazy=lazy)
    try:
        found = place.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        if stat.S_ISDIR(found.st_mode):
            place.rmdir()
        elif stat.S_ISREG(found.st_mode) and found.st_size == 0:
            place.unlink()
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.Conflict(
            f"cannot be removed ({error.strerror}): files lie beneath the mount point",
            str(place),
            "they are not the volume's: look at them and move them away",
        ) from error


def _make(place: Path, *, directory: bool) -> None:
    try:
        place.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        if place.is_symlink():
            # Left from a time without the right to mount.
            place.unlink()
        if directory:
            place.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
            return
        with contextlib.suppress(FileExistsError):
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(place, flags, FILE_MODE))
    except OSError as error:
        raise errors.Conflict(
            f"cannot be made ({error.strerror})", str(place), "move what is there away"
        ) from error
