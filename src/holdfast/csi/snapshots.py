"""The snapshot calls of the Controller service."""

from __future__ import annotations

import datetime

from google.protobuf import timestamp_pb2

from holdfast.backends import errors
from holdfast.backends.protocol import Backend, Snapshot, Snapshotter
from holdfast.csi import requests
from holdfast.csi.operations import Operation, Operations
from holdfast.csi.wire import csi_pb2


class Snapshots:
    """The part of the Controller service that concerns snapshots."""

    def __init__(self, backend: Backend, operations: Operations) -> None:
        self._store = backend
        self._operations = operations

    async def create_snapshot(
        self, request: csi_pb2.CreateSnapshotRequest
    ) -> csi_pb2.CreateSnapshotResponse:
        """Take the snapshot, or return it when it exists for the same volume."""
        name = requests.name(request.name)
        source = requests.required(request.source_volume_id, "source_volume_id")
        backend = self._snapshotter()
        given = {
            key: value
            for key, value in request.parameters.items()
            if not key.startswith("csi.storage.k8s.io/")
        }

        async def work(operation: Operation) -> Snapshot:
            operation.stage = f'taking a snapshot of "{source}"'
            secrets = dict(request.secrets)
            return await backend.create_snapshot(name, source, parameters=given, secrets=secrets)

        taken = await self._operations.run(f"snapshot name {name}", request, work)
        return csi_pb2.CreateSnapshotResponse(snapshot=_snapshot(taken))

    async def delete_snapshot(
        self, request: csi_pb2.DeleteSnapshotRequest
    ) -> csi_pb2.DeleteSnapshotResponse:
        """Remove the snapshot; one that is gone is a success."""
        snapshot_id = requests.required(request.snapshot_id, "snapshot_id")
        backend = self._snapshotter()

        async def work(operation: Operation) -> None:
            operation.stage = "removing the snapshot"
            try:
                await backend.delete_snapshot(snapshot_id, secrets=dict(request.secrets))
            except errors.NotFound:
                return

        await self._operations.run(f"snapshot {snapshot_id}", request, work)
        return csi_pb2.DeleteSnapshotResponse()

    async def get_snapshot(
        self, request: csi_pb2.GetSnapshotRequest
    ) -> csi_pb2.GetSnapshotResponse:
        """Return one snapshot."""
        snapshot_id = requests.required(request.snapshot_id, "snapshot_id")
        found = await self._snapshotter().get_snapshot(snapshot_id, secrets=dict(request.secrets))
        return csi_pb2.GetSnapshotResponse(snapshot=_snapshot(found))

    async def list_snapshots(
        self, request: csi_pb2.ListSnapshotsRequest
    ) -> csi_pb2.ListSnapshotsResponse:
        """List snapshots: all, one, or those of a volume. What is unknown is an empty list."""
        backend = self._snapshotter()
        limit, token = requests.page(request.max_entries, request.starting_token)
        if request.snapshot_id:
            return _listing(await self._one(backend, request), "")
        found: list[Snapshot] = []
        while True:
            # With a filter, pages are read until one of our own is full.
            page = await backend.list_snapshots(token, limit - len(found) if limit else 0)
            token = page.next_token
            source = request.source_volume_id
            found += [each for each in page.snapshots if not source or each.source == source]
            if not token or (limit and len(found) >= limit):
                return _listing(found, requests.token(token))

    async def _one(
        self, backend: Snapshotter, request: csi_pb2.ListSnapshotsRequest
    ) -> list[Snapshot]:
        try:
            found = await backend.get_snapshot(request.snapshot_id, secrets=dict(request.secrets))
        except errors.NotFound:
            return []
        fits = request.source_volume_id in ("", found.source)
        return [found] if fits else []

    def _snapshotter(self) -> Snapshotter:
        if isinstance(self._store, Snapshotter):
            return self._store
        raise errors.Unsupported("this storage system has no snapshots", "request")


def _listing(found: list[Snapshot], token: str) -> csi_pb2.ListSnapshotsResponse:
    entries = [csi_pb2.ListSnapshotsResponse.Entry(snapshot=_snapshot(each)) for each in found]
    return csi_pb2.ListSnapshotsResponse(entries=entries, next_token=token)


def _snapshot(found: Snapshot) -> csi_pb2.Snapshot:
    created = timestamp_pb2.Timestamp()
    created.FromDatetime(datetime.datetime.fromisoformat(found.created))
    return csi_pb2.Snapshot(
        snapshot_id=found.id,
        source_volume_id=found.source,
        size_bytes=found.size,
        creation_time=created,
        ready_to_use=found.ready,
    )
