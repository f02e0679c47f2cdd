"""One look at a VolumeAttachment of a driver served here: attach, or detach and let it go.

Finalizers come first, the volume's and then the attachment's, so neither can vanish while the
storage believes that the volume is attached. An answer that did not come counts as "perhaps
attached": the call is repeated until there is one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast.api import errors, kinds, views
from holdfast.api.validation import attachments as rules
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.backends.protocol import Attacher, Fencer, NodeObserver
from holdfast.controllers import attachments, inlines, secrets
from holdfast.controllers.provisioners import Provisioners
from holdfast.kit import clock
from holdfast.kit.backoff import Backoff, Pauses
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers

_KIND = kinds.VOLUME_ATTACHMENT
_WORKERS = 10


class _Refused(Exception):
    """The storage is not even asked."""


class AttachmentServer:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers, provisioners: Provisioners) -> None:
        self._client = client
        self._informers = informers
        self._attachments = informers.of(_KIND)
        attachments.index(self._attachments)
        self._volumes = informers.of(kinds.VOLUME)
        self._nodes = informers.of(kinds.NODE)
        self._csi_nodes = informers.of(kinds.CSI_NODE)
        self._secrets = secrets.SecretReader(client)
        self._provisioners = provisioners
        self._backoff = Backoff(1.0, 300.0)
        # When an attachment that failed may be tried again, in the event loop's time.
        self._pauses = Pauses()
        # Attachments that are carried out and not in force any more.
        self._repeats: set[str] = set()
        self.loop = Controller("attacher", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._attachments.subscribe(self._attachment_changed)
        self._volumes.subscribe(self._volume_changed)
        await self.loop.run()

    def repeat(self, name: str) -> None:
        """Carry an attachment out once more, though it says that it is."""
        self._repeats.add(name)
        self.loop.enqueue(name)

    def _attachment_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        if old is not None and new is not None:
            deleted = "deletionTimestamp" in new["metadata"]
            if deleted and "deletionTimestamp" not in old["metadata"]:
                self._pauses.end(new["metadata"]["name"])
        if new is None:
            # Its volume may have been told to go while it was being detached.
            name = (obj["spec"].get("source") or {}).get("persistentVolumeName", "")
            self._volume_changed(None, self._volumes.get(name))
        self.loop.enqueue(obj["metadata"]["name"])

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and "deletionTimestamp" in new["metadata"]:
            self.loop.enqueue(("volume", new["metadata"]["name"]))

    async def reconcile(self, key: str | tuple[str, str]) -> Outcome:
        """Look at an attachment once, or at a volume that is to go."""
        try:
            if isinstance(key, tuple):
                await self._release_volume(key[1])
                return Done
            return await self._attachment(key)
        except errors.NotFound:
            return Done

    async def _attachment(self, name: str) -> Outcome:
        obj = self._attachments.get(name)
        if obj is None:
            self._forget(name)
            return Done
        storage = self._provisioners.behind(obj["spec"]["attacher"])
        if not isinstance(storage, Attacher):
            return Done
        if pause := self._pauses.left(name):
            return After(pause)
        if "deletionTimestamp" in obj["metadata"]:
            return await self._detach(obj, storage)
        if (obj.get("status") or {}).get("attached") and name not in self._repeats:
            return Done
        return await self._attach(obj, storage)

    def _forget(self, name: str) -> None:
        self._backoff.forget(name)
        self._pauses.end(name)
        self._repeats.discard(name)

    async def _attach(self, obj: Object, storage: Attacher) -> Outcome:
        name, driver = obj["metadata"]["name"], obj["spec"]["attacher"]
        try:
            volume = self._volume_of(obj)
            if "deletionTimestamp" in volume["metadata"]:
                raise _Refused(f'PersistentVolume "{volume["metadata"]["name"]}" is being deleted')
            node = self._node_id(obj)
            if not inlines.is_inline(volume):
                await self._hold(kinds.VOLUME, volume, driver)
            obj = await self._hold(_KIND, obj, driver)
            values = await self._secrets_of(volume)
            metadata = await storage.attach(
                _handle(volume), node, _read_only(volume), secrets=values
            )
        except (_Refused, backend_errors.BackendError) as error:
            return await self._failed(obj, "attachError", error)
        self._forget(name)
        status = {
            "attached": True,
            "attachmentMetadata": dict(metadata) or None,
            "attachError": None,
        }
        await self._status(obj, status)
        return Done

    async def _detach(self, obj: Object, storage: Attacher) -> Outcome:
        driver = obj["spec"]["attacher"]
        finalizer = finalizer_of(driver)
        if finalizer not in (obj["metadata"].get("finalizers") or ()):
            return Done
        try:
            volume = self._volume_of(obj)
            await self._refuse_alive(obj, volume, storage)
            values = await self._secrets_of(volume)
            await storage.detach(_handle(volume), self._node_id(obj), secrets=values)
        except (_Refused, backend_errors.BackendError) as error:
            return await self._failed(obj, "detachError", error)
        self._forget(obj["metadata"]["name"])
        kept = [name for name in obj["metadata"]["finalizers"] if name != finalizer]
        await self._patch(_KIND, obj, {"metadata": {"finalizers": kept}})
        if "deletionTimestamp" in volume["metadata"]:
            self.loop.enqueue(("volume", volume["metadata"]["name"]))
        return Done

    async def _refuse_alive(self, obj: Object, volume: Object, storage: Attacher) -> None:
        """Raise while the node may still be writing to the volume.

        A cluster's own controller asks for this after six minutes of silence, whatever the machine
        does. Where the infrastructure can be asked, its word counts; where the machine can be cut
        off, that has to have happened, which the taint says.
        """
        name = obj["spec"]["nodeName"]
        if not isinstance(storage, NodeObserver | Fencer) or self._nodes.get(name) is None:
            return
        node = await self._client.get(kinds.NODE, name)
        seen = views.node(node)
        listed = attachments.unique_name(*(attachments.identity(volume) or ("", "")))
        in_use = listed in ((node.get("status") or {}).get("volumesInUse") or ())
        if seen.ready or not in_use or seen.out_of_service:
            return
        if not isinstance(storage, NodeObserver):
            raise _Refused(
                f"node {name} is lost and may still be writing; waiting until it is cut off from "
                f"its volumes, is back, or is tainted {views.OUT_OF_SERVICE}"
            )
        state = await storage.node_state(self._node_id(obj))
        if state.power not in ("stopped", "gone"):
            raise _Refused(
                f"node {name} is lost and may still be writing ({state.detail}: {state.power}); "
                f"waiting until it is off, is back, or is tainted {views.OUT_OF_SERVICE}"
            )

    async def _release_volume(self, name: str) -> None:
        """Let a volume go that is attached nowhere any more."""
        volume = self._volumes.get(name)
        if volume is None or self._attachments.by(attachments.BY_VOLUME, name):
            return
        ours = {finalizer_of(driver) for driver in self._provisioners.drivers()}
        present = volume["metadata"].get("finalizers") or []
        kept = [finalizer for finalizer in present if finalizer not in ours]
        if kept != present:
            await self._patch(kinds.VOLUME, volume, {"metadata": {"finalizers": kept}})

    async def _secrets_of(self, volume: Object) -> Mapping[str, str]:
        return await self._secrets.read(attachments.secret_of(volume))

    def _volume_of(self, obj: Object) -> Object:
        own = inlines.of_attachment(obj)
        if own is not None:
            return own
        name = (obj["spec"].get("source") or {}).get("persistentVolumeName", "")
        volume = self._volumes.get(name)
        if volume is None:
            raise _Refused(f'could not get PersistentVolume "{name}"')
        return volume

    def _node_id(self, obj: Object) -> str:
        """Return the node's name in the storage, as the node has registered it."""
        driver, node = obj["spec"]["attacher"], obj["spec"]["nodeName"]
        found = attachments.node_id(self._csi_nodes.get(node), (driver,))
        if found:
            return found
        noted = (obj["metadata"].get("annotations") or {}).get(attachments.NODE_ID)
        if noted:
            # The node may be gone by the time its volumes are taken from it.
            return str(noted)
        raise _Refused(f"CSINode {node} does not contain driver {driver}")

    async def _hold(self, kind: kinds.Kind, obj: Object, driver: str) -> Object:
        finalizer, present = finalizer_of(driver), obj["metadata"].get("finalizers") or []
        metadata: Object = {}
        if finalizer not in present:
            metadata["finalizers"] = [*present, finalizer]
        if kind is _KIND:
            metadata["annotations"] = {attachments.NODE_ID: self._node_id(obj)}
        if (
            metadata.get("annotations", {}).items()
            <= (obj["metadata"].get("annotations") or {}).items()
            and "finalizers" not in metadata
        ):
            return obj
        return await self._patch(kind, obj, {"metadata": metadata})

    async def _failed(self, obj: Object, field: str, error: Exception) -> Outcome:
        name = obj["metadata"]["name"]
        delay = self._backoff.next(name)
        self._pauses.begin(name, delay)
        # An API server refuses a longer one, and the pod would never be told.
        text = str(error).encode()[: rules.MAX_MESSAGE].decode(errors="ignore")
        said = {"time": clock.rfc3339(clock.now()), "message": text}
        attached = bool((obj.get("status") or {}).get("attached"))
        await self._status(obj, {"attached": attached, field: said})
        return After(delay)

    async def _status(self, obj: Object, status: Object) -> None:
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        written = await self._client.patch(_KIND, meta["name"], patch, subresource="status")
        self._attachments.observe(written)

    async def _patch(self, kind: kinds.Kind, obj: Object, patch: Object) -> Object:
        meta = obj["metadata"]
        based = {"resourceVersion": meta["resourceVersion"], "uid": meta["uid"]}
        full = {**patch, "metadata": {**patch["metadata"], **based}}
        written = await self._client.patch(kind, meta["name"], full)
        if "deletionTimestamp" not in written["metadata"]:
            self._informers.of(kind).observe(written)
        return written


def finalizer_of(driver: str) -> str:
    """Return the finalizer of a driver's attacher."""
    return "external-attacher/" + re.sub(r"[^a-zA-Z0-9-]", "-", driver)


def _handle(volume: Object) -> str:
    found = registry.handle_of(volume["spec"], volume["metadata"].get("annotations"))
    if found is None:
        raise _Refused(f"persistentvolume {volume['metadata']['name']} names no volume of a driver")
    return found[1].id


def _read_only(volume: Object) -> bool:
    modes = views.volume(volume).spec.access_modes
    source = volume["spec"].get("csi") or {}
    return bool(source.get("readOnly")) or modes == ["ReadOnlyMany"]
