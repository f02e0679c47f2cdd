"""`runtime.client.Client` without a socket: the embedded controllers' way to the API.

It calls the same `resources` the HTTP face calls, so validation, admission and conflicts are
the same; only encoding is saved. Objects it returns are the store's own dicts: shared, never to
be changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from holdfast.api import errors, kinds, patches
from holdfast.api.kinds import Kind
from holdfast.apiserver import binding
from holdfast.apiserver.options import DeleteOptions, WriteOptions
from holdfast.apiserver.resources import Resources
from holdfast.apiserver.selection import Selection
from holdfast.runtime.client import Listing, Object
from holdfast.store import errors as store_errors


class InProcessClient:
    """See `runtime.client.Client` for the contract of each method."""

    def __init__(self, resources: Resources, manager: str = "holdfast") -> None:
        self._resources = resources
        self._manager = manager

    def named(self, manager: str) -> InProcessClient:
        """The same client for another component, which owns the fields it writes."""
        return InProcessClient(self._resources, manager)

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object:
        """See `Client.get`."""
        return self._resources.get(kind, name, namespace).obj

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str = "", fields: str = ""
    ) -> Listing:
        """See `Client.list`."""
        store = self._resources.store
        selection = Selection(kind, namespace, labels, fields)
        prefix = f"{namespace}/" if namespace and kind.namespaced else ""
        items = [record.obj for record in store.scan(kind.bucket, prefix)]
        if not selection.everything:
            items = [obj for obj in items if selection.matches(obj)]
        return Listing(items, str(store.revision))

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
        namespace = namespace or obj.get("metadata", {}).get("namespace")
        if subresource == "binding" and kind is kinds.POD and name:
            return (
                await binding.bind(
                    self._resources, name, namespace, obj, WriteOptions(manager=self._manager)
                )
            ).obj
        if subresource is not None:
            raise errors.NotFound.resource()
        return (
            await self._resources.create(kind, obj, namespace, WriteOptions(manager=self._manager))
        ).obj

    async def replace(self, kind: Kind, obj: Object, *, subresource: str | None = None) -> Object:
        """See `Client.replace`."""
        meta = obj["metadata"]
        return await self._update(
            kind, meta["name"], meta.get("namespace"), lambda old: obj, subresource
        )

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
        return await self._update(
            kind,
            name,
            namespace,
            lambda old: patches.merge_patch(old, patch),
            subresource,
            patches=True,
        )

    async def _update(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        change: Callable[[Object], Any],
        subresource: str | None,
        *,
        patches: bool = False,
    ) -> Object:
        if subresource is not None and subresource not in kind.subresources:
            raise errors.NotFound.resource()
        options = WriteOptions(manager=self._manager, patches=patches)
        record = await self._resources.update(kind, name, namespace, change, options, subresource)
        return record.obj

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
        options = DeleteOptions(uid=uid, grace=grace, propagation=propagation)
        record, _ = await self._resources.delete(kind, name, namespace, options)
        return record.obj

    async def watch(
        self, kind: Kind, namespace: str | None = None, *, revision: str
    ) -> AsyncIterator[tuple[str, Object]]:
        """See `Client.watch`."""
        prefix = f"{namespace}/" if namespace and kind.namespaced else ""
        try:
            watcher = self._resources.store.watch(kind.bucket, int(revision))
        except store_errors.Compacted as error:
            message = f"too old resource version: {revision} ({error.floor})"
            raise errors.Expired.of(message) from error
        except store_errors.FutureRevision as error:
            raise errors.Timeout.future(error.revision, error.current) from error
        try:
            while events := await watcher.batch():
                for event in events:
                    if not prefix or event.record.key.startswith(prefix):
                        yield event.type, event.record.obj
        finally:
            watcher.close()
        if watcher.overflowed:
            raise errors.Expired.of("the watch fell too far behind; list again")
