"""The Node service: a volume staged once on this machine and published for each pod.

The work is done by `node.volumes`; here requests are read, the two paths of CSI become
the two of Holdfast, and what happened is worded. Staging, unstaging and growing concern
the whole volume; publishing concerns one target path.

The records of staging and the mount table are read without a thread: they are in memory,
and changing threads takes longer than reading them.

Invariant: what is mounted is asked from the kernel, also after a restart; what a failed
staging connected is let go of.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NoReturn

from holdfast.backends import blockdevices, errors, mountinfo
from holdfast.backends.protocol import Connected, Mounter, NodeInfo, NodeSide, VolumeHandle
from holdfast.csi import capability, requests, staging
from holdfast.csi.operations import Operation, Operations
from holdfast.csi.wire import csi_pb2
from holdfast.node import mounts, stats
from holdfast.node.volumes import Volumes

_Type = csi_pb2.NodeServiceCapability.RPC.Type
CAPABILITIES = (
    _Type.STAGE_UNSTAGE_VOLUME,
    _Type.GET_VOLUME_STATS,
    _Type.EXPAND_VOLUME,
    _Type.SINGLE_NODE_MULTI_WRITER,
)
EPHEMERAL = "csi.storage.k8s.io/ephemeral"
# What kubelet and external-provisioner add to a volume's context for themselves.
_FOREIGN = ("csi.storage.k8s.io/", "storage.kubernetes.io/")


class Node:
    """Serves the volumes of one driver on this machine."""

    def __init__(
        self,
        side: NodeSide,
        volumes: Volumes,
        operations: Operations,
        describe: Callable[[], Awaitable[NodeInfo]],
    ) -> None:
        self._side = side
        self._volumes = volumes
        self._operations = operations
        self._describe = describe

    async def node_get_capabilities(
        self, request: csi_pb2.NodeGetCapabilitiesRequest
    ) -> csi_pb2.NodeGetCapabilitiesResponse:
        """Say what this service can do."""
        rpc = csi_pb2.NodeServiceCapability.RPC
        return csi_pb2.NodeGetCapabilitiesResponse(
            capabilities=[
                csi_pb2.NodeServiceCapability(rpc=rpc(type=each)) for each in CAPABILITIES
            ]
        )

    async def node_get_info(
        self, request: csi_pb2.NodeGetInfoRequest
    ) -> csi_pb2.NodeGetInfoResponse:
        """Say what this machine is called, where it is and how many volumes it takes."""
        found = await self._describe()
        answer = csi_pb2.NodeGetInfoResponse(
            node_id=found.id, max_volumes_per_node=found.max_volumes
        )
        answer.accessible_topology.segments.update(found.topology)
        return answer

    async def node_stage_volume(
        self, request: csi_pb2.NodeStageVolumeRequest
    ) -> csi_pb2.NodeStageVolumeResponse:
        """Connect the volume and make it ready in the staging directory."""
        volume_id = requests.required(request.volume_id, "volume_id")
        directory = _path(request.staging_target_path, "staging_target_path")
        wish = _wish(request)
        context = _own(request.volume_context)
        record = staging.Record(
            volume_id,
            context,
            dict(request.publish_context),
            wish.fs_type or context.get("fsType", ""),
            wish.read_only,
            wish.mode,
            wish.flags,
        )

        async def work(operation: Operation) -> None:
            await self._stage(operation, directory, record, request)

        await self._operations.run(volume_id, request, work)
        return csi_pb2.NodeStageVolumeResponse()

    async def node_unstage_volume(
        self, request: csi_pb2.NodeUnstageVolumeRequest
    ) -> csi_pb2.NodeUnstageVolumeResponse:
        """Undo staging; a volume that is not staged is a success."""
        volume_id = requests.required(request.volume_id, "volume_id")
        directory = _path(request.staging_target_path, "staging_target_path")

        async def work(operation: Operation) -> None:
            operation.stage = "unmounting and disconnecting it"
            record = staging.read(directory)
            if record is not None and record.id != volume_id:
                return  # this directory is another volume's by now
            handle = record.handle() if record else VolumeHandle(volume_id)
            await self._volumes.unstage(handle, self._side, staging.place(directory))
            staging.remove(directory)

        await self._operations.run(volume_id, request, work)
        return csi_pb2.NodeUnstageVolumeResponse()

    def _own_mounts(self) -> Path | None:
        return self._side.mounts_below if isinstance(self._side, Mounter) else None

    async def node_publish_volume(
        self, request: csi_pb2.NodePublishVolumeRequest
    ) -> csi_pb2.NodePublishVolumeResponse:
        """Show the staged volume at a target path."""
        volume_id = requests.required(request.volume_id, "volume_id")
        target = _path(request.target_path, "target_path")
        wish = _wish(request)
        if request.volume_context.get(EPHEMERAL) == "true":
            raise errors.Invalid(
                "inline ephemeral volumes are not supported",
                "pod spec",
                "use a generic ephemeral volume (volumes[].ephemeral)",
            )
        if not request.staging_target_path:
            raise errors.Conflict("staging_target_path is missing", "request", "stage it first")
        directory = _path(request.staging_target_path, "staging_target_path")
        read_only = request.readonly or wish.read_only

        async def work(operation: Operation) -> None:
            operation.stage = f"mounting it at {target}"
            _check_target(directory, target, read_only, wish, self._own_mounts())
            await self._volumes.publish(
                staging.place(directory),
                target,
                read_only=read_only,
                mount_options=[] if wish.mode == "Block" else _generic(wish.flags),
            )

        await self._operations.run(volume_id, request, work, part=str(target))
        return csi_pb2.NodePublishVolumeResponse()

    async def node_unpublish_volume(
        self, request: csi_pb2.NodeUnpublishVolumeRequest
    ) -> csi_pb2.NodeUnpublishVolumeResponse:
        """Take the volume away from a target path, and the path with it."""
        volume_id = requests.required(request.volume_id, "volume_id")
        target = _path(request.target_path, "target_path")

        async def work(operation: Operation) -> None:
            operation.stage = f"unmounting it from {target}"
            await self._volumes.unpublish(target)

        await self._operations.run(volume_id, request, work, part=str(target))
        return csi_pb2.NodeUnpublishVolumeResponse()

    async def node_get_volume_stats(
        self, request: csi_pb2.NodeGetVolumeStatsRequest
    ) -> csi_pb2.NodeGetVolumeStatsResponse:
        """Say how full the volume is; of a raw device, how large."""
        requests.required(request.volume_id, "volume_id")
        path = _mounted(requests.required(request.volume_path, "volume_path"))
        usage = csi_pb2.VolumeUsage
        if await asyncio.to_thread(path.is_block_device):
            device = await asyncio.to_thread(blockdevices.describe, path)
            return csi_pb2.NodeGetVolumeStatsResponse(
                usage=[usage(unit=usage.BYTES, total=device.size)]
            )
        found = await asyncio.to_thread(stats.of, path)
        return csi_pb2.NodeGetVolumeStatsResponse(
            usage=[
                usage(
                    unit=usage.BYTES,
                    total=found.capacity,
                    used=found.used,
                    available=found.available,
                ),
                usage(
                    unit=usage.INODES,
                    total=found.inodes,
                    used=found.inodes_used,
                    available=found.inodes_free,
                ),
            ]
        )

    async def node_expand_volume(
        self, request: csi_pb2.NodeExpandVolumeRequest
    ) -> csi_pb2.NodeExpandVolumeResponse:
        """Let device and file system follow a volume that has grown."""
        volume_id = requests.required(request.volume_id, "volume_id")
        path = _mounted(requests.required(request.volume_path, "volume_path"))

        async def work(operation: Operation) -> int:
            operation.stage = "growing it on this machine"
            directory = Path(request.staging_target_path)
            if not request.staging_target_path:
                found = staging.find(volume_id, path)
                directory = found or _not_staged(volume_id, path)
            record = staging.read(directory)
            if record is None or record.id != volume_id:
                _not_staged(volume_id, directory)
            handle = _with_secrets(record.handle(), request.secrets)
            place = staging.place(directory)
            return await self._volumes.grow(
                handle, self._side, place, size=asked, context=record.published
            )

        asked = request.capacity_range.required_bytes
        size = await self._operations.run(volume_id, request, work)
        return csi_pb2.NodeExpandVolumeResponse(capacity_bytes=size or asked)

    async def _stage(
        self,
        operation: Operation,
        directory: Path,
        record: staging.Record,
        request: csi_pb2.NodeStageVolumeRequest,
    ) -> None:
        operation.stage = "connecting the device"
        place = staging.place(directory)
        before = staging.read(directory)
        if before is not None and before != record and self._volumes.is_staged(place):
            raise errors.AlreadyExists(
                "something is staged there in another way", str(directory), "unstage it first"
            )
        staging.write(directory, record)
        side = _Watched(self._side, operation)
        handle = _with_secrets(record.handle(), request.secrets)
        try:
            await self._volumes.stage(
                handle,
                side,
                place,
                fs_type=record.fs_type,
                mount_options=record.options,
                read_only=record.read_only,
                context=record.published,
            )
        except errors.BackendError:
            operation.stage = "undoing what was begun"
            if not self._volumes.is_staged(place):
                await self._volumes.abandon(handle, self._side, place)
            raise


class _Watched:
    """A node side that tells the operation when connecting is over."""

    def __init__(self, side: NodeSide, operation: Operation) -> None:
        self._side = side
        self._operation = operation

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """Connect and say what follows."""
        connected = await self._side.connect(volume, context)
        self._operation.stage = "checking and mounting its file system"
        return connected

    async def disconnect(self, volume: VolumeHandle) -> None:
        """Disconnect."""
        await self._side.disconnect(volume)


def _check_target(
    directory: Path, target: Path, read_only: bool, wish: capability.Wish, own: Path | None
) -> None:
    """Refuse a second place for a volume that may have one, and a change of readOnly."""
    if wish.single_writer and (others := staging.others(directory, target, own)):
        raise errors.Conflict(
            f"the volume is published at {', '.join(others)}",
            str(target),
            "only one pod may use it (ReadWriteOncePod): stop the other one",
        )
    if not os.path.lexists(target):
        return
    found, staged = mountinfo.at(target), mountinfo.at(staging.place(directory))
    shown_read_only = bool(found) and "ro" in found[-1].options
    if shown_read_only and not read_only and staged and not staged[-1].read_only:
        raise errors.AlreadyExists(
            "the volume is published there read-only", str(target), "unpublish it first"
        )


def _wish(
    request: csi_pb2.NodeStageVolumeRequest | csi_pb2.NodePublishVolumeRequest,
) -> capability.Wish:
    if request.HasField("volume_capability"):
        return capability.read(request.volume_capability)
    raise errors.Invalid("volume_capability is missing", "request", "set volume_capability")


def _path(text: str, field: str) -> Path:
    path = Path(requests.required(text, field))
    if not path.is_absolute() or ".." in path.parts:
        raise errors.Invalid(f'{field} "{text}" is no absolute path', "request", f"correct {field}")
    return path


def _mounted(text: str) -> Path:
    """Return a published path. Raises errors.NotFound when no volume is there."""
    path = Path(text)
    if not path.is_absolute() or not os.path.lexists(path):
        raise errors.NotFound("no volume is there", text, "publish it first")
    if not path.is_symlink() and not mountinfo.at(path):
        raise errors.NotFound("no volume is mounted there", text, "publish it first")
    return path


def _not_staged(volume_id: str, where: Path) -> NoReturn:
    raise errors.NotFound(f'volume "{volume_id}" is not staged', str(where), "stage it first")


def _own(context: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in context.items() if not key.startswith(_FOREIGN)}


def _with_secrets(handle: VolumeHandle, secrets: Mapping[str, str]) -> VolumeHandle:
    return dataclasses.replace(handle, secrets=dict(secrets))


def _generic(flags: tuple[str, ...]) -> list[str]:
    """Return the mount options that also mean something for a bind mount."""
    return [flag for flag in flags if not mounts.parse_options([flag])[1]]
