"""Request bodies in Kubernetes' protobuf encoding, read into plain objects.

Typed commands of kubectl (`create secret`, for one) send nothing else and do not
fall back to JSON.  A body is the magic `k8s\\0`, then an envelope message that
names the kind and carries the object's own message; the field numbers are those
of the shapes in `holdfast.api.shapes`.

`decode` returns what the same client would have sent as JSON: zero values that Go
leaves out of JSON are left out, a zero time is absent, bytes are base64, and what
Go inlines in JSON but nests in protobuf is flat.  It checks the encoding only; the
caller passes the result through `Shape.decode` like any other body.  Unknown field
numbers are skipped, since a newer client may know more than this server.
"""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from holdfast.api import errors, kinds, scalars, shapes
from holdfast.api.shapes import Field, Shape
from holdfast.apiserver import protowire
from holdfast.apiserver.protowire import BYTES, FIXED64, VARINT, WireError
from holdfast.kit import clock

MEDIA_TYPE: Final = "application/vnd.kubernetes.protobuf"
MAGIC: Final = b"k8s\x00"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

Raw = int | memoryview
_Reader = Callable[[Any], Any]
"""Turns the raw value of a field into its JSON value; None stands for an absent value."""
_Store = Callable[[dict[str, Any], int, Raw], None]
"""Puts one occurrence of a field, given its wire type and raw value, into the object."""
_Table = dict[int, tuple[str, _Store]]


class NotProtobuf(errors.BadRequest):
    """A body that claims to be protobuf and is not; its caller knows what it should have been."""


def decode(body: bytes) -> dict[str, Any]:
    """Return the object in a body as a new dict with apiVersion and kind; raises BadRequest."""
    if not body.startswith(MAGIC):
        magic = " ".join(map(str, MAGIC))
        raise NotProtobuf(
            f"provided data does not appear to be a protobuf message, expected prefix [{magic}]"
            if body
            else "empty data"
        )
    try:
        api_version, kind_name, raw = _open_envelope(memoryview(body)[len(MAGIC) :])
    except WireError as error:
        raise errors.BadRequest(f"the protobuf envelope cannot be read: {error}") from error
    shape = _shape(api_version, kind_name)
    result: dict[str, Any] = {"kind": kind_name, "apiVersion": api_version}
    try:
        _fill(_table(shape), raw, result)
    except WireError as error:
        # The group is left out and the version kept, as in the server's other decoding errors.
        version = api_version.rpartition("/")[2]
        raise errors.BadRequest(
            f'{kind_name} in version "{version}" cannot be handled as a {kind_name}: {error}'
        ) from error
    return result


def _open_envelope(view: memoryview) -> tuple[str, str, memoryview]:
    """Return apiVersion, kind and the object's message."""
    found: dict[int, memoryview] = {}
    for number, wire, value in protowire.read_fields(view):
        if wire == BYTES and isinstance(value, memoryview):
            found[number] = value
    if found.get(3):
        raise WireError(f'content encoding "{_string(found[3])}" is not supported')
    type_meta = _texts(found.get(1, memoryview(b"")))
    return type_meta.get(1, ""), type_meta.get(2, ""), found.get(2, memoryview(b""))


def _shape(api_version: str, kind_name: str) -> Shape:
    """Find the shape of a stored kind, or of a type that only travels (DeleteOptions)."""
    kind = kinds.by_name(api_version, kind_name)
    if kind is not None:
        return kind.shape
    if kind_name in shapes.names():
        shape = shapes.of(kind_name)
        version = shape.fields.get("apiVersion")
        # A type with an apiVersion of its own in the message is a part of others, not a body.
        if version is not None and not version.tag:
            return shape
    raise errors.BadRequest(f'no kind "{kind_name}" is registered for version "{api_version}"')


def _fill(table: _Table, view: memoryview, result: dict[str, Any]) -> None:
    """Read all fields of a message into `result`; a later occurrence adds to or replaces."""
    for number, wire, value in protowire.read_fields(view):
        entry = table.get(number)
        if entry is None:
            continue
        name, store = entry
        try:
            store(result, wire, value)
        except WireError as error:
            raise WireError(f"{name}: {error}" if name else str(error)) from error


@functools.cache
def _table(shape: Shape) -> _Table:
    """Compile the fields of a type; nested types are compiled when first met."""
    plain = [field for field in shape.fields.values() if field.tag and not field.inline]
    table = _entries(plain)
    nested: dict[int, list[Field]] = {}
    for field in shape.fields.values():
        if field.inline:
            nested.setdefault(field.inline, []).append(field)
    for number, fields in nested.items():
        table[number] = ("", _inlined(_entries(fields)))
    return table


def _entries(fields: Iterable[Field]) -> _Table:
    return {field.tag: (field.name, _store(field)) for field in fields}


def _inlined(table: _Table) -> _Store:
    """Store the fields of a nested message beside those of the message around it."""

    def store(result: dict[str, Any], wire: int, value: Raw) -> None:
        _fill(table, _view(wire, value), result)

    return store


def _store(field: Field) -> _Store:
    if field.is_map:
        return _store_map(field)
    if field.element is not None:
        return _store_messages(field) if field.is_list else _store_message(field)
    return _store_scalars(field) if field.is_list else _store_scalar(field)


def _store_scalar(field: Field) -> _Store:
    # Quantity and IntOrString are structures in Go, whose JSON never leaves out a structure.
    keep = field.ptr or field.keep or field.type in ("quantity", "intorstring")
    name = field.name
    wanted, read = _READERS[field.type]

    def store(result: dict[str, Any], wire: int, value: Raw) -> None:
        _expect(wanted, wire)
        item = read(value)
        if item is not None and (item or keep):
            result[name] = item
        else:
            result.pop(name, None)

    return store


def _store_message(field: Field) -> _Store:
    name = field.name

    def store(result: dict[str, Any], wire: int, value: Raw) -> None:
        assert field.element is not None
        _fill(_table(field.element), _view(wire, value), result.setdefault(name, {}))

    return store


def _store_messages(field: Field) -> _Store:
    name = field.name

    def store(result: dict[str, Any], wire: int, value: Raw) -> None:
        assert field.element is not None
        item: dict[str, Any] = {}
        _fill(_table(field.element), _view(wire, value), item)
        result.setdefault(name, []).append(item)

    return store


def _store_scalars(field: Field) -> _Store:
    name = field.name
    wanted, read = _READERS[field.leaf]

    def store(result: dict[str, Any], wire: int, value: Raw) -> None:
        items = result.setdefault(name, [])
        if wanted == VARINT and wire == BYTES:  # Packed: the numbers stand in one field.
            view, at = _view(wire, value), 0
            while at < len(view):
                number, at = protowire.read_varint(view, at)
                items.append(read(number))
            return
        _expect(wanted, wire)
        items.append(read(value))

    return store


def _store_map(field: Field) -> _Store:
    name = field.name

    def store(result: dict[str, Any], wire: int, value: Raw) -> None:
        key, item = "", None
        for number, inner, part in protowire.read_fields(_view(wire, value)):
            if number == 1:
                key = _string(_view(inner, part))
            elif number == 2:
                item = _map_value(field, inner, part)
        if item is None:
            item = scalars.ZEROS[field.leaf]() if field.leaf in scalars.ZEROS else {}
        result.setdefault(name, {})[key] = item

    return store


def _map_value(field: Field, wire: int, value: Raw) -> Any:
    if field.element is None:
        wanted, read = _READERS[field.leaf]
        _expect(wanted, wire)
        return read(value)
    item: dict[str, Any] = {}
    _fill(_table(field.element), _view(wire, value), item)
    return item


def _expect(wanted: int, wire: int) -> None:
    if wire != wanted:
        raise WireError(f"wire type {wire} where {wanted} belongs")


def _view(wire: int, value: Raw) -> memoryview:
    _expect(BYTES, wire)
    assert isinstance(value, memoryview)
    return value


def _string(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a string is not valid UTF-8") from error


def _int32(value: int) -> int:
    low = value & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low


def _float(value: int) -> float:
    result: float = struct.unpack("<d", value.to_bytes(8, "little"))[0]
    return result


def _base64(value: memoryview) -> str:
    return base64.b64encode(value).decode()


def _texts(value: memoryview) -> dict[int, str]:
    """Read a message of strings; other fields are skipped."""
    parts = protowire.read_fields(value)
    return {n: _string(part) for n, _, part in parts if isinstance(part, memoryview)}


def _quantity(value: memoryview) -> str:
    return _texts(value).get(1) or "0"


def _moment(value: memoryview) -> datetime | None:
    """Read seconds and nanoseconds since 1970; an empty message is Go's zero time."""
    if not value:
        return None
    parts = {n: part for n, _, part in protowire.read_fields(value) if isinstance(part, int)}
    seconds, nanos = protowire.signed(parts.get(1, 0)), _int32(parts.get(2, 0))
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError as error:
        raise WireError(f"{seconds} seconds since 1970 is not a time") from error


def _time(value: memoryview) -> str | None:
    moment = _moment(value)
    return None if moment is None else clock.rfc3339(moment)


def _micro_time(value: memoryview) -> str | None:
    moment = _moment(value)
    return None if moment is None else clock.rfc3339_micro(moment)


def _int_or_string(value: memoryview) -> int | str:
    """Read {1: 0 for a number or 1 for a string, 2: the number, 3: the string}."""
    parts = {number: part for number, _, part in protowire.read_fields(value)}
    number, text = parts.get(2, 0), parts.get(3, memoryview(b""))
    if parts.get(1, 0) == 1 and isinstance(text, memoryview):
        return _string(text)
    return _int32(number) if isinstance(number, int) else 0


def _list_of_texts(value: memoryview) -> list[str]:
    """Read a message of one repeated string, which is a list in JSON."""
    parts = protowire.read_fields(value)
    return [_string(part) for n, _, part in parts if n == 1 and isinstance(part, memoryview)]


def _embedded(value: memoryview) -> Any:
    """Read a message whose first field is JSON text."""
    text = _texts(value).get(1)
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError as error:
        raise WireError(f"embedded JSON cannot be read: {error}") from error


_READERS: Final[Mapping[str, tuple[int, _Reader]]] = {
    "string": (BYTES, _string),
    "bool": (VARINT, bool),
    "int32": (VARINT, _int32),
    "int64": (VARINT, protowire.signed),
    "float": (FIXED64, _float),
    "bytes": (BYTES, _base64),
    "quantity": (BYTES, _quantity),
    "time": (BYTES, _time),
    "microtime": (BYTES, _micro_time),
    "intorstring": (BYTES, _int_or_string),
    "texts": (BYTES, _list_of_texts),
    "any": (BYTES, _embedded),
    "fields": (BYTES, _embedded),
}
"""The wire type and the reader of each scalar type."""
