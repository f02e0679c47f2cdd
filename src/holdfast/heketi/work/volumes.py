"""Making, deleting and growing volumes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from holdfast.heketi import entries, errors, placement
from holdfast.heketi.entries import Brick, Change, Cluster, Device, Operation, Volume
from holdfast.heketi.executors.protocol import VolumeFacts
from holdfast.heketi.placement import Placed, Sets
from holdfast.heketi.state import Transaction
from holdfast.heketi.work import specs
from holdfast.heketi.work.engine import Engine

ADD_BRICK, ADD_VOLUME = "Add brick", "Add volume"
DELETE_BRICK, DELETE_VOLUME = "Delete brick", "Delete volume"
EXPAND_VOLUME = "Expand volume"


def ids(operation: Operation, what: str) -> list[str]:
    """The ids of an operation's changes of one kind."""
    return [change.id for change in operation.changes if change.what == what]


class Bricks:
    """What operations on volumes have in common: making and destroying their bricks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.state

    def place(
        self, cluster: Cluster, volume: Volume, size: int, seed: str, avoid: Sequence[str] = ()
    ) -> Sets:
        """Where the bricks of a volume of, or growing by, a size go. Raises `NoSpace`."""
        present = self._state.count_below(volume, Brick)
        down = {*self._engine.down, *avoid}
        found = specs.candidates(self._state, cluster, volume, down)
        settings = self._engine.settings
        return placement.plan(found, specs.request_for(settings, volume, size, seed, present))

    def record(
        self, transaction: Transaction, operation: Operation, volume: Volume, sets: Sets
    ) -> list[Brick]:
        """Put the bricks of a placement, pending."""
        first = len(self._state.bricks_of(volume))
        flat = [placed for each in sets for placed in each]
        made = [
            _brick(placed, volume, operation, first + index) for index, placed in enumerate(flat)
        ]
        transaction.put(*made)
        return made

    def bricks(self, operation: Operation, what: str) -> list[Brick]:
        """An operation's bricks in the order of the volume."""
        found = [self._state.find(Brick, key) for key in ids(operation, what)]
        return sorted((each for each in found if each), key=lambda brick: brick.position)

    async def make(self, volume: Volume, bricks: Sequence[Brick]) -> None:
        """Make them on their nodes."""
        executor = self._engine.executor
        await self._engine.each(
            executor.make_brick(
                self._engine.node_of(brick).manage,
                specs.brick_spec(self._state, brick, volume.gid),
            )
            for brick in bricks
        )

    async def destroy(self, volume: Volume, bricks: Sequence[Brick]) -> None:
        """Destroy them on their nodes."""
        executor = self._engine.executor
        await self._engine.each(
            executor.destroy_brick(
                self._engine.node_of(brick).manage,
                specs.brick_spec(self._state, brick, volume.gid),
            )
            for brick in bricks
        )

    def remove(self, transaction: Transaction, gone: Sequence[Brick]) -> None:
        """Remove bricks that were destroyed. A pool that clones still lie in keeps its room."""
        transaction.remove(*gone)
        for brick in gone:
            if not brick.space:
                continue
            device = self._state.find(Device, brick.device)
            beside = [] if device is None else self._state.below(device, Brick)
            heir = next((each for each in beside if each.pool_name == brick.pool_name), None)
            if heir is not None:
                size, metadata = brick.pool_size, brick.pool_metadata
                transaction.put(replace(heir, pool_size=size, pool_metadata=metadata))

    async def describe(self, volume: Volume) -> VolumeFacts | None:
        """The volume as GlusterFS has it."""
        executor = self._engine.executor
        return await self._engine.on_any(
            volume.cluster, lambda host: executor.describe_volume(host, volume.name)
        )

    def addresses(self, bricks: Sequence[Brick]) -> set[str]:
        """As GlusterFS names them."""
        return {specs.address(self._state, brick) for brick in bricks}


def _brick(placed: Placed, volume: Volume, operation: Operation, position: int) -> Brick:
    key = entries.new_id()
    size = placed.footprint
    return Brick(
        id=key,
        device=placed.device.id,
        volume=volume.id,
        size=size.size,
        pool_size=size.pool,
        pool_metadata=size.metadata,
        position=position,
        path=f"/var/lib/heketi/mounts/vg_{placed.device.id}/brick_{key}/brick",
        kind=placed.kind,
        pending=operation.id,
    )


class CreateVolume:
    """create-volume."""

    def __init__(self, engine: Engine, bricks: Bricks) -> None:
        self._engine = engine
        self._state = engine.state
        self._bricks = bricks

    def build(
        self,
        transaction: Transaction,
        operation: Operation,
        cluster: Cluster,
        volume: Volume,
    ) -> Operation:
        """Place it; the operation with its changes."""
        avoid = operation.request.get("avoid", [])
        sets = self._bricks.place(cluster, volume, volume.size, volume.id, avoid)
        volume = replace(volume, cluster=cluster.id, pending=operation.id)
        transaction.put(volume)
        made = self._bricks.record(transaction, operation, volume, sets)
        changes = [Change(ADD_VOLUME, volume.id), *(Change(ADD_BRICK, each.id) for each in made)]
        return replace(operation, changes=changes)

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        volume = self._volume(operation)
        bricks = self._bricks.bricks(operation, ADD_BRICK)
        there = await self._bricks.describe(volume)
        if there is not None:
            self._check_ours(volume, bricks, there)
        elif operation.status == "stale" and self._engine.executor.real:
            # A directory that was nearly part of a volume is marked and refused from then on.
            await self._bricks.destroy(volume, bricks)
        if there is None:
            await self._bricks.make(volume, bricks)
        spec = specs.volume_spec(self._state, volume, bricks)
        executor = self._engine.executor
        await self._engine.on_any(volume.cluster, lambda host: executor.create_volume(host, spec))

    def _volume(self, operation: Operation) -> Volume:
        return self._state.get(Volume, ids(operation, ADD_VOLUME)[0])

    def _check_ours(self, volume: Volume, bricks: Sequence[Brick], there: VolumeFacts) -> None:
        if set(there.bricks) != self._bricks.addresses(bricks):
            raise errors.Refused(
                f"GlusterFS already has a volume {volume.name} with other bricks "
                f"({', '.join(there.bricks[:3])}); choose another name"
            )

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        volume = self._volume(operation)
        transaction.put(replace(volume, pending=""))
        for brick in self._bricks.bricks(operation, ADD_BRICK):
            transaction.put(replace(brick, pending=""))
        return f"/volumes/{volume.id}"

    async def undo(self, operation: Operation) -> bool:
        """See `Work`."""
        volume = self._volume(operation)
        bricks = self._bricks.bricks(operation, ADD_BRICK)
        there = await self._bricks.describe(volume)
        executor = self._engine.executor
        if there is not None and set(there.bricks) == self._bricks.addresses(bricks):
            await self._engine.on_any(
                volume.cluster, lambda host: executor.delete_volume(host, volume.name)
            )
        await self._bricks.destroy(volume, bricks)
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""
        transaction.remove(*self._bricks.bricks(operation, ADD_BRICK), self._volume(operation))

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """See `Work`: the same volume, placed anew."""
        request = operation.request
        volume = wanted(request)
        cluster = self._state.find(Cluster, volume.cluster)
        if cluster is None:
            return None
        fresh = replace(operation, status="", changes=[])
        return self.build(transaction, fresh, cluster, volume)


def wanted(request: dict[str, object]) -> Volume:
    """The volume that a create-volume operation was asked for."""
    return msgspec.convert(request["volume"], Volume)


class DeleteVolume:
    """delete-volume."""

    def __init__(self, engine: Engine, bricks: Bricks) -> None:
        self._engine = engine
        self._state = engine.state
        self._bricks = bricks

    def build(self, transaction: Transaction, operation: Operation, volume: Volume) -> Operation:
        """Say that it goes; it stays visible until it is gone."""
        bricks = self._state.bricks_of(volume)
        changes = [Change(DELETE_VOLUME, volume.id)]
        changes += [Change(DELETE_BRICK, brick.id) for brick in bricks]
        return replace(operation, changes=changes)

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        volume = self._volume(operation)
        bricks = self._bricks.bricks(operation, DELETE_BRICK)
        await self._check_ours(volume, bricks)
        executor = self._engine.executor
        await self._engine.on_any(
            volume.cluster, lambda host: executor.delete_volume(host, volume.name)
        )
        await self._bricks.destroy(volume, bricks)

    async def _check_ours(self, volume: Volume, bricks: Sequence[Brick]) -> None:
        """An old database may name a volume that was made anew since, with other bricks."""
        there = await self._bricks.describe(volume)
        if there is None or not bricks:
            return
        paths = {brick.path for brick in bricks}
        if not any(each.partition(":")[2] in paths for each in there.bricks):
            raise errors.Refused(
                f"GlusterFS has a volume {volume.name} with none of the bricks that are known "
                f"here (its first is {there.bricks[0] if there.bricks else 'not there'}), so it "
                "is another one and nothing was removed; see `server state examine gluster`"
            )

    def _volume(self, operation: Operation) -> Volume:
        return self._state.get(Volume, ids(operation, DELETE_VOLUME)[0])

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        self._bricks.remove(transaction, self._bricks.bricks(operation, DELETE_BRICK))
        transaction.remove(self._volume(operation))
        return ""

    async def undo(self, operation: Operation) -> bool:
        """See `Work`: what is left stays, and deleting it again goes on from there."""
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """See `Work`."""
        return None


class ExpandVolume:
    """expand-volume: more sets of bricks, and the data spread over them."""

    def __init__(self, engine: Engine, bricks: Bricks) -> None:
        self._engine = engine
        self._state = engine.state
        self._bricks = bricks

    def build(
        self, transaction: Transaction, operation: Operation, volume: Volume, size: int
    ) -> Operation:
        """Place `size` GiB more."""
        cluster = self._state.get(Cluster, volume.cluster)
        sets = self._bricks.place(cluster, volume, size, operation.id)
        made = self._bricks.record(transaction, operation, volume, sets)
        changes = [Change(EXPAND_VOLUME, volume.id, size)]
        changes += [Change(ADD_BRICK, brick.id) for brick in made]
        return replace(operation, changes=changes)

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        volume = self._volume(operation)
        bricks = self._bricks.bricks(operation, ADD_BRICK)
        if operation.status == "stale" and not await self._joined(volume, bricks):
            await self._bricks.destroy(volume, bricks)
        if not await self._joined(volume, bricks):
            await self._bricks.make(volume, bricks)
        spec = specs.volume_spec(self._state, volume, bricks)
        executor = self._engine.executor
        await self._engine.on_any(volume.cluster, lambda host: executor.extend_volume(host, spec))

    async def _joined(self, volume: Volume, bricks: Sequence[Brick]) -> bool:
        there = await self._bricks.describe(volume)
        return there is not None and self._bricks.addresses(bricks) <= set(there.bricks)

    def _volume(self, operation: Operation) -> Volume:
        return self._state.get(Volume, ids(operation, EXPAND_VOLUME)[0])

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        volume = self._volume(operation)
        more = sum(change.amount for change in operation.changes)
        transaction.put(replace(volume, size=volume.size + more))
        for brick in self._bricks.bricks(operation, ADD_BRICK):
            transaction.put(replace(brick, pending=""))
        return f"/volumes/{volume.id}"

    async def undo(self, operation: Operation) -> bool:
        """See `Work`. Bricks that joined may hold data already: then it counts as done."""
        volume = self._volume(operation)
        bricks = self._bricks.bricks(operation, ADD_BRICK)
        if bricks and await self._joined(volume, bricks):
            return False
        await self._bricks.destroy(volume, bricks)
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""
        transaction.remove(*self._bricks.bricks(operation, ADD_BRICK))

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """See `Work`."""
        return None
