"""One look at a claim: bind it, have a volume made for it, or say why it waits.

The order of the checks and every text follow Kubernetes' volume controller; see
docs/explanation/one-volume.md for the story. A claim that is bound is only watched over: if its
volume goes away it is Lost, and found again when a volume of that name comes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from holdfast.api import kinds, quantity, views
from holdfast.controllers import podclaims
from holdfast.controllers.binding.matching import VolumeIndex, Wish
from holdfast.controllers.binding.waiting import WaitingClaims
from holdfast.controllers.binding.writes import Writes
from holdfast.controllers.provisioners import Provisioners
from holdfast.runtime.client import Object
from holdfast.runtime.controller import Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

Key = tuple[str, str]

_LOST_NAME = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
_LOST_VOLUME = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
_MISBOUND = "Two claims are bound to the same volume, this one is bound incorrectly"
_NO_CLASS = "no persistent volumes available for this claim and no storage class is set"
_FIRST_CONSUMER = "waiting for first consumer to be created before binding"


class ClaimReconciler:
    """Kubernetes' syncClaim. `offer` has a free volume offered to waiting claims."""

    def __init__(
        self,
        informers: Informers,
        writes: Writes,
        recorder: Recorder,
        index: VolumeIndex,
        waiting: WaitingClaims,
        provisioners: Provisioners,
    ) -> None:
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._classes = informers.of(kinds.STORAGE_CLASS)
        self._pods = informers.of(kinds.POD)
        podclaims.index(self._pods)
        self._writes = writes
        self._recorder = recorder
        self._index = index
        self._waiting = waiting
        self._provisioners = provisioners
        self.offer: Callable[[str], None] = _ignore

    async def reconcile(self, key: Key) -> Outcome:
        """Look at the claim once."""
        self._waiting.remove(key)
        obj = self._claims.get(key[1], key[0])
        if obj is None:
            return Done
        obj = await self._writes.mark_migrated(obj)
        claim = views.claim(obj)
        if views.BIND_COMPLETED in claim.metadata.annotations:
            await self._bound(obj, claim)
        elif claim.spec.volume_name:
            await self._prebound(obj, claim)
        else:
            await self._unbound(obj, claim)
        return Done

    # A claim that has been bound

    async def _bound(self, obj: Object, claim: views.Claim) -> None:
        name = claim.spec.volume_name
        if not name:
            await self._lose(obj, claim, "ClaimLost", _LOST_NAME)
            return
        volume = self._volumes.get(name)
        if volume is None:
            await self._lose(obj, claim, "ClaimLost", _LOST_VOLUME)
            return
        reference = views.volume(volume).spec.claim_ref
        if reference is None or reference.uid == claim.metadata.uid:
            await self._bind(volume, obj)
        else:
            await self._lose(obj, claim, "ClaimMisbound", _MISBOUND)

    async def _lose(self, obj: Object, claim: views.Claim, reason: str, message: str) -> None:
        if claim.status.phase == "Lost":
            return
        await self._writes.claim_phase(obj, "Lost")
        self._recorder.event(obj, "Warning", reason, message)

    # A claim whose author named the volume

    async def _prebound(self, obj: Object, claim: views.Claim) -> None:
        name = claim.spec.volume_name
        found = self._volumes.get(name)
        if found is None:
            await self._writes.claim_phase(obj, "Pending")
            return
        volume = views.volume(found)
        if volume.spec.claim_ref is None:
            mismatch = _mismatch(volume, claim)
            if mismatch:
                message = f'Cannot bind to requested volume "{name}": {mismatch}'
                self._recorder.event(obj, "Warning", "VolumeMismatch", message)
                await self._writes.claim_phase(obj, "Pending")
            else:
                await self._bind(found, obj)
        elif views.is_for(volume.spec.claim_ref, claim):
            await self._bind(found, obj)
        else:
            message = f'volume "{name}" already bound to a different claim.'
            self._recorder.event(obj, "Warning", "FailedBinding", message)
            # A claim the controller had begun to bind is left as it is: its volume was taken
            # by another claim meanwhile, and only a person can tell which of the two is right.
            if views.BOUND_BY_CONTROLLER not in claim.metadata.annotations:
                await self._writes.claim_phase(obj, "Pending")

    # A claim that takes any volume that fits

    async def _unbound(self, obj: Object, claim: views.Claim) -> None:
        class_name = views.class_of(claim)
        found = self._classes.get(class_name) if class_name else None
        storage_class = views.storage_class(found) if found is not None else None
        delayed = storage_class is not None and storage_class.delays_binding
        wish = Wish.of(claim)
        entry = self._index.find(wish, reserved_only=delayed)
        volume = self._volumes.get(entry.name) if entry is not None else None
        if volume is not None:
            await self._bind(volume, obj)
            return
        if not views.has_class(claim) and await self._take_default_class(obj):
            return
        if delayed and views.SELECTED_NODE not in claim.metadata.annotations:
            self._say_what_is_awaited(obj)
        elif class_name:
            self._waiting.add(wish, delayed=delayed)
            await self._provision(obj, claim, class_name, storage_class)
            return
        else:
            self._recorder.event(obj, "Normal", "FailedBinding", _NO_CLASS)
        self._waiting.add(wish, delayed=delayed)
        await self._writes.claim_phase(obj, "Pending")

    async def _take_default_class(self, obj: Object) -> bool:
        classes = [views.storage_class(found) for found in self._classes.all()]
        defaults = [found for found in classes if views.is_default_class(found)]
        if not defaults:
            return False
        newest = max(found.metadata.creation_timestamp or "" for found in defaults)
        names = [
            found.metadata.name
            for found in defaults
            if (found.metadata.creation_timestamp or "") == newest
        ]
        await self._writes.claim(obj, {"spec": {"storageClassName": min(names)}})
        return True

    def _say_what_is_awaited(self, obj: Object) -> None:
        meta = obj["metadata"]
        pods = podclaims.users(self._pods, meta["namespace"], meta["name"])
        names = sorted(
            pod.metadata.name for pod in pods if not pod.finished and not pod.spec.node_name
        )
        if not names:
            self._recorder.event(obj, "Normal", "WaitForFirstConsumer", _FIRST_CONSUMER)
            return
        noun = "pod" if len(names) == 1 else "pods"
        message = f"waiting for {noun} {','.join(names)} to be scheduled"
        self._recorder.event(obj, "Normal", "WaitForPodScheduled", message)

    # Provisioning is asked for here and done elsewhere

    async def _provision(
        self,
        obj: Object,
        claim: views.Claim,
        class_name: str,
        storage_class: views.StorageClass | None,
    ) -> None:
        if storage_class is None:
            message = f'storageclass.storage.k8s.io "{class_name}" not found'
            self._recorder.event(obj, "Warning", "ProvisioningFailed", message)
            return
        name = storage_class.provisioner
        if self._provisioners.in_tree(name):
            if not self._provisioners.serves(name):
                message = _UNMADE.get(name, f"no volume plugin matched name: {name}")
                self._recorder.event(obj, "Warning", "ProvisioningFailed", message)
                return
            if claim.spec.data_source is not None:
                message = (
                    f'plugin "{name}" is not a CSI plugin. '
                    "Only CSI plugin can provision a claim with a datasource"
                )
                self._recorder.event(obj, "Warning", "ProvisioningFailed", message)
                return
            await self._annotate(obj, claim, name)
            return
        external = self._provisioners.migrated(name)
        if await self._annotate(obj, claim, external) is not obj:
            # The write brings the claim back here: told once, not with every step.
            return
        self._recorder.event(
            obj,
            "Normal",
            "ExternalProvisioning",
            "Waiting for a volume to be created either by the external provisioner "
            f"'{external}' or manually by the system administrator. If volume creation is "
            "delayed, please verify that the provisioner is running and correctly registered.",
        )

    async def _annotate(self, obj: Object, claim: views.Claim, provisioner: str) -> Object:
        # Who wrote the present name alone gets no old one beside it.
        if claim.metadata.annotations.get(views.STORAGE_PROVISIONER) == provisioner:
            return obj
        wanted = {
            views.BETA_STORAGE_PROVISIONER: provisioner,
            views.STORAGE_PROVISIONER: provisioner,
        }
        return await self._writes.claim(obj, {"metadata": {"annotations": wanted}})

    async def _bind(self, volume: Object, claim: Object) -> None:
        name = volume["metadata"]["name"]
        self._index.take(name)
        try:
            await self._writes.bind(volume, claim)
        finally:
            # A bind that failed may leave a volume that another claim was denied meanwhile.
            if self._index.release(name):
                self.offer(name)


# A plug-in that Kubernetes has, and that makes no volumes.
_UNMADE: Final = {"kubernetes.io/nfs": "no provisionable volume plugin matched"}


def _ignore(name: str) -> None:
    """Until the binder connects itself."""


def _mismatch(volume: views.Volume, claim: views.Claim) -> str:
    """Why a volume named by the claim cannot be bound; "" when it can."""
    spec = volume.spec
    if volume.metadata.terminating:
        return f'the volume is marked for deletion "{volume.metadata.name}"'
    # Kubernetes compares whole bytes here, the exact value when it searches.
    if quantity.parse(spec.size or "0").bytes() < quantity.parse(claim.spec.request).bytes():
        return "requested PV is too small"
    if views.class_of(volume) != views.class_of(claim):
        return "storageClassName does not match"
    if spec.volume_mode != claim.spec.volume_mode:
        return "incompatible volumeMode"
    if not set(claim.spec.access_modes) <= set(spec.access_modes):
        return "incompatible accessMode"
    return ""
