"""An outline of what differs between two objects: cheap to make, and a key to remember by.

Most writes are like many writes before: controllers set the same fields of one object after the
other. The outline of a difference is a tuple that is equal for two writes exactly when
`comparing.compare` has equal results for them, made without building those. Who keeps results
by outline needs to compare in full only once per pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from holdfast.api.managed import comparing
from holdfast.api.managed.types import Type

Outline = tuple[object, ...]

_ABSENT: Any = object()
_NOTHING: Final[dict[str, Any]] = {}
_NONE_SKIPPED: Final[frozenset[str]] = frozenset()
_AT_TOP: Final = comparing.UNOWNED_FIELDS | {"metadata"}
_UNOWNED: Final = comparing.UNOWNED_METADATA
# Marks between the names of fields; no field is called by a number.
_END, _ADDED, _CHANGED, _INSIDE, _REMOVED = range(5)
_encode = msgspec.json.encode


def outline(old: Mapping[str, Any], new: Mapping[str, Any], type: Type) -> Outline:
    """The outline of the difference of two objects; raises as `comparing.compare` does."""
    found: list[object] = []
    _fields(old, new, type, _AT_TOP, found)
    before, after = old.get("metadata") or _NOTHING, new.get("metadata") or _NOTHING
    if before is not after:
        found.append(_END)
        _fields(before, after, type.fields["metadata"], _UNOWNED, found)
    return tuple(found)


def _fields(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    type: Type,
    skipped: frozenset[str],
    found: list[object],
) -> None:
    known, element = type.fields, type.element
    for key, value in new.items():
        before = old.get(key, _ABSENT)
        if before is value or key in skipped or before == value:
            continue
        part = known.get(key, element)
        if part is None:
            continue
        if before is _ABSENT:
            found += (_ADDED, key)
            if value and not part.leaf:
                _whole(value, part, found)
        elif part.leaf or not (before or value):
            found += (_CHANGED, key)
        else:
            found += (_INSIDE, key)
            _parts(before, value, part, found)
    if not old.keys() <= new.keys():
        gone = {key: value for key, value in old.items() if key not in new and key not in skipped}
        _removed(gone, type, found)


def _removed(gone: Mapping[str, Any], type: Type, found: list[object]) -> None:
    for key, value in gone.items():
        part = type.fields.get(key, type.element)
        if part is not None:
            found += (_REMOVED, key)
            if value and not part.leaf:
                _whole(value, part, found)


def _parts(old: Any, new: Any, type: Type, found: list[object]) -> None:
    """Add what differs within a value that is no leaf; None counts as empty."""
    if type.form == "list":
        found.append(_encode(comparing.compare_lists(old, new, type)))
    else:
        _fields(old or _NOTHING, new or _NOTHING, type, _NONE_SKIPPED, found)
    found.append(_END)


def _whole(value: Any, type: Type, found: list[object]) -> None:
    """Add the names of everything in a value that is no leaf."""
    if type.form == "list":
        found.append(_encode(comparing.whole(value, type)))
        return
    if type.form == "map" and type.element is not None and type.element.leaf:
        found.append(tuple(value))
        return
    known, element = type.fields, type.element
    for key, item in value.items():
        found.append(key)
        part = known.get(key, element)
        if item and part is not None and not part.leaf:
            _whole(item, part, found)
    found.append(_END)
