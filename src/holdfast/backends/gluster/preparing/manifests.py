"""Manifests for Kubernetes: glusterd on labelled nodes, and the Heketi service beside it.

The glusterd pods use the machine's network and keep their state on it, so a pod that is made again
is the same peer. The service reaches them by running commands in their pods; it is allowed that and
nothing else. Keys are in a Secret whose values the caller chose; they are written only when asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import holdfast

Object = dict[str, Any]
LABEL = ("storagenode", "glusterfs")
PORT = 8080
GLUSTER_IMAGE = "ghcr.io/gluster/gluster-containers:fedora"
HEKETI_IMAGE = f"holdfast:{holdfast.__version__}"
HIDDEN = "<ADMIN_KEY>"
# What glusterd and LVM keep, or look at, on the machine.
_PLACES = {
    "state": "/var/lib/glusterd",
    "bricks": "/var/lib/heketi",
    "logs": "/var/log/glusterfs",
    "config": "/etc/glusterfs",
    "devices": "/dev",
    "lvm": "/run/lvm",
    "modules": "/usr/lib/modules",
    "cgroup": "/sys/fs/cgroup",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is written. Images are the operator's choice."""

    topology: Mapping[str, object]
    namespace: str = "default"
    gluster_image: str = GLUSTER_IMAGE
    heketi_image: str = HEKETI_IMAGE
    admin_key: str = field(default=HIDDEN, repr=False)
    user_key: str = field(default="<USER_KEY>", repr=False)


def all_of(plan: Plan) -> list[Object]:
    """Return the objects in the order in which they are to be made."""
    return [
        _daemon_set(plan),
        _account(plan),
        _role(plan),
        _binding(plan),
        _configuration(plan),
        _claim(plan),
        _service(plan),
        _deployment(plan),
        _class_secret(plan),
        _storage_class(plan),
    ]


def _meta(plan: Plan, name: str, **labels: str) -> Object:
    return {"name": name, "namespace": plan.namespace, "labels": labels or {"glusterfs": name}}


def _daemon_set(plan: Plan) -> Object:
    labels = {"glusterfs": "pod", "glusterfs-node": "pod"}
    probe = {"command": ["/bin/bash", "-c", "gluster --mode=script pool list"]}
    container = {
        "name": "glusterfs",
        "image": plan.gluster_image,
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"privileged": True},
        "volumeMounts": [
            {"name": name, "mountPath": path, **({"readOnly": True} if name == "modules" else {})}
            for name, path in _PLACES.items()
        ],
        "readinessProbe": {"exec": probe, "timeoutSeconds": 10, "initialDelaySeconds": 10},
        "livenessProbe": {"exec": probe, "timeoutSeconds": 10, "initialDelaySeconds": 60},
    }
    spec = {
        "nodeSelector": {LABEL[0]: LABEL[1]},
        "hostNetwork": True,
        "containers": [container],
        "volumes": [
            {"name": name, "hostPath": {"path": path, "type": _type(name)}}
            for name, path in _PLACES.items()
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _meta(plan, "glusterfs", glusterfs="daemonset"),
        "spec": {
            "selector": {"matchLabels": labels},
            # A peer that goes takes its bricks with it: an administrator says when.
            "updateStrategy": {"type": "OnDelete"},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _type(name: str) -> str:
    return "Directory" if name in ("devices", "modules", "cgroup") else "DirectoryOrCreate"


def _account(plan: Plan) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _meta(plan, "heketi-service-account", glusterfs="heketi-sa", heketi="sa"),
    }


def _role(plan: Plan) -> Object:
    rules = [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get", "create"]},
        {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get", "list"]},
    ]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _meta(plan, "heketi"),
        "rules": rules,
    }


def _binding(plan: Plan) -> Object:
    subject = {"kind": "ServiceAccount", "name": "heketi-service-account"}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _meta(plan, "heketi"),
        "subjects": [{**subject, "namespace": plan.namespace}],
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": "heketi",
        },
    }


def _configuration(plan: Plan) -> Object:
    settings = {
        "port": str(PORT),
        "jwt": {"admin": {"key": plan.admin_key}, "user": {"key": plan.user_key}},
        "glusterfs": {
            "executor": "kubernetes",
            "db": "/var/lib/heketi/heketi.db",
            "kubeexec": {
                "namespace": plan.namespace,
                "fstab": "/var/lib/heketi/fstab",
                "gluster_daemonset": True,
            },
        },
    }
    data = {
        "heketi.json": json.dumps(settings, indent=2) + "\n",
        "topology.json": json.dumps(plan.topology, indent=2) + "\n",
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _meta(plan, "heketi-config-secret"),
        "stringData": data,
    }


def _claim(plan: Plan) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": _meta(plan, "heketi-db"),
        "spec": spec,
    }


def _service(plan: Plan) -> Object:
    port = {"name": "heketi", "port": PORT, "targetPort": PORT}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _meta(plan, "heketi", glusterfs="heketi-service", heketi="service"),
        "spec": {"selector": {"glusterfs": "heketi-pod"}, "ports": [port]},
    }


def _deployment(plan: Plan) -> Object:
    labels = {"glusterfs": "heketi-pod", "heketi": "pod"}
    probe = {"httpGet": {"path": "/hello", "port": PORT}, "timeoutSeconds": 3}
    container = {
        "name": "heketi",
        "image": plan.heketi_image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["holdfast", "heketi", "--config", "/etc/heketi/heketi.json"],
        "ports": [{"containerPort": PORT}],
        "volumeMounts": [
            {"name": "db", "mountPath": "/var/lib/heketi"},
            {"name": "config", "mountPath": "/etc/heketi", "readOnly": True},
        ],
        "readinessProbe": {**probe, "initialDelaySeconds": 3},
        "livenessProbe": {**probe, "initialDelaySeconds": 30},
    }
    spec = {
        "serviceAccountName": "heketi-service-account",
        "containers": [container],
        "volumes": [
            {"name": "db", "persistentVolumeClaim": {"claimName": "heketi-db"}},
            {"name": "config", "secret": {"secretName": "heketi-config-secret"}},
        ],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(plan, "heketi", glusterfs="heketi-deployment", heketi="deployment"),
        "spec": {
            "replicas": 1,
            # Two of them over one database would be one too many.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _class_secret(plan: Plan) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _meta(plan, "heketi-secret"),
        "type": "kubernetes.io/glusterfs",
        "stringData": {"key": plan.admin_key},
    }


def _storage_class(plan: Plan) -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "gluster-heketi"},
        "provisioner": "gluster.holdfast.dev",
        "allowVolumeExpansion": True,
        "parameters": {
            "resturl": f"http://heketi.{plan.namespace}.svc:{PORT}",
            "restuser": "admin",
            "secretNamespace": plan.namespace,
            "secretName": "heketi-secret",
        },
    }
