"""Plain directories as volumes: nothing limits their size, and no privilege is needed.

The data directory itself is open to every user (mode 0777), because a pod that
runs as an arbitrary user and asks for no fsGroup must be able to write to a
new volume. The directory above it is 0700: on the machine itself nobody but
Holdfast's user gets in; pods reach the data through their mount.
"""

from __future__ import annotations

from pathlib import Path

OUTER_MODE = 0o700
DATA_MODE = 0o777


def make(path: Path) -> None:
    """Make an empty data directory; `path` must not exist."""
    path.mkdir()
    # mkdir is subject to the umask, chmod is not.
    path.chmod(DATA_MODE)
