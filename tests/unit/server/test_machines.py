"""The nodes of one process, and the settings that say how many and how patient."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client
from holdfast.runtime.informer import Informers
from holdfast.runtime.recorder import Recorder
from holdfast.server import config, control, machines
from holdfast.testing.apiserver import ApiServer, api_server


class Agent:
    """An agent that notes what happens to it."""

    def __init__(self, node: str, client: Client, caches: Informers, log: list[Any]) -> None:
        self.node, self.client, self.log = node, client, log
        self.nodes = caches.of(kinds.NODE)

    async def run(self) -> None:
        self.log.append(("runs", self.node))
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.log.append(("ended", self.node))

    async def power_off(self) -> None:
        self.log.append(("off", self.node))


class Rig:
    """Machines with noting agents on a real API."""

    def __init__(self, server: ApiServer, directory: Path, count: int) -> None:
        self.log: list[Any] = []
        self.agents: dict[str, Agent] = {}
        self.shared = Informers(server.client)
        names = machines.names("n", count)
        self.machines = machines.Machines(directory, names, server.client, self.shared, self.build)

    def build(self, node: str, client: Client, caches: Informers, recorder: Recorder) -> Agent:
        self.agents[node] = Agent(node, client, caches, self.log)
        return self.agents[node]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


async def running(rig: Rig, group: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
    tasks = [group.create_task(rig.machines.run()), group.create_task(rig.shared.run())]
    async with asyncio.timeout(5):
        for name, state in rig.machines.states.items():
            while ("off" if state == "stopped" else "runs", name) not in rig.log:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    return tasks


def test_nodes_are_numbered_from_the_second_on() -> None:
    assert machines.names("box", 1) == ("box",)
    assert machines.names("box", 3) == ("box", "box-2", "box-3")


async def test_nodes_are_stopped_cut_off_and_started(server: ApiServer, tmp_path: Path) -> None:
    rig = Rig(server, tmp_path, 2)
    async with asyncio.TaskGroup() as group:
        tasks = await running(rig, group)
        await rig.machines.stop("n-2")
        assert rig.log[-2:] == [("ended", "n-2"), ("off", "n-2")]
        assert rig.machines.refusal("n-2") == "node n-2 is stopped"
        with pytest.raises(machines.NodesError, match="is stopped: start it first"):
            await rig.machines.cut("n-2")
        await rig.machines.start("n-2")
        before = rig.agents["n-2"]
        await rig.machines.cut("n-2")
        assert rig.agents["n-2"] is before, "it goes on, only its network is gone"
        with pytest.raises(errors.ServiceUnavailable, match="network of node n-2 is cut"):
            await before.client.list(kinds.NODE)
        assert (await rig.agents["n"].client.list(kinds.NODE)).items == []
        assert machines.remembered(tmp_path).states == {"n-2": "cut"}
        await rig.machines.start("n-2")
        assert rig.agents["n-2"] is not before
        assert rig.machines.refusal("n-2") == ""
        with pytest.raises(machines.NodesError, match="the nodes are: n, n-2"):
            await rig.machines.stop("m")
        for task in tasks:
            task.cancel()


async def test_a_single_node_can_be_cut_off_too(server: ApiServer, tmp_path: Path) -> None:
    rig = Rig(server, tmp_path, 1)
    async with asyncio.TaskGroup() as group:
        tasks = await running(rig, group)
        first = rig.agents["n"]
        assert first.nodes is rig.shared.of(kinds.NODE), "it shares the caches of the controllers"
        await rig.machines.cut("n")
        second = rig.agents["n"]
        assert second is not first and second.nodes is not first.nodes
        await server.client.create(kinds.NODE, {"metadata": {"name": "new"}})
        await asyncio.sleep(0.1)
        assert first.nodes.get("new") is not None
        assert second.nodes.get("new") is None, "it hears of nothing"
        for task in tasks:
            task.cancel()


async def test_states_are_found_again(server: ApiServer, tmp_path: Path) -> None:
    kept = machines.Remembered(3, {"n-2": "cut", "n-3": "stopped"})
    (tmp_path / machines.FILE).write_bytes(msgspec.json.encode(kept))
    rig = Rig(server, tmp_path, 3)
    async with asyncio.TaskGroup() as group:
        tasks = await running(rig, group)
        assert dict(rig.machines.states) == {"n": "running", "n-2": "cut", "n-3": "stopped"}
        assert ("runs", "n-3") not in rig.log
        with pytest.raises(errors.ServiceUnavailable):
            await rig.agents["n-2"].client.list(kinds.NODE)
        for task in tasks:
            task.cancel()


async def test_commands_go_through_a_socket_of_the_owner(server: ApiServer, tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 30)
    directory.mkdir()
    rig = Rig(server, directory, 2)
    async with asyncio.TaskGroup() as group:
        tasks = await running(rig, group)
        tasks.append(group.create_task(control.serve(directory, rig.machines)))
        async with asyncio.timeout(5):
            while not control.path_in(directory).exists():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert control.path_in(directory).stat().st_mode & 0o777 == 0o600
        ask = asyncio.to_thread
        assert await ask(control.ask, directory, "stop", "n-2") == {
            "n": "running",
            "n-2": "stopped",
        }
        assert (await ask(control.ask, directory, "list"))["n-2"] == "stopped"
        for verb, node, text in (("stop", "x", "there is no node x"), ("boil", "n", "unknown")):
            with pytest.raises(control.ControlError, match=text):
                await ask(control.ask, directory, verb, node)
        for task in tasks:
            task.cancel()
    with pytest.raises(control.ControlError, match="does not answer"):
        control.ask(directory, "list")
    with pytest.raises(control.ControlError, match="is not running"):
        control.ask(tmp_path / "absent", "list")


def test_the_file_says_how_many_nodes_and_how_patient(tmp_path: Path) -> None:
    assert config.load(tmp_path).nodes == config.Nodes(None, 40.0, 300)
    text = "[nodes]\ncount = 3\ngrace_seconds = 1.5\ntoleration_seconds = 0\n"
    (tmp_path / config.FILE_NAME).write_text(text)
    assert config.load(tmp_path).nodes == config.Nodes(3, 1.5, 0)
    assert config.load(tmp_path, nodes="2").nodes.count == 2


@pytest.mark.parametrize(
    "line",
    ["count = 0", "count = true", 'count = "many"', "grace_seconds = 0", "toleration_seconds = -1"],
)
def test_numbers_that_cannot_be_are_refused_with_their_place(tmp_path: Path, line: str) -> None:
    (tmp_path / config.FILE_NAME).write_text(f"[nodes]\n{line}\n")
    with pytest.raises(config.ConfigError, match=r"holdfast\.toml: nodes\."):
        config.load(tmp_path)
