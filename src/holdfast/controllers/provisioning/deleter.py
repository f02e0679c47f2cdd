"""Deletes what the provisioner made: released volumes with the policy Delete.

Backend first, then the volume object, then our finalizer: a crash in between repeats the
deletion of something that is gone, which is a success. A volume whose object a user deleted
early waits here, Terminating, until its claim is gone, and its storage is deleted then. So a volume
whose policy is changed to Delete gets the finalizer too, and one that is to be kept loses it.
"""

from __future__ import annotations

from holdfast.api import errors, kinds, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.controllers import attachments, secrets
from holdfast.controllers.binding.writes import Writes
from holdfast.controllers.provisioners import Provisioners, Served
from holdfast.controllers.reclaiming import EXTERNAL_FINALIZER
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

_WORKERS = 16
# external-provisioner's pauses between failed attempts, in seconds.
_FIRST_RETRY, _LAST_RETRY = 1.0, 300.0
# A cluster's own controller calls a volume Failed whose in-tree provisioner it no longer knows.
_LEFT = ("Released", "Failed")


class Deleter:
    """The component; `run` until cancelled."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorders: dict[str, Recorder],
        provisioners: Provisioners,
    ) -> None:
        self._client = client
        self._informers = informers
        self._volumes = informers.of(kinds.VOLUME)
        self._attachments = informers.of(kinds.VOLUME_ATTACHMENT)
        attachments.index(self._attachments)
        self._writes = Writes(client, informers)
        self._secrets = secrets.SecretReader(client)
        self._recorders = recorders
        self._provisioners = provisioners
        self._backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        self.loop = Controller("deleter", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._volumes.subscribe(self._changed)
        self._attachments.subscribe(self._attachment_changed)
        await self.loop.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        released = (new.get("status") or {}).get("phase") in _LEFT
        if released or _deletes(new) != _held(new):
            self.loop.enqueue(new["metadata"]["name"])

    def _attachment_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            name = (old["spec"].get("source") or {}).get("persistentVolumeName")
            self._changed(None, self._volumes.get(name or ""))

    async def reconcile(self, name: str) -> Outcome:
        """Look at the volume once."""
        obj = self._volumes.get(name)
        if obj is None:
            self._backoff.forget(name)
            return Done
        volume = views.volume(obj)
        if not _deletes(obj):
            await self._let_go(obj, volume)
            return Done
        served = self._provisioners.get(volume.metadata.annotations.get(views.PROVISIONED_BY, ""))
        if served is None or served.in_tree:
            return Done
        if not _due(volume):
            if volume.status.phase == "Bound" and not volume.metadata.terminating:
                await self._hold(obj)
            return Done
        if self._attachments.by(attachments.BY_VOLUME, name):
            # Not before every node has let go of it; the last attachment's end wakes us.
            return Done
        try:
            await self._delete_storage(volume, served)
        except backend_errors.BackendError as error:
            self._recorders[served.name.name].event(
                obj, "Warning", "VolumeFailedDelete", str(error)
            )
            return After(self._backoff.next(name))
        self._backoff.forget(name)
        await self._delete_object(volume)
        return Done

    async def _hold(self, obj: Object) -> None:
        """See that the object outlives its storage, also one whose policy was changed to Delete."""
        if not _held(obj):
            present = obj["metadata"].get("finalizers") or []
            patch = {"metadata": {"finalizers": [*present, EXTERNAL_FINALIZER]}}
            await self._writes.volume(obj, patch)

    async def _let_go(self, obj: Object, volume: views.Volume) -> None:
        """The storage is to be kept now: nothing of ours may hold the volume object."""
        maker = volume.metadata.annotations.get(views.PROVISIONED_BY, "")
        if _held(obj) and self._provisioners.serves(maker):
            await self._writes.volume(obj, {"metadata": {"finalizers": _kept(obj)}})

    async def _delete_storage(self, volume: views.Volume, served: Served) -> None:
        source, fields = volume.spec.source()
        found = registry.handle_of({source: fields}, volume.metadata.annotations)
        if found is None or found[0] != served.name.backend:
            raise backend_errors.Invalid(
                f"its source {source!r} is not one {served.name.name} makes",
                f"persistentvolume {volume.metadata.name}",
                "delete the storage by hand, then remove the finalizer " + EXTERNAL_FINALIZER,
            )
        ref = secrets.deletion_ref(volume.metadata.annotations)
        values = await self._secrets.read(ref)
        await served.backend.delete_volume(found[1].id, secrets=values)

    async def _delete_object(self, volume: views.Volume) -> None:
        name = volume.metadata.name
        try:
            last = await self._client.delete(kinds.VOLUME, name, uid=volume.metadata.uid)
            if _held(last):
                await self._writes.volume(last, {"metadata": {"finalizers": _kept(last)}})
        except errors.NotFound:
            return


def _due(volume: views.Volume) -> bool:
    return volume.status.phase in _LEFT and volume.spec.persistent_volume_reclaim_policy == "Delete"


def _deletes(volume: Object) -> bool:
    return bool(volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete")


def _held(volume: Object) -> bool:
    return EXTERNAL_FINALIZER in (volume["metadata"].get("finalizers") or ())


def _kept(volume: Object) -> list[str]:
    return [name for name in volume["metadata"]["finalizers"] if name != EXTERNAL_FINALIZER]
