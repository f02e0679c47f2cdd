"""The local backend: the asynchronous face of the volumes on this machine's disks.

Calls for one volume are done one after the other, calls for different volumes
in parallel in a small pool of threads: what they wait for is the disk's flush,
and concurrent flushes share one journal commit. No program is run here and no
directory is searched per create.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

from holdfast.backends import errors
from holdfast.backends.local import checks, images, records, snapshots
from holdfast.backends.local import parameters as local_parameters
from holdfast.backends.local.records import SnapshotRecord
from holdfast.backends.local.roots import Roots
from holdfast.backends.local.shelf import Shelf, Shelved
from holdfast.backends.protocol import (
    NO_PARAMETERS,
    NO_SECRETS,
    TOPOLOGY_HOST,
    Capacity,
    Finding,
    Room,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumePage,
    VolumeRequest,
)
from holdfast.kit.locks import KeyedLocks

THREADS = 16

P = ParamSpec("P")
T = TypeVar("T")


class LocalBackend:
    """Volumes below `root` (or a class's `path`) on the node called `node_name`."""

    clones: Literal[True] = True

    def __init__(
        self,
        root: Path,
        node_name: str,
        *,
        suffix: str = "",
        loop_refusal: Callable[[], str] = images.loop_refusal,
    ) -> None:
        self._node = node_name
        self._roots = Roots(root.absolute(), suffix)
        self._shelf = Shelf(self._roots, loop_refusal)
        self._loop_refusal = loop_refusal
        self._locks = KeyedLocks()
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="local-volumes")

    async def close(self) -> None:
        """Wait for running calls and end the threads."""
        await asyncio.to_thread(self._pool.shutdown)

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Make the volume, or return the one an equal request made."""
        records.check_name(request.name)
        self._check_node(request)
        source = request.source
        async with self._locks.hold(request.name):
            if source is None:
                return self._volume(await self._run(self._shelf.create, request))
            if source.kind == "volume" and source.id == request.name:
                raise errors.Invalid("a volume cannot be copied from itself", request.name)
            async with self._locks.hold(("copied", source.kind, source.id)):
                return self._volume(await self._run(self._shelf.create, request))

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """Return what was made for the request; remains of a create as `incomplete`."""
        records.check_name(request.name)
        found = await self._run(self._shelf.find, request.name)
        if found is not None:
            return self._volume(found)
        if request.name in await self._run(self._shelf.names):
            return self._incomplete(request.name)
        return None

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the volume. Raises Conflict while this machine uses it."""
        if not records.is_name(id):
            return  # no volume was ever called so
        async with self._locks.hold(id), self._locks.hold(("copied", "volume", id)):
            await self._run(self._shelf.delete, id)

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """Return the volume. Raises NotFound, also for the remains of a create."""
        records.check_id(id, "volume", self._roots.default)
        found = await self._run(self._shelf.find, id)
        if found is None:
            raise errors.NotFound(f'no volume "{id}"', str(self._roots.default))
        return self._volume(found)

    async def check_use(self, volume: Volume, wanted: VolumeRequest) -> None:
        """Raise Invalid for raw blocks of a directory; every access mode means this node."""
        if wanted.mode == "Block" and volume.context.get("layout") == "directory":
            raise errors.Invalid(
                "a volume that is a directory cannot be used as blocks",
                volume.id,
                "make it from a class with layout: image",
            )

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List volumes by name; remains of a create carry `state: incomplete`."""
        return await self._run(self._list, token, limit)

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """Grow the volume; its file system is grown by the node."""
        records.check_id(id, "volume", self._roots.default)
        async with self._locks.hold(id):
            return self._volume(await self._run(self._shelf.expand, id, size))

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """Take a snapshot. Raises Conflict for a volume in use on a disk without reflinks."""
        records.check_name(name)
        records.check_id(volume_id, "volume", self._roots.default)
        async with (
            self._locks.hold(("copied", "snapshot", name)),
            self._locks.hold(("copied", "volume", volume_id)),
        ):
            return _snapshot(await self._run(snapshots.create, self._shelf, name, volume_id))

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the snapshot; volumes restored from it are independent of it."""
        if not records.is_name(id):
            return
        async with self._locks.hold(("copied", "snapshot", id)):
            await self._run(snapshots.delete, self._shelf, id)

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """Return the snapshot. Raises NotFound."""
        records.check_id(id, "snapshot", self._roots.default)
        found = await self._run(self._shelf.find_snapshot, id)
        if found is None:
            raise errors.NotFound(f'no snapshot "{id}"', str(self._roots.default))
        return _snapshot(found[1])

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """List complete snapshots by name."""
        names, next_token = _page(await self._run(snapshots.names, self._shelf), token, limit)
        found = [await self._run(self._shelf.find_snapshot, name) for name in names]
        return SnapshotPage([_snapshot(one[1]) for one in found if one], next_token)

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """Return the room beneath the class's path, less what is promised already."""
        chosen = local_parameters.read(parameters)
        return await self._run(self._capacity, chosen.path)

    async def rooms(self, parameters: Mapping[str, str]) -> Sequence[Room]:
        """Return the room, which this node alone has."""
        return [Room({TOPOLOGY_HOST: self._node}, await self.capacity(parameters))]

    async def checks(self) -> Sequence[Finding]:
        """Test the volume roots, loop devices and file system tools."""
        return await self._run(checks.run, self._shelf, self._loop_refusal)

    def _capacity(self, path: Path | None) -> Capacity:
        root = self._roots.prepare(path)
        self._shelf.measure_images()
        return self._shelf.promises.measure(root)

    def _list(self, token: str, limit: int) -> VolumePage:
        names, next_token = _page(self._shelf.names(), token, limit)
        volumes = []
        for name in names:
            found = self._shelf.find(name)
            if found is not None:
                volumes.append(self._volume(found))
            else:
                volumes.append(self._incomplete(name))
        return VolumePage(volumes, next_token)

    def _volume(self, found: Shelved) -> Volume:
        directory, record = found
        context = {
            "path": str(records.content(directory, record.layout)),
            "layout": record.layout,
            "fsType": record.fs_type,
        }
        topology, grows = self._topology(), record.layout == "image"
        return Volume(record.name, record.size, context, topology, node_expansion=grows)

    def _incomplete(self, name: str) -> Volume:
        return Volume(name, 0, {"state": "incomplete"}, self._topology())

    def _topology(self) -> dict[str, str]:
        return {TOPOLOGY_HOST: self._node}

    def _check_node(self, request: VolumeRequest) -> None:
        chosen = (request.topology or {}).get(TOPOLOGY_HOST, self._node)
        if chosen != self._node:
            raise errors.Exhausted(
                f'the volume is wanted on node "{chosen}"',
                f"local volumes of node {self._node}",
                "let the pod run on this node, or run a backend on the other one",
            )

    async def _run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, lambda: function(*args, **kwargs))
        except OSError as error:
            raise errors.Unavailable(
                f"the disk does not work as it should ({error.strerror})",
                str(error.filename or self._roots.default),
                "check the directory's owner and the machine's log",
            ) from error


def _page(names: list[str], token: str, limit: int) -> tuple[list[str], str]:
    rest = [name for name in names if name > token] if token else names
    if limit <= 0 or len(rest) <= limit:
        return rest, ""
    return rest[:limit], rest[limit - 1]


def _snapshot(record: SnapshotRecord) -> Snapshot:
    return Snapshot(record.name, record.volume, record.size, record.created)
