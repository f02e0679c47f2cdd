"""What the agent keeps on disk about a pod's volumes.

Each volume has a directory `pods/<uid>/volumes/<plugin>/<name>/` holding `volume.json`
(the record, written before anything is done), `mount` (what containers see) and
`ready` (an empty file, made when all is done). After a crash the record says what may
have to be undone; `ready` says what need not be done again.

The invariant: a record is removed last, when nothing it describes is left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from holdfast.backends import mountinfo, protocol
from holdfast.kit import files

RECORD = "volume.json"
READY = "ready"
MOUNT = "mount"

How = Literal["staged", "bound", "memory", "directory"]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One volume of one pod: `how` it is set up decides how it is taken down.

    `staged` volumes are connected once per node and shared by pods; `bound` ones are a
    path of this machine; `memory` is a file system of its own; `directory` is plain.
    """

    entry: str
    plugin: str
    name: str
    title: str
    how: How
    side: str = ""
    handle: protocol.VolumeHandle | None = None


class Records:
    """The records beneath one node's directory."""

    def __init__(self, root: Path) -> None:
        self._pods = root / "pods"

    def directory(self, uid: str, record: Record) -> Path:
        return self._pods / uid / "volumes" / record.plugin / record.name

    def mount(self, uid: str, record: Record) -> Path:
        return self.directory(uid, record) / MOUNT

    def write(self, uid: str, record: Record) -> None:
        """Make the volume's directory and record, and say that it is not ready."""
        directory = self.directory(uid, record)
        directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (directory / READY).unlink()
        files.write_atomic(directory / RECORD, msgspec.json.encode(record))

    def finish(self, uid: str, record: Record) -> None:
        """Say that the volume is ready."""
        (self.directory(uid, record) / READY).touch()

    def is_ready(self, uid: str, record: Record) -> bool:
        """Whether the volume was finished and is still mounted."""
        if not (self.directory(uid, record) / READY).exists():
            return False
        mount = self.mount(uid, record)
        return mount.is_dir() if record.how == "directory" else bool(mountinfo.at(mount))

    def remove(self, uid: str, record: Record) -> None:
        """Delete what is left of the volume; refuses while anything is mounted in it."""
        directory = self.directory(uid, record)
        if mountinfo.beneath(directory):
            raise OSError(f"{directory} still has something mounted in it")
        mount = directory / MOUNT
        with contextlib.suppress(FileNotFoundError):
            (directory / READY).unlink()
        if record.how == "directory" and mount.is_dir() and not mount.is_symlink():
            shutil.rmtree(mount)
        elif mount.is_dir():
            # A mount point is empty: rmdir, unlike a recursive delete, cannot eat a volume.
            mount.rmdir()
        else:
            mount.unlink(missing_ok=True)
        shutil.rmtree(directory)

    def forget_pod(self, uid: str) -> None:
        """Remove the pod's empty directories."""
        top = self._pods / uid
        for directory, _, _ in os.walk(top, topdown=False):
            Path(directory).rmdir()

    def pods(self) -> list[str]:
        """Return the uids of all pods that have left something on disk."""
        return sorted(path.name for path in self._pods.iterdir()) if self._pods.is_dir() else []

    def of(self, uid: str) -> Iterator[Record]:
        """Yield the records of a pod; a damaged one is an error, not skipped."""
        for path in sorted((self._pods / uid / "volumes").glob(f"*/*/{RECORD}")):
            yield msgspec.json.decode(path.read_bytes(), type=Record)
