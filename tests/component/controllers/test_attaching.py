"""Volumes that are attached first: to one node, to many, and away from nodes that are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster import NODE, Cluster
from holdfast.api import kinds, views
from holdfast.backends import errors as backend_errors
from holdfast.controllers import attachments
from holdfast.controllers.attaching import controller as attaching
from holdfast.controllers.provisioners import Served
from holdfast.testing import attachable
from holdfast.testing.attachable import DRIVER, Storage, StorageNode

pytestmark = pytest.mark.root

Object = dict[str, Any]
FINALIZER = "external-attacher/attachable-holdfast-test"
MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"


@pytest.fixture
async def storage(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Storage]:
    """A storage that must attach, in a cluster with `node-1`, which mounts, and `node-2`."""
    await cluster.crash()
    made = Storage(tmp_path / "storage")
    cluster.extra = {DRIVER: Served(attachable.PROVISIONER, made)}
    cluster.extra_sides = {DRIVER: StorageNode(made, NODE, max_volumes=2)}
    await cluster.start()
    await cluster.create(kinds.STORAGE_CLASS, "c", provisioner=DRIVER)
    await make_node(cluster, "node-2")
    await cluster.until(kinds.CSI_NODE, NODE, lambda o: DRIVER in str(o.get("spec")))
    # Another component writes it than the one that writes the node's entry.
    await cluster.until(kinds.CSI_DRIVER, DRIVER, lambda o: True)
    yield made


async def make_node(cluster: Cluster, name: str) -> None:
    """A node that is ready and on which nothing runs."""
    await cluster.create(kinds.NODE, name, metadata={"annotations": {MANAGED: "true"}})
    await set_ready(cluster, name, "True")
    driver = {"name": DRIVER, "nodeID": f"id-of-{name}"}
    await cluster.create(kinds.CSI_NODE, name, spec={"drivers": [driver]})


async def set_ready(cluster: Cluster, name: str, ready: str) -> None:
    condition = {"type": "Ready", "status": ready, "reason": "Test"}
    await status(cluster, name, conditions=[condition])


async def status(cluster: Cluster, name: str, **fields: Any) -> None:
    await cluster.client.patch(kinds.NODE, name, {"status": fields}, subresource="status")


async def make_pod(cluster: Cluster, name: str, claim: str, node: str, **meta: Any) -> Object:
    return await cluster.create(
        kinds.POD,
        name,
        metadata=meta,
        spec={
            "nodeName": node,
            "containers": [{"name": "main", "image": "busybox"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
        },
    )


async def attachment(cluster: Cluster, claim: Object, node: str) -> str:
    """Return the name of the attachment of a claim's volume to a node."""
    return attachments.name_of(claim["spec"]["volumeName"], DRIVER, node)


def attached(obj: Object) -> bool:
    return attachments.is_attached(obj)


async def delete_now(cluster: Cluster, name: str) -> None:
    await cluster.client.delete(kinds.POD, name, "default", grace=0)


async def test_a_volume_is_attached_mounted_unmounted_and_detached(
    cluster: Cluster, storage: Storage
) -> None:
    claim = await cluster.bound("data", "c", "1Mi")
    volume = claim["spec"]["volumeName"]
    place = await cluster.run_pod("p", "data")
    assert storage.attached[volume] == {NODE}
    (place / "file").write_text("x")
    assert (storage.root / volume / "file").read_text() == "x"
    found = await cluster.find(kinds.VOLUME_ATTACHMENT, await attachment(cluster, claim, NODE))
    assert found is not None and found["metadata"]["finalizers"] == [FINALIZER]
    assert found["status"]["attachmentMetadata"] == {"token": f"{volume}@{NODE}"}
    obj = await cluster.find(kinds.VOLUME, volume)
    assert obj is not None and FINALIZER in obj["metadata"]["finalizers"]
    listed = f"kubernetes.io/csi/{DRIVER}^{volume}"
    node = await cluster.until(kinds.NODE, NODE, lambda n: "volumesAttached" in n["status"])
    assert node["status"]["volumesAttached"] == [{"name": listed, "devicePath": ""}]
    assert node["status"]["volumesInUse"] == [listed]
    text = f'AttachVolume.Attach succeeded for volume "{volume}" '
    assert await cluster.told("p", "SuccessfulAttachVolume") == text
    await cluster.stop_pod("p")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, found["metadata"]["name"])
    assert storage.attached[volume] == set()
    node = await cluster.until(kinds.NODE, NODE, lambda n: "volumesAttached" not in n["status"])
    assert "volumesInUse" not in node["status"]
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.gone(kinds.VOLUME, volume)
    assert not (storage.root / volume).exists()


async def test_a_long_error_is_told_as_far_as_an_attachment_can_hold_it(
    cluster: Cluster, storage: Storage
) -> None:
    storage.fail("attach", backend_errors.Unavailable("é" * 2000))
    await cluster.bound("data", "c", "1Mi")
    await make_pod(cluster, "p", "data", NODE)
    text = await cluster.told("p", "FailedAttachVolume")
    assert text.endswith(f" : {'é' * 512}")
    await cluster.in_phase(kinds.POD, "p", "Running")


async def test_an_attachment_that_somebody_else_made_is_left_alone(
    cluster: Cluster, storage: Storage
) -> None:
    claim = await cluster.bound("data", "c", "1Mi")
    spec = {
        "attacher": DRIVER,
        "nodeName": NODE,
        "source": {"persistentVolumeName": claim["spec"]["volumeName"]},
    }
    await cluster.create(kinds.VOLUME_ATTACHMENT, "by-hand", spec=spec)
    await make_pod(cluster, "p", "data", NODE)
    await cluster.in_phase(kinds.POD, "p", "Running")
    await cluster.client.delete(kinds.POD, "p", "default")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, await attachment(cluster, claim, NODE))
    assert await cluster.find(kinds.VOLUME_ATTACHMENT, "by-hand") is not None


async def test_a_failure_to_attach_is_told_and_tried_again(
    cluster: Cluster, storage: Storage
) -> None:
    storage.fail("attach", backend_errors.Unavailable("the storage does not answer"))
    claim = await cluster.bound("data", "c", "1Mi")
    await make_pod(cluster, "p", "data", NODE)
    name = claim["spec"]["volumeName"]
    text = await cluster.told("p", "FailedAttachVolume")
    assert text == f'AttachVolume.Attach failed for volume "{name}" : the storage does not answer'
    await cluster.in_phase(kinds.POD, "p", "Running")
    found = await cluster.find(kinds.VOLUME_ATTACHMENT, await attachment(cluster, claim, NODE))
    assert found is not None and "attachError" not in found["status"]


async def test_an_exclusive_volume_waits_until_the_other_node_has_let_go(
    cluster: Cluster, storage: Storage
) -> None:
    claim = await cluster.bound("data", "c", "1Mi")
    volume = claim["spec"]["volumeName"]
    await cluster.run_pod("first", "data")
    await make_pod(cluster, "second", "data", "node-2")
    text = await cluster.told("second", "FailedAttachVolume")
    assert text == (
        f'Multi-Attach error for volume "{volume}" Volume is already used by pod(s) first'
    )
    second = await attachment(cluster, claim, "node-2")
    assert await cluster.find(kinds.VOLUME_ATTACHMENT, second) is None
    await cluster.stop_pod("first")
    await cluster.until(kinds.VOLUME_ATTACHMENT, second, attached)
    assert storage.attached[volume] == {"id-of-node-2"}


async def test_a_shared_volume_is_attached_to_every_node(
    cluster: Cluster, storage: Storage
) -> None:
    claim = await cluster.bound("data", "c", "1Mi", accessModes=["ReadWriteMany"])
    await make_pod(cluster, "first", "data", NODE)
    await make_pod(cluster, "second", "data", "node-2")
    for node in (NODE, "node-2"):
        name = await attachment(cluster, claim, node)
        await cluster.until(kinds.VOLUME_ATTACHMENT, name, attached)
    assert storage.attached[claim["spec"]["volumeName"]] == {NODE, "id-of-node-2"}


async def lost(cluster: Cluster, storage: Storage) -> tuple[str, str, str]:
    """A pod is gone from node-2 by force, which still lists its volume as in use."""
    claim = await cluster.bound("data", "c", "1Mi")
    volume = claim["spec"]["volumeName"]
    await make_pod(cluster, "p", "data", "node-2")
    name = await attachment(cluster, claim, "node-2")
    await cluster.until(kinds.VOLUME_ATTACHMENT, name, attached)
    listed = f"kubernetes.io/csi/{DRIVER}^{volume}"
    await status(cluster, "node-2", volumesInUse=[listed])
    await delete_now(cluster, "p")
    await asyncio.sleep(0.4)
    found = await cluster.find(kinds.VOLUME_ATTACHMENT, name)
    assert found is not None and attached(found)
    return volume, name, listed


async def test_what_a_live_node_uses_is_detached_only_when_it_says_so(
    cluster: Cluster, storage: Storage
) -> None:
    volume, name, _ = await lost(cluster, storage)
    await status(cluster, "node-2", volumesInUse=None)
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)
    assert storage.attached[volume] == set()


async def test_a_node_out_of_service_loses_its_volumes_at_once(
    cluster: Cluster, storage: Storage
) -> None:
    volume, name, _ = await lost(cluster, storage)
    await set_ready(cluster, "node-2", "Unknown")
    await asyncio.sleep(0.3)
    assert await cluster.find(kinds.VOLUME_ATTACHMENT, name) is not None
    taint = {"key": views.OUT_OF_SERVICE, "value": "nodeshutdown", "effect": "NoExecute"}
    await cluster.client.patch(kinds.NODE, "node-2", {"spec": {"taints": [taint]}})
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)
    assert storage.attached[volume] == set()


async def test_a_node_that_is_not_ready_for_long_loses_its_volumes(
    cluster: Cluster, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attaching.FORCE_AFTER == 360.0
    defaults = attaching.AttachDetachController.__init__.__kwdefaults__
    assert defaults is not None
    # Six minutes are long for a test.
    monkeypatch.setitem(defaults, "force_after", 1.0)
    await cluster.crash()
    await cluster.start()
    volume, name, _ = await lost(cluster, storage)
    await asyncio.sleep(1.2)
    assert await cluster.find(kinds.VOLUME_ATTACHMENT, name) is not None, "it is ready"
    await set_ready(cluster, "node-2", "Unknown")
    await asyncio.sleep(0.4)
    assert await cluster.find(kinds.VOLUME_ATTACHMENT, name) is not None, "too early"
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)
    assert storage.attached[volume] == set()


async def test_a_node_that_is_deleted_loses_its_volumes(cluster: Cluster, storage: Storage) -> None:
    volume, name, _ = await lost(cluster, storage)
    await cluster.client.delete(kinds.NODE, "node-2")
    await cluster.client.delete(kinds.CSI_NODE, "node-2")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)
    assert storage.attached[volume] == set()


async def test_a_crash_while_a_volume_is_attached_is_made_good(
    cluster: Cluster, storage: Storage
) -> None:
    gate = storage.hold("attach")
    claim = await cluster.bound("data", "c", "1Mi")
    await make_pod(cluster, "p", "data", NODE)
    name = await attachment(cluster, claim, NODE)
    await cluster.until(
        kinds.VOLUME_ATTACHMENT, name, lambda o: FINALIZER in o["metadata"].get("finalizers", ())
    )
    await cluster.crash()
    storage.attached[claim["spec"]["volumeName"]].add(NODE)
    gate.set()
    await cluster.start()
    await cluster.in_phase(kinds.POD, "p", "Running")
    await cluster.crash()
    await cluster.start()
    await asyncio.sleep(0.3)
    found = await cluster.find(kinds.VOLUME_ATTACHMENT, name)
    assert found is not None and attached(found), "a restart detaches nothing"
    await cluster.stop_pod("p")
    await cluster.gone(kinds.VOLUME_ATTACHMENT, name)


async def test_a_node_takes_no_more_volumes_than_it_can(cluster: Cluster, storage: Storage) -> None:
    found = await cluster.until(
        kinds.CSI_NODE, NODE, lambda n: bool((n.get("spec") or {}).get("drivers"))
    )
    entry = {"name": DRIVER, "nodeID": NODE, "allocatable": {"count": 2}, "topologyKeys": None}
    entries = {e["name"]: {**e, "topologyKeys": None} for e in found["spec"]["drivers"]}
    assert entries[DRIVER] == entry
    await cluster.client.patch(kinds.NODE, "node-2", {"spec": {"unschedulable": True}})
    for name in ("one", "two", "three"):
        await cluster.bound(name, "c", "1Mi")
    await cluster.run_pod("pod-one", "one")
    await cluster.run_pod("pod-two", "two")
    await make_pod(cluster, "pod-three", "three", "")
    await cluster.told("pod-three", "FailedScheduling", "1 node(s) exceed max volume count")
    await cluster.run_pod("pod-again", "one")
    await cluster.stop_pod("pod-two")
    await cluster.in_phase(kinds.POD, "pod-three", "Running")


async def test_a_claim_of_one_pod_is_given_to_one_pod(cluster: Cluster, storage: Storage) -> None:
    await cluster.bound("data", "c", "1Mi", accessModes=["ReadWriteOncePod"])
    await cluster.run_pod("first", "data")
    await make_pod(cluster, "waits", "data", "")
    await cluster.told("waits", "FailedScheduling", "ReadWriteOncePod access mode")
    await make_pod(cluster, "forced", "data", NODE)
    await cluster.told(
        "forced",
        "FailedMount",
        "volume uses the ReadWriteOncePod access mode and is already in use by another pod",
    )
    await cluster.stop_pod("first")
    await cluster.in_phase(kinds.POD, "forced", "Running")


async def test_a_driver_that_needs_no_attaching_gets_no_attachment(
    cluster: Cluster, storage: Storage
) -> None:
    # An administrator's word counts, also against what the backend can do.
    await cluster.client.delete(kinds.CSI_DRIVER, DRIVER)
    await cluster.create(kinds.CSI_DRIVER, DRIVER, spec={"attachRequired": False})
    await cluster.crash()
    await cluster.start()
    claim = await cluster.bound("data", "c", "1Mi")
    await make_pod(cluster, "p", "data", NODE)
    await cluster.told("p", "FailedMount", "is not attached to node-1")
    name = await attachment(cluster, claim, NODE)
    assert await cluster.find(kinds.VOLUME_ATTACHMENT, name) is None


async def test_a_volume_that_is_deleted_while_it_is_detached_goes(
    cluster: Cluster, storage: Storage
) -> None:
    claim = await cluster.bound("data", "c", "1Mi")
    volume = claim["spec"]["volumeName"]
    await cluster.run_pod("p", "data")
    keep = {"spec": {"persistentVolumeReclaimPolicy": "Retain"}}
    await cluster.client.patch(kinds.VOLUME, volume, keep)
    held = storage.hold("detach")
    await cluster.stop_pod("p")
    await cluster.client.delete(kinds.CLAIM, "data", "default")
    await cluster.until(kinds.VOLUME, volume, lambda o: o["status"]["phase"] == "Released")
    await cluster.client.delete(kinds.VOLUME, volume)
    # Nothing else holds it any more, so nothing else will wake whoever lets it go.
    await cluster.until(kinds.VOLUME, volume, lambda o: o["metadata"]["finalizers"] == [FINALIZER])
    held.set()
    await cluster.gone(kinds.VOLUME, volume)
