"""What the server itself fills in or resets when an object of a kind is written.

Kubernetes calls this the kind's strategy: status starts empty, a claim's two data source fields
mirror each other, a secret's `stringData` becomes `data`. One function per kind and verb, found
in the tables at the end; a kind without an entry needs nothing.

The functions change their argument: it is fresh from decoding and not yet published.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from holdfast.api import kinds, quantity
from holdfast.api.kinds import Kind
from holdfast.apiserver import addresses, gates
from holdfast.kit import clock

Object = dict[str, Any]


def _claim_created(claim: Object) -> None:
    claim["status"] = {"phase": "Pending"}
    _claim_written(claim)


def _claim_written(claim: Object, old: Object | None = None) -> None:
    spec = claim.get("spec")
    if spec is not None:
        # The feature gate VolumeAttributesClass is off, as it is by default in 1.32.
        spec.pop("volumeAttributesClassName", None)
        # Also when it is changed: a client may send back only the source that it knows.
        _mirror_sources(spec)


def _claim_status_updated(claim: Object, old: Object) -> None:
    # The same gate: these two tell of a change of attributes classes.
    gone = ("currentVolumeAttributesClassName", "modifyVolumeStatus")
    kept = {k: v for k, v in claim.get("status", {}).items() if k not in gone}
    claim["status"] = {"phase": "Pending", **kept}


def _mirror_sources(spec: Object) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    if reference is not None and reference.get("namespace"):
        # The gate CrossNamespaceVolumeDataSource is off.
        del spec["dataSourceRef"]
        reference = None
    if source is not None and reference is None and not _known_source(source):
        del spec["dataSource"]
    elif source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None:
        spec["dataSource"] = {key: value for key, value in reference.items() if key != "namespace"}


def _known_source(source: Object) -> bool:
    kind = (source.get("apiGroup") or "", source.get("kind"))
    return kind in {("", "PersistentVolumeClaim"), ("snapshot.storage.k8s.io", "VolumeSnapshot")}


def _volume_created(volume: Object) -> None:
    volume["status"] = {
        "phase": "Pending",
        "lastPhaseTransitionTime": clock.rfc3339(clock.now()),
    }
    _volume_written(volume)


def _volume_written(volume: Object, old: Object | None = None) -> None:
    if "spec" in volume:
        volume["spec"].pop("volumeAttributesClassName", None)


def _volume_status_updated(volume: Object, old: Object) -> None:
    old_status = old.get("status", {})
    new_status = volume["status"] = {"phase": "Pending", **volume.get("status", {})}
    stamp = "lastPhaseTransitionTime"
    if new_status["phase"] == old_status.get("phase"):
        # Who writes the same phase without the time does not take the time away.
        if stamp in old_status:
            new_status.setdefault(stamp, old_status[stamp])
    elif new_status.get(stamp) == old_status.get(stamp):
        new_status[stamp] = clock.rfc3339(clock.now())


def _namespace_created(namespace: Object) -> None:
    namespace["spec"] = {"finalizers": ["kubernetes"]}
    namespace["status"] = {"phase": "Active"}


def _namespace_updated(namespace: Object, old: Object) -> None:
    # The finalizers in the spec change through `finalize` only.
    namespace["spec"] = old.get("spec", {})


def _namespace_received(namespace: Object) -> None:
    meta = namespace["metadata"]
    labels = meta.setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = meta.get("name", "")


# The classes that every cluster has; there are no others here.
_PRIORITIES = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}


_QUALITY = ("cpu", "memory")


def _pod_created(pod: Object) -> None:
    spec = pod.get("spec")
    if spec is not None:
        spec["priority"] = _PRIORITIES.get(spec.get("priorityClassName", ""), 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        gates.drop_from_pod(spec)
    pod["status"] = {"phase": "Pending", "qosClass": _quality_of(pod.get("spec") or {})}
    if spec and spec.get("schedulingGates"):
        pod["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastTransitionTime": clock.rfc3339(clock.now()),
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]


def _quality_of(spec: Object) -> str:
    """The pod's quality of service class, from the cpu and memory its containers ask for."""
    containers = [*spec.get("containers", ()), *spec.get("initContainers", ())]
    sums: dict[str, dict[str, int]] = {"requests": {}, "limits": {}}
    guaranteed = True
    for container in containers:
        resources = container.get("resources") or {}
        for part, total in sums.items():
            found = _measured(resources.get(part) or {})
            guaranteed = guaranteed and (part == "requests" or len(found) == 2)
            for name, amount in found.items():
                total[name] = total.get(name, 0) + amount
    if not sums["requests"] and not sums["limits"]:
        return "BestEffort"
    return "Guaranteed" if guaranteed and sums["requests"] == sums["limits"] else "Burstable"


def _measured(amounts: Object) -> dict[str, int]:
    """The amounts that count, in billionths; of none at all is as good as not said."""
    found = {name: quantity.parse(amounts[name]).nanos for name in _QUALITY if name in amounts}
    return {name: nanos for name, nanos in found.items() if nanos > 0}


def _secret_received(secret: Object) -> None:
    texts = secret.pop("stringData", None)
    if texts:
        data = secret.setdefault("data", {})
        for key, text in texts.items():
            data[key] = base64.b64encode(text.encode()).decode()


def _service_updated(service: Object, old: Object) -> None:
    if service.get("spec"):
        addresses.keep(service, old)


def _workload_created(workload: Object) -> None:
    workload["metadata"]["generation"] = 1
    _status_emptied(workload)
    gates.drop_from_pod(_template_of(workload))


def _workload_updated(workload: Object, old: Object) -> None:
    gates.drop_from_pod(_template_of(workload), _template_of(old))


def _template_of(workload: Object) -> Object:
    """The spec of the pods a workload makes; an empty one where it has none."""
    template = (workload.get("spec") or {}).get("template") or {}
    return template.get("spec") or {}


def _status_dropped(obj: Object) -> None:
    obj.pop("status", None)


def _attachment_created(attachment: Object) -> None:
    attachment["status"] = {"attached": False}


# An attachment's status goes to drivers, which are to change nothing else of it.
_NOT_OF_STATUS = ("labels", "annotations", "finalizers", "ownerReferences")


def _attachment_status_updated(attachment: Object, old: Object) -> None:
    _keep_metadata(attachment, old, _NOT_OF_STATUS)


def _pod_status_updated(pod: Object, old: Object) -> None:
    _keep_metadata(pod, old, ("ownerReferences",))


def _keep_metadata(obj: Object, old: Object, parts: tuple[str, ...]) -> None:
    given = {key: value for key, value in obj["metadata"].items() if key not in parts}
    kept = {key: old["metadata"][key] for key in parts if key in old["metadata"]}
    obj["metadata"] = {**given, **kept}


def _status_emptied(obj: Object) -> None:
    kind = kinds.by_name(obj["apiVersion"], obj["kind"])
    element = kind.shape.fields["status"].element if kind is not None else None
    obj["status"] = element.decode({}) if element is not None else {}


# Of these kinds, `metadata.generation` counts the changes of the spec.
_WORKLOADS = (kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.STATEFUL_SET)
_COUNTED = frozenset({*_WORKLOADS, kinds.CSI_DRIVER})


_CREATED: dict[Kind, Callable[[Object], None]] = {
    kinds.CLAIM: _claim_created,
    kinds.VOLUME: _volume_created,
    kinds.NAMESPACE: _namespace_created,
    kinds.POD: _pod_created,
    kinds.VOLUME_ATTACHMENT: _attachment_created,
    kinds.SERVICE: _status_emptied,
    kinds.RESOURCE_QUOTA: _status_emptied,
    kinds.SNAPSHOT: _status_dropped,
    kinds.SNAPSHOT_CONTENT: _status_dropped,
    **dict.fromkeys(_WORKLOADS, _workload_created),
}
_RECEIVED: dict[Kind, Callable[[Object], None]] = {
    kinds.SECRET: _secret_received,
    kinds.NAMESPACE: _namespace_received,
}
_UPDATED: dict[Kind, Callable[[Object, Object], None]] = {
    kinds.CLAIM: _claim_written,
    kinds.VOLUME: _volume_written,
    kinds.NAMESPACE: _namespace_updated,
    kinds.SERVICE: _service_updated,
    **dict.fromkeys(_WORKLOADS, _workload_updated),
}
_STATUS_UPDATED: dict[Kind, Callable[[Object, Object], None]] = {
    kinds.CLAIM: _claim_status_updated,
    kinds.VOLUME: _volume_status_updated,
    kinds.POD: _pod_status_updated,
    kinds.VOLUME_ATTACHMENT: _attachment_status_updated,
}


def received(kind: Kind, obj: Object) -> None:
    """After a new or changed object is decoded; what this fills in counts as the writer's."""
    prepare = _RECEIVED.get(kind)
    if prepare is not None:
        prepare(obj)


def created(kind: Kind, obj: Object) -> None:
    """Before an object is validated for the first time, with its defaults filled in."""
    prepare = _CREATED.get(kind)
    if prepare is not None:
        prepare(obj)


def updated(kind: Kind, obj: Object, old: Object) -> None:
    """Before a changed object is validated."""
    prepare = _UPDATED.get(kind)
    if prepare is not None:
        prepare(obj, old)


def counted(kind: Kind, obj: Object, old: Object) -> None:
    """After a changed object is defaulted: a new spec is a new generation."""
    if kind in _COUNTED and obj.get("spec") != old.get("spec"):
        obj["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1


def status_updated(kind: Kind, obj: Object, old: Object) -> None:
    """Before a changed status is validated."""
    prepare = _STATUS_UPDATED.get(kind)
    if prepare is not None:
        prepare(obj, old)
