"""fsGroup: gives a volume's files to a group and lets the group use them.

Every file gets the group and group read and write; directories also get group
execute and the setgid bit, so that new files stay in the group. The root is
changed last: policy OnRootMismatch looks at the root only, and an interrupted
change must not look finished.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from holdfast.backends import errors

Policy = Literal["Always", "OnRootMismatch"]

_WRITABLE = 0o660
_READABLE = 0o440
_DIRECTORY = 0o110 | stat.S_ISGID


def apply(path: Path, group: int, policy: Policy = "Always", *, read_only: bool = False) -> bool:
    """Change the tree at `path`; False when the policy found nothing to do.

    Symbolic links are changed themselves and never followed. Raises
    errors.Unavailable when a file cannot be changed.
    """
    path = path.resolve()
    mask = _READABLE if read_only else _WRITABLE
    if policy == "OnRootMismatch" and _matches(path.stat(), group, mask):
        return False
    try:
        for _, names, files, holder in os.fwalk(path, topdown=False, follow_symlinks=False):
            for name in (*names, *files):
                _change(name, holder, group, mask)
        _change(str(path), None, group, mask)
    except OSError as error:
        raise errors.Unavailable(
            f"cannot give the volume's files to group {group} ({error.strerror})",
            f"{path}: {error.filename}",
            "only root, or a member of the group that owns the files, may do that",
        ) from error
    return True


def _change(name: str, holder: int | None, group: int, mask: int) -> None:
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=holder)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISLNK(found.st_mode):
            os.chown(name, -1, group, dir_fd=holder, follow_symlinks=False)
            return
        # Through the descriptor, not the name: whoever writes to the volume
        # could put a link in the file's place meanwhile.
        itself = f"/proc/self/fd/{descriptor}"
        mode = stat.S_IMODE(found.st_mode) | mask
        if stat.S_ISDIR(found.st_mode):
            mode |= _DIRECTORY
        if found.st_gid != group:
            os.chown(itself, -1, group)
        # A change of owner clears the setgid bit, so the mode comes second.
        if found.st_gid != group or mode != stat.S_IMODE(found.st_mode):
            Path(itself).chmod(mode)
    finally:
        os.close(descriptor)


def _matches(found: os.stat_result, group: int, mask: int) -> bool:
    wanted = mask | _DIRECTORY
    return found.st_gid == group and stat.S_IMODE(found.st_mode) & wanted == wanted
