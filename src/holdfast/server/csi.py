"""Running CSI drivers: which backends and node sides are behind which sockets.

`holdfast csi` serves one driver on a socket of its own; `holdfast node serve` serves
several where kubelet looks for them and registers them. Both are one process: the
drivers of a machine share what is known of its devices.

A driver with a controller keeps its state below `csi/<driver>` in the data directory and
holds a lock there, because a local backend must be the only one on its volumes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import holdfast
from holdfast.backends import errors, registry, secretrefs
from holdfast.backends.local.backend import LocalBackend
from holdfast.backends.missing import MissingBackend
from holdfast.backends.protocol import (
    TOPOLOGY_HOST,
    Backend,
    NodeDescriber,
    NodeInfo,
    NodeSide,
)
from holdfast.csi import registration, sockets
from holdfast.csi.driver import Describe, Driver, NodePart
from holdfast.csi.serving import Server
from holdfast.kit import suggest
from holdfast.node.volumes import Volumes
from holdfast.server import config, health, rundir, systems


@dataclass(frozen=True, slots=True)
class Settings:
    """What a process serves. `sockets` is by driver name; `kubelet` asks for registration."""

    data_dir: Path
    node_name: str
    sockets: Mapping[str, Path]
    controller: bool = True
    node: bool = True
    topology: bool = False
    max_volumes: int = 0  # 0: as the storage system says
    kubelet: Path | None = None
    health: tuple[str, int] | None = None
    storage: Mapping[str, registry.Instances] = field(default_factory=dict)


def kind_of(driver: str) -> str:
    """Return the backend behind a CSI driver name. Raises errors.Invalid."""
    if driver in registry.DRIVERS:
        return registry.DRIVERS[driver]
    near = suggest.nearest(driver, registry.DRIVERS)
    hint = f"did you mean {near}? " if near else ""
    raise errors.Invalid(
        f'no driver is called "{driver}"',
        "--driver",
        f"{hint}drivers: {', '.join(sorted(registry.DRIVERS))}",
    )


async def serve(settings: Settings, ready: Callable[[], None]) -> None:
    """Serve until cancelled; `ready` is called once, when all sockets answer."""
    async with contextlib.AsyncExitStack() as stack:
        volumes = Volumes()
        sides = systems.NodeSides(settings.data_dir / "csi", settings.storage, {})
        stack.push_async_callback(sides.close)
        drivers = [_open(settings, name, volumes, sides, stack) for name in settings.sockets]
        for driver in drivers:
            stack.push_async_callback(driver.close)
        for driver in drivers:
            server = Server(settings.sockets[driver.name], driver.handlers())
            await server.start()
            stack.push_async_callback(server.stop)
        await _stay(settings, ready)


async def _stay(settings: Settings, ready: Callable[[], None]) -> None:
    registered = [
        registration.Registration(settings.kubelet, name, path)
        for name, path in settings.sockets.items()
        if settings.kubelet is not None
    ]

    def problems() -> list[str]:
        found = [
            f"kubelet refused the driver: {each.refusal}" for each in registered if each.refusal
        ]
        gone = [path for path in settings.sockets.values() if not path.is_socket()]
        return [*found, *(f"{path}: the socket is gone" for path in gone)]

    async with asyncio.TaskGroup() as group:
        for each in registered:
            group.create_task(each.run())
        if settings.health is not None:
            group.create_task(health.serve(*settings.health, problems))
        ready()
        await asyncio.get_running_loop().create_future()


def _open(
    settings: Settings,
    name: str,
    volumes: Volumes,
    sides: systems.NodeSides,
    stack: contextlib.AsyncExitStack,
) -> Driver:
    kind = kind_of(name)
    directory = settings.data_dir / "csi" / name
    backend = None
    if settings.controller:
        rundir.prepare(directory)
        stack.enter_context(rundir.hold(directory))
        backend = _backend(kind, settings, directory)
    node = None
    if settings.node:
        side = sides[kind]
        node = NodePart(side, volumes, _describing(kind, side, settings))
    provisioner = registry.find(name)
    return Driver(
        name,
        holdfast.__version__,
        backend,
        node,
        topology=settings.topology or kind == "local",
        parameters=provisioner.parameters if provisioner else secretrefs.strip,
    )


def _backend(kind: str, settings: Settings, directory: Path) -> Backend:
    """Open a driver's backend. One that cannot be opened stops the start, and says why."""
    if kind == "local":
        return LocalBackend(directory / "volumes", settings.node_name)
    found = systems.Backends(directory, settings.storage, {}).open(kind)
    if isinstance(found, MissingBackend):
        raise found.error
    return found


def _describing(kind: str, side: NodeSide, settings: Settings) -> Describe:
    """Return how this machine is described: by the storage system where it knows machines."""

    async def describe() -> NodeInfo:
        if isinstance(side, NodeDescriber):
            found = await side.describe()
        else:
            here = {TOPOLOGY_HOST: settings.node_name} if kind == "local" else {}
            found = NodeInfo(settings.node_name, here)
        limit = settings.max_volumes or found.max_volumes
        return dataclasses.replace(found, max_volumes=limit)

    return describe


def storage(data_dir: Path) -> Mapping[str, registry.Instances]:
    """Return the storage systems of `holdfast.toml`. Raises config.ConfigError."""
    return config.load(data_dir).storage


def kubelet_sockets(kubelet: Path, drivers: tuple[str, ...]) -> dict[str, Path]:
    """Return where each driver serves for kubelet. Raises errors.Invalid for unknown names."""
    for name in drivers:
        kind_of(name)
    return {name: registration.driver_socket(kubelet, name) for name in drivers}


def own_socket(driver: str, endpoint: str) -> dict[str, Path]:
    """Return the one socket of a driver. Raises errors.Invalid."""
    kind_of(driver)
    return {driver: sockets.parse(endpoint)}
