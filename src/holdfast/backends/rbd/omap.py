"""Small tables kept in a pool beside the images: keys and JSON values of one object.

Holdfast keeps three: the volumes it makes, the snapshots, and who uses an image.
They are written before the thing they speak of and updated after it, so a crash
leaves a note of what was begun.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from holdfast.backends.rbd import failures
from holdfast.backends.rbd.bindings import Bindings

PAGE = 512


class Table:
    """One table in one pool. Its methods block; raises backends.errors."""

    def __init__(self, modules: Bindings, context: Any, name: str) -> None:
        self._rados = modules.rados
        self._context = context
        self._object = name

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a value, or None."""
        with (
            failures.translated("read Holdfast's notes", self._object),
            self._rados.ReadOpCtx() as operation,
        ):
            found, _ = self._context.get_omap_vals_by_keys(operation, (key,))
            try:
                self._context.operate_read_op(operation, self._object)
            except self._rados.ObjectNotFound:
                return None
            return next((_decoded(value) for _, value in found), None)

    def set(self, key: str, value: dict[str, Any]) -> None:
        """Write a value."""
        with (
            failures.translated("write Holdfast's notes", self._object),
            self._rados.WriteOpCtx() as operation,
        ):
            encoded = json.dumps(value, sort_keys=True).encode()
            self._context.set_omap(operation, (key,), (encoded,))
            self._context.operate_write_op(operation, self._object)

    def remove(self, key: str) -> None:
        """Remove a value; one that is not there is a success."""
        with (
            failures.translated("write Holdfast's notes", self._object),
            self._rados.WriteOpCtx() as operation,
        ):
            self._context.remove_omap_keys(operation, (key,))
            try:
                self._context.operate_write_op(operation, self._object)
            except self._rados.ObjectNotFound:
                return

    def items(self, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
        """Return the entries in the order of their keys."""
        after = ""
        while True:
            page = self._page(after, prefix)
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1][0]

    def _page(self, after: str, prefix: str) -> list[tuple[str, dict[str, Any]]]:
        with (
            failures.translated("read Holdfast's notes", self._object),
            self._rados.ReadOpCtx() as operation,
        ):
            found, _ = self._context.get_omap_vals(operation, after, prefix, PAGE)
            try:
                self._context.operate_read_op(operation, self._object)
            except self._rados.ObjectNotFound:
                return []
            return [(key, _decoded(value)) for key, value in found]


def _decoded(value: bytes) -> dict[str, Any]:
    try:
        content = json.loads(value)
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
