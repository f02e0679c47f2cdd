"""Which uses of a volume its storage allows: rules that several storage systems share.

A file system of one machine (ext4, xfs, btrfs) keeps what it knows of its disk in memory.
Two nodes that write to it destroy it, whatever the disk below them allows.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.backends import errors
from holdfast.backends.protocol import Mode

# The access modes with which several nodes have the volume.
SHARED = ("ReadWriteMany", "ReadOnlyMany")


def check_writers(access: Sequence[str], mode: Mode) -> None:
    """Raise errors.Invalid where several nodes would write to one machine's file system."""
    if "ReadWriteMany" in access and mode == "Filesystem":
        raise errors.Invalid(
            "ReadWriteMany with a file system: two nodes that write would destroy it",
            "request",
            "use volumeMode: Block with a program that shares disks, or a network file system",
        )


def check_readers(access: Sequence[str], mode: Mode, *, blank: bool) -> None:
    """Raise Invalid for a new file system that nobody may write to, so that it is never made."""
    if blank and mode == "Filesystem" and list(access) == ["ReadOnlyMany"]:
        raise errors.Invalid(
            "ReadOnlyMany alone: the volume is blank, and nobody could ever write to it",
            "request",
            "add ReadWriteOnce to the claim, or a dataSource with the data that is to be read",
        )


def is_shared(access: Sequence[str]) -> bool:
    """Return whether several nodes will have the volume."""
    return any(mode in SHARED for mode in access)
