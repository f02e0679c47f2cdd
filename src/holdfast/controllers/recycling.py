"""Emptying and deleting the directories behind hostPath and NFS volumes.

Recycle empties a volume so that another claim may have it; hidden files go too, the directory
itself stays. Nothing follows a symbolic link out of the volume, and a volume with a file system
mounted below it is left alone. NFS exports are mounted for the time it takes, which needs root, the
kernel's NFS client and mount.nfs.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from os.path import normpath
from pathlib import Path
from types import MappingProxyType
from typing import Any

from holdfast.backends import errors, mountinfo
from holdfast.kit import process

# Kubernetes' own deleter of host paths refuses everything else.
_DELETABLE = re.compile(r"/tmp/.+")
_PROTECTED = frozenset({"/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64"}) | {
    "/proc",
    "/root",
    "/run",
    "/mnt",
    "/opt",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
}


async def delete_host_path(path: str) -> None:
    """Remove a host path below /tmp with all it holds; one that is gone is a success."""
    await asyncio.to_thread(_delete_below_tmp, path)


async def recycle_host_path(source: Mapping[str, Any], options: list[str]) -> None:
    """Empty a hostPath volume's directory."""
    await asyncio.to_thread(_empty_unprotected, source.get("path", ""))


async def recycle_nfs(source: Mapping[str, Any], options: list[str]) -> None:
    """Mount an NFS export, empty it, unmount it."""
    export = f"{source.get('server', '')}:{source.get('path', '')}"
    with tempfile.TemporaryDirectory(prefix="holdfast-recycle-") as directory:
        argv = ["mount", "-t", "nfs", "-o", ",".join(options or ["soft"]), export, directory]
        try:
            await process.run(argv, timeout=120)
        except process.CommandFailed as error:
            # The same failure has to read the same each time: a text that changes is written
            # into the volume again, and the write is what brings it back here.
            why = str(error).replace(directory, "DIRECTORY")
            raise errors.Unavailable(
                f"cannot be mounted to empty it: {why}",
                export,
                "check the NFS server, and that nfs-common is installed on this machine",
            ) from error
        try:
            await asyncio.to_thread(_empty, Path(directory))
        finally:
            await process.run(["umount", directory], timeout=120)


def _delete_below_tmp(path: str) -> None:
    # Neither dots nor a link among the parents may lead out of /tmp.
    plain = Path(normpath(path))
    real = plain.parent.resolve() / plain.name
    if not all(_DELETABLE.fullmatch(str(name)) for name in (plain, real)):
        raise errors.Invalid(
            f"host_path deleter only supports /tmp/.+ but received provided {path}"
        )
    mounts = [] if real.is_symlink() else mountinfo.touching(real)
    if mounts:
        raise errors.Conflict("it is mounted", mounts[0].point, "wait for its pods, or unmount it")
    _remove(real)


def _empty_unprotected(path: str) -> None:
    real = Path(path).resolve()
    if str(real) in _PROTECTED or not path.startswith("/"):
        raise errors.Invalid(
            "a directory of the operating system is not emptied",
            str(real),
            "set the volume's reclaim policy to Retain",
        )
    inner = [mount.point for mount in mountinfo.beneath(real) if mount.point != str(real)]
    if inner:
        raise errors.Conflict("another file system is mounted there", inner[0], "unmount it")
    _empty(real)


def _remove(path: Path) -> None:
    try:
        if path.is_symlink() or not path.is_dir():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.Unavailable(
            f"cannot be removed: {error.strerror}", str(error.filename or path)
        ) from error


def _empty(directory: Path) -> None:
    try:
        with os.scandir(directory) as entries:
            names = [Path(entry.path) for entry in entries]
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.Unavailable(f"cannot be read: {error.strerror}", str(directory)) from error
    for path in names:
        _remove(path)


RECYCLERS: Mapping[str, Callable[[Mapping[str, Any], list[str]], Awaitable[None]]] = (
    MappingProxyType({"hostPath": recycle_host_path, "nfs": recycle_nfs})
)
