"""Latency and throughput of single creates, with the write on disk before the answer."""

from __future__ import annotations

import asyncio
import time

from benchmarks.claims import CLAIMS, CONNECTIONS, claim, create_all
from benchmarks.instance import Instance, instance
from benchmarks.report import Figure

COUNT = 500


async def _sequential(run: Instance) -> list[float]:
    connection = run.cluster.connect()
    waits = []
    for number in range(COUNT):
        started = time.monotonic()
        # A claim that names no class causes no work beside its own creation.
        await connection.request("POST", CLAIMS, claim(f"sequential-{number}", ""))
        waits.append(time.monotonic() - started)
    connection.close()
    return sorted(waits)


async def _parallel(run: Instance) -> float:
    connections = [run.cluster.connect() for _ in range(CONNECTIONS)]
    bodies = [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"c-{i}"},
            "data": {"a": "b"},
        }
        for i in range(3 * COUNT)
    ]
    started = time.monotonic()
    await create_all(connections, "/api/v1/namespaces/default/configmaps", bodies)
    seconds = time.monotonic() - started
    for connection in connections:
        connection.close()
    return len(bodies) / seconds


def creates() -> list[Figure]:
    """Creates one after the other, and over many connections."""
    with instance() as run:
        waits = asyncio.run(_sequential(run))
        rate = asyncio.run(_parallel(run))
    return [
        Figure(
            "sequential create, mean", sum(waits) / len(waits) * 1000, "ms", 2.0, 2.1, less=True
        ),
        Figure("sequential create, p99", waits[int(len(waits) * 0.99)] * 1000, "ms", less=True),
        Figure(f"creates over {CONNECTIONS} connections", rate, "creates/s", peer=1350),
    ]
