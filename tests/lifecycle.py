"""One CSI volume from its creation to its removal, step by step, for tests and crashes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import drivers
from holdfast.csi.wire import csi_pb2
from holdfast.testing import csiclient

SIZE = 64 << 20
NAME = "a volume / with any name"


class Cycle:
    """The calls for one volume; what an earlier one answered is kept for the later ones."""

    def __init__(
        self,
        directory: Path,
        layout: str = "image",
        capability: csi_pb2.VolumeCapability = drivers.MOUNT,
        *,
        read_only: bool = False,
    ) -> None:
        self.staging = directory / "kubelet" / "globalmount"
        self.target = directory / "pods" / "mount"
        self._layout = layout
        self._capability = capability
        self._read_only = read_only
        self.volume = csi_pb2.Volume()

    def steps(self) -> list[Callable[[csiclient.Client], Any]]:
        """Give the calls in their order."""
        return [
            *(self.create, self.stage, self.publish),
            *(self.unpublish, self.unstage, self.delete),
        ]

    def create(self, csi: csiclient.Client) -> None:
        """CreateVolume."""
        request = csi_pb2.CreateVolumeRequest(
            name=NAME,
            capacity_range=csi_pb2.CapacityRange(required_bytes=SIZE),
            volume_capabilities=[self._capability],
            parameters={"layout": self._layout},
        )
        self.volume = csi.controller.CreateVolume(request).volume

    def stage(self, csi: csiclient.Client) -> None:
        """NodeStageVolume."""
        csi.node.NodeStageVolume(
            csi_pb2.NodeStageVolumeRequest(
                volume_id=self.volume.volume_id,
                staging_target_path=str(self.staging),
                volume_capability=self._capability,
                volume_context=self.volume.volume_context,
            )
        )

    def publish(self, csi: csiclient.Client) -> None:
        """NodePublishVolume."""
        csi.node.NodePublishVolume(
            csi_pb2.NodePublishVolumeRequest(
                volume_id=self.volume.volume_id,
                staging_target_path=str(self.staging),
                target_path=str(self.target),
                volume_capability=self._capability,
                volume_context=self.volume.volume_context,
                readonly=self._read_only,
            )
        )

    def unpublish(self, csi: csiclient.Client) -> None:
        """NodeUnpublishVolume."""
        csi.node.NodeUnpublishVolume(
            csi_pb2.NodeUnpublishVolumeRequest(
                volume_id=self.volume.volume_id, target_path=str(self.target)
            )
        )

    def unstage(self, csi: csiclient.Client) -> None:
        """NodeUnstageVolume."""
        csi.node.NodeUnstageVolume(
            csi_pb2.NodeUnstageVolumeRequest(
                volume_id=self.volume.volume_id, staging_target_path=str(self.staging)
            )
        )

    def delete(self, csi: csiclient.Client) -> None:
        """DeleteVolume."""
        csi.controller.DeleteVolume(csi_pb2.DeleteVolumeRequest(volume_id=self.volume.volume_id))
