"""Connects local volumes on the machine where they are.

There is nothing to log in to: the path in the handle's context is looked at,
and what it is decides what the node gets. A directory is bound, a block device
is used as it is, a regular file is a disk image that the node gives a loop
device. `hostPath` volumes are checked against their type first.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from pathlib import Path

from holdfast.backends import blockdevices, errors
from holdfast.backends.local import hostpaths
from holdfast.backends.protocol import Connected, ImageFile, MountSource, VolumeHandle


class LocalNodeSide:
    """The node side of `local` and `hostPath` volumes, made by us or not."""

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Return what the volume's path is. Raises NotFound, Invalid."""
        return await asyncio.to_thread(_connect, volume)

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Do nothing: the path was there before and stays."""


def _connect(volume: VolumeHandle) -> Connected:
    path = Path(volume.context.get("path") or volume.id)
    if not path.is_absolute() or ".." in path.parts:
        raise errors.Invalid('must be an absolute path without ".."', str(path))
    host_path = volume.context.get("kind") == "hostPath"
    if host_path:
        hostpaths.check(path, volume.context.get("type", ""))
    try:
        found = path.stat()
    except FileNotFoundError as error:
        raise errors.NotFound(
            f'path "{path}" does not exist', "", "make it on this node, or correct the volume"
        ) from error
    except OSError as error:
        raise errors.Unavailable(f"cannot be read ({error.strerror})", str(path)) from error
    if stat.S_ISBLK(found.st_mode) and (volume.mode == "Block" or not host_path):
        return blockdevices.describe(path)
    if stat.S_ISREG(found.st_mode) and (volume.mode == "Block" or not host_path):
        return ImageFile(path, found.st_size)
    if volume.mode == "Block":
        raise errors.Invalid("volumeMode Block needs a block device or a disk image", str(path))
    if not host_path and not stat.S_ISDIR(found.st_mode):
        raise errors.Invalid("is no directory, disk image or block device", str(path))
    return MountSource(path, enforced=False)
