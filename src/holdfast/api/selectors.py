"""Label and field selectors, from query text and from objects.

A label selector is a list of requirements that must all hold. It comes as text
(`app=db,tier in (a, b),!old`) or as an object with matchLabels and
matchExpressions. An absent selector object selects nothing, an empty one
everything; so does empty text. `!=` and `notin` hold for a label that is absent.

Field selectors know only equality; which fields a kind offers is for the
caller to decide from `terms`. Error texts follow the reference.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from holdfast.api import fields

_NAME: Final = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_NAME_MATCH = re.compile(_NAME, re.ASCII)
_PREFIX_MATCH = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.A)
_KEY_TEXT: Final = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    f"validation is '{_NAME}')"
)
_VALUE_TEXT: Final = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  "
    f"or '12345', regex used for validation is '({_NAME})?')"
)
_PREFIX_TEXT: Final = (
    "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric "
    "characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
    "'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)

_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)")
_SYMBOLS: Final = frozenset("=!(),<>") | {"==", "!="}
_OPERATORS: Final = {
    "in": "In",
    "notin": "NotIn",
    "=": "In",
    "==": "In",
    "!=": "NotIn",
    ">": "Gt",
    "<": "Lt",
}
_WITH_VALUES: Final = frozenset({"In", "NotIn"})
_WITHOUT_VALUES: Final = frozenset({"Exists", "DoesNotExist"})
_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class SelectorError(ValueError):
    """A selector that cannot be understood or breaks a rule."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label: In, NotIn, Exists, DoesNotExist, Gt or Lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Tell whether the labels satisfy the condition."""
        value = labels.get(self.key)
        match self.operator:
            case "In":
                return value in self.values
            case "NotIn":
                return value not in self.values
            case "Exists":
                return value is not None
            case "DoesNotExist":
                return value is None
        if value is None or not _INTEGER.fullmatch(value):
            return False
        bound = int(self.values[0])
        return int(value) > bound if self.operator == "Gt" else int(value) < bound


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Requirements that must all hold; `nothing` selects no object at all."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @classmethod
    def parse(cls, text: str) -> LabelSelector:
        """Read the syntax of the labelSelector query parameter."""
        return _parse(text)

    @classmethod
    def of(cls, selector: Mapping[str, Any] | None) -> LabelSelector:
        """Read a LabelSelector object."""
        if selector is None:
            return cls(nothing=True)
        labels = selector.get("matchLabels") or {}
        requirements = [_requirement(key, "In", (value,)) for key, value in labels.items()]
        for expression in selector.get("matchExpressions") or ():
            operator = expression.get("operator", "")
            if operator not in _WITH_VALUES | _WITHOUT_VALUES:
                raise SelectorError(
                    f"{fields.quote(operator)} is not a valid label selector operator"
                )
            values = tuple(expression.get("values") or ())
            requirements.append(_requirement(expression.get("key", ""), operator, values))
        return cls(tuple(requirements))

    @property
    def empty(self) -> bool:
        """Whether every object matches."""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Tell whether an object with these labels is selected."""
        if self.nothing:
            return False
        known = labels or {}
        return all(requirement.matches(known) for requirement in self.requirements)


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """Terms (field, "=" or "!=", value) that must all hold."""

    terms: tuple[tuple[str, str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> FieldSelector:
        """Read the syntax of the fieldSelector query parameter.

        A backslash keeps a following backslash, comma or equals sign literal.
        """
        return cls(tuple(_field_term(text, part) for part in _split_terms(text) if part))

    @property
    def empty(self) -> bool:
        """Whether every object matches."""
        return not self.terms

    def matches(self, values: Mapping[str, str]) -> bool:
        """Tell whether an object with these field values is selected; absent means ""."""
        return all(
            (values.get(field, "") == value) == (operator == "=")
            for field, operator, value in self.terms
        )


@functools.lru_cache(maxsize=1024)
def _parse(text: str) -> LabelSelector:
    try:
        return LabelSelector(tuple(_Parser(text).requirements()))
    except SelectorError as error:
        if isinstance(error, _AfterRequirement):
            raise
        raise SelectorError(f"unable to parse requirement: {error}") from error


class _AfterRequirement(SelectorError):
    """What follows a requirement is wrong, so that none is named in the complaint."""


class _Parser:
    """Reads the tokens of a label selector from left to right; "" is the end."""

    def __init__(self, text: str) -> None:
        self._tokens = [found[1] for found in _TOKEN.finditer(text)]
        self._position = 0

    def requirements(self) -> Iterator[Requirement]:
        """Yield the requirements in order."""
        if not self._peek():
            return
        yield self._requirement("!, identifier, or 'end of string'")
        while token := self._next():
            if token != ",":
                raise _AfterRequirement(f"found '{token}', expected: ',' or 'end of string'")
            if self._peek() in ("", ","):
                token = self._peek()
                raise _AfterRequirement(f"found '{token}', expected: identifier after ','")
            yield self._requirement("identifier after ','")

    def _requirement(self, expected: str) -> Requirement:
        token = self._next()
        if token == "!":
            key = self._identifier(self._next(), "identifier")
            _check_key(key, "<nil>")
            return _requirement(key, "DoesNotExist")
        key = self._identifier(token, expected)
        _check_key(key, "<nil>")
        if self._peek() in ("", ","):
            return _requirement(key, "Exists")
        sign = self._next()
        if sign not in _OPERATORS:
            raise SelectorError(f"found '{sign}', expected: in, notin, =, ==, !=, gt, lt")
        if sign in ("in", "notin"):
            return _requirement(key, _OPERATORS[sign], self._set())
        value = "" if self._peek() in ("", ",") else self._identifier(self._next(), "identifier")
        return _requirement(key, _OPERATORS[sign], (value,))

    def _set(self) -> tuple[str, ...]:
        """Read `(a, b)`; an element may be empty."""
        if (token := self._next()) != "(":
            raise SelectorError(f"found '{token}' expected: '('")
        values: list[str] = []
        while True:
            is_value = bool(self._peek()) and self._peek() not in _SYMBOLS
            values.append(self._next() if is_value else "")
            token = self._next()
            if token == ")":
                return tuple(sorted(set(values)))
            if token != ",":
                raise SelectorError(f"found '{token}', expected: ',' or ')'")

    def _identifier(self, token: str, expected: str) -> str:
        if not token or token in _SYMBOLS:
            raise SelectorError(f"found '{token}', expected: {expected}")
        return token

    def _peek(self) -> str:
        return self._tokens[self._position] if self._position < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._position += 1
        return token


def _requirement(key: str, operator: str, values: tuple[str, ...] = ()) -> Requirement:
    """Check a requirement against the rules of labels and build it."""
    _check_key(key)
    if operator in _WITH_VALUES and not values:
        raise _invalid("values", [], "for 'in', 'notin' operators, values set can't be empty")
    if operator in _WITHOUT_VALUES and values:
        detail = "values set must be empty for exists and does not exist"
        raise _invalid("values", list(values), detail)
    for position, value in enumerate(values):
        path = f"values[{position}][{key}]"
        if operator in ("Gt", "Lt") and not _INTEGER.fullmatch(value):
            raise _invalid(path, value, "for 'Gt', 'Lt' operators, the value must be an integer")
        if value and not _NAME_MATCH.fullmatch(value):
            raise _invalid(path, value, _VALUE_TEXT)
        if len(value) > 63:
            raise _invalid(path, value, "must be no more than 63 characters")
    return Requirement(key, operator, values)


def _check_key(key: str, path: str = "key") -> None:
    prefix, slash, name = key.rpartition("/")
    if not name:
        raise _invalid(path, key, "name part must be non-empty")
    if len(name) > 63:
        raise _invalid(path, key, "name part must be no more than 63 characters")
    if slash and not prefix:
        raise _invalid(path, key, "prefix part must be non-empty")
    if "/" in prefix or not _NAME_MATCH.fullmatch(name):
        raise _invalid(path, key, _KEY_TEXT)
    if prefix and (len(prefix) > 253 or not _PREFIX_MATCH.fullmatch(prefix)):
        raise _invalid(path, key, _PREFIX_TEXT)


def _invalid(path: str, value: object, detail: str) -> SelectorError:
    return SelectorError(fields.invalid(path, value, detail).text())


def _split_terms(text: str) -> list[str]:
    """Split at commas that no backslash protects."""
    return re.findall(r"((?:\\.|[^,\\]|\\$)*)(?:,|$)", text, re.DOTALL)


def _field_term(text: str, part: str) -> tuple[str, str, str]:
    found = re.match(r"((?:\\.|[^\\=!]|!(?!=))*)(!=|==|=)(.*)", part, re.DOTALL)
    if found is None:
        raise SelectorError(f"invalid selector: '{text}'; can't understand '{part}'")
    operator = "!=" if found[2] == "!=" else "="
    return found[1], operator, _unescape(found[3])


def _unescape(value: str) -> str:
    plain = []
    characters = iter(value)
    for character in characters:
        if character == "\\":
            escaped = next(characters, "")
            if escaped not in ("\\", ",", "="):
                sequence = character + escaped
                raise SelectorError(f"invalid field selector: invalid escape sequence: {sequence}")
            plain.append(escaped)
        elif character == "=":
            raise SelectorError(
                f"invalid field selector: unescaped character in value: {character}"
            )
        else:
            plain.append(character)
    return "".join(plain)
