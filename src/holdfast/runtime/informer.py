"""A list+watch cache of one kind, with indexes, shared by every controller that reads it.

The informer lists, then follows the watch; when the watch's revision is too old it lists again
and works out what changed. Handlers are called synchronously for each change, in order, and
must only note what to do (enqueue a key).

The invariant: the cache never goes backwards. A change older than what is cached, also one fed
back through `observe`, is dropped. The one exception is a server that itself went back (its
state was restored from a backup, or replaced): then its list counts.
"""

from __future__ import annotations

import asyncio
import logging
import sys
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
# How often, in seconds, it is looked whether an optional kind is served by now.
_ABSENT = 30.0
# A watch that ends sooner than this, in seconds, and brought nothing, is a failure.
_SHORT = 1.0


def key_of(obj: Object) -> Key:
    """(namespace, name); the namespace of a cluster-scoped object is ""."""
    meta = obj["metadata"]
    return meta.get("namespace") or "", meta["name"]


def _version(obj: Object) -> tuple[str, str]:
    meta = obj["metadata"]
    return meta.get("uid") or "", meta.get("resourceVersion") or ""


class _Index:
    """Objects by a value computed from them."""

    def __init__(self, keys_of: KeysOf) -> None:
        self._keys_of = keys_of
        self._objects: dict[Hashable, dict[Key, Object]] = {}

    def replace(self, key: Key, old: Object | None, new: Object | None) -> None:
        if old is not None:
            for value in self._values(old):
                bucket = self._objects.get(value)
                if bucket is not None:
                    bucket.pop(key, None)
                    if not bucket:
                        del self._objects[value]
        if new is not None:
            for value in self._values(new):
                self._objects.setdefault(value, {})[key] = new

    def _values(self, obj: Object) -> Collection[Hashable]:
        try:
            return tuple(self._keys_of(obj))
        except Exception:
            # One odd object must not end the informer, and with it the whole process.
            log.exception("object not indexed", extra={"object": "/".join(key_of(obj))})
            return ()

    def get(self, value: Hashable) -> Collection[Object]:
        return self._objects.get(value, _EMPTY).values()


class Informer:
    """See the module's text."""

    def __init__(self, client: Client, kind: Kind, *, optional: bool = False) -> None:
        self._client = client
        self.kind = kind
        self._optional = optional
        self._objects: dict[Key, Object] = {}
        self._indexes: dict[str, _Index] = {}
        self._handlers: tuple[Handler, ...] = ()
        self._seen = 0
        self._backoff = Backoff(0.2, 30.0)
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
        self._handlers = (*self._handlers, handler)
        for obj in list(self._objects.values()):
            self._tell(handler, None, obj)

    # Following

    def observe(self, obj: Object) -> None:
        """Take in what a write returned, so that the next read sees one's own write."""
        revision = revision_of(obj)
        # At or below what the watch has delivered, the object may be deleted already.
        if revision > self._seen:
            self._set(obj, revision)

    async def run(self) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                await self._list()
                await self._follow()
            except errors.Expired as error:
                delay = self._backoff.next(self.kind)
                log.debug("listing again", extra={"kind": self.kind.name, "error": str(error)})
            except (errors.StatusError, OSError) as error:
                delay = self._failed(error)
            await asyncio.sleep(delay)

    def _failed(self, error: errors.StatusError | OSError) -> float:
        """Return after how many seconds to try again."""
        if self._optional and isinstance(error, errors.NotFound):
            return self._absent(error)
        delay = self._backoff.next(self.kind)
        log.warning(
            "list or watch failed, trying again",
            extra={"kind": self.kind.name, "seconds": delay, "error": str(error)},
        )
        return delay

    def _absent(self, error: errors.NotFound) -> float:
        # The server does not serve the kind, so there are no objects of it.
        if not self._synced.is_set():
            log.info("not served", extra={"kind": self.kind.name, "error": str(error)})
        for key in list(self._objects):
            self._remove(key)
        self._seen = 0
        self._synced.set()
        return _ABSENT

    async def _list(self) -> None:
        listing = await self._client.list(self.kind)
        found = {key_of(obj): obj for obj in listing.items}
        revision = int(listing.revision)
        # What was observed while the list was on its way is newer than the list, and stays.
        # Unless the server went back: then nothing from before counts.
        newest = revision if revision >= self._seen else sys.maxsize
        self._seen = revision
        for key, old in list(self._objects.items()):
            if key not in found and revision_of(old) <= newest:
                self._remove(key)
        for key, obj in found.items():
            known = self._objects.get(key)
            if known is None or (_version(known) != _version(obj) and revision_of(known) <= newest):
                self._replace(key, known, obj)
        self._synced.set()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            revision = self._seen
            start = loop.time()
            async for type, obj in self._client.watch(self.kind, revision=str(revision)):
                self._take(type, obj)
                self._backoff.forget(self.kind)
            if loop.time() - start >= _SHORT:
                self._backoff.forget(self.kind)
            elif self._seen == revision:
                raise OSError(f"the watch of {self.kind.plural} ended at once")

    def _take(self, type: str, obj: Object) -> None:
        revision = revision_of(obj)
        if type == "DELETED":
            self._deleted(obj, revision)
        elif type != "BOOKMARK":
            self._set(obj, revision)
        self._seen = max(self._seen, revision)

    def _set(self, obj: Object, revision: int) -> None:
        key = key_of(obj)
        old = self._objects.get(key)
        if old is not None and revision_of(old) >= revision:
            return
        self._replace(key, old, obj)

    def _deleted(self, obj: Object, revision: int) -> None:
        key = key_of(obj)
        old = self._objects.get(key)
        # A newer object of the same name, observed before this deletion was delivered.
        if old is not None and revision_of(old) <= revision:
            self._remove(key)

    def _replace(self, key: Key, old: Object | None, new: Object) -> None:
        self._objects[key] = new
        self._changed(key, old, new)

    def _remove(self, key: Key) -> None:
        self._changed(key, self._objects.pop(key), None)

    def _changed(self, key: Key, old: Object | None, new: Object | None) -> None:
        for index in self._indexes.values():
            index.replace(key, old, new)
        for handler in self._handlers:
            self._tell(handler, old, new)

    def _tell(self, handler: Handler, old: Object | None, new: Object | None) -> None:
        try:
            handler(old, new)
        except Exception:
            # The other handlers must hear of the change all the same.
            log.exception("handler failed", extra={"kind": self.kind.name})


class Informers:
    """The one informer per kind of a process.

    A kind that is `optional` counts as empty where the server does not serve it, as custom
    resources are that an administrator has not installed (yet).
    """

    def __init__(self, client: Client, optional: Collection[Kind] = ()) -> None:
        self._client = client
        self._optional = frozenset(optional)
        self._informers: dict[Kind, Informer] = {}
        self._group: asyncio.TaskGroup | None = None

    def of(self, kind: Kind) -> Informer:
        """The shared informer of a kind, started with the others."""
        informer = self._informers.get(kind)
        if informer is None:
            informer = self._informers[kind] = Informer(
                self._client, kind, optional=kind in self._optional
            )
            if self._group is not None:
                self._group.create_task(informer.run())
        return informer

    async def run(self) -> None:
        """Run every informer, those asked for later too, until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for informer in list(self._informers.values()):
                    group.create_task(informer.run())
                await asyncio.get_running_loop().create_future()
        finally:
            self._group = None

    async def synced(self) -> None:
        """Wait until every informer asked for so far has listed."""
        for informer in list(self._informers.values()):
            await informer.synced()
