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
import dataclasses
import json
from collections.abc import Iterable, Mapping

from holdfast.api import errors, kinds, views
from holdfast.backends import errors as backend_errors
from holdfast.backends import registry
from holdfast.backends.protocol import Backend, Fencer, NodeObserver, VolumeHandle
from holdfast.backends.secretrefs import SecretRef
from holdfast.controllers import attachments, inlines, podclaims, secrets
from holdfast.controllers.eviction import ON_NODE, on_node
from holdfast.controllers.provisioners import Provisioners
from holdfast.kit import clock
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

OURS = "holdfast"
# Annotation of a node: in JSON, its ids in the storage systems it was cut off from.
FENCED = "holdfast.dev/fenced"
# These are where the node is, and nobody else can use them.
_STAYING = frozenset({"local", "hostPath"})
_ByKind = dict[str, list[Object]]
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
        self._secrets = secrets.SecretReader(client)
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
        elif not views.node(new).ready or _ours(new) or _fenced(new):
            self.loop.enqueue(new["metadata"]["name"])

    async def reconcile(self, name: str) -> Outcome:
        """Look at a node once."""
        obj = self._nodes.get(name)
        if obj is None:
            return Done
        node = views.node(obj)
        if node.ready:
            return await self._welcome(obj)
        volumes = self._volumes_on(name)
        backends = {kind: each for kind in volumes if (each := self._backend(kind)) is not None}
        if node.out_of_service:
            return Done
        since = self._lost.setdefault(name, asyncio.get_running_loop().time())
        why = await self._certainty(obj, backends, volumes, since)
        if why:
            await self._mark(obj, why)
            return Done
        return After(self._poll) if backends else Done

    async def _welcome(self, obj: Object) -> Outcome:
        """The node is back: let it use its volumes again."""
        name = obj["metadata"]["name"]
        self._lost.pop(name, None)
        fenced = _fenced(obj)
        if not fenced and not _ours(obj):
            return Done
        for kind, id in fenced.items():
            backend = self._backend(kind)
            if isinstance(backend, Fencer):
                try:
                    every = [each for each in self._volumes.all() if _kind_of(each) == kind]
                    await backend.unfence(id, await self._handles(every, strict=False))
                except backend_errors.BackendError as error:
                    text = f"Node {name} is back and cannot use its volumes yet: {error}"
                    self._recorder.event(obj, "Warning", "NodeStillFenced", text)
                    return After(self._poll)
        kept = [t for t in obj["spec"].get("taints") or () if not _is_ours(t)]
        await self._taint(obj, kept, {FENCED: None})
        return Done

    async def _certainty(
        self, obj: Object, backends: dict[str, Backend], volumes: _ByKind, since: float
    ) -> str:
        """Say how it is known that the machine writes no more; "" while it is not."""
        doubts: list[str] = []
        for kind, backend in backends.items():
            if isinstance(backend, NodeObserver):
                try:
                    state = await backend.node_state(self._id_of(obj["metadata"]["name"], kind))
                except backend_errors.BackendError as error:
                    doubts.append(str(error))
                    continue
                if state.power in ("stopped", "gone"):
                    return state.detail
                doubts.append(f"{state.detail} ({state.power})")
        doubts += [
            f"of its {kind} volumes nobody here can say whether it writes, nor cut it off"
            for kind in sorted(set(volumes) - _STAYING)
            if not isinstance(backends.get(kind), NodeObserver | Fencer)
        ]
        if backends and not doubts:
            # All that is left can be cut off, and then nothing of it can be written.
            try:
                if await self._fence(obj, backends, volumes, since):
                    return f"it is cut off from its volumes ({', '.join(sorted(backends))})"
                doubts.append(f"it is cut off after {self._fence_after:g} s")
            except backend_errors.BackendError as error:
                doubts.append(str(error))
        if backends:
            self._say_waiting(obj, doubts)
        return ""

    def _say_waiting(self, obj: Object, doubts: list[str]) -> None:
        name = obj["metadata"]["name"]
        text = (
            f"Node {name} is lost and may still be writing, so its volumes stay with it: "
            f"{'; '.join(doubts)}. It ends when the machine is off, is back, or is tainted "
            f"{views.OUT_OF_SERVICE}"
        )
        self._recorder.event(obj, "Warning", "WaitingForNode", text)
        for pod in self._pods.by(ON_NODE, name):
            if "deletionTimestamp" in pod["metadata"]:
                self._recorder.event(pod, "Warning", "WaitingForNode", text)

    async def _fence(
        self, obj: Object, backends: dict[str, Backend], volumes: _ByKind, since: float
    ) -> bool:
        """Cut the node off from all its volumes; False while it is too early for that."""
        if asyncio.get_running_loop().time() - since < self._fence_after:
            return False
        name = obj["metadata"]["name"]
        ids = {kind: self._id_of(name, kind) for kind in backends}
        if _fenced(obj) != ids:
            # Written down first: whoever sees the node come back has to know.
            said = {"metadata": {"annotations": {FENCED: json.dumps(ids, sort_keys=True)}}}
            self._nodes.observe(await self._client.patch(kinds.NODE, name, said))
        for kind, backend in backends.items():
            handles = await self._handles(volumes[kind], strict=True)
            assert isinstance(backend, Fencer)
            await backend.fence(ids[kind], handles)
        return True

    async def _mark(self, obj: Object, why: str) -> None:
        name = obj["metadata"]["name"]
        taint = {
            "key": views.OUT_OF_SERVICE,
            "value": OURS,
            "effect": "NoExecute",
            "timeAdded": clock.rfc3339(clock.now()),
        }
        # Fencing has written to it.
        obj = self._nodes.get(name) or obj
        await self._taint(obj, [*(obj["spec"].get("taints") or ()), taint], {})
        text = f"Node {name} is out of service: {why}. Its volumes can be used elsewhere"
        self._recorder.event(obj, "Warning", "NodeOutOfService", text)

    async def _taint(self, obj: Object, taints: list[Object], annotations: Object) -> None:
        meta = obj["metadata"]
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"], "annotations": annotations},
            "spec": {"taints": taints or None},
        }
        try:
            self._nodes.observe(await self._client.patch(kinds.NODE, meta["name"], patch))
        except errors.NotFound:
            return

    def _volumes_on(self, node: str) -> _ByKind:
        """Return by kind the volumes that are attached to a node, or that its pods use."""
        found: dict[str, dict[str, Object]] = {}
        for volume in (*self._attached(node), *self._used(node)):
            found.setdefault(_kind_of(volume), {})[volume["metadata"]["name"]] = volume
        return {kind: list(each.values()) for kind, each in found.items()}

    def _backend(self, kind: str) -> Backend | None:
        """The storage system of a kind; local disks are not taken along."""
        return self._provisioners.of_kind(kind) if kind != "local" else None

    async def _handles(self, volumes: Iterable[Object], *, strict: bool) -> list[VolumeHandle]:
        """Return the volumes with their secrets; those without theirs only with `strict`."""
        found: list[VolumeHandle] = []
        read: dict[SecretRef | None, Mapping[str, str]] = {}
        for volume in volumes:
            handle = registry.handle_of(volume["spec"], volume["metadata"].get("annotations"))
            ref = attachments.secret_of(volume)
            try:
                if ref not in read:
                    read[ref] = await self._secrets.read(ref)
            except backend_errors.BackendError:
                if strict:
                    raise
                continue
            if handle is not None:
                found.append(dataclasses.replace(handle[1], secrets=read[ref]))
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
        noted = (
            (obj["metadata"].get("annotations") or {}).get(attachments.NODE_ID)
            for obj in self._attachments.all()
            if obj["spec"].get("nodeName") == node and obj["spec"].get("attacher") in names
        )
        found = found or next((str(each) for each in noted if each), "")
        if not found:
            # Its name may be another machine's there, or nobody's, which would look like gone.
            raise backend_errors.NotFound(
                f"it is not known what {kind} storage calls it",
                f"CSINode {node}",
                f"make sure that it is off, then taint it {views.OUT_OF_SERVICE}",
            )
        return found


def _kind_of(volume: Object) -> str:
    """Return the backend of a volume, or what its source says of it where it is none of ours."""
    found = registry.handle_of(volume["spec"], volume["metadata"].get("annotations"))
    return found[0] if found is not None else views.volume(volume).spec.source()[0]


def _ours(obj: Object) -> bool:
    return any(_is_ours(taint) for taint in obj["spec"].get("taints") or ())


def _is_ours(taint: Object) -> bool:
    return bool(taint["key"] == views.OUT_OF_SERVICE and taint.get("value") == OURS)


def _fenced(obj: Object) -> dict[str, str]:
    """Return the node's ids in the storage systems that were told to cut it off, by kind."""
    try:
        found = json.loads((obj["metadata"].get("annotations") or {}).get(FENCED, "{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
