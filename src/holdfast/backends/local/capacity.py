"""How much room is left, counting what has been promised but not written yet.

Images are sparse, so the free space of the file system says too much: it is
reduced here by the unwritten part of every image on it. The sum is kept and
adjusted as volumes come and go; it is measured afresh when it is older than
`FRESH_SECONDS` and always before something is refused, so a stale sum never
costs anybody a volume.

Invariant: `reserve` checks and counts under one lock; two creates cannot both
take the last room.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.local import images, sizes
from holdfast.backends.protocol import Capacity

FRESH_SECONDS = 10.0


class Promises:
    """The images of one backend by the file system they lie on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._images: dict[int, dict[Path, int]] = {}
        self._unwritten: dict[int, tuple[float, int]] = {}

    def learn(self, image: Path, size: int) -> None:
        """Count an image that exists already."""
        device = image.stat().st_dev
        with self._lock:
            self._images.setdefault(device, {})[image] = size
            self._unwritten.pop(device, None)

    def reserve(self, root: Path, image: Path, size: int) -> None:
        """Count a new image, or a larger size of one. Raises errors.Exhausted."""
        device = root.stat().st_dev
        with self._lock:
            known = self._images.setdefault(device, {})
            extra = size - known.get(image, 0)
            self._check(root, device, extra)
            known[image] = size
            moment, unwritten = self._unwritten[device]
            self._unwritten[device] = (moment, unwritten + extra)

    def release(self, image: Path) -> None:
        """Forget an image; one that was never counted is fine."""
        with self._lock:
            for device, known in self._images.items():
                if known.pop(image, None) is not None:
                    self._unwritten.pop(device, None)

    def check(self, root: Path, size: int) -> None:
        """Raise errors.Exhausted unless `size` more bytes fit beside all promises."""
        device = root.stat().st_dev
        with self._lock:
            self._check(root, device, size)

    def measure(self, root: Path) -> Capacity:
        """Return the room on the file system that `root` lies on."""
        device = root.stat().st_dev
        with self._lock:
            total, free = _statvfs(root)
            return Capacity(total, max(0, free - self._promised(device, fresh=True)))

    def _check(self, root: Path, device: int, size: int) -> None:
        _, free = _statvfs(root)
        if size <= free - self._promised(device, fresh=False):
            return
        promised = self._promised(device, fresh=True)
        if size <= free - promised:
            return
        count = len(self._images.get(device, {}))
        raise errors.Exhausted(
            f"{sizes.text(size)} does not fit: {sizes.text(max(0, free - promised))} available "
            f"({sizes.text(free)} free, of which {sizes.text(promised)} promised "
            f"to {count} existing image{'' if count == 1 else 's'})",
            str(root),
            "ask for less, free room, or use a class whose path is on a larger file system",
        )

    def _promised(self, device: int, *, fresh: bool) -> int:
        moment, unwritten = self._unwritten.get(device, (0.0, 0))
        now = time.monotonic()
        if fresh or moment == 0.0 or now - moment > FRESH_SECONDS:
            known = self._images.get(device, {})
            unwritten = sum(max(0, size - images.written(path)) for path, size in known.items())
            self._unwritten[device] = (now, unwritten)
        return unwritten


def _statvfs(root: Path) -> tuple[int, int]:
    """Return total bytes and the bytes free to us."""
    found = os.statvfs(root)
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize
