"""The protobuf wire format: reading and writing, with no schema.

The two neighbours that know a schema build on this: `protobuf` reads request
bodies by the shapes of kinds, `gnostic` writes the OpenAPI v2 document that
older kubectl versions insist on.  A full protobuf library is not worth its
weight for four wire types.

Every read is checked against the end of the buffer, so a truncated or hostile
message raises `WireError` and never an IndexError or an endless loop.  Integers
come out unsigned, as they are on the wire; `signed` gives int32 and int64 their
sign back (both are sign-extended to 64 bits there).
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

_MASK = (1 << 64) - 1


class WireError(ValueError):
    """The bytes are not a well-formed protobuf message."""


def read_varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the unsigned 64-bit value at `at` and the offset behind it."""
    value = shift = 0
    end = len(data)
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
        if shift > 63:
            raise WireError(f"a varint ending at byte {at} is longer than 10 bytes")
    raise WireError("the message ends inside a varint")


def read_fields(data: bytes | memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield (field number, wire type, value) in the order of the message.

    The value is a memoryview for length-delimited fields and an unsigned
    integer for the others.  Raises WireError.
    """
    view = memoryview(data)
    at, end = 0, len(view)
    while at < end:
        key, at = read_varint(view, at)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise WireError(f"field number 0 before byte {at}")
        if wire == VARINT:
            value, at = read_varint(view, at)
            yield number, wire, value
            continue
        start, at = _span(view, at, wire)
        if at > end:
            raise WireError(f"field {number} claims {at - start} bytes, {end - start} are left")
        chunk = view[start:at]
        yield number, wire, chunk if wire == BYTES else int.from_bytes(chunk, "little")


def _span(view: memoryview, at: int, wire: int) -> tuple[int, int]:
    """Return where the payload of a field that is not a varint starts and ends."""
    if wire == BYTES:
        length, start = read_varint(view, at)
        return start, start + length
    if wire == FIXED64:
        return at, at + 8
    if wire == FIXED32:
        return at, at + 4
    raise WireError(f"wire type {wire} before byte {at} is not supported")


def signed(value: int) -> int:
    """Read an unsigned 64-bit value as two's complement."""
    return value - (1 << 64) if value >> 63 else value


def varint(value: int) -> bytes:
    """Encode an integer; negative ones are sign-extended to 64 bits."""
    value &= _MASK
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(number: int, wire: int) -> bytes:
    """Encode the key that stands before a field's value."""
    return varint(number << 3 | wire)


def delimited(number: int, payload: bytes) -> bytes:
    """Encode a string, bytes or nested message field."""
    return tag(number, BYTES) + varint(len(payload)) + payload
