"""A node without a node agent that has volumes of the guarded storage; the test says how it is."""

from __future__ import annotations

from typing import Any

from cluster import Cluster
from holdfast.api import kinds
from holdfast.controllers import attachments
from holdfast.controllers.provisioners import Served
from holdfast.testing import guarded
from holdfast.testing.guarded import DRIVER, GuardedStorage

NODE, MACHINE = "node-2", "machine-2"
_MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"


class Unlocked(GuardedStorage):
    """Without its lock: what is tested is who attaches and detaches when."""

    def _open(self, use: str, secrets: Any) -> None:
        return


async def join(cluster: Cluster, storage: GuardedStorage) -> None:
    """Start the cluster with the storage, its class and the node, which is ready."""
    cluster.extra = {DRIVER: Served(guarded.PROVISIONER, storage)}
    await cluster.start()
    await cluster.create(kinds.STORAGE_CLASS, "c", provisioner=DRIVER)
    await cluster.create(kinds.NODE, NODE, metadata={"annotations": {_MANAGED: "true"}})
    await set_ready(cluster, "True")
    entry = {"name": DRIVER, "nodeID": MACHINE}
    await cluster.create(kinds.CSI_NODE, NODE, spec={"drivers": [entry]})


async def set_ready(cluster: Cluster, ready: str, **status: Any) -> None:
    """Say of the node whether it is ready, and what else is in its status."""
    conditions = [{"type": "Ready", "status": ready, "reason": "Test"}]
    patch = {"status": {"conditions": conditions, **status}}
    await cluster.client.patch(kinds.NODE, NODE, patch, subresource="status")


async def run_pod(cluster: Cluster, a_class: str = "c", driver: str = DRIVER) -> tuple[str, str]:
    """Have pod `p` use claim `data` there; the volume's handle and its attachment, carried out."""
    claim = await cluster.bound("data", a_class, "1Mi")
    volume = await cluster.client.get(kinds.VOLUME, claim["spec"]["volumeName"])
    handle = volume["spec"]["csi"]["volumeHandle"]
    spec = {
        "nodeName": NODE,
        "containers": [{"name": "main", "image": "busybox"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    await cluster.create(kinds.POD, "p", spec=spec)
    name = attachments.name_of(handle, driver, NODE)
    await cluster.until(kinds.VOLUME_ATTACHMENT, name, attachments.is_attached)
    return handle, name
