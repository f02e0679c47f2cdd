"""A client that may do what a role's rules allow, as Kubernetes' RBAC reads them, and notes it.

`used` holds every (group, resource, verb) that was asked for and allowed, so that a test can also
say which rules nobody needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Client, Listing, Object

Grant = tuple[str, str, str]


def grants(rules: Iterable[Mapping[str, Any]]) -> dict[Grant, frozenset[str]]:
    """Return what rules allow, with the names it is limited to (none: any)."""
    found: dict[Grant, frozenset[str]] = {}
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    found[(group, resource, verb)] = frozenset(rule.get("resourceNames", ()))
    return found


class RoleClient:
    """A client with the rights of a role."""

    def __init__(self, client: Client, rules: Iterable[Mapping[str, Any]]) -> None:
        self._client = client
        self._grants = grants(rules)
        self.used: set[Grant] = set()
        self.refused: list[Grant] = []

    def _check(self, kind: Kind, verb: str, name: str = "", subresource: str | None = None) -> None:
        resource = f"{kind.plural}/{subresource}" if subresource else kind.plural
        grant = (kind.group, resource, verb)
        names = self._grants.get(grant)
        if names is None or (names and name not in names):
            self.refused.append(grant)
            raise errors.Forbidden(f"the role does not allow to {verb} {resource} {name}")
        self.used.add(grant)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        """See `Client.get`."""
        self._check(kind, "get", name)
        return await self._client.get(kind, name, namespace)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listing:
        """See `Client.list`."""
        self._check(kind, "list")
        return await self._client.list(kind, namespace, labels=labels, fields=fields)

    async def create(
        self,
        kind: Kind,
        obj: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        name: str | None = None,
    ) -> Object:
        """See `Client.create`."""
        self._check(kind, "create", "", subresource)
        return await self._client.create(kind, obj, namespace, subresource=subresource, name=name)

    async def replace(self, kind: Kind, obj: Object, *, subresource: str | None = None) -> Object:
        """See `Client.replace`."""
        self._check(kind, "update", obj["metadata"]["name"], subresource)
        return await self._client.replace(kind, obj, subresource=subresource)

    async def patch(
        self,
        kind: Kind,
        name: str,
        patch: Object,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
    ) -> Object:
        """See `Client.patch`."""
        self._check(kind, "patch", name, subresource)
        return await self._client.patch(kind, name, patch, namespace, subresource=subresource)

    async def delete(
        self, kind: Kind, name: str, namespace: str | None = None, **options: Any
    ) -> Object:
        """See `Client.delete`."""
        self._check(kind, "delete", name)
        return await self._client.delete(kind, name, namespace, **options)

    def watch(
        self, kind: Kind, namespace: str | None = None, *, revision: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """See `Client.watch`."""
        self._check(kind, "watch")
        return self._client.watch(kind, namespace, revision=revision)
