"""The directories in which this backend keeps volumes.

There is one default root; a class may name another with its `path` parameter.
A volume's id does not say where it lies, so every other root ever used is
written to a small file in the default root, before the first volume goes there.

Invariant: a root is in that file before anything is created in it.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from holdfast.backends import errors
from holdfast.kit import files

OTHERS = ".other-roots.json"
NEW = ".new-"
DELETED = ".deleted-"
SNAPSHOTS = ".snapshots"


class Roots:
    """All roots of one backend; safe for threads.

    `suffix` is appended to the directories that classes name: several nodes on one machine have
    the same `path` in a class, and each its own directory for it.
    """

    def __init__(self, default: Path, suffix: str = "") -> None:
        self.default = default
        self._suffix = suffix
        self._lock = threading.Lock()
        self._ready: set[Path] = set()
        self._known: tuple[Path, ...] | None = None

    def all(self) -> tuple[Path, ...]:
        """Return the default root and every other one that was ever used."""
        with self._lock:
            return self._load()

    def prepare(self, path: Path | None) -> Path:
        """Return the root for `path` (None = the default), which exists after this."""
        root = self.default if path is None else Path(f"{path}{self._suffix}")
        if root in self._ready:
            return root
        with self._lock:
            try:
                self._create(self.default)
                known = self._load()
                if root not in known:
                    others = [str(p) for p in (*known[1:], root)]
                    files.write_atomic(self.default / OTHERS, msgspec.json.encode(others))
                    self._known = (*known, root)
                self._create(root)
            except OSError as error:
                raise errors.Unavailable(
                    f"cannot make the directory for volumes ({error.strerror})",
                    str(root),
                    "choose a writable directory on the node",
                ) from error
            self._ready.add(root)
        return root

    def find(self, *parts: str) -> Path | None:
        """Return the first root's entry at `parts` that exists."""
        for root in self.all():
            path = root.joinpath(*parts)
            if path.is_dir():
                return path
        return None

    def _load(self) -> tuple[Path, ...]:
        if self._known is None:
            try:
                raw = (self.default / OTHERS).read_bytes()
                others = msgspec.json.decode(raw, type=list[str])
            except (FileNotFoundError, NotADirectoryError):
                others = []
            except msgspec.DecodeError as error:
                raise errors.Conflict(
                    f"the list of volume directories is damaged ({error})",
                    str(self.default / OTHERS),
                    "write it again as a JSON list of directories",
                ) from error
            self._known = (self.default, *(Path(text) for text in others))
        return self._known

    def _create(self, root: Path) -> None:
        if root in self._ready:
            return
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        files.fsync_dir(root.parent)
        self._ready.add(root)
