"""The StorageClass parameters of the local backend, checked and typed.

`fsType`, `path` and `layout` are all there is. Limits that follow from them
(the smallest size a file system can hold) are here too, because they make a
request invalid before anything is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from holdfast.backends import errors, parameters
from holdfast.backends.local import sizes
from holdfast.backends.protocol import Mode

Layout = Literal["image", "directory"]

KNOWN = (
    parameters.Parameter(
        "fsType",
        "file system made on the volume",
        default="ext4",
        choices=("ext4", "xfs", "btrfs"),
        # The second is how the in-tree plug-ins of Kubernetes, vSphere's for one, spell it.
        aliases=("csi.storage.k8s.io/fstype", "fstype"),
    ),
    parameters.Parameter("path", "directory on the node in which volumes are kept"),
    parameters.Parameter(
        "layout",
        "image: a disk image of fixed size; directory: a plain directory without size limit",
        default="image",
        choices=("image", "directory"),
    ),
)

# What the mkfs programs themselves insist on (xfsprogs 5.19 and later refuse
# less than 300 MiB; btrfs needs two copies of its metadata chunks). For ext4
# it is the least that leaves room for files beside a journal.
SMALLEST = {"ext4": 2 << 20, "xfs": 300 << 20, "btrfs": 109 << 20}


@dataclass(frozen=True, slots=True)
class LocalParameters:
    """`path` is None for the backend's own volume root."""

    fs_type: str
    layout: Layout
    path: Path | None


def read(given: Mapping[str, str]) -> LocalParameters:
    """Check a class's parameters. Raises errors.Invalid."""
    values = parameters.read(given, KNOWN)
    path = _directory(values["path"]) if values["path"] else None
    return LocalParameters(values["fsType"], cast(Layout, values["layout"]), path)


def check_size(size: int, mode: Mode, chosen: LocalParameters) -> None:
    """Refuse a size the layout and file system cannot hold, and raw blocks in a directory."""
    if size <= 0:
        raise errors.Invalid(f"a volume of {size} bytes", "request", "ask for more than zero")
    if mode == "Block":
        if chosen.layout == "directory":
            raise errors.Invalid(
                "volumeMode Block needs a disk image, but the class says layout: directory",
                "StorageClass parameters",
                "use a class with layout: image",
            )
        return
    smallest = SMALLEST[chosen.fs_type]
    if chosen.layout == "image" and size < smallest:
        raise errors.Invalid(
            f"{chosen.fs_type} cannot be made on {sizes.text(size)}",
            "request",
            f"ask for {sizes.text(smallest)} or more, or use another fsType",
        )


def _directory(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts or path == Path("/"):
        raise errors.Invalid(
            f'parameter "path" cannot be "{text}"',
            "StorageClass parameters",
            'give an absolute directory without "..", e.g. /srv/volumes',
        )
    return path
