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
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc

from holdfast.api import errors, kinds
from holdfast.csi.wire import csi_pb2
from holdfast.runtime.client import Client
from holdfast.testing import csiclient

Object = dict[str, Any]
_TRIES = 40
MANAGED = "volumes.kubernetes.io/controller-managed-attach-detach"


class Kubelet:
    """The kubelet of one node, below `directory`."""

    def __init__(
        self,
        client: Client,
        directory: Path,
        node: str,
        sockets: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        """`sockets` are of drivers that do not serve where kubelet finds them by itself."""
        self._client = client
        self._directory = directory
        self._sockets = sockets
        self.node = node

    async def register(self, drivers: Iterable[str]) -> None:
        """Write Node and CSINode, the drivers with the ids that they say of this machine."""
        entries: list[Object] = []
        labels: dict[str, str] = {}
        for name in drivers:
            info = await self._call(name, "NodeGetInfo", csi_pb2.NodeGetInfoRequest())
            keys = sorted(info.accessible_topology.segments)
            labels |= info.accessible_topology.segments
            entries.append({"name": name, "nodeID": info.node_id, "topologyKeys": keys})
        meta = {"name": self.node, "annotations": {MANAGED: "true"}, "labels": labels}
        node = {"metadata": meta}
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

    async def start_pod(self, claim: str) -> str:
        """Write a pod that a scheduler has put on this node already."""
        name = f"pod-{secrets.token_hex(4)}"
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
        spec = {
            "nodeName": self.node,
            "containers": [{"name": "main", "image": "none.invalid/none"}],
            "volumes": [volume],
        }
        await self._client.create(kinds.POD, {"metadata": {"name": name}, "spec": spec}, "default")
        return name

    async def delete_pod(self, name: str) -> None:
        """Delete a pod at once, as it is done when its containers have ended."""
        await self._client.delete(kinds.POD, name, "default", grace=0)

    async def attached(self, volume: Object) -> Object | None:
        """Return the volume's VolumeAttachment once it says that it is attached."""
        found = await self._attachments(volume)
        return next((each for each in found if (each.get("status") or {}).get("attached")), None)

    async def detached(self, volume: Object) -> bool:
        """Whether there is no VolumeAttachment any more."""
        return not await self._attachments(volume)

    async def _attachments(self, volume: Object) -> list[Object]:
        name = volume["metadata"]["name"]
        items = (await self._client.list(kinds.VOLUME_ATTACHMENT)).items
        return [e for e in items if e["spec"]["source"].get("persistentVolumeName") == name]

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
        # The device may show its new size some time after the volume has it.
        for _ in range(_TRIES):
            try:
                await self._call(source["driver"], "NodeExpandVolume", request)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.FAILED_PRECONDITION:
                    return False
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.5)
            else:
                return True
        raise AssertionError(f"{source['volumeHandle']} did not grow")

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
        source: Object = volume["spec"]["csi"]
        driver = str(source["driver"])
        digest = hashlib.sha256(source["volumeHandle"].encode()).hexdigest()
        return self._directory / "plugins/kubernetes.io/csi" / driver / digest / "mount"

    def _target(self, volume: Object) -> Path:
        uid, name = str(volume["metadata"]["uid"]), str(volume["metadata"]["name"])
        return self._directory / "pods" / uid / "volumes" / name / "mount"

    async def _secret(self, ref: Object | None) -> dict[str, str]:
        if not ref:
            return {}
        found = await self._client.get(kinds.SECRET, ref["name"], ref["namespace"])
        return {key: base64.b64decode(value).decode() for key, value in found["data"].items()}

    async def _call(self, driver: str, method: str, request: object) -> Any:
        own = self._directory / "plugins" / driver / "csi.sock"
        socket = self._sockets.get(driver, own)

        def call() -> Any:
            with csiclient.connect(socket) as client:
                return getattr(client.node, method)(request, timeout=60)

        return await asyncio.to_thread(call)


def _capability(volume: Object) -> csi_pb2.VolumeCapability:
    source = volume["spec"]["csi"]
    mount = csi_pb2.VolumeCapability.MountVolume(fs_type=source.get("fsType", ""))
    mode = csi_pb2.VolumeCapability.AccessMode(mode="SINGLE_NODE_WRITER")
    return csi_pb2.VolumeCapability(mount=mount, access_mode=mode)
