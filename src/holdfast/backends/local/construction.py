"""Builds a directory so that it appears under its name complete or not at all.

Content and record are made in a directory whose name no volume can have, and
flushed; a rename then puts the whole in its place. A crash before the rename
leaves a directory that the next attempt, or a delete, removes.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.local import directories, removal
from holdfast.backends.local.roots import NEW
from holdfast.kit import files


@contextlib.contextmanager
def of(directory: Path) -> Iterator[Path]:
    """Give the block a directory to fill, which becomes `directory` when it ends well.

    The block flushes the files it writes. Raises errors.Conflict when something
    without a record lies at `directory` already, errors.Unavailable for a disk
    that does not work.
    """
    unfinished = directory.with_name(f"{NEW}{directory.name}")
    try:
        try:
            unfinished.mkdir(mode=directories.OUTER_MODE)
        except FileExistsError:
            removal.remove_tree(unfinished)
            unfinished.mkdir(mode=directories.OUTER_MODE)
        yield unfinished
        unfinished.rename(directory)
        files.fsync_dir(directory.parent)
    except BaseException as error:
        removal.remove_tree(unfinished)
        if isinstance(error, OSError):
            raise _translated(error, directory) from error
        raise


def _translated(error: OSError, directory: Path) -> errors.BackendError:
    if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
        return errors.Conflict(
            "files without a record lie where it should go",
            str(directory),
            "move them away, or restore the record",
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.Exhausted(f"cannot be made ({error.strerror})", str(directory), "free room")
    return errors.Unavailable(f"cannot be made ({error.strerror})", str(directory))
