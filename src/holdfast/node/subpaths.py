"""Opens a subPath of a volume without ever leaving the volume.

Whoever writes to a volume can put symbolic links into it, and can change them
between a check and a mount. The path is therefore resolved by the kernel under
the volume's root (openat2, RESOLVE_BENEATH), and the descriptor that results is
what gets mounted, not the name. Links inside the volume work as long as they
stay inside. Kernels without openat2 get a walk that follows no links at all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from holdfast.backends import errors
from holdfast.node import syscalls

NEW_MODE = 0o750

_RESOLVE = syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_MAGICLINKS


@contextlib.contextmanager
def opened(root: Path, sub_path: str, *, create: bool = True) -> Iterator[Path]:
    """Give a path below /proc/self/fd that is `sub_path` in `root` for the block.

    Directories that are missing are made with `create`. Raises errors.Invalid
    for a path that leads out of the volume, errors.NotFound.
    """
    check(sub_path)
    top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = _open(top, sub_path, create, str(root))
    finally:
        os.close(top)
    try:
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def check(sub_path: str) -> None:
    """Raise errors.Invalid for a subPath that is absolute or contains `..`."""
    path = PurePosixPath(sub_path)
    if path.is_absolute():
        raise errors.Invalid(f'subPath "{sub_path}" must be a relative path')
    if ".." in path.parts:
        raise errors.Invalid(f"subPath \"{sub_path}\" must not contain '..'")


def _open(top: int, sub_path: str, create: bool, where: str) -> int:
    try:
        try:
            return _resolve(top, sub_path)
        except FileNotFoundError:
            if not create:
                raise
        _make(top, PurePosixPath(sub_path))
        return _resolve(top, sub_path)
    except FileNotFoundError as error:
        raise errors.NotFound(f'subPath "{sub_path}" does not exist', where) from error
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.ELOOP):
            raise errors.Invalid(
                f'subPath "{sub_path}" leads out of the volume through a symbolic link', where
            ) from error
        raise errors.Unavailable(
            f'subPath "{sub_path}" cannot be opened ({error.strerror})', where
        ) from error


def _make(top: int, path: PurePosixPath) -> None:
    """Make the directories of `path` one by one, each below the one just resolved."""
    for depth in range(1, len(path.parts) + 1):
        parent = "/".join(path.parts[: depth - 1]) or "."
        holder = _resolve(top, parent)
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(path.parts[depth - 1], NEW_MODE, dir_fd=holder)
        finally:
            os.close(holder)


def _resolve(top: int, path: str) -> int:
    try:
        return syscalls.open_beneath(top, path or ".", os.O_PATH, _RESOLVE)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    return _walk(top, path)


def _walk(top: int, path: str) -> int:
    """Open one component after the other, refusing symbolic links."""
    current = os.dup(top)
    for part in PurePosixPath(path).parts:
        try:
            following = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=current)
        finally:
            os.close(current)
        current = following
        if stat.S_ISLNK(os.fstat(current).st_mode):
            os.close(current)
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    return current
