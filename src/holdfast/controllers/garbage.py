"""Deletes what belongs to objects that are gone: garbage collection by owner reference.

An object whose owners are all gone is deleted; one that still has an owner only loses the
references to those that are gone. An owner deleted in the foreground waits for the dependents
that block it; one that is to orphan its dependents waits until they have forgotten it.

The invariant: an owner counts as gone only after the API itself has said so, never by a cache; an
owner of a kind nobody serves here is never gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import Controller, Done, Outcome
from holdfast.runtime.informer import Informer, Informers
from holdfast.runtime.recorder import Recorder

COMPONENT = "garbage-collector-controller"
FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
_BY_OWNER = "garbage/by-owner"
_WORKERS = 8
# Events belong to nobody, and there are many.
_KINDS = tuple(kind for kind in kinds.ALL if kind is not kinds.EVENT)


class _Key(NamedTuple):
    kind: Kind
    namespace: str
    name: str


class GarbageCollector:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._caches: dict[Kind, Informer] = {kind: informers.of(kind) for kind in _KINDS}
        for cache in self._caches.values():
            cache.add_index(_BY_OWNER, _owners_of)
        self.loop = Controller("garbage", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._informers.synced()
        for kind, cache in self._caches.items():
            self._follow(kind, cache)
        await self.loop.run()

    def _follow(self, kind: Kind, cache: Informer) -> None:
        def changed(old: Object | None, new: Object | None) -> None:
            if new is None:
                assert old is not None
                self._gone(old)
                return
            meta = new["metadata"]
            owned = "ownerReferences" in meta and (
                old is None or old["metadata"].get("ownerReferences") != meta["ownerReferences"]
            )
            if owned or ("deletionTimestamp" in meta and _waits(new)):
                self.loop.enqueue(_Key(kind, meta.get("namespace", ""), meta["name"]))

        cache.subscribe(changed)

    def _gone(self, obj: Object) -> None:
        for kind, dependent in self._dependents(obj["metadata"]["uid"]):
            self._enqueue(kind, dependent)
        self._wake_owners(obj)

    def _wake_owners(self, obj: Object) -> None:
        namespace = obj["metadata"].get("namespace", "")
        for reference in obj["metadata"].get("ownerReferences") or ():
            kind = kinds.by_name(reference["apiVersion"], reference["kind"])
            if kind is not None and kind in self._caches:
                where = namespace if kind.namespaced else ""
                self.loop.enqueue(_Key(kind, where, reference["name"]))

    def _enqueue(self, kind: Kind, obj: Object) -> None:
        meta = obj["metadata"]
        self.loop.enqueue(_Key(kind, meta.get("namespace", ""), meta["name"]))

    def _dependents(self, uid: str) -> Iterator[tuple[Kind, Object]]:
        for kind, cache in self._caches.items():
            for obj in list(cache.by(_BY_OWNER, uid)):
                yield kind, obj

    async def reconcile(self, key: _Key) -> Outcome:
        """Look at the object once, as an owner and as a dependent."""
        obj = self._caches[key.kind].get(key.name, key.namespace)
        if obj is None:
            return Done
        try:
            if "deletionTimestamp" in obj["metadata"]:
                finalizers = obj["metadata"].get("finalizers") or ()
                if ORPHAN in finalizers:
                    await self._orphan(key.kind, obj)
                elif FOREGROUND in finalizers:
                    await self._finish_foreground(key.kind, obj)
            else:
                await self._check_owners(key.kind, obj)
        except errors.NotFound:
            return Done
        return Done

    # As a dependent

    async def _check_owners(self, kind: Kind, obj: Object) -> None:
        references: list[Object] = obj["metadata"].get("ownerReferences") or []
        if not references:
            return
        solid, waiting = [], False
        for reference in references:
            state = await self._state_of(kind, obj, reference)
            if state == "there":
                solid.append(reference)
            waiting = waiting or state == "waiting"
        if len(solid) == len(references):
            return
        if solid:
            await self._patch(kind, obj, {"ownerReferences": solid})
            return
        meta = obj["metadata"]
        has_dependents = any(True for _ in self._dependents(meta["uid"]))
        await self._client.delete(
            kind,
            meta["name"],
            meta.get("namespace"),
            uid=meta["uid"],
            propagation="Foreground" if waiting and has_dependents else "Background",
        )

    async def _state_of(self, kind: Kind, obj: Object, reference: Object) -> str:
        """Say whether an owner is `there`, `gone`, or `waiting` for its dependents to go."""
        owner_kind = kinds.by_name(reference["apiVersion"], reference["kind"])
        if owner_kind is None or owner_kind not in self._caches:
            return "there"
        if owner_kind.namespaced and not kind.namespaced:
            text = (
                f"ownerRef [{reference['apiVersion']}/{reference['kind']}, "
                f"name: {reference['name']}, uid: {reference['uid']}] is namespaced, but the "
                "object is not"
            )
            self._recorder.event(obj, "Warning", "OwnerRefInvalidNamespace", text)
            return "there"
        namespace = obj["metadata"].get("namespace") if owner_kind.namespaced else None
        owner = self._caches[owner_kind].get(reference["name"], namespace)
        if owner is None or owner["metadata"]["uid"] != reference["uid"]:
            try:
                owner = await self._client.get(owner_kind, reference["name"], namespace)
            except errors.NotFound:
                return "gone"
        meta = owner["metadata"]
        if meta["uid"] != reference["uid"]:
            return "gone"
        going = "deletionTimestamp" in meta and FOREGROUND in (meta.get("finalizers") or ())
        return "waiting" if going else "there"

    # As an owner

    async def _finish_foreground(self, kind: Kind, obj: Object) -> None:
        blocked = False
        uid = obj["metadata"]["uid"]
        for dependent_kind, dependent in self._dependents(uid):
            if "deletionTimestamp" not in dependent["metadata"]:
                self._enqueue(dependent_kind, dependent)
            blocked = blocked or any(
                reference["uid"] == uid and reference.get("blockOwnerDeletion")
                for reference in dependent["metadata"]["ownerReferences"]
            )
        if not blocked:
            await self._let_go(kind, obj, FOREGROUND)

    async def _orphan(self, kind: Kind, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        for dependent_kind, dependent in self._dependents(uid):
            references = dependent["metadata"]["ownerReferences"]
            kept = [reference for reference in references if reference["uid"] != uid]
            try:
                await self._patch(dependent_kind, dependent, {"ownerReferences": kept or None})
            except errors.NotFound:
                continue
        await self._let_go(kind, obj, ORPHAN)

    async def _let_go(self, kind: Kind, obj: Object, finalizer: str) -> None:
        kept = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
        await self._patch(kind, obj, {"finalizers": kept})

    async def _patch(self, kind: Kind, obj: Object, metadata: Object) -> None:
        meta = obj["metadata"]
        based = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        written = await self._client.patch(
            kind, meta["name"], {"metadata": {**metadata, **based}}, meta.get("namespace")
        )
        if "deletionTimestamp" not in written["metadata"]:
            self._caches[kind].observe(written)


def _waits(obj: Object) -> bool:
    finalizers = obj["metadata"].get("finalizers") or ()
    return FOREGROUND in finalizers or ORPHAN in finalizers


def _owners_of(obj: Object) -> tuple[str, ...]:
    references = obj["metadata"].get("ownerReferences")
    return tuple(reference["uid"] for reference in references) if references else ()
