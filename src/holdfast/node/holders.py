"""Which processes keep a mount busy: a hint for error messages, never a decision.

/proc is looked through for working directories, roots, open files and mapped
files below the mount point. The search is bounded in time and in the number of
names shown; what it misses (another mount namespace, a swap file) stays
unnamed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS = 0.5
SHOWN = 5

PROC = Path("/proc")


def describe(point: Path) -> str:
    """Return e.g. "postgres (pid 4711), bash (pid 12)", or "" when nobody is found."""
    found: list[str] = []
    for pid in find(point):
        if len(found) == SHOWN:
            found.append("others")
            break
        found.append(f"{_name(pid)} (pid {pid})")
    return ", ".join(found)


def find(point: Path) -> Iterator[int]:
    """Yield the ids of processes that use something below `point`."""
    deadline = time.monotonic() + SECONDS
    with os.scandir(PROC) as entries:
        pids = sorted(int(entry.name) for entry in entries if entry.name.isdigit())
    for pid in pids:
        if time.monotonic() > deadline:
            return
        if _uses(pid, str(point)):
            yield pid


def _uses(pid: int, point: str) -> bool:
    prefix = f"{point.rstrip('/')}/"
    home = f"{PROC}/{pid}"
    for link in (f"{home}/cwd", f"{home}/root", f"{home}/exe", *_descriptors(home)):
        try:
            target = os.readlink(link)  # noqa: PTH115 - thousands of them
        except OSError:
            continue
        if target == point or target.startswith(prefix):
            return True
    return _maps(home, prefix)


def _descriptors(home: str) -> list[str]:
    try:
        with os.scandir(f"{home}/fd") as entries:
            return [entry.path for entry in entries]
    except OSError:
        return []


def _maps(home: str, prefix: str) -> bool:
    try:
        return f" {prefix}".encode() in Path(f"{home}/maps").read_bytes()
    except OSError:
        return False


def _name(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process"
