"""The Controller service: volumes made, found, attached, grown and listed by a backend.

Each call reads its request, hands it to the backend and words the answer. What
changes a volume runs as an operation on it (`operations`); what only looks does not.

A volume is returned with the context the node needs. It never holds secrets; those
come with every call and are handed to the backend as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping

from google.protobuf import wrappers_pb2

from holdfast.backends import errors
from holdfast.backends.protocol import (
    Attacher,
    AttachmentLister,
    Backend,
    CapacityReporter,
    Cloner,
    Expander,
    NodeInfo,
    Snapshotter,
    UseChecker,
    Volume,
    VolumeRequest,
    VolumeSource,
)
from holdfast.csi import capability, requests
from holdfast.csi.operations import Operation, Operations
from holdfast.csi.snapshots import Snapshots
from holdfast.csi.wire import csi_pb2

_Type = csi_pb2.ControllerServiceCapability.RPC.Type
# The spellings of the file system's type in a class; one of them may also be the capability's.
_FS_TYPES = ("fsType", "fstype")


class Controller(Snapshots):
    """Serves one backend."""

    def __init__(
        self,
        backend: Backend,
        operations: Operations,
        parameters: Callable[[dict[str, str]], dict[str, str]],
        describe: Callable[[], Awaitable[NodeInfo]] | None,
        identify: Callable[[str, Mapping[str, str]], str] = lambda id, context: id,
    ) -> None:
        super().__init__(backend, operations)
        self._backend = backend
        self._parameters = parameters
        self._describe = describe
        self._identify = identify

    async def controller_get_capabilities(
        self, request: csi_pb2.ControllerGetCapabilitiesRequest
    ) -> csi_pb2.ControllerGetCapabilitiesResponse:
        """Say what the backend can do."""
        rpc = csi_pb2.ControllerServiceCapability.RPC
        return csi_pb2.ControllerGetCapabilitiesResponse(
            capabilities=[
                csi_pb2.ControllerServiceCapability(rpc=rpc(type=each))
                for each in capabilities_of(self._backend)
            ]
        )

    async def create_volume(
        self, request: csi_pb2.CreateVolumeRequest
    ) -> csi_pb2.CreateVolumeResponse:
        """Make the volume, trying the places that may be used in their order."""
        name = requests.name(request.name)
        wish = capability.read_all(request.volume_capabilities)
        if request.mutable_parameters:
            raise errors.Invalid(
                "mutable parameters are not supported",
                "VolumeAttributesClass",
                "use a claim without volumeAttributesClassName",
            )
        asked = VolumeRequest(
            name=name,
            size=requests.size(request.capacity_range),
            parameters=self._class_parameters(dict(request.parameters), wish),
            access=wish.access,
            mode=wish.mode,
            source=self._source(request.volume_content_source),
            secrets=dict(request.secrets),
            owner=_owner(request.parameters),
        )

        async def work(operation: Operation) -> Volume:
            operation.stage = "making the volume"
            limit = request.capacity_range.limit_bytes
            existed = bool(limit) and await self._backend.find_volume(asked) is not None
            made = await self._create(asked, _places(request.accessibility_requirements))
            if limit and made.size > limit and not existed:
                # Just made, for this very request: nobody uses it yet.
                await self._backend.delete_volume(made.id, secrets=asked.secrets)
            requests.check_limit(request.capacity_range, made.size)
            return made

        made = await self._operations.run(f"name {name}", request, work)
        answer = _volume(made)
        if asked.source is not None:
            answer.content_source.CopyFrom(request.volume_content_source)
        return csi_pb2.CreateVolumeResponse(volume=answer)

    async def delete_volume(
        self, request: csi_pb2.DeleteVolumeRequest
    ) -> csi_pb2.DeleteVolumeResponse:
        """Remove the volume; one that is gone is a success."""
        volume_id = requests.required(request.volume_id, "volume_id")

        async def work(operation: Operation) -> None:
            operation.stage = "removing the volume"
            try:
                await self._backend.delete_volume(volume_id, secrets=dict(request.secrets))
            except errors.NotFound:
                return

        await self._operations.run(volume_id, request, work)
        return csi_pb2.DeleteVolumeResponse()

    async def controller_publish_volume(
        self, request: csi_pb2.ControllerPublishVolumeRequest
    ) -> csi_pb2.ControllerPublishVolumeResponse:
        """Make the volume reachable from a node."""
        volume_id = requests.required(request.volume_id, "volume_id")
        node = requests.required(request.node_id, "node_id")
        if not request.HasField("volume_capability"):
            raise errors.Invalid("volume_capability is missing", "request", "set it")
        wish = capability.read(request.volume_capability)
        backend = self._attacher()

        async def work(operation: Operation) -> dict[str, str]:
            operation.stage = f"attaching it to {node}"
            read_only = request.readonly or wish.read_only
            secrets = dict(request.secrets)
            id = self._identify(volume_id, request.volume_context)
            return dict(await backend.attach(id, node, read_only, secrets=secrets))

        context = await self._operations.run(volume_id, request, work)
        return csi_pb2.ControllerPublishVolumeResponse(publish_context=context)

    async def controller_unpublish_volume(
        self, request: csi_pb2.ControllerUnpublishVolumeRequest
    ) -> csi_pb2.ControllerUnpublishVolumeResponse:
        """Take the volume away from a node, or from all nodes that have it."""
        volume_id = requests.required(request.volume_id, "volume_id")
        backend = self._attacher()

        async def work(operation: Operation) -> None:
            for node in [request.node_id] if request.node_id else await self._nodes(volume_id):
                operation.stage = f"detaching it from {node}"
                await backend.detach(volume_id, node, secrets=dict(request.secrets))

        await self._operations.run(volume_id, request, work)
        return csi_pb2.ControllerUnpublishVolumeResponse()

    async def validate_volume_capabilities(
        self, request: csi_pb2.ValidateVolumeCapabilitiesRequest
    ) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        """Confirm what the volume can be used for, or say why not."""
        volume_id = requests.required(request.volume_id, "volume_id")
        if not request.volume_capabilities:
            capability.read_all([])
        found = await self._backend.get_volume(volume_id, secrets=dict(request.secrets))
        answer = csi_pb2.ValidateVolumeCapabilitiesResponse()
        try:
            wish = capability.read_all(request.volume_capabilities)
            if isinstance(self._backend, UseChecker):
                asked = VolumeRequest(
                    "", found.size, {}, wish.access, wish.mode, secrets=dict(request.secrets)
                )
                await self._backend.check_use(found, asked)
        except errors.Invalid as error:
            answer.message = str(error)
            return answer
        answer.confirmed.volume_capabilities.extend(request.volume_capabilities)
        answer.confirmed.volume_context.update(request.volume_context)
        answer.confirmed.parameters.update(request.parameters)
        return answer

    async def list_volumes(
        self, request: csi_pb2.ListVolumesRequest
    ) -> csi_pb2.ListVolumesResponse:
        """List volumes; the remains of unfinished creates are no volumes yet."""
        limit, token = requests.page(request.max_entries, request.starting_token)
        page = await self._backend.list_volumes(token, limit)
        nodes = await self._attachments()
        entries = [
            csi_pb2.ListVolumesResponse.Entry(
                volume=_volume(each),
                status=csi_pb2.ListVolumesResponse.VolumeStatus(
                    published_node_ids=nodes.get(each.id, ())
                ),
            )
            for each in page.volumes
            if each.context.get("state") != "incomplete"
        ]
        return csi_pb2.ListVolumesResponse(
            entries=entries, next_token=requests.token(page.next_token)
        )

    async def controller_get_volume(
        self, request: csi_pb2.ControllerGetVolumeRequest
    ) -> csi_pb2.ControllerGetVolumeResponse:
        """Return one volume and the nodes it is attached to."""
        volume_id = requests.required(request.volume_id, "volume_id")
        found = await self._backend.get_volume(volume_id)
        return csi_pb2.ControllerGetVolumeResponse(
            volume=_volume(found),
            status=csi_pb2.ControllerGetVolumeResponse.VolumeStatus(
                published_node_ids=await self._nodes(volume_id)
            ),
        )

    async def get_capacity(
        self, request: csi_pb2.GetCapacityRequest
    ) -> csi_pb2.GetCapacityResponse:
        """Say how much room there is; none where this backend has no disks."""
        if not isinstance(self._backend, CapacityReporter):
            raise errors.Unsupported("this storage system does not tell its room", "GetCapacity")
        here = (await self._describe()).topology if self._describe else {}
        asked = request.accessible_topology.segments
        if any(here.get(key, value) != value for key, value in asked.items()):
            return csi_pb2.GetCapacityResponse(available_capacity=0)
        found = await self._backend.capacity(self._parameters(dict(request.parameters)))
        available = max(found.available, 0)
        return csi_pb2.GetCapacityResponse(
            available_capacity=available,
            maximum_volume_size=wrappers_pb2.Int64Value(value=available),
        )

    async def controller_expand_volume(
        self, request: csi_pb2.ControllerExpandVolumeRequest
    ) -> csi_pb2.ControllerExpandVolumeResponse:
        """Grow the volume; whether the node has to follow is the backend's knowledge."""
        volume_id = requests.required(request.volume_id, "volume_id")
        if not request.HasField("capacity_range"):
            raise errors.Invalid("capacity_range is missing", "request", "set capacity_range")
        backend = self._backend
        if not isinstance(backend, Expander):
            raise errors.Unsupported("this storage system cannot grow volumes", volume_id)
        size = requests.size(request.capacity_range)

        async def work(operation: Operation) -> Volume:
            operation.stage = "growing the volume"
            secrets = dict(request.secrets)
            found = await backend.get_volume(volume_id, secrets=secrets)
            requests.check_limit(request.capacity_range, found.size)
            return await backend.expand(volume_id, size, secrets=secrets)

        grown = await self._operations.run(volume_id, request, work)
        return csi_pb2.ControllerExpandVolumeResponse(
            capacity_bytes=grown.size, node_expansion_required=grown.node_expansion
        )

    async def _create(self, asked: VolumeRequest, places: list[dict[str, str]]) -> Volume:
        full: errors.Exhausted | None = None
        for place in places or [{}]:
            try:
                return await self._backend.create_volume(_at(asked, place) if place else asked)
            except errors.Exhausted as error:
                full = full or error
        assert full is not None
        raise full

    def _class_parameters(self, given: dict[str, str], wish: capability.Wish) -> dict[str, str]:
        # What external-provisioner adds on request; only `owner` tells a backend of it.
        for key in ("pvc/name", "pvc/namespace", "pv/name"):
            given.pop(f"csi.storage.k8s.io/{key}", None)
        found = self._parameters(given)
        if not wish.fs_type or wish.mode == "Block":
            return found
        said = next((found[key] for key in _FS_TYPES if found.get(key)), "")
        if said and said != wish.fs_type:
            raise errors.Invalid(
                f"the class says {said}, the request {wish.fs_type}",
                "fsType",
                "name the file system once, as csi.storage.k8s.io/fstype",
            )
        return found if said else {**found, "fsType": wish.fs_type}

    def _source(self, given: csi_pb2.VolumeContentSource) -> VolumeSource | None:
        kind = given.WhichOneof("type")
        if kind == "snapshot":
            if not isinstance(self._backend, Snapshotter):
                raise errors.Unsupported("this storage system has no snapshots", "request")
            source_id = requests.required(given.snapshot.snapshot_id, "snapshot_id")
            return VolumeSource("snapshot", source_id)
        if kind == "volume":
            if not isinstance(self._backend, Cloner):
                raise errors.Unsupported("this storage system does not copy volumes", "request")
            return VolumeSource("volume", requests.required(given.volume.volume_id, "volume_id"))
        return None

    def _attacher(self) -> Attacher:
        if isinstance(self._backend, Attacher):
            return self._backend
        raise errors.Unsupported("volumes of this storage system are not attached", "request")

    async def _attachments(self) -> dict[str, list[str]]:
        if not isinstance(self._backend, AttachmentLister):
            return {}
        found = await self._backend.attachments()
        return {volume_id: sorted(nodes) for volume_id, nodes in found.items()}

    async def _nodes(self, volume_id: str) -> list[str]:
        return (await self._attachments()).get(volume_id, [])


def capabilities_of(backend: Backend) -> list[csi_pb2.ControllerServiceCapability.RPC.Type]:
    """Return what a controller with this backend can do."""
    found: list[csi_pb2.ControllerServiceCapability.RPC.Type] = [
        _Type.CREATE_DELETE_VOLUME,
        _Type.LIST_VOLUMES,
        _Type.GET_VOLUME,
        _Type.SINGLE_NODE_MULTI_WRITER,
    ]
    if isinstance(backend, Attacher):
        found.append(_Type.PUBLISH_UNPUBLISH_VOLUME)
        if isinstance(backend, AttachmentLister):
            found.append(_Type.LIST_VOLUMES_PUBLISHED_NODES)
    if isinstance(backend, CapacityReporter):
        found.append(_Type.GET_CAPACITY)
    if isinstance(backend, Snapshotter):
        found += [_Type.CREATE_DELETE_SNAPSHOT, _Type.LIST_SNAPSHOTS, _Type.GET_SNAPSHOT]
    if isinstance(backend, Cloner):
        found.append(_Type.CLONE_VOLUME)
    if isinstance(backend, Expander):
        found.append(_Type.EXPAND_VOLUME)
    return found


def _owner(parameters: Mapping[str, str]) -> str:
    """Return "namespace/claim" when external-provisioner was asked to tell (extra metadata)."""
    words = [parameters.get(f"csi.storage.k8s.io/pvc/{key}", "") for key in ("namespace", "name")]
    return "/".join(words) if all(words) else ""


def _at(asked: VolumeRequest, place: dict[str, str]) -> VolumeRequest:
    return dataclasses.replace(asked, topology=place)


def _places(given: csi_pb2.TopologyRequirement) -> list[dict[str, str]]:
    """Return where the volume may lie, the preferred places first, each once."""
    places = [dict(each.segments) for each in (*given.preferred, *given.requisite)]
    return [place for index, place in enumerate(places) if place and place not in places[:index]]


def _volume(found: Volume) -> csi_pb2.Volume:
    answer = csi_pb2.Volume(
        volume_id=found.id, capacity_bytes=found.size, volume_context=dict(found.context)
    )
    if found.topology:
        answer.accessible_topology.add().segments.update(found.topology)
    return answer
