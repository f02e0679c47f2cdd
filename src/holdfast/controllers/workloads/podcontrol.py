"""Creating and deleting the pods of a workload, with the events that tell about it.

A pod is made from a template: its labels, annotations and spec, and a reference to the workload.
What was written is fed back to the cache, so that the next look counts it and nothing is made
twice.
"""

from __future__ import annotations

import copy
from typing import Any

from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind
from holdfast.controllers.workloads import ownership
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informer
from holdfast.runtime.recorder import Recorder

Object = dict[str, Any]


def from_template(owner: Object, kind: Kind, template: Object) -> Object:
    """Build a pod of the workload, without a name."""
    meta = template.get("metadata") or {}
    made: Object = {
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [ownership.reference(owner, kind)],
    }
    for part in ("labels", "annotations", "finalizers"):
        if meta.get(part):
            made[part] = copy.copy(meta[part])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": made,
        "spec": copy.deepcopy(template.get("spec") or {}),
    }


class PodControl:
    """Writes pods on behalf of workloads."""

    def __init__(self, client: Client, pods: Informer, recorder: Recorder) -> None:
        self._client = client
        self._pods = pods
        self._recorder = recorder

    async def create(self, owner: Object, pod: Object) -> Object:
        """Create a pod and say so on its workload; raises what the API refused it with."""
        try:
            made = await self._client.create(kinds.POD, pod, pod["metadata"]["namespace"])
        except errors.StatusError as error:
            # In a namespace that is being emptied nothing can be made, and nobody needs to know.
            if not _is_leaving(error):
                text = f"Error creating: {error.message}"
                self._recorder.event(owner, "Warning", "FailedCreate", text)
            raise
        self._pods.observe(made)
        text = f"Created pod: {made['metadata']['name']}"
        self._recorder.event(owner, "Normal", "SuccessfulCreate", text)
        return made

    async def delete(self, owner: Object, pod: Object) -> None:
        """Delete a pod and say so on its workload; one that is gone is fine."""
        meta = pod["metadata"]
        try:
            last = await self._client.delete(
                kinds.POD, meta["name"], meta["namespace"], uid=meta["uid"]
            )
        except (errors.NotFound, errors.Conflict):
            return
        except errors.StatusError as error:
            text = f"Error deleting: {error.message}"
            self._recorder.event(owner, "Warning", "FailedDelete", text)
            raise
        self._pods.observe(last)
        text = f"Deleted pod: {meta['name']}"
        self._recorder.event(owner, "Normal", "SuccessfulDelete", text)


def _is_leaving(error: errors.StatusError) -> bool:
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
