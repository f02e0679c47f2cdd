"""Objects for tests, as an administrator or a user would write them, without ceremony."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]

LOCAL = "local.holdfast.dev"


def claim(
    name: str,
    storage: str = "16Mi",
    *,
    storage_class: str | None = "local",
    modes: tuple[str, ...] = ("ReadWriteOnce",),
    **spec: Any,
) -> Object:
    """A claim; `storage_class` None leaves the class out."""
    chosen = {} if storage_class is None else {"storageClassName": storage_class}
    resources = {"requests": {"storage": storage}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": list(modes), "resources": resources, **chosen, **spec},
    }


def pod(name: str, claim_name: str, *, mount: Object | None = None, **spec: Any) -> Object:
    """A pod with one container that has one claim at /data; `mount` adds to its volumeMount."""
    raw = spec.pop("raw", False)
    container: Object = {"name": "main", "image": "busybox"}
    if raw:
        container["volumeDevices"] = [{"name": "data", "devicePath": "/dev/data"}]
    else:
        container["volumeMounts"] = [{"name": "data", "mountPath": "/data", **(mount or {})}]
    source = {"claimName": claim_name, **spec.pop("source", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "data", "persistentVolumeClaim": source}],
            **spec,
        },
    }


def storage_class(
    name: str,
    provisioner: str = LOCAL,
    *,
    annotations: dict[str, str] | None = None,
    **fields: Any,
) -> Object:
    """A class; `fields` are what stands beside its metadata."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name, "annotations": annotations or {}},
        "provisioner": provisioner,
        **fields,
    }


def volume(
    name: str,
    source: Object,
    storage: str = "16Mi",
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    modes: tuple[str, ...] = ("ReadWriteOnce",),
    **spec: Any,
) -> Object:
    """A volume an administrator made; `source` is its one source field."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "labels": labels or {}, "annotations": annotations or {}},
        "spec": {"capacity": {"storage": storage}, "accessModes": list(modes), **source, **spec},
    }


def endpoints(name: str, addresses: list[str]) -> Object:
    """The servers of a GlusterFS cluster."""
    subset = {"addresses": [{"ip": ip} for ip in addresses], "ports": [{"port": 1}]}
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [subset]}
