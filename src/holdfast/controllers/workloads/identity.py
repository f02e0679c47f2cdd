"""What a pod of a stateful set is by its number: its name, its labels, its claims.

The pod `SET-N` always gets the claims `TEMPLATE-SET-N`, whichever node it is on and however often
it is replaced: that is how it finds its data again. Claims are made before the pod and normally
outlive it; the retention policy adds owner references to them, and whoever collects garbage then
deletes them with the set (`whenDeleted`) or with the pod that was scaled away (`whenScaled`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from holdfast.api import kinds
from holdfast.controllers.workloads import ownership
from holdfast.controllers.workloads.podcontrol import from_template

REVISION_LABEL = "controller-revision-hash"
NAME_LABEL = "statefulset.kubernetes.io/pod-name"
INDEX_LABEL = "apps.kubernetes.io/pod-index"

Object = dict[str, Any]


def start(obj: Object) -> int:
    """Return the number of the set's first pod."""
    found: int = (obj["spec"].get("ordinals") or {}).get("start", 0)
    return found


def numbers(obj: Object) -> range:
    """Return the numbers of the pods the set wants."""
    return range(start(obj), start(obj) + obj["spec"].get("replicas", 1))


def number_of(obj: Object, name: str) -> int | None:
    """Return a pod's number by its name; None for a name that is not one of the set's."""
    parent, _, digits = name.rpartition("-")
    if parent != obj["metadata"]["name"] or not digits.isascii() or not digits.isdigit():
        return None
    return int(digits) if digits == str(int(digits)) else None


def pod_name(obj: Object, number: int) -> str:
    """Return the name of a pod."""
    return f"{obj['metadata']['name']}-{number}"


def templates(obj: Object) -> list[Object]:
    """Return the set's claim templates."""
    return obj["spec"].get("volumeClaimTemplates") or []


def claim_name(obj: Object, template: Object, number: int) -> str:
    """Return the name of a claim."""
    return f"{template['metadata']['name']}-{pod_name(obj, number)}"


def claims(obj: Object, number: int) -> Iterator[Object]:
    """Yield the claims of a pod as they are created."""
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    for template in templates(obj):
        meta = template["metadata"]
        body = copy.deepcopy({"spec": template.get("spec") or {}})
        made: Object = {
            "name": claim_name(obj, template, number),
            "namespace": obj["metadata"]["namespace"],
            "labels": {**(meta.get("labels") or {}), **labels},
        }
        for part in ("annotations", "finalizers"):
            if meta.get(part):
                made[part] = copy.copy(meta[part])
        yield {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": made, **body}


def pod(obj: Object, number: int, template: Object, revision: str) -> Object:
    """Build the pod with a number from a revision's template."""
    made = from_template(obj, kinds.STATEFUL_SET, template)
    name = pod_name(obj, number)
    meta, spec = made["metadata"], made["spec"]
    meta["name"] = name
    meta["labels"] = {
        **meta.get("labels", {}),
        NAME_LABEL: name,
        INDEX_LABEL: str(number),
        REVISION_LABEL: revision,
    }
    spec["hostname"] = name
    if obj["spec"].get("serviceName"):
        spec["subdomain"] = obj["spec"]["serviceName"]
    claimed = {
        each["metadata"]["name"]: {
            "name": each["metadata"]["name"],
            "persistentVolumeClaim": {"claimName": claim_name(obj, each, number)},
        }
        for each in templates(obj)
    }
    others = [each for each in spec.get("volumes") or () if each["name"] not in claimed]
    if claimed or others:
        spec["volumes"] = [*others, *claimed.values()]
    return made


def revision_of(pod: Object) -> str:
    """Return the revision a pod was made from."""
    found: str = (pod["metadata"].get("labels") or {}).get(REVISION_LABEL, "")
    return found


def claim_owners(obj: Object, claim: Object, pod: Object | None, leaving: bool) -> list[Object]:
    """Return the owner references a claim should have under the set's retention policy.

    `pod` is the claim's pod where there is one, `leaving` says that it is being scaled away.
    References to anything but the set and its pods are left alone.
    """
    policy = obj["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    existing: list[Object] = claim["metadata"].get("ownerReferences") or []
    kept = [each for each in existing if not _is_ours(obj, each)]
    if leaving and policy.get("whenScaled") == "Delete":
        mine = [each for each in existing if each.get("kind") == "Pod" and _is_ours(obj, each)]
        kept += [_reference(pod, kinds.POD)] if pod is not None else mine
    elif policy.get("whenDeleted") == "Delete":
        kept.append(_reference(obj, kinds.STATEFUL_SET))
    return kept


def _is_ours(obj: Object, reference: Object) -> bool:
    if reference.get("kind") == "Pod":
        return number_of(obj, reference.get("name", "")) is not None
    return bool(reference.get("uid") == obj["metadata"]["uid"])


def _reference(owner: Object, kind: kinds.Kind) -> Object:
    return ownership.reference(owner, kind)
