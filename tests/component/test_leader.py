"""Leader election against the real API: one works, the others wait, and hand-over is clean."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import ClassVar

import pytest

from holdfast.api import errors, kinds
from holdfast.runtime.client import Client
from holdfast.runtime.leader import Election, Timing
from holdfast.runtime.link import Link
from holdfast.testing.apiserver import ApiServer, api_server

QUICK = Timing(lease=1.0, renew=0.6, retry=0.1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with api_server(tmp_path) as running:
        yield running


class Replica:
    """Works while it leads, and remembers that it overlapped with nobody."""

    working: ClassVar[list[str]] = []

    def __init__(self, client: Client, identity: str) -> None:
        self.election = Election(
            client, name="work", namespace="kube-system", identity=identity, timing=QUICK
        )
        self.started = asyncio.Event()
        self.terms = 0

    async def work(self) -> None:
        assert not Replica.working, "two replicas work at once"
        Replica.working.append(self.election.identity)
        self.terms += 1
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            # Stopping takes a moment, as it does in life.
            await asyncio.sleep(0.05)
            Replica.working.remove(self.election.identity)

    def start(self, group: asyncio.TaskGroup) -> asyncio.Task[None]:
        return group.create_task(self.election.run(self.work))


async def lease(server: ApiServer) -> dict[str, object]:
    found = await server.client.get(kinds.LEASE, "work", "kube-system")
    spec: dict[str, object] = found["spec"]
    return spec


async def test_the_second_replica_waits_and_takes_over_at_once_when_the_first_stops(
    server: ApiServer,
) -> None:
    first, second = Replica(server.client, "a"), Replica(server.http, "b")
    async with asyncio.TaskGroup() as group:
        one = first.start(group)
        await asyncio.wait_for(first.started.wait(), 5)
        two = second.start(group)
        await asyncio.sleep(3 * QUICK.retry)
        assert not second.started.is_set()
        assert (await lease(server))["holderIdentity"] == "a"
        one.cancel()
        # Much sooner than the lease would run out: it was given back.
        await asyncio.wait_for(second.started.wait(), QUICK.lease * 0.8)
        spec = await lease(server)
        assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("b", 1)
        two.cancel()
    assert (await lease(server)).get("holderIdentity", "") == ""


async def test_a_replica_that_cannot_renew_stops_before_another_starts(server: ApiServer) -> None:
    link = Link(server.client, "a")
    first, second = Replica(link, "a"), Replica(server.client, "b")
    async with asyncio.TaskGroup() as group:
        one = first.start(group)
        await asyncio.wait_for(first.started.wait(), 5)
        two = second.start(group)
        await asyncio.sleep(QUICK.retry)
        link.cut()
        # `work` itself asserts that nobody else works.
        await asyncio.wait_for(second.started.wait(), 5)
        assert not first.election.leading and second.election.leading
        one.cancel()
        two.cancel()


async def test_a_lease_of_a_dead_replica_runs_out(server: ApiServer) -> None:
    await server.client.create(
        kinds.LEASE,
        {
            "metadata": {"name": "work", "namespace": "kube-system"},
            "spec": {
                "holderIdentity": "dead",
                "leaseDurationSeconds": 1,
                # Its clock was wrong; that it does not change is what counts.
                "renewTime": "2100-01-01T00:00:00.000000Z",
            },
        },
    )
    replica = Replica(server.client, "a")
    async with asyncio.TaskGroup() as group:
        task = replica.start(group)
        await asyncio.sleep(0.5)
        assert not replica.started.is_set()
        await asyncio.wait_for(replica.started.wait(), 5)
        task.cancel()


async def test_work_that_ends_gives_the_lease_back(server: ApiServer) -> None:
    election = Election(
        server.client, name="work", namespace="kube-system", identity="a", timing=QUICK
    )
    await election.run(lambda: asyncio.sleep(0))
    assert (await lease(server)).get("holderIdentity", "") == ""


async def test_work_that_fails_gives_the_lease_back_and_says_why(server: ApiServer) -> None:
    async def fail() -> None:
        raise errors.BadRequest("no")

    election = Election(
        server.client, name="work", namespace="kube-system", identity="a", timing=QUICK
    )
    with pytest.raises(errors.BadRequest, match="no"):
        await election.run(fail)
    assert (await lease(server)).get("holderIdentity", "") == ""
