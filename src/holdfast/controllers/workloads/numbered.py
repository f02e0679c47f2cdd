"""Writing the pods and claims of stateful sets, with the events that tell about it.

Before a pod is made its claims are there; a claim that is being deleted holds the pod up, because
the pod would otherwise start with data that is about to go. What was written is fed back to the
caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.api import errors, kinds
from holdfast.controllers.workloads import identity, podstate
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import EventType, Recorder

Object = dict[str, Any]


class NumberedPods:
    """Writes pods and claims on behalf of stateful sets."""

    def __init__(self, client: Client, informers: Informers, recorder: Recorder) -> None:
        self._client = client
        self._pods = informers.of(kinds.POD)
        self._claims = informers.of(kinds.CLAIM)
        self._recorder = recorder

    async def create(self, obj: Object, number: int, pod: Object) -> None:
        """Make a pod, its claims first; raises what the API refused it with."""
        name = pod["metadata"]["name"]
        try:
            await self._ensure_claims(obj, number)
            made = await self._client.create(kinds.POD, pod, pod["metadata"]["namespace"])
        except errors.StatusError as error:
            self._say(obj, "Warning", "Create", f"Pod {name}", error)
            raise
        self._pods.observe(made)
        self._say(obj, "Normal", "Create", f"Pod {name}")

    async def delete(self, obj: Object, pod: Object) -> None:
        """Delete a pod; one that is gone is fine."""
        meta = pod["metadata"]
        try:
            last = await self._client.delete(
                kinds.POD, meta["name"], meta["namespace"], uid=meta["uid"]
            )
        except (errors.NotFound, errors.Conflict):
            return
        except errors.StatusError as error:
            self._say(obj, "Warning", "Delete", f"Pod {meta['name']}", error)
            raise
        self._pods.observe(last)
        self._say(obj, "Normal", "Delete", f"Pod {meta['name']}")

    async def replace_failed(self, obj: Object, pod: Object) -> None:
        """Delete a pod that has ended, so that it can be made anew."""
        meta = pod["metadata"]
        where = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
        phase = "failed" if pod["status"].get("phase") == "Failed" else "succeeded"
        reason = "RecreatingFailedPod" if phase == "failed" else "RecreatingTerminatedPod"
        text = f"StatefulSet {where} is recreating {phase} Pod {meta['name']}"
        self._recorder.event(obj, "Warning" if phase == "failed" else "Normal", reason, text)
        await self.delete(obj, pod)

    async def keep_claims(self, obj: Object, pods: Mapping[int, Object], wanted: range) -> None:
        """Bring the owner references of the pods' claims in line with the retention policy."""
        for number, pod in pods.items():
            if podstate.is_terminating(pod) and number in wanted:
                continue
            for template in identity.templates(obj):
                name = identity.claim_name(obj, template, number)
                claim = self._claims.get(name, obj["metadata"]["namespace"])
                if claim is not None and "deletionTimestamp" not in claim["metadata"]:
                    await self._own(obj, claim, pod, number not in wanted)

    async def _own(self, obj: Object, claim: Object, pod: Object, leaving: bool) -> None:
        owners = identity.claim_owners(obj, claim, pod, leaving)
        meta = claim["metadata"]
        if owners == (meta.get("ownerReferences") or []):
            return
        patch = {
            "metadata": {
                "resourceVersion": meta["resourceVersion"],
                "ownerReferences": owners or None,
            }
        }
        written = await self._client.patch(kinds.CLAIM, meta["name"], patch, meta["namespace"])
        self._claims.observe(written)

    async def _ensure_claims(self, obj: Object, number: int) -> None:
        for body in identity.claims(obj, number):
            meta = body["metadata"]
            present = self._claims.get(meta["name"], meta["namespace"])
            if present is None:
                await self._create_claim(obj, number, body)
            elif "deletionTimestamp" in present["metadata"]:
                raise errors.Conflict.of(
                    "",
                    "persistentvolumeclaims",
                    meta["name"],
                    f"pvc {meta['name']} is being deleted",
                )

    async def _create_claim(self, obj: Object, number: int, body: Object) -> None:
        meta = body["metadata"]
        owners = identity.claim_owners(obj, body, None, leaving=False)
        if owners:
            body = {**body, "metadata": {**meta, "ownerReferences": owners}}
        what = f"Claim {meta['name']} Pod {identity.pod_name(obj, number)}"
        try:
            made = await self._client.create(kinds.CLAIM, body, meta["namespace"])
        except errors.AlreadyExists:
            # Made by an earlier look, or by the administrator who wants this very claim used.
            return
        except errors.StatusError as error:
            self._say(obj, "Warning", "Create", what, error, good="success")
            raise
        self._claims.observe(made)
        self._say(obj, "Normal", "Create", what, good="success")

    def _say(
        self,
        obj: Object,
        type: EventType,
        verb: str,
        what: str,
        error: errors.StatusError | None = None,
        *,
        good: str = "successful",
    ) -> None:
        end = good if error is None else f"failed error: {error.message}"
        text = f"{verb.lower()} {what} in StatefulSet {obj['metadata']['name']} {end}"
        reason = f"{'Successful' if error is None else 'Failed'}{verb}"
        self._recorder.event(obj, type, reason, text)
