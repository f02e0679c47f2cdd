"""Writes small files so that a crash leaves the old content or the new one.

The data goes to a temporary file in the same directory, is flushed to the
disk, and replaces the target by a rename; the directory is flushed too, or
the rename itself could be lost. All functions block for the duration of the
flush: call them from a thread when the event loop must not wait.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_atomic(path: Path | str, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` with `data`; the file gets exactly the permissions `mode`."""
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    fsync_dir(target.parent)


def fsync_dir(path: Path | str) -> None:
    """Flush a directory, which makes creations, renames and removals in it durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
