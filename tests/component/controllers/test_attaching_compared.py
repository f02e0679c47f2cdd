"""A volume that somebody detached by hand comes back to the node whose pod uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from cluster import Cluster
from holdfast.api import kinds
from holdfast.controllers import attachments
from holdfast.controllers.attaching import comparing
from holdfast.controllers.provisioners import Served
from holdfast.testing import guarded
from holdfast.testing.guarded import DRIVER, GuardedStorage

pytestmark = pytest.mark.root

OTHER, MACHINE = "node-2", "machine-2"
MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"


class Listing(GuardedStorage):
    """Without its lock, and able to list what is attached."""

    def _open(self, use: str, secrets: Any) -> None:
        return

    async def attachments(self) -> Mapping[str, Sequence[str]]:
        """See `AttachmentLister.attachments`."""
        return {id: sorted(nodes) for id, nodes in self.attached.items() if nodes}


async def _ready(cluster: Cluster, ready: str) -> None:
    conditions = [{"type": "Ready", "status": ready, "reason": "Test"}]
    patch = {"status": {"conditions": conditions}}
    await cluster.client.patch(kinds.NODE, OTHER, patch, subresource="status")


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "lost"])
async def test_what_was_detached_by_hand_is_attached_again_to_a_node_that_is_ready(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    await cluster.crash()
    defaults = comparing.Comparison.__init__.__kwdefaults__
    assert defaults is not None and defaults["period"] == 60.0
    monkeypatch.setitem(defaults, "period", 0.2)
    storage = Listing(tmp_path / "storage")
    cluster.extra = {DRIVER: Served(guarded.PROVISIONER, storage)}
    await cluster.start()
    await cluster.create(kinds.STORAGE_CLASS, "c", provisioner=DRIVER)
    await cluster.create(kinds.NODE, OTHER, metadata={"annotations": {MANAGED: "true"}})
    await _ready(cluster, "True")
    entry = {"name": DRIVER, "nodeID": MACHINE}
    await cluster.create(kinds.CSI_NODE, OTHER, spec={"drivers": [entry]})
    claim = await cluster.bound("data", "c", "1Mi")
    handle = f"pool:{claim['spec']['volumeName']}"
    spec = {
        "nodeName": OTHER,
        "containers": [{"name": "main", "image": "busybox"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    await cluster.create(kinds.POD, "p", spec=spec)
    name = attachments.name_of(handle, DRIVER, OTHER)
    await cluster.until(kinds.VOLUME_ATTACHMENT, name, attachments.is_attached)
    if not ready:
        await _ready(cluster, "Unknown")
        await asyncio.sleep(0.3)
    storage.attached[handle].clear()
    await asyncio.sleep(1.0)
    assert storage.attached[handle] == ({MACHINE} if ready else set())
