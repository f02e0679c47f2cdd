"""Finds out whether a lost node is really off, so that its volumes can move by themselves.

From outside, a machine that is off and one whose cable is out look the same. The storage system's
infrastructure often knows better: it can be asked (`NodeObserver`), or told to cut the machine off
(`Fencer`). Once that is certain the node gets the taint `node.kubernetes.io/out-of-service`, which
is Kubernetes' own sign for it: pods that are being deleted go, volumes are detached, here and on
any cluster. Until then an event on the node says what is waited for.

The invariant: the taint is set only for a machine that is stopped or gone, or that none of its
volumes can be written from any more; and ours is taken away when the node is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from holdfast.api import errors, kinds, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.backends.protocol import Backend, Fencer, NodeObserver
from holdfast.controllers import attachments, inlines, podclaims
from holdfast.controllers.eviction import ON_NODE, on_node
from holdfast.controllers.podgc import OUT_OF_SERVICE
from holdfast.controllers.provisioners import Provisioners
from holdfast.kit import clock
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

OURS = "holdfast"
POLL = 15.0
# A node that nobody can be asked about is cut off after so long, in seconds.
FENCE_AFTER = 360.0


class LostNodes:
    """The component; `run` until cancelled. `poll` and `fence_after` in seconds."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        provisioners: Provisioners,
        *,
        poll: float = POLL,
        fence_after: float = FENCE_AFTER,
    ) -> None:
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._provisioners = provisioners
        self._poll = poll
        self._fence_after = fence_after
        self._nodes = informers.of(kinds.NODE)
        self._pods = informers.of(kinds.POD)
        self._pods.add_index(ON_NODE, on_node)
        self._claims = informers.of(kinds.CLAIM)
        self._volumes = informers.of(kinds.VOLUME)
        self._attachments = informers.of(kinds.VOLUME_ATTACHMENT)
        self._csi_nodes = informers.of(kinds.CSI_NODE)
        # Since when each node has been lost, in the event loop's time.
        self._lost: dict[str, float] = {}
        self.loop = Controller("lost-nodes", self.reconcile)

    async def run(self) -> None:
        """Follow nodes until cancelled."""
        await self._informers.synced()
        self._nodes.subscribe(self._changed)
        await self.loop.run()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            if old is not None:
                self._lost.pop(old["metadata"]["name"], None)
        elif not views.node(new).ready or _ours(new):
            self.loop.enqueue(new["metadata"]["name"])

    async def reconcile(self, name: str) -> Outcome:
        """Look at a node once."""
        obj = self._nodes.get(name)
        if obj is None:
            return Done
        if views.node(obj).ready:
            return await self._welcome(obj)
        backends = self._backends_on(name)
        if any(taint.key == OUT_OF_SERVICE for taint in views.node(obj).spec.taints):
            return Done
        since = self._lost.setdefault(name, asyncio.get_running_loop().time())
        why = await self._certainty(obj, backends, since)
        if why:
            await self._mark(obj, why)
            return Done
        return After(self._poll) if backends else Done

    async def _welcome(self, obj: Object) -> Outcome:
        """The node is back: let it use its volumes again."""
        name = obj["metadata"]["name"]
        self._lost.pop(name, None)
        if not _ours(obj):
            return Done
        for kind in self._provisioners.kinds():
            backend = self._provisioners.of_kind(kind) if kind != "local" else None
            if isinstance(backend, Fencer):
                try:
                    await backend.unfence(self._id_of(name, kind))
                except backend_errors.BackendError as error:
                    text = f"Node {name} is back and cannot use its volumes yet: {error}"
                    self._recorder.event(obj, "Warning", "NodeStillFenced", text)
                    return After(self._poll)
        kept = [t for t in obj["spec"]["taints"] if t["key"] != OUT_OF_SERVICE]
        await self._taint(obj, kept)
        return Done

    async def _certainty(self, obj: Object, backends: dict[str, Backend], since: float) -> str:
        """Say how it is known that the machine writes no more; "" while it is not."""
        name = obj["metadata"]["name"]
        fenced: set[str] = set()
        doubts: list[str] = []
        waited = asyncio.get_running_loop().time() - since >= self._fence_after
        for kind, backend in backends.items():
            try:
                if isinstance(backend, NodeObserver):
                    state = await backend.node_state(self._id_of(name, kind))
                    if state.power in ("stopped", "gone"):
                        return state.detail
                    doubts.append(f"{state.detail} ({state.power})")
                elif isinstance(backend, Fencer) and waited:
                    await backend.fence(self._id_of(name, kind))
                    fenced.add(kind)
            except backend_errors.BackendError as error:
                doubts.append(str(error))
        if fenced and fenced == set(backends):
            return f"it is cut off from its volumes ({', '.join(sorted(fenced))})"
        if doubts:
            text = (
                f"Node {name} is lost and may still be writing, so its volumes stay with it: "
                f"{'; '.join(doubts)}. It ends when the machine is off, is back, or is tainted "
                f"{OUT_OF_SERVICE}"
            )
            self._recorder.event(obj, "Warning", "WaitingForNode", text)
            for pod in self._pods.by(ON_NODE, name):
                if "deletionTimestamp" in pod["metadata"]:
                    self._recorder.event(pod, "Warning", "WaitingForNode", text)
        return ""

    async def _mark(self, obj: Object, why: str) -> None:
        name = obj["metadata"]["name"]
        taint = {
            "key": OUT_OF_SERVICE,
            "value": OURS,
            "effect": "NoExecute",
            "timeAdded": clock.rfc3339(clock.now()),
        }
        await self._taint(obj, [*(obj["spec"].get("taints") or ()), taint])
        text = f"Node {name} is out of service: {why}. Its volumes can be used elsewhere"
        self._recorder.event(obj, "Warning", "NodeOutOfService", text)

    async def _taint(self, obj: Object, taints: list[Object]) -> None:
        meta = obj["metadata"]
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"]},
            "spec": {"taints": taints or None},
        }
        try:
            self._nodes.observe(await self._client.patch(kinds.NODE, meta["name"], patch))
        except errors.NotFound:
            return

    def _backends_on(self, node: str) -> dict[str, Backend]:
        """Return by kind what the volumes on a node are of; local disks are not taken along."""
        found: dict[str, Backend] = {}
        for volume in (*self._attached(node), *self._used(node)):
            handle = registry.handle_of(volume["spec"], volume["metadata"].get("annotations"))
            kind = handle[0] if handle is not None else ""
            backend = self._provisioners.of_kind(kind) if kind not in ("", "local") else None
            if backend is not None:
                found[kind] = backend
        return found

    def _attached(self, node: str) -> Iterable[Object]:
        for obj in self._attachments.all():
            if obj["spec"].get("nodeName") == node:
                name = (obj["spec"].get("source") or {}).get("persistentVolumeName", "")
                volume = inlines.of_attachment(obj) or self._volumes.get(name)
                if volume is not None:
                    yield volume

    def _used(self, node: str) -> Iterable[Object]:
        for pod in self._pods.by(ON_NODE, node):
            yield from inlines.of_pod(pod)
            for namespace, name in podclaims.claims_of(pod):
                claim = self._claims.get(name, namespace)
                bound = claim["spec"].get("volumeName", "") if claim is not None else ""
                volume = self._volumes.get(bound)
                if volume is not None:
                    yield volume

    def _id_of(self, node: str, kind: str) -> str:
        names = {driver for driver, each in registry.DRIVERS.items() if each == kind} | {kind}
        found = attachments.node_id(self._csi_nodes.get(node), names)
        return found or node


def _ours(obj: Object) -> bool:
    taints = obj["spec"].get("taints") or ()
    return any(t["key"] == OUT_OF_SERVICE and t.get("value") == OURS for t in taints)
