"""Scalar values on the wire: what each accepts and the one form it is kept in.

Quantities are kept in canonical form, times as whole seconds of UTC, micro times
with six digits, bytes as padded base64 without line breaks. So two values that mean
the same are equal as text, and comparing objects needs no knowledge of types.

Every converter takes the JSON value (never null), raises `TypeError` if it has the
wrong JSON type and `TextError` if the text cannot be read. The messages are those
of a Kubernetes server.
"""

from __future__ import annotations

import binascii
import functools
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from holdfast.api import quantity
from holdfast.kit import clock

_SECONDS_LAYOUT: Final = "2006-01-02T15:04:05Z07:00"
_MICRO_LAYOUT: Final = "2006-01-02T15:04:05.000000Z07:00"
_INTEGERS: Final = frozenset(("int32", "int64"))
_NO_BASE64: Final = re.compile(rb"[^A-Za-z0-9+/\r\n]")
_PAD: Final = ord("=")
# The padding that must follow two or three digits, and a sign that follows too few.
_PADDING: Final = {2: re.compile(rb"=[\r\n]*=[\r\n]*"), 3: re.compile(rb"=[\r\n]*")}
_FOLLOWER: Final = re.compile(rb"[\r\n]*([^\r\n])")


class TextError(ValueError):
    """A text of the right JSON type that cannot be read; `hint` may say what was meant."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def json_type(value: object, wanted: str = "") -> str:
    """Return what Go's decoder calls a JSON value; numbers that do not fit are quoted."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {value}" if wanted in _INTEGERS else "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list | tuple):
        return "array"
    return "object" if isinstance(value, dict) else "null"


def _string(value: Any) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):  # An enum member, say; the wire form is a plain string.
        return str.__str__(value)
    raise TypeError


def _bool(value: Any) -> bool:
    if type(value) is bool:
        return value
    raise TypeError


def _int32(value: Any) -> int:
    if type(value) is int and -0x8000_0000 <= value <= 0x7FFF_FFFF:
        return value
    raise TypeError


def _int64(value: Any) -> int:
    if type(value) is int and -0x8000_0000_0000_0000 <= value <= 0x7FFF_FFFF_FFFF_FFFF:
        return value
    raise TypeError


def _float(value: Any) -> float:
    if type(value) is float or type(value) is int:
        return float(value)
    raise TypeError


@functools.lru_cache(maxsize=4096)
def _canonical_quantity(text: str) -> str:
    try:
        return quantity.parse(text).canonical()
    except quantity.QuantityError as error:
        raise TextError(str(error), getattr(error, "hint", "")) from error


def _quantity(value: Any) -> str:
    if isinstance(value, str):
        return _canonical_quantity(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        # Kubernetes reads any other JSON value as text, which then does not parse.
        return _canonical_quantity(str(value))
    try:
        return quantity.parse(value).canonical()
    except quantity.QuantityError as error:
        raise TextError(str(error), getattr(error, "hint", "")) from error


@functools.lru_cache(maxsize=4096)
def _canonical_time(text: str) -> str:
    return f"{_moment(text, _SECONDS_LAYOUT).isoformat()[:19]}Z"


@functools.lru_cache(maxsize=1024)
def _canonical_micro_time(text: str) -> str:
    return f"{_moment(text, _MICRO_LAYOUT).isoformat(timespec='microseconds')[:26]}Z"


def _moment(text: str, layout: str) -> datetime:
    try:
        return clock.parse(text)
    except ValueError as error:
        wrong = f'parsing time "{text}" as "{layout}": cannot parse "{text}" as "2006"'
        raise TextError(wrong, str(error)) from error


def _time(value: Any) -> str:
    if isinstance(value, str):
        return _canonical_time(value)
    raise TypeError


def _micro_time(value: Any) -> str:
    if isinstance(value, str):
        return _canonical_micro_time(value)
    raise TypeError


def _int_or_string(value: Any) -> int | str:
    if isinstance(value, str):
        return _string(value)
    return _int32(value)


def _bytes(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    data = value.encode()
    packed = data.translate(None, b"\r\n")
    try:
        raw = binascii.a2b_base64(packed, strict_mode=True)
    except binascii.Error:
        raise TextError(_base64_fault(data)) from None
    canonical = binascii.b2a_base64(raw, newline=False).decode()
    if len(canonical) != len(packed):  # The strict mode overlooks padding after full groups.
        raise TextError(_base64_fault(data))
    return canonical


def _base64_fault(data: bytes) -> str:
    return f"illegal base64 data at input byte {_place_of_fault(data)}"


def _place_of_fault(data: bytes) -> int:
    """Return where a decoder that reads left to right stops in bad base64."""
    wrong = _NO_BASE64.search(data)
    if wrong is None:
        return len(data) - len(data.translate(None, b"\r\n")) % 4
    place = wrong.start()
    digits = len(data[:place].translate(None, b"\r\n")) % 4
    if data[place] != _PAD or digits < 2:
        return place
    padding = _PADDING[digits].match(data, place)
    if padding is None:  # One of two signs is there; what follows it decides.
        follower = _FOLLOWER.match(data, place + 1)
        return follower.start(1) - 1 if follower else len(data)
    return padding.end()


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list | tuple):
        raise TypeError
    return [_string(item) for item in value]


def _anything(value: Any) -> Any:
    return value


CONVERTERS: Final[Mapping[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "string": _string,
        "bool": _bool,
        "int32": _int32,
        "int64": _int64,
        "float": _float,
        "quantity": _quantity,
        "time": _time,
        "microtime": _micro_time,
        "intorstring": _int_or_string,
        "bytes": _bytes,
        "texts": _texts,
        "any": _anything,
        "fields": _anything,
    }
)
"""From the name of a scalar type to the function that canonicalises its values."""

ZEROS: Final[Mapping[str, Callable[[], Any]]] = MappingProxyType(
    {
        "string": str,
        "bool": bool,
        "int32": int,
        "int64": int,
        "float": float,
        "quantity": lambda: "0",
        "intorstring": int,
        "bytes": str,
        "texts": list,
    }
)
"""What Go writes for an unset value of the type; a type not listed is left out."""

GO_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "string": "string",
        "bool": "bool",
        "int32": "int32",
        "int64": "int64",
        "float": "float64",
        "quantity": "resource.Quantity",
        "time": "string",
        "microtime": "string",
        "intorstring": "int32",
        "bytes": "[]uint8",
        "texts": "v1.ExtraValue",
        "any": "runtime.RawExtension",
        "fields": "v1.FieldsV1",
    }
)
"""What Kubernetes' messages call a scalar type."""
