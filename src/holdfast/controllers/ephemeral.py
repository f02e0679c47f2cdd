"""Makes the claims of generic ephemeral volumes: `<pod>-<volume>`, owned by the pod.

The claim goes with its pod, by garbage collection. A claim of that name that is not the pod's is
left alone, and the pod waits: somebody else's data must not be mounted by accident.
"""

from __future__ import annotations

from holdfast.api import errors, kinds, views
from holdfast.kit.backoff import Backoff
from holdfast.runtime.client import Client, Object
from holdfast.runtime.controller import After, Controller, Done, Outcome
from holdfast.runtime.informer import Informers, Key
from holdfast.runtime.recorder import Recorder

COMPONENT = "ephemeral_volume"
_BY_CLAIM = "ephemeral/pods-by-claim"


class EphemeralClaims:
    """The component; `run` until cancelled."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._informers = informers
        self._pods = informers.of(kinds.POD)
        self._claims = informers.of(kinds.CLAIM)
        self._pods.add_index(_BY_CLAIM, _claims_of)
        self._recorder = recorder
        self._backoff = Backoff(1.0, 60.0)
        self.loop = Controller("ephemeral", self.reconcile)

    async def run(self) -> None:
        """Follow changes until cancelled."""
        await self._informers.synced()
        self._pods.subscribe(self._pod_changed)
        self._claims.subscribe(self._claim_changed)
        await self.loop.run()

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None and old is None and _claims_of(new):
            self.loop.enqueue((new["metadata"]["namespace"], new["metadata"]["name"]))

    def _claim_changed(self, old: Object | None, new: Object | None) -> None:
        if new is None and old is not None:
            key = (old["metadata"]["namespace"], old["metadata"]["name"])
            for pod in self._pods.by(_BY_CLAIM, key):
                self.loop.enqueue((pod["metadata"]["namespace"], pod["metadata"]["name"]))

    async def reconcile(self, key: Key) -> Outcome:
        """Look at the pod once."""
        pod = self._pods.get(key[1], key[0])
        if pod is None or "deletionTimestamp" in pod["metadata"]:
            return Done
        for volume in pod["spec"].get("volumes") or ():
            if "ephemeral" not in volume:
                continue
            try:
                await self._ensure(pod, volume)
            except (errors.Forbidden, errors.Invalid) as error:
                name = f"{key[1]}-{volume['name']}"
                self._say(pod, volume, f"create PVC {name}: {error}")
                return After(self._backoff.next(key))
        self._backoff.forget(key)
        return Done

    async def _ensure(self, pod: Object, volume: Object) -> None:
        meta = pod["metadata"]
        name, namespace = f"{meta['name']}-{volume['name']}", meta["namespace"]
        found = self._claims.get(name, namespace)
        if found is None:
            try:
                written = await self._client.create(
                    kinds.CLAIM, _claim(pod, volume, name), namespace
                )
            except errors.AlreadyExists:
                found = await self._client.get(kinds.CLAIM, name, namespace)
            else:
                self._claims.observe(written)
                return
        if not views.owned_by(views.meta(found), meta["uid"]):
            where = f"{namespace}/{meta['name']}"
            text = f"PVC {namespace}/{name} was not created for pod {where} (pod is not owner)"
            self._say(pod, volume, text)

    def _say(self, pod: Object, volume: Object, text: str) -> None:
        text = f"ephemeral volume {volume['name']}: {text}"
        self._recorder.event(pod, "Warning", "FailedBinding", text)


def _claim(pod: Object, volume: Object, name: str) -> Object:
    template = volume["ephemeral"].get("volumeClaimTemplate") or {}
    given = template.get("metadata") or {}
    owner = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": pod["metadata"]["name"],
        "uid": pod["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    metadata = {key: given[key] for key in ("labels", "annotations") if key in given}
    return {
        "metadata": {**metadata, "name": name, "ownerReferences": [owner]},
        "spec": template.get("spec") or {},
    }


def _claims_of(pod: Object) -> list[Key]:
    meta = pod["metadata"]
    return [
        (meta["namespace"], f"{meta['name']}-{volume['name']}")
        for volume in pod["spec"].get("volumes") or ()
        if "ephemeral" in volume
    ]
