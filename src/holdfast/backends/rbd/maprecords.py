"""What a machine knows of the images it maps: one directory and one small file each.

The file is written before the mapping begins and removed after it has ended, so
whatever was mapped when this process was killed is found again. It holds no key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from holdfast.kit import files

_FILE = "mapping.json"


@dataclass(frozen=True, slots=True)
class MappedImage:
    """One mapping. `address` is our client's at the cluster, empty until it is known."""

    volume: str
    image: str
    mapper: str
    read_only: bool
    state: Mapping[str, str] = field(default_factory=dict)
    address: str = ""


class MapRecords:
    """The mappings of one machine. Its methods block."""

    def __init__(self, directory: Path) -> None:
        self._root = directory

    def directory(self, volume: str) -> Path:
        """Return the directory of a volume's mapping; it may not exist."""
        return self._root / hashlib.sha256(volume.encode()).hexdigest()[:20]

    def prepare(self, volume: str) -> Path:
        """Make that directory."""
        directory = self.directory(volume)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    def read(self, volume: str) -> MappedImage | None:
        """Return the mapping of a volume, or None."""
        try:
            return MappedImage(**json.loads((self.directory(volume) / _FILE).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def write(self, mapping: MappedImage) -> None:
        """Write a mapping down."""
        directory = self.prepare(mapping.volume)
        files.write_atomic(directory / _FILE, json.dumps(asdict(mapping)).encode())

    def remove(self, volume: str) -> None:
        """Forget a mapping that has ended."""
        directory = self.directory(volume)
        (directory / _FILE).unlink(missing_ok=True)
        for path in directory.glob("*"):
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            directory.rmdir()

    def all(self) -> Iterator[MappedImage]:
        """Return every mapping that is written down."""
        for path in sorted(self._root.glob(f"*/{_FILE}")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                yield MappedImage(**json.loads(path.read_bytes()))
