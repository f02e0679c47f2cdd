"""Eviction by taint: pods leave a node that carries a NoExecute taint they do not tolerate.

A pod that tolerates every such taint for a while is marked for deletion when the shortest while is
over, counted from when the taint was added; one that tolerates a taint without a limit stays for
it. A taint that goes in time calls the deletion off.

The invariant: a pod is only marked. On a node nobody hears from it stays, Terminating, because
nobody knows whether it still runs; only the node itself, or somebody who vouches that it is off,
lets it go (see `podgc`).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from holdfast.api import errors, kinds, views
from holdfast.controllers import conditions
from holdfast.controllers.scheduling import placement
from holdfast.kit import clock
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key, key_of
from holdfast.runtime.recorder import Recorder

COMPONENT = "taint-eviction-controller"
ON_NODE = "eviction/pods-on-node"
_TARGET = "DisruptionTarget"
_WHY = "Taint manager: deleting due to NoExecute taint"

Object = dict[str, Any]


class TaintEviction:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._nodes = informers.of(kinds.NODE)
        self._pods = informers.of(kinds.POD)
        self._pods.add_index(ON_NODE, on_node)
        self._waiting: set[Key] = set()
        self._controller = Controller("eviction", self._reconcile, workers=4)
        self._nodes.subscribe(self._node_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Evict until cancelled."""
        await self._informers.synced()
        await self._controller.run()

    async def _reconcile(self, key: Key) -> Outcome:
        obj = self._pods.get(key[1], key[0])
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            self._waiting.discard(key)
            return Done
        left = self._left(obj)
        if left is None:
            if key in self._waiting:
                self._waiting.discard(key)
                text = f"Cancelling deletion of Pod {key[0]}/{key[1]}"
                self._recorder.event(obj, "Normal", "TaintManagerEviction", text)
            return Done
        if left > 0:
            self._waiting.add(key)
            return After(left)
        await self._evict(obj, key)
        return Done

    def _left(self, obj: Object) -> float | None:
        """Return the seconds until the pod has to go; None when it may stay."""
        pod = views.pod(obj)
        node = self._nodes.get(pod.spec.node_name)
        if node is None:
            return None
        ends: list[float] = []
        for taint in views.node(node).spec.taints:
            if taint.effect != "NoExecute":
                continue
            given = [each for each in pod.spec.tolerations if placement.covers(each, taint)]
            if not given:
                return 0.0
            limits = [t.toleration_seconds for t in given if t.toleration_seconds is not None]
            if limits:
                since = clock.parse(taint.time_added) if taint.time_added else clock.now()
                ends.append(min(limits) - (clock.now() - since).total_seconds())
        return max(0.0, min(ends)) if ends else None

    async def _evict(self, obj: Object, key: Key) -> None:
        meta = obj["metadata"]
        text = f"Marking for deletion Pod {key[0]}/{key[1]}"
        self._recorder.event(obj, "Normal", "TaintManagerEviction", text)
        made = conditions.made(obj, _TARGET, "True", reason="DeletionByTaintManager", message=_WHY)
        try:
            if made is not None:
                patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": made}
                await self._client.patch(kinds.POD, key[1], patch, key[0], subresource="status")
            await self._client.delete(kinds.POD, key[1], key[0], uid=meta["uid"])
        except errors.NotFound:
            pass
        self._waiting.discard(key)

    # --- what wakes pods ------------------------------------------------------

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None or (old is not None and _taints(old) == _taints(new)):
            return
        if _taints(new) or old is not None:
            for pod in self._pods.by(ON_NODE, new["metadata"]["name"]):
                self._controller.enqueue(key_of(pod))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            return
        node = self._nodes.get(new["spec"].get("nodeName", ""))
        if node is not None and (_taints(node) or key_of(new) in self._waiting):
            self._controller.enqueue(key_of(new))


def on_node(pod: Object) -> Iterable[Hashable]:
    """Return the node the pod is assigned to, as index keys."""
    node = pod["spec"].get("nodeName")
    return (node,) if node else ()


def _taints(node: Object) -> list[Object]:
    taints = node.get("spec", {}).get("taints") or ()
    return [taint for taint in taints if taint.get("effect") == "NoExecute"]
