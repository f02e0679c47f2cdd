"""Moving one brick to another device, and all bricks off a device or a node.

A brick is replaced only when the others of its set hold its data: enough of them are up and this
one has nothing left to give. Without redundancy there are no others, so such a brick never moves,
whatever the caller says about heal checks: replacing it would be losing it.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from holdfast.heketi import entries, errors, placement, sizes
from holdfast.heketi.entries import Brick, Change, Cluster, Device, Node, Operation, Volume
from holdfast.heketi.executors.protocol import VolumeFacts
from holdfast.heketi.state import Transaction
from holdfast.heketi.work import specs
from holdfast.heketi.work.engine import Engine
from holdfast.heketi.work.volumes import ADD_BRICK, DELETE_BRICK, Bricks, ids
from holdfast.kit.locks import KeyedLocks

REMOVE_DEVICE, REMOVE_NODE = "Remove device", "Remove node"


class EvictBrick:
    """evict-brick."""

    def __init__(self, engine: Engine, bricks: Bricks) -> None:
        self._engine = engine
        self._state = engine.state
        self._bricks = bricks
        self._locks = KeyedLocks()

    def build(
        self, transaction: Transaction, operation: Operation, brick: Brick, heal_check: bool
    ) -> Operation:
        """Say which brick goes; where to is decided when its peers have been looked at."""
        return replace(
            operation,
            changes=[Change(DELETE_BRICK, brick.id)],
            request={"heal": heal_check},
        )

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        old = self._state.get(Brick, ids(operation, DELETE_BRICK)[0])
        volume = self._state.get(Volume, old.volume)
        # One brick of a volume at a time: what is seen of its peers must hold until it is replaced,
        # or two copies would be given up, each because of the other.
        async with self._locks.hold(volume.id):
            await self._move(self._state.get(Operation, operation.id), volume, old)
            await self._drop(volume, old)

    async def _move(self, operation: Operation, volume: Volume, old: Brick) -> None:
        there = await self._bricks.describe(volume)
        addresses = () if there is None else there.bricks
        new = next(iter(self._bricks.bricks(operation, ADD_BRICK)), None)
        if new is None or specs.address(self._state, new) not in addresses:
            members = await self._set_of(volume, old)
            await self._check(volume, old, members, bool(operation.request.get("heal", True)))
            if new is None:
                new = self._choose(operation, volume, old, members)
            elif operation.status == "stale":
                await self._bricks.destroy(volume, [new])
            await self._bricks.make(volume, [new])
        executor = self._engine.executor
        before, after = (specs.address(self._state, each) for each in (old, new))
        await self._engine.on_any(
            volume.cluster,
            lambda host: executor.replace_brick(host, volume.name, before, after),
        )

    async def _drop(self, volume: Volume, old: Brick) -> None:
        """Destroy what was replaced; a node that is gone for good takes its brick along."""
        try:
            await self._bricks.destroy(volume, [old])
        except errors.Unreachable:
            return

    async def _set_of(self, volume: Volume, brick: Brick) -> list[Brick]:
        """The bricks of its set, in GlusterFS's own order where there is one."""
        bricks = [each for each in self._state.bricks_of(volume) if not each.pending]
        there = await self._bricks.describe(volume)
        size = volume.durability.bricks
        order = bricks
        if there is not None:
            order = self._in_order(volume, bricks, there)
            size = there.set_size
        at = next((index for index, each in enumerate(order) if each.id == brick.id), -1)
        if at < 0:
            raise errors.Refused(f"brick {brick.id} is not part of volume {volume.name}")
        first = at // size * size
        return order[first : first + size]

    def _in_order(self, volume: Volume, bricks: Sequence[Brick], there: VolumeFacts) -> list[Brick]:
        by_address = {specs.address(self._state, each): each for each in bricks}
        strange = [each for each in there.bricks if each not in by_address]
        if strange:
            raise errors.Refused(
                f"volume {volume.name} has bricks that are not in the database: "
                f"{', '.join(strange)}; run `heketi-cli db check --repair`"
            )
        return [by_address[each] for each in there.bricks]

    async def _check(
        self, volume: Volume, brick: Brick, members: Sequence[Brick], heal_check: bool
    ) -> None:
        if len(members) < 2:
            raise errors.Refused(
                f"Cannot replace brick {brick.id} as only 0 of 1 required peer bricks are online: "
                f"volume {volume.name} keeps one copy only, so its data would be lost"
            )
        if not heal_check or not self._engine.executor.real:
            return
        executor = self._engine.executor
        heals = await self._engine.on_any(
            volume.cluster, lambda host: executor.heals(host, volume.name)
        )
        own = heals.get(specs.address(self._state, brick))
        if own is not None and own.entries:
            raise errors.Refused(
                f"Cannot replace brick {brick.id} as it is source brick for data to be healed"
            )
        others = [each for each in members if each.id != brick.id]
        found = [heals.get(specs.address(self._state, each)) for each in others]
        up = sum(1 for heal in found if heal is not None and heal.entries is not None)
        if up < volume.durability.quorum:
            raise errors.Refused(
                f"Cannot replace brick {brick.id} as only {up} of {volume.durability.quorum} "
                "required peer bricks are online"
            )

    def _choose(
        self, operation: Operation, volume: Volume, old: Brick, members: Sequence[Brick]
    ) -> Brick:
        """Put the new brick beside the old one, in one transaction with the operation."""
        cluster = self._state.get(Cluster, volume.cluster)
        device = self._state.get(Device, old.device)
        others = [
            node
            for each in members
            if each.id != old.id
            if (node := self._state.node_of(each)) is not None
        ]
        nowhere = (
            f"Unable to delete device [{device.id}] as no device was found to replace it: "
            f"{errors.NO_REPLACEMENT}"
        )
        try:
            usable = specs.candidates(self._state, cluster, volume, self._engine.down)
        except errors.Refused as error:
            raise errors.Refused(f"{nowhere} ({error.text})") from error
        size = sizes.rounded(specs.footprint_of(old), placement.common_extent(usable))
        found = placement.replacement(
            usable,
            others,
            device,
            size,
            old.kind,
            strict_zones=specs.strict_zones(self._engine.settings, volume),
            seed=operation.id,
        )
        if found is None:
            raise errors.Refused(nowhere)
        key = entries.new_id()
        new = Brick(
            id=key,
            device=found.device.id,
            volume=volume.id,
            size=old.size,
            pool_size=size.pool,
            pool_metadata=size.metadata,
            position=old.position,
            path=f"/var/lib/heketi/mounts/vg_{found.device.id}/brick_{key}/brick",
            kind=old.kind,
            pending=operation.id,
        )
        changes = [*operation.changes, Change(ADD_BRICK, key)]
        with self._state.transaction() as transaction:
            transaction.put(new, replace(operation, changes=changes))
        return new

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        self._bricks.remove(transaction, self._bricks.bricks(operation, DELETE_BRICK))
        for brick in self._bricks.bricks(operation, ADD_BRICK):
            transaction.put(replace(brick, pending=""))
        return ""

    async def undo(self, operation: Operation) -> bool:
        """See `Work`. Once GlusterFS uses the new brick there is no way back, only forward."""
        new = self._bricks.bricks(operation, ADD_BRICK)
        if not new:
            return True
        volume = self._state.get(Volume, new[0].volume)
        there = await self._bricks.describe(volume)
        if there is not None and specs.address(self._state, new[0]) in there.bricks:
            for old in self._bricks.bricks(operation, DELETE_BRICK):
                await self._drop(volume, old)
            return False
        await self._bricks.destroy(volume, new)
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""
        transaction.remove(*self._bricks.bricks(operation, ADD_BRICK))

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """See `Work`."""
        return None


class Remove:
    """remove-device and remove-node: every brick is moved, then the state is `failed`."""

    def __init__(self, engine: Engine, evict: EvictBrick) -> None:
        self._engine = engine
        self._state = engine.state
        self._evict = evict

    def build(
        self, transaction: Transaction, operation: Operation, entry: Device | Node, heal: bool
    ) -> Operation:
        """Say what is emptied."""
        what = REMOVE_DEVICE if isinstance(entry, Device) else REMOVE_NODE
        return replace(operation, changes=[Change(what, entry.id)], request={"heal": heal})

    def _entry(self, operation: Operation) -> Device | Node:
        change = operation.changes[0]
        if change.what == REMOVE_DEVICE:
            return self._state.get(Device, change.id)
        return self._state.get(Node, change.id)

    async def execute(self, operation: Operation) -> None:
        """See `Work`. Bricks that were moved stay moved when a later one cannot be."""
        for child in self._state.all(Operation):
            if child.parent == operation.id:
                await self._engine.perform_child(child)
        entry = self._entry(operation)
        devices = [entry] if isinstance(entry, Device) else self._state.below(entry, Device)
        for device in devices:
            for brick in self._state.below(device, Brick):
                await self._engine.perform_child(self._child(operation, brick))
            if isinstance(entry, Node):
                with self._state.transaction() as transaction:
                    now = self._state.get(Device, device.id)
                    transaction.put(replace(now, state="failed"))

    def _child(self, operation: Operation, brick: Brick) -> Operation:
        busy = any(self._state.operation_on(key) for key in (brick.id, brick.volume))
        if brick.pending or busy:
            raise errors.Conflict()
        child = Operation(
            id=entries.new_id(), type="evict-brick", started=operation.started, parent=operation.id
        )
        with self._state.transaction() as transaction:
            heal = bool(operation.request.get("heal", True))
            child = self._evict.build(transaction, child, brick, heal)
            transaction.put(child)
        return child

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        transaction.put(replace(self._entry(operation), state="failed"))
        return ""

    async def undo(self, operation: Operation) -> bool:
        """See `Work`."""
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """See `Work`."""
        return None
