"""A Heketi service on a socket, with disks that do not exist, and the backend on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import heketiservice
from cluster import Cluster
from holdfast.heketi import auth, http, serving
from holdfast.heketi.executors.protocol import Executor
from holdfast.server import address, config
from holdfast.testing.apiserver import api_server


@dataclass
class Served:
    """The service, and where it listens."""

    running: heketiservice.Running
    url: str

    def parameters(self, **more: str) -> dict[str, str]:
        """A class that can use it."""
        who = {"restuser": "admin", "restuserkey": heketiservice.ADMIN}
        return {"resturl": self.url, **who, **more}


@contextlib.asynccontextmanager
async def served(
    directory: Path, executor: Executor | None = None, port: int = 0
) -> AsyncIterator[Served]:
    """Run it on a port of its own."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    async with heketiservice.running(directory, executor) as running:
        sock = address.bind(config.Listen("127.0.0.1", port, fallback=False))
        started = asyncio.Event()
        gate = auth.Gate(auth.Keys(heketiservice.ADMIN, heketiservice.USER))
        app = http.App(running.service, gate)
        task = asyncio.create_task(serving.serve(app, sock, started=started))
        await started.wait()
        try:
            yield Served(running, f"http://127.0.0.1:{sock.getsockname()[1]}")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def heketi(tmp_path: Path) -> AsyncIterator[Served]:
    """One cluster of three nodes, each with two disks of 500 GiB."""
    async with served(tmp_path / "heketi") as made:
        await made.running.cluster()
        yield made


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """Everything `holdfast up` runs, in this process."""
    (tmp_path / "data").mkdir()
    async with api_server(tmp_path) as server:
        made = Cluster(server.resources, server.client, tmp_path / "data")
        await made.start()
        yield made
        await made.crash()
        made.dispose()
