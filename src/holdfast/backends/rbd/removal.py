"""Removes an image through the trash, after a look at who still needs it.

    in use            refused, with address and node of the client
    has snapshots     ours: the image is renamed and stays for them; foreign: refused
    has clones        the image waits in the trash until they are gone or independent
    otherwise         to the trash and out of it

The volume's name is free in every case but the first, and each step may be
repeated. The trash is where Ceph itself can take up a removal that was cut off.
"""

from __future__ import annotations

import errno
from typing import Any

from holdfast.backends import errors
from holdfast.backends.rbd import cloning, failures, usage
from holdfast.backends.rbd.shelf import CREATING, KEPT, TRASHED, Shelf

_OCCUPIED = (errno.EBUSY, errno.ENOTEMPTY)


def delete(shelf: Shelf, image: str) -> None:
    """Remove the volume whose image this is. One that is gone is a success."""
    record = shelf.volumes.get(image) or {}
    if record.get("state") in (KEPT, TRASHED):
        _finish(shelf, image, record)
        return
    try:
        usage.refuse_used(shelf, image, "delete the volume")
    except errors.NotFound:
        shelf.remove_remains(image)
        shelf.volumes.remove(image)
        return
    _forget_passing(shelf, image)
    with shelf.opened(image) as handle:
        snapshots, number = shelf.user_snapshots(handle), str(handle.id())
    if snapshots:
        _keep_for_snapshots(shelf, image, record, snapshots, number)
        return
    record = {**record, "state": TRASHED, "number": number}
    shelf.volumes.set(image, record)
    _to_trash(shelf, image)
    _finish(shelf, image, record)


def after_snapshot(shelf: Shelf, image: str) -> None:
    """Remove an image that was only kept for its snapshots, once the last one is gone."""
    record = shelf.volumes.get(image) or {}
    if record.get("state") == KEPT or (record.get("state") == TRASHED and "name" in record):
        _finish(shelf, image, record)


def waiting(shelf: Shelf) -> list[str]:
    """Return the volumes whose images wait in the trash for their clones."""
    return [image for image, record in shelf.volumes.items() if record.get("state") == TRASHED]


def resume(shelf: Shelf, image: str) -> bool:
    """Try again what waits in the trash; True when it is gone now.

    Not for two callers at once: librbd takes a lock on what it removes, and the loser's
    lock would bring an empty header back.
    """
    record = shelf.volumes.get(image)
    if record is None or record.get("state") != TRASHED:
        return False
    if _number(shelf, str(record.get("name", image))) == record.get("number"):
        # It is not in the trash: somebody wanted it back, or a removal has yet to be repeated.
        return False
    _finish(shelf, image, record)
    return shelf.volumes.get(image) is None


def _keep_for_snapshots(
    shelf: Shelf, image: str, record: dict[str, Any], snapshots: list[str], number: str
) -> None:
    foreign = [name for name in snapshots if not _is_ours(shelf, image, name)]
    if foreign:
        raise errors.Conflict(
            f"cannot delete the volume: it has snapshots that Holdfast did not make: "
            f"{', '.join(foreign)}",
            shelf.id(image).spec,
            f"remove them with `rbd snap rm {shelf.id(image, foreign[0]).spec}`",
        )
    home = f"{image}.kept-{number}"
    shelf.volumes.set(image, {**record, "state": KEPT, "home": home, "number": number})
    _rename(shelf, image, home)


def _forget_passing(shelf: Shelf, image: str) -> None:
    """Remove what copying this volume has left, where that was cut off and never taken up."""
    with shelf.opened(image) as handle:
        left = [each for each in shelf.user_snapshots(handle) if each.startswith(cloning.PASSING)]
    for name in left:
        clone = name.removeprefix(cloning.PASSING)
        if (shelf.volumes.get(clone) or {}).get("state") == CREATING:
            raise errors.Conflict(
                f"cannot delete the volume: it is being copied to {clone}",
                shelf.id(image).spec,
                "it is deleted once the copy is there, or its claim is gone",
            )
        cloning.forget_passing(shelf, image, name)


def _is_ours(shelf: Shelf, image: str, snapshot: str) -> bool:
    return (shelf.snapshots.get(snapshot) or {}).get("image") == image


def _rename(shelf: Shelf, image: str, home: str) -> None:
    with failures.translated("rename the image", shelf.id(image).spec):
        try:
            shelf.rbd.RBD().rename(shelf.context, image, home)
        except shelf.rbd.Error as error:
            if failures.number_of(error) != errno.ENOENT or not shelf.exists(home):
                raise


def _finish(shelf: Shelf, image: str, record: dict[str, Any]) -> None:
    """Go on with a removal that was begun, as far as it goes now."""
    if record.get("state") == KEPT:
        home = str(record["home"])
        # A crash may have come between the note and the renaming.
        if shelf.exists(image):
            _rename(shelf, image, home)
        if shelf.exists(home):
            with shelf.opened(home) as handle:
                if shelf.user_snapshots(handle):
                    return
            record = {**record, "state": TRASHED, "name": home}
            shelf.volumes.set(image, record)
    name = str(record.get("name", image))
    if _number(shelf, name) == record.get("number"):
        _to_trash(shelf, name)
    if _out_of_trash(shelf, image, str(record.get("number", ""))):
        shelf.volumes.remove(image)


def _number(shelf: Shelf, image: str) -> str | None:
    try:
        with shelf.opened(image) as handle:
            return str(handle.id())
    except errors.NotFound:
        return None


def _to_trash(shelf: Shelf, image: str) -> None:
    with failures.translated("move the image to the trash", shelf.id(image).spec):
        try:
            shelf.rbd.RBD().trash_move(shelf.context, image, 0)
        except shelf.rbd.Error as error:
            if failures.number_of(error) != errno.ENOENT:
                raise


def _out_of_trash(shelf: Shelf, image: str, number: str) -> bool:
    """Remove the data; False when clones still read it."""
    with failures.translated("remove the image from the trash", shelf.id(image).spec):
        try:
            shelf.rbd.RBD().trash_remove(shelf.context, number)
        except shelf.rbd.Error as error:
            if failures.number_of(error) == errno.ENOENT:
                return True
            if failures.number_of(error) in _OCCUPIED:
                return False
            raise
    return True
