"""One pool as Holdfast uses it: the I/O context, the images in it, and the three tables.

A `Shelf` belongs to one connection, pool and namespace, and lives as long as one
call. What a volume is stands in its record:

    creating   an image of that name is ours, complete or not
    ready      the image is complete and was given out
    kept       deleted, but snapshots of it are not: the image has the name `home`
    trashed    deleted, but clones still read from it: the image waits in the trash

Invariant: a record is written before its image and removed after it, so whatever
a crash leaves has a record.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from holdfast.backends import errors
from holdfast.backends.rbd import failures
from holdfast.backends.rbd.connections import Connection
from holdfast.backends.rbd.ids import ImageId
from holdfast.backends.rbd.omap import Table

VOLUMES = "holdfast.volumes"
SNAPSHOTS = "holdfast.snapshots"
HOLDERS = "holdfast.holders"
FENCED = "holdfast.fenced"
USER_SNAPSHOT = 0

CREATING = "creating"
READY = "ready"
KEPT = "kept"
TRASHED = "trashed"


class Shelf:
    """Images and records of one pool (and namespace) of one cluster."""

    def __init__(
        self, connection: Connection, cluster: str, pool: str, namespace: str = ""
    ) -> None:
        self.connection = connection
        self.cluster = cluster
        self.pool = pool
        self.namespace = namespace
        self.context = connection.pool(pool, namespace)
        self.rbd = connection.modules.rbd
        self.volumes = self._table(VOLUMES)
        self.snapshots = self._table(SNAPSHOTS)
        self.holders = self._table(HOLDERS)
        self.fenced = self._table(FENCED)

    @property
    def where(self) -> str:
        """Name the pool in an error."""
        spec = f"{self.pool}/{self.namespace}" if self.namespace else self.pool
        return f"pool {spec} of {self.connection.access.place}"

    def id(self, image: str, snapshot: str = "") -> ImageId:
        """Return the id of an image here."""
        return ImageId(self.cluster, self.pool, image, self.namespace, snapshot)

    @contextlib.contextmanager
    def opened(
        self, image: str, *, writable: bool = False, snapshot: str | None = None
    ) -> Iterator[Any]:
        """Open an image. Read-only leaves no watcher. Raises errors.NotFound."""
        spec = self.id(image).spec
        with failures.translated("open the image", spec):
            handle = self.rbd.Image(self.context, image, snapshot=snapshot, read_only=not writable)
        try:
            yield handle
        finally:
            handle.close()

    def exists(self, image: str) -> bool:
        """Return whether an image can be opened; half an image cannot."""
        try:
            with self.opened(image):
                return True
        except errors.NotFound:
            return False

    def image_names(self) -> list[str]:
        """List the images of the pool, whoever made them."""
        with failures.translated("list images", self.where):
            return [str(name) for name in self.rbd.RBD().list(self.context)]

    def remove_remains(self, image: str) -> None:
        """Remove what is left of an image that cannot be opened any more."""
        with failures.translated("remove what is left of the image", self.id(image).spec):
            try:
                self.rbd.RBD().remove(self.context, image)
            except self.rbd.Error as error:
                if failures.number_of(error) != errno.ENOENT:
                    raise

    def home_of(self, image: str) -> str:
        """Return the name an image has now, which is another one once its volume is deleted."""
        record = self.volumes.get(image)
        if record and record.get("state") == KEPT:
            return str(record["home"])
        return image

    def user_snapshots(self, handle: Any) -> list[str]:
        """Return the names of an open image's snapshots, without those the trash holds."""
        return [
            str(each["name"])
            for each in handle.list_snaps()
            if each.get("namespace", USER_SNAPSHOT) == USER_SNAPSHOT
        ]

    def _table(self, name: str) -> Table:
        return Table(self.connection.modules, self.context, name)
