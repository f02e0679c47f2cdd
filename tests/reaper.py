"""Clears up behind a test process however it ends: a process of its own, so also after a kill.

It reads directories from a pipe. When the pipe ends, it ends what was started with an argument
below one of them, unmounts what is mounted there and detaches its loop devices. After a run that
ended in order it finds nothing. A mount whose server is dead is more than untidy: other programs
of the machine stumble over it, mkfs.btrfs among them.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import machine

# Image servers first: without them whatever waits for the cluster ends with an error. The
# cluster's daemons last.
_PROGRAMS = ("qemu-storage-daemon", "python", "ceph-")


class Reaper:
    """The process, and the pipe to it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": machine.PYTHONPATH},
            start_new_session=True,
        )

    def watch(self, directory: Path) -> None:
        """Have a directory cleared when this process has ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{directory}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        """Have everything cleared now."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _clear(directory: Path) -> None:
    for program in _PROGRAMS:
        for pid in _started(program, directory):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    machine.release(directory)


def _started(program: str, directory: Path) -> Iterator[int]:
    """Find the processes of a program that have an argument below the directory."""
    below = f"{directory}/".encode()
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name, *arguments = (place / "cmdline").read_bytes().split(b"\0")
            if Path(os.fsdecode(name)).name.startswith(program) and any(
                each.startswith(below) for each in arguments
            ):
                yield int(place.name)


def main() -> None:
    """Wait for the end of the pipe, then clear."""
    for line in sys.stdin.read().splitlines():
        _clear(Path(line))


if __name__ == "__main__":
    main()
