"""`deployments/scale` and its like: the number of pods of a workload, as an object of its own.

A Scale is made from the workload whenever it is read, and a written one becomes a change of the
workload's `spec.replicas`, with all rules of such a change. Nothing of a Scale is stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from holdfast.api import errors, fields, kinds, shapes

Object = dict[str, Any]
Change = Callable[[Object], Object]
_META = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(obj: Object) -> Object:
    """Return the Scale of a workload."""
    meta, spec = obj["metadata"], obj.get("spec", {})
    status: Object = {"replicas": obj.get("status", {}).get("replicas", 0)}
    selector = _selector_text(spec.get("selector") or {})
    if selector:
        status["selector"] = selector
    # Go leaves zero out of the spec, but not out of the status.
    wanted = {"replicas": spec["replicas"]} if spec.get("replicas") else {}
    return {
        "kind": kinds.SCALE.name,
        "apiVersion": kinds.SCALE.api_version,
        "metadata": {key: meta[key] for key in _META if key in meta},
        "spec": wanted,
        "status": status,
    }


def applied(change: Change) -> Change:
    """Turn a change of the Scale into the change of the workload it stands for.

    The result raises `Conflict` through the write path when the Scale carries another revision.
    """

    def change_workload(old: Object) -> Object:
        try:
            scale = kinds.SCALE.shape.decode(change(scale_of(old)))
        except shapes.DecodeError as error:
            raise errors.BadRequest(
                f'Scale in version "{kinds.SCALE.version}" cannot be handled as a Scale: {error}'
            ) from error
        given = scale.get("metadata") or {}
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        name = old["metadata"]["name"]
        if replicas < 0:
            rule = "must be greater than or equal to 0"
            cause = fields.invalid("spec.replicas", replicas, rule)
            raise errors.Invalid.of(kinds.SCALE.group, kinds.SCALE.name, name, [cause])
        if given.get("name", name) != name:
            raise errors.BadRequest(
                f"the name of the object ({given['name']}) does not match "
                f"the name on the URL ({name})"
            )
        meta = {**old["metadata"]}
        for key in ("resourceVersion", "uid"):
            if given.get(key):
                meta[key] = given[key]
        return {**old, "metadata": meta, "spec": {**old["spec"], "replicas": replicas}}

    return change_workload


def _selector_text(selector: Object) -> str:
    """Write a label selector the way a query parameter has it."""
    labels = selector.get("matchLabels") or {}
    parts = {key: f"{key}={value}" for key, value in labels.items()}
    found = [parts[key] for key in sorted(parts)]
    for each in selector.get("matchExpressions") or ():
        key, values = each.get("key", ""), ",".join(sorted(each.get("values") or ()))
        match each.get("operator"):
            case "In":
                found.append(f"{key} in ({values})")
            case "NotIn":
                found.append(f"{key} notin ({values})")
            case "Exists":
                found.append(key)
            case "DoesNotExist":
                found.append(f"!{key}")
    return ",".join(found)
