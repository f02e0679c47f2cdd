"""Deployments: one replica set per pod template, and pods that move from one to the next.

One look finds (or makes) the replica set of the present template, then takes the steps of the
strategy that are possible now, then writes counts and conditions. Every change of a replica set
or of its pods brings the deployment back for the next step; nothing waits in between. Old sets
stay at zero pods, numbered by revision, so that `kubectl rollout undo` finds their templates.

The invariant: the number of pods stays within the strategy's margins at every write.
"""

from __future__ import annotations

import copy
from typing import Any

from holdfast.api import errors, kinds
from holdfast.controllers.workloads import ownership, podstate, progress, rollout
from holdfast.controllers.workloads.rollout import DESIRED, HASH_LABEL, MAXIMUM, REVISION
from holdfast.runtime.client import Client
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key, key_of
from holdfast.runtime.recorder import Recorder

COMPONENT = "deployment-controller"
WORKERS = 5
HISTORY = "deployment.kubernetes.io/revision-history"
_OWN_NOTES = frozenset(
    {
        "kubectl.kubernetes.io/last-applied-configuration",
        "deprecated.deployment.rollback.to",
        REVISION,
        HISTORY,
        DESIRED,
        MAXIMUM,
    }
)

Object = dict[str, Any]


class Deployments:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._informers = informers
        self._recorder = recorder
        self._deployments = informers.of(kinds.DEPLOYMENT)
        self._sets = informers.of(kinds.REPLICA_SET)
        self._pods = informers.of(kinds.POD)
        ownership.index(self._sets)
        ownership.index(self._pods)
        self._claiming = ownership.Claiming(client, self._sets, kinds.DEPLOYMENT)
        self._controller = Controller("deployments", self._reconcile, workers=WORKERS)
        self._deployments.subscribe(self._deployment_changed)
        self._sets.subscribe(self._set_changed)
        self._pods.subscribe(self._pod_changed)

    async def run(self) -> None:
        """Keep deployments until cancelled."""
        await self._informers.synced()
        await self._controller.run()

    async def _reconcile(self, key: Key) -> Outcome:
        obj = self._deployments.get(key[1], key[0])
        if obj is None:
            return Done
        sets = await self._claiming.claim(obj)
        new = self._find_new(obj, sets)
        if "deletionTimestamp" not in obj["metadata"]:
            if obj["spec"].get("paused") or self._was_resized(obj, sets):
                sets = await self._resize(obj, sets, new)
            else:
                obj, sets = await self._roll(obj, sets, new)
            new = self._find_new(obj, sets)
        status = progress.counts(obj, sets, new)
        obj = await self._write_status(obj, status, sets, new)
        if progress.is_complete(obj, status):
            await self._forget_history(obj, sets, new)
        left = progress.deadline_in(obj, status)
        timed_out = (progress.condition_of(obj, "Progressing") or {}).get("status") == "False"
        return Done if left is None or timed_out else After(left + 1.0)

    def _find_new(self, obj: Object, sets: list[Object]) -> Object | None:
        found = (each for each in rollout.oldest_first(sets) if rollout.same_template(each, obj))
        return next(found, None)

    # --- the strategies -------------------------------------------------------

    async def _roll(
        self, obj: Object, sets: list[Object], new: Object | None
    ) -> tuple[Object, list[Object]]:
        if obj["spec"].get("strategy", {}).get("type") == "Recreate":
            old = [each for each in sets if each is not new]
            sets = await self._scale(obj, sets, [(each, 0) for each in old if rollout.wanted(each)])
            if self._still_running(each for each in sets if each is not new):
                return obj, sets
        obj, new = await self._ensure_new(obj, sets, new)
        sets = [*(each for each in sets if key_of(each) != key_of(new)), new]
        size = rollout.next_new(obj, new, sets)
        if size != rollout.wanted(new):
            # One step per look: the next one is computed from what this one brought.
            return obj, await self._scale(obj, sets, [(new, size)])
        if obj["spec"].get("strategy", {}).get("type") == "Recreate":
            return obj, sets
        return obj, await self._scale(obj, sets, list(rollout.next_old(obj, new, sets)))

    def _still_running(self, old: Any) -> bool:
        return any(
            not podstate.is_finished(pod)
            for each in old
            for pod in ownership.owned(self._pods, each)
        )

    async def _resize(self, obj: Object, sets: list[Object], new: Object | None) -> list[Object]:
        """Bring the sets to a changed number without going on with an update."""
        active = [each for each in sets if rollout.wanted(each) > 0]
        if len(active) <= 1:
            only = active[0] if active else new
            if only is None:
                return sets
            return await self._scale(obj, sets, [(only, rollout.wanted(obj))])
        rolling = obj["spec"].get("strategy", {}).get("type") == "RollingUpdate"
        if new is not None and progress.is_complete(obj, progress.counts(obj, [new], new)):
            old = [(each, 0) for each in active if each is not new]
            return await self._scale(obj, sets, old)
        if not rolling:
            return sets
        return await self._scale(obj, sets, list(rollout.proportional(obj, active)))

    def _was_resized(self, obj: Object, sets: list[Object]) -> bool:
        wanted = str(rollout.wanted(obj))
        notes = (e["metadata"].get("annotations") or {} for e in sets if rollout.wanted(e) > 0)
        return any(DESIRED in each and each[DESIRED] != wanted for each in notes)

    async def _scale(
        self, obj: Object, sets: list[Object], steps: list[rollout.Scaling]
    ) -> list[Object]:
        written = {key_of(each): await self._scale_one(obj, each, size) for each, size in steps}
        return [written.get(key_of(each)) or each for each in sets]

    async def _scale_one(self, obj: Object, replica_set: Object, size: int) -> Object:
        notes = _size_notes(obj)
        present = replica_set["metadata"].get("annotations") or {}
        before = rollout.wanted(replica_set)
        if before == size and notes.items() <= present.items():
            return replica_set
        meta = replica_set["metadata"]
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"], "annotations": notes},
            "spec": {"replicas": size},
        }
        written = await self._client.patch(
            kinds.REPLICA_SET, meta["name"], patch, meta["namespace"]
        )
        self._sets.observe(written)
        if before != size:
            self._say_scaled(obj, meta["name"], before, size)
        return written

    def _say_scaled(self, obj: Object, name: str, before: int, after: int) -> None:
        way = "up" if after > before else "down"
        text = f"Scaled {way} replica set {name} from {before} to {after}"
        self._recorder.event(obj, "Normal", "ScalingReplicaSet", text)

    # --- the set of the present template --------------------------------------

    async def _ensure_new(
        self, obj: Object, sets: list[Object], new: Object | None
    ) -> tuple[Object, Object]:
        """Make the set of the present template, or bring its notes up to date."""
        newest = max((rollout.revision_of(each) for each in sets if each is not new), default=0)
        revision = str(newest + 1)
        if new is None:
            obj, new = await self._create_new(obj, revision)
        else:
            if rollout.revision_of(new) > newest:
                revision = str(rollout.revision_of(new))
            new = await self._note(obj, new, revision)
        if (obj["metadata"].get("annotations") or {}).get(REVISION) != revision:
            meta = obj["metadata"]
            patch = {"metadata": {"uid": meta["uid"], "annotations": {REVISION: revision}}}
            obj = await self._client.patch(kinds.DEPLOYMENT, meta["name"], patch, meta["namespace"])
            self._deployments.observe(obj)
        return obj, new

    async def _create_new(self, obj: Object, revision: str) -> tuple[Object, Object]:
        collisions = obj.get("status", {}).get("collisionCount", 0)
        body = _replica_set(obj, collisions)
        body["metadata"]["annotations"] |= {REVISION: revision}
        surge, _ = rollout.margins(obj)
        used = rollout.total(ownership.owned(self._sets, obj))
        size = max(0, min(rollout.wanted(obj) + surge - used, rollout.wanted(obj)))
        body["spec"]["replicas"] = size
        meta = body["metadata"]
        try:
            made = await self._client.create(kinds.REPLICA_SET, body, meta["namespace"])
        except errors.AlreadyExists:
            # Somebody else's set has the name: take another one from the next look on.
            await self._patch_status(obj, {"collisionCount": collisions + 1})
            raise
        self._sets.observe(made)
        if size:
            self._say_scaled(obj, meta["name"], 0, size)
        text = f'Created new replica set "{meta["name"]}"'
        begun = progress.begun(obj, "NewReplicaSetCreated", text)
        return await self._patch_status(obj, {"conditions": begun}), made

    async def _note(self, obj: Object, new: Object, revision: str) -> Object:
        meta = new["metadata"]
        present = meta.get("annotations") or {}
        notes = {**_copied_notes(obj), REVISION: revision}
        seconds = obj["spec"].get("minReadySeconds", 0)
        same_wait = new["spec"].get("minReadySeconds", 0) == seconds
        if notes.items() <= present.items() and same_wait:
            return new
        if present.get(REVISION, revision) != revision:
            earlier = [part for part in present.get(HISTORY, "").split(",") if part]
            notes[HISTORY] = ",".join([*earlier, present[REVISION]])
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"], "annotations": notes},
            "spec": {"minReadySeconds": seconds},
        }
        written = await self._client.patch(
            kinds.REPLICA_SET, meta["name"], patch, meta["namespace"]
        )
        self._sets.observe(written)
        return written

    async def _forget_history(self, obj: Object, sets: list[Object], new: Object | None) -> None:
        limit = obj["spec"].get("revisionHistoryLimit")
        if limit is None or "deletionTimestamp" in obj["metadata"]:
            return
        old = sorted((e for e in sets if e is not new), key=rollout.revision_of)
        for each in old[: max(0, len(old) - limit)]:
            meta, status = each["metadata"], each.get("status", {})
            settled = status.get("observedGeneration", 0) >= meta.get("generation", 0)
            if status.get("replicas") or rollout.wanted(each) or not settled:
                continue
            try:
                await self._client.delete(
                    kinds.REPLICA_SET, meta["name"], meta["namespace"], uid=meta["uid"]
                )
            except errors.NotFound:
                continue

    # --- status ---------------------------------------------------------------

    async def _write_status(
        self, obj: Object, status: Object, sets: list[Object], new: Object | None
    ) -> Object:
        current = obj.get("status") or {}
        conditions = progress.conditions_of(obj, status, sets, new)
        same = all(current.get(field, 0) == count for field, count in status.items())
        if same and (current.get("conditions") or []) == conditions:
            return obj
        return await self._patch_status(obj, {**status, "conditions": conditions})

    async def _patch_status(self, obj: Object, status: Object) -> Object:
        meta = obj["metadata"]
        patch = {"metadata": {"uid": meta["uid"]}, "status": status}
        written = await self._client.patch(
            kinds.DEPLOYMENT, meta["name"], patch, meta["namespace"], subresource="status"
        )
        self._deployments.observe(written)
        return written

    # --- what wakes deployments -----------------------------------------------

    def _deployment_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._controller.enqueue(key_of(new))

    def _set_changed(self, old: Object | None, new: Object | None) -> None:
        for each in (old, new):
            owner = ownership.controller_of(each) if each is not None else None
            if each is not None and owner is not None and owner.get("kind") == "Deployment":
                self._controller.enqueue((each["metadata"]["namespace"], owner["name"]))
        if new is not None and ownership.controller_of(new) is None:
            for found in ownership.matching(self._deployments, new):
                self._controller.enqueue(key_of(found))

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        """A pod that is gone may be what Recreate waits for; other changes come with its set."""
        owner = ownership.controller_of(old) if old is not None and new is None else None
        if old is None or owner is None or owner.get("kind") != "ReplicaSet":
            return
        found = self._sets.get(owner["name"], old["metadata"]["namespace"])
        if found is not None:
            self._set_changed(None, found)


def _size_notes(obj: Object) -> dict[str, str]:
    surge, _ = rollout.margins(obj)
    replicas = rollout.wanted(obj)
    return {DESIRED: str(replicas), MAXIMUM: str(replicas + surge)}


def _copied_notes(obj: Object) -> dict[str, str]:
    given = obj["metadata"].get("annotations") or {}
    return {key: text for key, text in given.items() if key not in _OWN_NOTES}


def _replica_set(obj: Object, collisions: int) -> Object:
    """Build the set of the present template; its name and a label carry the template's hash."""
    meta, spec = obj["metadata"], obj["spec"]
    template = copy.deepcopy(spec.get("template") or {})
    label = {HASH_LABEL: rollout.hash_of(template, collisions)}
    template_meta = template.setdefault("metadata", {})
    template_meta["labels"] = {**(template_meta.get("labels") or {}), **label}
    selector = copy.deepcopy(spec.get("selector") or {})
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), **label}
    body: Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta['name']}-{label[HASH_LABEL]}",
            "namespace": meta["namespace"],
            "labels": dict(template_meta["labels"]),
            "annotations": {**_copied_notes(obj), **_size_notes(obj)},
            "ownerReferences": [ownership.reference(obj, kinds.DEPLOYMENT)],
        },
        "spec": {"selector": selector, "template": template},
    }
    if spec.get("minReadySeconds"):
        body["spec"]["minReadySeconds"] = spec["minReadySeconds"]
    return body
