"""The asynchronous face of Ceph volumes: one backend for every cluster.

Calls for one volume are done one after the other, calls for different volumes in
parallel in a pool of threads, because the bindings block (and let go of Python's
lock while they do). Nothing is connected before the first call needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeVar

from holdfast.backends import access as uses
from holdfast.backends import errors
from holdfast.backends.protocol import (
    NO_PARAMETERS,
    NO_SECRETS,
    Capacity,
    Finding,
    Snapshot,
    SnapshotPage,
    Volume,
    VolumeHandle,
    VolumePage,
    VolumeRequest,
)
from holdfast.backends.rbd import (
    capacity,
    checks,
    classchecks,
    creation,
    csijournal,
    failures,
    fencing,
    ids,
    nodeids,
    removal,
    snapshots,
    usage,
)
from holdfast.backends.rbd import parameters as classes
from holdfast.backends.rbd.clusters import Clusters, Place
from holdfast.backends.rbd.connections import PoolMissing
from holdfast.backends.rbd.ids import CsiId, ImageId
from holdfast.backends.rbd.parameters import RbdParameters
from holdfast.backends.rbd.shelf import CREATING, READY, Shelf
from holdfast.kit.locks import KeyedLocks

THREADS = 16
# Removing a large image takes minutes: nobody else's call waits for that.
REMOVERS = 8

T = TypeVar("T")
Record = TypeVar("Record", Volume, Snapshot)


class RbdBackend:
    """Images of Ceph clusters. `instances` are the sections `[rbd.NAME]`."""

    clones: Literal[True] = True

    def __init__(self, instances: Mapping[str, Mapping[str, object]], directory: Path) -> None:
        self._clusters = Clusters(instances, directory)
        self._locks = KeyedLocks()
        # Pools whose trash is being emptied; True when somebody asked meanwhile.
        self._sweeping: dict[tuple[str, str, str], bool] = {}
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="rbd")
        self._removers = ThreadPoolExecutor(REMOVERS, thread_name_prefix="rbd-remove")

    async def close(self) -> None:
        """Wait for running calls, then give up the connections and threads."""
        for pool in (self._pool, self._removers):
            await asyncio.to_thread(pool.shutdown)
        await asyncio.to_thread(self._clusters.close)

    async def create_volume(self, request: VolumeRequest) -> Volume:
        """Make the image, or return the one an equal request made."""
        chosen = classes.read(request.parameters)
        uses.check_writers(request.access, request.mode)
        uses.check_readers(request.access, request.mode, blank=request.source is None)
        place = await self._run(lambda: self._clusters.of_class(chosen, request.secrets))
        image = place.image(creation.image_name(chosen, request))

        def work() -> Volume:
            with self._clusters.connections.using(place.access) as connection:
                self._clusters.remember(place)
                shelf = Shelf(connection, place.cluster, place.pool, place.namespace)
                size = creation.create(shelf, place.data_pool, chosen, request)
            return Volume(str(image), size, _context(place, chosen, request), None, True)

        async with self._locks.hold(str(image)):
            return await self._run(work)

    async def find_volume(self, request: VolumeRequest) -> Volume | None:
        """Return what was made or begun for the request; `incomplete` where not finished."""
        try:
            chosen = classes.read(request.parameters)
            name = creation.image_name(chosen, request)
            place = await self._run(lambda: self._clusters.of_class(chosen, request.secrets))
        except errors.Invalid:
            return None

        def work() -> Volume | None:
            with self._clusters.connections.using(place.access) as connection:
                try:
                    shelf = Shelf(connection, place.cluster, place.pool, place.namespace)
                except PoolMissing:
                    return None
                found = creation.find(shelf, name)
            if found is None:
                return None
            size, complete = found
            context = _context(place, chosen, request) if complete else {"state": "incomplete"}
            return Volume(str(place.image(name)), size, context, None, complete)

        return await self._run(work)

    async def delete_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the volume. Raises Conflict naming the client and node that use it."""
        parsed = ids.parse(id)
        if parsed is None:
            return
        if isinstance(parsed, ImageId) and parsed.snapshot:
            raise errors.Invalid(
                "it is a snapshot, and not removed as a volume: its image holds more than that",
                parsed.spec,
                f"remove it with `rbd snap rm {parsed.spec}`, and then the PersistentVolume's "
                "finalizer; the policy Retain leaves it alone",
            )

        def work(image: ImageId) -> None:
            with self._shelf(image, secrets) as shelf:
                removal.delete(shelf, image.image)
                if isinstance(parsed, CsiId):
                    csijournal.remove(shelf.connection, parsed, image.namespace)

        image = await self._run(lambda: self._clusters.resolve(parsed, secrets))
        async with self._locks.hold(str(image)):
            await self._remove(lambda: work(image))
        await self._sweep(image, secrets)

    async def get_volume(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Volume:
        """Return the volume. Raises NotFound, also while it is being made."""
        image = await self._resolved(id, secrets)

        def work() -> Volume:
            with self._shelf(image, secrets) as shelf:
                record = shelf.volumes.get(image.image)
                if record is not None and record.get("state") != READY:
                    raise errors.NotFound("the volume is not complete", image.spec)
                with shelf.opened(image.image) as handle:
                    return Volume(id, int(handle.size()), {}, None, True)

        return await self._run(work)

    async def check_use(self, volume: Volume, wanted: VolumeRequest) -> None:
        """Raise Invalid where two nodes would write to a file system."""
        uses.check_writers(wanted.access, wanted.mode)

    async def list_volumes(self, token: str = "", limit: int = 0) -> VolumePage:
        """List what Holdfast made in every pool it can reach, by id."""

        def work() -> list[Volume]:
            return [volume for shelf in self._shelves() for volume in _listed(shelf)]

        found, next_token = _page(await self._run(work), token, limit)
        return VolumePage(found, next_token)

    async def expand(
        self, id: str, size: int, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Volume:
        """Grow the image; the node's device and file system follow."""
        image = await self._resolved(id, secrets)
        wanted = creation.rounded(size)
        if image.snapshot:
            raise errors.Invalid("a snapshot cannot grow", image.spec, "restore it to a new volume")

        def work() -> Volume:
            with (
                self._shelf(image, secrets) as shelf,
                shelf.opened(image.image, writable=True) as handle,
                failures.translated("grow the image", image.spec),
            ):
                if int(handle.size()) < wanted:
                    # Another replica may have made it larger meanwhile.
                    handle.resize(wanted, allow_shrink=False)
                return Volume(id, int(handle.size()), {}, None, True)

        async with self._locks.hold(str(image)):
            return await self._run(work)

    async def create_snapshot(
        self,
        name: str,
        volume_id: str,
        *,
        parameters: Mapping[str, str] = NO_PARAMETERS,
        secrets: Mapping[str, str] = NO_SECRETS,
    ) -> Snapshot:
        """Take a snapshot; the image may be in use."""
        image = await self._resolved(volume_id, secrets)
        if image.snapshot:
            raise errors.Invalid("a snapshot of a snapshot", image.spec, "restore it first")
        snapshot = parameters.get("snapshotNamePrefix", "") + name
        ids.check_name(snapshot, "snapshot")

        def work() -> Snapshot:
            with self._shelf(image, secrets) as shelf:
                return snapshots.create(shelf, image.image, snapshot)

        async with self._locks.hold(str(image)):
            return await self._run(work)

    async def delete_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Remove the snapshot; volumes restored from it are independent of it."""
        image = ids.parse(id)
        if not isinstance(image, ImageId) or not image.snapshot:
            return

        def work() -> None:
            with self._shelf(image, secrets) as shelf:
                snapshots.delete(shelf, image.image, image.snapshot)

        async with self._locks.hold(str(image).partition("@")[0]):
            await self._remove(work)
        await self._sweep(image, secrets)

    async def get_snapshot(self, id: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> Snapshot:
        """Return the snapshot. Raises NotFound."""
        image = ids.parse(id)
        if not isinstance(image, ImageId) or not image.snapshot:
            raise errors.NotFound(f'"{id}" is no snapshot of a Ceph volume')

        def work() -> Snapshot:
            with self._shelf(image, secrets) as shelf:
                return snapshots.get(shelf, image.image, image.snapshot)

        return await self._run(work)

    async def list_snapshots(self, token: str = "", limit: int = 0) -> SnapshotPage:
        """List complete snapshots in every pool that can be reached, by id."""

        def work() -> list[Snapshot]:
            return [found for shelf in self._shelves() for found in snapshots.list_all(shelf)]

        found, next_token = _page(await self._run(work), token, limit)
        return SnapshotPage(found, next_token)

    async def capacity(self, parameters: Mapping[str, str]) -> Capacity:
        """Return the pool's room as Ceph reports it, replication taken into account."""
        chosen = classes.read(parameters)

        def work() -> Capacity:
            place = self._clusters.of_class(chosen, NO_SECRETS)
            with self._clusters.connections.using(place.access) as connection:
                return capacity.measure(connection, place.data_pool or place.pool)

        return await self._run(work)

    async def checks(self) -> Sequence[Finding]:
        """Test bindings, configured clusters, keys, pools and rights."""
        return await self._run(lambda: list(checks.run(self._clusters)))

    async def check_class(
        self, parameters: Mapping[str, str], secrets: Mapping[str, str]
    ) -> Sequence[Finding]:
        """Test a class's parameters and Secret, and what they lead to."""
        return await self._run(lambda: list(classchecks.run(self._clusters, parameters, secrets)))

    async def attach(
        self, id: str, node: str, read_only: bool, *, secrets: Mapping[str, str] = NO_SECRETS
    ) -> Mapping[str, str]:
        """Look whether another node has the image open; the node itself maps it.

        Without a key this is left to the node, which looks again in any case.
        """
        parsed = ids.parse(id)
        if parsed is None:
            raise errors.NotFound(f'"{id}" is no Ceph volume')

        def work() -> None:
            image = self._clusters.resolve(parsed, secrets)
            with self._shelf(image, secrets) as shelf:
                users = usage.users(shelf, image.image)
                others = [each for each in users if each.node != nodeids.name_of(node)]
                fencing.refuse_fenced(shelf, nodeids.name_of(node))
            noted = [each for each in others if each.node]
            if noted and not read_only:
                raise errors.Conflict(
                    f"the image is in use by {', '.join(map(str, noted))}",
                    image.spec,
                    "it can be attached here when it is free there",
                )

        try:
            await self._run(work)
        except errors.Unauthorized:
            if secrets:
                raise
        return {}

    async def detach(self, id: str, node: str, *, secrets: Mapping[str, str] = NO_SECRETS) -> None:
        """Do nothing: the node unmaps the image, and a lost node is fenced."""

    async def attachments(self) -> Mapping[str, Sequence[str]]:
        """Return the nodes that have images open, by volume id, as the cluster sees it."""

        def work() -> dict[str, list[str]]:
            return {
                str(shelf.id(image)): sorted({nodeids.of(user.node) for user in users if user.node})
                for shelf in self._shelves()
                for image, users in usage.held(shelf).items()
            }

        return await self._run(work)

    async def fence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        """Refuse the node's clients in every pool that is or was in use."""

        def work() -> None:
            name, fenced = nodeids.name_of(node), 0
            for shelf in self._pools_of(volumes):
                fencing.fence(shelf, name)
                fenced += 1
            if not fenced:
                raise errors.Unavailable(
                    "it is not known which pools it may be writing to",
                    f"node {name}",
                    "make sure that it is off, then taint it node.kubernetes.io/out-of-service",
                )

        await self._run(work)

    async def unfence(self, node: str, volumes: Sequence[VolumeHandle] = ()) -> None:
        """Let the node use images again."""

        def work() -> None:
            for shelf in self._pools_of(volumes, strict=False):
                fencing.unfence(shelf, nodeids.name_of(node))

        await self._run(work)

    async def _resolved(self, id: str, secrets: Mapping[str, str]) -> ImageId:
        parsed = ids.parse(id)
        if parsed is None:
            raise errors.NotFound(f'"{id}" is no Ceph volume')
        return await self._run(lambda: self._clusters.resolve(parsed, secrets))

    async def _sweep(self, image: ImageId, secrets: Mapping[str, str]) -> None:
        """Sweep the pools of the image's cluster: an origin may lie in another than its clone."""
        places = {(image.pool, image.namespace)}
        places |= {place[1:] for place in self._clusters.places() if place[0] == image.cluster}
        for pool, namespace in sorted(places):
            await self._sweep_pool(replace(image, pool=pool, namespace=namespace), secrets)

    async def _sweep_pool(self, image: ImageId, secrets: Mapping[str, str]) -> None:
        """Remove what waited in the pool's trash for what is gone now, one after the other."""
        pool = (image.cluster, image.pool, image.namespace)
        if pool in self._sweeping:
            self._sweeping[pool] = True
            return
        self._sweeping[pool] = True
        try:
            while self._sweeping[pool]:
                self._sweeping[pool] = await self._sweep_once(image, secrets)
        except errors.BackendError:
            # The volume itself is gone; what is left is tried again at the next removal.
            return
        finally:
            del self._sweeping[pool]

    async def _sweep_once(self, image: ImageId, secrets: Mapping[str, str]) -> bool:
        def look() -> list[str]:
            with self._shelf(image, secrets) as shelf:
                return removal.waiting(shelf)

        def work(name: str) -> bool:
            with self._shelf(image, secrets) as shelf:
                return removal.resume(shelf, name)

        self._sweeping[image.cluster, image.pool, image.namespace] = False
        progress = False
        for name in await self._run(look):
            async with self._locks.hold(str(replace(image, image=name, snapshot=""))):
                progress |= await self._remove(functools.partial(work, name))
        return progress or self._sweeping[image.cluster, image.pool, image.namespace]

    def _pools_of(self, volumes: Sequence[VolumeHandle], *, strict: bool = True) -> Iterator[Shelf]:
        """Yield each pool of these volumes, and each that is or was in use besides, once.

        With `strict` a volume that is not found is an error.
        """
        done: set[tuple[str, str, str]] = set()
        for volume in volumes:
            try:
                parsed = ids.parse_handle(volume.id, volume.context)
                if parsed is None:
                    raise errors.NotFound(f'"{volume.id}" is no Ceph volume')
                image = self._clusters.resolve(parsed, volume.secrets)
            except errors.NotFound:
                if strict:
                    raise
                continue
            place = (image.cluster, image.pool, image.namespace)
            if place not in done:
                done.add(place)
                with self._shelf(image, volume.secrets) as shelf:
                    yield shelf
        # Kubernetes knows what a node uses: with that cut off, a cluster that cannot be asked
        # any more stops nobody. What was cut off there has to be let back, though.
        enough = strict and bool(done)
        yield from self._shelves(every=not enough, besides=done, lenient=enough)

    @contextlib.contextmanager
    def _shelf(self, image: ImageId, secrets: Mapping[str, str]) -> Iterator[Shelf]:
        with self._clusters.connected(image.cluster, secrets) as connection:
            yield Shelf(connection, image.cluster, image.pool, image.namespace)

    def _shelves(
        self,
        *,
        every: bool = False,
        besides: Collection[tuple[str, str, str]] = (),
        lenient: bool = False,
    ) -> Iterator[Shelf]:
        """Yield the pools in use that can be reached, and raise then for those that cannot.

        Those without a key count as such only with `every`, silent clusters not if `lenient`.
        """
        failed: errors.BackendError | None = None
        for cluster, pool, namespace in self._clusters.places():
            if (cluster, pool, namespace) in besides:
                continue
            try:
                with self._clusters.connected(cluster, NO_SECRETS) as connection:
                    yield Shelf(connection, cluster, pool, namespace)
            except (errors.Unauthorized, errors.Invalid) as error:
                failed = failed or (error if every else None)
            except errors.Unavailable as error:
                failed = failed or (error if not lenient else None)
        if failed is not None:
            raise failed

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _remove(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._removers, work)


def _context(place: Place, chosen: RbdParameters, request: VolumeRequest) -> dict[str, str]:
    """Return what a node needs besides its key."""
    context = {
        "monitors": ",".join(place.access.monitors),
        "pool": place.pool,
        "image": creation.image_name(chosen, request),
        "user": chosen.node_user or place.access.user,
        "fsType": chosen.fs_type,
        "mounter": chosen.mapper,
    }
    if place.namespace:
        context["radosNamespace"] = place.namespace
    if chosen.map_options:
        context["mapOptions"] = chosen.map_options
    if chosen.unmap_options:
        context["unmapOptions"] = chosen.unmap_options
    if not chosen.other_mappers:
        context["tryOtherMounters"] = "false"
    if not chosen.downgrade:
        context["downgradeFeatures"] = "false"
    if "ReadWriteMany" in request.access:
        context["shared"] = "true"
    return context


def _listed(shelf: Shelf) -> Iterator[Volume]:
    there = set(shelf.image_names())
    for image, record in shelf.volumes.items():
        state, size = record.get("state"), int(record.get("size") or 0)
        id = str(record.get("id") or shelf.id(image))
        if state == CREATING:
            yield Volume(id, 0, {"state": "incomplete"})
        elif state == READY and image in there:
            yield Volume(id, size, {"pool": shelf.pool, "image": image}, None, True)


def _page(found: list[Record], token: str, limit: int) -> tuple[list[Record], str]:
    rest = sorted((each for each in found if each.id > token), key=lambda each: each.id)
    if limit <= 0 or len(rest) <= limit:
        return rest, ""
    return rest[:limit], rest[limit - 1].id
