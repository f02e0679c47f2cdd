"""`pods/binding`: how a scheduler gives a pod its node (POST of a core/v1 Binding)."""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, kinds
from holdfast.apiserver.options import WriteOptions
from holdfast.apiserver.resources import Resources
from holdfast.kit import clock
from holdfast.store.records import Record

Object = dict[str, Any]


async def bind(
    resources: Resources, name: str, namespace: str | None, body: Object, options: WriteOptions
) -> Record:
    """Set the pod's `spec.nodeName` and its PodScheduled condition.

    Raises `Conflict` when the pod is assigned already or being deleted, `BadRequest` when the
    Binding names no node.
    """
    node = (body.get("target") or {}).get("name")
    if not node:
        raise errors.BadRequest("Binding: target.name: the name of a node is required")
    uid = (body.get("metadata") or {}).get("uid")

    def change(pod: Object) -> Object:
        refusal = _refusal(pod, node, uid)
        if refusal:
            raise errors.Conflict.of("", "pods/binding", name, refusal)
        return {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": _scheduled(pod)}

    # As in Kubernetes, nobody owns what a binding sets.
    return await resources.update(
        kinds.POD, name, namespace, change, options, "binding", follow=False
    )


def _refusal(pod: Object, node: str, uid: str | None) -> str:
    meta, current = pod["metadata"], pod["spec"].get("nodeName")
    if uid and uid != meta["uid"]:
        return f"Precondition failed: UID in precondition: {uid}, UID in object meta: {meta['uid']}"
    if "deletionTimestamp" in meta:
        return f"pod {meta['name']} is being deleted, cannot be assigned to a host"
    if pod["spec"].get("schedulingGates"):
        return f"pod {meta['name']} has non-empty .spec.schedulingGates"
    if current and current != node:
        return f'pod {meta["name"]} is already assigned to node "{current}"'
    return ""


def _scheduled(pod: Object) -> Object:
    status = pod.get("status") or {}
    condition = {
        "type": "PodScheduled",
        "status": "True",
        "lastTransitionTime": clock.rfc3339(clock.now()),
    }
    others = [c for c in status.get("conditions", ()) if c.get("type") != "PodScheduled"]
    return {**status, "conditions": [*others, condition]}
