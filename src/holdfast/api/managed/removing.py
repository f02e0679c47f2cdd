"""Taking the members of a set out of a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.api.managed import items
from holdfast.api.managed.sets import FieldSet
from holdfast.api.managed.types import Type


def remove(value: Mapping[str, Any], taken: FieldSet, type: Type) -> dict[str, Any]:
    """The structure without the members of `taken`.

    What is left of a list or map that loses all it has is None, which decoding drops.
    """
    return _without(value, taken, type) or {}


def _without(value: Any, taken: FieldSet, type: Type) -> Any:
    if not taken or type.form == "scalar":
        return value
    if type.leaf or not value:
        # An atomic value of which a part is to go goes as a whole.
        return None
    if type.form == "list":
        return _elements(value, taken, type)
    left: dict[str, Any] = {}
    for key, item in value.items():
        node = taken.get("f:" + key)
        if node is None:
            left[key] = item
        elif node and "." not in node:
            part = type.fields.get(key, type.element)
            left[key] = item if part is None else _without(item, node, part)
    return left or None


def _elements(values: list[Any], taken: FieldSet, type: Type) -> list[Any] | None:
    assert type.element is not None
    left = []
    for item in values:
        node = taken.get(items.step_of(item, type))
        if node is None:
            left.append(item)
        elif node and "." not in node:
            left.append(_without(item, node, type.element))
    return left or None
