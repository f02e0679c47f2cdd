"""ceph-csi's volumes over the sockets of `holdfast csi --driver rbd.csi.ceph.com`.

The calls are those that the official sidecars and a kubelet make of ceph-csi's manifests.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import drivers
from holdfast.backends import mountinfo
from holdfast.csi.wire import csi_pb2
from holdfast.testing import csiclient
from servers.ceph import objects
from servers.ceph.pools import Pool

pytestmark = [pytest.mark.e2e, pytest.mark.root]

MIB = 1 << 20


def _made(csi: csiclient.Client, pool: Pool) -> csi_pb2.Volume:
    """CreateVolume with a class's parameters, as the provisioner gives them on."""
    given = objects.ceph_csi(pool)
    kept = {key: value for key, value in given.items() if "secret" not in key}
    request = csi_pb2.CreateVolumeRequest(
        name="pvc-0b92a433-adb0-46d9-a0c8-5fbef28eff5f",
        capacity_range=csi_pb2.CapacityRange(required_bytes=500 * MIB),
        volume_capabilities=[drivers.MOUNT],
        parameters=kept,
        secrets=pool.secret,
    )
    found: csi_pb2.Volume = csi.controller.CreateVolume(request).volume
    return found


def _by_hand(pool: Pool) -> csi_pb2.Volume:
    """A static volume: the image's name is the handle, the rest is in the attributes."""
    pool.ceph.rbd("create", f"{pool.name}/image1", "-s", "500")
    attributes = objects.csi_source(pool, "image1")["csi"]["volumeAttributes"]
    return csi_pb2.Volume(volume_id="image1", volume_context=attributes)


def _used(csi: csiclient.Client, pool: Pool, volume: csi_pb2.Volume, place: Path) -> list[str]:
    """Attach, stage and publish; look at it and write; and all the way back."""
    about: dict[str, Any] = {"volume_id": volume.volume_id, "volume_capability": drivers.MOUNT}
    about |= {"volume_context": volume.volume_context, "secrets": pool.secret}
    node = csi.node.NodeGetInfo(csi_pb2.NodeGetInfoRequest()).node_id
    csi.controller.ControllerPublishVolume(
        csi_pb2.ControllerPublishVolumeRequest(node_id=node, **about)
    )
    staging, target = str(place / "globalmount"), str(place / "mount")
    csi.node.NodeStageVolume(csi_pb2.NodeStageVolumeRequest(staging_target_path=staging, **about))
    csi.node.NodePublishVolume(
        csi_pb2.NodePublishVolumeRequest(staging_target_path=staging, target_path=target, **about)
    )
    assert mountinfo.at(target)[-1].fs_type == "ext4"
    size = os.statvfs(target)
    assert 430 * MIB < size.f_blocks * size.f_frsize <= 500 * MIB
    seen = sorted(path.name for path in Path(target).glob("run-*"))
    (Path(target) / f"run-{len(seen)}").touch()
    id = volume.volume_id
    csi.node.NodeUnpublishVolume(
        csi_pb2.NodeUnpublishVolumeRequest(volume_id=id, target_path=target)
    )
    csi.node.NodeUnstageVolume(
        csi_pb2.NodeUnstageVolumeRequest(volume_id=id, staging_target_path=staging)
    )
    csi.controller.ControllerUnpublishVolume(
        csi_pb2.ControllerUnpublishVolumeRequest(volume_id=id, node_id=node, secrets=pool.secret)
    )
    return seen


@pytest.mark.parametrize("by_hand", [False, True])
def test_volumes_of_ceph_csi_are_used_over_the_sockets(pool: Pool, by_hand: bool) -> None:
    with drivers.short_directory() as directory:
        (directory / "data").mkdir()
        (directory / "data" / "holdfast.toml").write_text(pool.settings)
        with drivers.Driver(directory, objects.CEPH_CSI) as driver:
            driver.start()
            with csiclient.connect(driver.socket) as csi:
                volume = _by_hand(pool) if by_hand else _made(csi, pool)
                assert _used(csi, pool, volume, directory / "pod") == []
                assert _used(csi, pool, volume, directory / "pod") == ["run-0"]
                assert drivers.mounted_below(directory) == []
                if by_hand:
                    pool.ceph.rbd("rm", "--no-progress", f"{pool.name}/image1")
                else:
                    request = csi_pb2.DeleteVolumeRequest(
                        volume_id=volume.volume_id, secrets=pool.secret
                    )
                    csi.controller.DeleteVolume(request)
            assert driver.stop() == 0
    assert pool.images() == [] and pool.leftovers() == set()
