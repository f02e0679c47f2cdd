"""A CSI message as one line for the log, without what must not be in one.

The specification marks the fields that hold secrets; they are blotted out by that
mark, at any depth, so that a field of a later version is covered as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from holdfast.csi.wire import csi_pb2

# The stubs do not know the descriptor of an extension as its key.
_SECRET: Any = csi_pb2.csi_secret


def text(message: Message) -> str:
    """Return `{field: value, ...}` of the fields that are set."""
    return _of_message(message)


def secrets(message: Message) -> Iterator[str]:
    """Yield the values of the secrets of a request."""
    for field, value in message.ListFields():
        if _is_secret(field) and isinstance(value, Mapping):
            yield from value.values()


def _of_message(message: Message) -> str:
    parts = []
    for field, value in message.ListFields():
        shown = "***" if _is_secret(field) else _of_value(value)
        parts.append(f"{field.name}: {shown}")
    return "{" + ", ".join(parts) + "}"


def _of_value(value: Any) -> str:
    if isinstance(value, Message):
        return _of_message(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_of_value(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, str | bytes | int | float):
        return repr(value)
    return "[" + ", ".join(_of_value(each) for each in value) + "]"


def _is_secret(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().Extensions[_SECRET])
