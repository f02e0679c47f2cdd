"""JSON schemas of the served types, made from their shapes.

Both OpenAPI documents describe the same types and differ in three places: where
references point, how a value that may be a number or a string is written, and
whether a reference may have neighbours (in version 3 it is wrapped in `allOf`).
`Dialect` holds these; `collect` walks everything reachable from a set of kinds.

Schema names are the ones Kubernetes publishes (`io.k8s.api.core.v1.Pod`), since
clients look types up by `x-kubernetes-group-version-kind` but people read names.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.api import kinds, shapes
from holdfast.api.kinds import Kind
from holdfast.api.shapes import Field, Shape

Schema = dict[str, Any]

GVK: Final = "x-kubernetes-group-version-kind"
META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1"

_META_TYPES: Final = frozenset(
    {
        "Condition",
        "DeleteOptions",
        "LabelSelector",
        "LabelSelectorRequirement",
        "ListMeta",
        "ManagedFieldsEntry",
        "ObjectMeta",
        "OwnerReference",
        "Preconditions",
        "Status",
        "StatusCause",
        "StatusDetails",
    }
)

_PLAIN: Final[Mapping[str, Schema]] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
    "texts": {"type": "array", "items": {"type": "string"}},
}

# Types with a schema of their own that is not an object with properties.
_NAMED: Final[Mapping[str, tuple[str, Schema]]] = {
    "time": (
        f"{META}.Time",
        {
            "type": "string",
            "format": "date-time",
            "description": "A point in time in RFC 3339, to the second.",
        },
    ),
    "microtime": (
        f"{META}.MicroTime",
        {
            "type": "string",
            "format": "date-time",
            "description": "A point in time in RFC 3339, to the microsecond.",
        },
    ),
    "quantity": (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        {"description": "An exact amount with an optional suffix: 500m, 10Gi (2^30), 10G (10^9)."},
    ),
    "intorstring": (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        {
            "format": "int-or-string",
            "description": "A number, or a string such as a name or a percentage.",
        },
    ),
    "any": (
        "io.k8s.apimachinery.pkg.runtime.RawExtension",
        {"type": "object", "description": "Any JSON object."},
    ),
    "fields": (
        f"{META}.FieldsV1",
        {"type": "object", "description": "The set of fields a manager owns, as a trie."},
    ),
}


@dataclass(frozen=True)
class Dialect:
    """What sets the two versions of OpenAPI apart."""

    prefix: str
    wrap_references: bool
    unions: bool

    def reference(self, name: str) -> Schema:
        """Point at another schema, alone."""
        return {"$ref": self.prefix + name}

    def member(self, schema: Schema, described: Schema) -> Schema:
        """Add a description and extensions to the schema of a field."""
        if "$ref" in schema and self.wrap_references and described:
            return {"allOf": [schema], **described}
        return {**schema, **described}

    def special(self, type_name: str) -> Schema:
        """Return the schema of one of the types that are not plain objects."""
        schema = dict(_NAMED[type_name][1])
        if type_name == "quantity":
            either: Schema = {"oneOf": [{"type": "string"}, {"type": "number"}]}
            schema |= either if self.unions else {"type": "string"}
        if type_name == "intorstring":
            either = {"oneOf": [{"type": "integer"}, {"type": "string"}]}
            schema |= either if self.unions else {"type": "string"}
        return schema


V2: Final = Dialect("#/definitions/", wrap_references=False, unions=False)
V3: Final = Dialect("#/components/schemas/", wrap_references=True, unions=True)


def collect(found: Iterable[Kind], extra: Iterable[str], dialect: Dialect) -> dict[str, Schema]:
    """Return all schemas the kinds and the extra types need, by name, in the order of names."""
    walk = _Walk(dialect)
    for kind in found:
        walk.add_kind(kind)
    for type_name in extra:
        walk.add(shapes.of(type_name))
    return dict(sorted(walk.schemas.items()))


def name_of(type_name: str) -> str:
    """Return the published name of a type."""
    if type_name in _META_TYPES:
        return f"{META}.{type_name}"
    return f"{_packages().get(type_name, package(''))}.{type_name}"


def package(group: str, version: str = "v1") -> str:
    """Return the prefix of the types of a group."""
    if group.count(".") > 2:
        # The types of custom resources are named after their group, read backwards.
        return f"{'.'.join(reversed(group.split('.')))}.{version}"
    return f"io.k8s.api.{group.partition('.')[0] or 'core'}.{version}"


@functools.cache
def _packages() -> dict[str, str]:
    """Say which package each type belongs to: that of the first kind that uses it."""
    found = {"PodTemplateSpec": package("")}
    for kind in (kinds.SCALE, kinds.EVICTION):
        found |= {shape.name: package(kind.group) for shape in _own(kind)}
    for kind in sorted(kinds.SERVED, key=lambda kind: kind.group):
        for shape in _reachable(kind.shape, set()):
            found.setdefault(shape.name, package(kind.group, kind.version))
    return found


def _own(kind: Kind) -> Iterator[Shape]:
    """Yield the types that only this kind uses: those whose names begin with its own."""
    return (shape for shape in _reachable(kind.shape, set()) if shape.name.startswith(kind.name))


def _reachable(shape: Shape, seen: set[str]) -> Iterator[Shape]:
    if shape.name in seen:
        return
    seen.add(shape.name)
    yield shape
    for field in shape.fields.values():
        if field.element is not None:
            yield from _reachable(field.element, seen)


class _Walk:
    """Collects schemas; a type is added once, before its own fields are looked at."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self.schemas: dict[str, Schema] = {}

    def add_kind(self, kind: Kind) -> None:
        name = self.add(kind.shape)
        self.schemas[name][GVK] = [reference(kind)]
        if "list" not in kind.verbs:
            return
        listed = f"{kind.name}List"
        several = self.add(shapes.of(listed), f"{name}List")
        self.schemas[several][GVK] = [{**reference(kind), "kind": listed}]

    def add(self, shape: Shape, name: str = "") -> str:
        name = name or name_of(shape.name)
        if name in self.schemas:
            return name
        schema: Schema = {"type": "object"}
        self.schemas[name] = schema
        if shape.doc:
            schema["description"] = shape.doc
        schema["properties"] = {
            key: self._member(field) for key, field in sorted(shape.fields.items())
        }
        required = sorted(key for key, field in shape.fields.items() if field.required)
        if required:
            schema["required"] = required
        return name

    def _member(self, field: Field) -> Schema:
        schema = self._type(field.type, field.element)
        if field.enum:
            # What an enumeration limits is the single value, not the list around it.
            limited = schema["items"] if field.is_list else schema
            limited["enum"] = list(field.enum)
        return self._dialect.member(schema, _described(field))

    def _type(self, text: str, element: Shape | None) -> Schema:
        if text.startswith("[]"):
            return {"type": "array", "items": self._type(text.removeprefix("[]"), element)}
        if text.startswith("map[string]"):
            values = self._type(text.removeprefix("map[string]"), element)
            return {"type": "object", "additionalProperties": values}
        if text in _PLAIN:
            return dict(_PLAIN[text])
        if text in _NAMED:
            name = _NAMED[text][0]
            self.schemas.setdefault(name, self._dialect.special(text))
            return self._dialect.reference(name)
        return self._dialect.reference(self.add(element or shapes.of(text)))


def reference(kind: Kind) -> dict[str, str]:
    """Return the value of the extension that ties a schema or an operation to a kind."""
    return {"group": kind.group, "version": kind.version, "kind": kind.name}


def _described(field: Field) -> Schema:
    """Return what a field says about itself beside its type."""
    found: Schema = {}
    if field.doc:
        found["description"] = field.doc
    if field.default is not None:
        found["default"] = field.default
    if field.list:
        found["x-kubernetes-list-type"] = field.list
    if field.keys:
        found["x-kubernetes-list-map-keys"] = list(field.keys)
    if field.atomic:
        found["x-kubernetes-map-type"] = "atomic"
    if field.patch:
        found["x-kubernetes-patch-strategy"] = field.patch
    if field.key:
        found["x-kubernetes-patch-merge-key"] = field.key
    return found
