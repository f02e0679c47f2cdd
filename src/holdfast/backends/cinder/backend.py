"""The control side: Holdfast's requests as work in the clouds that are configured.

Calls for one volume or name are done one after the other, calls for different
ones at the same time; what limits them is the pool of threads that talk to
OpenStack. What is done is in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from holdfast.backends import access as uses
from holdfast.backends import errors
from holdfast.backends import parameters as class_parameters
from holdfast.backends.cinder import (
    attaching,
    capacity,
    checks,
    expansion,
    making,
    parameters,
    records,
    removal,
    reservations,
    servers,
    snapshots,
)
from holdfast.backends.cinder.attaching import NovaAttaching
from holdfast.backends.cinder.clouds import Cloud, Clouds
from holdfast.backends.cinder.connecting import CinderAttaching
from holdfast.backends.cinder.parameters import SNAPSHOT_KNOWN
from holdfast.backends.cinder.polling import Poller
from holdfast.backends.cinder.records import Record
from holdfast.backends.protocol import (
    NO_PARAMETERS,
    NO_SECRETS,
    Capacity,
    Finding,
    NodeState,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumeHandle,
    VolumePage,
    VolumeRequest,
)
from holdfast.kit.locks import KeyedLocks


class CinderBackend:
    """All clouds of the configuration's `[cinder.NAME]` sections."""

    clones: Literal[True] = True

    def __init__(self, instances: Mapping[str, Mapping[str, object]], directory: Path) -> None:
        self._clouds = Clouds(instances)
        self._locks = KeyedLocks()
        self._pollers: dict[Cloud, Poller] = {}
        self._ways: dict[Cloud, NovaAttaching | CinderAttaching] = {}

    @property
    def calls(self) -> Mapping[str, int]:
        """How many requests went to OpenStack, by service, method and path."""
        return self._clouds.calls

    async def close(self) -> None:
        """End the polling, close the connections, end the threads."""
        for each in self._pollers.values():
            await each.close()
        await self._clouds.close()

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Make the volume, or return the one an equal request made."""
        chosen = parameters.read(request.parameters)
        cloud = self._clouds.choose(chosen.cloud, request.secrets)
        async with self._locks.hold(("name", request.name)):
            work = making.Making(self._clouds, cloud, self._poller(cloud), request, chosen)
            return await self._volume(cloud, await work.make())

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """Return what was made for the request; unfinished ones as `incomplete`."""
        try:
            chosen = parameters.read(request.parameters)
        except errors.Invalid:
            return None
        cloud = self._clouds.choose(chosen.cloud, request.secrets)
        found = await making.of_name(cloud, request.name)
        owned = [each for each in found if records.is_owned(each, cloud.instance.owner)]
        return await self._volume(cloud, records.oldest(owned)) if owned else None

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the volume, and others that lost answers made under its name."""
        try:
            cloud, uuid = self._clouds.parse(id, secrets)
            async with self._locks.hold(("volume", uuid)):
                await self._delete(cloud, await attaching.volume(cloud, uuid))
        except errors.NotFound:
            return

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """Return the volume. Raises NotFound."""
        cloud, uuid = self._clouds.parse(id, secrets)
        return await self._volume(cloud, await attaching.volume(cloud, uuid))

    async def check_use(self, volume: Volume, wanted: VolumeRequest) -> None:
        """Raise Invalid where several nodes would have what only one may have."""
        uses.check_writers(wanted.access, wanted.mode)
        if not uses.is_shared(wanted.access):
            return
        cloud, uuid = self._clouds.parse(volume.id, wanted.secrets)
        if not (await attaching.volume(cloud, uuid)).get("multiattach"):
            raise errors.Invalid(
                f"the volume's type allows one server at a time, not {', '.join(wanted.access)}",
                f"volume {uuid}",
                "use ReadWriteOnce, or a type with multiattach='<is> True'",
            )

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List the volumes with our mark in all clouds, by id."""
        found: dict[str, Volume] = {}
        for cloud in self._clouds.all():
            for record in await records.listed(cloud, "/volumes/detail"):
                if records.is_owned(record, cloud.instance.owner):
                    volume = await self._volume(cloud, record)
                    found[volume.id] = volume
        ids, next_token = _page(sorted(found), token, limit)
        return VolumePage([found[each] for each in ids], next_token)

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """Grow the volume, also in use; file system and device follow on the node."""
        cloud, uuid = self._clouds.parse(id, secrets)
        async with self._locks.hold(("volume", uuid)):
            record = await attaching.volume(cloud, uuid)
            grown = await expansion.grow(cloud, self._poller(cloud), record, size)
            return await self._volume(cloud, grown)

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """Take a snapshot, also of a volume in use."""
        class_parameters.read(parameters, SNAPSHOT_KNOWN)
        cloud, uuid = self._clouds.parse(volume_id, secrets)
        async with self._locks.hold(("name", name)):
            return self._snapshot(cloud, await snapshots.create(cloud, name, uuid))

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the snapshot. Raises Conflict while something is made from it."""
        try:
            cloud, uuid = self._clouds.parse(id, secrets)
        except errors.NotFound:
            return
        await snapshots.delete_all(cloud, uuid)

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """Return the snapshot. Raises NotFound."""
        cloud, uuid = self._clouds.parse(id, secrets)
        return self._snapshot(cloud, await snapshots.get(cloud, uuid))

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """List the snapshots with our mark in all clouds, by id."""
        found: dict[str, Snapshot] = {}
        for cloud in self._clouds.all():
            for record in await snapshots.listed(cloud):
                snapshot = self._snapshot(cloud, record)
                found[snapshot.id] = snapshot
        ids, next_token = _page(sorted(found), token, limit)
        return SnapshotPage([found[each] for each in ids], next_token)

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """Return what quota and, where we may see them, storage backends have left."""
        return await capacity.measure(self._clouds, parameters)

    async def attach(
        self, id: str, node: str, read_only: bool, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Mapping[str, str]:
        """Attach the volume to the server (or host, without Nova)."""
        cloud, uuid = self._clouds.parse(id, secrets)
        async with self._locks.hold(("volume", uuid)):
            return await (await self._way(cloud)).attach(uuid, node)

    async def detach(self, id: str, node: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Detach the volume; a volume or server that is gone is a success."""
        try:
            cloud, uuid = self._clouds.parse(id, secrets)
        except errors.NotFound:
            return
        async with self._locks.hold(("volume", uuid)):
            await (await self._way(cloud)).detach(uuid, node)

    async def attachments(self) -> Mapping[str, Sequence[str]]:
        """Return server ids by volume id, for all volumes of the clouds' projects.

        Clouds that came in a Secret are among them once they were used.
        """
        found: dict[str, list[str]] = {}
        for cloud in self._clouds.seen():
            for record in await self._attachable(cloud):
                if users := [each for each in records.servers_of(record) if each]:
                    found[self._clouds.id_of(cloud, record["id"])] = users
        return found

    async def node_state(self, node: str) -> NodeState:
        """Return what Nova says of the server, of whichever cloud has it."""
        states = []
        for cloud in self._clouds.seen():
            try:
                found = await self._state(cloud, node)
            except errors.BackendError as error:
                # Another cloud may have the server, and know.
                found = NodeState("unknown", str(error))
            if found.power != "unknown":
                return found
            states.append(found)
        if not states:
            return NodeState("unknown", "no OpenStack cloud is configured")
        return NodeState("unknown", "; ".join(each.detail for each in states))

    async def fence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        """Return when Nova says that the server is off or gone; nothing here turns it off.

        Raises errors.Conflict while it may still write.
        """
        state = await self.node_state(node)
        if state.power not in ("stopped", "gone"):
            raise errors.Conflict(
                f"not fenced: {state.detail}",
                f"node {node}",
                "stop the server (openstack server stop), or, when its compute host is dead, "
                "force the host down and evacuate it",
            )

    async def unfence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        """Do nothing: no server was kept from anything."""

    async def checks(self) -> Sequence[Finding]:
        """Test every cloud: login, catalogue, versions, quota, types and zones."""
        return await checks.run(self._clouds)

    async def check_class(
        self, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Sequence[Finding]:
        """Test what a class names: its cloud, type and zone."""
        return await checks.run_class(self._clouds, parameters, secrets)

    async def _delete(self, cloud: Cloud, record: Record) -> None:
        poller = self._poller(cloud)
        if records.is_owned(record, cloud.instance.owner):
            # Before the volume itself: without it, nobody would look for them again.
            for each in await making.of_name(cloud, record["name"]):
                if records.is_twin(each, record) and not each.get("attachments"):
                    await removal.remove(cloud, poller, each)
        if record["status"] in reservations.BEGUN:
            record = await (await self._way(cloud)).release(record["id"])
        await removal.remove(cloud, poller, record)

    async def _attachable(self, cloud: Cloud) -> list[Record]:
        try:
            return await records.listed(cloud, "/volumes/detail")
        except errors.BackendError:
            if cloud in self._clouds.all():
                raise
            # A Secret may have been replaced by another since.
            return []

    async def _state(self, cloud: Cloud, node: str) -> NodeState:
        if isinstance(await self._way(cloud), NovaAttaching):
            return await servers.state(cloud, node)
        return NodeState("unknown", f"{cloud.instance.where} has no Nova that could tell")

    async def _way(self, cloud: Cloud) -> NovaAttaching | CinderAttaching:
        # Asked every time, which costs no request: a corrected region may have a Nova.
        chosen = cloud.instance.attach or ("nova" if await has_nova(cloud) else "cinder")
        way = NovaAttaching if chosen == "nova" else CinderAttaching
        if not isinstance(self._ways.get(cloud), way):
            self._ways[cloud] = way(cloud, self._poller(cloud))
        return self._ways[cloud]

    def _poller(self, cloud: Cloud) -> Poller:
        if cloud not in self._pollers:
            self._pollers[cloud] = Poller(cloud)
        return self._pollers[cloud]

    async def _volume(self, cloud: Cloud, record: Record) -> Volume:
        read = await cloud.settings()
        id = self._clouds.id_of(cloud, record["id"])
        return records.volume_of(record, id, read.ignore_volume_az)

    def _snapshot(self, cloud: Cloud, record: Record) -> Snapshot:
        id = self._clouds.id_of(cloud, record["id"])
        return snapshots.snapshot_of(record, id, self._clouds.id_of(cloud, record["volume_id"]))


async def has_nova(cloud: Cloud) -> bool:
    """Return whether the cloud's catalogue has a compute service. Raises what asking raised."""
    return bool(await cloud.run(lambda endpoint: endpoint.address("compute")))


def _page(ids: list[str], token: str, limit: int) -> tuple[list[str], str]:
    rest = [each for each in ids if each > token] if token else ids
    if limit <= 0 or len(rest) <= limit:
        return rest, ""
    return rest[:limit], rest[limit - 1]
