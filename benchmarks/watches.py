"""What many watchers cost the server, and how long kubectl takes for a long list.

The watchers are connections of this process; only the server's processor time is counted, so
what they cost here does not matter.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time

from benchmarks.claims import CONNECTIONS, create_all
from benchmarks.instance import Instance, instance
from benchmarks.report import Figure
from benchmarks.wire import Connection

WATCHERS = 1000
EVENTS = 100
VOLUMES = 10_000
_CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"


async def _count(connection: Connection, wanted: int, ready: asyncio.Semaphore) -> None:
    """Read events until the wanted number has come; the first line says that the watch is there."""
    seen = 0
    async for event in connection.watch(f"{_CONFIG_MAPS}?watch=1"):
        name = event["object"]["metadata"]["name"]
        if name == "first":
            ready.release()
        elif name.startswith("event-"):
            seen += 1
            if seen == wanted:
                return


async def _watched(run: Instance) -> tuple[float, float]:
    """Return processor time and time until the last watcher had everything, in seconds."""
    writer = run.cluster.connect()
    await writer.request("POST", _CONFIG_MAPS, _config_map("first"))
    connections = [run.cluster.connect() for _ in range(WATCHERS)]
    ready = asyncio.Semaphore(0)
    async with asyncio.TaskGroup() as group:
        watchers = [group.create_task(_count(each, EVENTS, ready)) for each in connections]
        for _ in watchers:
            await ready.acquire()
        used, started = run.cpu_seconds(), time.monotonic()
        for number in range(EVENTS):
            await writer.request("POST", _CONFIG_MAPS, _config_map(f"event-{number}"))
        await asyncio.gather(*watchers)
        figures = run.cpu_seconds() - used, time.monotonic() - started
    for connection in (writer, *connections):
        connection.close()
    return figures


def _config_map(name: str) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {"key": "value"},
    }


def _volume(number: int) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pv-{number:05}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": f"/none/{number}"},
        },
    }


def watches() -> list[Figure]:
    """A thousand watchers of one kind, and writes that all of them see."""
    with instance() as run:
        cpu, seconds = asyncio.run(_watched(run))
    deliveries = WATCHERS * EVENTS
    return [
        Figure(
            f"processor time for each of {WATCHERS} watchers and event",
            cpu / deliveries * 1000,
            "ms",
            1.0,
            less=True,
        ),
        Figure("events delivered", deliveries / seconds, "events/s"),
    ]


def listing() -> list[Figure]:
    """A long list through kubectl, as a table and as JSON, process start included."""
    kubectl = os.environ.get("HOLDFAST_KUBECTL") or shutil.which("kubectl")
    if kubectl is None:
        raise RuntimeError("kubectl is not on the PATH; HOLDFAST_KUBECTL can name one")
    with instance() as run:
        connections = [run.cluster.connect() for _ in range(CONNECTIONS)]
        asyncio.run(_fill(connections))
        figures = []
        for what, target, arguments in (("table", 2.0, ()), ("JSON", None, ("-o", "json"))):
            command = [kubectl, "get", "pv", *arguments]
            environment = {**os.environ, "KUBECONFIG": str(run.data_dir / "kubeconfig")}
            started = time.monotonic()
            done = subprocess.run(command, env=environment, capture_output=True, check=True)
            seconds = time.monotonic() - started
            if done.stdout.count(b"pv-0") < VOLUMES:
                raise RuntimeError(f"kubectl get pv ({what}) did not list all volumes")
            text = f"kubectl get pv of {VOLUMES} as {what}"
            figures.append(Figure(text, seconds, "s", target, less=True))
    return figures


async def _fill(connections: list[Connection]) -> None:
    await create_all(
        connections, "/api/v1/persistentvolumes", [_volume(each) for each in range(VOLUMES)]
    )
    for connection in connections:
        connection.close()
