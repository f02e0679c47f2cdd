"""A power failure at a chosen write: a client whose writes stop happening, or stop answering.

A test runs controllers on a `CutClient` and waits for `Cut.happened`; from then on nothing they
write takes effect, and nothing they wait for returns, until the test throws them away. What is
in the store is what a crash at that moment would have left there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeVar

from holdfast.api import kinds
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Client, Listing, Object

T = TypeVar("T")


class Cut:
    """Stops the writes of a control plane: `at` counts them from 1.

    With `after`, the write at which it stops has happened, only its answer never arrives.
    Events are not counted: they are told late or not at all after any crash.
    """

    def __init__(self, at: int, *, after: bool) -> None:
        self._left = at
        self._after = after
        self.happened = asyncio.Event()

    async def write(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do the work, or never return."""
        if self.happened.is_set():
            await _never()
        self._left -= 1
        if self._left:
            return await work()
        self.happened.set()
        if self._after:
            await work()
        return await _never()


async def _never() -> NoReturn:
    await asyncio.get_running_loop().create_future()
    raise AssertionError("a future that nobody sets")


class CutClient:
    """A client whose writes a `Cut` may stop."""

    def __init__(self, client: Client, cut: Cut) -> None:
        self._client = client
        self._cut = cut

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        """See `Client.get`."""
        return await self._client.get(kind, name, namespace)

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listing:
        """See `Client.list`."""
        return await self._client.list(kind, namespace, labels=labels, fields=fields)

    async def create(
        self, kind: Kind, obj: Object, namespace: str | None = None, **options: Any
    ) -> Object:
        """See `Client.create`."""
        if kind is kinds.EVENT:
            return await self._client.create(kind, obj, namespace)
        return await self._cut.write(lambda: self._client.create(kind, obj, namespace, **options))

    async def replace(self, kind: Kind, obj: Object, *, subresource: str | None = None) -> Object:
        """See `Client.replace`."""
        return await self._cut.write(
            lambda: self._client.replace(kind, obj, subresource=subresource)
        )

    async def patch(
        self, kind: Kind, name: str, patch: Object, namespace: str | None = None, **options: Any
    ) -> Object:
        """See `Client.patch`."""
        if kind is kinds.EVENT:
            return await self._client.patch(kind, name, patch, namespace)
        return await self._cut.write(
            lambda: self._client.patch(kind, name, patch, namespace, **options)
        )

    async def delete(
        self, kind: Kind, name: str, namespace: str | None = None, **options: Any
    ) -> Object:
        """See `Client.delete`."""
        return await self._cut.write(lambda: self._client.delete(kind, name, namespace, **options))

    def watch(
        self, kind: Kind, namespace: str | None = None, *, revision: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """See `Client.watch`."""
        return self._client.watch(kind, namespace, revision=revision)
