"""One step of a path to a field, in the form it has in `fieldsV1`.

`f:NAME` is a field or a key of a map, `k:{...}` an element of a list by its key fields, `v:...`
an element of a list that is a set, `i:N` an element by its place. A step is a plain string, so
steps compare and hash at the speed of strings; `canonical` makes sure that there is one string
for each step, whatever white space or order of keys a writer used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from holdfast.api import fields

_encode = msgspec.json.encode
_decode = msgspec.json.decode

SELF = "."
"""Not a step: marks a set's node as a member itself, beside having members below it."""


class ElementError(ValueError):
    """A step that cannot be read."""


def of_field(name: str) -> str:
    """The step to a field, or to a key of a map."""
    return "f:" + name


def of_keys(pairs: Iterable[tuple[str, Any]]) -> str:
    """The step to an element of a list of kind map; the pairs sorted by name."""
    return "k:" + _encode(dict(pairs)).decode()


def of_value(value: Any) -> str:
    """The step to an element of a list of kind set."""
    return "v:" + _encode(value).decode()


def canonical(step: str) -> str | None:
    """The one form of a step; None for a kind of step nobody knows; raises `ElementError`."""
    kind, rest = step[:2], step[2:]
    if len(step) < 2 or kind[1] != ":":
        raise ElementError(f"{step!r} is not a step of a path: it needs a letter and a colon")
    if kind == "f:":
        return step
    if kind not in ("k:", "v:", "i:"):
        return None
    try:
        value = int(rest) if kind == "i:" else _decode(rest.encode())
    except ValueError as error:
        raise ElementError(f"{step!r} is not a step of a path: {error}") from error
    if kind == "i:":
        return f"i:{value}"
    if kind == "v:":
        return of_value(value)
    if not isinstance(value, Mapping):
        raise ElementError(f"{step!r} is not a step of a path: the keys must be an object")
    return of_keys(sorted(value.items()))


def printed(step: str) -> str:
    """The step as messages show it: `.spec`, `[name="data"]`, `[="a"]`, `[0]`."""
    kind, rest = step[:2], step[2:]
    if kind == "f:":
        return "." + rest
    if kind == "k:":
        pairs = _decode(rest.encode()).items()
        return "[" + ",".join(f"{name}={_shown(value)}" for name, value in pairs) + "]"
    return f"[={_shown(_decode(rest.encode()))}]" if kind == "v:" else f"[{rest}]"


def order(step: str) -> tuple[Any, ...]:
    """The key by which steps sort: fields, then keys, then values, each by what it says."""
    kind, rest = step[:2], step[2:]
    if kind == "f:":
        return (0, rest)
    if kind == "k:":
        pairs = _decode(rest.encode()).items()
        return (1, tuple((name, _rank(value)) for name, value in pairs))
    return (2, _rank(_decode(rest.encode()))) if kind == "v:" else (3, int(rest))


def _shown(value: Any) -> str:
    return fields.quote(value) if isinstance(value, str) else _encode(value).decode()


def _rank(value: Any) -> tuple[int, Any]:
    """Values of different types have an order too: numbers, texts, booleans."""
    if isinstance(value, bool):
        return (2, value)
    if isinstance(value, int | float):
        return (0, value)
    return (1, value) if isinstance(value, str) else (3, _encode(value))
