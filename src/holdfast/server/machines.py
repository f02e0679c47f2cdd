"""The nodes of one `holdfast up`: several agents in one process, each as if on its own machine.

A node is `running`, `stopped` (as if powered off: no agent, nothing mounted, disks kept) or `cut`
(its network is gone: the agent and its pods go on, the API hears nothing from it and it hears
nothing from the API). States are written to `nodes.json` before they are acted on, so that a
restart continues with them.

Every agent has its own link to the API and its own caches, so that cutting one cuts one. Only a
single node that was never touched shares the caches of the controllers, which costs nothing extra.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from holdfast.kit import files
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers
from holdfast.runtime.link import Link
from holdfast.runtime.recorder import Recorder

FILE = "nodes.json"
# A node that is to be cut off has first to be connected for a moment, in seconds.
_PATIENCE = 10.0

State = Literal["running", "stopped", "cut"]


class Agent(Protocol):
    """What runs on a node."""

    async def run(self) -> None:
        """Serve the node until cancelled."""
        ...

    async def power_off(self) -> None:
        """Unmount everything, when `run` has ended."""
        ...


Build = Callable[[str, Client, Informers, Recorder], Agent]


class NodesError(Exception):
    """A node cannot be brought into the state that was asked for: why, and what to do."""


class Remembered(msgspec.Struct, frozen=True):
    """What `nodes.json` holds: how many nodes there are, and the states that are not `running`."""

    count: int = 1
    states: dict[str, State] = {}


def names(first: str, count: int) -> tuple[str, ...]:
    """Name the nodes: NAME, NAME-2, NAME-3 and so on."""
    return (first, *(f"{first}-{number}" for number in range(2, count + 1)))


def remembered(data_dir: Path) -> Remembered:
    """Read what an earlier run left; a damaged file raises NodesError."""
    path = data_dir / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Remembered)
    except FileNotFoundError:
        return Remembered()
    except msgspec.DecodeError as error:
        raise NodesError(
            f"{path}: cannot be read ({error}): delete it; all nodes then run"
        ) from error


class _Running:
    """One agent at work."""

    def __init__(self, node: str, client: Client, shared: Informers | None, build: Build) -> None:
        self.link = Link(client, node)
        reach: Client = client if shared is not None else self.link
        self._own = Informers(reach) if shared is None else None
        self._recorder = Recorder(reach, "kubelet", node)
        self.shares = shared is not None
        self.agent = build(node, reach, shared or self._own_informers(), self._recorder)
        self.task: asyncio.Task[None] | None = None

    def _own_informers(self) -> Informers:
        assert self._own is not None
        return self._own

    async def run(self) -> None:
        """Run the agent and what belongs to it until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._recorder.run())
            if self._own is not None:
                group.create_task(self._own.run())
            group.create_task(self.agent.run())

    async def connected(self) -> None:
        """Wait until the agent's caches are filled."""
        if self._own is not None:
            await asyncio.wait_for(self._own.synced(), _PATIENCE)

    async def end(self) -> None:
        """Cancel the agent and wait for it."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


class Machines:
    """Starts, stops and cuts off nodes; `run` until cancelled."""

    def __init__(
        self,
        data_dir: Path,
        node_names: tuple[str, ...],
        client: Client,
        shared: Informers,
        build: Build,
    ) -> None:
        self._path = data_dir / FILE
        self._names = node_names
        self._client = client
        self._shared = shared
        self._build = build
        kept = remembered(data_dir).states
        self._states: dict[str, State] = {name: kept.get(name, "running") for name in node_names}
        self._running: dict[str, _Running] = {}
        self._group: asyncio.TaskGroup | None = None
        self._lock = asyncio.Lock()
        if len(node_names) == 1 and self._states[node_names[0]] == "running":
            # Made now, so that the shared caches get its indexes before they run.
            self._running[node_names[0]] = self._made(node_names[0], shared)

    @property
    def states(self) -> Mapping[str, State]:
        """The state of each node."""
        return self._states

    def agent(self, name: str) -> Agent | None:
        """Return the agent of a node that runs and can be reached."""
        reachable = self._states.get(name) == "running" and name in self._running
        return self._running[name].agent if reachable else None

    def refusal(self, name: str) -> str:
        """Say why the node's disks cannot be reached now; "" when they can."""
        state = self._states.get(name, "running")
        words = {"stopped": f"node {name} is stopped", "cut": f"node {name} is cut off"}
        return words.get(state, "")

    async def run(self) -> None:
        """Run the nodes until cancelled."""
        self._remember()
        async with asyncio.TaskGroup() as group:
            self._group = group
            for name, state in self._states.items():
                if state == "stopped":
                    await self._made(name, None).agent.power_off()
                else:
                    self._launch(name, self._running.get(name))
                    if state == "cut":
                        self._running[name].link.cut()
            await asyncio.get_running_loop().create_future()

    async def start(self, name: str) -> None:
        """Power the node on, or connect it again."""
        async with self._lock:
            if self._state(name) == "running":
                return
            self._become(name, "running")
            await self._end(name)
            self._launch(name, None)

    async def stop(self, name: str) -> None:
        """Power the node off. Raises NodesError when something cannot be unmounted."""
        async with self._lock:
            if self._state(name) == "stopped":
                return
            self._become(name, "stopped")
            await self._end(name)
            try:
                # A fresh agent knows what is on the disk and nothing else, as after a restart.
                await self._made(name, None).agent.power_off()
            except Exception as error:
                raise NodesError(
                    f"node {name} is stopped, but not everything could be unmounted: {error}"
                ) from error

    async def cut(self, name: str) -> None:
        """Cut the node's network. Raises NodesError for a node that is stopped."""
        async with self._lock:
            state = self._state(name)
            if state == "stopped":
                raise NodesError(f"node {name} is stopped: start it first")
            if state == "cut":
                return
            if self._running[name].shares:
                await self._end(name)
                self._launch(name, None)
                await self._running[name].connected()
            self._become(name, "cut")
            self._running[name].link.cut()

    def _state(self, name: str) -> State:
        if name not in self._states:
            known = ", ".join(self._states)
            raise NodesError(f"there is no node {name} here; the nodes are: {known}")
        return self._states[name]

    def _made(self, name: str, shared: Informers | None) -> _Running:
        return _Running(name, self._client, shared, self._build)

    def _launch(self, name: str, made: _Running | None) -> None:
        assert self._group is not None, "not running yet"
        running = made or self._made(name, None)
        running.task = self._group.create_task(running.run())
        self._running[name] = running

    async def _end(self, name: str) -> None:
        running = self._running.pop(name, None)
        if running is not None:
            await running.end()

    def _become(self, name: str, state: State) -> None:
        self._states[name] = state
        self._remember()

    def _remember(self) -> None:
        off: dict[str, State] = {
            name: state for name, state in self._states.items() if state != "running"
        }
        content = msgspec.json.encode(Remembered(len(self._names), off))
        files.write_atomic(self._path, content)
