"""What the agent keeps on disk about a pod's volumes.

Each volume has a directory `pods/<uid>/volumes/<plugin>/<name>/` holding `volume.json`
(the record, written before anything is done), `mount` (what containers see) and
`ready` (an empty file, made when all is done). After a crash the record says what may
have to be undone; `ready` says what need not be done again.

The invariants: a record is removed last, when nothing it describes is left; and it holds no
secret, so a volume has to be taken down without one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from holdfast.backends import mountinfo, protocol
from holdfast.kit import files

log = logging.getLogger("holdfast.controllers")

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
    # The CSI driver under whose name the volume is attached.
    driver: str = ""
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
        self.unfinish(uid, record)
        files.write_atomic(directory / RECORD, msgspec.json.encode(record))

    def finish(self, uid: str, record: Record) -> None:
        """Say that the volume is ready."""
        (self.directory(uid, record) / READY).touch()

    def unfinish(self, uid: str, record: Record) -> None:
        """Say that the volume is no longer ready, before it is taken down."""
        with contextlib.suppress(FileNotFoundError):
            (self.directory(uid, record) / READY).unlink()

    def is_finished(self, uid: str, record: Record) -> bool:
        """Whether the volume was finished once; whether it is mounted now is another matter."""
        return (self.directory(uid, record) / READY).exists()

    def remove(self, uid: str, record: Record) -> None:
        """Delete what is left of the volume; refuses while anything is mounted in it."""
        directory = self.directory(uid, record)
        if not directory.is_dir():
            return
        if mountinfo.beneath(directory):
            raise OSError(f"{directory} still has something mounted in it")
        mount = directory / MOUNT
        if record.how == "directory" and mount.is_dir():
            shutil.rmtree(mount)
        elif mount.is_dir() and not mount.is_symlink():
            # A mount point is empty: rmdir, unlike a recursive delete, cannot eat a volume.
            mount.rmdir()
        else:
            mount.unlink(missing_ok=True)
        shutil.rmtree(directory)

    def forget_pod(self, uid: str) -> None:
        """Remove the pod's directories; refuses when anything unknown lies in them."""
        for directory, _, names in os.walk(self._pods / uid, topdown=False):
            for name in names:
                # What a crash left of a record that was being written.
                if name.startswith(f".{RECORD}."):
                    Path(directory, name).unlink()
            Path(directory).rmdir()

    def load(self) -> dict[str, list[Record]]:
        """Read the records of all pods that have left something on disk, by uid."""
        if not self._pods.is_dir():
            return {}
        return {path.name: list(self._of(path)) for path in sorted(self._pods.iterdir())}

    def _of(self, pod: Path) -> Iterator[Record]:
        for path in sorted((pod / "volumes").glob(f"*/*/{RECORD}")):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=Record)
            except msgspec.DecodeError as error:
                # Records replace each other whole, so this is damage done by others. The
                # rest of the node goes on; this pod's directory cannot be removed.
                log.error("damaged record", extra={"path": str(path), "error": str(error)})
