"""What differs between two objects, as two sets of paths.

This runs for every write of every controller, so it looks only where a plain comparison of
Python values sees a difference, and never at the metadata that nobody owns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from holdfast.api.managed import items
from holdfast.api.managed.sets import LEAF, FieldSet
from holdfast.api.managed.types import Type

UNOWNED_FIELDS: Final = frozenset({"apiVersion", "kind"})
UNOWNED_METADATA: Final = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    }
)
_AT_TOP: Final = UNOWNED_FIELDS | {"metadata"}
_ABSENT: Any = object()
_NOTHING: Final[dict[str, Any]] = {}


def compare(
    old: Mapping[str, Any], new: Mapping[str, Any], type: Type
) -> tuple[FieldSet, FieldSet]:
    """The fields that are new or have another value, and those that are gone.

    Raises `items.ItemError` when an element of a list lacks a key field.
    """
    changed, removed = _fields(old, new, type, _AT_TOP)
    before, after = old.get("metadata") or _NOTHING, new.get("metadata") or _NOTHING
    if before is not after:
        more, less = _fields(before, after, type.fields["metadata"], UNOWNED_METADATA)
        if more:
            changed = {"f:metadata": more, **changed}
        if less:
            removed = {"f:metadata": less, **removed}
    return changed, removed


def _fields(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    type: Type,
    skipped: frozenset[str] = frozenset(),
) -> tuple[FieldSet, FieldSet]:
    """The differences of two structures or maps."""
    changed: FieldSet = {}
    removed: FieldSet = {}
    known = type.fields
    for key, value in new.items():
        before = old.get(key, _ABSENT)
        if before is value or key in skipped or before == value:
            continue
        part = known.get(key, type.element)
        if part is None:
            continue
        if before is _ABSENT:
            changed["f:" + key] = whole(value, part)
        elif part.leaf or not (before or value):
            changed["f:" + key] = LEAF
        else:
            _note("f:" + key, _parts(before, value, part), changed, removed)
    for key, value in old.items():
        if key not in new and key not in skipped:
            part = known.get(key, type.element)
            if part is not None:
                removed["f:" + key] = whole(value, part)
    return changed, removed


def _parts(old: Any, new: Any, type: Type) -> tuple[FieldSet, FieldSet]:
    """The differences of two values that are no leaves; None counts as empty."""
    if type.form == "list":
        return compare_lists(old, new, type)
    return _fields(old or _NOTHING, new or _NOTHING, type)


def _note(
    step: str, found: tuple[FieldSet, FieldSet], changed: FieldSet, removed: FieldSet
) -> None:
    if found[0]:
        changed[step] = found[0]
    if found[1]:
        removed[step] = found[1]


def compare_lists(old: Any, new: Any, type: Type) -> tuple[FieldSet, FieldSet]:
    """The differences of two lists with elements of their own.

    Elements given twice are looked at as one value.
    """
    changed: FieldSet = {}
    removed: FieldSet = {}
    assert type.element is not None
    befores, afters = items.indexed(old, type), items.indexed(new, type)
    for step, after in afters.items():
        before = befores.get(step, ())
        if before == after:
            continue
        if len(after) > 1:
            changed[step] = LEAF
            if len(before) == 1:
                removed[step] = whole(before[0], type.element)
        elif len(before) == 1:
            if type.element.leaf:
                changed[step] = LEAF
            else:
                _note(step, _parts(before[0], after[0], type.element), changed, removed)
        else:
            changed[step] = whole(after[0], type.element)
    for step, before in befores.items():
        if step not in afters:
            removed[step] = whole(before[0], type.element) if len(before) == 1 else LEAF
    return changed, removed


def whole(value: Any, type: Type) -> FieldSet:
    """A value and everything in it, as the node of a set."""
    if type.leaf or not value:
        return LEAF
    found: FieldSet = {".": LEAF}
    if type.form == "list":
        assert type.element is not None
        for step, same in items.indexed(value, type).items():
            found[step] = whole(same[0], type.element) if len(same) == 1 else LEAF
        return found
    known = type.fields
    for key, item in value.items():
        part = known.get(key, type.element)
        if part is not None:
            found["f:" + key] = whole(item, part)
    for step in type.stamps:
        found.setdefault(step, LEAF)
    return found
