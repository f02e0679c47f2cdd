"""The fields that an applied configuration declares, as a set of paths.

A structure's field counts by its leaves; a map's key and a list's element count themselves too,
because it is a declaration that they exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.api.managed import items
from holdfast.api.managed.comparing import UNOWNED_FIELDS, UNOWNED_METADATA
from holdfast.api.managed.sets import LEAF, FieldSet
from holdfast.api.managed.types import Type


def declared(config: Mapping[str, Any], type: Type) -> FieldSet:
    """What an object declares, without the metadata that nobody owns."""
    body = {key: value for key, value in config.items() if key not in UNOWNED_FIELDS}
    meta = body.get("metadata")
    found = _fields(body, type)
    if isinstance(meta, Mapping):
        owned = {key: value for key, value in meta.items() if key not in UNOWNED_METADATA}
        below = _fields(owned, type.fields["metadata"])
        found = {key: value for key, value in found.items() if key != "f:metadata"}
        if below:
            found["f:metadata"] = below
    else:
        found.pop("f:metadata", None)
    return found


def everything(obj: Mapping[str, Any], type: Type) -> FieldSet:
    """What a whole object contains, in the same terms."""
    return _fields(obj, type)


def _fields(values: Mapping[str, Any], type: Type) -> FieldSet:
    found: FieldSet = {}
    known = type.fields
    for key, value in values.items():
        part = known.get(key)
        named = part is not None
        if part is None:
            part = type.element
        if part is None:
            continue
        below = _below(value, part)
        if value is None or value == {} or part.leaf:
            found["f:" + key] = LEAF
        elif not named:
            found["f:" + key] = {".": LEAF, **below} if below else LEAF
        elif below:
            found["f:" + key] = below
    return found


def _below(value: Any, type: Type) -> FieldSet:
    if type.leaf or not value:
        return LEAF
    return _elements(value, type) if type.form == "list" else _fields(value, type)


def _elements(values: list[Any], type: Type) -> FieldSet:
    found: FieldSet = {}
    assert type.element is not None
    for step, same in items.indexed(values, type).items():
        below = _below(same[0], type.element) if len(same) == 1 else LEAF
        found[step] = {".": LEAF, **below} if below else LEAF
    return found
