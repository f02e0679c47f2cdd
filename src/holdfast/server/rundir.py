"""Who runs on a data directory: the lock, and the note the holder leaves.

``lock`` is held with flock for as long as the process lives and carries its
pid; the kernel drops the lock with the process, however it dies, so a stale
file never blocks a start. ``run.json`` says where the API is; it is written
when the process is ready and removed when it stops.

Invariant: only the lock decides whether somebody runs. A pid read from a file
is believed, and signalled, only after the process behind it was seen to have
the lock file open, so no stranger with a recycled pid is ever stopped.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from holdfast.kit import files

LOCK_NAME = "lock"
RUN_NAME = "run.json"

# Somebody asking who holds the lock has it for an instant; a start waits that out.
_PATIENCE_SECONDS = 0.3
_POLL_SECONDS = 0.01


class RunInfo(msgspec.Struct, frozen=True):
    """What a ready process says about itself."""

    pid: int
    url: str
    started: str  # RFC 3339, when the process began to start
    node: str = ""
    version: str = ""


class RunDirError(Exception):
    """The data directory cannot be used: which, why, what to do."""


class HeldError(RunDirError):
    """Another process runs on the data directory."""

    def __init__(self, data_dir: Path, holder: Holder) -> None:
        self.data_dir = data_dir
        self.holder = holder
        super().__init__(
            f"Holdfast already runs on {data_dir}: {holder}; "
            f"stop it with: holdfast down --data-dir {data_dir}"
        )


class Holder(msgspec.Struct, frozen=True):
    """The process that has the lock.

    `info` is None until it is ready; `pid` is None for the instants in which a
    process has the lock and has not yet, or no longer, written its pid.
    """

    pid: int | None = None
    info: RunInfo | None = None

    def __str__(self) -> str:
        """Say which process it is and where its API is."""
        if self.info is not None:
            return f"process {self.pid} at {self.info.url}"
        return f"process {self.pid or '(unknown)'}, which is starting or stopping"


def prepare(data_dir: Path) -> None:
    """Make the directory, for its owner only; raises RunDirError."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise RunDirError(f"{data_dir} is not a directory: choose another --data-dir") from error
    except OSError as error:
        raise RunDirError(
            f"cannot make the data directory {data_dir}: {error.strerror}; "
            "choose another --data-dir"
        ) from error
    with _translated(data_dir), os.scandir(data_dir):
        pass


@contextlib.contextmanager
def hold(data_dir: Path) -> Iterator[None]:
    """Have the directory to oneself; raises HeldError when another process has it."""
    descriptor = _open(data_dir)
    try:
        _acquire(descriptor, data_dir)
        with _translated(data_dir):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            (data_dir / RUN_NAME).unlink(missing_ok=True)
        try:
            yield
        finally:
            (data_dir / RUN_NAME).unlink(missing_ok=True)
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def publish(data_dir: Path, info: RunInfo) -> None:
    """Leave the note; called by the holder of the lock once it is ready. Raises RunDirError."""
    with _translated(data_dir):
        files.write_atomic(data_dir / RUN_NAME, msgspec.json.encode(info) + b"\n", mode=0o600)


def holder(data_dir: Path) -> Holder | None:
    """Say who runs on the directory, None when nobody does; raises RunDirError."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise RunDirError(
            f"cannot look into {data_dir}: {error.strerror}; run as the user who started Holdfast"
        ) from error
    try:
        if _lock(descriptor, fcntl.LOCK_SH):
            return None
        pid = _recorded_pid(descriptor)
    finally:
        os.close(descriptor)
    if pid is None or not _has_open(pid, data_dir / LOCK_NAME):
        return Holder()
    info = _read_info(data_dir)
    return Holder(pid, info if info and info.pid == pid else None)


def _open(data_dir: Path) -> int:
    with _translated(data_dir):
        return os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _translated(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "choose another --data-dir, or run as its owner"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space there, or choose another --data-dir"
        raise RunDirError(
            f"cannot use the data directory {data_dir}: {error.strerror}; {remedy}"
        ) from error


def _acquire(descriptor: int, data_dir: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _lock(descriptor, fcntl.LOCK_EX):
        if time.monotonic() > deadline:
            raise HeldError(data_dir, holder(data_dir) or Holder())
        time.sleep(_POLL_SECONDS)


def _lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _recorded_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


def _has_open(pid: int, path: Path) -> bool:
    """Say whether the process has the file open; True where we may not look."""
    wanted = path.stat()
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            return any(_is_same(entry, wanted) for entry in entries)
    except PermissionError:
        return True
    except OSError:
        return False


def _is_same(entry: os.DirEntry[str], wanted: os.stat_result) -> bool:
    try:
        found = entry.stat()
    except OSError:
        # Closed since it was listed, or something without a file behind it.
        return False
    return (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)


def _read_info(data_dir: Path) -> RunInfo | None:
    try:
        return msgspec.json.decode((data_dir / RUN_NAME).read_bytes(), type=RunInfo)
    except (OSError, msgspec.DecodeError):
        return None
