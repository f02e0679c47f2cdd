"""Starts `holdfast up` as a background process and waits until it is ready.

The child is a fresh interpreter in a session of its own, its output appended
to ``holdfast.log`` in the data directory. It is ready when it has published
its run.json, and failed when it exits before that; then its error is raised
here, read back from the log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from holdfast.cli import terminal
from holdfast.server import rundir

READY_SECONDS = 60.0
_POLL_SECONDS = 0.01
_LOG_LIMIT = 16 << 20  # bytes; a larger log is set aside as holdfast.log.1 at the next start
_TAIL_LINES = 15


def log_path(data_dir: Path) -> Path:
    """Give where the background process writes its output."""
    return data_dir / "holdfast.log"


def start(data_dir: Path, arguments: Sequence[str]) -> rundir.RunInfo:
    """Start `holdfast` with the arguments and wait; raises CommandError when it fails."""
    log = log_path(data_dir)
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_LIMIT:
            log.replace(log.with_suffix(".log.1"))
    offset = log.stat().st_size if log.exists() else 0
    pid = _spawn(arguments, log)
    try:
        return _wait_until_ready(data_dir, pid, log, offset)
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
        raise


def _spawn(arguments: Sequence[str], log: Path) -> int:
    # -P keeps the current directory off the module path.
    argv = [sys.executable, "-P", "-m", "holdfast.cli", *arguments]
    return os.posix_spawn(
        sys.executable,
        argv,
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def _wait_until_ready(data_dir: Path, pid: int, log: Path, offset: int) -> rundir.RunInfo:
    with terminal.Progress("starting Holdfast") as progress:
        while progress.seconds < READY_SECONDS:
            if os.waitpid(pid, os.WNOHANG)[0]:
                raise terminal.CommandError(_failure(log, offset))
            holder = rundir.holder(data_dir)
            if holder and holder.info and holder.info.pid == pid:
                return holder.info
            progress.tick()
            time.sleep(_POLL_SECONDS)
    raise terminal.CommandError(
        f"Holdfast (process {pid}) is not ready after {READY_SECONDS:.0f} s; "
        f"it goes on trying, see {log}"
    )


def _failure(log: Path, offset: int) -> str:
    """Give the child's error; its last lines when it died without one."""
    with log.open("rb") as stream:
        stream.seek(offset)
        lines = stream.read().decode("utf-8", "replace").splitlines()
    for number in reversed(range(len(lines))):
        if lines[number].startswith("Error: "):
            return "\n".join([lines[number].removeprefix("Error: "), *lines[number + 1 :]])
    if not lines:
        return f"Holdfast ended before it was ready and left nothing in {log}: is its disk full?"
    tail = "\n".join(f"  {line}" for line in lines[-_TAIL_LINES:])
    return f"Holdfast ended before it was ready; the end of {log}:\n{tail}"
