"""Reads where ceph-csi noted its images, so that its volumes can be used and deleted.

ceph-csi keeps an object `csi.volume.UUID` for each volume, with the image's name
and the request's, and `csi.volumes.default` from request names to UUIDs.
"""

from __future__ import annotations

from typing import Any

from holdfast.backends import errors
from holdfast.backends.rbd import failures
from holdfast.backends.rbd.connections import Connection
from holdfast.backends.rbd.ids import CsiId

IMAGE_PREFIX = "csi-vol-"
_DIRECTORY = "csi.volumes.default"


def find(connection: Connection, id: CsiId, namespace: str = "") -> tuple[str, str]:
    """Return pool and image of a handle. Raises errors.NotFound for an unknown pool."""
    with failures.translated("find the pool of a ceph-csi volume", f"pool {id.pool_number}"):
        pool = connection.rados.pool_reverse_lookup(id.pool_number)
    names = _read(connection, connection.pool(pool, namespace), id.uuid)
    return pool, names.get("csi.imagename") or IMAGE_PREFIX + id.uuid


def remove(connection: Connection, id: CsiId, namespace: str = "") -> None:
    """Remove the notes about a volume whose image is gone."""
    with failures.translated("find the pool of a ceph-csi volume", f"pool {id.pool_number}"):
        pool = connection.rados.pool_reverse_lookup(id.pool_number)
    context = connection.pool(pool, namespace)
    rados = connection.modules.rados
    request = _read(connection, context, id.uuid).get("csi.volname")
    with failures.translated("remove ceph-csi's note of a volume", id.uuid):
        try:
            if request:
                with rados.WriteOpCtx() as operation:
                    context.remove_omap_keys(operation, (f"csi.volume.{request}",))
                    context.operate_write_op(operation, _DIRECTORY)
            context.remove_object(f"csi.volume.{id.uuid}")
        except rados.ObjectNotFound:
            return


def _read(connection: Connection, context: Any, uuid: str) -> dict[str, str]:
    rados = connection.modules.rados
    try:
        with (
            failures.translated("read ceph-csi's note of a volume", uuid),
            rados.ReadOpCtx() as operation,
        ):
            found, _ = context.get_omap_vals(operation, "", "", 64)
            context.operate_read_op(operation, f"csi.volume.{uuid}")
            return {key: value.decode(errors="replace") for key, value in found}
    except errors.NotFound:
        return {}
