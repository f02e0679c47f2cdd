"""The two shapes that leave the store: a stored object, and a change to one.

A `Record` carries the object twice: as the JSON bytes that go to disk and to HTTP watchers
unchanged, and as the decoded dict that in-process readers share. Both are immutable by
convention; the dict is decoded on first use when the record came from disk.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
_decode = msgspec.json.Decoder().decode


class Record:
    """One revision of one object."""

    __slots__ = ("_obj", "bucket", "created", "key", "revision", "value")

    def __init__(
        self,
        bucket: str,
        key: str,
        revision: int,
        created: int,
        value: bytes,
        obj: dict[str, Any] | None = None,
    ) -> None:
        self.bucket = bucket
        self.key = key
        self.revision = revision
        self.created = created
        self.value = value
        self._obj = obj

    @property
    def obj(self) -> dict[str, Any]:
        """The decoded object; shared, never to be changed."""
        if self._obj is None:
            self._obj = _decode(self.value)
        return self._obj


class Event:
    """One committed change. `previous` is the record it replaced, if any."""

    __slots__ = ("_line", "previous", "record", "type")

    def __init__(self, type: EventType, record: Record, previous: Record | None) -> None:
        self.type: EventType = type
        self.record = record
        self.previous = previous
        self._line: bytes | None = None

    @property
    def revision(self) -> int:
        """The revision the change has; revisions grow by one per change."""
        return self.record.revision

    @property
    def line(self) -> bytes:
        """The change as one line of a JSON watch stream, built once for all watchers."""
        if self._line is None:
            self._line = frame(self.type, self.record.value)
        return self._line


def frame(type: str, value: bytes) -> bytes:
    """One line of a Kubernetes watch stream."""
    return b'{"type":"%b","object":%b}\n' % (type.encode(), value)
