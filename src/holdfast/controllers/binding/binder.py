"""Puts the binder together: who wakes whom.

A claim is looked at when it changes, when the volume it names or is bound to changes, when its
class or a default class appears, and when a volume becomes free that fits it or is reserved for
it. A volume is looked at when it changes, when a claim it points at appears, goes or takes
another volume, and when a pod that kept it from being recycled ends.

A free volume is offered to one waiting claim at a time. Once that claim has been looked at, the
volume is offered on, if it is still free: the claim may have found a better one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast.api import kinds, views
from holdfast.controllers import podclaims, reclaiming
from holdfast.controllers.binding.claims import ClaimReconciler, Key
from holdfast.controllers.binding.matching import Entry, VolumeIndex
from holdfast.controllers.binding.volumes import VolumeReconciler
from holdfast.controllers.binding.waiting import WaitingClaims
from holdfast.controllers.binding.writes import Writes
from holdfast.controllers.provisioners import Provisioners
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

COMPONENT = "persistentvolume-controller"
# Writers that wait for the disk together share its one commit.
_WORKERS = 16
_BY_VOLUME = "binding/claims-by-volume"


class Binder:
    """The component; `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        provisioners: Provisioners,
        reclaimer: reclaiming.Reclaimer,
    ) -> None:
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._index = VolumeIndex()
        self._waiting = WaitingClaims()
        # The volume a claim was woken for.
        self._offered: dict[Key, str] = {}
        writes = Writes(client, informers)
        self._reconciler = ClaimReconciler(
            informers, writes, recorder, self._index, self._waiting, provisioners
        )
        volumes = VolumeReconciler(informers, writes, recorder, reclaimer)
        back_off = (0.05, 15.0)
        self.claims = Controller(
            "binder/claims", self._claim, workers=_WORKERS, backoff=Backoff(*back_off)
        )
        self.volumes = Controller(
            "binder/volumes", volumes.reconcile, workers=_WORKERS, backoff=Backoff(*back_off)
        )
        self._offers = Controller("binder/offers", self._offer)
        volumes.wake_claim = self.claims.enqueue
        self._reconciler.offer = self._offers.enqueue
        self._claims.add_index(_BY_VOLUME, _volume_named)
        self._informers = informers

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._volumes.subscribe(self._volume_changed)
        self._claims.subscribe(self._claim_changed)
        self._informers.of(kinds.STORAGE_CLASS).subscribe(self._class_changed)
        self._informers.of(kinds.POD).subscribe(self._pod_changed)
        async with asyncio.TaskGroup() as group:
            for controller in (self.claims, self.volumes, self._offers):
                group.create_task(controller.run())

    async def _claim(self, key: Key) -> Outcome:
        try:
            return await self._reconciler.reconcile(key)
        finally:
            volume = self._offered.pop(key, None)
            if volume is not None:
                self._offers.enqueue(volume)

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _same_to_the_binder(old, new):
            return
        obj = new or old
        assert obj is not None
        key = (obj["metadata"]["namespace"], obj["metadata"]["name"])
        # A deleted claim is looked at too: what was offered to it is offered on.
        self.claims.enqueue(key)
        named = obj["spec"].get("volumeName")
        if new is None:
            self._waiting.remove(key)
            if named:
                self.volumes.enqueue(named)
        if old is None or new is None or old["spec"].get("volumeName") != named:
            for name in self._index.of_claim(key):
                # In the course of a bind nothing is to be done for the volume itself.
                if name != named or old is None or new is None:
                    self.volumes.enqueue(name)

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        name = obj["metadata"]["name"]
        before = self._index.get(name)
        reference = obj["spec"].get("claimRef")
        reserved_for = (reference["namespace"], reference["name"]) if reference else None
        if new is None:
            self._index.remove(name)
            if reserved_for is not None:
                self.claims.enqueue(reserved_for)
            self._wake_named(name)
            return
        entry = self._index.put(views.volume(new))
        self.volumes.enqueue(name)
        if len(self._waiting) and self._index.is_free(entry):
            self._offers.enqueue(name)
        if reserved_for in self._waiting and not entry.offers_as(before):
            self.claims.enqueue(reserved_for)
        self._wake_named(name, entry, before)

    def _wake_named(
        self, name: str, entry: Entry | None = None, before: Entry | None = None
    ) -> None:
        """Look at the claims that name the volume, unless nothing they judge it by is new."""
        claims = self._claims.by(_BY_VOLUME, name)
        if not claims or (entry is not None and entry.offers_as(before)):
            return
        for claim in claims:
            meta = claim["metadata"]
            self.claims.enqueue((meta["namespace"], meta["name"]))

    async def _offer(self, name: str) -> Outcome:
        """Wake a waiting claim that fits a free volume."""
        entry = self._index.get(name)
        if entry is None or not self._index.is_free(entry):
            return Done
        key = self._waiting.fitting(entry)
        if key is None:
            return Done
        # It leaves the waiting claims now, so that the next volume wakes another one.
        self._waiting.remove(key)
        self._offered[key] = name
        self.claims.enqueue(key)
        return Done

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        for key in self._waiting.of_class(obj["metadata"]["name"]):
            self.claims.enqueue(key)
        if not _is_default(new) or _is_default(old):
            return
        for key in self._waiting.of_class(""):
            claim = self._claims.get(key[1], key[0])
            if claim is not None and not views.has_class(views.claim(claim)):
                self.claims.enqueue(key)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and old is None:
            # A claim that waits for its first consumer says which pod it waits for.
            for key in podclaims.claims_of(new):
                if self._waiting.delayed(key):
                    self.claims.enqueue(key)
        elif old is not None and (new is None or _finished(new)) and not _finished(old):
            for key in podclaims.claims_of(old):
                for name in self._index.of_claim(key):
                    self.volumes.enqueue(name)


def _is_default(storage_class: Object | None) -> bool:
    return storage_class is not None and views.is_default_class(views.storage_class(storage_class))


def _finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in views.FINISHED


def _volume_named(claim: Object) -> Iterable[str]:
    name = claim["spec"].get("volumeName")
    return (name,) if name else ()


def _same_to_the_binder(old: Object, new: Object) -> bool:
    """Whether only what the binder does not read has changed, such as finalizers."""
    before, after = old["metadata"], new["metadata"]
    return (
        old["spec"] == new["spec"]
        and old.get("status") == new.get("status")
        and before.get("annotations") == after.get("annotations")
        and before["uid"] == after["uid"]
        and ("deletionTimestamp" in before) == ("deletionTimestamp" in after)
    )
