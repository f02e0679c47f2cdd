"""The form of an answer: plain JSON, a Table for people, or metadata only.

A client says what it wants in `Accept`; of several the first that can be made wins. Typed
clients ask for protobuf first and JSON second and get JSON. YAML is made for those who ask.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import yaml

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.apiserver import tables
from holdfast.kit import clock
from holdfast.store.records import Record

Object = dict[str, Any]
_encode = msgspec.json.encode
_PRODUCED = ("application/json", "application/yaml")
_INCLUDE: dict[str, tables.Include] = {
    "": "Metadata",
    "Metadata": "Metadata",
    "None": "None",
    "Object": "Object",
}


class Form:
    """Plain JSON; the bytes go out as they are stored."""

    content_type = b"application/json"
    table = False

    def one(self, kind: Kind, record: Record) -> bytes:
        """One object."""
        return record.value

    def many(self, kind: Kind, records: Iterable[Record], meta: Object) -> bytes:
        """A list with its ListMeta; items do not repeat the kind, as in Kubernetes' own lists."""
        head = _encode({"kind": f"{kind.name}List", "apiVersion": kind.api_version})
        # What every stored object begins with, up to the comma after it.
        cut = len(_encode({"kind": kind.name, "apiVersion": kind.api_version}))
        return b'%b,"metadata":%b,"items":[%b]}' % (
            head[:-1],
            _encode(meta),
            b",".join([b"{" + record.value[cut:] for record in records]),
        )

    def event(self, kind: Kind, record: Record) -> bytes:
        """An object inside a watch event."""
        return self.one(kind, record)

    def bookmark(self, kind: Kind, meta: Object) -> bytes:
        """What a bookmark carries: an object that is nothing but a resourceVersion."""
        return _encode({"kind": kind.name, "apiVersion": kind.api_version, "metadata": meta})


class _YamlForm(Form):
    """The same objects as YAML; not for streams of events."""

    content_type = b"application/yaml"

    def one(self, kind: Kind, record: Record) -> bytes:
        return _as_yaml(super().one(kind, record))

    def many(self, kind: Kind, records: Iterable[Record], meta: Object) -> bytes:
        return _as_yaml(super().many(kind, records, meta))


def _as_yaml(value: bytes) -> bytes:
    return yaml.dump(
        msgspec.json.decode(value), Dumper=yaml.CSafeDumper, encoding="utf-8", allow_unicode=True
    )


class _MetadataForm(Form):
    """PartialObjectMetadata, for clients that watch names only."""

    def _partial(self, record: Record) -> Object:
        return {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": record.obj["metadata"],
        }

    def one(self, kind: Kind, record: Record) -> bytes:
        return _encode(self._partial(record))

    def many(self, kind: Kind, records: Iterable[Record], meta: Object) -> bytes:
        return _encode(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
                "items": [self._partial(record) for record in records],
            }
        )

    def bookmark(self, kind: Kind, meta: Object) -> bytes:
        return _encode(
            {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": meta,
            }
        )


class _TableForm(Form):
    """meta.k8s.io/v1 Table; in a watch only the first one carries the columns."""

    table = True

    def __init__(self, include: tables.Include) -> None:
        self._include = include
        self._columns = True

    def one(self, kind: Kind, record: Record) -> bytes:
        meta = {"resourceVersion": record.obj["metadata"].get("resourceVersion", "")}
        return self._table(kind, [record], meta)

    def many(self, kind: Kind, records: Iterable[Record], meta: Object) -> bytes:
        return self._table(kind, records, meta)

    def event(self, kind: Kind, record: Record) -> bytes:
        body = self.one(kind, record)
        self._columns = False
        return body

    def bookmark(self, kind: Kind, meta: Object) -> bytes:
        # A table has no place for annotations.
        body = self._table(kind, [], {"resourceVersion": meta["resourceVersion"]})
        self._columns = False
        return body

    def _table(self, kind: Kind, records: Iterable[Record], meta: Object) -> bytes:
        return _encode(
            tables.table(
                kind,
                [record.obj for record in records],
                list_meta=meta,
                include=self._include,
                now=clock.now(),
                columns=self._columns,
            )
        )


JSON = Form()
YAML = _YamlForm()


def negotiate(accept: str, include: str = "") -> Form:
    """The form to answer in; raises `NotAcceptable`."""
    if accept in ("", "application/json", "*/*"):
        return JSON
    known = False
    for clause in accept.split(","):
        media, _, rest = clause.strip().partition(";")
        parameters = dict(
            pair.strip().partition("=")[::2] for pair in rest.split(";") if "=" in pair
        )
        if media == "application/yaml" and "as" not in parameters:
            return YAML
        if media not in ("application/json", "*/*", "application/*"):
            continue
        known = True
        wanted = parameters.get("as", "")
        if wanted == "Table" and parameters.get("v", "v1") == "v1":
            return _TableForm(_included(include))
        if wanted in ("PartialObjectMetadata", "PartialObjectMetadataList"):
            return _MetadataForm()
        if not wanted:
            return JSON
    if not known:
        # Said by what finds the handler, before any knows what it can produce.
        raise errors.NotAcceptable(
            f"406: Not Acceptable\n\nAvailable representations: {', '.join(_PRODUCED)}"
        )
    raise errors.NotAcceptable.of(_PRODUCED)


def _included(include: str) -> tables.Include:
    if include not in _INCLUDE:
        raise errors.BadRequest(
            f'unrecognized includeObject value: "{include}" (use None, Metadata or Object)'
        )
    return _INCLUDE[include]
