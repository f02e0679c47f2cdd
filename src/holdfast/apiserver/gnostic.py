"""The protobuf form of an OpenAPI version 2 document.

The message types are those of `openapi/v2` in google/gnostic; the table below has
the part of them that a document of this server uses.  `encode` walks the JSON form
along the table, so the two forms cannot say different things.  A member that the
table does not know is an error: leaving it out silently would make them differ.

In this encoding a mapping such as `paths` is a list of (name, value) messages,
extensions (`x-...`) and free values are YAML text (JSON is YAML), and a choice of
types, such as body or query parameter, is a message with one field set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import msgspec

from holdfast.apiserver import protowire
from holdfast.apiserver.protowire import VARINT, delimited

_Encoder = Callable[[Any], bytes]
"""Turns a JSON value into the payload of a length-delimited field."""


def encode(document: Mapping[str, Any]) -> bytes:
    """Return the message `openapi.v2.Document`; raises KeyError for an unknown member."""
    return _DOCUMENT(document)


class _Message:
    """Encodes an object member by member; `extensions` is the number of its `x-` members."""

    def __init__(self, fields: Mapping[str, tuple[int, _Encoder | None]], extensions: int) -> None:
        self.fields = dict(fields)
        self.extensions = extensions

    def __call__(self, value: Mapping[str, Any]) -> bytes:
        return b"".join(self._members(value))

    def _members(self, value: Mapping[str, Any]) -> Iterator[bytes]:
        for name, item in value.items():
            if name.startswith("x-"):
                yield delimited(self.extensions, _named(name, _yaml(item)))
                continue
            number, encoder = self.fields[name]
            if encoder is None:  # A boolean; integers do not occur.
                yield protowire.tag(number, VARINT) + protowire.varint(int(item))
                continue
            # A list is a repeated field, except that a default may be a list as a whole.
            for part in item if isinstance(item, list) and name != "default" else (item,):
                yield delimited(number, encoder(part))


def _text(value: str) -> bytes:
    return value.encode()


def _named(name: str, payload: bytes) -> bytes:
    """Encode an entry of a mapping: {1: name, 2: value}."""
    return delimited(1, name.encode()) + delimited(2, payload)


def _yaml(value: object) -> bytes:
    """Encode a free value as an `Any` with its text in field 2."""
    return delimited(2, msgspec.json.encode(value))


def _boxed(number: int, encoder: _Encoder) -> _Encoder:
    """Put a message into a field of a message around it."""
    return lambda value: delimited(number, encoder(value))


def _mapping(number: int, encoder: _Encoder) -> _Encoder:
    """Encode an object with free names as repeated entries."""

    def entries(value: Mapping[str, Any]) -> bytes:
        return b"".join(
            delimited(number, _named(name, encoder(item))) for name, item in value.items()
        )

    return entries


def _parameter(value: Mapping[str, Any]) -> bytes:
    """Encode a parameter; the field that is set says where the parameter is."""
    if value["in"] == "body":
        found = delimited(1, _BODY(value))
    else:
        number, encoder = (3, _QUERY) if value["in"] == "query" else (4, _IN_PATH)
        found = delimited(2, delimited(number, encoder(value)))
    return delimited(1, found)


_SCHEMA: Final = _Message({}, 31)
_SCHEMA.fields.update(
    {
        "$ref": (1, _text),
        "format": (2, _text),
        "description": (4, _text),
        "default": (5, _yaml),
        "required": (19, _text),
        "enum": (20, _yaml),
        "additionalProperties": (21, _boxed(1, _SCHEMA)),
        "type": (22, _boxed(1, _text)),
        "items": (23, _boxed(1, _SCHEMA)),
        "properties": (25, _mapping(1, _SCHEMA)),
    }
)
_BODY: Final = _Message(
    {
        "description": (1, _text),
        "name": (2, _text),
        "in": (3, _text),
        "required": (4, None),
        "schema": (5, _SCHEMA),
    },
    6,
)
_QUERY: Final = _Message(
    {
        "required": (1, None),
        "in": (2, _text),
        "description": (3, _text),
        "name": (4, _text),
        "type": (6, _text),
        "uniqueItems": (20, None),
    },
    23,
)
_IN_PATH: Final = _Message(
    {
        "required": (1, None),
        "in": (2, _text),
        "description": (3, _text),
        "name": (4, _text),
        "type": (5, _text),
    },
    22,
)
_RESPONSE: Final = _Message({"description": (1, _text), "schema": (2, _boxed(1, _SCHEMA))}, 5)
_OPERATION: Final = _Message(
    {
        "tags": (1, _text),
        "description": (3, _text),
        "operationId": (5, _text),
        "produces": (6, _text),
        "consumes": (7, _text),
        "parameters": (8, _parameter),
        "responses": (9, _mapping(1, _boxed(1, _RESPONSE))),
    },
    13,
)
_PATH_ITEM: Final = _Message(
    {
        "get": (2, _OPERATION),
        "put": (3, _OPERATION),
        "post": (4, _OPERATION),
        "delete": (5, _OPERATION),
        "patch": (8, _OPERATION),
        "parameters": (9, _parameter),
    },
    10,
)
_INFO: Final = _Message({"title": (1, _text), "version": (2, _text)}, 7)
_DOCUMENT: Final = _Message(
    {
        "swagger": (1, _text),
        "info": (2, _INFO),
        "paths": (8, _mapping(2, _PATH_ITEM)),
        "definitions": (9, _mapping(1, _SCHEMA)),
    },
    16,
)
