"""One look at a claim that asks for more than it has.

The order makes every crash harmless: the claim's status says that growing has begun, the backend
grows the volume, the volume object tells the new capacity, and then the claim does; or, where a
node has a part in it, the claim says that it waits for one. Each step is repeated until the next
one is seen to be done, because a backend that is asked again for the same size has nothing to do.

What is asked for is always the claim's present request. So a request that cannot be met is
repaired by lowering it, as far down as just above the capacity the claim has.
"""

from __future__ import annotations

from holdfast.api import kinds, quantity, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.backends.protocol import Expander, Volume
from holdfast.controllers import podclaims, secrets
from holdfast.controllers.binding.writes import MIGRATED_TO, PRE_RESIZE, Writes
from holdfast.controllers.expanding import progress
from holdfast.controllers.provisioners import MIGRATED, Provisioners, Served
from holdfast.kit.backoff import Backoff, Pauses
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import EventType, Recorder

COMPONENT = "volume_expand"
RESIZER = "volume.kubernetes.io/storage-resizer"
_EXTERNAL = "waiting for an external controller to expand this PVC"
_REQUIRED = "Require file system resize of volume on node"
_WORKERS = 4
# The pauses of external-resizer between failed attempts, in seconds.
_FIRST_RETRY, _LAST_RETRY = 1.0, 300.0

Key = tuple[str, str]


class ExpandController:
    """The component; `run` until cancelled. `recorders` are those of the provisioners.

    `recorder` speaks for Kubernetes' own controller. Without one, that controller runs elsewhere,
    and claims of volumes that nobody here serves are left to others.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder | None,
        recorders: dict[str, Recorder],
        provisioners: Provisioners,
    ) -> None:
        self._informers = informers
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._pods = informers.of(kinds.POD)
        podclaims.index(self._pods)
        self._writes = Writes(client, informers)
        self._secrets = secrets.SecretReader(client)
        self._recorder = recorder
        self._recorders = recorders
        self._provisioners = provisioners
        self._backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        # A request that was refused, and when it may be tried again, in the event loop's time.
        self._pauses = Pauses()
        self.loop = Controller("expander", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._claims.subscribe(self._changed)
        await self.loop.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._forget((old["metadata"]["namespace"], old["metadata"]["name"]))
            return
        status = new.get("status") or {}
        if status.get("phase") != "Bound":
            return
        request, capacity = _requested(new), (status.get("capacity") or {}).get("storage", "0")
        # Most claims never grow, and most have exactly what they asked for.
        if old is None or request != capacity or "allocatedResourceStatuses" in status:
            if old is not None and old["spec"] == new["spec"] and old.get("status") == status:
                return
            self.loop.enqueue((new["metadata"]["namespace"], new["metadata"]["name"]))
        elif (old.get("status") or {}).get("capacity") != status.get("capacity"):
            self.loop.enqueue((new["metadata"]["namespace"], new["metadata"]["name"]))

    async def reconcile(self, key: Key) -> Outcome:
        """Look at the claim once."""
        obj = self._claims.get(key[1], key[0])
        if obj is None:
            self._forget(key)
            return Done
        claim = views.claim(obj)
        found = self._volumes.get(claim.spec.volume_name) if claim.spec.volume_name else None
        if claim.status.phase != "Bound" or claim.metadata.terminating or found is None:
            return Done
        volume = views.volume(found)
        if volume.spec.claim_ref is None or volume.spec.claim_ref.uid != claim.metadata.uid:
            return Done
        served = self._served(volume)
        if served is None and self._recorder is None:
            return Done
        had = quantity.parse(claim.status.capacity.get("storage", "0"))
        if quantity.parse(claim.spec.request or "0") <= had:
            await self._tidy(obj, found)
            return Done
        if served is None:
            await self._leave(obj, claim, volume)
            return Done
        return await self._grow(obj, claim, found, served)

    def _forget(self, key: Key) -> None:
        self._backoff.forget(key)
        self._pauses.end(key)

    async def _tidy(self, obj: Object, volume: Object) -> None:
        """Nothing is asked for: remove what an expansion that is over has left."""
        if progress.state_of(obj):
            capacity = obj["status"]["capacity"]["storage"]
            await self._writes.claim(obj, {"status": progress.finished(obj, capacity)}, status=True)
        if PRE_RESIZE in (volume["metadata"].get("annotations") or {}):
            await self._writes.volume(volume, {"metadata": {"annotations": {PRE_RESIZE: None}}})

    def _served(self, volume: views.Volume) -> Served | None:
        maker = volume.metadata.annotations.get(views.PROVISIONED_BY, "")
        source, fields = volume.spec.source()
        served = self._provisioners.get(maker or registry.driver_of({source: fields}))
        return served if served is not None and isinstance(served.backend, Expander) else None

    async def _leave(self, obj: Object, claim: views.Claim, volume: views.Volume) -> None:
        """Nobody here can do it: say who is waited for."""
        maker = volume.metadata.annotations.get(views.PROVISIONED_BY, "")
        driver = volume.metadata.annotations.get(MIGRATED_TO) or MIGRATED.get(maker)
        if driver is None:
            self._say(obj, "Normal", "ExternalExpanding", _EXTERNAL)
            return
        self._say(obj, "Normal", "ExternalExpanding", _migrated(maker))
        if claim.metadata.annotations.get(RESIZER) != driver:
            await self._writes.claim(obj, {"metadata": {"annotations": {RESIZER: driver}}})

    # Growing

    async def _grow(
        self, obj: Object, claim: views.Claim, found: Object, served: Served
    ) -> Outcome:
        key, request = claim.metadata.key, claim.spec.request
        size = quantity.parse(request)
        had = quantity.parse(found["spec"]["capacity"]["storage"])
        if progress.state_of(obj) in progress.ON_NODE and size <= had:
            # The node's part is left; a device that no pod uses follows by itself.
            await self._settle(obj, claim, found, served, on_node=True)
            return Done
        if pause := self._pauses.left(key, request):
            return After(pause)
        if not self._pauses.had(key, request):
            self._say_begun(obj, claim, served)
            obj = await self._status(obj, progress.begun(obj, request))
        try:
            grown = await self._expand(found, served, size)
        except backend_errors.BackendError as error:
            return await self._failed(obj, claim, served, error)
        self._forget(key)
        on_node = grown.node_expansion
        found = await self._record(obj, found, grown, on_node)
        await self._settle(obj, claim, found, served, on_node=on_node)
        return Done

    async def _expand(self, volume: Object, served: Served, size: quantity.Quantity) -> Volume:
        backend = served.backend
        spec, annotations = volume["spec"], volume["metadata"].get("annotations") or {}
        handle = registry.handle_of(spec, annotations)
        if handle is None or not isinstance(backend, Expander):
            raise backend_errors.Unsupported(
                "its source is not one that can be expanded",
                f"persistentvolume {volume['metadata']['name']}",
            )
        # An in-tree source has no place for such a reference; what may delete may also grow.
        ref = registry.expand_secret(spec) or secrets.deletion_ref(annotations)
        values = await self._secrets.read(ref)
        return await backend.expand(handle[1].id, size.bytes(), secrets=values)

    async def _record(self, claim: Object, volume: Object, grown: Volume, on_node: bool) -> Object:
        """Tell the new capacity on the volume; with it what the claim had, until it follows."""
        size = quantity.Quantity.of_bytes(grown.size)
        capacity = volume["spec"]["capacity"]["storage"]
        patch: Object = {}
        if size > quantity.parse(capacity):
            patch["spec"] = {"capacity": {"storage": size.canonical()}}
        annotations = volume["metadata"].get("annotations") or {}
        if on_node and PRE_RESIZE not in annotations:
            had = claim["status"]["capacity"]["storage"]
            patch["metadata"] = {"annotations": {PRE_RESIZE: had}}
        return await self._writes.volume(volume, patch) if patch else volume

    async def _settle(
        self, obj: Object, claim: views.Claim, volume: Object, served: Served, *, on_node: bool
    ) -> None:
        """The storage has grown: end it here, or leave the rest to the node."""
        capacity = volume["spec"]["capacity"]["storage"]
        key = claim.metadata.key
        if not on_node or (claim.spec.volume_mode == "Block" and not self._used(key)):
            await self._status(obj, progress.finished(obj, capacity))
            self._say_done(obj, served)
            await self._tidy_volume(volume["metadata"]["name"])
        elif progress.state_of(obj) not in progress.ON_NODE:
            await self._status(obj, progress.awaits_node(obj, claim.spec.request))
            if not served.in_tree:
                self._recorders[served.name.name].event(
                    obj, "Normal", "FileSystemResizeRequired", _REQUIRED
                )

    async def _tidy_volume(self, name: str) -> None:
        volume = self._volumes.get(name)
        if volume is not None and PRE_RESIZE in (volume["metadata"].get("annotations") or {}):
            await self._writes.volume(volume, {"metadata": {"annotations": {PRE_RESIZE: None}}})

    def _used(self, key: Key) -> bool:
        pods = podclaims.users(self._pods, *key)
        return any(pod.spec.node_name and not pod.finished for pod in pods)

    async def _status(self, obj: Object, step: Object | None) -> Object:
        return await self._writes.claim(obj, {"status": step}, status=True) if step else obj

    async def _failed(
        self, obj: Object, claim: views.Claim, served: Served, error: backend_errors.BackendError
    ) -> Outcome:
        # A request there is no room for was refused whole, so a lower one can still be met.
        infeasible = error.infeasible or isinstance(error, backend_errors.Exhausted)
        key, request = claim.metadata.key, claim.spec.request
        delay = _LAST_RETRY if error.infeasible else self._backoff.next(key)
        self._pauses.begin(key, delay, request)
        if served.in_tree:
            where = f"{key[0]}/{key[1]}"
            plugin = served.name.name
            message = f'error expanding volume "{where}" of plugin "{plugin}": {error}'
            self._say(obj, "Warning", "VolumeResizeFailed", message)
        else:
            name, volume = served.driver, claim.spec.volume_name
            message = f'resize volume "{volume}" by resizer "{name}" failed: {error}'
            self._recorders[served.name.name].event(obj, "Warning", "VolumeResizeFailed", message)
        step = progress.refused(obj, request, str(error), infeasible=infeasible)
        await self._status(obj, step)
        return After(delay)

    def _say(self, obj: Object, type: EventType, reason: str, message: str) -> None:
        if self._recorder is not None:
            self._recorder.event(obj, type, reason, message)

    def _say_begun(self, obj: Object, claim: views.Claim, served: Served) -> None:
        # What goes on after a restart was told before it.
        told = (obj.get("status") or {}).get("allocatedResources") or {}
        if served.in_tree or told.get("storage") == claim.spec.request:
            return
        waiting = _EXTERNAL if served.driver == served.name.name else _migrated(served.name.name)
        self._say(obj, "Normal", "ExternalExpanding", waiting)
        message = f"External resizer is resizing volume {claim.spec.volume_name}"
        self._recorders[served.name.name].event(obj, "Normal", "Resizing", message)

    def _say_done(self, obj: Object, served: Served) -> None:
        if served.in_tree:
            meta = obj["metadata"]
            message = f"ExpandVolume succeeded for volume {meta['namespace']}/{meta['name']}"
            self._say(obj, "Normal", "VolumeResizeSuccessful", message)
        else:
            self._recorders[served.name.name].event(
                obj, "Normal", "VolumeResizeSuccessful", "Resize volume succeeded"
            )


def _migrated(maker: str) -> str:
    return f"CSI migration enabled for {maker}; waiting for external resizer to expand the pvc"


def _requested(claim: Object) -> str:
    requests = (claim["spec"].get("resources") or {}).get("requests") or {}
    return str(requests.get("storage", ""))
