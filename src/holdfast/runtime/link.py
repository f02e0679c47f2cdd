"""The network between one node and the API, as something that can be cut.

A node's agent gets its client through a link. Cutting it is for good: every later call fails as
an unreachable server does, and a watch ends at the next event instead of handing it over. The
agent of a node that is connected again is a new one with a new link, as after a reboot; it lists
everything anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Client, Listing, Object


class Link:
    """See `runtime.client.Client` for the contract of the methods."""

    def __init__(self, client: Client, node: str) -> None:
        self._client = client
        self._node = node
        self._is_cut = False

    def cut(self) -> None:
        """Let nothing through any more."""
        self._is_cut = True

    def _reach(self) -> Client:
        if self._is_cut:
            raise errors.ServiceUnavailable(f"the network of node {self._node} is cut")
        return self._client

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        """See `Client.get`."""
        return await self._reach().get(kind, name, namespace)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listing:
        """See `Client.list`."""
        return await self._reach().list(kind, namespace, labels=labels, fields=fields)

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
        client = self._reach()
        return await client.create(kind, obj, namespace, subresource=subresource, name=name)

    async def replace(self, kind: Kind, obj: Object, *, subresource: str | None = None) -> Object:
        """See `Client.replace`."""
        return await self._reach().replace(kind, obj, subresource=subresource)

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
        return await self._reach().patch(kind, name, patch, namespace, subresource=subresource)

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace: int | None = None,
        propagation: str | None = None,
    ) -> Object:
        """See `Client.delete`."""
        return await self._reach().delete(
            kind, name, namespace, uid=uid, grace=grace, propagation=propagation
        )

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, revision: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """See `Client.watch`."""
        async for event in self._reach().watch(kind, namespace, revision=revision):
            self._reach()
            yield event
