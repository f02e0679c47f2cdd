"""Snapshots of images: taken, listed and removed, with a record of each.

A snapshot's name follows from the request, and its record says of which image it
is, so a repeat finds it and the same name for another image is refused. The
record is written first; a snapshot without one is somebody else's.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

from holdfast.backends import errors
from holdfast.backends.protocol import Snapshot
from holdfast.backends.rbd import failures, removal
from holdfast.backends.rbd.shelf import Shelf


def create(shelf: Shelf, image: str, name: str) -> Snapshot:
    """Take the snapshot, or return it when it was taken. Raises AlreadyExists, NotFound."""
    record = shelf.snapshots.get(name)
    if record is not None and record.get("image") != image:
        raise errors.AlreadyExists(
            f"the snapshot {name} is of another volume ({record.get('image')})",
            shelf.where,
            "use another name",
        )
    if record is None:
        if not shelf.exists(image):
            raise errors.NotFound("there is no such volume", shelf.id(image).spec)
        shelf.snapshots.set(name, {"image": image, "ready": False})
    home = shelf.home_of(image)
    with (
        shelf.opened(home, writable=True) as handle,
        failures.translated("take the snapshot", shelf.id(image, name).spec),
    ):
        if name not in shelf.user_snapshots(handle):
            handle.create_snap(name)
        made = _described(shelf, image, name, handle)
    shelf.snapshots.set(name, {"image": image, "ready": True})
    return made


def delete(shelf: Shelf, image: str, name: str) -> None:
    """Remove the snapshot; its clones keep what they read. One that is gone is a success."""
    home = shelf.home_of(image)
    try:
        with (
            shelf.opened(home, writable=True) as handle,
            failures.translated("remove the snapshot", shelf.id(image, name).spec),
        ):
            if name in shelf.user_snapshots(handle):
                if handle.is_protected_snap(name):
                    handle.unprotect_snap(name)
                handle.remove_snap(name)
    except errors.NotFound:
        pass
    record = shelf.snapshots.get(name)
    if record is not None and record.get("image") == image:
        shelf.snapshots.remove(name)
    removal.after_snapshot(shelf, image)


def get(shelf: Shelf, image: str, name: str) -> Snapshot:
    """Return a snapshot. Raises errors.NotFound."""
    with shelf.opened(shelf.home_of(image)) as handle:
        if name in shelf.user_snapshots(handle):
            return _described(shelf, image, name, handle)
    raise errors.NotFound("there is no such snapshot", shelf.id(image, name).spec)


def list_all(shelf: Shelf) -> Iterator[Snapshot]:
    """Return the complete snapshots that Holdfast took here."""
    for name, record in shelf.snapshots.items():
        if record.get("ready"):
            try:
                yield get(shelf, str(record["image"]), name)
            except errors.NotFound:
                continue


def _described(shelf: Shelf, image: str, name: str, handle: Any) -> Snapshot:
    found = next(each for each in handle.list_snaps() if each["name"] == name)
    # The library gives the time in UTC without saying so.
    taken: datetime.datetime = handle.get_snap_timestamp(found["id"])
    return Snapshot(
        id=str(shelf.id(image, name)),
        source=str(shelf.id(image)),
        size=int(found["size"]),
        created=taken.replace(tzinfo=datetime.UTC).isoformat().replace("+00:00", "Z"),
    )
