"""One driver: a name, what is behind it, and the gRPC services that follow from it.

Which services and capabilities there are is computed from what the backend can do
(`backends.protocol`), so a backend that learns something new says so by itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc

from holdfast.backends import registry
from holdfast.backends.protocol import Backend, NodeInfo, NodeSide
from holdfast.csi import service
from holdfast.csi.controller import Controller
from holdfast.csi.identity import Identity
from holdfast.csi.node import Node
from holdfast.csi.operations import Operations
from holdfast.csi.wire import csi_pb2
from holdfast.node.volumes import Volumes

Describe = Callable[[], Awaitable[NodeInfo]]
_SERVICES = csi_pb2.DESCRIPTOR.services_by_name


@dataclass(frozen=True, slots=True)
class NodePart:
    """What the Node service needs. `describe` says what this machine is called and where."""

    side: NodeSide
    volumes: Volumes
    describe: Describe


@dataclass(frozen=True, slots=True)
class Driver:
    """`backend` for the Controller service, `node` for the Node service; either or both.

    `parameters` makes the backend's parameters of a class's; `topology` says that not
    every node reaches every volume.
    """

    name: str
    version: str
    backend: Backend | None = None
    node: NodePart | None = None
    topology: bool = False
    parameters: Callable[[dict[str, str]], dict[str, str]] = dict
    operations: Operations = field(default_factory=Operations)

    def handlers(self) -> list[grpc.GenericRpcHandler[Any, Any]]:
        """Return the services of this driver."""
        identity = Identity(
            self.name,
            self.version,
            controller=self.backend,
            topology=self.topology,
        )
        found = [service.handler(_SERVICES["Identity"], identity)]
        if self.backend is not None:
            controller = Controller(
                self.backend,
                self.operations,
                self.parameters,
                self.node.describe if self.node else None,
                partial(registry.volume_id, self.name),
            )
            found.append(service.handler(_SERVICES["Controller"], controller))
        if self.node is not None:
            part = self.node
            node = Node(part.side, part.volumes, self.operations, part.describe)
            found.append(service.handler(_SERVICES["Node"], node))
        return found

    async def close(self) -> None:
        """Wait for the operations in work, then give up the backend."""
        await self.operations.close()
        if self.backend is not None:
            await self.backend.close()
