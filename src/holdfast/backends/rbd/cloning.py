"""Makes an image from a snapshot or from another image, and decides when it stands alone.

A clone reads from its origin what was not written yet. That makes it instant, and
makes every read walk the chain of origins, so `flatten: auto` copies the rest at
once when the chain would grow too long; `always` does it for every clone.

Clones are of Ceph's second format: the snapshot needs no protection, and may be
removed while clones of it exist.
"""

from __future__ import annotations

import errno
from typing import Any

from holdfast.backends import errors
from holdfast.backends.protocol import VolumeSource
from holdfast.backends.rbd import failures, ids, layouts
from holdfast.backends.rbd.ids import ImageId
from holdfast.backends.rbd.parameters import RbdParameters
from holdfast.backends.rbd.shelf import Shelf

LONGEST_CHAIN = 4
# A volume is copied through a snapshot of its own, gone again once the clone exists.
PASSING = "holdfast-clone-"


def create(
    shelf: Shelf,
    data_pool: str,
    chosen: RbdParameters,
    image: str,
    source: VolumeSource,
    size: int,
) -> None:
    """Clone, resize and perhaps flatten. What an earlier attempt left is removed first."""
    origin = _origin(shelf, source)
    there = origin.pool == shelf.pool and origin.namespace == shelf.namespace
    parents = (
        shelf if there else Shelf(shelf.connection, shelf.cluster, origin.pool, origin.namespace)
    )
    _clear(shelf, image)
    parent = parents.home_of(origin.image)
    passing = source.kind == "volume"
    snapshot = f"{PASSING}{image}" if passing else origin.snapshot
    if passing:
        take_passing(parents, parent, snapshot)
    try:
        _clone(shelf, parents, parent, snapshot, image, data_pool, chosen)
        _fit(shelf, image, size)
        _flatten(shelf, image, chosen)
    finally:
        if passing:
            forget_passing(parents, parent, snapshot)


def chain(shelf: Shelf, image: str) -> int:
    """Return how many origins an image reads through."""
    length, context, name = 0, shelf.context, image
    while length <= LONGEST_CHAIN:
        with failures.translated("read the origin of the image", shelf.id(image).spec):
            try:
                with shelf.rbd.Image(context, name, read_only=True) as handle:
                    pool, name, _ = handle.parent_info()
                    namespace = handle.get_parent_image_spec()["pool_namespace"]
            except shelf.rbd.ImageNotFound:
                # No origin, or one that waits in the trash: the end either way.
                return length
        length += 1
        context = shelf.connection.pool(_text(pool), _text(namespace))
    return length


def _origin(shelf: Shelf, source: VolumeSource) -> ImageId:
    found = ids.parse(source.id)
    wanted = source.kind == "snapshot"
    if not isinstance(found, ImageId) or bool(found.snapshot) != wanted:
        raise errors.NotFound(
            f'there is no {source.kind} "{source.id}"', shelf.where, "check the claim's dataSource"
        )
    if found.cluster != shelf.cluster:
        raise errors.Invalid(
            f"the {source.kind} is in the Ceph cluster {found.cluster}",
            shelf.where,
            "use a class of that cluster: images are cloned within one",
        )
    return found


def _clear(shelf: Shelf, image: str) -> None:
    """Remove what an earlier attempt left; nobody was given it."""
    shelf.remove_remains(image)


def take_passing(shelf: Shelf, image: str, name: str) -> None:
    """Take the snapshot that a volume is copied through."""
    with (
        shelf.opened(image, writable=True) as handle,
        failures.translated("take a snapshot to clone from", shelf.id(image).spec),
    ):
        if name not in shelf.user_snapshots(handle):
            handle.create_snap(name)


def forget_passing(shelf: Shelf, image: str, name: str) -> None:
    """Remove the snapshot that a volume was copied through; clones of it stay."""
    with (
        shelf.opened(image, writable=True) as handle,
        failures.translated("remove the snapshot that was cloned", shelf.id(image).spec),
    ):
        if name in shelf.user_snapshots(handle):
            handle.remove_snap(name)


def _clone(
    shelf: Shelf,
    parents: Shelf,
    parent: str,
    snapshot: str,
    image: str,
    data_pool: str,
    chosen: RbdParameters,
) -> None:
    options = layouts.of(data_pool, chosen)
    spec = parents.id(parent, snapshot).spec
    with failures.translated("clone", spec):
        try:
            shelf.rbd.RBD().clone(
                parents.context, parent, snapshot, shelf.context, image, **options
            )
        except shelf.rbd.Error as error:
            if failures.number_of(error) != errno.ENOENT:
                raise
            raise errors.NotFound(f"there is no {spec} to clone", shelf.where) from error


def _fit(shelf: Shelf, image: str, size: int) -> None:
    with (
        shelf.opened(image, writable=True) as handle,
        failures.translated("grow the clone", shelf.id(image).spec),
    ):
        has = int(handle.size())
        if has > size:
            raise errors.Invalid(
                f"the origin has {has} bytes, the volume is to have {size}",
                shelf.id(image).spec,
                "ask for at least the origin's size",
            )
        if has < size:
            handle.resize(size)


def _flatten(shelf: Shelf, image: str, chosen: RbdParameters) -> None:
    deep = chosen.flatten == "auto" and chain(shelf, image) >= LONGEST_CHAIN
    if not (deep or chosen.flatten == "always"):
        return
    with (
        shelf.opened(image, writable=True) as handle,
        failures.translated("make the clone independent", shelf.id(image).spec),
    ):
        handle.flatten()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
