"""Makes, finds, grows and removes volumes on the disk: the blocking part of the backend.

Everything here runs in a thread, one call per volume at a time; the caller
holds the lock of the volume's name. The order of steps carries the promise
that a crash leaves nothing half-made:

- create: build under a name no volume can have, flush, then rename (`construction`);
- delete: rename to a name no volume can have, flush, then remove (`removal`).

Records are remembered, but one that is remembered is only believed while its
file is still there: an administrator may move volumes behind our back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from holdfast.backends import errors
from holdfast.backends.local import (
    agreement,
    capacity,
    construction,
    contents,
    directories,
    images,
    records,
    removal,
    sizes,
)
from holdfast.backends.local import parameters as local_parameters
from holdfast.backends.local.records import VOLUME, SnapshotRecord, VolumeRecord
from holdfast.backends.local.roots import DELETED, NEW, SNAPSHOTS, Roots
from holdfast.backends.protocol import VolumeRequest

Shelved = tuple[Path, VolumeRecord]
Origin = tuple[Path, VolumeRecord | SnapshotRecord]


class Shelf:
    """The volumes below all roots of one backend."""

    def __init__(self, roots: Roots, loop_refusal: Callable[[], str]) -> None:
        self.roots = roots
        self.promises = capacity.Promises()
        self._loop_refusal = loop_refusal
        self._known: dict[str, Shelved] = {}
        self._scan_lock = threading.Lock()
        self._scanned = False

    def create(self, request: VolumeRequest) -> Shelved:
        """Make the volume, or return the one that an equal request made."""
        chosen = local_parameters.read(request.parameters)
        local_parameters.check_size(request.size, request.mode, chosen)
        wanted = agreement.record_of(request, chosen)
        found = self.find(request.name)
        if found is not None:
            agreement.check_same(*found, wanted)
            return found
        origin = self._origin(request, wanted)
        root = self.roots.prepare(chosen.path)
        directory = root / request.name
        if wanted.layout == "image":
            self._refuse_images_without_loops()
            self._scan()
            self.promises.reserve(root, directory / records.IMAGE, wanted.size)
        else:
            self.promises.check(root, wanted.size)
        try:
            self._build(directory, wanted, origin)
        except BaseException:
            self.promises.release(directory / records.IMAGE)
            raise
        self._known[request.name] = (directory, wanted)
        return directory, wanted

    def find(self, name: str) -> Shelved | None:
        """Return the volume's directory and record; None when it has no record."""
        known = self._known.get(name)
        if known is not None and (known[0] / VOLUME).exists():
            return known
        for root in self.roots.all():
            record = records.load(root / name / VOLUME, VolumeRecord)
            if record is not None:
                self._known[name] = (root / name, record)
                return root / name, record
        self._known.pop(name, None)
        return None

    def expand(self, name: str, size: int) -> Shelved:
        """Grow the volume to `size` rounded up to blocks. Raises NotFound, Exhausted."""
        found = self.find(name)
        if found is None:
            raise errors.NotFound(f'no volume "{name}"', str(self.roots.default))
        directory, record = found
        size = sizes.round_up(size)
        if size <= record.size:
            return found
        if record.layout == "image":
            image = directory / records.IMAGE
            self._scan()
            self.promises.reserve(directory.parent, image, size)
            images.grow(image, size)
        else:
            self.promises.check(directory.parent, size - record.size)
        grown = msgspec.structs.replace(record, size=size)
        records.replace(directory / VOLUME, grown)
        self._known[name] = (directory, grown)
        return directory, grown

    def delete(self, name: str) -> None:
        """Remove the volume or what is left of it. Raises Conflict when it is in use."""
        while (directory := self.roots.find(name)) is not None:
            removal.bury(directory)
            self._known.pop(name, None)
            self.promises.release(directory / records.IMAGE)
        for root in self.roots.all():
            removal.remove_tree(root / f"{NEW}{name}")
            removal.remove_tree(root / f"{DELETED}{name}")

    def names(self) -> list[str]:
        """Return the names of all volumes and of unfinished ones, sorted."""
        found = set[str]()
        for root in self.roots.all():
            for entry in _entries(root):
                name = entry.name.removeprefix(NEW)
                if not name.startswith("."):
                    found.add(name)
        return sorted(found)

    def remains(self) -> list[Path]:
        """Return what interrupted creates and deletes have left behind."""
        left: list[Path] = []
        for root in self.roots.all():
            for entry in _entries(root):
                unfinished = entry.name.startswith((NEW, DELETED))
                path = root / entry.name
                if unfinished or (entry.name != SNAPSHOTS and not (path / VOLUME).exists()):
                    left.append(path)
        return sorted(left)

    def measure_images(self) -> None:
        """See to it that every image that exists is counted among the promises."""
        self._scan()

    def _build(self, directory: Path, wanted: VolumeRecord, origin: Origin | None) -> None:
        with construction.of(directory) as unfinished:
            target = records.content(unfinished, wanted.layout)
            if origin is not None:
                contents.copy(origin[0], target, wanted.layout)
                if wanted.layout == "image":
                    images.grow(target, wanted.size)
            elif wanted.layout == "image":
                images.make(target, wanted.size)
            else:
                directories.make(target)
            records.save(unfinished / VOLUME, wanted)

    def _origin(self, request: VolumeRequest, wanted: VolumeRecord) -> Origin | None:
        if request.source is None:
            return None
        name = request.source.id
        records.check_id(name, request.source.kind, self.roots.default)
        find = self.find if request.source.kind == "volume" else self.find_snapshot
        found: Origin | None = find(name)
        if found is None:
            raise errors.NotFound(f'no {request.source.kind} "{name}"', str(self.roots.default))
        agreement.check_origin(found[1], wanted)
        return found

    def find_snapshot(self, name: str) -> tuple[Path, SnapshotRecord] | None:
        """Return a snapshot's directory and record, or None."""
        for root in self.roots.all():
            directory = root / SNAPSHOTS / name
            record = records.load(directory / records.SNAPSHOT, SnapshotRecord)
            if record is not None:
                return directory, record
        return None

    def _refuse_images_without_loops(self) -> None:
        reason = self._loop_refusal()
        if reason:
            raise errors.Unsupported(
                f"layout: image cannot be used: {reason}",
                "StorageClass parameters",
                "run Holdfast as root, or write layout: directory in the class; the size "
                "of such a volume is not enforced",
            )

    def _scan(self) -> None:
        with self._scan_lock:
            if self._scanned:
                return
            for name in self.names():
                found = self.find(name)
                if found is not None and found[1].layout == "image":
                    self.promises.learn(found[0] / records.IMAGE, found[1].size)
            self._scanned = True


def _entries(root: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            yield from (entry for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return
