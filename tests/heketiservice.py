"""A Heketi service in the test's own process, with the executor that does nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2

from holdfast.heketi import auth, serving
from holdfast.heketi.database import Database
from holdfast.heketi.executors.mock import MockExecutor
from holdfast.heketi.executors.protocol import Executor
from holdfast.heketi.http import App
from holdfast.heketi.service import Service
from holdfast.heketi.settings import ExecutorSettings, Settings
from holdfast.heketi.state import State
from holdfast.server import address, config

ADMIN, USER = "the administrator's long enough key", "the user's key, which is another one"


@dataclass
class Running:
    """The service and a client of it."""

    service: Service
    client: httpx2.AsyncClient
    role: str = "admin"

    async def ask(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """One request with a token of its own, as clients make them."""
        key = ADMIN if self.role == "admin" else USER
        token = auth.token(self.role, key, method, path.partition("?")[0])
        content = None if body is None else json.dumps(body)
        headers = {"Authorization": f"bearer {token}"}
        return await self.client.request(method, path, content=content, headers=headers)

    async def get(self, path: str) -> Any:
        """A JSON document."""
        answer = await self.ask("GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def result(self, answer: httpx2.Response) -> httpx2.Response:
        """What an accepted request came to."""
        assert answer.status_code == 202, answer.text
        while True:
            found = await self.ask("GET", answer.headers["location"])
            if found.headers.get("x-pending") != "true":
                return found
            await asyncio.sleep(0.001)

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        """An accepted request that succeeds, and what it made."""
        found = await self.result(await self.ask(method, path, body))
        assert found.status_code in (204, 303), found.text
        return await self.get(found.headers["location"]) if found.status_code == 303 else None

    async def cluster(self, nodes: int = 3, disks: int = 2, **flags: bool) -> str:
        """A cluster with nodes in zones of their own and disks of 500 GiB."""
        made = (await self.ask("POST", "/clusters", flags)).json()
        for node in range(1, nodes + 1):
            await self.node(made["id"], node, disks)
        return str(made["id"])

    async def node(self, cluster: str, number: int, disks: int = 2) -> Any:
        """One more node."""
        hosts = {"manage": [f"node{number}"], "storage": [f"10.0.0.{number}"]}
        body = {"cluster": cluster, "zone": number, "hostnames": hosts}
        node = await self.done("POST", "/nodes", body)
        for disk in range(disks):
            body = {"node": node["id"], "name": f"/dev/sd{'bcdefgh'[disk]}"}
            await self.done("POST", "/devices", body)
        return await self.get(f"/nodes/{node['id']}")


@contextlib.asynccontextmanager
async def running(
    directory: Path, executor: Executor | None = None, **changes: Any
) -> AsyncIterator[Running]:
    """Run one over a database in the directory; entering again continues with it."""
    settings = Settings(
        database=directory / "heketi.db",
        keys=auth.Keys(ADMIN, USER),
        executor=ExecutorSettings(kind="mock"),
        monitor=False,
        cleaner=False,
    )
    settings = replace(settings, **changes)
    assert settings.keys is not None
    service = Service(settings, State(Database(settings.database)), executor or MockExecutor())
    transport = httpx2.ASGITransport(App(service, auth.Gate(settings.keys)))
    work = asyncio.ensure_future(service.run())
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://heketi") as client:
            yield Running(service, client)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await service.close()


@dataclass
class Served:
    """The service on a socket."""

    running: Running
    url: str

    def parameters(self, **more: str) -> dict[str, str]:
        """A class that can use it."""
        who = {"restuser": "admin", "restuserkey": ADMIN}
        return {"resturl": self.url, **who, **more}


@contextlib.asynccontextmanager
async def served(
    directory: Path, executor: Executor | None = None, port: int = 0
) -> AsyncIterator[Served]:
    """Run it on a port of its own."""
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    async with running(directory, executor) as made:
        sock = address.bind(config.Listen("127.0.0.1", port, fallback=False))
        started = asyncio.Event()
        gate = auth.Gate(auth.Keys(ADMIN, USER))
        app = App(made.service, gate)
        task = asyncio.create_task(serving.serve(app, sock, started=started))
        await started.wait()
        try:
            yield Served(made, f"http://127.0.0.1:{sock.getsockname()[1]}")
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
