"""Does with a volume what a kubelet does: registers the drivers, stages, publishes, grows, ends.

What it tells a driver it reads from the cluster's objects, as kubelet does: the volume's source,
its attachment's metadata, and the Secrets that the source refers to. The drivers are a real
`holdfast node serve`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc

from holdfast.api import errors, kinds
from holdfast.csi.wire import csi_pb2
from holdfast.runtime.client import Client
from holdfast.testing import csiclient

Object = dict[str, Any]
MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"


class Kubelet:
    """The kubelet of one node, below `directory`."""

    def __init__(self, client: Client, directory: Path, node: str) -> None:
        self._client = client
        self._directory = directory
        self.node = node

    async def register(self, drivers: Iterable[str]) -> None:
        """Write Node and CSINode, the drivers with the ids that they say of this machine."""
        entries = []
        for name in drivers:
            info = await self._call(name, "NodeGetInfo", csi_pb2.NodeGetInfoRequest())
            keys = sorted(info.accessible_topology.segments)
            entries.append({"name": name, "nodeID": info.node_id, "topologyKeys": keys})
        node = {"metadata": {"name": self.node, "annotations": {MANAGED: "true"}}}
        for kind, body in (
            (kinds.NODE, node),
            (kinds.CSI_NODE, {"metadata": {"name": self.node}, "spec": {"drivers": entries}}),
        ):
            with contextlib.suppress(errors.NotFound):
                await self._client.delete(kind, self.node)
            await self._client.create(kind, body)

    async def leave(self) -> None:
        """Remove Node and CSINode."""
        for kind in (kinds.CSI_NODE, kinds.NODE):
            with contextlib.suppress(errors.NotFound):
                await self._client.delete(kind, self.node)

    async def mount(self, volume: Object, attached: Object) -> Path:
        """Stage and publish a volume, and return where a pod finds it."""
        source = volume["spec"]["csi"]
        context = attached["status"].get("attachmentMetadata") or {}
        staging, target = self._staging(volume), self._target(volume)
        capability = _capability(volume)
        staging.mkdir(parents=True, exist_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        stage = csi_pb2.NodeStageVolumeRequest(
            volume_id=source["volumeHandle"],
            publish_context=context,
            staging_target_path=str(staging),
            volume_capability=capability,
            secrets=await self._secret(source.get("nodeStageSecretRef")),
            volume_context=source.get("volumeAttributes") or {},
        )
        await self._call(source["driver"], "NodeStageVolume", stage)
        publish = csi_pb2.NodePublishVolumeRequest(
            volume_id=source["volumeHandle"],
            publish_context=context,
            staging_target_path=str(staging),
            target_path=str(target),
            volume_capability=capability,
            secrets=await self._secret(source.get("nodePublishSecretRef")),
            volume_context=source.get("volumeAttributes") or {},
        )
        await self._call(source["driver"], "NodePublishVolume", publish)
        return target

    async def grow(self, volume: Object, size: int) -> bool:
        """Make the file system as large as the volume; False where it must be unmounted first."""
        source = volume["spec"]["csi"]
        ref = source.get("nodeExpandSecretRef") or source.get("nodeStageSecretRef")
        request = csi_pb2.NodeExpandVolumeRequest(
            volume_id=source["volumeHandle"],
            volume_path=str(self._target(volume)),
            staging_target_path=str(self._staging(volume)),
            capacity_range=csi_pb2.CapacityRange(required_bytes=size),
            volume_capability=_capability(volume),
            secrets=await self._secret(ref),
        )
        try:
            await self._call(source["driver"], "NodeExpandVolume", request)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise
            return False
        return True

    async def capacity(self, volume: Object) -> int:
        """The bytes of the file system, as `df` and kubelet's metrics would show them."""
        source = volume["spec"]["csi"]
        request = csi_pb2.NodeGetVolumeStatsRequest(
            volume_id=source["volumeHandle"], volume_path=str(self._target(volume))
        )
        stats = await self._call(source["driver"], "NodeGetVolumeStats", request)
        bytes_ = csi_pb2.VolumeUsage.Unit.Value("BYTES")
        return int(next(each.total for each in stats.usage if each.unit == bytes_))

    async def unmount(self, volume: Object) -> None:
        """Unpublish and unstage a volume."""
        source = volume["spec"]["csi"]
        unpublish = csi_pb2.NodeUnpublishVolumeRequest(
            volume_id=source["volumeHandle"], target_path=str(self._target(volume))
        )
        await self._call(source["driver"], "NodeUnpublishVolume", unpublish)
        unstage = csi_pb2.NodeUnstageVolumeRequest(
            volume_id=source["volumeHandle"], staging_target_path=str(self._staging(volume))
        )
        await self._call(source["driver"], "NodeUnstageVolume", unstage)

    def _staging(self, volume: Object) -> Path:
        source = volume["spec"]["csi"]
        digest = hashlib.sha256(source["volumeHandle"].encode()).hexdigest()
        return self._directory / "plugins/kubernetes.io/csi" / source["driver"] / digest / "mount"

    def _target(self, volume: Object) -> Path:
        meta = volume["metadata"]
        return self._directory / "pods" / meta["uid"] / "volumes" / meta["name"] / "mount"

    async def _secret(self, ref: Object | None) -> dict[str, str]:
        if not ref:
            return {}
        found = await self._client.get(kinds.SECRET, ref["name"], ref["namespace"])
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    async def _call(self, driver: str, method: str, request: object) -> Any:
        socket = self._directory / "plugins" / driver / "csi.sock"

        def call() -> Any:
            with csiclient.connect(socket) as client:
                return getattr(client.node, method)(request, timeout=60)

        return await asyncio.to_thread(call)


def _capability(volume: Object) -> csi_pb2.VolumeCapability:
    source = volume["spec"]["csi"]
    mount = csi_pb2.VolumeCapability.MountVolume(fs_type=source.get("fsType", ""))
    mode = csi_pb2.VolumeCapability.AccessMode(mode="SINGLE_NODE_WRITER")
    return csi_pb2.VolumeCapability(mount=mount, access_mode=mode)
