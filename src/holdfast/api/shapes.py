"""What objects look like: the structural types of the API, read from data.

`kinds/data/*.json` states, for every type, its fields: name, JSON type, protobuf
number, merge rules, defaults and a sentence of documentation. A `Shape` is one such
type. Decoding, defaulting, strategic merge, protobuf and the OpenAPI document all
follow from it, so a field is described in exactly one place.

The type of a field is written `string bool int32 int64 float quantity time microtime
intorstring bytes texts any fields` or the name of another type, with `[]` or `map[string]`
before it where it repeats.

`Shape.decode` turns what a client sent into the canonical wire form, the very form
Kubernetes answers with: a field at its zero value is left out unless Kubernetes
writes it regardless, and a nested structure that is not optional is always there,
if need be as `{}`. Invariant: decoding a decoded object changes nothing.

There is one `Shape` per type name. All data is read at the first `of`; types are
compiled one by one as values of them turn up.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from holdfast.api import scalars, shape_decoding, shape_defaults

DecodeError = shape_decoding.DecodeError

SCALARS: Final = frozenset(scalars.CONVERTERS)
_DATA: Final = Path(__file__).parent / "kinds" / "data"


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One field of a type, as the data files state it."""

    type: str
    name: str = ""
    tag: int = 0
    """The protobuf field number; 0 where the field does not travel in protobuf."""
    inline: int = 0
    """The number of the protobuf message the field sits in, where JSON has no such level."""
    ptr: bool = False
    """Whether absence and zero differ, so that a zero value is kept."""
    keep: bool = False
    """Whether the field is written even when it is zero."""
    required: bool = False
    key: str = ""
    """The field that identifies an element in a strategic merge."""
    patch: str = ""
    """The strategic merge directive: `merge`, `replace`, `retainKeys`, comma-separated."""
    list: str = ""
    """How server-side apply owns the list: `atomic`, `set` or `map`."""
    keys: tuple[str, ...] = ()
    """The fields that identify an element of a list of kind `map`."""
    atomic: bool | None = None
    """Whether server-side apply owns the value only as a whole; None = as its type says."""
    alias: str = ""
    """The name Kubernetes' messages give to the string type, as in `v1.Protocol`."""
    enum: tuple[str, ...] = ()
    default: Any = None
    doc: str = ""

    @property
    def is_list(self) -> bool:
        return self.type.startswith("[]")

    @property
    def is_map(self) -> bool:
        return self.type.startswith("map[string]")

    @property
    def leaf(self) -> str:
        """The type without `[]` or `map[string]`."""
        return self.type.removeprefix("[]").removeprefix("map[string]")

    @property
    def element(self) -> Shape | None:
        """The shape of the value, or of each element; None for scalars."""
        return None if self.leaf in SCALARS else of(self.leaf)


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One type as a data file states it."""

    fields: dict[str, Field]
    doc: str = ""
    atomic: bool = False


class Shape:
    """One structural type; get it with `of`."""

    def __init__(self, name: str, facts: _Facts) -> None:
        self.name = name
        self.fields: Mapping[str, Field] = facts.fields
        self.doc = facts.doc
        self.atomic = facts.atomic
        """Whether server-side apply owns a value only as a whole, unless the field differs."""

    def __repr__(self) -> str:
        return f"<Shape {self.name}>"

    @functools.cached_property
    def decoder(self) -> shape_decoding.Decoder:
        """The compiled decoder, for the decoders of enclosing types."""
        return shape_decoding.compile_structure(self)

    @functools.cached_property
    def defaulter(self) -> shape_defaults.Defaulter | None:
        """The compiled defaulter; None where nothing below has a default."""
        return shape_defaults.compile_structure(self)

    def decode(self, value: object, unknown: list[str] | None = None) -> dict[str, Any]:
        """Return `value` as a new dict in canonical wire form.

        Dotted paths of fields the type does not have are appended to `unknown`;
        they are dropped either way. Raises `DecodeError`.
        """
        seen: list[str] = []
        result: dict[str, Any] = self.decoder(value, seen)
        if seen and unknown is not None:
            unknown.extend(shape_decoding.find_unknown(self, value))
        return result

    def default(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Fill in the defaults of a decoded object, in place, and return it."""
        fill = self.defaulter
        if fill is not None:
            fill(obj)
        return obj


@functools.cache
def of(name: str) -> Shape:
    """Return the shape of the type called `name`; KeyError if the data has none."""
    facts = _facts()[name]
    for field_name, field in facts.fields.items():
        msgspec.structs.force_setattr(field, "name", field_name)
    return Shape(name, facts)


def names() -> frozenset[str]:
    """The names of all types the data files describe."""
    return frozenset(_facts())


@functools.cache
def _facts() -> dict[str, _Facts]:
    decoder = msgspec.json.Decoder(dict[str, _Facts])
    facts: dict[str, _Facts] = {}
    for path in sorted(_DATA.glob("*.json")):
        types = decoder.decode(path.read_bytes())
        if twice := facts.keys() & types.keys():
            raise ValueError(f"{path.name} describes {min(twice)}, which another file describes")
        facts.update(types)
    return facts
