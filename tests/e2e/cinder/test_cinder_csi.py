"""A published OpenStack how-to as its kubelet and sidecars would play it: over CSI sockets.

Two `holdfast csi` processes, each on a server of a real Nova: the pod's volume is made, attached,
mounted, lost with its server, and follows to the other one.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import drivers
from holdfast.csi.wire import csi_pb2
from holdfast.testing import csiclient
from servers.openstack import catalog
from servers.openstack.cloud import Cloud
from servers.openstack.guests import Guests

pytestmark = [pytest.mark.e2e, pytest.mark.root, pytest.mark.timeout(400)]

GIB = 1 << 30
ZONE = "topology.cinder.csi.openstack.org/zone"
SECONDS = 120.0


class Node:
    """A server with a driver: what the kubelet there, and the attacher for it, ask."""

    def __init__(self, driver: drivers.Driver, directory: Path, csi: csiclient.Client) -> None:
        self.driver = driver
        self._csi = csi
        self.staging, self.target = directory / "globalmount", directory / "pod/mount"
        self.id = csi.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest(), timeout=SECONDS).node_id

    def attach(self, volume: csi_pb2.Volume) -> None:
        """ControllerPublishVolume, as external-attacher asks."""
        request = csi_pb2.ControllerPublishVolumeRequest(
            volume_id=volume.volume_id,
            node_id=self.id,
            volume_capability=drivers.MOUNT,
            volume_context=volume.volume_context,
        )
        answer = self._csi.controller.ControllerPublishVolume(request, timeout=SECONDS)
        self.context = answer.publish_context

    def detach(self, volume: csi_pb2.Volume, node: str = "") -> None:
        """ControllerUnpublishVolume, from this server or another one."""
        request = csi_pb2.ControllerUnpublishVolumeRequest(
            volume_id=volume.volume_id, node_id=node or self.id
        )
        self._csi.controller.ControllerUnpublishVolume(request, timeout=SECONDS)

    def mount(self, volume: csi_pb2.Volume) -> Path:
        """NodeStageVolume and NodePublishVolume: a pod starts."""
        common: dict[str, Any] = {
            "volume_id": volume.volume_id,
            "staging_target_path": str(self.staging),
            "volume_capability": drivers.MOUNT,
            "volume_context": volume.volume_context,
            "publish_context": self.context,
        }
        stage = csi_pb2.NodeStageVolumeRequest(**common)
        self._csi.node.NodeStageVolume(stage, timeout=SECONDS)
        publish = csi_pb2.NodePublishVolumeRequest(target_path=str(self.target), **common)
        self._csi.node.NodePublishVolume(publish, timeout=SECONDS)
        return self.target

    def unmount(self, volume: csi_pb2.Volume) -> None:
        """NodeUnpublishVolume and NodeUnstageVolume: the last pod is gone."""
        unpublish = csi_pb2.NodeUnpublishVolumeRequest(
            volume_id=volume.volume_id, target_path=str(self.target)
        )
        self._csi.node.NodeUnpublishVolume(unpublish, timeout=SECONDS)
        unstage = csi_pb2.NodeUnstageVolumeRequest(
            volume_id=volume.volume_id, staging_target_path=str(self.staging)
        )
        self._csi.node.NodeUnstageVolume(unstage, timeout=SECONDS)

    def create(self, name: str) -> csi_pb2.Volume:
        """CreateVolume, as external-provisioner asks for the guide's class and claim."""
        zone = csi_pb2.Topology(segments={ZONE: "nova"})
        request = csi_pb2.CreateVolumeRequest(
            name=name,
            capacity_range=csi_pb2.CapacityRange(required_bytes=GIB),
            volume_capabilities=[drivers.MOUNT],
            accessibility_requirements=csi_pb2.TopologyRequirement(
                requisite=[zone], preferred=[zone]
            ),
        )
        made: csi_pb2.Volume = self._csi.controller.CreateVolume(request, timeout=SECONDS).volume
        return made

    def delete(self, volume: csi_pb2.Volume) -> None:
        """DeleteVolume."""
        request = csi_pb2.DeleteVolumeRequest(volume_id=volume.volume_id)
        self._csi.controller.DeleteVolume(request, timeout=SECONDS)


@pytest.fixture
def nodes(openstack_cloud: Cloud, servers: Guests) -> Iterator[list[Node]]:
    """Two servers with a driver each."""
    with contextlib.ExitStack() as stack:
        made = []
        for name in ("node-1", "node-2"):
            servers.boot(name)
            directory = stack.enter_context(drivers.short_directory())
            (directory / "data").mkdir(mode=0o700)
            (directory / "data/holdfast.toml").write_text(
                f'[cinder.default]\ncloud_conf = "{openstack_cloud.cloud_conf}"\n'
                f'root = "{servers.root(name)}"\n'
            )
            driver = drivers.Driver(directory, "cinder.csi.openstack.org")
            stack.enter_context(driver).start()
            csi = stack.enter_context(csiclient.connect(driver.socket))
            made.append(Node(driver, directory, csi))
        yield made


def test_the_guides_pod_keeps_its_volume_through_a_kill_and_the_loss_of_its_server(
    nodes: list[Node], openstack_cloud: Cloud, servers: Guests
) -> None:
    first, second = nodes
    assert [first.id, second.id] == [servers.boot("node-1"), servers.boot("node-2")]
    name = f"pvc-{uuid.uuid4()}"
    volume = first.create(name)
    assert first.create(name) == volume
    assert volume.accessible_topology[0].segments == {ZONE: "nova"}

    first.attach(volume)
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        found = member.block_storage.get_volume(volume.volume_id)
    assert (found.name, found.status, found.size) == (name, "in-use", 1)
    assert [each["server_id"] for each in found.attachments] == [first.id]
    inside = first.mount(volume)
    assert [path.name for path in inside.iterdir()] == ["lost+found"]
    (inside / "index.html").write_text("kept")

    # The pod is deleted and made anew; between, the driver dies.
    first.driver.kill()
    first.driver.start()
    first.unmount(volume)
    assert (first.mount(volume) / "index.html").read_text() == "kept"

    # The server's network is lost: it may still write, until Nova says that it is off.
    with pytest.raises(grpc.RpcError) as refused:
        second.attach(volume)
    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert "is attached to another server" in str(refused.value.details())
    first.unmount(volume)
    servers.stop("node-1")
    second.detach(volume, first.id)
    second.attach(volume)
    assert (second.mount(volume) / "index.html").read_text() == "kept"
    servers.start("node-1")

    second.unmount(volume)
    second.detach(volume)
    second.delete(volume)
    with catalog.connected(openstack_cloud.ports, admin=False) as member:
        assert not list(member.block_storage.volumes(name=name))
