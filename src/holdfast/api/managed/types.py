"""What a shape says about ownership: which values have parts of their own, and which do not.

A value is a leaf when it is owned as a whole: a scalar, an atomic list, an atomic map or
structure. Everything else has parts: the fields of a structure, the keys of a map, the elements
of a list known by key fields (`keys`) or, in a set, by their value.

Types are made from shapes on first use and kept, one per use of a shape.
"""

from __future__ import annotations

import functools
from typing import Any, Final, Literal

from holdfast.api import shapes

Form = Literal["scalar", "structure", "map", "list"]

_SCALARS: Final = {
    "string": "string",
    "bytes": "string",
    "bool": "boolean",
    "int32": "numeric",
    "int64": "numeric",
    "float": "numeric",
    "texts": "opaque",
    "any": "opaque",
    "fields": "opaque",
}
"""The JSON type of each scalar; what is missing here may be any scalar."""


class Type:
    """The type of a value; `element` is that of a map's values or of a list's elements."""

    def __init__(
        self,
        form: Form,
        *,
        atomic: bool = False,
        scalar: str = "",
        shape: shapes.Shape | None = None,
        element: Type | None = None,
        keys: tuple[tuple[str, Any], ...] = (),
    ) -> None:
        self.form = form
        self.leaf = atomic or form == "scalar"
        self.scalar = scalar
        self.element = element
        self.keys = keys
        """The names of a list's key fields, sorted, each with its default or None."""
        self._shape = shape

    @functools.cached_property
    def fields(self) -> dict[str, Type]:
        """The types of a structure's fields; empty for everything else."""
        if self._shape is None:
            return {}
        return {field.name: _of_field(field) for field in self._shape.fields.values()}

    @functools.cached_property
    def stamps(self) -> tuple[str, ...]:
        """The steps to the times Kubernetes writes even when they are not set, as null; whoever
        makes a structure owns them."""
        if self._shape is None:
            return ()
        known = self._shape.fields.values()
        return tuple("f:" + f.name for f in known if f.type in ("time", "microtime") and not f.ptr)

    @functools.cached_property
    def blank(self) -> dict[str, Any]:
        """A structure as it is before anything is set, as a writer's first object is compared
        with: what is written regardless of its value is there, a list or map as None."""
        assert self._shape is not None
        result = self._shape.decode({})
        for field in self._shape.fields.values():
            if (field.is_list or field.is_map) and field.keep and not field.ptr:
                result[field.name] = None
            elif field.name in result and field.element is not None:
                result[field.name] = self.fields[field.name].blank
        return result


@functools.cache
def of_shape(shape: shapes.Shape) -> Type:
    """The type of a whole object."""
    return Type("structure", shape=shape)


def _of_field(field: shapes.Field) -> Type:
    if field.is_list:
        return _of_list(field)
    if field.is_map:
        return Type("map", atomic=bool(field.atomic), element=_of_leaf(field))
    return _of_leaf(field, field.atomic)


def _of_list(field: shapes.Field) -> Type:
    element = _of_leaf(field)
    keys: tuple[tuple[str, Any], ...] = ()
    if field.list == "map" and field.element is not None:
        known = field.element.fields
        keys = tuple((name, known[name].default) for name in sorted(field.keys))
    return Type("list", atomic=field.list not in ("map", "set"), element=element, keys=keys)


def _of_leaf(field: shapes.Field, atomic: bool | None = None) -> Type:
    shape = field.element
    if shape is None:
        return Type("scalar", scalar=_SCALARS.get(field.leaf, "untyped"))
    return Type("structure", atomic=shape.atomic if atomic is None else atomic, shape=shape)
