"""A Heketi database of 10,000 volumes: what one more costs us, and how long the topology takes.

Bricks and GlusterFS are left out (the executor does nothing) and the processor's time is taken:
it is our own time that counts. The topology is written by the server and read by the client.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks.report import Figure
from holdfast.cli.heketi_cli import texts
from holdfast.heketi import entries
from holdfast.heketi.answers import Asked
from holdfast.heketi.database import Database
from holdfast.heketi.endpoints import clusters, volumes
from holdfast.heketi.entries import Brick, Cluster, Device, Durability, Node, Ticket, Volume
from holdfast.heketi.executors.mock import MockExecutor
from holdfast.heketi.service import Service
from holdfast.heketi.settings import Settings
from holdfast.heketi.sizes import Limits
from holdfast.heketi.state import State

VOLUMES, CREATES = 10_000, 200
NODES, DISKS = 9, 12


def _hardware(cluster: Cluster) -> Iterator[Node | Device]:
    for number in range(NODES):
        node = Node(
            id=entries.new_id(),
            cluster=cluster.id,
            zone=number % 3 + 1,
            manage=f"node{number}",
            storage=f"10.0.0.{number}",
        )
        yield node
        for disk in range(DISKS):
            yield Device(
                id=entries.new_id(), node=node.id, name=f"/dev/sd{disk}", total=4000 * entries.GIB
            )


def _fill(state: State) -> None:
    """The volumes, as they are after they were made."""
    cluster = Cluster(id=entries.new_id())
    hardware = list(_hardware(cluster))
    devices = [each for each in hardware if isinstance(each, Device)]
    with state.transaction() as transaction:
        transaction.put(cluster, *hardware)
        for number in range(VOLUMES):
            key = entries.new_id()
            kind = Durability(type="replicate", replica=3)
            transaction.put(
                Volume(id=key, name=f"vol_{key}", cluster=cluster.id, size=1, durability=kind)
            )
            for position in range(3):
                device = devices[(number + position * len(devices) // 3) % len(devices)]
                brick = entries.new_id()
                transaction.put(
                    Brick(
                        id=brick,
                        device=device.id,
                        volume=key,
                        size=entries.GIB,
                        pool_size=entries.GIB,
                        pool_metadata=8192,
                        position=position,
                        path=f"/var/lib/heketi/mounts/vg_{device.id}/brick_{brick}/brick",
                    )
                )


async def _create(service: Service) -> float:
    body = b'{"size":1,"durability":{"type":"replicate","replicate":{"replica":3}}}'
    began = time.process_time()
    answer = await volumes.create(service, Asked("POST", "/volumes", body))
    ticket = answer.headers["Location"].rpartition("/")[2]
    while not service.state.get(Ticket, ticket).done:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return time.process_time() - began


async def _measure(directory: Path) -> list[Figure]:
    settings = Settings(database=directory / "heketi.db", limits=Limits(volumes=-1))
    state = State(Database(settings.database))
    _fill(state)
    state.close()
    began = time.perf_counter()
    state = State(Database(settings.database))
    opened = time.perf_counter() - began
    service = Service(settings, state, MockExecutor())
    work = asyncio.ensure_future(service.engine.run())
    creates = [await _create(service) for _ in range(CREATES)]
    gc.collect()
    gc.freeze()
    gc.disable()
    began = time.process_time()
    answer = await clusters.topology(service, Asked("GET", "/topology"))
    text = texts.topology(msgspec.json.decode(answer.body))
    shown = time.process_time() - began
    gc.enable()
    gc.unfreeze()
    assert text.count("Durability Type") == VOLUMES + CREATES
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    await service.close()
    middle = statistics.median(creates) * 1000
    return [
        Figure("heketi: create at 10,000 volumes, own time", middle, "ms", 5.0, less=True),
        Figure("heketi: topology info of 10,000 volumes", shown, "s", 1.0, less=True),
        Figure("heketi: open a database of 10,000 volumes", opened, "s", 3.0, less=True),
    ]


def sizes() -> list[Figure]:
    """Make the database and measure."""
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_measure(Path(directory)))
