"""Ends the growth of volumes that are mounted on this node.

The expander has grown the storage and left the claim at NodeResizePending. Here the device is
told its new size and the file system follows: at once where the kernel lets a mounted one grow,
else when the next pod has it mounted anew. Then the claim gets its capacity, which ends it.

The invariant: a claim's capacity is raised only after the file system on this node has grown.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import kinds, quantity, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.controllers import secrets
from holdfast.controllers.binding.writes import Writes
from holdfast.controllers.expanding import progress
from holdfast.controllers.nodeagent import attaching, mounting
from holdfast.kit.backoff import Backoff, Pauses
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

WORKERS = 2

Object = dict[str, Any]


class VolumeGrowth:
    """Lets the volumes of one node follow their storage."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        volumes: mounting.PodVolumes,
        attached: attaching.NodeAttachments,
        node: str,
    ) -> None:
        self._secrets = secrets.SecretReader(client)
        self._attached = attached
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._writes = Writes(client, informers)
        self._recorder = recorder
        self._mounted = volumes
        self._node = node
        self._backoff = Backoff(1.0, 120.0)
        # What was tried in vain, and till when: the writes that tell of it must not try again.
        self._pauses = Pauses()
        # The size at which a volume proved to grow only before it is mounted.
        self._postponed: dict[str, str] = {}
        self._controller = Controller("volume-growth", self._reconcile, workers=WORKERS)
        self._claims.subscribe(self._claim_changed)
        self._volumes.subscribe(self._volume_changed)

    async def run(self) -> None:
        """Follow claims until cancelled."""
        await self._controller.run()

    def mounted(self, volume: str) -> None:
        """A pod has just got the volume, so what waited for that can be done."""
        self._postponed.pop(volume, None)
        self._pauses.end(volume)
        if self._volumes.get(volume) is not None:
            self._controller.enqueue(volume)

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and progress.state_of(new) in progress.ON_NODE:
            self._controller.enqueue(new["spec"].get("volumeName", ""))

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._postponed.pop(old["metadata"]["name"], None)
                self._pauses.end(old["metadata"]["name"])
            return
        grown = old is not None and old["spec"].get("capacity") != new["spec"].get("capacity")
        # A raw device has nothing but its size; its claim may be done before it is.
        if grown and new["spec"].get("volumeMode") == "Block":
            self._controller.enqueue(new["metadata"]["name"])

    async def _reconcile(self, name: str) -> Outcome:
        obj = self._volumes.get(name)
        reference = views.volume(obj).spec.claim_ref if obj is not None else None
        if obj is None or reference is None:
            return Done
        claim = self._claims.get(reference.name, reference.namespace)
        if claim is None or claim["metadata"]["uid"] != reference.uid:
            return Done
        size = obj["spec"]["capacity"]["storage"]
        pending = progress.state_of(claim) in progress.ON_NODE
        if not pending and obj["spec"].get("volumeMode") != "Block":
            return Done
        if self._postponed.get(name) == size:
            return Done
        if pause := self._pauses.left(name, size):
            return After(pause)
        return await self._grow(name, size, claim, pending)

    async def _grow(self, name: str, size: str, claim: Object, pending: bool) -> Outcome:
        if not self._mounted.staged(name):
            return Done
        if pending:
            claim = await self._step(claim, progress.on_node(claim))
        try:
            # Only a volume that was grown has to have its size; a static one may say anything.
            wanted = quantity.parse(size).bytes() if pending else 0
            if not await self._follow(name, wanted, claim):
                return Done
        except mounting.MountFailed as error:
            return await self._failed(name, size, claim, pending, error)
        self._backoff.forget(name)
        self._pauses.end(name)
        if pending:
            await self._step(claim, progress.finished(claim, size))
            text = f'MountVolume.NodeExpandVolume succeeded for volume "{name}" {self._node}'
            self._recorder.event(claim, "Normal", "FileSystemResizeSuccessful", text)
        return Done

    async def _follow(self, name: str, size: int, claim: Object) -> bool:
        """Let device and file system follow; False when the volume is not here."""
        obj, record = self._volumes.get(name), self._mounted.connected(name)
        if obj is None or record is None or record.handle is None:
            return False
        ref = registry.node_expand_secret(obj["spec"], claim["metadata"]["namespace"])
        try:
            values = await self._secrets.read(ref)
        except backend_errors.BackendError as error:
            raise mounting.MountFailed(name, str(error)) from error
        context = await self._attached.context_of(record.driver, record.handle.id)
        return await self._mounted.grow(name, size, values, context)

    async def _failed(
        self, name: str, size: str, claim: Object, pending: bool, error: mounting.MountFailed
    ) -> Outcome:
        text = f'MountVolume.NodeExpandVolume failed for volume "{name}" : {error}'
        self._recorder.event(claim, "Warning", "FileSystemResizeFailed", text)
        if isinstance(error.__cause__, backend_errors.Conflict):
            self._postponed[name] = size
            if pending:
                await self._step(claim, progress.postponed_on_node(claim, str(error)))
            return Done
        if pending:
            await self._step(claim, progress.failed_on_node(claim, str(error)))
        delay = self._backoff.next(name)
        self._pauses.begin(name, delay, size)
        return After(delay)

    async def _step(self, claim: Object, step: Object | None) -> Object:
        return await self._writes.claim(claim, {"status": step}, status=True) if step else claim
