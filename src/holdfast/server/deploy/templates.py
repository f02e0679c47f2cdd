"""Renders the part of Helm's template language that the chart keeps to.

    {{ .Values.a.b | quote }}   a value through functions: quote, toJson, sha256sum
    {{- if .x }} {{- else }} {{- end }}    by Go's idea of true
    {{- range .x }} {{ . }} {{- end }}    a list
    {{- range $k, $v := .x }} {{ $v.y }} {{- end }}    a mapping, by its sorted keys

A dash inside the braces takes away the white space on its side. Invariant: anything else is an
error that names the template and the text, never a silent difference from Helm.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_ACTION = re.compile(r"\{\{(-)?\s*(.*?)\s*(-)?\}\}", re.DOTALL)
_RANGE = re.compile(r"range (\$\w+), (\$\w+) := (\S+)")
_PATH = re.compile(r"(\$\w+)?(\.\w+)*|\.")

Scope = Mapping[str, Any]


class TemplateError(Exception):
    """A template says something that is not rendered here: which, and what."""


@dataclass(slots=True)
class _Node:
    """An action with its body; text has no action."""

    action: str
    text: str = ""
    body: list[_Node] = field(default_factory=list)
    otherwise: list[_Node] = field(default_factory=list)


def render(name: str, text: str, values: Scope) -> str:
    """Render a template; `values` is the dot at the top. Raises TemplateError."""
    tokens = _tokens(text)
    nodes, end = _parse(name, tokens)
    if end:
        raise TemplateError(f"{name}: {{{{ {end} }}}} closes nothing")
    return "".join(_render(name, nodes, {"": values}))


def _tokens(text: str) -> Iterator[tuple[str, bool]]:
    """Yield (text, False) and (action, True), white space taken away where a dash says so."""
    position, strip = 0, False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if strip else before
        yield before.rstrip() if match[1] else before, False
        yield match[2], True
        position, strip = match.end(), bool(match[3])
    rest = text[position:]
    yield rest.lstrip() if strip else rest, False


def _parse(name: str, tokens: Iterator[tuple[str, bool]]) -> tuple[list[_Node], str]:
    """Return nodes up to an `else`, an `end` or the end of the text, and which it was."""
    nodes: list[_Node] = []
    for text, is_action in tokens:
        if not is_action:
            nodes.append(_Node("", text))
        elif text in ("end", "else"):
            return nodes, text
        elif text.startswith(("if ", "range ")):
            node = _Node(text)
            node.body, last = _parse(name, tokens)
            if last == "else":
                node.otherwise, last = _parse(name, tokens)
            if last != "end":
                raise TemplateError(f"{name}: {{{{ {text} }}}} has no end")
            nodes.append(node)
        else:
            nodes.append(_Node(text))
    return nodes, ""


def _render(name: str, nodes: list[_Node], scope: Scope) -> Iterator[str]:
    for node in nodes:
        if not node.action:
            yield node.text
        elif node.action.startswith("if "):
            chosen = node.body if _value(name, node.action[3:], scope) else node.otherwise
            yield from _render(name, chosen, scope)
        elif node.action.startswith("range "):
            for inner in _ranges(name, node.action, scope):
                yield from _render(name, node.body, inner)
        else:
            yield _text(_value(name, node.action, scope))


def _ranges(name: str, action: str, scope: Scope) -> Iterator[Scope]:
    if match := _RANGE.fullmatch(action):
        found = _value(name, match[3], scope) or {}
        for key in sorted(found):
            yield {**scope, match[1]: key, match[2]: found[key], "": found[key]}
        return
    for each in _value(name, action.removeprefix("range "), scope) or ():
        yield {**scope, "": each}


def _value(name: str, expression: str, scope: Scope) -> Any:
    path, *functions = (part.strip() for part in expression.split("|"))
    if not _PATH.fullmatch(path) or not path:
        raise TemplateError(f"{name}: {{{{ {expression} }}}} is not rendered here")
    head, *keys = path.split(".")
    value: Any = scope.get(head)
    if head not in scope:
        raise TemplateError(f"{name}: {head} is not defined")
    for key in filter(None, keys):
        if not isinstance(value, Mapping) or key not in value:
            raise TemplateError(f"{name}: there is no value {path}")
        value = value[key]
    for function in functions:
        if function not in _FUNCTIONS:
            raise TemplateError(f"{name}: there is no function {function} here")
        value = _FUNCTIONS[function](value)
    return value


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (str, int)):
        return str(value)
    raise TemplateError(f"{value!r} is no text: give it through toJson")


def _quote(value: Any) -> str:
    return json.dumps(_text(value), ensure_ascii=False)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _sha256(value: Any) -> str:
    return hashlib.sha256(_text(value).encode()).hexdigest()


_FUNCTIONS: Mapping[str, Callable[[Any], str]] = {
    "quote": _quote,
    "toJson": _json,
    "sha256sum": _sha256,
}
