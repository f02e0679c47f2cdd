"""Adding and deleting nodes and devices: the pool of glusterds and the disks in it."""

from __future__ import annotations

import contextlib

import msgspec
from msgspec.structs import replace

from holdfast.heketi import errors
from holdfast.heketi.entries import Change, Cluster, Device, Node, Operation
from holdfast.heketi.executors.protocol import Disk
from holdfast.heketi.state import Transaction
from holdfast.heketi.work.engine import Engine

ADD_DEVICE, DELETE_DEVICE = "Add device", "Delete device"
ADD_NODE, DELETE_NODE = "Add node", "Delete node"


class _Simple:
    """What these have in common: nothing is tried again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._state = engine.state

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """See `Work`."""
        return None


class AddDevice(_Simple):
    """add-device."""

    def build(
        self, transaction: Transaction, operation: Operation, device: Device, destroy: bool
    ) -> Operation:
        """Put it, not to be used yet."""
        transaction.put(replace(device, pending=operation.id))
        return replace(
            operation, changes=[Change(ADD_DEVICE, device.id)], request={"destroy": destroy}
        )

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        device = self._device(operation)
        node = self._state.get(Node, device.node)
        facts = await self._engine.executor.prepare_disk(
            node.manage, Disk(device.id, device.name), bool(operation.request["destroy"])
        )
        with self._state.transaction() as transaction:
            transaction.put(
                replace(
                    device,
                    total=facts.total,
                    foreign=max(0, facts.total - facts.free),
                    extent=facts.extent,
                    uuid=facts.uuid,
                    paths=list(facts.paths),
                )
            )

    def _device(self, operation: Operation) -> Device:
        return self._state.get(Device, operation.changes[0].id)

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        transaction.put(replace(self._device(operation), pending=""))
        return ""

    async def undo(self, operation: Operation) -> bool:
        """See `Work`. A disk that was refused is left exactly as it is: only ours is released."""
        device = self._device(operation)
        node = self._state.get(Node, device.node)
        # On a node that is gone a mark of ours may stay: the disk is then refused, not lost.
        with contextlib.suppress(errors.Unreachable):
            await self._engine.executor.release_disk(node.manage, Disk(device.id, device.name))
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""
        transaction.remove(self._device(operation))


class DeleteDevice(_Simple):
    """delete-device; with `forget` nothing is done on the node."""

    def build(
        self, transaction: Transaction, operation: Operation, device: Device, forget: bool
    ) -> Operation:
        """Say that it goes."""
        return replace(
            operation, changes=[Change(DELETE_DEVICE, device.id)], request={"forget": forget}
        )

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        device = self._state.get(Device, operation.changes[0].id)
        node = self._state.get(Node, device.node)
        if not operation.request["forget"]:
            await self._engine.executor.release_disk(node.manage, Disk(device.id, device.name))

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        transaction.remove(self._state.get(Device, operation.changes[0].id))
        return ""

    async def undo(self, operation: Operation) -> bool:
        """See `Work`."""
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""


class AddNode(_Simple):
    """add-node: into the pool of the cluster's first node that answers."""

    def build(self, transaction: Transaction, operation: Operation, node: Node) -> Operation:
        """Keep what was asked; the node itself appears when it is in the pool."""
        return replace(
            operation,
            changes=[Change(ADD_NODE, node.id)],
            request={"node": msgspec.to_builtins(node)},
        )

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        node = self._node(operation)
        executor = self._engine.executor
        try:
            await executor.check(node.manage)
        except errors.ExecutionFailed as error:
            raise errors.Invalid(f"New Node doesn't have glusterd running ({error})") from error
        cluster = self._state.get(Cluster, node.cluster)
        if self._state.below(cluster, Node):
            await self._engine.on_any(cluster.id, lambda host: executor.probe(host, node.storage))

    def _node(self, operation: Operation) -> Node:
        return msgspec.convert(operation.request["node"], Node)

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        node = self._node(operation)
        transaction.put(node)
        return f"/nodes/{node.id}"

    async def undo(self, operation: Operation) -> bool:
        """See `Work`."""
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""


class DeleteNode(_Simple):
    """delete-node: out of the pool; a peer that cannot be reached does not hold it up."""

    def build(self, transaction: Transaction, operation: Operation, node: Node) -> Operation:
        """Say that it goes."""
        return replace(operation, changes=[Change(DELETE_NODE, node.id)])

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        node = self._state.get(Node, operation.changes[0].id)
        others = [each for each in self._engine.nodes(node.cluster) if each.id != node.id]
        for other in others:
            try:
                await self._engine.executor.detach(other.manage, node.storage)
            except errors.ExecutionFailed:
                continue
            return

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        transaction.remove(self._state.get(Node, operation.changes[0].id))
        return ""

    async def undo(self, operation: Operation) -> bool:
        """See `Work`."""
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""
