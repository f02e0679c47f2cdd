"""Strategic merge patch: a merge patch that knows which lists are sets and maps.

Like a JSON merge patch, except that a list whose field has the patch strategy
`merge` is merged: scalars as a set, objects by their merge key. Directives in
the patch ask for more: `$patch` (replace, delete, merge), `$retainKeys`,
`$deleteFromPrimitiveList/<field>` and `$setElementOrder/<field>`. Fields that
the shape does not know follow plain merge-patch rules.

Order of a merged list: elements named by the patch keep the order of the patch,
the others keep theirs, and between the two the old order decides; a new
element comes before the old ones that it cannot be compared with.

The document and the patch are never changed; the result may share parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.api.patches import PatchError

DIRECTIVE = "$patch"
RETAIN_KEYS = "$retainKeys"
DELETE_PREFIX = "$deleteFromPrimitiveList/"
ORDER_PREFIX = "$setElementOrder/"

Object = dict[str, Any]
_Lookup = Callable[[str], "FieldLike | None"]


class FieldLike(Protocol):
    """What a merge must know about a field."""

    @property
    def key(self) -> str | None: ...
    @property
    def patch(self) -> str | None: ...
    @property
    def element(self) -> ShapeLike | None: ...
    @property
    def is_list(self) -> bool: ...
    @property
    def is_map(self) -> bool: ...


class ShapeLike(Protocol):
    """What a merge must know about a type."""

    @property
    def fields(self) -> Mapping[str, FieldLike]: ...


@dataclass(frozen=True, slots=True)
class _Entry:
    """The field that each value of a map stands for."""

    element: ShapeLike | None
    key: str | None = None
    patch: str | None = None
    is_list: bool = False
    is_map: bool = False


def strategic_merge(doc: Object, patch: Object, shape: ShapeLike | None) -> Object:
    """Return `doc` with a strategic merge patch for a type applied.

    Raises PatchError when the patch contradicts itself or the document.
    """
    return _merge_object(doc, patch, _fields_of(shape))


def _merge_object(doc: Object, patch: Object, lookup: _Lookup) -> Object:
    directive = patch.get(DIRECTIVE)
    if directive == "delete":
        return {}
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != DIRECTIVE}
    if directive not in (None, "merge"):
        raise PatchError(f"unknown patch type: {directive} in map: {patch}")
    merged = _retained(doc, patch)
    ordered = _merge_ordered_lists(merged, patch, lookup)
    for key, value in patch.items():
        if key in (DIRECTIVE, RETAIN_KEYS) or key in ordered or key.startswith(ORDER_PREFIX):
            continue
        if key.startswith(DELETE_PREFIX):
            _delete_scalars(merged, key.removeprefix(DELETE_PREFIX), value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_value(merged.get(key), value, lookup(key))
    return merged


def _merge_value(old: Any, value: Any, field: FieldLike | None) -> Any:
    strategy = _strategy(field)
    if isinstance(old, dict) and isinstance(value, dict):
        return value if strategy == "replace" else _merge_object(old, value, _children_of(field))
    if isinstance(old, list) and isinstance(value, list):
        return _merge_list(old, value, field) if strategy == "merge" else value
    return _without_directives(value)


def _retained(doc: Object, patch: Object) -> Object:
    """Copy the top level of the document, limited to `$retainKeys` when given."""
    if RETAIN_KEYS not in patch:
        return doc.copy()
    keys = patch[RETAIN_KEYS]
    if not isinstance(keys, list):
        raise PatchError("invalid patch format of retainKeys")
    for key, value in patch.items():
        if value is not None and not key.startswith("$") and key not in keys:
            raise PatchError("invalid patch format of retainKeys")
    return {key: value for key, value in doc.items() if key in keys}


def _delete_scalars(merged: Object, key: str, unwanted: Any) -> None:
    if not isinstance(unwanted, list):
        raise PatchError("invalid patch format of primitive list")
    old = merged.get(key)
    if isinstance(old, list):
        merged[key] = [item for item in old if item not in unwanted]


def _merge_ordered_lists(merged: Object, patch: Object, lookup: _Lookup) -> set[str]:
    """Merge the lists that come with an order; return the fields dealt with."""
    done = set()
    for directive, order in patch.items():
        if not directive.startswith(ORDER_PREFIX):
            continue
        key = directive.removeprefix(ORDER_PREFIX)
        old, value, field = merged.get(key), patch.get(key), lookup(key)
        lists = [part for part in (order, old, value) if part is not None]
        if not all(isinstance(part, list) for part in lists):
            raise PatchError(f"{directive} and the list it orders must be lists")
        if order is None or (old is None and value is None):
            continue
        merge_key = _key(field)
        _check_order(key, value or [], order, merge_key)
        joined = old if value is None else _merge_value(old, value, field)
        merged[key] = _arrange(joined or [], order, old or [], merge_key)
        if value is not None:
            done.add(key)
    return done


def _check_order(key: str, patch: list[Any], order: list[Any], merge_key: str) -> None:
    """Refuse a patch whose list is not a part, in order, of the order it gives."""
    wanted = [_identity(item, merge_key) for item in order]
    position = 0
    for item in patch:
        if isinstance(item, dict) and DIRECTIVE in item:
            continue
        identity = _identity(item, merge_key)
        try:
            position = wanted.index(identity, position) + 1
        except ValueError as error:
            raise PatchError(
                f"The order in patch list {key} doesn't match {ORDER_PREFIX}{key} list: "
                f"{identity!r} is missing or out of order"
            ) from error


def _merge_list(old: list[Any], patch: list[Any], field: FieldLike | None) -> list[Any]:
    objects = [isinstance(item, dict) for item in (*old, *patch)]
    if not any(objects):
        return _arrange(_unique([*old, *patch]), patch, old, "")
    if not all(objects):
        raise PatchError("cannot merge a list of objects with a list of scalars")
    merge_key = _key(field)
    if not merge_key:
        raise PatchError("cannot merge lists without merge key")
    return _merge_objects(old, patch, merge_key, _children_of(field))


def _merge_objects(
    old: list[Object], patch: list[Object], merge_key: str, lookup: _Lookup
) -> list[Object]:
    kept, changes, replace = _apply_list_directives(old, patch, merge_key)
    if replace:
        return [_without_directives(item) for item in changes]
    merged = list(kept)
    for item in changes:
        identity = _identity(item, merge_key)
        for position, candidate in enumerate(merged):
            if candidate.get(merge_key) == identity:
                merged[position] = _merge_object(candidate, item, lookup)
                break
        else:
            merged.append(_without_directives(item))
    return _arrange(merged, changes, kept, merge_key)


def _apply_list_directives(
    old: list[Object], patch: list[Object], merge_key: str
) -> tuple[list[Object], list[Object], bool]:
    """Return what deletions leave, the patch without directives, and whether to replace all."""
    kept, changes, replace = old, [], False
    for item in patch:
        directive = item.get(DIRECTIVE)
        if DIRECTIVE not in item:
            changes.append(item)
        elif directive == "replace":
            replace = True
        elif directive == "delete":
            identity = _identity(item, merge_key)
            kept = [candidate for candidate in kept if candidate.get(merge_key) != identity]
        elif directive == "merge":
            raise PatchError("merging lists cannot yet be specified in the patch")
        else:
            raise PatchError(f"unknown patch type: {directive} in map: {item}")
    return kept, changes, replace


def _arrange(
    items: list[Any], patch_order: list[Any], old_order: list[Any], merge_key: str
) -> list[Any]:
    """Order a merged list: see the module's text."""
    wanted = _positions(patch_order, merge_key)
    before = _positions(old_order, merge_key)
    named: list[tuple[Any, Any]] = []
    others: list[tuple[Any, Any]] = []
    for item in items:
        identity = _hashable(_identity(item, merge_key))
        (named if identity in wanted else others).append((identity, item))
    named.sort(key=lambda pair: wanted[pair[0]])
    others.sort(key=lambda pair: before.get(pair[0], -1))
    arranged: list[Any] = []
    position = 0
    for identity, item in named:
        place = before.get(identity, -1)
        while position < len(others) and before.get(others[position][0], place) < place:
            arranged.append(others[position][1])
            position += 1
        arranged.append(item)
    return arranged + [item for _, item in others[position:]]


def _positions(items: list[Any], merge_key: str) -> dict[Any, int]:
    positions: dict[Any, int] = {}
    for position, item in enumerate(items):
        positions.setdefault(_hashable(_identity(item, merge_key)), position)
    return positions


def _identity(item: Any, merge_key: str) -> Any:
    """Return what tells a list element from others: its merge key, or itself."""
    if not isinstance(item, dict) or not merge_key:
        return item
    if merge_key not in item:
        raise PatchError(f"map: {item} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _hashable(identity: Any) -> Any:
    return repr(identity) if isinstance(identity, dict | list) else identity


def _unique(items: list[Any]) -> list[Any]:
    seen: set[Any] = set()
    unique = []
    for item in items:
        identity = _hashable(item)
        if identity not in seen:
            seen.add(identity)
            unique.append(item)
    return unique


def _without_directives(value: Any) -> Any:
    """Return a patch value as plain data, for a place where there is nothing to merge with."""
    if isinstance(value, dict):
        return {
            key: _without_directives(item)
            for key, item in value.items()
            if item is not None and not _is_directive(key) and not _is_deletion(item)
        }
    if isinstance(value, list):
        return [
            _without_directives(item)
            for item in value
            if not (isinstance(item, dict) and DIRECTIVE in item)
        ]
    return value


def _is_directive(key: str) -> bool:
    return key in (DIRECTIVE, RETAIN_KEYS) or key.startswith((DELETE_PREFIX, ORDER_PREFIX))


def _is_deletion(value: Any) -> bool:
    return isinstance(value, dict) and value.get(DIRECTIVE) == "delete"


def _strategy(field: FieldLike | None) -> str:
    """Return "merge", "replace" or "" (the default of the field's kind)."""
    words = ((field.patch if field else None) or "").split(",")
    return next((word for word in words if word in ("merge", "replace")), "")


def _key(field: FieldLike | None) -> str:
    return (field.key if field else None) or ""


def _fields_of(shape: ShapeLike | None) -> _Lookup:
    return shape.fields.get if shape else _unknown


def _children_of(field: FieldLike | None) -> _Lookup:
    if field is None:
        return _unknown
    if field.is_map and not field.is_list:
        entry = _Entry(field.element)
        return lambda key: entry
    return _fields_of(field.element)


def _unknown(key: str) -> FieldLike | None:
    return None
