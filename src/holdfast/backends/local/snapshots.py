"""Takes, finds and removes snapshots: the blocking part, run in threads.

A snapshot lies beside the volumes of its root, in `.snapshots/<name>`, with
its own record, so it outlives its volume. The rules of volumes hold for it
too: it appears complete or not at all, and a removal renames first.
"""

from __future__ import annotations

from pathlib import Path

from holdfast.backends import errors
from holdfast.backends.local import construction, contents, directories, images, records, removal
from holdfast.backends.local.records import SnapshotRecord
from holdfast.backends.local.roots import DELETED, NEW, SNAPSHOTS
from holdfast.backends.local.shelf import Shelf
from holdfast.kit import clock


def create(shelf: Shelf, name: str, volume: str) -> SnapshotRecord:
    """Take the snapshot, or return it when it exists for the same volume."""
    found = shelf.find_snapshot(name)
    if found is not None:
        if found[1].volume != volume:
            raise errors.AlreadyExists(
                f'snapshot "{name}" exists, of volume "{found[1].volume}"',
                str(found[0]),
                "use another name",
            )
        return found[1]
    source = shelf.find(volume)
    if source is None:
        raise errors.NotFound(f'no volume "{volume}"', str(shelf.roots.default))
    directory, record = source
    snapshot = SnapshotRecord(
        name=name,
        volume=volume,
        size=record.size,
        layout=record.layout,
        fs_type=record.fs_type,
        mode=record.mode,
        created=clock.rfc3339(clock.now()),
    )
    if record.layout == "image":
        shelf.measure_images()
        shelf.promises.check(directory.parent, images.written(directory / records.IMAGE))
    _write(directory, directory.parent / SNAPSHOTS / name, snapshot)
    return snapshot


def delete(shelf: Shelf, name: str) -> None:
    """Remove the snapshot or what is left of it."""
    for root in shelf.roots.all():
        directory = root / SNAPSHOTS / name
        if directory.is_dir():
            removal.bury(directory)
        removal.remove_tree(directory.with_name(f"{NEW}{name}"))
        removal.remove_tree(directory.with_name(f"{DELETED}{name}"))


def names(shelf: Shelf) -> list[str]:
    """Return the names of all complete snapshots, sorted."""
    return sorted(
        path.parent.name
        for root in shelf.roots.all()
        for path in (root / SNAPSHOTS).glob(f"*/{records.SNAPSHOT}")
        if not path.parent.name.startswith(".")
    )


def _write(source: Path, directory: Path, snapshot: SnapshotRecord) -> None:
    directory.parent.mkdir(mode=directories.OUTER_MODE, exist_ok=True)
    with construction.of(directory) as unfinished:
        contents.copy(source, records.content(unfinished, snapshot.layout), snapshot.layout)
        records.save(unfinished / records.SNAPSHOT, snapshot)
