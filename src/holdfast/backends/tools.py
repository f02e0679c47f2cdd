"""Which package of a Linux distribution provides a program that Holdfast runs.

A program that is missing is the commonest reason why a volume does not mount,
and its package is rarely called like the program. The names are those of
Debian and its relatives; Fedora's are the same for all of them.
"""

from __future__ import annotations

import shutil

PACKAGES = {
    "btrfs": "btrfs-progs",
    "e2fsck": "e2fsprogs",
    "gluster": "glusterfs-cli",
    "mkfs.btrfs": "btrfs-progs",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mount.glusterfs": "glusterfs-client",
    "resize2fs": "e2fsprogs",
    "xfs_growfs": "xfsprogs",
}


def package_of(program: str) -> str:
    """Return the package to install for `program`; the program's own name if not known."""
    return PACKAGES.get(program, program)


def missing(program: str) -> bool:
    """Return whether `program` is absent from the search path."""
    return shutil.which(program) is None
