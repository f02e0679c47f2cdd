"""A storage system that wants a key with every call, and names things by ids of its own.

It is `attachable.Storage` behind a lock: each call has to bring the key of its use (`create`,
`attach`, `expand`, `snapshot`, `connect`), so a test sees which secret reached which call. What it
makes is called `pool:NAME`; nobody can guess an id from a claim. It can grow volumes, take
snapshots, describe its nodes, and say whether a machine is on (`power`).

Volumes are directories; the size of one is noted beside it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.backends import errors, names
from holdfast.backends.protocol import (
    NO_PARAMETERS,
    NO_SECRETS,
    Connected,
    Finding,
    MountSource,
    NodeInfo,
    NodeState,
    Power,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumeHandle,
    VolumePage,
    VolumeRequest,
)
from holdfast.kit import clock
from holdfast.testing.attachable import Storage

DRIVER = "guarded.holdfast.test"
PROVISIONER = names.Provisioner(DRIVER, DRIVER, names.csi_source)
ZONE = f"topology.{DRIVER}/zone"


class GuardedStorage(Storage):
    """The storage system; `key` with `-USE` after it is what a call for that use must bring."""

    def __init__(self, root: Path, key: str = "key") -> None:
        super().__init__(root)
        self._key = key
        # The parameters that each call to create something was given.
        self.parameters: list[Mapping[str, str]] = []
        self.power: dict[str, Power] = {}

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """See `Backend.create_volume`."""
        self._open("create", request.secrets)
        self.parameters.append(request.parameters)
        made = await super().create_volume(request)
        (self.root / f"{request.name}.size").write_text(str(request.size))
        return Volume(f"pool:{request.name}", made.size, {"pool": "pool"})

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """See `Backend.find_volume`."""
        self._open("create", request.secrets)
        found = await super().find_volume(request)
        return None if found is None else Volume(f"pool:{request.name}", found.size)

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Backend.delete_volume`."""
        self._open("create", secrets)
        if self.attached[id]:
            raise errors.Conflict(f"attached to {', '.join(sorted(self.attached[id]))}", id)
        await super().delete_volume(_name(id))
        (self.root / f"{_name(id)}.size").unlink(missing_ok=True)

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """See `Backend.get_volume`."""
        self._open("create", secrets)
        await super().get_volume(_name(id))
        return Volume(id, int((self.root / f"{_name(id)}.size").read_text()))

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """See `Backend.list_volumes`."""
        found = (await super().list_volumes()).volumes
        return VolumePage([Volume(f"pool:{v.id}", 0) for v in found if "." not in v.id])

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """See `Expander.expand`."""
        self._open("expand", secrets)
        (self.root / f"{_name(id)}.size").write_text(str(size))
        return Volume(id, size)

    async def attach(
        self, id: str, node: str, read_only: bool, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Mapping[str, str]:
        """See `Attacher.attach`."""
        self._open("attach", secrets)
        return await super().attach(id, node, read_only)

    async def detach(self, id: str, node: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Attacher.detach`."""
        self._open("attach", secrets)
        await super().detach(id, node)

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """See `Snapshotter.create_snapshot`."""
        self._open("snapshot", secrets)
        self.parameters.append(parameters)
        place, origin = self.root / f"{name}.snap", self.root / _name(volume_id)
        if not place.exists():
            await asyncio.to_thread(shutil.copytree, origin, place)
        size = int((self.root / f"{_name(volume_id)}.size").read_text())
        created = clock.rfc3339(clock.now())
        return Snapshot(f"pool:{name}", volume_id, size, created)

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Snapshotter.delete_snapshot`."""
        self._open("snapshot", secrets)
        place = self.root / f"{_name(id)}.snap"
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """See `Snapshotter.get_snapshot`."""
        raise errors.NotFound(f'no snapshot "{id}"')

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """See `Snapshotter.list_snapshots`."""
        return SnapshotPage([])

    async def checks(self) -> Sequence[Finding]:
        """See `Backend.checks`."""
        return [Finding("pool", "ok", "the pool is there")]

    async def check_class(
        self, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Sequence[Finding]:
        """See `ClassChecker.check_class`."""
        try:
            self._open("create", secrets)
        except errors.Unauthorized as error:
            return [Finding("key", "error", error.what, "", "correct the secret")]
        return [Finding("key", "ok", "the key opens the pool")]

    async def node_state(self, node: str) -> NodeState:
        """See `NodeObserver.node_state`."""
        await self._reached("node_state")
        power = self.power.get(node, "unknown")
        return NodeState(power, f"machine {node} is {power}")

    def _open(self, use: str, secrets: Mapping[str, str]) -> None:
        if secrets.get("key") != f"{self._key}-{use}":
            raise errors.Unauthorized(f"the key does not fit, that for {use} is needed")


class GuardedNode:
    """The node side; it wants the key for `connect` too, and its nodes have ids."""

    def __init__(self, storage: GuardedStorage, id: str, key: str = "key") -> None:
        self._storage = storage
        self._key = key
        self.info = NodeInfo(id, {ZONE: "here"}, 3)
        self.handles: list[VolumeHandle] = []

    async def describe(self) -> NodeInfo:
        """See `NodeDescriber.describe`."""
        return self.info

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """See `NodeSide.connect`."""
        self.handles.append(volume)
        if volume.secrets.get("key") != f"{self._key}-connect":
            raise errors.Unauthorized("the key does not fit, that for connect is needed", volume.id)
        if context.get("token") != f"{volume.id}@{self.info.id}":
            raise errors.Invalid("the token is not the one that attaching gave", volume.id)
        return MountSource(self._storage.root / _name(volume.id), enforced=True)

    async def disconnect(self, volume: VolumeHandle) -> None:
        """See `NodeSide.disconnect`."""
        self.handles.append(volume)


def _name(id: str) -> str:
    return id.removeprefix("pool:")
