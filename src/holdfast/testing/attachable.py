"""A storage system that must be told which node a volume is for, and can be told to fail.

Volumes are directories. `attach` writes down the node and refuses a second one unless the volume
was made for many; the node side serves only what is attached to its node, with the token that
`attach` returned. `fail` makes the next calls of a method raise, `hold` makes them wait.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from holdfast.backends import errors, names
from holdfast.backends.protocol import (
    NO_SECRETS,
    Connected,
    Finding,
    MountSource,
    NodeInfo,
    Volume,
    VolumeHandle,
    VolumePage,
    VolumeRequest,
)

DRIVER = "attachable.holdfast.test"
PROVISIONER = names.Provisioner(DRIVER, DRIVER, names.csi_source)
_SHARED = {"ReadWriteMany", "ReadOnlyMany"}


class Storage:
    """The storage system: a Backend and an Attacher."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.attached: dict[str, set[str]] = defaultdict(set)
        self._shared: set[str] = set()
        self._failures: dict[str, list[errors.BackendError]] = defaultdict(list)
        self._gates: dict[str, asyncio.Event] = {}

    def fail(self, method: str, *failures: errors.BackendError) -> None:
        """Let the next calls of a method raise these, one after the other."""
        self._failures[method] += failures

    def hold(self, method: str) -> asyncio.Event:
        """Let calls of a method wait until the returned event is set."""
        self._gates[method] = asyncio.Event()
        return self._gates[method]

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """See `Backend.create_volume`."""
        await self._reached("create_volume")
        (self.root / request.name).mkdir(parents=True, exist_ok=True)
        if _SHARED & set(request.access):
            self._shared.add(request.name)
        return Volume(request.name, request.size)

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """See `Backend.find_volume`."""
        await self._reached("find_volume")
        found = (self.root / request.name).is_dir()
        return Volume(request.name, request.size) if found else None

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Backend.delete_volume`."""
        await self._reached("delete_volume")
        if self.attached[id]:
            raise errors.Conflict(f"attached to {', '.join(sorted(self.attached[id]))}", id)
        await asyncio.to_thread(shutil.rmtree, self.root / id, ignore_errors=True)

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """See `Backend.get_volume`."""
        await self._reached("get_volume")
        if not (self.root / id).is_dir():
            raise errors.NotFound(f'no volume "{id}"')
        return Volume(id, 0)

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """See `Backend.list_volumes`."""
        return VolumePage([Volume(path.name, 0) for path in sorted(self.root.glob("*"))])

    async def checks(self) -> Sequence[Finding]:
        """See `Backend.checks`."""
        return []

    async def close(self) -> None:
        """Keep what there is: nothing is open."""

    async def attach(
        self, id: str, node: str, read_only: bool, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Mapping[str, str]:
        """See `Attacher.attach`."""
        await self._reached("attach")
        others = self.attached[id] - {node}
        if others and id not in self._shared:
            raise errors.Conflict(f"attached to {', '.join(sorted(others))}", id)
        self.attached[id].add(node)
        return {"token": f"{id}@{node}"}

    async def detach(self, id: str, node: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """See `Attacher.detach`."""
        await self._reached("detach")
        self.attached[id].discard(node)

    async def _reached(self, method: str) -> None:
        if method in self._gates:
            await self._gates[method].wait()
        if self._failures[method]:
            raise self._failures[method].pop(0)


class StorageNode:
    """The node side, for one node; `max_volumes` is what it can take."""

    def __init__(self, storage: Storage, node: str, max_volumes: int | None = None) -> None:
        self._storage = storage
        self._node = node
        self._max_volumes = max_volumes or 0

    async def describe(self) -> NodeInfo:
        """See `NodeDescriber.describe`."""
        return NodeInfo(self._node, {}, self._max_volumes)

    async def connect(self, volume: VolumeHandle, context: Mapping[str, str]) -> Connected:
        """See `NodeSide.connect`."""
        if self._node not in self._storage.attached[volume.id]:
            raise errors.NotFound(f"volume {volume.id} is not attached to {self._node}")
        if context.get("token") != f"{volume.id}@{self._node}":
            raise errors.Invalid("the token is not the one that attaching gave", volume.id)
        return MountSource(self._storage.root / volume.id, enforced=True)

    async def disconnect(self, volume: VolumeHandle) -> None:
        """See `NodeSide.disconnect`."""
