"""The elements of lists that have elements of their own, by their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from holdfast.api.managed import elements
from holdfast.api.managed.types import Type


class ItemError(ValueError):
    """An element of a list that cannot be told from others."""


def step_of(item: Any, type: Type) -> str:
    """The step to an element of a list of this type; raises `ItemError`."""
    if type.keys:
        return elements.of_keys(_keys(item, type))
    if isinstance(item, dict):
        raise ItemError("associative list without keys has an element that's a map type")
    if isinstance(item, list):
        raise ItemError("not supported: associative list with lists as elements")
    if item is None:
        raise ItemError("associative list without keys has an element that's an explicit null")
    return elements.of_value(item)


def _keys(item: Any, type: Type) -> list[tuple[str, Any]]:
    if item is None:
        raise ItemError("associative list with keys may not have a null element")
    if not isinstance(item, dict):
        raise ItemError("associative list with keys may not have non-map elements")
    found = []
    for name, default in type.keys:
        value = item.get(name, default)
        if value is None and name not in item:
            raise ItemError(
                f'associative list with keys has an element that omits key field "{name}" '
                "(and doesn't have default value)"
            )
        found.append((name, value))
    return found


def indexed(values: Sequence[Any] | None, type: Type) -> dict[str, list[Any]]:
    """The elements by step, in the order of their first appearance; raises `ItemError`."""
    found: dict[str, list[Any]] = {}
    for item in values or ():
        found.setdefault(step_of(item, type), []).append(item)
    return found
