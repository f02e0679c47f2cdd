"""subPath: the part of a volume that a container asked for.

The directory is made when it is not there, and must lie inside the volume: a path
with `..`, or one that a symbolic link in the volume leads out of it, is refused. Each
step is opened relative to the one before without following links, so nothing in the
volume can be exchanged in between.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from holdfast.api import views

_STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class SubPathError(Exception):
    """A container's subPath cannot be provided."""


def prepare(container: views.Container, volumes: Mapping[str, Path]) -> None:
    """Make and check the subPaths of a container; `volumes` maps entries to directories."""
    for mount in container.volume_mounts:
        if mount.sub_path_expr and "$(" in mount.sub_path_expr:
            raise SubPathError(
                f'subPathExpr "{mount.sub_path_expr}" of container "{container.name}" needs '
                "environment variables, which sandboxes do not have"
            )
        wanted = mount.sub_path or mount.sub_path_expr
        if not wanted:
            continue
        volume = volumes.get(mount.name)
        if volume is None:
            raise SubPathError(f'volume "{mount.name}" of a volumeMount is not in the pod')
        try:
            _walk(volume, PurePosixPath(wanted))
        except OSError as error:
            raise SubPathError(
                f'failed to prepare subPath for volumeMount "{mount.name}" of container '
                f'"{container.name}": {wanted}: {error.strerror or error}'
            ) from error


def _walk(volume: Path, wanted: PurePosixPath) -> None:
    if wanted.is_absolute() or ".." in wanted.parts:
        raise OSError("must be a relative path without '..'")
    step = os.open(volume, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for index, part in enumerate(wanted.parts):
            if index == len(wanted.parts) - 1 and _is_file(part, step):
                return
            following = _enter(part, step)
            os.close(step)
            step = following
    finally:
        os.close(step)


def _enter(part: str, parent: int) -> int:
    """Open a directory inside another, made with its parent's mode when missing."""
    try:
        return os.open(part, _STEP, dir_fd=parent)
    except FileNotFoundError:
        os.mkdir(part, 0o750, dir_fd=parent)
    made = os.open(part, _STEP, dir_fd=parent)
    above = os.fstat(parent)
    os.fchmod(made, stat.S_IMODE(above.st_mode))
    if os.geteuid() == 0:
        os.fchown(made, above.st_uid, above.st_gid)
    return made


def _is_file(part: str, parent: int) -> bool:
    try:
        return stat.S_ISREG(os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
