"""The Secret and the StorageClass that lead Kubernetes to a pool, as plain objects.

The in-tree plug-in's names get its kind of Secret and parameters, the others the
ones of CSI, so a manifest looks as people know it from either world.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from holdfast.backends import secretrefs
from holdfast.backends.rbd import legacy

PROVISIONERS = (legacy.DRIVER, legacy.CSI_DRIVER, legacy.IN_TREE, legacy.EXTERNAL)
_USES = ("provisioner", "controller-publish", "controller-expand", "node-stage", "node-expand")


@dataclass(frozen=True, slots=True)
class Names:
    """What the objects are called and where the Secret lies."""

    provisioner: str = legacy.DRIVER
    storage_class: str = "ceph-rbd"
    secret: str = "ceph-rbd"
    namespace: str = "kube-system"
    default: bool = False

    @property
    def in_tree(self) -> bool:
        """Whether the class is written as the in-tree plug-in's."""
        return self.provisioner in (legacy.IN_TREE, legacy.EXTERNAL)


def secret(names: Names, user: str, key: str) -> dict[str, Any]:
    """Return the Secret; an empty key gives one without values."""
    values = {"key": key} if names.in_tree else {"userID": user, "userKey": key}
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in values.items()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": names.secret, "namespace": names.namespace},
        "type": legacy.SECRET_TYPE if names.in_tree else "Opaque",
        "data": encoded if key else {},
    }


def storage_class(
    names: Names, monitors: tuple[str, ...], pool: str, user: str, data_pool: str = ""
) -> dict[str, Any]:
    """Return the StorageClass."""
    parameters = {"monitors": ",".join(monitors), "pool": pool}
    if data_pool:
        parameters["dataPool"] = data_pool
    if names.in_tree:
        for who in ("admin", "user"):
            parameters[f"{who}Id"] = user
            parameters[f"{who}SecretName"] = names.secret
            parameters[f"{who}SecretNamespace"] = names.namespace
        parameters["fsType"] = "ext4"
    else:
        for use in _USES:
            parameters[f"{secretrefs.PREFIX}{use}-secret-name"] = names.secret
            parameters[f"{secretrefs.PREFIX}{use}-secret-namespace"] = names.namespace
        parameters[secretrefs.FS_TYPE] = "ext4"
    metadata: dict[str, Any] = {"name": names.storage_class}
    if names.default:
        metadata["annotations"] = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": metadata,
        "provisioner": names.provisioner,
        "parameters": parameters,
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
        "volumeBindingMode": "Immediate",
    }
