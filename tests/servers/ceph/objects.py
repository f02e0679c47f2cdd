"""The manifests of the Ceph tests: those of published how-tos, with this cluster's addresses."""

from __future__ import annotations

import base64
from typing import Any

from servers.ceph.pools import Pool

Object = dict[str, Any]

IN_TREE = "kubernetes.io/rbd"
CEPH_CSI = "rbd.csi.ceph.com"
# What ceph-csi's guides call the cluster's fsid; `Pool.settings` has it too.
USES = ("provisioner", "controller-expand", "node-stage")
WRITE = "df -hT; date >> /mnt/runs; sync; exec sleep 1000000"


def secret(
    name: str,
    key: str | dict[str, str],
    namespace: str = "default",
    type_: str = "",
) -> Object:
    """A Secret with the in-tree plug-in's one key, or with several."""
    values = {"key": key} if isinstance(key, str) else key
    data = {field: base64.b64encode(text.encode()).decode() for field, text in values.items()}
    metadata = {"name": name, "namespace": namespace}
    found: Object = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
    return found | ({"type": type_} if type_ else {})


def claim(name: str, size: str, class_name: str | None = None) -> Object:
    """A claim; without a class's name it gets the default class."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "resources": {"requests": {"storage": size}},
    }
    if class_name is not None:
        spec["storageClassName"] = class_name
    metadata = {"name": name}
    kind = "PersistentVolumeClaim"
    return {"kind": kind, "apiVersion": "v1", "metadata": metadata, "spec": spec}


def pod(name: str, claim_name: str, script: str = WRITE) -> Object:
    """A pod with the claim at /mnt that runs a shell script."""
    container = {
        "name": "ceph-ubuntu",
        "image": "phusion/baseimage",
        "command": ["sh", "-c", script],
        "volumeMounts": [{"name": "ceph-mnt", "mountPath": "/mnt", "readOnly": False}],
    }
    volume = {"name": "ceph-mnt", "persistentVolumeClaim": {"claimName": claim_name}}
    spec = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def storage_class(
    name: str, provisioner: str, parameters: dict[str, str], *, default: bool = False
) -> Object:
    """A StorageClass."""
    metadata: Object = {"name": name}
    if default:
        metadata["annotations"] = {"storageclass.beta.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": metadata,
        "provisioner": provisioner,
        "parameters": parameters,
    }


def in_tree(pool: Pool, *, admin_secret: str = "ceph-secret") -> dict[str, str]:
    """The parameters of a class of the in-tree plug-in."""
    return {
        "monitors": pool.ceph.monitor,
        "adminId": "admin",
        "adminSecretName": admin_secret,
        "adminSecretNamespace": "kube-system",
        "pool": pool.name,
        "userId": pool.user,
        "userSecretName": "ceph-kube-secret",
        "userSecretNamespace": "default",
        "fsType": "ext4",
        "imageFormat": "2",
        "imageFeatures": "layering",
    }


def ceph_csi(pool: Pool) -> dict[str, str]:
    """The parameters of a class of ceph-csi, with its Secret for all uses."""
    names = {f"csi.storage.k8s.io/{use}-secret-name": "csi-rbd-secret" for use in USES}
    places = {f"csi.storage.k8s.io/{use}-secret-namespace": "default" for use in USES}
    return {
        "clusterID": pool.cluster_id,
        "pool": pool.name,
        "imageFeatures": "layering",
        **names,
        **places,
        "csi.storage.k8s.io/fstype": "ext4",
    }


def volume(name: str, source: Object) -> Object:
    """A static PersistentVolume of 1Gi."""
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "persistentVolumeReclaimPolicy": "Retain",
        **source,
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": spec,
    }


def rbd_source(pool: Pool, image: str, **changes: Any) -> Object:
    """The in-tree source of an image made by hand; None takes a field away."""
    source = {
        "monitors": [pool.ceph.monitor],
        "pool": pool.name,
        "image": image,
        "user": "admin",
        "secretRef": {"name": "ceph-secret"},
        "fsType": "ext4",
        **changes,
    }
    return {"rbd": {key: value for key, value in source.items() if value is not None}}


def csi_source(pool: Pool, image: str) -> Object:
    """ceph-csi's source of an image made by hand: its name is the handle."""
    attributes = {
        "clusterID": pool.cluster_id,
        "pool": pool.name,
        "staticVolume": "true",
        "imageFeatures": "layering",
    }
    source = {
        "driver": CEPH_CSI,
        "fsType": "ext4",
        "nodeStageSecretRef": {"name": "csi-rbd-secret", "namespace": "default"},
        "volumeAttributes": attributes,
        "volumeHandle": image,
    }
    return {"csi": source}
