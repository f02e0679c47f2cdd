"""Prerequisites of the local backend: one function per question, nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from holdfast.backends import errors, tools
from holdfast.backends.local import sizes
from holdfast.backends.local.shelf import Shelf
from holdfast.backends.protocol import Finding

LOW_SPACE = 0.05

_MAKERS = ("mkfs.ext4", "mkfs.xfs", "mkfs.btrfs")


def run(shelf: Shelf, loop_refusal: Callable[[], str]) -> list[Finding]:
    """Return the findings of all checks."""
    return [*_roots(shelf), _loops(loop_refusal()), *_makers(), *_remains(shelf)]


def _roots(shelf: Shelf) -> Iterator[Finding]:
    for root in shelf.roots.all():
        place = root
        while not place.exists():
            place = place.parent
        if not os.access(place, os.W_OK | os.X_OK):
            yield Finding(
                "volume directory",
                "error",
                "cannot be written",
                str(place),
                f"let the user that runs Holdfast write to it: chown $USER {place}",
            )
            continue
        yield _space(root, place)


def _space(root: Path, place: Path) -> Finding:
    found = os.statvfs(place)
    free = found.f_bavail * found.f_frsize
    text = f"{sizes.text(free)} free"
    if found.f_bavail < found.f_blocks * LOW_SPACE:
        return Finding("volume directory", "warning", text, str(root), "free some room")
    return Finding("volume directory", "ok", text, str(root))


def _loops(refusal: str) -> Finding:
    if refusal:
        return Finding(
            "loop devices",
            "warning",
            refusal,
            "layout: image",
            "run Holdfast as root, or use classes with layout: directory (size not enforced)",
        )
    return Finding("loop devices", "ok", "can be used", "layout: image")


def _makers() -> Iterator[Finding]:
    for program in _MAKERS:
        if tools.missing(program):
            package = tools.package_of(program)
            yield Finding(
                "file system tools",
                "warning",
                f"{program} is not installed",
                f"fsType: {program.removeprefix('mkfs.')}",
                f"install the package {package}: apt-get install {package}",
            )


def _remains(shelf: Shelf) -> Iterator[Finding]:
    try:
        left = shelf.remains()
    except errors.BackendError as error:
        yield Finding("unfinished volumes", "error", error.what, error.where, error.remedy)
        return
    for path in left:
        yield Finding(
            "unfinished volumes",
            "warning",
            "left by a create or delete that was interrupted",
            str(path),
            "the claim's next attempt completes or removes it; without a claim, remove it",
        )
