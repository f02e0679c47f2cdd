"""Removal of pods that nobody can stop any more, because their node is gone for good.

A pod that is being deleted normally waits for its node to say that it has stopped. There are two
cases in which that word never comes and is not needed: the Node object was deleted, or an
administrator put the taint `node.kubernetes.io/out-of-service` on a node that is not ready, and
so vouches that it is off. Then the pod is marked Failed and removed by force.

The invariant: without one of these two signs nothing is removed, however long a node is silent.
A deleted Node gets some seconds to come back, since its agent may be making it anew.
"""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.api import errors, kinds, views
from holdfast.controllers import conditions
from holdfast.controllers.eviction import ON_NODE, on_node
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key, key_of
from holdfast.runtime.recorder import Recorder

QUARANTINE = 40.0
_ORPHANED = "PodGC: node no longer exists"

Object = dict[str, Any]


class PodRemoval:
    """The component; `run` until cancelled. `quarantine` is in seconds."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        recorder: Recorder,
        *,
        quarantine: float = QUARANTINE,
    ) -> None:
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._quarantine = quarantine
        self._nodes = informers.of(kinds.NODE)
        self._pods = informers.of(kinds.POD)
        self._pods.add_index(ON_NODE, on_node)
        # Since when a node that pods are assigned to is missing, in loop time.
        self._missing: dict[str, float] = {}
        self._controller = Controller("podgc", self._reconcile)
        self._nodes.subscribe(self._node_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Remove pods until cancelled."""
        await self._informers.synced()
        for pod in list(self._pods.all()):
            self._pod_changed(None, pod)
        await self._controller.run()

    async def _reconcile(self, key: Key) -> Outcome:
        obj = self._pods.get(key[1], key[0])
        name = obj["spec"].get("nodeName", "") if obj is not None else ""
        if obj is None or not name:
            return Done
        node = self._nodes.get(name)
        if node is not None:
            self._missing.pop(name, None)
            if "deletionTimestamp" in obj["metadata"] and _is_out_of_service(node):
                await self._remove(obj, None)
            return Done
        now = asyncio.get_running_loop().time()
        left = self._missing.setdefault(name, now) + self._quarantine - now
        if left > 0:
            return After(left)
        await self._remove(obj, _ORPHANED)
        return Done

    async def _remove(self, obj: Object, why: str | None) -> None:
        """Mark the pod as failed, if it did not end by itself, and delete it by force."""
        meta, status = obj["metadata"], obj.get("status", {})
        changed: Object = {}
        if status.get("phase") not in views.FINISHED:
            changed = {"phase": "Failed"}
            if why is not None:
                made = conditions.made(
                    obj, "DisruptionTarget", "True", reason="DeletionByPodGC", message=why
                )
                changed |= made or {}
        try:
            if changed:
                patch = {"metadata": {"uid": meta["uid"]}, "status": changed}
                await self._client.patch(
                    kinds.POD, meta["name"], patch, meta["namespace"], subresource="status"
                )
            await self._client.delete(
                kinds.POD, meta["name"], meta["namespace"], uid=meta["uid"], grace=0
            )
        except errors.NotFound:
            return

    # --- what wakes pods ------------------------------------------------------

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        node = new if new is not None else old
        assert node is not None
        if new is None or _is_out_of_service(new):
            for pod in self._pods.by(ON_NODE, node["metadata"]["name"]):
                self._controller.enqueue(key_of(pod))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        name = new["spec"].get("nodeName") if new is not None else None
        if new is None or not name:
            return
        node = self._nodes.get(name)
        if node is None or ("deletionTimestamp" in new["metadata"] and _is_out_of_service(node)):
            self._controller.enqueue(key_of(new))


def _is_out_of_service(node: Object) -> bool:
    seen = views.node(node)
    return seen.out_of_service and not seen.ready
