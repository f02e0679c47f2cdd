"""The types of a hostPath volume: what must be at the path, and what is made there.

The texts are those of the kubelet, because users search for them. Type "" asks
for nothing; a directory is then made where there is nothing, as container
runtimes do when they are told to mount such a path.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from holdfast.backends import errors

DIRECTORY_MODE = 0o755
FILE_MODE = 0o644

_TYPES: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "directory"),
    "File": (stat.S_ISREG, "file"),
    "FileOrCreate": (stat.S_ISREG, "file"),
    "Socket": (stat.S_ISSOCK, "socket file"),
    "CharDevice": (stat.S_ISCHR, "character device"),
    "BlockDevice": (stat.S_ISBLK, "block device"),
}


def check(path: Path, kind: str) -> None:
    """See to it that `path` is what `kind` says. Raises errors.Invalid, errors.Unavailable."""
    try:
        _create(path, kind)
    except OSError as error:
        raise errors.Unavailable(
            f"cannot be made for hostPath type {kind or chr(34) * 2} ({error.strerror})",
            str(path),
            "make it by hand, or give Holdfast's user the right to",
        ) from error
    if not kind:
        return
    if kind not in _TYPES:
        raise errors.Invalid(f"{kind} is an invalid volume type")
    fits, noun = _TYPES[kind]
    try:
        mode = path.stat().st_mode
    except OSError:
        mode = 0
    if not fits(mode):
        raise errors.Invalid(f"hostPath type check failed: {path} is not a {noun}")


def _create(path: Path, kind: str) -> None:
    if kind in ("", "DirectoryOrCreate") and not path.exists():
        path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    elif kind == "FileOrCreate":
        with contextlib.suppress(FileExistsError):
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
            os.close(os.open(path, flags, FILE_MODE))
