"""Removes volumes so that a crash in the middle leaves nothing that looks like one.

The directory is renamed first, to a name that no volume can have, and only
then emptied. What a crash leaves is found by that name and removed by the next
delete. A volume that a loop device or a mount on this machine uses is refused
before anything is touched, and once more after the rename.
"""

from __future__ import annotations

import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from holdfast.backends import errors
from holdfast.backends.local import usage
from holdfast.backends.local.roots import DELETED
from holdfast.kit import files


def bury(directory: Path) -> None:
    """Remove a volume's or snapshot's directory so that a crash leaves no half of it."""
    usage.refuse(directory, "delete")
    grave = directory.with_name(f"{DELETED}{directory.name}")
    remove_tree(grave)
    try:
        directory.rename(grave)
    except OSError as error:
        raise errors.Conflict(
            f"cannot be removed ({error.strerror})", str(directory), "unmount what is in it"
        ) from error
    try:
        # Somebody may have attached it between the first look and the rename.
        usage.refuse(grave, "delete")
    except errors.Conflict:
        grave.rename(directory)
        raise
    files.fsync_dir(grave.parent)
    remove_tree(grave)


def remove_tree(path: Path) -> None:
    """Remove a directory with all that is in it, also where its own modes forbid that."""
    if not path.exists():
        return
    try:
        if sys.version_info >= (3, 12):
            shutil.rmtree(path, onexc=_retry_writable)
        else:
            shutil.rmtree(path, onerror=_retry_writable)
    except OSError as error:
        raise errors.Conflict(
            f"cannot be removed ({error.strerror})",
            error.filename or str(path),
            "check who owns it and whether something is mounted there",
        ) from error


def _retry_writable(function: Callable[..., Any], path: str, info: object) -> None:
    """Give ourselves access to the entry and its directory, then try once more."""
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, FileNotFoundError):
        return
    if not isinstance(error, PermissionError):
        raise error if isinstance(error, BaseException) else OSError(path)
    entry = Path(path)
    entry.parent.chmod(stat.S_IRWXU)
    if entry.is_dir() and not entry.is_symlink():
        entry.chmod(stat.S_IRWXU)
        shutil.rmtree(entry)
    else:
        function(path)
