"""Makes, finds, grows and removes GlusterFS volumes through a Heketi service.

A create first looks for the volume's name, so a lost answer costs a second look and never makes a
second volume. Clusters are tried one by one, in the order of the class or of their ids: Heketi
keeps names apart only inside of a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from holdfast.backends import errors
from holdfast.backends.gluster import checks, documents, identity, settings
from holdfast.backends.gluster.connections import Connections
from holdfast.backends.gluster.documents import GIB, KIB
from holdfast.backends.gluster.identity import Connection, VolumeId
from holdfast.backends.gluster.index import VolumeIndex, choose_gid
from holdfast.backends.gluster.rest import Credentials, Lost, Service
from holdfast.backends.gluster.settings import VolumeClass
from holdfast.backends.protocol import (
    NO_SECRETS,
    Capacity,
    Finding,
    Mode,
    Volume,
    VolumePage,
    VolumeRequest,
)
from holdfast.kit.locks import KeyedLocks

# Heketi's own volume for its database.
DATABASE = "heketidbstorage"


@dataclass(frozen=True, slots=True)
class Link:
    """A service and as whom it is asked."""

    connection: Connection
    service: Service
    who: Credentials

    async def volume(self, key: str) -> documents.Volume:
        """Read a volume as it is now."""
        return await self.service.get(f"/volumes/{key}", documents.Volume, self.who)


class GlusterBackend:
    """See the module's text and `protocol.Backend`."""

    # There only when a service can clone: what is not there is not offered to callers.
    clones: Literal[True]

    def __init__(self, instances: Mapping[str, Mapping[str, object]], directory: Path) -> None:
        self._instances = settings.instances(instances)
        if not instances or any(each.clones for each in self._instances.values()):
            self.clones = True
        self._connections = Connections(self._instances, directory)
        self._indexes: dict[str, VolumeIndex] = {}
        self._locks = KeyedLocks()

    async def close(self) -> None:
        """Close the connections."""
        self._indexes.clear()
        await self._connections.close()

    # Making

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Make the volume, or return it when it exists and fits the request."""
        wanted = settings.read(request.parameters, self._instances)
        _check_mode(request.mode)
        link = await self._link(wanted.connection, request.secrets, wanted.key)
        await self._connections.keep(wanted.connection, wanted.key)
        name = identity.volume_name(request.name, wanted.prefix, request.owner)
        async with self._locks.hold((link.service.url, name)):
            found = await self._named(link, name)
            if found is None:
                found = await self._make(link, name, wanted, request)
            elif request.source is None:
                _check_same(found, wanted, request.size)
            if request.source is not None and found.size < _gib(request.size):
                found = await self._grown(link, found, _gib(request.size))
            return _volume(link.connection, found)

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """Return what `create_volume` made for the request."""
        try:
            wanted = settings.read(request.parameters, self._instances)
        except errors.Invalid:
            return None
        link = await self._link(wanted.connection, request.secrets, wanted.key)
        name = identity.volume_name(request.name, wanted.prefix, request.owner)
        async with self._locks.hold((link.service.url, name)):
            found = await self._named(link, name)
            if found is None and await self._is_making(link):
                raise errors.Conflict(
                    "volumes are being made, and this one may be among them",
                    link.service.url,
                    "it is looked for again when they are done",
                )
            if found is None:
                self._index(link).promised.pop(name, None)
        return _volume(link.connection, found) if found is not None else None

    async def _is_making(self, link: Link) -> bool:
        """Whether a volume is under way: Heketi does not show those before they are done."""
        operations = await self._running(link)
        return any("create" in each.type_name.lower() for each in operations)

    async def _make(
        self, link: Link, name: str, wanted: VolumeClass, request: VolumeRequest
    ) -> documents.Volume:
        if request.source is not None:
            return await self._cloned(link, name, request)
        index = self._index(link)
        gid = index.promised.get(name, 0)
        if gid not in wanted.gids:
            gid = choose_gid(name, wanted.gids, index.gids())
        index.promised[name] = gid
        try:
            path = await self._placed(link, wanted, _body(name, gid, wanted, request.size))
        except Lost:
            # It may still come, with this group.
            raise
        except errors.BackendError:
            index.promised.pop(name, None)
            raise
        made = await self._named(link, name) if not path else await link.volume(_last(path))
        if made is None:
            raise Lost("the volume that was made is not there", link.service.url)
        return made

    async def _placed(self, link: Link, wanted: VolumeClass, body: dict[str, object]) -> str:
        """Have it made in the first cluster that has room."""
        clusters = wanted.clusters
        if not clusters:
            listed = await link.service.get("/clusters", documents.ClusterList, link.who)
            clusters = tuple(sorted(listed.clusters or ()))
        refusals: list[tuple[str, errors.BackendError]] = []
        for cluster in clusters:
            asked = {**body, "clusters": [cluster]}
            try:
                return await link.service.work("POST", "/volumes", asked, link.who)
            except (errors.Exhausted, errors.Unsupported) as error:
                refusals.append((cluster, error))
            except errors.AlreadyExists as error:
                raise errors.Conflict(
                    f'a volume "{body["name"]}" is being made or removed',
                    link.service.url,
                    "it is looked for again",
                ) from error
        raise _nowhere(link, refusals)

    async def _cloned(self, link: Link, name: str, request: VolumeRequest) -> documents.Volume:
        assert request.source is not None
        if request.source.kind != "volume":
            raise errors.Unsupported("Heketi has no snapshots; claims can be cloned", "dataSource")
        if not self._connections.can_clone(link.connection):
            raise errors.Unsupported(
                "volumes of this service are not cloned: its section says clones = false",
                link.service.url,
                "clones need bricks on LVM",
            )
        origin = VolumeId.parse(request.source.id)
        there, found = await self._located(origin, request.secrets)
        if there.service.url != link.service.url:
            raise errors.Invalid("a clone is made by the service of its origin", str(origin))
        if _gib(request.size) < found.size:
            raise errors.Invalid(f"a clone has at least {found.size} GiB", str(origin))
        try:
            path = await link.service.work(
                "POST", f"/volumes/{found.id}/clone", {"name": name}, link.who
            )
        except errors.AlreadyExists as error:
            raise errors.Conflict("the clone is being made", link.service.url) from error
        return await link.volume(_last(path))

    # Removing

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the volume and its data; one that is gone is a success."""
        try:
            link, found = await self._located(VolumeId.parse(id), secrets)
        except errors.NotFound:
            return
        async with self._locks.hold((link.service.url, found.name)):
            try:
                await link.service.work("DELETE", f"/volumes/{found.id}", None, link.who)
            except errors.NotFound:
                return
            except Lost:
                await self._check_gone(link, found.id)

    async def _check_gone(self, link: Link, key: str) -> None:
        try:
            await link.volume(key)
        except errors.NotFound:
            return
        raise Lost("the volume may still be being removed", link.service.url, "it is tried again")

    # Looking

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """Return the volume. Raises NotFound."""
        link, found = await self._located(VolumeId.parse(id), secrets)
        return _volume(link.connection, found)

    async def check_use(self, volume: Volume, wanted: VolumeRequest) -> None:
        """Raise Invalid for raw blocks; every access mode is fine."""
        _check_mode(wanted.mode)

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List the volumes of the configured services, and of those that classes have named."""
        found: list[Volume] = []
        for connection in await self._connections.known():
            try:
                link = await self._link(connection, NO_SECRETS)
                index = self._index(link)
                await index.refresh(link.who)
            except errors.BackendError:
                # A class may have named it with a secret, or it may not exist any more.
                if connection.instance:
                    raise
                continue
            usual = [each for each in index.all() if not each.block and each.name != DATABASE]
            found += [_volume(connection, each) for each in usual]
        page = sorted((each for each in found if each.id > token), key=lambda each: each.id)
        if limit and len(page) > limit:
            return VolumePage(page[:limit], page[limit - 1].id)
        return VolumePage(page)

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """Return the room for volumes of a class; one volume of that size may not fit."""
        wanted = settings.read(parameters, self._instances)
        link = await self._link(wanted.connection, NO_SECRETS, wanted.key)
        clusters = await checks.read_clusters(link.service, link.who, wanted.clusters)
        devices = [d for c in clusters for d in c.usable_devices()]
        total = sum(device.storage.total for device in devices) * KIB
        free = sum(device.storage.free for device in devices) * KIB
        share = wanted.share / wanted.factor
        return Capacity(int(total * share), int(free * share))

    # Growing

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """Grow the volume to at least `size`."""
        link, found = await self._located(VolumeId.parse(id), secrets)
        async with self._locks.hold((link.service.url, found.name)):
            found = await link.volume(found.id)
            if found.size < _gib(size):
                found = await self._grown(link, found, _gib(size))
        return _volume(link.connection, found)

    async def _grown(self, link: Link, found: documents.Volume, size: int) -> documents.Volume:
        """Add what is missing. It is an amount, so nothing may be under way for the volume."""
        for operation in await self._running(link):
            if any(change.id == found.id for change in operation.changes or ()):
                raise errors.Conflict(
                    f"{operation.type_name} of this volume is under way", link.service.url
                )
        body = {"expand_size": size - found.size}
        await link.service.work("POST", f"/volumes/{found.id}/expand", body, link.who)
        return await link.volume(found.id)

    async def _running(self, link: Link) -> list[documents.Operation]:
        """Return the operations under way, with what they change."""
        listed = await link.service.get("/operations/pending", documents.OperationList, link.who)
        found = []
        for each in listed.pendingoperations or ():
            if each.sub_status != "in-flight":
                continue
            try:
                path = f"/operations/pending/{each.id}"
                found.append(await link.service.get(path, documents.Operation, link.who))
            except errors.NotFound:
                continue
        return found

    # Checks

    async def checks(self) -> Sequence[Finding]:
        """Test the configured services, and the clusters behind them."""
        found: list[Finding] = []
        for connection in self._connections.configured():
            where = f"[gluster.{connection.instance}]"
            try:
                link = await self._link(connection, NO_SECRETS)
            except errors.BackendError as error:
                found.append(Finding("service", "error", error.what, error.where, error.remedy))
                continue
            found += await checks.of_service(link.service, link.who, where)
        return found

    async def check_class(
        self, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Sequence[Finding]:
        """Test what the class's parameters and key lead to."""
        wanted = settings.read(parameters, self._instances)
        link = await self._link(wanted.connection, secrets, wanted.key)
        return await checks.of_service(
            link.service, link.who, "", wanted.clusters, exposed=bool(wanted.key)
        )

    # Reaching

    async def _link(
        self, connection: Connection, secrets: Mapping[str, str], key: str = ""
    ) -> Link:
        service = self._connections.service(connection)
        return Link(
            connection, service, await self._connections.credentials(connection, secrets, key)
        )

    def _index(self, link: Link) -> VolumeIndex:
        return self._indexes.setdefault(link.service.url, VolumeIndex(link.service))

    async def _named(self, link: Link, name: str) -> documents.Volume | None:
        index = self._index(link)
        await index.refresh(link.who)
        key = index.named(name)
        try:
            return await link.volume(key) if key is not None else None
        except errors.NotFound:
            return None

    async def _located(
        self, id: VolumeId, secrets: Mapping[str, str]
    ) -> tuple[Link, documents.Volume]:
        """Read the volume at its service; one that only has Heketi's id is looked for."""
        if id.connection is not None:
            link = await self._link(id.connection, secrets)
            return link, await link.volume(id.heketi_id)
        candidates = await self._connections.known()
        if not candidates:
            raise errors.Invalid(
                "the volume does not say which Heketi service made it",
                id.heketi_id,
                "name the service in holdfast.toml: [gluster.NAME] resturl, user, key_file",
            )
        for connection in candidates:
            link = await self._link(connection, secrets)
            try:
                return link, await link.volume(id.heketi_id)
            except errors.NotFound:
                continue
        raise errors.NotFound("no service here has such a volume", id.heketi_id)


def _gib(size: int) -> int:
    return max(1, math.ceil(size / GIB))


def _last(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _body(name: str, gid: int, wanted: VolumeClass, size: int) -> dict[str, object]:
    return {
        "size": _gib(size),
        "name": name,
        "durability": dict(wanted.durability),
        "gid": gid,
        "glustervolumeoptions": list(wanted.options),
        "snapshot": {"enable": True, "factor": wanted.factor},
    }


def _check_same(found: documents.Volume, wanted: VolumeClass, size: int) -> None:
    """Raise AlreadyExists when the volume with the request's name differs from it."""
    has = found.durability
    described: dict[str, object] = {"type": has.type}
    if has.type == "replicate":
        described["replicate"] = {"replica": has.replicate.replica}
    if has.type == "disperse":
        amounts = {"data": has.disperse.data, "redundancy": has.disperse.redundancy}
        described["disperse"] = amounts
    if found.size >= _gib(size) and described == wanted.durability:
        return
    raise errors.AlreadyExists(
        f"is there with {found.size} GiB and {described}, "
        f"not with {_gib(size)} GiB and {dict(wanted.durability)}",
        f"volume {found.name}",
        "delete it, or use another name",
    )


def _nowhere(
    link: Link, refusals: Sequence[tuple[str, errors.BackendError]]
) -> errors.BackendError:
    if not refusals:
        return errors.Unavailable(
            "the Heketi service has no cluster", link.service.url, "heketi-cli topology load"
        )
    if len(refusals) == 1:
        return refusals[0][1]
    what = "; ".join(f"cluster {key}: {error.what}" for key, error in refusals)
    return errors.Exhausted(f"no cluster takes it: {what}", link.service.url, "add devices")


def _volume(connection: Connection, found: documents.Volume) -> Volume:
    context = {"volume": found.name, "hosts": ",".join(found.mount.glusterfs.hosts)}
    if found.gid:
        context["gid"] = str(found.gid)
    return Volume(
        id=str(VolumeId(connection, found.name, found.id)),
        size=found.size * GIB,
        context=context,
    )


def _check_mode(mode: Mode) -> None:
    if mode == "Block":
        raise errors.Invalid(
            "GlusterFS volumes are file systems, not devices", "volumeMode", "use Filesystem"
        )
