"""Columns of the workloads that keep a number of pods: Deployment, ReplicaSet, StatefulSet.

Counts come from the status as their controllers wrote it; the wanted number comes from the spec.
With `-o wide` the containers and images of the template are shown, so that one sees which version
a workload is at.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from holdfast.apiserver.cells import AGE, Column, Object, Printer, column, label_text, name, wide


def _ready(obj: Object, now: datetime) -> str:
    return f"{_status(obj, 'readyReplicas')}/{_wanted(obj, now)}"


def _wanted(obj: Object, now: datetime) -> int:
    found: int = obj.get("spec", {}).get("replicas", 0)
    return found


def _status(obj: Object, field: str) -> Any:
    return obj.get("status", {}).get(field, 0)


def _count(field: str) -> Printer:
    return lambda obj, now: _status(obj, field)


def _of_containers(field: str) -> Printer:
    def cell(obj: Object, now: datetime) -> str:
        pod = obj.get("spec", {}).get("template", {}).get("spec", {})
        return ",".join(str(each.get(field, "")) for each in pod.get("containers") or ())

    return cell


def selector_text(obj: Object, now: datetime) -> str:
    """Print `spec.selector`: labels first, then the other conditions."""
    selector = obj.get("spec", {}).get("selector") or {}
    labels, others = selector.get("matchLabels"), selector.get("matchExpressions") or ()
    parts = [label_text(labels)] if labels else []
    for each in others:
        key, values = each.get("key", ""), ",".join(sorted(each.get("values") or ()))
        words = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})"}
        words |= {"Exists": key, "DoesNotExist": f"!{key}"}
        parts.append(words.get(each.get("operator", ""), ""))
    return ",".join(parts) or "<none>"


def _controller(obj: Object, now: datetime) -> str:
    for owner in obj.get("metadata", {}).get("ownerReferences") or ():
        if owner.get("controller"):
            group = str(owner.get("apiVersion", "")).rpartition("/")[0]
            kind = str(owner.get("kind", "")).lower()
            return f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"
    return "<none>"


_CONTAINERS: Final = wide("Containers", _of_containers("name"), "Names of the containers.")
_IMAGES: Final = wide("Images", _of_containers("image"), "Images of the containers.")
_SELECTOR: Final = wide("Selector", selector_text, "Labels of its pods.")

DEPLOYMENT: Final[tuple[Column, ...]] = (
    name(),
    column("Ready", _ready, "Ready pods out of those wanted."),
    column("Up-to-date", _count("updatedReplicas"), "Pods of the present template."),
    column("Available", _count("availableReplicas"), "Pods that have been ready for long enough."),
    AGE,
    _CONTAINERS,
    _IMAGES,
    _SELECTOR,
)

REPLICA_SET: Final[tuple[Column, ...]] = (
    name(),
    column("Desired", _wanted, "Pods wanted.").typed("integer"),
    column("Current", _count("replicas"), "Pods there are.").typed("integer"),
    column("Ready", _count("readyReplicas"), "Pods that are ready.").typed("integer"),
    AGE,
    _CONTAINERS,
    _IMAGES,
    _SELECTOR,
)

STATEFUL_SET: Final[tuple[Column, ...]] = (
    name(),
    column("Ready", _ready, "Ready pods out of those wanted."),
    AGE,
    _CONTAINERS,
    _IMAGES,
)

REVISION: Final[tuple[Column, ...]] = (
    name(),
    column("Controller", _controller, "Kind and name of the workload it belongs to."),
    column("Revision", lambda o, _: o.get("revision", 0), "Its number; the newest is highest."),
    AGE,
)
