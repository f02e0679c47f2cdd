"""The Heketi service: its memory, its executor and the operations it knows.

Faces call it: the REST endpoints, and tests. It owns nothing that outlives a restart but the
database.
"""

from __future__ import annotations

import asyncio
from typing import Any

from holdfast.heketi import errors
from holdfast.heketi.executors.protocol import Executor
from holdfast.heketi.settings import Settings
from holdfast.heketi.state import State
from holdfast.heketi.work.clones import CloneVolume
from holdfast.heketi.work.engine import Engine
from holdfast.heketi.work.evicting import EvictBrick, Remove
from holdfast.heketi.work.topology import AddDevice, AddNode, DeleteDevice, DeleteNode
from holdfast.heketi.work.volumes import Bricks, CreateVolume, DeleteVolume, ExpandVolume


class Service:
    """See the module. `run` does the work; without it requests are only accepted."""

    def __init__(self, settings: Settings, state: State, executor: Executor) -> None:
        self.settings = settings
        self.state = state
        self.executor = executor
        self.engine = Engine(state, executor, settings)
        self.admin_state = settings.default_state
        self.log_level = settings.log_level
        bricks = Bricks(self.engine)
        self.bricks = bricks
        self.create_volume = CreateVolume(self.engine, bricks)
        self.delete_volume = DeleteVolume(self.engine, bricks)
        self.expand_volume = ExpandVolume(self.engine, bricks)
        self.clone_volume = CloneVolume(self.engine, bricks)
        self.evict_brick = EvictBrick(self.engine, bricks)
        self.remove = Remove(self.engine, self.evict_brick)
        self.add_device = AddDevice(self.engine)
        self.delete_device = DeleteDevice(self.engine)
        self.add_node = AddNode(self.engine)
        self.delete_node = DeleteNode(self.engine)
        for name, work in self._works().items():
            self.engine.register(name, work)

    def _works(self) -> dict[str, Any]:
        return {
            "create-volume": self.create_volume,
            "delete-volume": self.delete_volume,
            "expand-volume": self.expand_volume,
            "clone-volume": self.clone_volume,
            "evict-brick": self.evict_brick,
            "remove-device": self.remove,
            "remove-node": self.remove,
            "add-device": self.add_device,
            "delete-device": self.delete_device,
            "add-node": self.add_node,
            "delete-node": self.delete_node,
        }

    async def run(self) -> None:
        """Do what is accepted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.engine.run())
            if self.settings.monitor and self.executor.real:
                group.create_task(self.engine.monitor())
            if self.settings.cleaner:
                group.create_task(self.engine.clean())

    def check_free(self, key: str) -> None:
        """Refuse what is being changed already."""
        if self.state.operation_on(key) is not None:
            raise errors.Conflict()

    async def close(self) -> None:
        """Let go of the nodes and of the file."""
        await self.executor.close()
        self.state.close()
