"""How much a directory's files take on the disk, as `du -x` counts it.

For directories that share a file system with others, where the file system's own numbers say
nothing. What is being written or removed meanwhile may or may not count; a file with several names
counts once, and other file systems mounted below do not count.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

# What st_blocks counts in, whatever the file system's own blocks are.
_UNIT = 512


def of(directory: Path) -> int:
    """Return bytes; what vanishes or cannot be read while counting is left out.

    Takes long for many files: to be called in a thread.
    """
    try:
        top = os.lstat(directory)
    except OSError:
        return 0
    seen: set[int] = set()
    blocks = top.st_blocks
    waiting = [os.fspath(directory)]
    while waiting:
        for path, info in _entries(waiting.pop()):
            if info.st_dev != top.st_dev or info.st_ino in seen:
                continue
            if stat.S_ISDIR(info.st_mode):
                waiting.append(path)
            elif info.st_nlink > 1:
                seen.add(info.st_ino)
            blocks += info.st_blocks
    return blocks * _UNIT


def _entries(directory: str) -> Iterator[tuple[str, os.stat_result]]:
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    yield entry.path, entry.stat(follow_symlinks=False)
    except OSError:
        return
