"""What lies in a staging directory: the place of the volume, and a record of what it is.

Kubelet gives a directory of its own for each volume. The volume appears in it as
`volume` (a mount, a device or a link) with `volume.json` beside: unstaging is told an
id only, and a backend may need what staging was told to take a device away again.

Invariant: the record is there before anything is connected, and goes last. It holds
no secrets.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from holdfast.backends import errors, mountinfo
from holdfast.backends.protocol import Mode, VolumeHandle
from holdfast.node import places

PLACE = "volume"
RECORD = "volume.json"


class Record(msgspec.Struct, frozen=True, rename="camel"):
    """A volume as it was staged. `published` is what attaching it has told."""

    id: str
    context: dict[str, str] = {}
    published: dict[str, str] = {}
    fs_type: str = ""
    read_only: bool = False
    mode: Mode = "Filesystem"
    options: tuple[str, ...] = ()

    def handle(self) -> VolumeHandle:
        """Return the handle the node side is given."""
        return VolumeHandle(
            self.id, self.context, self.fs_type, self.read_only, self.mode, self.options
        )


def place(staging: Path) -> Path:
    """Return where the volume of a staging directory appears."""
    return staging / PLACE


def write(staging: Path, record: Record) -> None:
    """Write the record down. Not flushed: after a power loss nothing is connected either."""
    try:
        staging.mkdir(mode=places.DIRECTORY_MODE, parents=True, exist_ok=True)
        temporary = staging / f".{RECORD}.new"
        temporary.write_bytes(msgspec.json.encode(record))
        temporary.replace(staging / RECORD)
    except OSError as error:
        raise errors.Unavailable(
            f"cannot write the staging record ({error.strerror})", str(staging / RECORD)
        ) from error


def read(staging: Path) -> Record | None:
    """Return the record; None when there is none, or only damage."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((staging / RECORD).read_bytes(), type=Record)
    return None


def remove(staging: Path) -> None:
    """Forget the volume; the directory itself is kubelet's."""
    for name in (RECORD, f".{RECORD}.new"):
        with contextlib.suppress(FileNotFoundError):
            (staging / name).unlink()


def find(volume_id: str, published: Path) -> Path | None:
    """Return the staging directory of a volume from one of its published paths."""
    if published.is_symlink():
        candidates = [Path(os.readlink(published)).parent]  # noqa: PTH115 - not resolved
    else:
        candidates = [Path(m.point).parent for m in _same_content(published)]
    for staging in candidates:
        record = read(staging)
        if record is not None and record.id == volume_id:
            return staging
    return None


def others(staging: Path, target: Path, own: Path | None = None) -> list[str]:
    """Return where else than at `target` the staged volume is published.

    Mounts below `own` are those of the node side itself.
    """
    here = place(staging)
    points = [m.point for m in _same_content(here)]
    if own is not None:
        points = [point for point in points if not Path(point).is_relative_to(own)]
    return [point for point in points if point not in (str(here), str(target))]


def _same_content(path: Path) -> list[mountinfo.Mount]:
    """Return every mount that shows what is mounted at `path`."""
    found = mountinfo.at(path)
    if not found:
        return []
    top = found[-1]
    return [m for m in mountinfo.read() if (m.device, m.root) == (top.device, top.root)]
