"""A note beside each staging path: what was begun there and has to be undone.

The mount table says what is mounted, but a crash between attaching a loop
device and mounting it, or in the middle of a format, leaves nothing there. So
the image and the format in progress are written down before they are begun.

Invariant: a note never proves that something happened, only that it may have.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from holdfast.backends import errors
from holdfast.kit import files


class Note(msgspec.Struct, frozen=True):
    """`image`: the file given a loop device. `formatting`: identity of a device being formatted."""

    image: str = ""
    formatting: str = ""


def read(staging: Path) -> Note:
    """Return the note of a staging path; an empty one when there is none."""
    try:
        return msgspec.json.decode(_path(staging).read_bytes(), type=Note)
    except FileNotFoundError:
        return Note()
    except msgspec.DecodeError:
        # Notes replace each other whole, so this is damage; without the note
        # everything is still refused that is not known to be safe.
        return Note()


def exists(staging: Path) -> bool:
    """Return whether there is a note, damaged or not; cheap enough for the event loop."""
    return _path(staging).exists()


def write(staging: Path, note: Note) -> None:
    """Write the note down, safely on the disk, unless it says so already."""
    if note == read(staging):
        return
    try:
        staging.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        files.write_atomic(_path(staging), msgspec.json.encode(note))
    except OSError as error:
        raise errors.Unavailable(
            f"cannot write the staging note ({error.strerror})", str(_path(staging))
        ) from error


def remove(staging: Path) -> None:
    """Forget about a staging path."""
    _path(staging).unlink(missing_ok=True)


def _path(staging: Path) -> Path:
    return staging.with_name(f".{staging.name}.staging")
