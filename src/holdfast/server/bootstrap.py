"""What a new cluster starts with: the built-in namespaces and a class for local volumes.

The class `local` is not the default class: a claim that names no class must still find a volume
without a class, as it does on any cluster whose administrator has not chosen a default.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, kinds
from holdfast.api.kinds import Kind
from holdfast.apiserver.options import WriteOptions
from holdfast.apiserver.resources import Resources

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
LOCAL_CLASS = "local"


async def prepare(resources: Resources) -> None:
    """Make what is missing; the class only when the store is new, so a deleted one stays away."""
    new = resources.store.revision == 0
    for name in NAMESPACES:
        await _create(resources, kinds.NAMESPACE, {"metadata": {"name": name}})
        account = {"metadata": {"name": "default"}}
        await _create(resources, kinds.SERVICE_ACCOUNT, account, name)
    if new:
        local_class = {
            "metadata": {"name": LOCAL_CLASS},
            "provisioner": "local.holdfast.dev",
            "allowVolumeExpansion": True,
        }
        await _create(resources, kinds.STORAGE_CLASS, local_class)


async def _create(
    resources: Resources, kind: Kind, body: dict[str, Any], namespace: str | None = None
) -> None:
    try:
        await resources.create(kind, body, namespace, WriteOptions(manager="kube-apiserver"))
    except errors.AlreadyExists:
        return
