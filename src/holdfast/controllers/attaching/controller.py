"""One look at a volume: attach it where pods need it, detach it where none does any more.

A volume that one node may have at a time waits until the other node has let go, and its pods are
told who has it. Letting go needs the node's word: as long as its status lists the volume as in
use, only a node that is out of service loses it at once, and one that has not been ready for six
minutes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from holdfast.api import errors, kinds, views
from holdfast.backends import registry
from holdfast.controllers import attachments, inlines
from holdfast.controllers.attaching.wanted import Wanted, shared
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

COMPONENT = "attachdetach-controller"
_KIND = kinds.VOLUME_ATTACHMENT
_WORKERS = 4
# How long a node that is not ready keeps what it says it uses, in seconds.
FORCE_AFTER = 360.0


class AttachDetachController:
    """The component; `run` until cancelled. `force_after` in seconds.

    `observed` says of a driver whether its infrastructure knows when a machine is off.
    """

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        *,
        force_after: float = FORCE_AFTER,
        observed: Callable[[str], bool] = lambda driver: False,
    ) -> None:
        self._observed = observed
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._force_after = force_after
        self._wanted = Wanted(informers)
        self._volumes = informers.of(kinds.VOLUME)
        self._claims = informers.of(kinds.CLAIM)
        self._pods = informers.of(kinds.POD)
        self._nodes = informers.of(kinds.NODE)
        self._attachments = informers.of(_KIND)
        attachments.index(self._attachments)
        # Since when a detachment waits for its node, by attachment, in the event loop's time.
        self._waiting: dict[str, float] = {}
        # What pods were told about attachments, so that each thing is told once.
        self._told: dict[tuple[str, str], str] = {}
        self.loop = Controller("attachdetach", self.reconcile, workers=_WORKERS)

    async def run(self) -> None:
        """Follow changes and reconcile until cancelled."""
        await self._informers.synced()
        self._attachments.subscribe(self._attachment_changed)
        self._pods.subscribe(self._pod_changed)
        self._claims.subscribe(self._claim_changed)
        self._nodes.subscribe(self._node_changed)
        self._volumes.subscribe(self._volume_changed)
        await self.loop.run()

    def _attachment_changed(self, old: Object | None, new: Object | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        name = attachments.volume_of(obj)
        if name:
            self.loop.enqueue(name)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for obj in (old, new):
            if obj is not None and obj["spec"].get("nodeName"):
                for name in self._wanted.volumes_of(obj):
                    self._enqueue(name)
        if new is None and old is not None:
            uid = old["metadata"]["uid"]
            for key in [key for key in self._told if key[0] == uid]:
                del self._told[key]

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        name = (new or {"spec": {}})["spec"].get("volumeName")
        if name and (old is None or old["spec"].get("volumeName") != name):
            self._enqueue(name)

    def _volume_changed(self, old: Object | None, new: Object | None) -> None:
        # A claim may be gone before its pod's end is seen here; its volume's release is not missed.
        if new is not None and _phase(old) != _phase(new) and registry.driver_of(new["spec"]):
            self.loop.enqueue(new["metadata"]["name"])

    def _enqueue(self, name: str) -> None:
        volume = self._volumes.get(name)
        # Most volumes need no attaching; they cost no more than this look.
        if volume is None or registry.driver_of(volume["spec"]):
            self.loop.enqueue(name)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None and new is not None and _facts(old) == _facts(new):
            return
        obj = new if new is not None else old
        assert obj is not None
        for attachment in self._attachments.all():
            if attachment["spec"].get("nodeName") == obj["metadata"]["name"]:
                self._attachment_changed(None, attachment)

    async def reconcile(self, name: str) -> Outcome:
        """Look at the volume once."""
        listed = self._attachments.by(attachments.BY_VOLUME, name)
        volume = self._wanted.volume(name)
        if volume is None:
            # Its last pod may be gone; the attachment still says what it is.
            carried = (inlines.of_attachment(obj) for obj in listed)
            volume = next((each for each in carried if each is not None), None)
        if volume is None or not self._wanted.attachable(volume):
            return Done
        present = {obj["spec"]["nodeName"]: obj for obj in listed if _is_own(obj, volume)}
        wanted = self._wanted.pods_by_node(volume)
        waits: list[float] = []
        for node, attachment in list(present.items()):
            if node not in wanted:
                waits.append(await self._detach(volume, attachment, node))
            else:
                self._waiting.pop(attachment["metadata"]["name"], None)
        for node, pods in wanted.items():
            found = present.get(node)
            if found is not None:
                await self._report(volume, found, node, pods)
            elif present and not shared(volume):
                self._say_taken(volume, wanted, node, pods)
            else:
                await self._attach(volume, node, present)
        due = [wait for wait in waits if wait > 0]
        return After(min(due)) if due else Done

    async def _attach(self, volume: Object, node: str, present: dict[str, Object]) -> None:
        identity = attachments.identity(volume)
        if identity is None:
            # Its source names no volume; the node says so when it is to be mounted.
            return
        driver, handle = identity
        name = attachments.name_of(handle, driver, node)
        source: Object = {"persistentVolumeName": volume["metadata"]["name"]}
        if inlines.is_inline(volume):
            source = {"inlineVolumeSpec": volume["spec"]}
        body: Object = {
            "metadata": {"name": name},
            "spec": {"attacher": driver, "nodeName": node, "source": source},
        }
        try:
            written = await self._client.create(_KIND, body)
        except errors.AlreadyExists:
            # The old one is still on its way out; its end wakes the volume again.
            present[node] = await self._client.get(_KIND, name)
            return
        self._attachments.observe(written)
        present[node] = written

    async def _report(
        self, volume: Object, attachment: Object, node: str, pods: list[Object]
    ) -> None:
        """Tell node and pods how far the attachment is."""
        name = volume["metadata"]["name"]
        if attachments.is_attached(attachment):
            await self._list_on_node(node, volume, attached=True)
            text = f'AttachVolume.Attach succeeded for volume "{name}" '
            self._tell(pods, name, "Normal", "SuccessfulAttachVolume", text)
            return
        error = (attachment.get("status") or {}).get("attachError")
        if error:
            text = f'AttachVolume.Attach failed for volume "{name}" : {error.get("message", "")}'
            self._tell(pods, name, "Warning", "FailedAttachVolume", text)

    def _say_taken(
        self, volume: Object, wanted: dict[str, list[Object]], node: str, pods: list[Object]
    ) -> None:
        name = volume["metadata"]["name"]
        for pod in pods:
            others = [one for other, found in wanted.items() if other != node for one in found]
            namespace = pod["metadata"]["namespace"]
            near = [
                p["metadata"]["name"] for p in others if p["metadata"]["namespace"] == namespace
            ]
            text = f'Multi-Attach error for volume "{name}" {_users(near, len(others))}'
            self._tell([pod], name, "Warning", "FailedAttachVolume", text)

    def _tell(self, pods: list[Object], volume: str, type: str, reason: str, message: str) -> None:
        for pod in pods:
            key = (pod["metadata"]["uid"], volume)
            if self._told.get(key) == message:
                continue
            first = key not in self._told
            self._told[key] = message
            running = (pod.get("status") or {}).get("phase") == "Running"
            if type == "Warning":
                self._recorder.event(pod, "Warning", reason, message)
            elif not (first and running):
                # A pod that ran before this process started was told by another one.
                self._recorder.event(pod, "Normal", reason, message)

    # Detaching

    async def _detach(self, volume: Object, attachment: Object, node: str) -> float:
        """Detach when that is safe; return the seconds until it may be, 0 when no time counts."""
        name = attachment["metadata"]["name"]
        if "deletionTimestamp" in attachment["metadata"]:
            await self._list_on_node(node, volume, attached=False)
            return 0.0
        wait = await self._pause(volume, name, node)
        if wait is not None:
            return wait
        self._waiting.pop(name, None)
        await self._list_on_node(node, volume, attached=False)
        try:
            await self._client.delete(_KIND, name, uid=attachment["metadata"]["uid"])
        except errors.NotFound:
            pass
        return 0.0

    async def _pause(self, volume: Object, name: str, node: str) -> float | None:
        """Return how long to wait for the node, 0 for its next change; None when it is safe."""
        try:
            # What is detached cannot be taken back: ask for the newest word of the node.
            obj = await self._client.get(kinds.NODE, node)
        except errors.NotFound:
            return None
        if _listed_name(volume) not in ((obj.get("status") or {}).get("volumesInUse") or ()):
            return None
        seen = views.node(obj)
        if seen.out_of_service:
            return None
        now = asyncio.get_running_loop().time()
        since = self._waiting.setdefault(name, now)
        if seen.ready:
            # It is alive and will say when it has unmounted the volume.
            self._waiting[name] = now
            return 0.0
        if self._observed(registry.driver_of(volume["spec"])):
            # Its infrastructure is asked whether it is off (`lostnodes`); time proves nothing.
            return 0.0
        left = since + self._force_after - now
        return left if left > 0 else None

    async def _list_on_node(self, node: str, volume: Object, *, attached: bool) -> None:
        """Keep `status.volumesAttached` of the node."""
        obj = self._nodes.get(node)
        if obj is None:
            return
        name = _listed_name(volume)
        listed: list[Object] = list((obj.get("status") or {}).get("volumesAttached") or ())
        others = [entry for entry in listed if entry.get("name") != name]
        if (len(others) != len(listed)) == attached:
            return
        wanted = [*others, {"name": name, "devicePath": ""}] if attached else others
        patch = {
            "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]},
            "status": {"volumesAttached": wanted or None},
        }
        written = await self._client.patch(kinds.NODE, node, patch, subresource="status")
        self._nodes.observe(written)


def _phase(volume: Object | None) -> object:
    return ((volume or {}).get("status") or {}).get("phase")


def _is_own(attachment: Object, volume: Object) -> bool:
    """Whether a cluster's controller made this; what somebody else made is theirs to delete."""
    identity = attachments.identity(volume)
    if identity is None:
        return True
    driver, handle = identity
    expected = attachments.name_of(handle, driver, attachment["spec"]["nodeName"])
    return bool(attachment["metadata"]["name"] == expected)


def _listed_name(volume: Object) -> str:
    return attachments.unique_name(*(attachments.identity(volume) or ("", "")))


def _users(near: list[str], count: int) -> str:
    far = count - len(near)
    if not count:
        return "Volume is already exclusively attached to one node and can't be attached to another"
    if not near:
        return f"Volume is already used by {far} pod(s) in different namespaces"
    text = f"Volume is already used by pod(s) {', '.join(near)}"
    return f"{text} and {far} pod(s) in different namespaces" if far else text


def _facts(node: Object) -> tuple[object, ...]:
    seen = views.node(node)
    return seen.ready, seen.spec.taints, seen.status.volumes_in_use
