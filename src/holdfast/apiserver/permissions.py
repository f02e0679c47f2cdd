"""What each group may do, as rules in the form of Kubernetes' roles.

There are no Role and RoleBinding objects here: the groups below and their rules are all there
are. Whoever is authenticated may ask what the server is and what it lets them do; readers see
everything but secrets; what nodes may do depends on the object as well and stands in `nodeaccess`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from holdfast.api import kinds
from holdfast.apiserver import auth
from holdfast.apiserver.attributes import Attributes
from holdfast.apiserver.auth import User

READING = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Rule:
    """Verbs on resources of API groups, or on paths; `*` stands for all."""

    verbs: tuple[str, ...]
    groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def allows(self, wanted: Attributes) -> bool:
        """Tell whether the rule covers an action."""
        if not _named(self.verbs, wanted.verb):
            return False
        if not wanted.resource:
            return any(_covers(path, wanted.path) for path in self.paths)
        return _named(self.groups, wanted.group) and _named(self.resources, wanted.full_resource)


def _named(names: tuple[str, ...], name: str) -> bool:
    return "*" in names or name in names


def _covers(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern


_EVERYTHING = (Rule(("*",), ("*",), ("*",)), Rule(("*",), paths=("*",)))
_HEALTH = ("/healthz", "/livez", "/readyz")
_PUBLIC = (Rule(("get",), paths=(*_HEALTH, *(f"{p}/*" for p in _HEALTH), "/version", "/version/")),)
_BASIC = (
    Rule(
        ("create",),
        ("authorization.k8s.io",),
        ("selfsubjectaccessreviews", "selfsubjectrulesreviews"),
    ),
    Rule(("create",), ("authentication.k8s.io",), ("selfsubjectreviews",)),
    Rule(
        ("get",),
        paths=("/", "/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"),
    ),
)


def _readable() -> Iterator[Rule]:
    """One rule per API group: its resources and what of their subresources is a reading."""
    for group in dict.fromkeys(kind.group for kind in kinds.ALL):
        found = []
        for kind in kinds.ALL:
            if kind.group != group or kind is kinds.SECRET:
                continue
            below = (name for name in kind.subresources if name in ("log", "scale", "status"))
            found += [kind.plural, *(f"{kind.plural}/{name}" for name in below)]
        yield Rule(READING, (group,), tuple(found))


_READER = (*_readable(), Rule(("get",), paths=("/metrics",)))
NODE = (
    Rule(("create",), ("authentication.k8s.io",), ("tokenreviews",)),
    Rule(
        ("create",),
        ("authorization.k8s.io",),
        ("localsubjectaccessreviews", "subjectaccessreviews"),
    ),
    Rule(READING, ("",), ("services",)),
    Rule(("get",), ("",), ("endpoints",)),
    Rule(("create", "patch", "update"), ("",), ("events",)),
    Rule(READING, ("storage.k8s.io",), ("csidrivers",)),
)
"""What every node may do alike; the rest depends on which node it is."""

RULES: dict[str, tuple[Rule, ...]] = {
    auth.MASTERS: _EVERYTHING,
    auth.READERS: _READER,
    auth.AUTHENTICATED: (*_BASIC, *_PUBLIC),
    auth.UNAUTHENTICATED: _PUBLIC,
}
"""The rules of a group; a group that is not here may do nothing."""


def rules_of(user: User) -> Iterator[Rule]:
    """The rules of all groups a user is in, without those of nodes."""
    for group in user.groups:
        yield from RULES.get(group, ())
