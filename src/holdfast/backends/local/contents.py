"""Copies the content of one volume or snapshot into another directory.

A copy must be the content at one moment. A file system that shares blocks
gives that even while the volume is written; elsewhere a volume in use is
refused.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.local import copying, records, usage


def copy(source: Path, target: Path, layout: str) -> None:
    """Copy the content of a volume or snapshot; `target` must not exist.

    Raises errors.Conflict when the source is in use and the file system cannot
    copy it in one moment.
    """
    uses = usage.find(source)
    usage.flush(uses)
    origin = records.content(source, layout)
    if layout == "image":
        try:
            copying.copy_image(origin, target, reflink_only=bool(uses))
        except copying.ReflinkUnavailable as error:
            raise _in_use(source, uses) from error
    elif uses:
        raise _in_use(source, uses)
    else:
        copying.copy_tree(origin, target)


def _in_use(source: Path, uses: list[usage.Use]) -> errors.Conflict:
    return errors.Conflict(
        "cannot copy a volume while it is written: "
        f"{', '.join(use.where for use in uses)}, and this file system cannot share blocks",
        str(source),
        "stop the pods that use it, or keep image volumes on xfs or btrfs, which can",
    )
