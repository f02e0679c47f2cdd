"""A volume that somebody detached by hand comes back to the node whose pod uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

import othernode
from cluster import Cluster
from holdfast.controllers.attaching import comparing

pytestmark = pytest.mark.root


class Listing(othernode.Unlocked):
    """Able to list what is attached."""

    async def attachments(self) -> Mapping[str, Sequence[str]]:
        """See `AttachmentLister.attachments`."""
        return {id: sorted(nodes) for id, nodes in self.attached.items() if nodes}


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "lost"])
async def test_what_was_detached_by_hand_is_attached_again_to_a_node_that_is_ready(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ready: bool
) -> None:
    await cluster.crash()
    defaults = comparing.Comparison.__init__.__kwdefaults__
    assert defaults is not None and defaults["period"] == 60.0
    monkeypatch.setitem(defaults, "period", 0.2)
    storage = Listing(tmp_path / "storage")
    await othernode.join(cluster, storage)
    handle, _ = await othernode.run_pod(cluster)
    if not ready:
        await othernode.set_ready(cluster, "Unknown")
        await asyncio.sleep(0.3)
    storage.attached[handle].clear()
    await asyncio.sleep(1.0)
    assert storage.attached[handle] == ({othernode.MACHINE} if ready else set())
