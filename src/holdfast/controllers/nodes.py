"""Node life cycle: a node that stops renewing its lease is no longer trusted.

The agent of a node renews a Lease in `kube-node-lease`. When it has not done so for
40 s, the node's conditions become Unknown and it is tainted as unreachable, so that
nothing new lands there; when the lease moves again, the agent itself reports its
conditions and the taint goes. A node that says it is not ready is tainted likewise. The pods of
a lost node are marked as not ready, so that nobody counts on them.

A lease's age is counted from when its change was seen here, never by comparing the
node's clock with ours. The invariant: only the two taints below are ever touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from holdfast.api import errors, kinds, views
from holdfast.controllers import conditions
from holdfast.controllers.eviction import ON_NODE, on_node
from holdfast.kit import clock
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder

LEASES = "kube-node-lease"
GRACE = 40.0
UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
EFFECTS = ("NoSchedule", "NoExecute")
WATCHED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


class NodeLifecycle:
    """Marks and taints nodes whose lease is `grace` seconds old."""

    def __init__(
        self, client: Client, informers: Informers, recorder: Recorder, *, grace: float = GRACE
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._grace = grace
        self._informers = informers
        self._nodes = informers.of(kinds.NODE)
        self._leases = informers.of(kinds.LEASE)
        self._pods = informers.of(kinds.POD)
        self._pods.add_index(ON_NODE, on_node)
        # When each node last gave a sign of life, on this machine's monotonic clock.
        self._seen: dict[str, float] = {}
        self._controller = Controller("nodes", self._reconcile)
        self._nodes.subscribe(self._node_changed)
        self._leases.subscribe(self._lease_changed)

    async def run(self) -> None:
        """Watch nodes until cancelled."""
        await self._informers.synced()
        await self._controller.run()

    def _node_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is not None:
            self._controller.enqueue(new["metadata"]["name"])
        elif old is not None:
            self._seen.pop(old["metadata"]["name"], None)

    def _lease_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if new is None or new["metadata"].get("namespace") != LEASES:
            return
        if old is not None and _renewed(old) == _renewed(new):
            return
        name = new["metadata"]["name"]
        self._seen[name] = asyncio.get_running_loop().time()
        node = self._nodes.get(name)
        # A renewal matters only to a node that was given up; the timer checks the others.
        if node is not None and _tainted(node, UNREACHABLE):
            self._controller.enqueue(name)

    async def _reconcile(self, name: str) -> Outcome:
        obj = self._nodes.get(name)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return Done
        now = asyncio.get_running_loop().time()
        silent = now - self._seen.setdefault(name, now)
        lost = silent >= self._grace
        if lost:
            obj = await self._mark_unknown(obj)
        await self._taint(obj, lost)
        if lost:
            await self._mark_pods(name)
        return Done if lost else After(self._grace - silent)

    async def _mark_unknown(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Set the conditions to Unknown; the agent overwrites them when it is back."""
        existing: list[dict[str, Any]] = list(obj.get("status", {}).get("conditions") or ())
        known = {entry["type"] for entry in existing}
        stale = {e["type"] for e in existing if e["type"] in WATCHED and e["status"] != "Unknown"}
        if not stale and "Ready" in known:
            return obj
        never = "Ready" not in known
        reason = "NodeStatusNeverUpdated" if never else "NodeStatusUnknown"
        text = (
            "Kubelet never posted node status." if never else "Kubelet stopped posting node status."
        )
        changed = [
            conditions.condition(existing, type, "Unknown", reason=reason, message=text)
            for type in WATCHED
            if type in known or type == "Ready"
        ]
        others = [entry for entry in existing if entry["type"] not in WATCHED]
        name = obj["metadata"]["name"]
        patch = _guarded(obj, {"status": {"conditions": [*others, *changed]}})
        written = await self._client.patch(kinds.NODE, name, patch, subresource="status")
        self._nodes.observe(written)
        self._recorder.event(
            written, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady"
        )
        return written

    async def _mark_pods(self, node: str) -> None:
        """Say of every pod on a lost node that it is not ready."""
        for pod in list(self._pods.by(ON_NODE, node)):
            given = pod.get("status", {}).get("conditions") or ()
            if not any(c.get("type") == "Ready" and c.get("status") == "True" for c in given):
                continue
            meta = pod["metadata"]
            made = conditions.made(pod, "Ready", "False", reason="NodeNotReady")
            patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": made}
            try:
                written = await self._client.patch(
                    kinds.POD, meta["name"], patch, meta["namespace"], subresource="status"
                )
            except errors.NotFound:
                continue
            self._pods.observe(written)
            self._recorder.event(pod, "Warning", "NodeNotReady", "Node is not ready")

    async def _taint(self, obj: dict[str, Any], lost: bool) -> None:
        """Make the node carry exactly the life-cycle taint that its state asks for."""
        ready = views.node(obj).condition("Ready")
        key = None
        if lost or (ready is not None and ready.status == "Unknown"):
            key = UNREACHABLE
        elif ready is None or ready.status != "True":
            key = NOT_READY
        taints: list[dict[str, Any]] = list(obj.get("spec", {}).get("taints") or ())
        kept = [taint for taint in taints if taint["key"] not in (UNREACHABLE, NOT_READY)]
        present = {(t["key"], t["effect"]): t for t in taints}
        stamp = clock.rfc3339(clock.now())
        wanted = [
            present.get((key, effect), {"key": key, "effect": effect, "timeAdded": stamp})
            for effect in EFFECTS
            if key is not None
        ]
        if {(t["key"], t["effect"]) for t in kept + wanted} == set(present):
            return
        patch = _guarded(obj, {"spec": {"taints": kept + wanted or None}})
        self._nodes.observe(await self._client.patch(kinds.NODE, obj["metadata"]["name"], patch))


def _renewed(lease: Mapping[str, Any]) -> object:
    return lease.get("spec", {}).get("renewTime")


def _tainted(node: Mapping[str, Any], key: str) -> bool:
    return any(taint["key"] == key for taint in node.get("spec", {}).get("taints") or ())


def _guarded(obj: Mapping[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Add the revision the patch was computed from: its lists replace those of the object."""
    return {**patch, "metadata": {"resourceVersion": obj["metadata"]["resourceVersion"]}}
