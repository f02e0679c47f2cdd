"""`pods/eviction`: asking that a pod leaves, as `kubectl drain` does (POST of an Eviction).

An eviction is a deletion that says why: the pod gets the condition DisruptionTarget first. There
are no disruption budgets here, so an eviction is never put off.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, kinds
from holdfast.apiserver.options import DeleteOptions, WriteOptions
from holdfast.apiserver.resources import Resources
from holdfast.kit import clock

Object = dict[str, Any]


async def evict(
    resources: Resources, name: str, namespace: str | None, body: Object, options: WriteOptions
) -> None:
    """Delete the pod with the Eviction's `deleteOptions`.

    Raises `NotFound`, `BadRequest` for an Eviction of another pod, and `Conflict` when one of its
    preconditions does not hold.
    """
    given = (body.get("metadata") or {}).get("name")
    if given and given != name:
        raise errors.BadRequest("name in URL does not match name in Eviction object")
    asked = body.get("deleteOptions") or {}
    deletion = DeleteOptions.of(asked, {"dryRun": "All"} if options.dry_run else {})
    pod = resources.latest(kinds.POD, name, namespace).obj
    if not deletion.dry_run and "deletionTimestamp" not in pod["metadata"]:
        await resources.update(kinds.POD, name, namespace, _marked, WriteOptions(), "status")
    await resources.delete(kinds.POD, name, namespace, deletion)


def _marked(pod: Object) -> Object:
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastTransitionTime": clock.rfc3339(clock.now()),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    status = pod.get("status") or {}
    others = [c for c in status.get("conditions", ()) if c.get("type") != "DisruptionTarget"]
    return {**pod, "status": {**status, "conditions": [*others, condition]}}
