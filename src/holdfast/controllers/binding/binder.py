"""Puts the binder together: who wakes whom.

A claim is looked at when it changes, when the volume it names or is bound to changes, when its
class or a default class appears, and when a volume becomes free that fits it. A volume is
looked at when it changes and when the claim it points at changes or goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast.api import kinds, views
from holdfast.controllers import podclaims
from holdfast.controllers.binding.claims import ClaimReconciler
from holdfast.controllers.binding.matching import VolumeIndex
from holdfast.controllers.binding.volumes import VolumeReconciler
from holdfast.controllers.binding.waiting import WaitingClaims
from holdfast.controllers.binding.writes import Writes
from holdfast.controllers.provisioners import Provisioners
from holdfast.controllers.reclaiming import Reclaimer
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

COMPONENT = "persistentvolume-controller"
# Writers that wait for the disk together share its one commit.
_WORKERS = 16
# How long a free volume waits for the claim it woke before it offers itself again.
_OFFER_SECONDS = 1.0
_BY_VOLUME = "binding/claims-by-volume"


class Binder:
    """The component; `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        provisioners: Provisioners,
        reclaimer: Reclaimer,
    ) -> None:
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._index = VolumeIndex()
        self._waiting = WaitingClaims()
        writes = Writes(client, informers)
        claims = ClaimReconciler(
            informers, writes, recorder, self._index, self._waiting, provisioners
        )
        volumes = VolumeReconciler(informers, writes, recorder, reclaimer)
        back_off = (0.05, 15.0)
        self.claims = Controller(
            "binder/claims", claims.reconcile, workers=_WORKERS, backoff=Backoff(*back_off)
        )
        self.volumes = Controller(
            "binder/volumes", volumes.reconcile, workers=_WORKERS, backoff=Backoff(*back_off)
        )
        self._offers = Controller("binder/offers", self._offer)
        volumes.wake_claim = self.claims.enqueue
        reclaimer.wake_volume = self.volumes.enqueue
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

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self.claims.enqueue((new["metadata"]["namespace"], new["metadata"]["name"]))
            return
        assert old is not None
        meta = old["metadata"]
        self._waiting.remove((meta["namespace"], meta["name"]))
        if old["spec"].get("volumeName"):
            self.volumes.enqueue(old["spec"]["volumeName"])

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        assert obj is not None
        name = obj["metadata"]["name"]
        if new is None:
            self._index.remove(name)
        else:
            entry = self._index.put(views.volume(new))
            self.volumes.enqueue(name)
            if len(self._waiting) and self._index.is_free(entry):
                self._offers.enqueue(name)
        reference = obj["spec"].get("claimRef")
        if new is None and reference is not None:
            self.claims.enqueue((reference["namespace"], reference["name"]))
        if old is None or new is None or old["spec"].get("claimRef") != reference:
            for claim in self._claims.by(_BY_VOLUME, name):
                meta = claim["metadata"]
                self.claims.enqueue((meta["namespace"], meta["name"]))

    async def _offer(self, name: str) -> Outcome:
        """Wake a waiting claim that fits a free volume; again until it is taken or none fits."""
        entry = self._index.get(name)
        if entry is None or not self._index.is_free(entry):
            return Done
        key = self._waiting.fitting(entry)
        if key is None:
            return Done
        # It leaves the waiting claims now, so that the next volume wakes another one.
        self._waiting.remove(key)
        self.claims.enqueue(key)
        return After(_OFFER_SECONDS)

    def _class_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        name = new["metadata"]["name"]
        waiting = self._waiting.of_class(name)
        if views.is_default_class(views.storage_class(new)):
            waiting += self._waiting.of_class("")
        for key in waiting:
            self.claims.enqueue(key)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        # A claim that waits for its first consumer says in an event which pod it waits for.
        if old is not None or new is None:
            return
        for key in podclaims.claims_of(new):
            claim = self._claims.get(key[1], key[0])
            if claim is not None and not claim["spec"].get("volumeName"):
                self.claims.enqueue(key)


def _volume_named(claim: Object) -> Iterable[str]:
    name = claim["spec"].get("volumeName")
    return (name,) if name else ()
