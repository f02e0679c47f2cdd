"""The record that turns a directory into a volume or a snapshot.

A record is one small JSON file beside the content, written last: what has no
record is the remains of something interrupted, and never handed out.

Names become directory names, so `check_name` is the fence against path
traversal: a leading dot is never valid and therefore free for our own use.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from holdfast.backends import errors
from holdfast.backends.protocol import Mode
from holdfast.kit import files

VOLUME = "volume.json"
SNAPSHOT = "snapshot.json"
IMAGE = "disk.img"
DATA = "data"

_NAME = re.compile(r"[A-Za-z0-9]([-._A-Za-z0-9]{0,198}[A-Za-z0-9])?", re.ASCII)


class VolumeRecord(msgspec.Struct, frozen=True, rename="camel"):
    """What was asked for and what became of it. Sizes are bytes.

    `requested` keeps the size of the first request, so that a repeated create
    is recognised after the volume has grown to `size`.
    """

    name: str
    requested: int
    size: int
    layout: Literal["image", "directory"]
    fs_type: str
    mode: Mode
    created: str
    parameters: dict[str, str] = {}
    source: str = ""


class SnapshotRecord(msgspec.Struct, frozen=True, rename="camel"):
    """A snapshot keeps what is needed to restore it after its volume is gone."""

    name: str
    volume: str
    size: int
    layout: Literal["image", "directory"]
    fs_type: str
    mode: Mode
    created: str


R = TypeVar("R", VolumeRecord, SnapshotRecord)


def is_name(name: str) -> bool:
    """Return whether a volume or snapshot could be called so."""
    return _NAME.fullmatch(name) is not None


def check_name(name: str) -> None:
    """Raise errors.Invalid unless `name` is safe as a directory name."""
    if not is_name(name):
        raise errors.Invalid(
            f'"{name}" cannot be the name of a volume or snapshot',
            "request",
            "use at most 200 letters, digits, '-', '_' and '.', starting and ending "
            "with a letter or digit",
        )


def check_id(id: str, what: str, where: Path) -> None:
    """Raise errors.NotFound for an id that no volume or snapshot can have."""
    if not is_name(id):
        raise errors.NotFound(f'no {what} "{id}"', str(where))


def content(directory: Path, layout: str) -> Path:
    """Return where the content of a volume or snapshot of this layout lies."""
    return directory / (IMAGE if layout == "image" else DATA)


def load(path: Path, kind: type[R]) -> R | None:
    """Return the record at `path`, or None when there is none."""
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise errors.Unavailable(f"cannot read the record ({error.strerror})", str(path)) from error
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise errors.Conflict(
            f"the record is damaged ({error})",
            str(path),
            "restore it, or remove the directory if its data is not needed",
        ) from error


def save(path: Path, record: VolumeRecord | SnapshotRecord) -> None:
    """Write the record of a directory under construction and flush it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, _encoded(record))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(path: Path, record: VolumeRecord) -> None:
    """Change the record of a volume; a crash leaves the old one or the new one."""
    files.write_atomic(path, _encoded(record), 0o600)


def _encoded(record: VolumeRecord | SnapshotRecord) -> bytes:
    return msgspec.json.encode(record) + b"\n"
