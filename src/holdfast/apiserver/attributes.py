"""What a request wants to do, as far as permission goes: a verb, and a resource or a path.

The reading of a path is Kubernetes' own and knows no kinds, because what is not served has to be
refused to those who may not ask in the same words as what is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from holdfast.api import errors
from holdfast.api.selectors import FieldSelector, SelectorError

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update"}
_VERBS |= {"PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACES = ("status", "finalize")

Equalities = tuple[tuple[str, str], ...]
"""The terms of a field selector that ask for one value, as (field, value)."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """One action; `resource` is empty for one that is about a path."""

    verb: str
    path: str = ""
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    fields: Equalities = ()

    @property
    def full_resource(self) -> str:
        """The resource with its subresource, as rules and messages name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


def attributes_of(method: str, path: str, query: dict[str, str]) -> Attributes:
    """What a request wants to do; the server has decoded the path already."""
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) > 2:
        group, rest = "", parts[2:]
    elif parts[0] == "apis" and len(parts) > 3:
        group, rest = parts[1], parts[3:]
    else:
        return Attributes(method.lower(), path=path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
            rest = rest[2:]
    resource, name, subresource = (*rest, "", "")[:3]
    wanted = Attributes(
        _VERBS.get(method, method.lower()), path, group, resource, subresource, namespace, name
    )
    return wanted if name else _of_collection(wanted, query)


def _of_collection(wanted: Attributes, query: dict[str, str]) -> Attributes:
    """Tell list, watch and deletecollection apart; a selected name counts as the name."""
    if wanted.verb == "get":
        watch = query.get("watch")
        following = watch is not None and watch.lower() not in ("0", "false", "f")
        wanted = replace(wanted, verb="watch" if following else "list")
    elif wanted.verb == "delete":
        wanted = replace(wanted, verb="deletecollection")
    else:
        return wanted
    fields = equalities(query.get("fieldSelector", ""))
    name = dict(fields).get("metadata.name", "")
    return replace(wanted, name=name, fields=fields)


def equalities(selector: str) -> Equalities:
    """The terms of a field selector that ask for one value; none when it cannot be read."""
    try:
        terms = FieldSelector.parse(selector).terms if selector else ()
    except SelectorError:
        return ()
    return tuple((field, value) for field, operator, value in terms if operator != "!=")


def refusal(user: str, wanted: Attributes, reason: str = "") -> errors.Forbidden:
    """The answer to an action that is not allowed, in the words of Kubernetes."""
    why = f": {reason}" if reason else ""
    if not wanted.resource:
        text = f'User "{user}" cannot {wanted.verb} path "{wanted.path}"{why}'
        return errors.Forbidden.of("", "", "", text)
    inside = f'in the namespace "{wanted.namespace}"'
    where = inside if wanted.namespace else "at the cluster scope"
    text = (
        f'User "{user}" cannot {wanted.verb} resource "{wanted.full_resource}" '
        f'in API group "{wanted.group}" {where}{why}'
    )
    return errors.Forbidden.of(wanted.group, wanted.resource, wanted.name, text)
