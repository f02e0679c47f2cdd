"""Makes an image for a request, so that a repeat finds it and a crash leaves nothing odd.

    note "creating" -> image (blank or a clone) -> owner in the image's metadata -> note "ready"

Only a "ready" image has ever been given out. One that is still "creating" has
never held data, so it is completed when it is a plain one of the right shape, and
otherwise removed and made again. Half an image - Ceph makes one in several steps
itself - cannot be opened; its remains are removed first.
"""

from __future__ import annotations

import errno
import json
from typing import Any

from holdfast.backends import errors
from holdfast.backends.protocol import VolumeRequest, VolumeSource
from holdfast.backends.rbd import cloning, failures, features, ids, layouts, owner
from holdfast.backends.rbd.parameters import RbdParameters
from holdfast.backends.rbd.shelf import CREATING, READY, Shelf

GRAIN = 1 << 20
# What a block device's offsets can count, in whole MiB.
LARGEST = (1 << 63) - GRAIN


def rounded(size: int) -> int:
    """Return the size an image gets, in whole MiB. Raises errors.Invalid."""
    if size <= 0:
        raise errors.Invalid(f"a volume of {size} bytes", "request", "ask for more than zero")
    if size > LARGEST:
        raise errors.Invalid(
            f"a volume of {size} bytes", "request", f"no disk is larger than {LARGEST} bytes"
        )
    return -(-size // GRAIN) * GRAIN


def image_name(chosen: RbdParameters, request: VolumeRequest) -> str:
    """Return the image's name, which depends on the request's name only."""
    name = chosen.name_prefix + request.name
    ids.check_name(name)
    return name


def create(shelf: Shelf, data_pool: str, chosen: RbdParameters, request: VolumeRequest) -> int:
    """Make the image or find it made, and return its size in bytes."""
    image, size = image_name(chosen, request), rounded(request.size)
    record = shelf.volumes.get(image)
    there = _size(shelf, image)
    if record is None and there is not None:
        record = _lost_record(shelf, image)
    if record is not None and record.get("state") == READY and there is not None:
        _agree(shelf, image, record, request, size)
        return there
    if record is not None and record.get("state") not in (CREATING, READY):
        raise errors.AlreadyExists(
            "a deleted volume of that name still has snapshots or clones",
            shelf.id(image).spec,
            "delete them, or use another name",
        )
    note = _note(shelf, image, request, size)
    shelf.volumes.set(image, {**note, "state": CREATING})
    if request.source is not None:
        cloning.create(shelf, data_pool, chosen, image, request.source, size)
    elif there is not None and not _usable(shelf, image, chosen, size):
        shelf.remove_remains(image)
        there = None
    if there is None and request.source is None:
        _blank(shelf, data_pool, chosen, image, size)
    owner.write(shelf, image, json.dumps(note, sort_keys=True))
    shelf.volumes.set(image, {**note, "state": READY})
    return size


def find(shelf: Shelf, image: str) -> tuple[int, bool] | None:
    """Return size and completeness of what a create made or began, or None."""
    record = shelf.volumes.get(image)
    size = _size(shelf, image)
    if record is None and size is not None:
        record = _lost_record(shelf, image)
    if record is None or record.get("state") not in (CREATING, READY):
        return None
    if size is None:
        return 0, False
    return size, record.get("state") == READY


def _note(shelf: Shelf, image: str, request: VolumeRequest, size: int) -> dict[str, Any]:
    return {
        "id": str(shelf.id(image)),
        "request": request.name,
        "size": size,
        "source": _source(request.source),
    }


def _source(source: VolumeSource | None) -> str:
    return f"{source.kind} {source.id}" if source else ""


def _agree(
    shelf: Shelf, image: str, record: dict[str, Any], request: VolumeRequest, size: int
) -> None:
    for what, has, wants in (
        ("size", record.get("size"), size),
        ("source", record.get("source"), _source(request.source)),
    ):
        if has != wants:
            raise errors.AlreadyExists(
                f"the volume exists with another {what} ({has or 'none'}, not {wants or 'none'})",
                shelf.id(image).spec,
                "use another name, or delete it",
            )


def _lost_record(shelf: Shelf, image: str) -> dict[str, Any]:
    """Return the record that the image's own metadata holds; a foreign image is refused."""
    try:
        content = json.loads(owner.read(shelf, image))
    except ValueError:
        content = None
    # Ceph copies what is written there to clones and copies of an image.
    if isinstance(content, dict) and _names(str(content.get("id")), shelf, image):
        return {**content, "state": READY}
    raise errors.AlreadyExists(
        "an image of that name exists, and Holdfast did not make it",
        shelf.id(image).spec,
        "rename or remove it, or write a PersistentVolume that names it",
    )


def _names(id: str, shelf: Shelf, image: str) -> bool:
    found = ids.parse(id)
    here = shelf.id(image)
    return isinstance(found, ids.ImageId) and found.spec == here.spec


def _size(shelf: Shelf, image: str) -> int | None:
    try:
        with shelf.opened(image) as handle:
            return int(handle.size())
    except errors.NotFound:
        return None


def _usable(shelf: Shelf, image: str, chosen: RbdParameters, size: int) -> bool:
    with shelf.opened(image) as handle:
        has = int(handle.features()) & features.mask(features.CHOICES)
        return int(handle.size()) == size and has == chosen.features


def _blank(shelf: Shelf, data_pool: str, chosen: RbdParameters, image: str, size: int) -> None:
    options = layouts.of(data_pool, chosen)
    spec = shelf.id(image).spec

    def make() -> None:
        shelf.rbd.RBD().create(shelf.context, image, size, old_format=False, **options)

    with failures.translated("create the image", spec):
        try:
            make()
        except shelf.rbd.Error as error:
            if failures.number_of(error) != errno.EEXIST:
                raise
            shelf.remove_remains(image)
            make()
