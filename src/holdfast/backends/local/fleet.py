"""Local volumes of several nodes: each node has a local backend of its own, this one chooses.

A volume lies on one node and stays there. A request that names a node gets the volume there; one
that names none gets it on the node with the most room, of equal ones on that with the fewest
volumes. Everything later goes to the node that has the volume. A node that is off or cut off
cannot be asked, so what concerns its volumes fails as Unavailable and can be tried again.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from holdfast.backends import errors
from holdfast.backends.local.backend import LocalBackend
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
    VolumeSource,
)


class LocalFleet:
    """Local backends by node name; `refusal` says why a node cannot be asked now, or ""."""

    clones: Literal[True] = True

    def __init__(self, members: Mapping[str, LocalBackend], refusal: Callable[[str], str]) -> None:
        self._members = dict(members)
        self._refusal = refusal
        # Volumes being made, with their nodes, so that requests at one time spread.
        self._begun: dict[object, tuple[str, str]] = {}
        self._choosing = asyncio.Lock()

    async def close(self) -> None:
        """Wait for running calls and end the threads."""
        await asyncio.gather(*(member.close() for member in self._members.values()))

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Make the volume, or return the one an equal request made, wherever it lies."""
        ticket = object()
        async with self._choosing:
            # One at a time, so that each choice sees the ones before, those of repeats too.
            node = self._maker(request.name) or await self._holder(request.name)
            node = node or await self._choose(request)
            self._begun[ticket] = (node, request.name)
        try:
            topology = {**(request.topology or {}), TOPOLOGY_HOST: node}
            chosen = dataclasses.replace(request, topology=topology)
            return await self._reach(node).create_volume(chosen)
        finally:
            del self._begun[ticket]

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """Return what was made for the request on whichever node."""
        for member in self._members.values():
            found = await member.find_volume(request)
            if found is not None:
                return found
        return None

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the volume from the node that has it."""
        node = await self._holder(id)
        if node is not None:
            await self._reach(node).delete_volume(id)
            return
        # What an unfinished create left is no volume yet, but goes too.
        for name in self._members:
            if not self._refusal(name):
                await self._members[name].delete_volume(id)

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """Return the volume. Raises NotFound."""
        return await (await self._with(id)).get_volume(id)

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List the volumes of all nodes by name."""
        pages = [await member.list_volumes(token, limit) for member in self._members.values()]
        found = sorted((each for page in pages for each in page.volumes), key=lambda v: v.id)
        if limit <= 0 or len(found) <= limit:
            return VolumePage(found, "")
        return VolumePage(found[:limit], found[limit - 1].id)

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """Grow the volume."""
        return await (await self._with(id)).expand(id, size)

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """Take a snapshot on the volume's node."""
        return await (await self._with(volume_id)).create_snapshot(name, volume_id)

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the snapshot, wherever it lies."""
        node = await self._snapshot_holder(id)
        if node is not None:
            await self._reach(node).delete_snapshot(id)

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """Return the snapshot. Raises NotFound."""
        node = await self._snapshot_holder(id) or next(iter(self._members))
        return await self._reach(node).get_snapshot(id)

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """List the snapshots of all nodes by name."""
        pages = [await member.list_snapshots(token, limit) for member in self._members.values()]
        found = sorted((each for page in pages for each in page.snapshots), key=lambda s: s.id)
        if limit <= 0 or len(found) <= limit:
            return SnapshotPage(found, "")
        return SnapshotPage(found[:limit], found[limit - 1].id)

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """Return the room on the emptiest node: no volume can be larger."""
        rooms = [await member.capacity(parameters) for member in self._members.values()]
        return max(rooms, key=lambda room: room.available)

    async def rooms(self, parameters: Mapping[str, str]) -> Sequence[Room]:
        """Return the room on each node that can be asked."""
        found = [
            await member.rooms(parameters)
            for name, member in self._members.items()
            if not self._refusal(name)
        ]
        return [room for each in found for room in each]

    async def checks(self) -> Sequence[Finding]:
        """Test the prerequisites of every node."""
        return [found for member in self._members.values() for found in await member.checks()]

    # --- choosing -------------------------------------------------------------

    async def _choose(self, request: VolumeRequest) -> str:
        asked = (request.topology or {}).get(TOPOLOGY_HOST)
        at = await self._source_node(request.source)
        if asked is not None and asked not in self._members:
            raise errors.Exhausted(
                f'the volume is wanted on node "{asked}"',
                "local volumes",
                f"let the pod run on one of {', '.join(self._members)}",
            )
        if asked is not None and at not in (None, asked):
            raise errors.Exhausted(
                f'the volume is wanted on node "{asked}", what is copied lies on "{at}"',
                "local volumes",
                f"let the pod run on {at}: copies are made on one disk",
            )
        return asked or at or await self._emptiest(request)

    async def _emptiest(self, request: VolumeRequest) -> str:
        usable = [name for name in self._members if not self._refusal(name)]
        if not usable:
            raise errors.Unavailable("no node can be reached", "local volumes", "start a node")
        rooms: dict[str, int] = {}
        counts: dict[str, int] = {}
        for name in usable:
            # Before they are listed: one that is finished in between counts once in any case.
            begun = {volume for node, volume in self._begun.values() if node == name}
            listed = (await self._members[name].list_volumes()).volumes
            counts[name] = len(begun | {each.id for each in listed})
            rooms[name] = (await self._members[name].capacity(request.parameters)).available
        # Rooms that differ by less than a request's size count as equal.
        enough = max(rooms.values()) - max(request.size, 1 << 30)
        roomy = [name for name in usable if rooms[name] > enough]
        return min(roomy, key=lambda name: counts[name])

    def _maker(self, name: str) -> str | None:
        """The node on which a volume of this name is being made."""
        return next((node for node, volume in self._begun.values() if volume == name), None)

    async def _source_node(self, source: VolumeSource | None) -> str | None:
        if source is None:
            return None
        if source.kind == "volume":
            return await self._holder(source.id)
        return await self._snapshot_holder(source.id)

    async def _with(self, id: str) -> LocalBackend:
        return self._reach(await self._holder(id) or next(iter(self._members)))

    def _reach(self, node: str) -> LocalBackend:
        if why := self._refusal(node):
            raise errors.Unavailable(why, f"local volumes of node {node}", "start the node")
        return self._members[node]

    async def _holder(self, id: str) -> str | None:
        for name, member in self._members.items():
            try:
                await member.get_volume(id)
            except errors.NotFound:
                continue
            return name
        return None

    async def _snapshot_holder(self, id: str) -> str | None:
        for name, member in self._members.items():
            try:
                await member.get_snapshot(id)
            except errors.NotFound:
                continue
            return name
        return None
