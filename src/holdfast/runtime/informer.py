"""A list+watch cache of one kind, with indexes, shared by every controller that reads it.

The informer lists, then follows the watch; when the watch's revision is too old it lists again
and works out what changed. Handlers are called synchronously for each change, in order, and
must only note what to do (enqueue a key).

The invariant: the cache never goes backwards. A change older than what is cached, also one fed
back through `observe`, is dropped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable, Iterable

from holdfast.api import errors
from holdfast.api.kinds import Kind
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client, Object, revision_of

log = logging.getLogger("holdfast.runtime")

Key = tuple[str, str]
Handler = Callable[[Object | None, Object | None], None]
KeysOf = Callable[[Object], Iterable[Hashable]]
_EMPTY: dict[Key, Object] = {}


def key_of(obj: Object) -> Key:
    """(namespace, name); the namespace of a cluster-scoped object is ""."""
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


class _Index:
    """Objects by a value computed from them."""

    def __init__(self, keys_of: KeysOf) -> None:
        self._keys_of = keys_of
        self._objects: dict[Hashable, dict[Key, Object]] = {}

    def replace(self, key: Key, old: Object | None, new: Object | None) -> None:
        if old is not None:
            for value in self._keys_of(old):
                bucket = self._objects.get(value)
                if bucket is not None:
                    bucket.pop(key, None)
                    if not bucket:
                        del self._objects[value]
        if new is not None:
            for value in self._keys_of(new):
                self._objects.setdefault(value, {})[key] = new

    def get(self, value: Hashable) -> Collection[Object]:
        return self._objects.get(value, _EMPTY).values()


class Informer:
    """See the module's text."""

    def __init__(self, client: Client, kind: Kind) -> None:
        self._client = client
        self.kind = kind
        self._objects: dict[Key, Object] = {}
        self._indexes: dict[str, _Index] = {}
        self._handlers: list[Handler] = []
        self._seen = 0
        self._synced = asyncio.Event()

    # Reading

    def get(self, name: str, namespace: str | None = None) -> Object | None:
        """The cached object."""
        return self._objects.get((namespace or "", name))

    def all(self) -> Collection[Object]:
        """Every cached object; a live view, copy it before awaiting."""
        return self._objects.values()

    def by(self, index: str, value: Hashable) -> Collection[Object]:
        """The objects an index has under a value; a live view, copy it before awaiting."""
        return self._indexes[index].get(value)

    async def synced(self) -> None:
        """Wait for the first list."""
        await self._synced.wait()

    # Set-up

    def add_index(self, name: str, keys: KeysOf) -> None:
        """Index objects by what `keys` returns for them. The same name twice is one index."""
        if name in self._indexes:
            return
        index = self._indexes[name] = _Index(keys)
        for key, obj in self._objects.items():
            index.replace(key, None, obj)

    def subscribe(self, handler: Handler) -> None:
        """Call `handler(old, new)` for each change: (None, new) add, (old, None) delete."""
        self._handlers.append(handler)
        for obj in list(self._objects.values()):
            handler(None, obj)

    # Following

    def observe(self, obj: Object) -> None:
        """Take in what a write returned, so that the next read sees one's own write."""
        revision = revision_of(obj)
        # At or below what the watch has delivered, the object may be deleted already.
        if revision > self._seen:
            self._set(obj, revision)

    async def run(self) -> None:
        """List and watch until cancelled."""
        backoff = Backoff(0.2, 30.0)
        while True:
            try:
                await self._list()
                backoff.forget(self.kind)
                await self._follow()
            except errors.Expired:
                continue
            except (errors.StatusError, OSError) as error:
                delay = backoff.next(self.kind)
                log.warning(
                    "list or watch failed, trying again",
                    extra={"kind": self.kind.name, "seconds": delay, "error": str(error)},
                )
                await asyncio.sleep(delay)

    async def _list(self) -> None:
        listing = await self._client.list(self.kind)
        found = {key_of(obj): obj for obj in listing.items}
        self._seen = max(self._seen, int(listing.revision))
        for key in [key for key in self._objects if key not in found]:
            self._remove(key)
        for obj in found.values():
            self._set(obj, revision_of(obj))
        self._synced.set()

    async def _follow(self) -> None:
        while True:
            revision = str(self._seen)
            async for type, obj in self._client.watch(self.kind, revision=revision):
                current = revision_of(obj)
                if type == "DELETED":
                    self._deleted(obj, current)
                elif type != "BOOKMARK":
                    self._set(obj, current)
                self._seen = max(self._seen, current)

    def _set(self, obj: Object, revision: int) -> None:
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None and revision_of(old) >= revision:
            return
        self._objects[key] = obj
        self._changed(key, old, obj)

    def _deleted(self, obj: Object, revision: int) -> None:
        key = key_of(obj)
        old = self._objects.get(key)
        # A newer object of the same name, observed before this deletion was delivered.
        if old is not None and revision_of(old) <= revision:
            self._remove(key)

    def _remove(self, key: Key) -> None:
        self._changed(key, self._objects.pop(key), None)

    def _changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        for index in self._indexes.values():
            index.replace(key, old, new)
        for handler in self._handlers:
            handler(old, new)


class Informers:
    """The one informer per kind of a process."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._informers: dict[Kind, Informer] = {}
        self._group: asyncio.TaskGroup | None = None

    def of(self, kind: Kind) -> Informer:
        """The shared informer of a kind, started with the others."""
        informer = self._informers.get(kind)
        if informer is None:
            informer = self._informers[kind] = Informer(self._client, kind)
            if self._group is not None:
                self._group.create_task(informer.run())
        return informer

    async def run(self) -> None:
        """Run every informer, those asked for later too, until cancelled."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            for informer in list(self._informers.values()):
                group.create_task(informer.run())
            await asyncio.get_running_loop().create_future()

    async def synced(self) -> None:
        """Wait until every informer asked for so far has listed."""
        for informer in list(self._informers.values()):
            await informer.synced()
