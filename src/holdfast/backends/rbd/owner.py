"""Writes into an image whose it is, where `rbd image-meta list` shows it.

librbd writes metadata only through an image that is open for writing, which takes a
watch and a lock and costs more than making the image. The object class behind it
takes the same call directly; nobody else has an image open that was made just now.
"""

from __future__ import annotations

import errno
import struct

from holdfast.backends.rbd import failures
from holdfast.backends.rbd.shelf import Shelf

KEY = "dev.holdfast.volume"
_LENGTH = struct.Struct("<I")


def write(shelf: Shelf, image: str, text: str) -> None:
    """Set the owner. Blocks. Raises backends.errors."""
    entry = _packed(KEY) + _packed(text)
    with failures.translated("write the owner into the image", shelf.id(image).spec):
        number = _unpacked(shelf.context.read(f"rbd_id.{image}"))
        header = f"rbd_header.{number}"
        shelf.context.execute(header, "rbd", "metadata_set", _LENGTH.pack(1) + entry)


def read(shelf: Shelf, image: str) -> str:
    """Return what `write` set, or "" for an image of somebody else."""
    with (
        shelf.opened(image) as handle,
        failures.translated("read the image's owner", shelf.id(image).spec),
    ):
        try:
            return str(handle.metadata_get(KEY))
        except KeyError:
            return ""
        except shelf.rbd.Error as error:
            if failures.number_of(error) != errno.ENOENT:
                raise
            return ""


def _packed(text: str) -> bytes:
    """Encode a text as Ceph does: its length, then the bytes."""
    raw = text.encode()
    return _LENGTH.pack(len(raw)) + raw


def _unpacked(raw: bytes) -> str:
    (length,) = _LENGTH.unpack_from(raw)
    return raw[_LENGTH.size : _LENGTH.size + length].decode()
