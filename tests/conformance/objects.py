"""The objects rows start from: for each alias a kind's path and one valid object.

A row says only what is different: its overrides are merged into the object here, and null
takes a field away. Every claim and volume has the row's own class name, so rows cannot
bind each other's; a row about objects without a class says so itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

NULL = "<null>"
"""In an override: send null itself."""


@dataclass(frozen=True, slots=True)
class Sort:
    """One sort of object: where it is served and what a valid one says."""

    api: str
    plural: str
    kind: str
    namespaced: bool
    body: Object

    def path(self, namespace: str) -> str:
        """The collection's path."""
        root = "/api/v1" if self.api == "v1" else f"/apis/{self.api}"
        scope = f"/namespaces/{namespace}" if self.namespaced else ""
        return f"{root}{scope}/{self.plural}"


def _claim_spec() -> Object:
    return {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
        "storageClassName": "$name",
    }


_CONTAINER = {"name": "main", "image": "busybox", "command": ["sleep", "1000"]}

SORTS: dict[str, Sort] = {
    "pv": Sort(
        "v1",
        "persistentvolumes",
        "PersistentVolume",
        False,
        {
            "spec": {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/srv/$name"},
                "storageClassName": "$name",
            }
        },
    ),
    "pvc": Sort(
        "v1", "persistentvolumeclaims", "PersistentVolumeClaim", True, {"spec": _claim_spec()}
    ),
    "sc": Sort(
        "storage.k8s.io/v1",
        "storageclasses",
        "StorageClass",
        False,
        {"provisioner": "example.com/nobody"},
    ),
    "va": Sort(
        "storage.k8s.io/v1",
        "volumeattachments",
        "VolumeAttachment",
        False,
        {
            "spec": {
                "attacher": "disk.example.com",
                "nodeName": "nobody",
                "source": {"persistentVolumeName": "$name"},
            }
        },
    ),
    "csidriver": Sort("storage.k8s.io/v1", "csidrivers", "CSIDriver", False, {"spec": {}}),
    "csinode": Sort(
        "storage.k8s.io/v1",
        "csinodes",
        "CSINode",
        False,
        {"spec": {"drivers": [{"name": "disk.example.com", "nodeID": "n1", "topologyKeys": []}]}},
    ),
    "capacity": Sort(
        "storage.k8s.io/v1",
        "csistoragecapacities",
        "CSIStorageCapacity",
        True,
        {"storageClassName": "$name", "capacity": "1Gi"},
    ),
    "ns": Sort("v1", "namespaces", "Namespace", False, {}),
    "node": Sort("v1", "nodes", "Node", False, {"spec": {"unschedulable": True}}),
    "secret": Sort("v1", "secrets", "Secret", True, {}),
    "cm": Sort("v1", "configmaps", "ConfigMap", True, {"data": {"a": "1"}}),
    "quota": Sort("v1", "resourcequotas", "ResourceQuota", True, {"spec": {"hard": {}}}),
    "event": Sort("v1", "events", "Event", True, {"involvedObject": {"namespace": "default"}}),
    "pod": Sort(
        "v1",
        "pods",
        "Pod",
        True,
        {
            "spec": {
                "schedulerName": "nobody",
                "containers": [_CONTAINER],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "$name"}}],
            }
        },
    ),
    "sts": Sort(
        "apps/v1",
        "statefulsets",
        "StatefulSet",
        True,
        {
            "spec": {
                "serviceName": "$name",
                "replicas": 0,
                "selector": {"matchLabels": {"app": "$name"}},
                "template": {
                    "metadata": {"labels": {"app": "$name"}},
                    "spec": {"containers": [_CONTAINER]},
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": _claim_spec()}],
            }
        },
    ),
}


def find(address: str) -> tuple[Sort, str]:
    """Split `pvc` or `pvc b` into the sort and the object's name, which is still a pattern."""
    alias, _, suffix = address.partition(" ")
    if alias not in SORTS:
        raise ValueError(f"{address!r}: no sort {alias!r}; there are {', '.join(SORTS)}")
    return SORTS[alias], f"$name-{suffix}" if suffix else "$name"


def make(address: str, overrides: Object | None) -> Object:
    """Return a whole object of a sort with what a row says about it."""
    sort, name = find(address)
    obj: Object = {
        "apiVersion": sort.api,
        "kind": sort.kind,
        "metadata": {"name": name},
        **copy.deepcopy(sort.body),
    }
    return merge(obj, overrides or {})


def merge(target: Object, overrides: Object) -> Object:
    """Lay overrides over an object in place; null takes away, `NULL` sends null."""
    for key, value in overrides.items():
        if value is None:
            target.pop(key, None)
        elif value == NULL:
            target[key] = None
        elif isinstance(value, dict) and isinstance(target.get(key), dict):
            merge(target[key], value)
        else:
            target[key] = merge({}, value) if isinstance(value, dict) else value
    return target
