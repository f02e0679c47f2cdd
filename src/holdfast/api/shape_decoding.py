"""Decoders: from what a client sent to the canonical wire form of a type.

Each type is compiled once, when the first value of it turns up, into one closure
that walks the keys the value has (not those the type has, of which a pod has
hundreds). Nothing keeps track of paths on the way down: an error collects its path
as it passes upwards, and unknown fields are searched for only once one was seen.

The texts of errors are those of a Kubernetes server, Go's type names included,
because they reach the user through clients that show them as they are.

Invariant: a decoder never changes its argument and the result shares no list or
dict with it, except the opaque values of type `any` and `fields`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from holdfast.api import scalars

if TYPE_CHECKING:
    from holdfast.api.shapes import Field, Shape

Decoder = Callable[[Any, list[str]], Any]
"""Takes a value and the list that unknown field names go to; returns the canonical value."""

_Table = dict[str, tuple[Decoder | None, bool]]
_Zeros = tuple[tuple[str, Callable[[], Any]], ...]


class DecodeError(ValueError):
    """A value does not have the type its field has; `path` says which field."""

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.hint = hint
        self.path: list[str] = []
        self.structure = ""

    def enter(self, field: str, structure: str) -> None:
        """Note that the error is at or below `field` of `structure`; innermost first."""
        self.structure = self.structure or structure
        self.path.insert(0, field)

    @property
    def message(self) -> str:
        """What a Kubernetes server would say."""
        return self.text

    @property
    def advice(self) -> list[str]:
        """What to write instead, with the field it is about; no more than one text."""
        return [f"{'.'.join(self.path)}: {self.hint}"] if self.hint else []

    def __str__(self) -> str:
        return self.message


class _Mismatch(DecodeError):
    """A value of another JSON type than the field's."""

    def __init__(self, got: object, wanted: str) -> None:
        super().__init__("")
        self.got = scalars.json_type(got, wanted)
        self.wanted = wanted

    @property
    def message(self) -> str:
        if not self.path:
            return f"json: cannot unmarshal {self.got} into Go value of type {self.wanted}"
        place = ".".join((self.structure, *self.path))
        return (
            f"json: cannot unmarshal {self.got} into Go struct field {place} of type {self.wanted}"
        )


def compile_structure(shape: Shape) -> Decoder:
    """Return the decoder of a structure."""
    # An entry without a function is a plain string, by far the commonest field.
    table: _Table = {}
    for field in shape.fields.values():
        table[field.name] = (_decoder(field, table), field.ptr or _is_always_written(field))
    return _walker(shape, table, tuple(_zeros(shape.fields.values())))


def _walker(shape: Shape, table: _Table, zeros: _Zeros) -> Decoder:
    """Return the function that goes through a structure; strings it reads itself."""
    lookup = table.get

    def decode(value: Any, seen: list[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(value, f"v1.{shape.name}")
        result: dict[str, Any] = {}
        key = ""
        try:
            for key, item in value.items():
                entry = lookup(key)
                if entry is None:
                    seen.append(key)
                    continue
                if item is None:
                    continue
                function, keep = entry
                if function is not None:
                    item = function(item, seen)
                elif type(item) is not str:
                    item = _text(item, shape.fields[key])
                if item or keep:
                    result[key] = item
        except DecodeError as error:
            error.enter(key, shape.name)
            raise
        return _complete(result, zeros)

    return decode


def _complete(result: dict[str, Any], zeros: _Zeros) -> dict[str, Any]:
    for key, make in zeros:
        if key not in result:
            result[key] = make()
    return result


def find_unknown(shape: Shape, value: object, prefix: str = "") -> Iterator[str]:
    """Yield the dotted path of every field below `value` that `shape` does not have."""
    if not isinstance(value, Mapping):
        return
    for key, item in value.items():
        path = f"{prefix}{key}"
        field = shape.fields.get(key)
        if field is None:
            yield path
        elif (element := field.element) is None:
            continue
        elif field.is_list and isinstance(item, list):
            for index, part in enumerate(item):
                yield from find_unknown(element, part, f"{path}[{index}].")
        else:
            yield from find_unknown(element, item, f"{path}.")


def _text(item: object, field: Field) -> str:
    if isinstance(item, str):  # An enum member, say; the wire form is a plain string.
        return str.__str__(item)
    raise _Mismatch(item, field.alias or "string")


def _is_always_written(field: Field) -> bool:
    if field.ptr:
        return False
    if field.keep:
        return True
    # Go's omitempty never leaves out a structure, and these two scalars are structures in Go.
    return field.type in ("quantity", "intorstring") or not (
        field.is_list or field.is_map or field.element is None
    )


def _zeros(fields: Iterable[Field]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the fields that are written even if not given, each with its zero value's maker."""
    for field in fields:
        if not _is_always_written(field) or field.is_list or field.is_map:
            continue
        element = field.element
        if element is not None:
            yield field.name, _zero_maker(element)
        elif field.type in scalars.ZEROS:
            yield field.name, scalars.ZEROS[field.type]


def _zero_maker(shape: Shape) -> Callable[[], dict[str, Any]]:
    if not any(_zeros(shape.fields.values())):
        return dict
    return lambda: shape.decode({})


def _decoder(field: Field, table: _Table) -> Decoder | None:
    element = field.element
    if element is not None:
        return _list_of_structures(field, element) if field.is_list else _structure(field, table)
    if field.is_list:
        return _list_of_scalars(field)
    if field.is_map:
        return _map_of_scalars(field)
    return None if field.type == "string" else _scalar(field.type)


def _structure(field: Field, table: _Table) -> Decoder:
    """Return a decoder that compiles the type at its first call and then steps aside."""

    def compile_and_decode(value: Any, seen: list[str]) -> Any:
        assert field.element is not None
        function = field.element.decoder
        table[field.name] = (function, table[field.name][1])
        return function(value, seen)

    return compile_and_decode


def _list_of_structures(field: Field, element: Shape) -> Decoder:
    def decode(value: Any, seen: list[str]) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _Mismatch(value, f"[]v1.{element.name}")
        function = element.decoder
        # Go reads null as the zero value.
        return [function({} if item is None else item, seen) for item in value]

    return decode


def _list_of_scalars(field: Field) -> Decoder:
    function = _scalar(field.leaf, field.alias)
    wanted = f"[]{field.alias or scalars.GO_TYPES[field.leaf]}"
    zero = scalars.ZEROS.get(field.leaf, lambda: None)

    def decode(value: Any, seen: list[str]) -> list[Any]:
        if not isinstance(value, (list, tuple)):
            raise _Mismatch(value, wanted)
        return [zero() if item is None else function(item, seen) for item in value]

    return decode


def _map_of_scalars(field: Field) -> Decoder:
    function = _scalar(field.leaf, field.alias)
    of_strings = field.leaf == "string"
    go_type = scalars.GO_TYPES[field.leaf]
    wanted = field.alias or f"map[string]{go_type}"
    zero = scalars.ZEROS.get(field.leaf, lambda: None)

    def decode(value: Any, seen: list[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _Mismatch(value, wanted)
        if of_strings:
            for item in value.values():
                if type(item) is not str:
                    break
            else:
                return value.copy()
        return {k: zero() if v is None else function(v, seen) for k, v in value.items()}

    return decode


def _scalar(type_name: str, alias: str = "") -> Decoder:
    convert = scalars.CONVERTERS[type_name]
    wanted = alias if type_name == "string" and alias else scalars.GO_TYPES[type_name]

    def decode(value: Any, seen: list[str]) -> Any:
        try:
            return convert(value)
        except TypeError:
            raise _Mismatch(value, wanted) from None
        except scalars.TextError as error:
            raise DecodeError(str(error), error.hint) from error

    return decode
