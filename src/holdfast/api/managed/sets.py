"""Sets of paths, in the form of `fieldsV1`: `{"f:spec": {"f:replicas": {}}}`.

A node without entries is a member of the set; a node with entries leads to members, and is one
itself only if it also has the entry `"."`. The root is never a member, so `{}` is the empty set.
Keeping sets in this form makes reading and writing `managedFields` free.

The operations walk the smaller operand where they can, copy only the nodes on the way to a
change, and return the left operand itself when the result equals it: `is` tells that nothing
happened. No function changes its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from holdfast.api.managed import elements
from holdfast.api.managed.types import Type

FieldSet = dict[str, Any]

LEAF: Final[FieldSet] = {}
"""A member without members below it; shared by all sets, as an empty set too."""
_SELF: Final[FieldSet] = {".": LEAF}


def union(one: FieldSet, other: FieldSet) -> FieldSet:
    """The members of either."""
    result = one
    for step, more in other.items():
        had = result.get(step)
        if had is None:
            joined = more
        elif had is more or not (had or more):
            continue
        else:
            before = had or _SELF
            joined = union(before, more or _SELF)
            if joined is before:
                continue
        if result is one:
            result = one.copy()
        result[step] = joined
    return result


def difference(one: FieldSet, other: FieldSet) -> FieldSet:
    """The members of the first that are not members of the second."""
    result = one
    for step, taken in other.items():
        had = result.get(step)
        if had is None:
            continue
        left = LEAF
        if step != ".":
            before = had or _SELF
            left = difference(before, taken or _SELF)
            if left is before:
                continue
        result = _replaced(result, one, step, left)
    return result


def without_trees(one: FieldSet, other: FieldSet) -> FieldSet:
    """The first without the members of the second and everything below them."""
    result = one
    for step, taken in other.items():
        had = result.get(step)
        if had is None:
            continue
        left = LEAF
        if taken and "." not in taken:
            before = had or _SELF
            left = without_trees(before, taken)
            if left is before:
                continue
        result = _replaced(result, one, step, left)
    return result


def _replaced(result: FieldSet, original: FieldSet, step: str, left: FieldSet) -> FieldSet:
    """The set with another node at a step; an empty node is taken out."""
    if result is original:
        result = original.copy()
    if not left:
        del result[step]
    else:
        result[step] = LEAF if len(left) == 1 and "." in left else left
    return result


def intersection(one: FieldSet, other: FieldSet) -> FieldSet:
    """The members of both."""
    result: FieldSet = {}
    for step, node in one.items():
        counterpart = other.get(step)
        if counterpart is None:
            continue
        if step == ".":
            result[step] = LEAF
            continue
        both = intersection(node or _SELF, counterpart or _SELF)
        if both:
            result[step] = LEAF if len(both) == 1 and "." in both else both
    return result


def paths(found: FieldSet, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every member as the tuple of its steps; on each level members first, then what is below."""
    steps = sorted((step for step in found if step != "."), key=elements.order)
    for step in steps:
        node = found[step]
        if not node or "." in node:
            yield (*prefix, step)
    for step in steps:
        yield from paths(found[step], (*prefix, step))


def of_path(path: tuple[str, ...]) -> FieldSet:
    """The set with this one member."""
    node = LEAF
    for step in reversed(path):
        node = {step: node}
    return node


def with_structures(found: FieldSet, type: Type | None) -> FieldSet:
    """The set with every named field on the way to a member as a member too."""
    result: FieldSet = {}
    for step, node in found.items():
        if step == ".":
            result[step] = node
            continue
        below, named = _below(step, type)
        filled = with_structures(node, below)
        result[step] = {".": LEAF, **filled} if named and filled else filled
    return result


def _below(step: str, type: Type | None) -> tuple[Type | None, bool]:
    """The type behind a step, and whether the step is a field the type names."""
    if type is None:
        return None, False
    if step.startswith("f:"):
        field = type.fields.get(step[2:])
        return (field, True) if field is not None else (type.element, False)
    return (type.element if step.startswith("k:") else None), False


def canonical(given: Mapping[str, Any]) -> FieldSet:
    """A set as a writer sent it, in the form kept here; raises `elements.ElementError`."""
    result: FieldSet = {}
    for name, node in given.items():
        if name == elements.SELF:
            continue
        step = elements.canonical(name)
        if step is not None:
            below = canonical(node) if isinstance(node, Mapping) else LEAF
            member = not below or elements.SELF in node
            result[step] = {".": LEAF, **below} if member and below else below
    return result
