"""Stateful sets: numbered pods with names and claims that stay.

One look goes through the numbers in order. Under OrderedReady it stops at the first pod that is
missing (and makes it), going, or not ready; so a set grows from the lowest number up, shrinks from
the highest down, and an update replaces one pod after the other from the highest down to the
partition. Parallel makes and removes pods without waiting; its updates are one by one as well.

The invariant: there are never two pods of one number. A pod that is being deleted blocks its
number until the API no longer has it. When its node is lost nobody can say that it has stopped,
so it stays, Terminating, until the node is back or somebody who knows deletes it by force.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, kinds
from holdfast.controllers.workloads import identity, ownership, podstate
from holdfast.controllers.workloads.numbered import NumberedPods
from holdfast.controllers.workloads.revisions import Revisions, template_of
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key, key_of
from holdfast.runtime.recorder import Recorder

COMPONENT = "statefulset-controller"
WORKERS = 5

Object = dict[str, Any]
Numbered = dict[int, Object]


class _Blocked(Exception):
    """Nothing more can be done now; `seconds` says when to look again, if not at a change."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(seconds)
        self.seconds = seconds


class StatefulSets:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._informers = informers
        self._sets = informers.of(kinds.STATEFUL_SET)
        self._pods = informers.of(kinds.POD)
        ownership.index(self._pods)
        self._claiming = ownership.Claiming(client, self._pods, kinds.STATEFUL_SET)
        self._revisions = Revisions(client, informers)
        self._control = NumberedPods(client, informers, recorder)
        self._controller = Controller("statefulsets", self._reconcile, workers=WORKERS)
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Keep stateful sets until cancelled."""
        await self._informers.synced()
        await self._controller.run()

    async def _reconcile(self, key: Key) -> Outcome:
        obj = self._sets.get(key[1], key[0])
        if obj is None:
            return Done
        pods = await self._pods_of(obj)
        known = await self._revisions.of(obj)
        if "deletionTimestamp" in obj["metadata"]:
            return Done
        update = await self._ensure_revision(obj, known)
        known = [*(each for each in known if key_of(each) != key_of(update)), update]
        name = obj.get("status", {}).get("currentRevision")
        current = next((each for each in known if each["metadata"]["name"] == name), update)
        outcome: Outcome = Done
        try:
            await self._step(obj, pods, current, update)
        except _Blocked as blocked:
            outcome = After(blocked.seconds) if blocked.seconds is not None else Done
        finally:
            pods = self._present(obj)
            current_name = await self._write_status(obj, pods, current, update)
        used = {identity.revision_of(pod) for pod in pods.values()}
        used |= {current_name, update["metadata"]["name"]}
        await self._revisions.forget(known, used, obj["spec"].get("revisionHistoryLimit", 10))
        return outcome

    async def _pods_of(self, obj: Object) -> Numbered:
        name = obj["metadata"]["name"]
        await self._claiming.claim(
            obj,
            lambda pod: (
                identity.number_of(obj, pod["metadata"]["name"]) is not None
                and pod["metadata"]["name"].startswith(f"{name}-")
            ),
        )
        return self._present(obj)

    def _present(self, obj: Object) -> Numbered:
        found: Numbered = {}
        for pod in ownership.owned(self._pods, obj):
            number = identity.number_of(obj, pod["metadata"]["name"])
            if number is not None:
                found[number] = pod
        return found

    async def _ensure_revision(self, obj: Object, known: list[Object]) -> Object:
        collisions = obj.get("status", {}).get("collisionCount", 0)
        try:
            return await self._revisions.ensure(obj, known, collisions)
        except errors.AlreadyExists:
            await self._patch_status(obj, {"collisionCount": collisions + 1})
            raise

    # --- the steps ------------------------------------------------------------

    async def _step(self, obj: Object, pods: Numbered, current: Object, update: Object) -> None:
        """Do what can be done now; raises _Blocked where something has to happen first."""
        ordered = obj["spec"].get("podManagementPolicy") != "Parallel"
        wanted = identity.numbers(obj)
        await self._control.keep_claims(obj, pods, wanted)
        for number in wanted:
            revision = self._revision_for(obj, number, current, update)
            await self._keep(obj, number, pods.get(number), revision, ordered)
        going = sorted((number for number in pods if number not in wanted), reverse=True)
        for number in going:
            await self._remove(obj, pods, number, ordered)
        await self._update(obj, pods, update)

    def _revision_for(self, obj: Object, number: int, current: Object, update: Object) -> Object:
        """Choose the template for a pod that has to be made."""
        strategy = obj["spec"].get("updateStrategy") or {}
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        below = number < identity.start(obj) + partition
        return current if strategy.get("type") == "RollingUpdate" and below else update

    async def _keep(
        self, obj: Object, number: int, pod: Object | None, revision: Object, ordered: bool
    ) -> None:
        """See to one wanted pod."""
        if pod is not None and podstate.is_finished(pod) and not podstate.is_terminating(pod):
            await self._control.replace_failed(obj, pod)
            pod = self._pods.get(pod["metadata"]["name"], pod["metadata"]["namespace"])
            if pod is not None:
                raise _Blocked
        if pod is None:
            name = revision["metadata"]["name"]
            made = identity.pod(obj, number, template_of(revision), name)
            await self._control.create(obj, number, made)
            if ordered:
                raise _Blocked
            return
        if ordered:
            _require_available(obj, pod)

    async def _remove(self, obj: Object, pods: Numbered, number: int, ordered: bool) -> None:
        """Scale one pod away; in order only when all pods before it are well."""
        pod = pods[number]
        if podstate.is_terminating(pod):
            if ordered:
                raise _Blocked
            return
        if ordered:
            for other in sorted(pods):
                if other < number and not podstate.is_ready(pods[other]):
                    raise _Blocked
        await self._control.delete(obj, pod)
        if ordered:
            raise _Blocked

    async def _update(self, obj: Object, pods: Numbered, update: Object) -> None:
        """Replace the highest pod that is not of the present template, if all above are well."""
        strategy = obj["spec"].get("updateStrategy") or {}
        if strategy.get("type") == "OnDelete":
            return
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        for number in reversed(identity.numbers(obj)):
            if number < identity.start(obj) + partition:
                return
            pod = pods.get(number)
            if pod is None:
                raise _Blocked
            stale = identity.revision_of(pod) != update["metadata"]["name"]
            if stale and not podstate.is_terminating(pod):
                await self._control.delete(obj, pod)
                raise _Blocked
            _require_available(obj, pod)

    # --- status ---------------------------------------------------------------

    async def _write_status(
        self, obj: Object, pods: Numbered, current: Object, update: Object
    ) -> str:
        """Write counts and revisions; return the name of the current revision."""
        seconds = obj["spec"].get("minReadySeconds", 0)
        live = [pod for pod in pods.values() if not podstate.is_terminating(pod)]
        names = (current["metadata"]["name"], update["metadata"]["name"])
        counts = [sum(identity.revision_of(pod) == name for pod in live) for name in names]
        ready = [pod for pod in pods.values() if podstate.is_ready(pod)]
        current_name: str = names[0]
        settled = counts[1] == len(pods) == len(ready) == len(identity.numbers(obj))
        if settled:
            current_name, counts[0] = names[1], counts[1]
        wanted = {
            "observedGeneration": obj["metadata"].get("generation", 0),
            "replicas": len(pods),
            "readyReplicas": len(ready),
            "availableReplicas": sum(podstate.is_available(pod, seconds) for pod in ready),
            "currentReplicas": counts[0],
            "updatedReplicas": counts[1],
            "currentRevision": current_name,
            "updateRevision": names[1],
        }
        status = obj.get("status") or {}
        wanted["collisionCount"] = status.get("collisionCount", 0)
        if any(status.get(field, 0) != value for field, value in wanted.items()):
            await self._patch_status(obj, wanted)
        return current_name

    async def _patch_status(self, obj: Object, status: Object) -> None:
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        try:
            written = await self._client.patch(
                kinds.STATEFUL_SET, meta["name"], patch, meta["namespace"], subresource="status"
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


def _require_available(obj: Object, pod: Object) -> None:
    """Raise _Blocked unless the pod has been ready for long enough and is not going."""
    if podstate.is_terminating(pod):
        raise _Blocked
    wait = podstate.available_in(pod, obj["spec"].get("minReadySeconds", 0))
    if wait is None:
        raise _Blocked
    if wait > 0:
        raise _Blocked(wait)
