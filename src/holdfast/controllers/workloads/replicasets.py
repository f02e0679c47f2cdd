"""Replica sets: as many equal pods as the set wants.

One look at a set counts the active pods that belong to it, creates what is missing and deletes
what is too much, then writes the counts to the status. Creation starts with one pod and doubles,
so that a template the API refuses costs one request, not hundreds. Which pods go first is a
ranking: those that do the least harm.

The invariant: a pod that is being deleted is not counted, and one that was created is counted at
once, because what is written is fed back to the cache.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from holdfast.api import errors, kinds
from holdfast.controllers import conditions
from holdfast.controllers.workloads import ownership, podstate
from holdfast.controllers.workloads.podcontrol import PodControl, from_template
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key, key_of
from holdfast.runtime.recorder import Recorder

COMPONENT = "replicaset-controller"
BURST = 500
WORKERS = 5
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_NOTHING: dict[str, list[str]] = {"conditions": []}
_PHASES = {"Pending": 0, "Unknown": 1}

Object = dict[str, Any]


class ReplicaSets:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._informers = informers
        self._sets = informers.of(kinds.REPLICA_SET)
        self._pods = informers.of(kinds.POD)
        ownership.index(self._pods)
        self._claiming = ownership.Claiming(client, self._pods, kinds.REPLICA_SET)
        self._control = PodControl(client, self._pods, recorder)
        self._controller = Controller("replicasets", self._reconcile, workers=WORKERS)
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Keep replica sets until cancelled."""
        await self._informers.synced()
        await self._controller.run()

    async def _reconcile(self, key: Key) -> Outcome:
        obj = self._sets.get(key[1], key[0])
        if obj is None:
            return Done
        pods = [pod for pod in await self._claiming.claim(obj) if podstate.is_active(pod)]
        failure: errors.StatusError | None = None
        if "deletionTimestamp" not in obj["metadata"]:
            try:
                pods = await self._adjust(obj, pods)
            except errors.StatusError as error:
                failure = error
                pods = [p for p in ownership.owned(self._pods, obj) if podstate.is_active(p)]
        await self._write_status(obj, pods, failure)
        if failure is not None:
            raise failure
        waits = [
            wait
            for pod in pods
            if (wait := podstate.available_in(pod, obj["spec"].get("minReadySeconds", 0)))
        ]
        return After(min(waits)) if waits else Done

    async def _adjust(self, obj: Object, pods: list[Object]) -> list[Object]:
        """Create or delete pods; return those that are active then."""
        missing = obj["spec"].get("replicas", 1) - len(pods)
        if missing > 0:
            return pods + await self._create(obj, min(missing, BURST))
        if missing < 0:
            nodes = Counter(pod["spec"].get("nodeName", "") for pod in pods)
            ranked = sorted(pods, key=lambda pod: _rank(pod, nodes))
            going, pods = ranked[: min(-missing, BURST)], ranked[-missing:]
            await asyncio.gather(*(self._control.delete(obj, pod) for pod in going))
        return pods

    async def _create(self, obj: Object, count: int) -> list[Object]:
        made: list[Object] = []
        batch = 1
        while len(made) < count:
            batch = min(batch, count - len(made))
            made += await asyncio.gather(*(self._create_one(obj) for _ in range(batch)))
            batch *= 2
        return made

    async def _create_one(self, obj: Object) -> Object:
        pod = from_template(obj, kinds.REPLICA_SET, obj["spec"].get("template") or {})
        pod["metadata"]["generateName"] = f"{obj['metadata']['name']}-"
        return await self._control.create(obj, pod)

    async def _write_status(
        self, obj: Object, pods: list[Object], failure: errors.StatusError | None
    ) -> None:
        current = obj.get("status") or {}
        wanted = {**_counts(obj, pods), "conditions": _failure_condition(current, failure)}
        if {key: current.get(key) or _NOTHING.get(key, 0) for key in wanted} == wanted:
            return
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": wanted}
        try:
            written = await self._client.patch(
                kinds.REPLICA_SET, meta["name"], patch, meta["namespace"], subresource="status"
            )
        except errors.NotFound:
            return
        self._sets.observe(written)

    # --- what wakes sets ------------------------------------------------------

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._controller.enqueue(key_of(new))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        for key in ownership.concerned(self._sets, old, new):
            self._controller.enqueue(key)


def _counts(obj: Object, pods: list[Object]) -> Object:
    spec = obj["spec"]
    labels = (spec.get("template") or {}).get("metadata", {}).get("labels") or {}
    seconds = spec.get("minReadySeconds", 0)
    return {
        "replicas": len(pods),
        "fullyLabeledReplicas": sum(
            labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in pods
        ),
        "readyReplicas": sum(podstate.is_ready(pod) for pod in pods),
        "availableReplicas": sum(podstate.is_available(pod, seconds) for pod in pods),
        "observedGeneration": obj["metadata"].get("generation", 0),
    }


def _failure_condition(current: Object, failure: errors.StatusError | None) -> list[Object]:
    existing: list[Object] = list(current.get("conditions") or ())
    others = [each for each in existing if each["type"] != "ReplicaFailure"]
    if failure is None:
        return others
    made = conditions.condition(
        existing, "ReplicaFailure", "True", reason="FailedCreate", message=failure.message
    )
    return [*others, made]


def _rank(pod: Object, nodes: Counter[str]) -> tuple[Any, ...]:
    """Order pods by how soon they may go; the first goes first."""
    meta, status = pod["metadata"], pod.get("status", {})
    node = pod["spec"].get("nodeName", "")
    cost = (meta.get("annotations") or {}).get(DELETION_COST, "0")
    restarts = max(
        (each.get("restartCount", 0) for each in status.get("containerStatuses") or ()), default=0
    )
    since = podstate.ready_since(pod)
    return (
        bool(node),
        _PHASES.get(status.get("phase", ""), 2),
        since is not None,
        int(cost) if cost.lstrip("-").isdigit() else 0,
        -nodes[node],
        # The youngest go first.
        -since.timestamp() if since is not None else 0.0,
        -restarts,
        [-ord(character) for character in meta.get("creationTimestamp", "")],
    )
