"""A lost node keeps its volumes until it is certain that its machine is off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import othernode
from cluster import Cluster
from holdfast.api import kinds
from holdfast.api.views import OUT_OF_SERVICE
from holdfast.backends import errors as backend_errors
from holdfast.backends.protocol import VolumeHandle
from holdfast.controllers import attachments, lostnodes
from holdfast.controllers.provisioners import Served
from holdfast.testing import attachable, guarded
from holdfast.testing.guarded import DRIVER
from othernode import MACHINE, Unlocked, run_pod, set_ready

pytestmark = pytest.mark.root

Object = dict[str, Any]
LOST = othernode.NODE


@pytest.fixture
async def storage(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Unlocked]:
    await cluster.crash()
    defaults = lostnodes.LostNodes.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "poll", 0.1)
    made = Unlocked(tmp_path / "storage")
    await othernode.join(cluster, made)
    yield made


async def lose(cluster: Cluster) -> tuple[str, str]:
    """A pod runs on the node, which uses its volume and is then lost; the pod is deleted."""
    handle, name = await othernode.run_pod(cluster)
    await set_ready(cluster, "Unknown", volumesInUse=[attachments.unique_name(DRIVER, handle)])
    await cluster.client.delete(kinds.POD, "p", "default")
    return handle, name


def tainted(node: Object) -> bool:
    return any(taint["key"] == OUT_OF_SERVICE for taint in node["spec"].get("taints") or ())


async def test_a_machine_that_is_off_gives_its_volumes_away(
    cluster: Cluster, storage: Unlocked
) -> None:
    storage.power[MACHINE] = "stopped"
    handle, name = await lose(cluster)
    await cluster.gone(kinds.POD, "p")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)
    assert storage.attached[handle] == set()
    text = await cluster.told(LOST, "NodeOutOfService")
    assert f"machine {MACHINE} is stopped" in text
    # When it is back it may take pods again.
    assert tainted(await cluster.until(kinds.NODE, LOST, lambda o: True))
    await set_ready(cluster, "True", volumesInUse=None)
    await cluster.until(kinds.NODE, LOST, lambda o: not tainted(o))


@pytest.mark.parametrize("power", ["running", "unknown"])
async def test_a_machine_that_may_be_alive_keeps_its_volumes(
    cluster: Cluster, storage: Unlocked, power: Any
) -> None:
    storage.power[MACHINE] = power
    handle, name = await lose(cluster)
    text = await cluster.told(LOST, "WaitingForNode")
    assert "may still be writing" in text and f"machine {MACHINE} is {power}" in text
    assert await cluster.told("p", "WaitingForNode") == text
    assert storage.attached[handle] == {MACHINE}
    # Even when somebody takes the attachment away, as a cluster's controller does after a while.
    await cluster.client.delete(kinds.POD, "p", "default", grace=0)
    await cluster.client.delete(kinds.VOLUME_ATTACHMENT, name)
    found = await cluster.until(
        kinds.VOLUME_ATTACHMENT, name, lambda o: "detachError" in o["status"]
    )
    assert "may still be writing" in found["status"]["detachError"]["message"]
    assert storage.attached[handle] == {MACHINE}
    storage.power[MACHINE] = "gone"
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)
    assert storage.attached[handle] == set()


async def test_an_administrator_who_vouches_is_believed(
    cluster: Cluster, storage: Unlocked
) -> None:
    storage.power[MACHINE] = "running"
    handle, name = await lose(cluster)
    await cluster.told(LOST, "WaitingForNode")
    taint = {"key": OUT_OF_SERVICE, "value": "off", "effect": "NoExecute"}
    await cluster.client.patch(kinds.NODE, LOST, {"spec": {"taints": [taint]}})
    await cluster.gone(kinds.POD, "p")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)
    assert storage.attached[handle] == set()


class Fenced(attachable.Storage):
    """Nobody can ask about its machines, but it can cut them off."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.fenced: set[str] = set()
        self.told: list[str] = []

    async def fence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        await self._reached("fence")
        self.fenced.add(node)
        self.told += [each.id for each in volumes]

    async def unfence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        self.fenced.discard(node)


@dataclass(frozen=True, slots=True)
class Writing:
    """A pod on the node that is lost, with a volume of a storage system that can fence."""

    storage: Fenced
    handle: str
    attachment: str


@pytest.fixture
async def writing(
    cluster: Cluster, storage: Unlocked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Writing:
    await cluster.crash()
    defaults = lostnodes.LostNodes.__init__.__kwdefaults__
    assert defaults is not None and defaults["fence_after"] == 360.0
    monkeypatch.setitem(defaults, "fence_after", 0.5)
    fenced = Fenced(tmp_path / "fenced")
    fenced.fail("fence", backend_errors.Unavailable("the monitors do not answer"))
    driver = attachable.DRIVER
    # The node has nothing of the other kind, and is no node of it.
    cluster.extra = {
        driver: Served(attachable.PROVISIONER, fenced),
        DRIVER: Served(guarded.PROVISIONER, storage),
    }
    await cluster.start()
    await cluster.create(kinds.STORAGE_CLASS, "fenced", provisioner=driver)
    csi_node = {"spec": {"drivers": [{"name": driver, "nodeID": MACHINE}]}}
    await cluster.client.patch(kinds.CSI_NODE, LOST, csi_node)
    handle, name = await run_pod(cluster, "fenced", driver)
    return Writing(fenced, handle, name)


async def cut(cluster: Cluster, scene: Writing) -> None:
    """The node is lost, and its pod deleted."""
    used = attachments.unique_name(attachable.DRIVER, scene.handle)
    await set_ready(cluster, "Unknown", volumesInUse=[used])
    await cluster.client.delete(kinds.POD, "p", "default")


async def test_a_machine_that_nobody_can_ask_about_is_cut_off(
    cluster: Cluster, writing: Writing
) -> None:
    await cut(cluster, writing)
    await cluster.told(LOST, "WaitingForNode", "it is cut off after 0.5 s")
    await cluster.told(LOST, "WaitingForNode", "the monitors do not answer")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, writing.attachment)
    assert writing.storage.fenced == {MACHINE}
    assert writing.storage.told == [writing.handle]
    # The node is let back by what was written down, also by somebody who knows nothing else.
    await cluster.crash()
    await cluster.start()
    await cluster.client.patch(kinds.CSI_NODE, LOST, {"spec": {"drivers": None}})
    await set_ready(cluster, "True", volumesInUse=None)
    node = await cluster.until(kinds.NODE, LOST, lambda o: not tainted(o))
    assert writing.storage.fenced == set()
    assert lostnodes.FENCED not in node["metadata"]["annotations"]


async def test_an_attachment_taken_away_by_time_alone_waits_for_the_machine_to_be_cut_off(
    cluster: Cluster, writing: Writing
) -> None:
    failures = [backend_errors.Unavailable("the monitors do not answer")] * 1000
    writing.storage.fail("fence", *failures)
    await cut(cluster, writing)
    await cluster.client.delete(kinds.POD, "p", "default", grace=0)
    await cluster.client.delete(kinds.VOLUME_ATTACHMENT, writing.attachment)
    found = await cluster.until(
        kinds.VOLUME_ATTACHMENT, writing.attachment, lambda o: "detachError" in o["status"]
    )
    assert "until it is cut off" in found["status"]["detachError"]["message"]
    assert writing.storage.attached[writing.handle] == {MACHINE}


async def test_a_machine_is_not_cut_off_by_halves(cluster: Cluster, writing: Writing) -> None:
    reference = {"namespace": "default", "name": "foreign"}
    await cluster.create(
        kinds.VOLUME,
        "foreign",
        spec={
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "claimRef": reference,
            "csi": {"driver": "foreign.example", "volumeHandle": "f"},
        },
    )
    source = {"persistentVolumeName": "foreign"}
    spec = {"attacher": "foreign.example", "nodeName": LOST, "source": source}
    held = {"finalizers": ["external-attacher/foreign-example"]}
    await cluster.create(kinds.VOLUME_ATTACHMENT, "foreign", spec=spec, metadata=held)
    await cut(cluster, writing)
    text = await cluster.told(LOST, "WaitingForNode")
    assert "of its foreign.example volumes nobody here can say whether it writes" in text
    await asyncio.sleep(1.0)
    assert writing.storage.fenced == set()
    node = await cluster.find(kinds.NODE, LOST)
    assert node is not None and not tainted(node)


async def test_a_machine_whose_id_is_not_known_is_not_taken_for_gone(
    cluster: Cluster, storage: Unlocked
) -> None:
    handle, _ = await lose(cluster)
    storage.power[LOST] = "gone"
    await cluster.client.patch(kinds.CSI_NODE, LOST, {"spec": {"drivers": None}})
    name = attachments.name_of(handle, DRIVER, LOST)
    patch = {"metadata": {"annotations": {attachments.NODE_ID: None}}}
    await cluster.client.patch(kinds.VOLUME_ATTACHMENT, name, patch)
    text = await cluster.told(LOST, "WaitingForNode", "it is not known what")
    assert f"CSINode {LOST}" in text
    assert storage.attached[handle] == {MACHINE}
