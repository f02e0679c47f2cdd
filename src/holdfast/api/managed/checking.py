"""Whether an applied configuration fits its type: known fields, right types, unique elements.

Unlike the decoding of an object, which drops what it does not know, an applied configuration
with an unknown field is refused: its writer would otherwise believe to own it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.api import fields
from holdfast.api.managed import elements, items
from holdfast.api.managed.types import Type


class TypedError(ValueError):
    """A configuration that does not fit its type; the text names the fields."""


def check(config: Mapping[str, Any], type: Type) -> None:
    """Raise `TypedError` with every mismatch, in Kubernetes' words."""
    found = [f"{path}: {text}" if path else text for path, text in _check(config, type, "")]
    if len(found) == 1:
        raise TypedError(found[0])
    if found:
        raise TypedError("\n".join(["errors:", *(f"  {text}" for text in found)]))


_Findings = Iterator[tuple[str, str]]


def _check(value: Any, type: Type, path: str) -> _Findings:
    if value is None:
        return
    if type.form == "scalar":
        yield from ((path, text) for text in _check_scalar(value, type.scalar))
    elif type.form == "list":
        if isinstance(value, list):
            yield from _check_list(value, type, path)
        else:
            yield path, f"expected list, got &{{{_go(value)}}}"
    elif isinstance(value, Mapping):
        yield from _check_map(value, type, path)
    else:
        yield path, f"expected map, got &{{{_go(value)}}}"


def _check_map(value: Mapping[str, Any], type: Type, path: str) -> _Findings:
    known = type.fields
    for key, item in value.items():
        part = known.get(key, type.element)
        if part is None:
            yield f"{path}.{key}", "field not declared in schema"
            return
        yield from _check(item, part, f"{path}.{key}")


def _check_list(values: list[Any], type: Type, path: str) -> _Findings:
    assert type.element is not None
    seen: set[str] = set()
    for index, item in enumerate(values):
        place = f"[{index}]"
        if not type.leaf:
            try:
                step = items.step_of(item, type)
            except items.ItemError as error:
                yield path, f"element {index}: {error}"
                return
            place = elements.printed(step)
            if step in seen:
                yield path, f"duplicate entries for key {place}"
            seen.add(step)
        yield from _check(item, type.element, path + place)


def _check_scalar(value: Any, scalar: str) -> Iterator[str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if scalar == "string" and not isinstance(value, str):
        yield f"expected string, got &value.valueUnstructured{{Value:{_go_syntax(value)}}}"
    elif scalar == "numeric" and not is_number:
        yield f"expected numeric (int or float), got {_go_type(value)}"
    elif scalar == "boolean" and not isinstance(value, bool):
        yield f"expected boolean, got &{{{_go(value)}}}"
    elif scalar == "untyped" and not isinstance(value, bool | int | float | str):
        yield f"expected any scalar, got &{{{_go(value)}}}"


def _go(value: Any) -> str:
    """The value as Go's %v prints it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<nil>"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{k}:{_go(v)}" for k, v in sorted(value.items())) + "]"
    if isinstance(value, list):
        return "[" + " ".join(map(_go, value)) + "]"
    return str(value)


_EMPTY_INTERFACE = "interface {}"


def _go_syntax(value: Any) -> str:
    """The value as Go's %#v prints it."""
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{_go_syntax(k)}:{_go_syntax(v)}" for k, v in sorted(value.items()))
        return f"map[string]{_EMPTY_INTERFACE}{{{pairs}}}"
    if isinstance(value, list):
        return f"[]{_EMPTY_INTERFACE}{{{', '.join(map(_go_syntax, value))}}}"
    if isinstance(value, str):
        return fields.quote(value)
    return _EMPTY_INTERFACE + "(nil)" if value is None else _go(value)


def _go_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, Mapping):
        return f"map[string]{_EMPTY_INTERFACE}"
    return f"[]{_EMPTY_INTERFACE}" if isinstance(value, list) else "string"
