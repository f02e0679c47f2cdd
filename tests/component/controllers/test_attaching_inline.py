"""Disks that a pod names itself are attached like those of claims, by attachments of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cluster import NODE, Cluster
from holdfast.api import errors, kinds
from holdfast.backends import errors as backend_errors
from holdfast.backends import names, registry
from holdfast.backends.cinder import legacy
from holdfast.controllers import attachments
from holdfast.controllers.provisioners import Served
from holdfast.testing.attachable import DRIVER, PROVISIONER, Storage, StorageNode

pytestmark = pytest.mark.root

Object = dict[str, Any]
DISK = "0c4f8a3e-6d1b-4a56-9d6e-1f2a3b4c5d6e"
LISTED = f"kubernetes.io/csi/{DRIVER}^{DISK}"
ATTACHMENT = attachments.name_of(DISK, DRIVER, NODE)
MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"


@pytest.fixture
async def storage(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Storage]:
    """A storage in Cinder's place, with one disk, in a cluster of one node that mounts."""
    source = names.Source(DRIVER, legacy.handle_of, driver=DRIVER)
    monkeypatch.setattr(registry, "SOURCES", {**registry.SOURCES, "cinder": source})
    await cluster.crash()
    made = Storage(tmp_path / "storage")
    (made.root / DISK).mkdir(parents=True)
    cluster.extra = {DRIVER: Served(PROVISIONER, made)}
    cluster.extra_sides = {DRIVER: StorageNode(made, NODE, max_volumes=2)}
    await cluster.start()
    await cluster.until(kinds.CSI_NODE, NODE, lambda o: DRIVER in str(o.get("spec")))
    yield made


def volume(disk: str = DISK) -> Object:
    return {"name": "data", "cinder": {"volumeID": disk, "fsType": "ext4"}}


async def make_pod(cluster: Cluster, name: str, *volumes: Object, node: str = NODE) -> Object:
    spec = {
        "nodeName": node,
        "containers": [{"name": "main", "image": "busybox"}],
        "volumes": list(volumes),
    }
    return await cluster.create(
        kinds.POD, name, spec={key: value for key, value in spec.items() if value}
    )


async def test_a_pods_own_disk_is_attached_for_it_and_detached_after_it(
    cluster: Cluster, storage: Storage
) -> None:
    await make_pod(cluster, "first", volume())
    await cluster.in_phase(kinds.POD, "first", "Running")
    assert storage.attached[DISK] == {NODE}
    found = await cluster.find(kinds.VOLUME_ATTACHMENT, ATTACHMENT)
    assert found is not None
    assert found["spec"]["source"]["inlineVolumeSpec"]["csi"] == {
        "driver": DRIVER,
        "volumeHandle": DISK,
        "fsType": "ext4",
    }
    assert found["spec"]["source"]["inlineVolumeSpec"]["volumeMode"] == "Filesystem"
    assert "persistentVolumeName" not in found["spec"]["source"]
    node = await cluster.until(kinds.NODE, NODE, lambda n: "volumesAttached" in n["status"])
    assert [each["name"] for each in node["status"]["volumesAttached"]] == [LISTED]
    assert node["status"]["volumesInUse"] == [LISTED]
    await cluster.told("first", "SuccessfulAttachVolume", f'"{DRIVER}-{DISK}"')
    # A second pod of the node shares it; it stays until both are gone.
    await make_pod(cluster, "second", volume())
    await cluster.in_phase(kinds.POD, "second", "Running")
    await cluster.client.delete(kinds.POD, "first", "default", grace=0)
    await cluster.gone(kinds.POD, "first")
    assert storage.attached[DISK] == {NODE}
    await cluster.client.delete(kinds.POD, "second", "default", grace=0)
    await cluster.gone(kinds.VOLUME_ATTACHMENT, ATTACHMENT)
    assert storage.attached[DISK] == set()
    await cluster.until(kinds.NODE, NODE, lambda n: "volumesAttached" not in n["status"])


async def test_a_restart_detaches_the_disk_of_a_pod_that_went_meanwhile(
    cluster: Cluster, storage: Storage
) -> None:
    await make_pod(cluster, "p", volume())
    await cluster.in_phase(kinds.POD, "p", "Running")
    await cluster.crash()
    await cluster.client.delete(kinds.POD, "p", "default", grace=0)
    with pytest.raises(errors.NotFound):
        await cluster.client.get(kinds.POD, "p", "default")
    assert storage.attached[DISK] == {NODE}
    await cluster.start()
    await cluster.gone(kinds.VOLUME_ATTACHMENT, ATTACHMENT)
    assert storage.attached[DISK] == set()


async def test_a_failed_attachment_is_told_to_the_pod_and_tried_again(
    cluster: Cluster, storage: Storage
) -> None:
    storage.fail("attach", backend_errors.Unavailable("no answer", "the cloud"))
    await make_pod(cluster, "p", volume())
    await cluster.told("p", "FailedAttachVolume", "no answer")
    await cluster.in_phase(kinds.POD, "p", "Running")
    assert storage.attached[DISK] == {NODE}


async def test_a_second_node_waits_until_the_first_lets_go(
    cluster: Cluster, storage: Storage
) -> None:
    await cluster.create(kinds.NODE, "node-2", metadata={"annotations": {MANAGED: "true"}})
    entry = {"name": DRIVER, "nodeID": "node-2"}
    await cluster.create(kinds.CSI_NODE, "node-2", spec={"drivers": [entry]})
    await make_pod(cluster, "here", volume())
    await cluster.in_phase(kinds.POD, "here", "Running")
    await make_pod(cluster, "there", volume(), node="node-2")
    await cluster.told("there", "FailedAttachVolume", "Multi-Attach error")
    assert storage.attached[DISK] == {NODE}
    await cluster.client.delete(kinds.POD, "here", "default", grace=0)
    other = attachments.name_of(DISK, DRIVER, "node-2")
    await cluster.until(kinds.VOLUME_ATTACHMENT, other, attachments.is_attached)
    assert storage.attached[DISK] == {"node-2"}


async def test_a_nodes_limit_counts_disks_that_pods_name_themselves(
    cluster: Cluster, storage: Storage
) -> None:
    for number in (1, 2):
        (storage.root / f"disk-{number}").mkdir()
        await make_pod(cluster, f"p{number}", volume(f"disk-{number}"))
        await cluster.in_phase(kinds.POD, f"p{number}", "Running")
    await make_pod(cluster, "third", volume(), node="")
    await cluster.told("third", "FailedScheduling", "node(s) exceed max volume count")
    await make_pod(cluster, "again", volume("disk-1"), node="")
    await cluster.in_phase(kinds.POD, "again", "Running")
