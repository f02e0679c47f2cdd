"""Unix sockets to serve on: stale ones replaced, live ones respected, for their owner only.

A process that was killed leaves its socket behind; whether somebody still listens is
found out by connecting. Whoever listens on a driver's socket is that driver, so a second
one is refused instead of taking its place.
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from holdfast.backends import errors

PREFIX = "unix:"
# sun_path of sockaddr_un, less the final zero.
LONGEST = 107


def parse(endpoint: str) -> Path:
    """Return the path of `unix:///path` or `unix:/path`. Raises errors.Invalid."""
    path = Path("/", endpoint.removeprefix(PREFIX).lstrip("/"))
    if not endpoint.startswith((f"{PREFIX}/", "/")) or endpoint.endswith("/"):
        raise errors.Invalid(
            f'"{endpoint}" is no socket to serve on', "endpoint", "write unix:///path/csi.sock"
        )
    return path


def prepare(path: Path) -> None:
    """Make `path` free for a socket. Raises errors.Conflict when somebody serves there."""
    if len(os.fsencode(path)) > LONGEST:
        raise errors.Invalid(
            f"the path of a socket has at most {LONGEST} bytes", str(path), "use a shorter one"
        )
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        if not os.path.lexists(path):
            return
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise errors.Conflict("is no socket", str(path), "choose another path")
        if is_served(path):
            raise errors.Conflict(
                "another process serves this socket",
                str(path),
                "stop the driver of the same name on this machine first",
            )
        path.unlink(missing_ok=True)
    except OSError as error:
        raise errors.Unavailable(
            f"cannot be served on ({error.strerror})", str(path), "choose a writable directory"
        ) from error


def is_served(path: Path) -> bool:
    """Return whether a process listens there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells this socket file from another one at the same path."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def remove(path: Path, known: tuple[int, int] | None) -> None:
    """Remove our own socket, and no other that took its place."""
    if known is not None and identity(path) == known:
        path.unlink(missing_ok=True)
