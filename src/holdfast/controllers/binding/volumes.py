"""One look at a volume: its phase follows from its claim, and without a claim it is reclaimed."""

from __future__ import annotations

from holdfast.api import kinds, views
from holdfast.controllers import reclaiming
from holdfast.controllers.binding.writes import Writes
from holdfast.runtime.client import Object
from holdfast.runtime.controller import Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

_OVER = ("Released", "Failed")


class VolumeReconciler:
    """Kubernetes' syncVolume. `wake_claim` has a claim looked at."""

    def __init__(
        self,
        informers: Informers,
        writes: Writes,
        recorder: Recorder,
        reclaimer: reclaiming.Reclaimer,
    ) -> None:
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._writes = writes
        self._recorder = recorder
        self._reclaimer = reclaimer
        self.wake_claim = _ignore

    async def reconcile(self, name: str) -> Outcome:
        """Look at the volume once."""
        obj = self._volumes.get(name)
        if obj is None:
            return Done
        obj = await self._reclaimer.keep_finalizer(obj)
        volume = views.volume(obj)
        reference = volume.spec.claim_ref
        if reference is None or not reference.uid:
            await self._writes.volume_phase(obj, "Available")
            return Done
        claim = await self._claim_of(volume, reference)
        if claim is None:
            return await self._released(obj, volume)
        if not claim.spec.volume_name:
            self._unfinished(obj, volume, claim)
        elif claim.spec.volume_name == name:
            await self._writes.volume_phase(obj, "Bound")
        elif views.PROVISIONED_BY in volume.metadata.annotations and _deletes(volume):
            return await self._released(obj, volume)
        else:
            await self._writes.unbind(obj)
        return Done

    async def _claim_of(
        self, volume: views.Volume, reference: views.Reference
    ) -> views.Claim | None:
        """The claim the volume is bound to; a claim of another uid is another claim."""
        found = self._claims.get(reference.name, reference.namespace)
        if found is not None and found["metadata"]["uid"] == reference.uid:
            return views.claim(found)
        if found is None and volume.status.phase in _OVER:
            return None
        # The cache may be behind: a volume is released only on the API's own word.
        live = await self._writes.live_claim(reference.namespace, reference.name)
        if live is None or live["metadata"]["uid"] != reference.uid:
            return None
        return views.claim(live)

    def _unfinished(self, obj: Object, volume: views.Volume, claim: views.Claim) -> None:
        """The volume's side of a bind is written, the claim's is not yet."""
        key = claim.metadata.key
        if claim.spec.volume_mode == volume.spec.volume_mode:
            self.wake_claim(key)
            return
        name = volume.metadata.name
        self._recorder.event(
            obj,
            "Warning",
            "VolumeMismatch",
            f'Cannot bind PersistentVolume to requested PersistentVolumeClaim "{key[1]}" '
            "due to incompatible volumeMode.",
        )
        found = self._claims.get(key[1], key[0])
        if found is not None:
            self._recorder.event(
                found,
                "Warning",
                "VolumeMismatch",
                f'Cannot bind PersistentVolume "{name}" to requested PersistentVolumeClaim '
                "due to incompatible volumeMode.",
            )

    async def _released(self, obj: Object, volume: views.Volume) -> Outcome:
        if volume.status.phase not in _OVER:
            obj = await self._writes.volume_phase(obj, "Released")
        return await self._reclaimer.reclaim(obj)


def _deletes(volume: views.Volume) -> bool:
    return volume.spec.persistent_volume_reclaim_policy == "Delete"


def _ignore(key: tuple[str, str]) -> None:
    """Until the binder connects the two reconcilers."""
