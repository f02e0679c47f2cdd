"""Cloning a volume: a snapshot of its thin bricks made into a volume of its own.

The clone's bricks lie in the pools of the bricks they were cloned from, so they take no space of
their own. GlusterFS names and mounts them; how, is read back from it.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from holdfast.heketi import entries, errors
from holdfast.heketi.entries import Brick, Change, Operation, Volume
from holdfast.heketi.state import Transaction
from holdfast.heketi.work import specs
from holdfast.heketi.work.engine import Engine
from holdfast.heketi.work.volumes import ADD_BRICK, ADD_VOLUME, Bricks, ids

CLONE_FROM = "Clone volume from"
_MOUNTED = re.compile(r"/snaps/([0-9a-f]+)/brick([0-9]+)(/|$)")


class CloneVolume:
    """clone-volume."""

    def __init__(self, engine: Engine, bricks: Bricks) -> None:
        self._engine = engine
        self._state = engine.state
        self._bricks = bricks

    def build(
        self, transaction: Transaction, operation: Operation, source: Volume, name: str
    ) -> Operation:
        """Put the clone and its bricks, pending."""
        key = entries.new_id()
        clone = replace(source, id=key, name=name or f"vol_{key}", pending=operation.id)
        transaction.put(clone)
        changes = [Change(CLONE_FROM, source.id), Change(ADD_VOLUME, key)]
        for brick in self._state.bricks_of(source):
            made = replace(
                brick,
                id=entries.new_id(),
                volume=key,
                pool_size=0,
                pool_metadata=0,
                path="",
                pool=brick.pool_name,
                lv="",
                pending=operation.id,
            )
            transaction.put(made)
            changes.append(Change(ADD_BRICK, made.id))
        return replace(operation, changes=changes)

    async def execute(self, operation: Operation) -> None:
        """See `Work`."""
        source = self._state.get(Volume, ids(operation, CLONE_FROM)[0])
        clone = self._clone(operation)
        await self._begin(operation, clone)
        spec = specs.volume_spec(self._state, clone, ())
        executor = self._engine.executor
        await self._engine.on_any(
            clone.cluster,
            lambda host: executor.clone_volume(host, source.name, _snapshot(clone), spec),
        )
        there = await self._bricks.describe(clone)
        if there is None and executor.real:
            raise errors.Refused(f"GlusterFS does not show the clone {clone.name}")
        self._note_paths(operation, () if there is None else there.bricks)

    async def _begin(self, operation: Operation, clone: Volume) -> None:
        """Note that what has the clone's name from now on is ours; before, it is not.

        A clone does not carry its own id from the start, so its name is all that tells it apart
        from a volume that somebody made by hand - which must not be taken, nor deleted as undone.
        """
        if operation.request.get("begun"):
            return
        if await self._bricks.describe(clone) is not None:
            raise errors.Refused(
                f"GlusterFS already has a volume {clone.name}, which is not known here; "
                "choose another name"
            )
        with self._state.transaction() as transaction:
            now = self._state.get(Operation, operation.id)
            transaction.put(replace(now, request={**now.request, "begun": True}))

    def _note_paths(self, operation: Operation, found: tuple[str, ...]) -> None:
        """Keep where the clone's bricks are: deleting it later needs that."""
        with self._state.transaction() as transaction:
            for index, brick in enumerate(self._bricks.bricks(operation, ADD_BRICK)):
                if index < len(found):
                    path = found[index].partition(":")[2]
                    known = _MOUNTED.search(path)
                    lv = f"{known[1]}_{int(known[2]) - 1}" if known else ""
                    transaction.put(replace(brick, path=path, lv=lv))
                else:
                    path = f"/run/gluster/snaps/{brick.volume}/brick{index + 1}/brick"
                    transaction.put(replace(brick, path=path))

    def _clone(self, operation: Operation) -> Volume:
        return self._state.get(Volume, ids(operation, ADD_VOLUME)[0])

    def finish(self, transaction: Transaction, operation: Operation) -> str:
        """See `Work`."""
        clone = self._clone(operation)
        transaction.put(replace(clone, pending=""))
        for brick in self._bricks.bricks(operation, ADD_BRICK):
            transaction.put(replace(brick, pending=""))
        return f"/volumes/{clone.id}"

    async def undo(self, operation: Operation) -> bool:
        """See `Work`: GlusterFS removes what a half-made clone has when it deletes it."""
        if not operation.request.get("begun"):
            return True
        clone = self._clone(operation)
        executor = self._engine.executor
        if await self._bricks.describe(clone) is not None:
            await self._engine.on_any(
                clone.cluster, lambda host: executor.delete_volume(host, clone.name)
            )
        # A snapshot that stays would stand against deleting the source for ever.
        await self._engine.on_any(
            clone.cluster, lambda host: executor.delete_snapshot(host, _snapshot(clone))
        )
        return True

    def forget(self, transaction: Transaction, operation: Operation) -> None:
        """See `Work`."""
        bricks: list[Brick] = self._bricks.bricks(operation, ADD_BRICK)
        transaction.remove(*bricks, self._clone(operation))

    def again(self, transaction: Transaction, operation: Operation) -> Operation | None:
        """See `Work`."""
        return None


def _snapshot(clone: Volume) -> str:
    """The snapshot that it is made from, and that goes when it is there."""
    return f"tmpsnap_{clone.id}"
