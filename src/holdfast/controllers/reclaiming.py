"""What happens to a released volume that no external provisioner owns: keep, delete, recycle.

The policy that counts is the one the volume has at that moment. A failure is written into the
volume (phase Failed, its message) and told in an event once, then tried again with growing
pauses. Every text is Kubernetes' own.
"""

from __future__ import annotations

from holdfast.api import errors, kinds, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.controllers import podclaims, recycling, secrets
from holdfast.controllers.binding.writes import MIGRATED_TO, Writes, migrated_to
from holdfast.controllers.provisioners import IN_TREE, MIGRATED, Provisioners
from holdfast.kit.backoff import Backoff, Pauses
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

FINALIZER = "kubernetes.io/pv-controller"
EXTERNAL_FINALIZER = "external-provisioner.volume.kubernetes.io/finalizer"


class _Failed(Exception):
    """The text goes into the volume's status and an event."""


class Reclaimer:
    """Called by the binder for a volume whose claim is gone."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        provisioners: Provisioners,
    ) -> None:
        self._client = client
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._pods = informers.of(kinds.POD)
        podclaims.index(self._pods)
        self._writes = Writes(client, informers)
        self._secrets = secrets.SecretReader(client)
        self._recorder = recorder
        self._provisioners = provisioners
        self._backoff = Backoff(0.5, 122.0)
        # Till when what failed rests: the write that tells of it must not be what tries again.
        self._pauses = Pauses()

    async def keep_finalizer(self, obj: Object) -> Object:
        """Hold volumes made by an in-tree plug-in until their storage is deleted."""
        meta = obj["metadata"]
        annotations = meta.get("annotations") or {}
        maker = annotations.get(views.PROVISIONED_BY, "")
        if not maker.startswith(IN_TREE):
            return obj
        patch: Object = {}
        driver = migrated_to(maker)
        if driver != annotations.get(MIGRATED_TO):
            patch["annotations"] = {MIGRATED_TO: driver}
        finalizers = meta.get("finalizers") or []
        wanted = _finalizers(obj, maker, finalizers)
        if wanted != finalizers:
            patch["finalizers"] = wanted
        return await self._writes.volume(obj, {"metadata": patch}) if patch else obj

    async def reclaim(self, obj: Object) -> Outcome:
        """Do what the policy says with a released volume."""
        volume = views.volume(obj)
        if MIGRATED_TO in volume.metadata.annotations:
            return Done
        policy = volume.spec.persistent_volume_reclaim_policy
        if policy == "Retain":
            return Done
        if pause := self._pauses.left(volume.metadata.name):
            return After(pause)
        if policy == "Delete":
            return await self._delete(obj, volume)
        if policy == "Recycle":
            return await self._recycle(obj, volume)
        message = "Volume has unrecognized PersistentVolumeReclaimPolicy"
        await self._fail(obj, "VolumeUnknownReclaimPolicy", message)
        return Done

    # Delete

    async def _delete(self, obj: Object, volume: views.Volume) -> Outcome:
        name = volume.metadata.name
        try:
            if not await self._delete_storage(volume):
                return Done
        except backend_errors.Conflict as error:
            # In use: nothing failed, it is too early.
            self._recorder.event(obj, "Normal", "VolumeDelete", str(error))
            return After(self._backoff.next(name))
        except (_Failed, backend_errors.BackendError) as error:
            await self._fail(obj, "VolumeFailedDelete", str(error))
            return self._pause(name)
        self._forget(name)
        finalizers = volume.metadata.finalizers
        if FINALIZER in finalizers:
            kept = [finalizer for finalizer in finalizers if finalizer != FINALIZER]
            await self._writes.volume(obj, {"metadata": {"finalizers": kept}})
        try:
            await self._client.delete(kinds.VOLUME, name, uid=volume.metadata.uid)
        except errors.NotFound:
            pass
        return Done

    async def _delete_storage(self, volume: views.Volume) -> bool:
        """Delete the volume's storage; False when that is somebody else's business."""
        maker = volume.metadata.annotations.get(views.PROVISIONED_BY)
        source, fields = volume.spec.source()
        if maker:
            if not maker.startswith(IN_TREE) or maker in MIGRATED:
                return False
            served = self._provisioners.get(maker)
            if served is None:
                raise _Failed(f"no volume plugin matched name: {maker}")
            handle = registry.handle_of({source: fields}, volume.metadata.annotations)
            if handle is None:
                raise _Failed("no deletable volume plugin matched")
            values = await self._secrets.read(secrets.deletion_ref(volume.metadata.annotations))
            await served.backend.delete_volume(handle[1].id, secrets=values)
            return True
        if source == "csi":
            # An external driver owns it.
            return False
        if source == "hostPath":
            await recycling.delete_host_path(fields.get("path", ""))
            return True
        # The volume controller knows NFS because it recycles it; other sources it does not know.
        why = "no deletable volume plugin" if source == "nfs" else "no volume plugin"
        name = volume.metadata.name
        raise _Failed(f'error getting deleter volume plugin for volume "{name}": {why} matched')

    # Recycle

    async def _recycle(self, obj: Object, volume: views.Volume) -> Outcome:
        name = volume.metadata.name
        users = self._users(volume)
        if users:
            message = f"Volume is used by pods: {','.join(users)}"
            self._recorder.event(obj, "Normal", "VolumeFailedRecycle", message)
            return After(self._backoff.next(name))
        source, fields = volume.spec.source()
        if source not in recycling.RECYCLERS:
            message = "No recycler plugin found for the volume!"
            await self._fail(obj, "VolumeFailedRecycle", message)
            return Done
        try:
            await recycling.RECYCLERS[source](fields, views.mount_options(volume))
        except backend_errors.BackendError as error:
            message = f"Recycle failed: failed to recycle volume: {error}"
            await self._fail(obj, "VolumeFailedRecycle", message)
            return self._pause(name)
        self._forget(name)
        self._recorder.event(obj, "Normal", "VolumeRecycled", "Volume recycled")
        await self._writes.unbind(obj)
        return Done

    def _users(self, volume: views.Volume) -> list[str]:
        """Pods that may still write to the volume of a claim that is gone."""
        reference = volume.spec.claim_ref
        if reference is None:
            return []
        claim = self._claims.get(reference.name, reference.namespace)
        if claim is not None and claim["metadata"]["uid"] != reference.uid:
            # The pods use the new claim of that name.
            return []
        pods = podclaims.users(self._pods, reference.namespace, reference.name)
        return sorted(f"{p.metadata.namespace}/{p.metadata.name}" for p in pods if not p.finished)

    def _pause(self, name: str) -> Outcome:
        delay = self._backoff.next(name)
        self._pauses.begin(name, delay)
        return After(delay)

    def _forget(self, name: str) -> None:
        self._backoff.forget(name)
        self._pauses.end(name)

    async def _fail(self, obj: Object, reason: str, message: str) -> None:
        status = obj.get("status") or {}
        if status.get("phase") == "Failed" and status.get("message") == message:
            return
        await self._writes.volume_phase(obj, "Failed", message)
        self._recorder.event(obj, "Warning", reason, message)


def _finalizers(obj: Object, maker: str, finalizers: list[str]) -> list[str]:
    """The finalizers the volume of an in-tree plug-in has to have; order is kept."""
    policy = obj["spec"].get("persistentVolumeReclaimPolicy")
    ours = policy == "Delete" and maker not in MIGRATED
    doomed = {EXTERNAL_FINALIZER} if maker not in MIGRATED else set()
    if not ours:
        doomed.add(FINALIZER)
    wanted = [name for name in finalizers if name not in doomed]
    # A finalizer cannot be added to an object that is already being deleted.
    if ours and FINALIZER not in wanted and "deletionTimestamp" not in obj["metadata"]:
        wanted.append(FINALIZER)
    return wanted
