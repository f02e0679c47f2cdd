"""Short ways to write the objects that storage tests are about.

Each function returns a new dict as a user would write it; keywords become fields of the spec
(of the object itself for a class). Nothing is filled in that the API server would default.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from holdfast.runtime.client import Object

RWO, ROX, RWX, RWOP = "ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"


def metadata(name: str, **fields: Any) -> Object:
    """Return metadata without the fields that are None."""
    return {"name": name, **{key: value for key, value in fields.items() if value is not None}}


def volume(
    name: str,
    size: str = "1Gi",
    modes: Sequence[str] = (RWO,),
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    source: Object | None = None,
    **spec: Any,
) -> Object:
    """Return a PersistentVolume; an NFS export, which nothing here touches, unless told."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": metadata(name, labels=labels, annotations=annotations),
        "spec": {
            "capacity": {"storage": size},
            "accessModes": list(modes),
            **(source or {"nfs": {"server": "nfs.example", "path": f"/exports/{name}"}}),
            **spec,
        },
    }


def claim(
    name: str,
    size: str = "1Gi",
    modes: Sequence[str] = (RWO,),
    *,
    namespace: str = "default",
    annotations: Mapping[str, str] | None = None,
    finalizers: Sequence[str] | None = None,
    **spec: Any,
) -> Object:
    """Return a PersistentVolumeClaim; without `storageClassName` it has no class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(
            name, namespace=namespace, annotations=annotations, finalizers=finalizers
        ),
        "spec": {
            "accessModes": list(modes),
            "resources": {"requests": {"storage": size}},
            **spec,
        },
    }


def storage_class(
    name: str, provisioner: str, *, annotations: Mapping[str, str] | None = None, **fields: Any
) -> Object:
    """Return a StorageClass."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": metadata(name, annotations=annotations),
        "provisioner": provisioner,
        **fields,
    }


def pod(name: str, *claims: str, namespace: str = "default", **spec: Any) -> Object:
    """Return a Pod with one container whose volumes are the claims."""
    volumes = [
        {"name": f"v{number}", "persistentVolumeClaim": {"claimName": claim_name}}
        for number, claim_name in enumerate(claims)
    ]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata(name, namespace=namespace),
        "spec": {"containers": [{"name": "main", "image": "busybox"}], "volumes": volumes, **spec},
    }


def reference(name: str, uid: str = "", namespace: str = "default") -> Object:
    """Return the claimRef of a volume; without a uid it reserves the volume by name."""
    found = {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name}
    return {**found, "uid": uid} if uid else found
