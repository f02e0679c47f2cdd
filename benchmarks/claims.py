"""Claims per second: dynamic ones with the local backend, and static ones to existing volumes."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from benchmarks.instance import Instance, instance
from benchmarks.report import Figure
from benchmarks.wire import Connection

CONNECTIONS = 16
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"


def claim(name: str, class_name: str, size: str = "1Gi") -> dict[str, Any]:
    """A claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": size}},
            "storageClassName": class_name,
        },
    }


async def add_class(run: Instance, name: str, provisioner: str, parameters: dict[str, str]) -> None:
    """Make a StorageClass."""
    connection = run.cluster.connect()
    body = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": provisioner,
        "parameters": parameters,
    }
    await connection.request("POST", CLASSES, body)
    connection.close()


def volume(name: str, gibibytes: int) -> dict[str, Any]:
    """A static volume."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": f"{gibibytes}Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "static",
            "hostPath": {"path": f"/tmp/holdfast-bench/{name}"},
        },
    }


async def create_all(
    connections: list[Connection], path: str, bodies: list[dict[str, Any]]
) -> dict[str, float]:
    """Create over all connections at once; when each request was sent, by name."""
    sent: dict[str, float] = {}
    queue = iter(bodies)

    async def work(connection: Connection) -> None:
        for body in queue:
            sent[body["metadata"]["name"]] = time.monotonic()
            await connection.request("POST", path, body)

    await asyncio.gather(*map(work, connections))
    return sent


async def watch_phase(
    connection: Connection, path: str, phase: str, count: int, prefix: str = ""
) -> dict[str, float]:
    """When each of `count` objects whose names begin like this was first seen in the phase."""
    seen: dict[str, float] = {}
    async for event in connection.watch(f"{path}?watch=1&resourceVersion=0"):
        obj = event["object"]
        ours = obj["metadata"]["name"].startswith(prefix)
        if ours and obj.get("status", {}).get("phase") == phase:
            seen.setdefault(obj["metadata"]["name"], time.monotonic())
            if len(seen) >= count:
                break
    return seen


async def bind(
    run: Instance, bodies: list[dict[str, Any]], prefix: str = ""
) -> tuple[float, list[float]]:
    """Create the claims and wait until all are Bound: claims per second, and each one's wait."""
    cluster = run.cluster
    connections = [cluster.connect() for _ in range(CONNECTIONS)]
    watcher = cluster.connect()
    watching = asyncio.create_task(watch_phase(watcher, CLAIMS, "Bound", len(bodies), prefix))
    await asyncio.sleep(0.1)
    sent = await create_all(connections, CLAIMS, bodies)
    bound = await asyncio.wait_for(watching, 300)
    for connection in (*connections, watcher):
        connection.close()
    seconds = max(bound.values()) - min(sent.values())
    return len(bodies) / seconds, sorted(bound[name] - sent[name] for name in sent)


async def _dynamic(run: Instance, layout: str, count: int) -> tuple[float, list[float]]:
    await add_class(run, layout, "local.holdfast.dev", {"layout": layout})
    # Small, because images are refused when all of them, filled, would not fit on the disk.
    return await bind(run, [claim(f"claim-{i}", layout, "64Mi") for i in range(count)])


def dynamic(layout: str, count: int = 300) -> list[Figure]:
    """A burst of dynamic claims of the local backend."""
    with instance() as run:
        rate, waits = asyncio.run(_dynamic(run, layout, count))
    what = f"{count} dynamic claims, {layout} layout"
    return [
        Figure(what, rate, "claims/s", target=200, peer=79),
        Figure(f"{what}: p50 claim to Bound", statistics.median(waits), "s", 1.0, 2.4, less=True),
        Figure(f"{what}: p99 claim to Bound", waits[int(len(waits) * 0.99)], "s", less=True),
    ]


async def _static(run: Instance, count: int) -> tuple[float, list[float], float]:
    cluster = run.cluster
    connections = [cluster.connect() for _ in range(CONNECTIONS)]
    watcher = cluster.connect()
    watching = asyncio.create_task(watch_phase(watcher, VOLUMES, "Available", count))
    bodies = [volume(f"volume-{i}", 1 + i % 50) for i in range(count)]
    await create_all(connections, VOLUMES, bodies)
    await asyncio.wait_for(watching, 300)
    started = time.monotonic()
    await connections[0].request("GET", VOLUMES)
    listed = time.monotonic() - started
    for connection in (*connections, watcher):
        connection.close()
    rate, waits = await bind(run, [claim(f"claim-{i}", "static") for i in range(count)])
    return rate, waits, listed


def static(count: int, target: float) -> list[Figure]:
    """As many static claims as volumes."""
    with instance() as run:
        rate, waits, listed = asyncio.run(_static(run, count))
        memory = run.resident_mib()
    what = f"{count} static claims to {count} volumes"
    return [
        Figure(what, rate, "binds/s", target, 93 if count <= 1000 else 84),
        Figure(f"{what}: p50 claim to Bound", statistics.median(waits), "s", less=True),
        Figure(f"{what}: list of the volumes", listed * 1000, "ms", less=True),
        Figure(f"{what}: memory at the end", memory, "MiB", less=True),
    ]
