"""What this machine has mounted, read from /proc/self/mountinfo.

Two layers need it: a backend on the same machine refuses to delete what is
mounted, and the node side decides from it what is left to do. Reading is cheap
but parsing is not: the finders look for the raw bytes first and parse only the
lines that can match, so that hundreds of mounts cost little.

Invariant: the kernel's table is the only memory of mounts. Nothing here is
cached between calls.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

TABLE = Path("/proc/self/mountinfo")

_ESCAPE = re.compile(rb"\\([0-7]{3})")
_NEEDS_ESCAPE = re.compile(rb"[ \t\n\\]")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the table. `root` is the mounted directory inside its file system."""

    id: int
    parent: int
    device: str
    root: str
    point: str
    options: tuple[str, ...]
    fs_type: str
    source: str
    super_options: tuple[str, ...]
    propagation: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether writes through this mount are refused (by the mount or its superblock)."""
        return "ro" in self.options or "ro" in self.super_options


def read() -> list[Mount]:
    """Return all mounts in the order in which they were made."""
    return [_parse(line) for line in TABLE.read_bytes().splitlines()]


def at(path: Path | str) -> list[Mount]:
    """Return the mounts whose mount point is exactly `path`, the topmost last."""
    return at_each(path)[0]


def at_each(*paths: Path | str) -> list[list[Mount]]:
    """Return for each path what `at` does, all from one reading of the table."""
    table = TABLE.read_bytes()
    return [_at(table, _escape(str(path))) for path in paths]


def of_device(device: str, path: Path | str) -> list[Mount]:
    """Return the mounts of the block device "major:minor" at `path`.

    btrfs shows a number of its own in the table, so the path counts as well.
    """
    table = TABLE.read_bytes()
    found = [m for m in _lines(table, f" {device} ".encode()) if m.device == device]
    named = [m for m in _lines(table, _field(path)) if m.source == str(path)]
    return found or named


def beneath(path: Path | str) -> list[Mount]:
    """Return the mounts at `path` or deeper."""
    return _beneath(TABLE.read_bytes(), str(path))


def holding(path: Path | str) -> Mount | None:
    """Return the mount that `path`, which must be absolute and resolved, lies in."""
    return _holding(TABLE.read_bytes(), Path(path))


def touching(path: Path | str) -> list[Mount]:
    """Return the mounts beneath `path`, and those elsewhere that show it or part of it."""
    table = TABLE.read_bytes()
    found = _beneath(table, str(path))
    home = _holding(table, Path(path))
    if home is None:
        return found
    relative = str(path)[len(home.point.rstrip("/")) :]
    inner = f"{home.root.rstrip('/')}{relative}".rstrip("/")
    shown = [
        m
        for m in _lines(table, b" " + _escape(inner))
        if m.device == home.device and (m.root == inner or m.root.startswith(f"{inner}/"))
    ]
    return [*found, *(m for m in shown if m not in found)]


def _beneath(table: bytes, path: str) -> list[Mount]:
    prefix = f"{path.rstrip('/')}/"
    found = _lines(table, b" " + _escape(path))
    return [m for m in found if m.point == path or m.point.startswith(prefix)]


def _holding(table: bytes, path: Path) -> Mount | None:
    for ancestor in (path, *path.parents):
        if found := _at(table, _escape(str(ancestor))):
            return found[-1]
    return None


def _at(table: bytes, point: bytes) -> list[Mount]:
    """Return the mounts at a point, which is written as the table has it."""
    needle = b" " + point + b" "
    if needle not in table:
        return []
    # Many lines have "/" as their root: only the field of the point counts.
    lines = (line for line in table.splitlines() if needle in line)
    return [_parse(line) for line in lines if line.split(b" ", 5)[4] == point]


def _field(path: Path | str) -> bytes:
    return b" " + _escape(str(path)) + b" "


def _lines(table: bytes, needle: bytes) -> list[Mount]:
    if needle not in table:
        return []
    return [_parse(line) for line in table.splitlines() if needle in line]


def _parse(line: bytes) -> Mount:
    fields = line.split(b" ")
    # Between the sixth field and a lone "-" stands a varying number of tags.
    dash = fields.index(b"-", 6)
    return Mount(
        id=int(fields[0]),
        parent=int(fields[1]),
        device=fields[2].decode(),
        root=_unescape(fields[3]),
        point=_unescape(fields[4]),
        options=tuple(fields[5].decode().split(",")),
        fs_type=fields[dash + 1].decode(),
        source=_unescape(fields[dash + 2]),
        super_options=tuple(_unescape(fields[dash + 3]).split(",")),
        propagation=tuple(tag.decode() for tag in fields[6:dash]),
    )


def _unescape(field: bytes) -> str:
    raw = _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)
    return raw.decode(errors="surrogateescape")


def _escape(text: str) -> bytes:
    raw = text.encode(errors="surrogateescape")
    return _NEEDS_ESCAPE.sub(lambda found: b"\\%03o" % found[0][0], raw)
