"""Complaints about single fields, in the words of Kubernetes' validation.

A validator returns a list of `Cause`; `errors.Invalid.of` turns the list into
one 422 answer. The builders here own the texts and how values are printed
(strings as Go's %q, numbers and booleans bare), so that a rule never formats a
message itself. Paths are already complete: `spec.accessModes[0]`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

REQUIRED = "FieldValueRequired"
INVALID = "FieldValueInvalid"
NOT_SUPPORTED = "FieldValueNotSupported"
FORBIDDEN = "FieldValueForbidden"
DUPLICATE = "FieldValueDuplicate"
TOO_LONG = "FieldValueTooLong"
TOO_MANY = "FieldValueTooMany"
NOT_FOUND = "FieldValueNotFound"
TYPE_INVALID = "FieldValueTypeInvalid"

IMMUTABLE = "field is immutable"

_SHORT_ESCAPES = {
    '"': '\\"',
    "\\": "\\\\",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing wrong: `message` does not repeat the field."""

    field: str
    reason: str
    message: str

    def text(self) -> str:
        """Return the cause as it stands in the message of an answer."""
        return f"{self.field}: {self.message}" if self.field else self.message

    def as_dict(self) -> dict[str, str]:
        """Return the wire form, without empty members."""
        members = {"reason": self.reason, "message": self.message, "field": self.field}
        return {key: value for key, value in members.items() if value}


class Go(str):
    """A value whose print is known: Go's own, of a type that JSON has not. Stands bare."""


def required(path: str, detail: str = "") -> Cause:
    """Say that the field must be set."""
    return Cause(path, REQUIRED, _join("Required value", detail))


def invalid(path: str, value: object, detail: str) -> Cause:
    """Say that the value breaks a rule, which `detail` names."""
    return Cause(path, INVALID, _join(f"Invalid value: {printed(value)}", detail))


def immutable(path: str, value: object) -> Cause:
    """Say that the field may not change."""
    return invalid(path, value, IMMUTABLE)


def not_supported(
    path: str, value: object, choices: Iterable[str], *, in_order: bool = False
) -> Cause:
    """Say that the value is none of `choices`, which are listed sorted if not `in_order`."""
    detail = ", ".join(map(quote, choices if in_order else sorted(choices)))
    said = f"Unsupported value: {printed(value)}"
    return Cause(path, NOT_SUPPORTED, _join(said, f"supported values: {detail}" if detail else ""))


def forbidden(path: str, detail: str) -> Cause:
    """Say that the field may not be set, or not be changed, here."""
    return Cause(path, FORBIDDEN, _join("Forbidden", detail))


def duplicate(path: str, value: object) -> Cause:
    """Say that the value occurs twice in a list of unique values."""
    return Cause(path, DUPLICATE, f"Duplicate value: {printed(value)}")


def too_long(path: str, max: int) -> Cause:
    """Say that the value is longer than `max` bytes; the value is not printed."""
    detail = f"may not be more than {max} {'byte' if max == 1 else 'bytes'}"
    return Cause(path, TOO_LONG, _join("Too long", detail))


def too_many(path: str, count: int, max: int) -> Cause:
    """Say that a list of `count` items is longer than `max` items."""
    detail = f"must have at most {max} {'item' if max == 1 else 'items'}"
    return Cause(path, TOO_MANY, _join(f"Too many: {count}", detail))


def not_found(path: str, value: object) -> Cause:
    """Say that the value names something that does not exist."""
    return Cause(path, NOT_FOUND, f"Not found: {printed(value)}")


def printed(value: object) -> str:
    """Print a value as Kubernetes does in messages."""
    if value is None:
        # The reference prints the word as if it were a string.
        return '"null"'
    if isinstance(value, Go):
        return str(value)
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    return msgspec.json.encode(value, enc_hook=str).decode()


def quote(text: str) -> str:
    """Quote a string like Go's %q: printable characters stay, others are escaped."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return f'"{"".join(_escape(character) for character in text)}"'


def _escape(character: str) -> str:
    short = _SHORT_ESCAPES.get(character)
    if short is not None:
        return short
    if character.isprintable():
        return character
    number = ord(character)
    if number < 0x80:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _join(said: str, detail: str) -> str:
    return f"{said}: {detail}" if detail else said
