"""Keeps claims and volumes that are in use: the two protection finalizers.

A claim that is being deleted stays until no scheduled pod mentions it, a volume until it is not
Bound. A finalizer that somebody took off a living object is put back at once.
"""

from __future__ import annotations

import asyncio

from holdfast.api import errors, kinds, views
from holdfast.controllers import podclaims
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import Controller, Done, Outcome
from holdfast.runtime.informer import Informers

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"
_WORKERS = 8


class Protection:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers) -> None:
        self._client = client
        self._informers = informers
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._pods = informers.of(kinds.POD)
        podclaims.index(self._pods)
        self._claim_loop = Controller("protection/claims", self._claim, workers=_WORKERS)
        self._volume_loop = Controller("protection/volumes", self._volume, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._informers.synced()
        self._claims.subscribe(self._claim_changed)
        self._volumes.subscribe(self._volume_changed)
        self._pods.subscribe(self._pod_changed)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._claim_loop.run())
            group.create_task(self._volume_loop.run())

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and _wants_look(new, CLAIM_FINALIZER):
            self._claim_loop.enqueue((new["metadata"]["namespace"], new["metadata"]["name"]))

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and _wants_look(new, VOLUME_FINALIZER):
            self._volume_loop.enqueue(new["metadata"]["name"])

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is None:
            return
        # Another pod of that name hides the end of the old one; one that has shut down lets go
        # of the claims made for it before it is gone.
        replaced = new is not None and new["metadata"]["uid"] != old["metadata"]["uid"]
        if new is None or replaced or (_shut_down(new) and not _shut_down(old)):
            for key in podclaims.claims_of(old):
                self._claim_loop.enqueue(key)

    async def _claim(self, key: tuple[str, str]) -> Outcome:
        obj = self._claims.get(key[1], key[0])
        if obj is None:
            return Done
        held = CLAIM_FINALIZER in (obj["metadata"].get("finalizers") or ())
        if "deletionTimestamp" not in obj["metadata"]:
            if not held:
                await self._write(kinds.CLAIM, obj, CLAIM_FINALIZER, add=True)
        elif held and not await self._in_use(key):
            await self._write(kinds.CLAIM, obj, CLAIM_FINALIZER, add=False)
        return Done

    async def _in_use(self, key: tuple[str, str]) -> bool:
        if any(_holds(pod, key) for pod in podclaims.using(self._pods, *key)):
            return True
        # The cache may not have the newest pod yet, and what is released cannot be taken back.
        listing = await self._client.list(kinds.POD, key[0])
        return any(_holds(pod, key) for pod in listing.items)

    async def _volume(self, name: str) -> Outcome:
        obj = self._volumes.get(name)
        if obj is None:
            return Done
        held = VOLUME_FINALIZER in (obj["metadata"].get("finalizers") or ())
        if "deletionTimestamp" not in obj["metadata"]:
            if not held:
                await self._write(kinds.VOLUME, obj, VOLUME_FINALIZER, add=True)
        elif held and views.volume(obj).status.phase != "Bound":
            await self._write(kinds.VOLUME, obj, VOLUME_FINALIZER, add=False)
        return Done

    async def _write(self, kind: kinds.Kind, obj: Object, finalizer: str, *, add: bool) -> None:
        meta = obj["metadata"]
        finalizers = [name for name in meta.get("finalizers") or () if name != finalizer]
        if add:
            finalizers.append(finalizer)
        patch = {"metadata": {"finalizers": finalizers, "resourceVersion": meta["resourceVersion"]}}
        try:
            written = await self._client.patch(kind, meta["name"], patch, meta.get("namespace"))
        except errors.NotFound:
            return
        if "deletionTimestamp" not in written["metadata"]:
            self._informers.of(kind).observe(written)


def _holds(pod: Object, key: tuple[str, str]) -> bool:
    """Whether the pod is scheduled and may use the claim."""
    if not pod["spec"].get("nodeName"):
        return False
    if _shut_down(pod):
        return key in podclaims.named_by(pod)
    return key in podclaims.claims_of(pod)


def _shut_down(pod: Object) -> bool:
    meta = pod["metadata"]
    return "deletionTimestamp" in meta and not meta.get("deletionGracePeriodSeconds")


def _wants_look(obj: Object, finalizer: str) -> bool:
    meta = obj["metadata"]
    held = finalizer in (meta.get("finalizers") or ())
    return held == ("deletionTimestamp" in meta)
