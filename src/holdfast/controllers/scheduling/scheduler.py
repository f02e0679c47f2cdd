"""The scheduler: gives each new pod a node that can run it and reach its volumes.

For one pod: its claims are looked at first (a missing or unbound claim stops it on
every node), then each node is asked, then the best node's volume plan is written.
Claims that were still waiting for a consumer become bound later; each change of
them wakes the pod again, and when all are bound the pod is bound to the node.

Nothing is polled. A pod that no node takes is woken by the events that can help
it: its own claims, any class, a node, a free volume or free storage that changes, a
pod that leaves. The invariant: a pod is bound only through the binding subresource, after
each of its claims is bound to a volume that the node can reach.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from holdfast.api import errors, kinds, views
from holdfast.controllers import conditions
from holdfast.controllers.scheduling import binding, limits, placement, restrictions
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key, key_of
from holdfast.runtime.recorder import Recorder

COMPONENT = "default-scheduler"
EXCLUSIVE_CLAIM = (
    "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
)
# Reasons that would go away with other pods.
_YIELDING = frozenset(
    {EXCLUSIVE_CLAIM, limits.TOO_MANY, placement.TOO_MANY_PODS, restrictions.DISK_TAKEN}
)
BIND_TIMEOUT = 600.0
BIND_TIMEOUT_TEXT = (
    'running PreBind plugin "VolumeBinding": binding volumes: context deadline exceeded'
)

WANTING = "scheduling/pods-wanting-claim"
USING = "scheduling/pods-using-claim"
PLACED = "scheduling/pods-on-node"


@dataclass(slots=True)
class _Attempt:
    """A pod whose claims are being bound for a node, since when, and when to try anew."""

    since: float
    not_before: float = 0.0
    reported: bool = False


class Scheduler:
    """Places pods whose schedulerName is ours."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._recorder = recorder
        self._informers = informers
        self._pods = informers.of(kinds.POD)
        self._nodes = informers.of(kinds.NODE)
        self._pods.add_index(WANTING, _claims_wanted)
        self._pods.add_index(USING, _claims_used)
        self._pods.add_index(PLACED, _node_of)
        self._binder = binding.VolumeBinder(client, informers)
        self._limits = limits.VolumeLimits(informers)
        self._backoff = Backoff(1.0, 60.0)
        self._attempts: dict[Key, _Attempt] = {}
        # Pods bound by us whose new nodeName the cache has not shown yet.
        self._assumed: dict[Key, tuple[str, str]] = {}
        # Pods stopped by their claims, and pods that no node took.
        self._unready: set[Key] = set()
        self._refused: set[Key] = set()
        self._controller = Controller("scheduler", self._reconcile)
        self._pods.subscribe(self._pod_changed)
        self._nodes.subscribe(self._node_changed)
        informers.of(kinds.CLAIM).subscribe(self._claim_changed)
        informers.of(kinds.VOLUME).subscribe(self._volume_changed)
        informers.of(kinds.STORAGE_CLASS).subscribe(self._class_changed)
        informers.of(kinds.CSI_NODE).subscribe(self._class_changed)
        informers.of(kinds.CSI_DRIVER).subscribe(self._class_changed)
        informers.of(kinds.CAPACITY).subscribe(self._volume_changed)
        informers.of(kinds.VOLUME_ATTACHMENT).subscribe(self._volume_changed)

    async def run(self) -> None:
        """Place pods until cancelled."""
        await self._informers.synced()
        await self._controller.run()

    # --- one pod --------------------------------------------------------------

    async def _reconcile(self, key: Key) -> Outcome:
        namespace, name = key
        obj = self._pods.get(name, namespace)
        if obj is None or not _is_ours(obj) or key in self._assumed:
            self._forget(key)
            return Done
        pod = views.pod(obj)
        attempt = self._attempts.get(pod.metadata.key)
        now = asyncio.get_running_loop().time()
        if attempt is not None and attempt.not_before > now:
            return After(attempt.not_before - now)
        return await self._schedule(obj, pod)

    async def _schedule(self, obj: dict[str, Any], pod: views.Pod) -> Outcome:
        key = pod.metadata.key
        try:
            demand = self._binder.demand(pod)
        except binding.ClaimsUnready as error:
            self._unready.add(key)
            nodes = len(self._nodes.all())
            text = placement.explain_for_all(str(error), nodes, never=_never_displaces(obj))
            await self._refuse(obj, text)
            return Done
        self._unready.discard(key)
        choice = self._choose(obj, pod, demand)
        if isinstance(choice, str):
            self._refused.add(key)
            await self._refuse(obj, choice)
            return Done
        self._refused.discard(key)
        if demand.delayed:
            return await self._bind_volumes(obj, key, choice)
        await self._bind(obj, pod, choice.node)
        return Done

    def _there(self, node: views.Node) -> list[dict[str, Any]]:
        """Return the pods on a node, those included that are on their way to it."""
        name = node.metadata.name
        coming = [key for key, (where, _) in self._assumed.items() if where == name]
        assumed = [self._pods.get(key[1], key[0]) for key in coming]
        return [*self._pods.by(PLACED, name), *(obj for obj in assumed if obj is not None)]

    def _choose(
        self, obj: dict[str, Any], pod: views.Pod, demand: binding.Demand
    ) -> binding.Plan | str:
        """Return the plan for the best node, or the sentence that says why there is none."""
        nodes = [views.node(obj) for obj in self._nodes.all()]
        exclusive = self._held_exclusively(pod, demand)
        reasons: list[str] = []
        fitting: list[tuple[tuple[int, int, int, str], binding.Plan]] = []
        for node in nodes:
            count = self._pods_on(node.metadata.name)
            reason = placement.refusal(pod, node, count)
            there = functools.partial(self._there, node)
            reason = reason or restrictions.disk_taken(obj, there) or exclusive
            reason = reason or self._limits.refusal(obj, node.metadata.name, there)
            plan = reason or self._binder.plan(demand, node)
            if not isinstance(plan, str):
                plan = restrictions.other_zone(demand.bound, node) or plan
            if isinstance(plan, str):
                reasons.append(plan)
            else:
                fitting.append((placement.preference(pod, node, count), plan))
        if not fitting:
            never = _never_displaces(obj)
            return placement.explain(reasons, len(nodes), _YIELDING, never=never)
        return min(fitting, key=lambda ranked: ranked[0])[1]

    def _held_exclusively(self, pod: views.Pod, demand: binding.Demand) -> str | None:
        for claim in demand.exclusive:
            for user in self._pods.by(USING, claim.metadata.key):
                if user["metadata"]["uid"] != pod.metadata.uid:
                    return EXCLUSIVE_CLAIM
        return None

    def _pods_on(self, node: str) -> int:
        assumed = sum(1 for name, _ in self._assumed.values() if name == node)
        return len(self._pods.by(PLACED, node)) + assumed

    async def _bind_volumes(self, obj: dict[str, Any], key: Key, plan: binding.Plan) -> Outcome:
        """Write the volume plan; the claims' own events bring the pod back when bound."""
        now = asyncio.get_running_loop().time()
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.not_before == 0.0 and self._was_undone(plan):
            # The provisioner took its node selection back: it failed there. Trying again
            # at once would only make it fail as fast as it can.
            attempt.not_before = now + self._backoff.next(key)
            return After(attempt.not_before - now)
        await self._binder.carry_out(plan)
        if attempt is None:
            attempt = self._attempts[key] = _Attempt(since=now)
        attempt.not_before = 0.0
        if now - attempt.since >= BIND_TIMEOUT and not attempt.reported:
            attempt.reported = True
            self._recorder.event(obj, "Warning", "FailedScheduling", BIND_TIMEOUT_TEXT)
        return Done if attempt.reported else After(attempt.since + BIND_TIMEOUT - now)

    def _was_undone(self, plan: binding.Plan) -> bool:
        return any(views.SELECTED_NODE not in claim.metadata.annotations for claim in plan.makes)

    async def _bind(self, obj: dict[str, Any], pod: views.Pod, node: str) -> None:
        meta = pod.metadata
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"namespace": meta.namespace, "name": meta.name, "uid": meta.uid},
            "target": target,
        }
        self._assumed[meta.key] = (node, meta.uid)
        try:
            await self._client.create(
                kinds.POD, body, meta.namespace, subresource="binding", name=meta.name
            )
        except errors.NotFound:
            self._assumed.pop(meta.key, None)
            return
        except BaseException:
            self._assumed.pop(meta.key, None)
            raise
        text = f"Successfully assigned {meta.namespace}/{meta.name} to {node}"
        self._recorder.event(obj, "Normal", "Scheduled", text)
        self._forget(meta.key)

    async def _refuse(self, obj: dict[str, Any], message: str) -> None:
        """Say on the pod why it stays where it is; repeat neither condition nor event."""
        condition = conditions.made(
            obj, "PodScheduled", "False", reason="Unschedulable", message=message
        )
        if condition is None:
            return
        meta = obj["metadata"]
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": condition}
        written = await self._client.patch(
            kinds.POD, meta["name"], patch, meta["namespace"], subresource="status"
        )
        self._pods.observe(written)
        self._recorder.event(obj, "Warning", "FailedScheduling", message)

    def _forget(self, key: Key) -> None:
        self._attempts.pop(key, None)
        self._backoff.forget(key)
        self._unready.discard(key)
        self._refused.discard(key)

    # --- what wakes pods ------------------------------------------------------

    def _pod_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        key = key_of(obj)
        if key in self._assumed and _settled(self._assumed[key][1], new):
            del self._assumed[key]
        if new is not None and _is_ours(new):
            self._controller.enqueue(key)
        elif new is None:
            self._forget(key)
        if (old is not None and _node_of(old)) and (new is None or not _node_of(new)):
            self._wake(self._refused)

    def _node_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if old is None or new is None or _node_facts(old) != _node_facts(new):
            # The sentence on waiting pods counts the nodes, so those change too.
            self._wake(self._refused)
            if old is None or new is None:
                self._wake(self._unready)

    def _claim_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        obj = new if new is not None else old
        assert obj is not None
        for pod in self._pods.by(WANTING, key_of(obj)):
            self._controller.enqueue(key_of(pod))

    def _volume_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        if self._refused:
            self._wake(self._refused)

    def _class_changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        self._wake(self._unready)
        self._wake(self._refused)

    def _wake(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._controller.enqueue(key)


def _never_displaces(obj: dict[str, Any]) -> bool:
    return bool(obj.get("spec", {}).get("preemptionPolicy") == "Never")


def _is_ours(obj: dict[str, Any]) -> bool:
    """Whether the pod waits for us: no node, not going, not finished, not gated."""
    spec = obj.get("spec", {})
    return (
        not spec.get("nodeName")
        and spec.get("schedulerName", COMPONENT) == COMPONENT
        and not spec.get("schedulingGates")
        and "deletionTimestamp" not in obj["metadata"]
        and obj.get("status", {}).get("phase") not in views.FINISHED
    )


def _settled(uid: str, obj: dict[str, Any] | None) -> bool:
    """Whether the cache shows that the pod with this uid got its node, or is gone."""
    return obj is None or obj["metadata"]["uid"] != uid or bool(obj["spec"].get("nodeName"))


def _claims_wanted(obj: dict[str, Any]) -> Iterable[Hashable]:
    return _claim_keys(obj) if _is_ours(obj) else ()


def _claims_used(obj: dict[str, Any]) -> Iterable[Hashable]:
    return _claim_keys(obj) if _node_of(obj) else ()


def _claim_keys(obj: dict[str, Any]) -> list[Hashable]:
    pod = views.pod(obj)
    return [(pod.metadata.namespace, name) for _, name in views.claims_of(pod)]


def _node_of(obj: dict[str, Any]) -> tuple[str, ...]:
    """Return the node the pod occupies, as index keys; a finished pod occupies none."""
    node = obj.get("spec", {}).get("nodeName")
    finished = obj.get("status", {}).get("phase") in views.FINISHED
    return (node,) if node and not finished else ()


def _node_facts(obj: dict[str, Any]) -> tuple[object, ...]:
    """Return what decides placement, so that other changes of a node wake nobody."""
    node = views.node(obj)
    return (
        node.metadata.labels,
        node.metadata.terminating,
        node.spec,
        node.status.allocatable,
        node.ready,
    )
