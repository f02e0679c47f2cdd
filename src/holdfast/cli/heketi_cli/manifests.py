"""Kubernetes objects that `heketi-cli` prints: they are piped into `kubectl create -f -`."""

from __future__ import annotations

import base64
import json
from typing import Any

Document = dict[str, Any]


def persistent_volume(volume: Document, endpoints: str) -> str:
    """The PersistentVolume of a volume, as indented JSON."""
    document = {
        "kind": "PersistentVolume",
        "apiVersion": "v1",
        "metadata": {
            "name": f"glusterfs-{volume['id'][:8]}",
            "creationTimestamp": None,
            "annotations": {"pv.beta.kubernetes.io/gid": str(volume.get("gid", 0))},
        },
        "spec": {
            "capacity": {"storage": f"{volume['size']}Gi"},
            "glusterfs": {"endpoints": endpoints, "path": volume["name"]},
            "accessModes": ["ReadWriteMany"],
            "persistentVolumeReclaimPolicy": "Retain",
        },
        "status": {},
    }
    return json.dumps(document, indent=2) + "\n"


def subsets(volume: Document) -> list[Document]:
    """The addresses of the nodes that serve a volume."""
    return [
        {"addresses": [{"ip": host}], "ports": [{"port": 1}]}
        for host in volume["mount"]["glusterfs"]["hosts"]
    ]


def storage_list(volume: Document, backup: bytes, image: str, selector: str) -> str:
    """What puts a copy of the database into a volume: a Secret, Endpoints, a Service and a Job."""
    name = "heketi-storage-endpoints"
    items: list[Document] = [
        {
            "kind": "Secret",
            "apiVersion": "v1",
            "metadata": {"name": "heketi-storage-secret", "labels": {"deploy-heketi": "support"}},
            "data": {"heketi.db": base64.b64encode(backup).decode()},
        },
        {
            "kind": "Endpoints",
            "apiVersion": "v1",
            "metadata": {"name": name},
            "subsets": subsets(volume),
        },
        {
            "kind": "Service",
            "apiVersion": "v1",
            "metadata": {"name": name},
            "spec": {"ports": [{"port": 1, "targetPort": 0}]},
        },
        _copy_job(volume, name, image, selector),
    ]
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2) + "\n"


def _copy_job(volume: Document, endpoints: str, image: str, selector: str) -> Document:
    pod: Document = {
        "volumes": [
            {
                "name": "heketi-storage",
                "glusterfs": {"endpoints": endpoints, "path": volume["name"]},
            },
            {"name": "heketi-storage-secret", "secret": {"secretName": "heketi-storage-secret"}},
        ],
        "containers": [
            {
                "name": "heketi",
                "image": image,
                "command": ["cp", "/db/heketi.db", "/heketi"],
                "volumeMounts": [
                    {"name": "heketi-storage", "mountPath": "/heketi"},
                    {"name": "heketi-storage-secret", "mountPath": "/db"},
                ],
            }
        ],
        "restartPolicy": "Never",
    }
    if selector:
        pod["nodeSelector"] = dict(pair.split("=", 1) for pair in selector.split(","))
    return {
        "kind": "Job",
        "apiVersion": "batch/v1",
        "metadata": {"name": "heketi-storage-copy-job", "labels": {"deploy-heketi": "support"}},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "template": {"metadata": {"name": "heketi-storage-copy-job"}, "spec": pod},
        },
    }
